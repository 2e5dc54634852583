//! Makes one tree (or one file) like another, touching only what differs.
//!
//! First everything that the source does not have is removed, then what differs is copied, so that no
//! more room is needed than the source itself takes. Each entry is removed before it is copied,
//! never written to in place. Doing it again after an interruption gives the same result.

use std::fs;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::domain::progress::Progress;
use crate::install::anchor::Anchor;
use crate::install::durable;
use crate::install::durable::Touched;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::index::Index;
use crate::install::index::Trust;
use crate::install::scope::Belongs;
use crate::install::scope::Scope;
use crate::install::tree;
use crate::install::tree::Links;

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
    pub(super) links: Links,
    pub(super) noted: Index,
    pub(super) done: Done,
    /// What is to be made durable, by name.
    pub(super) touched: Touched,
}

impl Mirror<'_, '_> {
    /// Does it. Afterwards `noted` says what the application's files look like.
    pub(super) fn run(&mut self) -> Result<(), InstallError> {
        let root = Path::new("");
        let (from, to) = (self.from, self.to);
        let Some(about) = tree::look(from)? else {
            return durable::remove_any(to);
        };
        if !about.is_dir() {
            return self.copy_file(root, from, to, &about);
        }
        if let Some(to) = Anchor::open(to)? {
            self.prune(root, Anchor::open(from)?.as_ref(), &to)?;
        }
        self.copy_dir(root, from, to, &about)
    }

    /// The name of an entry of the target.
    fn name(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.to.to_owned() } else { self.to.join(path) }
    }

    /// Removes below `dir` what belongs to the data and is not in the source.
    fn prune(&mut self, dir: &Path, from: Option<&Anchor>, to: &Anchor) -> Result<(), InstallError> {
        for name in tree::names(&to.path())? {
            self.watch.check()?;
            let path = dir.join(&name);
            let entry = to.entry(&name);
            let Some(about) = tree::look(&entry)? else { continue };
            let belongs = self.scope.of(&path, &about);
            if belongs == Belongs::No {
                continue;
            }
            let source = from.map(|from| from.entry(&name));
            let wanted = source.as_deref().map(tree::look).transpose()?.flatten();
            let stays = wanted.as_ref().is_some_and(|wanted| wanted.is_dir() == about.is_dir());
            if about.is_dir() {
                let below = source.as_deref().map(Anchor::open).transpose()?.flatten();
                if let Some(entry) = Anchor::open(&entry)? {
                    self.prune(&path, below.as_ref(), &entry)?;
                }
                if !stays && belongs == Belongs::Yes {
                    self.remove_dir(&entry)?;
                    self.touched.add(&self.name(&path));
                }
            } else if !stays {
                durable::remove_file(&entry)?;
                self.touched.add(&self.name(&path));
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

    fn copy_dir(&mut self, dir: &Path, from: &Path, to: &Path, about: &Metadata) -> Result<(), InstallError> {
        if tree::make_dir(to)? {
            self.touched.add(&self.name(dir));
        }
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let source = Anchor::open(from)?.ok_or_else(gone).at("open", from)?;
        let target = Anchor::open(to)?.ok_or_else(gone).at("open", to)?;
        for name in tree::names(&source.path())? {
            self.watch.check()?;
            let path = dir.join(&name);
            let (from, to) = (source.entry(&name), target.entry(&name));
            let Some(about) = tree::look(&from)? else { continue };
            match self.scope.of(&path, &about) {
                Belongs::No => continue,
                _ if about.is_dir() => self.copy_dir(&path, &from, &to, &about),
                _ => self.copy_file(&path, &from, &to, &about),
            }
            .or_else(|error| if self.vanished(&from, &about) { Ok(()) } else { Err(error) })?;
        }
        if tree::match_attributes(from, about, to)? {
            self.touched.add(&self.name(dir));
        }
        Ok(())
    }

    /// Whether an entry of the source is gone or another by now, while people work; then an error means nothing.
    fn vanished(&self, from: &Path, about: &Metadata) -> bool {
        self.live && tree::look(from).is_ok_and(|now| now.is_none_or(|now| now.ino() != about.ino()))
    }

    fn copy_file(&mut self, path: &Path, from: &Path, to: &Path, about: &Metadata) -> Result<(), InstallError> {
        let name = self.name(path);
        let present = tree::look(to)?;
        let ours = match self.known {
            Known::Source => Some(about),
            Known::Target => present.as_ref(),
        };
        let stamp = self.index.get(path).filter(|stamp| ours.is_some_and(|ours| stamp.still(ours)));
        let same_kind = present.as_ref().is_some_and(|present| present.file_type() == about.file_type());
        let kept = stamp.is_some() && same_kind && self.link_is_right(about, present.as_ref(), &name)?;
        let mut noted = stamp.copied();
        if !kept {
            // Noted before it is read: a change while we read shows the next time.
            noted = Some(self.trust.stamp(about));
            let bytes = tree::copy_entry(from, about, to, &name, &mut self.links)?;
            self.touched.add(&name);
            self.done.copied_files += 1;
            self.done.copied_bytes += bytes;
        }
        if self.known == Known::Target && !kept {
            noted = tree::look(to)?.as_ref().map(|about| self.trust.stamp(about));
        }
        if let Some(noted) = noted {
            self.noted.insert(path.to_owned(), noted);
        }
        self.done.files += 1;
        self.done.bytes += about.size();
        self.watch.advance(about.size());
        Ok(())
    }

    /// Whether an unchanged copy is linked with the same others as its source; the first of them leads.
    fn link_is_right(
        &mut self,
        about: &Metadata,
        present: Option<&Metadata>,
        name: &Path,
    ) -> Result<bool, InstallError> {
        if about.nlink() < 2 {
            // The application's own file may be linked from elsewhere; our copy may not.
            return Ok(self.known == Known::Target || present.is_none_or(|present| present.nlink() < 2));
        }
        let key = (about.dev(), about.ino());
        let Some(first) = self.links.get(&key) else {
            self.links.insert(key, name.to_owned());
            return Ok(true);
        };
        let first = tree::look(first)?;
        Ok(first
            .zip(present.cloned())
            .is_some_and(|(first, present)| (first.dev(), first.ino()) == (present.dev(), present.ino())))
    }
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
