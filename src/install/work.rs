//! Where entries are made: in a folder that nobody but us can reach, and from there put in their place by one rename.
//!
//! ```text
//! source held open ──► made in the folder ──► owner, mode, attributes, times on its descriptor ──► renamed into its place
//! ```
//!
//! So an entry appears with everything that belongs to it, and nobody who may write where it goes can put another
//! in its place between two of our calls. Directories that are there already stay only where their owner is the right one.
//!
//! Invariant: nothing in a directory that is not ours changes its owner or its mode, but directories, on their descriptor.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::files::identity::Identity;
use crate::files::identity::fs_uid;
use crate::install::anchor::Anchor;
use crate::install::anchor::held_path;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::tree;
use crate::install::tree::Held;

/// The folder's name, wherever it is; what is left of one after a crash is removed by the next, and is never data.
pub(super) const WORK: &str = ".afterhours-work";
/// How often somebody may put something in our way before we give up.
const TRIES: u32 = 100;

/// Where an entry goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'a> {
    /// The directory.
    pub(super) dir: &'a Anchor,
    /// The name in it.
    pub(super) name: &'a OsStr,
    /// The path from the root of the tree, for later links.
    pub(super) path: &'a Path,
}

impl Spot<'_> {
    fn entry(&self) -> PathBuf {
        self.dir.entry(self.name)
    }
}

/// The first copy of a file with several names.
#[derive(Debug)]
struct First {
    path: PathBuf,
    about: Metadata,
}

/// An entry that was made.
#[derive(Debug)]
pub(super) struct Made {
    /// The bytes that were copied, 0 when they are shared.
    pub(super) bytes: u64,
    /// The entry itself.
    pub(super) held: Held,
}

/// A folder of ours.
#[derive(Debug)]
struct Work {
    dir: Anchor,
    above: Anchor,
    /// Device and inode of the directory it is in.
    home: (u64, u64),
}

impl Work {
    fn make(above: &Anchor) -> Result<Self, InstallError> {
        let name = OsStr::new(WORK);
        let path = above.entry(name);
        for _ in 0..TRIES {
            durable::remove_any(&path)?;
            match rustix::fs::mkdirat(above.file(), name, Mode::RWXU) {
                Err(Errno::EXIST) => continue,
                made => made.at("create", &path)?,
            }
            let Some(dir) = above.child(name)? else { continue };
            let about = dir.about()?;
            // Another in its place would be as good, if only we can reach it.
            if about.uid() == fs_uid() && about.mode() & 0o077 == 0 {
                let home = above.about()?;
                return Ok(Self { dir, above: again(above)?, home: (home.dev(), home.ino()) });
            }
        }
        Err(in_the_way()).at("create", &path)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What stays is removed by the next.
        let _ = durable::remove_any(&self.above.entry(OsStr::new(WORK)));
    }
}

fn again(dir: &Anchor) -> Result<Anchor, InstallError> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    dir.below(Path::new(""))?.ok_or_else(gone).at("open", &dir.path())
}

fn in_the_way() -> io::Error {
    io::Error::other("somebody keeps putting something else in its place")
}

/// Makes the entries of one tree.
#[derive(Debug)]
pub(super) struct Maker {
    works: Vec<Work>,
    /// Where a folder is made when there is none yet.
    side: Anchor,
    /// The tree, once there is one, to find first copies in.
    root: Option<Anchor>,
    /// By device and inode of the source.
    links: HashMap<(u64, u64), First>,
    count: u64,
}

impl Maker {
    /// Works in a folder in `side`, which should be on the file system of the tree.
    pub(super) fn new(side: Anchor) -> Self {
        Self { works: Vec::new(), side, root: None, links: HashMap::new(), count: 0 }
    }

    /// Tells which directory is the tree.
    pub(super) fn set_root(&mut self, root: &Anchor) -> Result<(), InstallError> {
        self.root = Some(again(root)?);
        Ok(())
    }

    /// Notes that a file with several names stands at `path` already; says whether `about` is that or a link to it.
    pub(super) fn is_linked(&mut self, source: &Metadata, path: &Path, about: &Metadata) -> bool {
        let first = self.links.entry((source.dev(), source.ino()));
        let first = first.or_insert_with(|| First { path: path.to_owned(), about: about.clone() });
        (first.about.dev(), first.about.ino()) == (about.dev(), about.ino())
    }

    /// Puts a copy of what `about` says is at `from` in its place: anything but a directory. Whatever was there is removed first.
    pub(super) fn copy(&mut self, from: &Path, about: &Metadata, to: Spot<'_>) -> Result<Made, InstallError> {
        let source = Held::open(from, about)?;
        durable::remove_any(&to.entry())?;
        let key = (about.dev(), about.ino());
        let many = about.nlink() > 1;
        if many && let Some(held) = self.links.get(&key).and_then(|first| self.link(first, to).transpose()) {
            return Ok(Made { bytes: 0, held: held? });
        }
        let made = self.put(to, |dir, name| {
            let entry = dir.entry(name);
            make(&source, from, &entry).inspect_err(|_| drop(fs::remove_file(&entry)))
        })?;
        if many {
            self.links.insert(key, First { path: to.path.to_owned(), about: made.held.now(&to.entry())? });
        }
        Ok(made)
    }

    /// Makes another name for a copy, if that still is where it was put; else there is none.
    fn link(&self, first: &First, to: Spot<'_>) -> Result<Option<Held>, InstallError> {
        let Some((root, name)) = self.root.as_ref().zip(first.path.file_name()) else { return Ok(None) };
        let Some(dir) = root.below(first.path.parent().unwrap_or(Path::new("")))? else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(dir.file(), name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            file => File::from(file.at("open", &dir.entry(name))?),
        };
        let about = file.metadata().at("look at", &dir.entry(name))?;
        let plain = |about: &Metadata| (about.dev(), about.ino(), about.uid(), about.gid(), about.mode(), about.size());
        if plain(&about) != plain(&first.about) {
            return Ok(None);
        }
        let (path, entry) = (held_path(&file), to.entry());
        for _ in 0..TRIES {
            match rustix::fs::linkat(CWD, &path, to.dir.file(), to.name, AtFlags::SYMLINK_FOLLOW) {
                Ok(()) => return Ok(Some(Held::of(file, about))),
                Err(Errno::EXIST) => durable::remove_any(&entry)?,
                // It is gone, or linked as often as can be, or out of reach: then it is copied once more.
                Err(Errno::NOENT | Errno::MLINK | Errno::XDEV) => return Ok(None),
                Err(error) => return Err(error).at("link", &entry),
            }
        }
        Err(in_the_way()).at("link", &entry)
    }

    /// Holds the directory at a place that shall belong to whom `wanted` says, and says whether it had to be made. Its
    /// attributes follow when its content is there; until then one that was made is ours alone.
    pub(super) fn dir(&mut self, to: Spot<'_>, wanted: &Metadata) -> Result<(Anchor, bool), InstallError> {
        match to.dir.child(to.name)? {
            Some(old) if old.about()?.uid() == wanted.uid() || !tree::is_root() => Ok((old, false)),
            Some(old) => self.replace(old, to),
            None => {
                durable::remove_any(&to.entry())?;
                self.put(to, new_dir).map(|dir| (dir, true))
            }
        }
    }

    /// Neither hands a directory over nor takes one: puts a new one in its place, and moves what is in it.
    fn replace(&mut self, old: Anchor, to: Spot<'_>) -> Result<(Anchor, bool), InstallError> {
        let entry = to.entry();
        let mut retried = false;
        loop {
            let name = self.next_name();
            let work = self.work()?;
            let made = new_dir(&work.dir, &name)?;
            let exchange = || {
                let how = RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(work.dir.file(), &name, to.dir.file(), to.name, how)
            };
            match exchange() {
                Ok(()) => {
                    if let Some(old) = work.dir.child(&name)?
                        && let Err(error) = move_all(&old, &made)
                    {
                        // Nothing is lost: what could not be moved may be nobody's to remove.
                        exchange().at("exchange", &entry)?;
                        move_all(&made, &old)?;
                        return Err(error);
                    }
                    durable::remove_any(&work.dir.entry(&name))?;
                    return Ok((made, true));
                }
                Err(error) => {
                    durable::remove_any(&work.dir.entry(&name))?;
                    match error {
                        Errno::XDEV if !retried => {
                            retried = true;
                            self.works.push(Work::make(to.dir)?);
                        }
                        // Something is mounted there, so nobody else can move it; or there is no such call.
                        Errno::BUSY | Errno::INVAL | Errno::NOSYS => return Ok((old, false)),
                        error => return Err(error).at("exchange", &entry),
                    }
                }
            }
        }
    }

    /// Lets go of what was needed in a directory only.
    pub(super) fn leave(&mut self, dir: &Anchor) -> Result<(), InstallError> {
        if self.works.len() > 1 {
            let about = dir.about()?;
            self.works.retain(|work| work.home != (about.dev(), about.ino()));
        }
        Ok(())
    }

    fn next_name(&mut self) -> OsString {
        self.count += 1;
        self.count.to_string().into()
    }

    /// Makes the folder ahead, for work with the rights of `owner`. Nobody else gets into the folder around it.
    pub(super) fn work_for(&mut self, owner: Identity) -> Result<(), InstallError> {
        let work = self.work()?;
        Held::dir(&work.dir)?.set_owner(&work.dir.path(), owner.uid, owner.gid)
    }

    /// Forgets what was made.
    pub(super) fn forget(&mut self) {
        self.works.clear();
        self.links.clear();
    }

    fn work(&mut self) -> Result<&Work, InstallError> {
        if self.works.is_empty() {
            self.works.push(Work::make(&self.side)?);
        }
        // There is one now.
        self.works.last().ok_or_else(in_the_way).at("find", &self.side.path())
    }

    /// Makes an entry in our folder and moves it in its place; where that is on another file system, in a folder there.
    fn put<T>(
        &mut self,
        to: Spot<'_>,
        make: impl Fn(&Anchor, &OsStr) -> Result<T, InstallError>,
    ) -> Result<T, InstallError> {
        let entry = to.entry();
        let mut retried = false;
        for _ in 0..TRIES {
            let name = self.next_name();
            let work = self.work()?;
            let made = make(&work.dir, &name)?;
            match move_in(&work.dir, &name, to) {
                Ok(()) => return Ok(made),
                Err(error) => {
                    durable::remove_any(&work.dir.entry(&name))?;
                    if error != Errno::XDEV || retried {
                        return Err(error).at("rename", &entry);
                    }
                    retried = true;
                    self.works.push(Work::make(to.dir)?);
                }
            }
        }
        Err(in_the_way()).at("create", &entry)
    }
}

/// Moves an entry in its place, over whatever somebody puts there meanwhile.
fn move_in(work: &Anchor, name: &OsStr, to: Spot<'_>) -> Result<(), Errno> {
    for _ in 0..TRIES {
        match rustix::fs::renameat(work.file(), name, to.dir.file(), to.name) {
            Err(error @ (Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR | Errno::NOTDIR)) => {
                durable::remove_any(&to.entry()).map_err(|_| error)?;
            }
            moved => return moved,
        }
    }
    Err(Errno::EXIST)
}

fn new_dir(dir: &Anchor, name: &OsStr) -> Result<Anchor, InstallError> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let path = dir.entry(name);
    rustix::fs::mkdirat(dir.file(), name, Mode::RWXU).at("create", &path)?;
    dir.child(name)?.ok_or_else(gone).at("open", &path)
}

fn move_all(from: &Anchor, to: &Anchor) -> Result<(), InstallError> {
    for name in tree::names(&from.path())? {
        match rustix::fs::renameat(from.file(), &name, to.file(), &name) {
            Err(Errno::NOENT) => {}
            moved => moved.at("rename", &from.entry(&name))?,
        }
    }
    Ok(())
}

/// Makes a copy at `to`, where only we are, with everything that belongs to it.
fn make(source: &Held, from: &Path, to: &Path) -> Result<Made, InstallError> {
    let about = source.about();
    let kind = about.file_type();
    let (held, bytes) = if kind.is_file() {
        let file = File::options().write(true).create_new(true).mode(0o600).open(to).at("create", to)?;
        let bytes = source.copy_content(from, &file, to)?;
        (Held::made(file, true, to)?, bytes)
    } else {
        if kind.is_symlink() {
            symlink(source.target(from)?, to).at("create the link", to)?;
        } else {
            let kind = tree::special(kind);
            rustix::fs::mknodat(CWD, to, kind, Mode::RUSR | Mode::WUSR, about.rdev()).at("create", to)?;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(CWD, to, flags, Mode::empty()).at("open", to)?);
        (Held::made(file, false, to)?, 0)
    };
    let privileged = source.is_privileged(from)?;
    source.give_attributes(from, &held, to, privileged)?;
    Ok(Made { bytes, held })
}
