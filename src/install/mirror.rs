//! Makes one tree (or one file) like another, touching only what differs.
//!
//! First everything that the source does not have is removed, then what differs is copied, so that no
//! more room is needed than the source itself takes. Each entry is removed before it is copied,
//! never written to in place, and the copy is [made](super::work) where nobody else can reach it. Doing it again after an interruption gives the same result.

use std::ffi::OsStr;
use std::fs;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::domain::progress::Progress;
use crate::files::identity::Identity;
use crate::files::identity::work_as;
use crate::install::anchor::Anchor;
use crate::install::durable;
use crate::install::durable::Touched;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::error::must_be_near;
use crate::install::index::Index;
use crate::install::index::Trust;
use crate::install::layout::parent;
use crate::install::remove;
use crate::install::remove::Stays;
use crate::install::scope::Belongs;
use crate::install::scope::Scope;
use crate::install::tree;
use crate::install::tree::Held;
use crate::install::walk::is_too_deep;
use crate::install::work::Maker;
use crate::install::work::Spot;
use crate::install::work::WORK;

/// On which side the files are that the index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// The application's data are the source: a snapshot.
    Source,
    /// The application's data are the target: a restore.
    Target,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) copied_files: u64,
    pub(super) copied_bytes: u64,
    pub(super) removed: u64,
}

/// How long work is told about and ended.
pub(super) struct Watch<'a> {
    pub(super) progress: &'a dyn Progress,
    pub(super) total_bytes: Option<u64>,
    pub(super) done_bytes: u64,
    pub(super) what: &'static str,
    pub(super) cancelled: &'a AtomicBool,
}

impl Watch<'_> {
    pub(super) fn check(&self) -> Result<(), InstallError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(InstallError::Cancelled) } else { Ok(()) }
    }

    fn advance(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        self.progress.advance(self.done_bytes, self.total_bytes.map(|total| total.max(self.done_bytes)), self.what);
    }
}

/// One tree to be made like another.
pub(super) struct Mirror<'a, 'w> {
    pub(super) from: &'a Path,
    pub(super) to: &'a Path,
    pub(super) scope: &'a Scope,
    pub(super) index: &'a Index,
    pub(super) known: Known,
    pub(super) trust: Trust,
    /// Somebody works on the source: entries may vanish.
    pub(super) live: bool,
    pub(super) watch: &'a mut Watch<'w>,
    pub(super) maker: Maker,
    pub(super) noted: Index,
    pub(super) done: Done,
    /// What is to be made durable.
    pub(super) touched: Touched,
}

impl<'a, 'w> Mirror<'a, 'w> {
    /// Entries are made in a folder in `side`, which only we can reach.
    pub(super) fn new(
        (from, to): (&'a Path, &'a Path),
        side: &Path,
        (scope, index): (&'a Scope, &'a Index),
        known: Known,
        trust: Trust,
        watch: &'a mut Watch<'w>,
    ) -> Result<Self, InstallError> {
        Ok(Self {
            from,
            to,
            scope,
            index,
            known,
            trust,
            live: false,
            watch,
            maker: Maker::new(Anchor::follow(side)?.ok_or_else(gone).at("open", side)?),
            noted: Index::default(),
            done: Done::default(),
            touched: Touched::default(),
        })
    }

    /// Does it. Afterwards `noted` says what the application's files look like.
    pub(super) fn run(&mut self) -> Result<(), InstallError> {
        let root = Path::new("");
        let (from, to) = (self.from, self.to);
        let above = match self.known {
            Known::Source => Anchor::follow(parent(to))?,
            // Noted without links, and since then the application's user may have put one in the way.
            Known::Target => Anchor::straight(parent(to))?,
        };
        let above = above.ok_or_else(gone).at("open", parent(to))?;
        let spot = Spot { dir: &above, name: to.file_name().unwrap_or_default(), path: root };
        let Some(about) = tree::look(from)? else {
            self.touched.dir(&above)?;
            return durable::remove_any(&above.entry(spot.name));
        };
        if !about.is_dir() {
            return self.copy_file(root, from, spot, &about);
        }
        let source = Anchor::open(from)?.ok_or_else(gone).at("open", from)?;
        let about = Box::new(source.about()?);
        let target = self.enter(spot, &about)?;
        self.maker.set_root(&target)?;
        if let Some(owner) = self.owner() {
            let held = Held::dir(&target)?;
            if held.about().uid() == rustix::process::geteuid().as_raw() {
                // We have just made it.
                held.set_owner(to, owner.uid, owner.gid)?;
            }
            self.maker.work_for(owner)?;
            match self.fill(&source, &target, &about, Some(owner)) {
                // Something that is not theirs stands in the way.
                Err(error) if error.is_denied() => self.start_again(),
                done => return done,
            }
        }
        self.fill(&source, &target, &about, None)
    }

    /// With whose rights the tree can be put back: those of the user whom everything in it belongs to.
    fn owner(&self) -> Option<Identity> {
        self.index.owner().filter(|owner| self.known == Known::Target && owner.uid != 0 && tree::is_root())
    }

    fn start_again(&mut self) {
        self.maker.forget();
        (self.noted, self.done) = (Index::default(), Done::default());
    }

    /// Puts everything in the target that is in the source, and nothing else.
    fn fill(
        &mut self,
        source: &Anchor,
        target: &Anchor,
        about: &Metadata,
        owner: Option<Identity>,
    ) -> Result<(), InstallError> {
        let root = Path::new("");
        let fill = || {
            self.prune(root, Some(source), target)?;
            self.copy_dir(root, source, target, about)
        };
        work_as(owner, fill).at("work with the rights of the owner of", &target.path())?
    }

    /// The directory at a place, made if there is none.
    fn enter(&mut self, to: Spot<'_>, about: &Metadata) -> Result<Anchor, InstallError> {
        let (target, made) = self.maker.dir(to, about)?;
        if made {
            self.touched.dir(to.dir)?;
            self.touched.dir(&target)?;
        }
        Ok(target)
    }

    /// Removes below `dir` what belongs to the data and is not in the source.
    fn prune(&mut self, dir: &Path, from: Option<&Anchor>, to: &Anchor) -> Result<(), InstallError> {
        for name in tree::names(&to.path())? {
            self.watch.check()?;
            let path = dir.join(&name);
            let entry = to.entry(&name);
            let Some(about) = tree::look(&entry)? else { continue };
            if is_left_over(&name, &about) {
                durable::remove_any(&entry)?;
                continue;
            }
            let belongs = self.scope.of(&path, &about);
            if belongs == Belongs::No {
                continue;
            }
            let wanted = from.map(|from| tree::look(&from.entry(&name))).transpose()?.flatten();
            let stays = wanted.as_ref().is_some_and(|wanted| wanted.is_dir() == about.is_dir());
            if about.is_dir() && is_too_deep(&path) {
                // No copy has it.
                let mut stays = Stays::default();
                remove::remove(&entry, &mut stays, self.watch.cancelled)?;
                stays.because.map_or(Ok(()), Err)?;
                self.touched.dir(to)?;
            } else if about.is_dir() {
                let below = from.map(|from| from.child(&name)).transpose()?.flatten();
                if let Some(entry) = to.child(&name)? {
                    self.prune(&path, below.as_ref(), &entry)?;
                }
                if !stays && belongs == Belongs::Yes {
                    self.remove_dir(&entry)?;
                    self.touched.dir(to)?;
                }
            } else if !stays {
                durable::remove_file(&entry)?;
                self.touched.dir(to)?;
                self.done.removed += 1;
            }
        }
        Ok(())
    }

    /// Removes a directory unless something that is not ours is left in it.
    fn remove_dir(&mut self, path: &Path) -> Result<(), InstallError> {
        match fs::remove_dir(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) => {}
            Err(error) if durable::is_absent(&error) => {}
            removed => {
                removed.at("remove", path)?;
                self.done.removed += 1;
            }
        }
        Ok(())
    }

    fn copy_dir(&mut self, dir: &Path, source: &Anchor, target: &Anchor, about: &Metadata) -> Result<(), InstallError> {
        self.noted.see(about);
        for name in tree::names(&source.path())? {
            self.watch.check()?;
            let path = dir.join(&name);
            let from = source.entry(&name);
            let Some(about) = tree::look(&from)? else { continue };
            if is_left_over(&name, &about) || self.scope.of(&path, &about) == Belongs::No {
                continue;
            }
            let to = Spot { dir: target, name: &name, path: &path };
            let copied = if about.is_dir() {
                self.copy_below(&path, source, to)
            } else {
                self.copy_file(&path, &from, to, &about)
            };
            copied.or_else(|error| if self.vanished(&from, &about) { Ok(()) } else { Err(error) })?;
        }
        self.maker.leave(target)?;
        let (from, to) = (Held::dir(source)?.looked(about), Held::dir(target)?);
        if from.match_attributes(&source.path(), &to, &target.path())? {
            self.touched.dir(target)?;
        }
        Ok(())
    }

    fn copy_below(&mut self, path: &Path, source: &Anchor, to: Spot<'_>) -> Result<(), InstallError> {
        must_be_near(path)?;
        let source = source.child(to.name)?.ok_or_else(gone).at("open", &source.entry(to.name))?;
        let about = Box::new(source.about()?);
        let target = self.enter(to, &about)?;
        self.copy_dir(path, &source, &target, &about)
    }

    /// Whether an entry of the source is gone or another by now, while people work; then an error means nothing.
    fn vanished(&self, from: &Path, about: &Metadata) -> bool {
        self.live && tree::look(from).is_ok_and(|now| now.is_none_or(|now| now.ino() != about.ino()))
    }

    fn copy_file(&mut self, path: &Path, from: &Path, to: Spot<'_>, about: &Metadata) -> Result<(), InstallError> {
        let present = tree::look(&to.dir.entry(to.name))?;
        let ours = match self.known {
            Known::Source => Some(about),
            Known::Target => present.as_ref(),
        };
        let stamp = self.index.get(path).filter(|stamp| ours.is_some_and(|ours| stamp.still(ours)));
        let kept = match (&present, stamp) {
            (Some(present), Some(_)) if present.file_type() == about.file_type() => {
                self.link_is_right(about, present, path)
            }
            _ => false,
        };
        let noted = if kept {
            stamp.copied()
        } else {
            // Noted before it is read: a change while we read shows the next time.
            let noted = self.trust.stamp(about);
            let made = self.maker.copy(from, about, to)?;
            self.done.copied_files += 1;
            self.done.copied_bytes += made.bytes;
            let noted = match self.known {
                Known::Source => noted,
                Known::Target => self.trust.stamp(&made.held.now(from)?),
            };
            self.touched.made(made.held, to.dir)?;
            Some(noted)
        };
        self.noted.see(about);
        if let Some(noted) = noted {
            self.noted.insert(path.to_owned(), noted);
        }
        self.done.files += 1;
        self.done.bytes += about.size();
        self.watch.advance(about.size());
        Ok(())
    }

    /// Whether an unchanged copy is linked with the same others as its source; the first of them leads.
    fn link_is_right(&mut self, about: &Metadata, present: &Metadata, path: &Path) -> bool {
        if about.nlink() < 2 {
            // The application's own file may be linked from elsewhere; our copy may not.
            return self.known == Known::Target || present.nlink() < 2;
        }
        self.maker.is_linked(about, path, present)
    }
}

fn gone() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

/// Whether an entry is a folder of ours that a crash left.
fn is_left_over(name: &OsStr, about: &Metadata) -> bool {
    name == WORK && about.is_dir()
}

impl Done {
    pub(super) fn add(&mut self, more: Self) {
        self.files += more.files;
        self.bytes += more.bytes;
        self.copied_files += more.copied_files;
        self.copied_bytes += more.copied_bytes;
        self.removed += more.removed;
    }
}
