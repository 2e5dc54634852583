//! A directory that is written into by descriptor only.
//!
//! Every entry is reached from the root's descriptor, one component at a time, each opened with
//! `O_NOFOLLOW` and relative to the one before it: what `openat2(RESOLVE_BENEATH |
//! RESOLVE_NO_SYMLINKS)` does, on kernels and in sandboxes that lack it, too. Nothing that exists
//! is opened for writing or replaced; the file system itself says what is a duplicate.
//!
//! While the tree grows its directories belong to us alone (0700). [`Tree::finish`] gives them
//! their modes and times, the deepest first, so that an unwritable directory can have contents.
//!
//! Deliberately absent: owners and extended attributes. The installer gives the tree its owner.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::UTIME_OMIT;
use rustix::io::Errno;

use crate::feed::archive::error::ArchiveError;
use crate::feed::archive::error::shown;
use crate::feed::archive::name::EntryName;

/// The mode bits that an archive may set: no setuid, no setgid, and nobody but the owner may write.
const MODE_MASK: u32 = 0o1755;
/// The mode of a directory that no archive mentions by itself.
const IMPLIED_MODE: u32 = 0o755;

/// Mode and modification time of an entry.
#[derive(Debug, Clone, Copy)]
pub(in crate::feed) struct Meta {
    /// Permission bits; more is ignored.
    pub(in crate::feed) mode: u32,
    /// When it was last changed.
    pub(in crate::feed) mtime: Timespec,
}

/// What is remembered of a directory until the end.
#[derive(Debug)]
struct Dir {
    /// From the archive; nothing while only implied by what lies in it.
    meta: Option<Meta>,
    /// The archive that mentioned it last.
    archive: usize,
}

/// A tree under construction.
#[derive(Debug)]
pub(in crate::feed) struct Tree {
    root: Rc<OwnedFd>,
    dirs: BTreeMap<EntryName, Dir>,
    /// The directory that was used last: entries come in the order of their directories.
    last: Option<(EntryName, Rc<OwnedFd>)>,
    archive: usize,
    names_bytes: usize,
    names_bytes_max: usize,
}

impl Tree {
    /// Begins in an empty directory.
    pub(in crate::feed) fn new(root: OwnedFd, names_bytes_max: usize) -> Self {
        let dirs = BTreeMap::from([(EntryName::ROOT, Dir { meta: None, archive: 0 })]);
        Self { root: Rc::new(root), dirs, last: None, archive: 0, names_bytes: 0, names_bytes_max }
    }

    /// From here on a directory may be mentioned again.
    pub(in crate::feed) fn next_archive(&mut self) {
        self.archive += 1;
    }

    /// Makes a directory, or takes note that an archive mentions one that is there.
    pub(in crate::feed) fn directory(&mut self, name: &EntryName, meta: Meta) -> Result<(), ArchiveError> {
        let archive = self.archive;
        if !self.dirs.contains_key(name) {
            self.open_dir(name, name)?;
        }
        let Some(dir) = self.dirs.get_mut(name) else { return Ok(()) };
        if dir.meta.is_some() && dir.archive == archive {
            return Err(ArchiveError::Duplicate { entry: name.shown() });
        }
        *dir = Dir { meta: Some(meta), archive };
        Ok(())
    }

    /// Makes a new, empty file that only we can read.
    pub(in crate::feed) fn file(&mut self, name: &EntryName) -> Result<File, ArchiveError> {
        let (parent, leaf) = self.place(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, leaf, flags, Mode::RUSR | Mode::WUSR).map_err(|e| not_made(name, e))?;
        Ok(File::from(fd))
    }

    /// Gives a file that was written its mode and time.
    pub(in crate::feed) fn seal(name: &EntryName, file: &File, meta: Meta) -> Result<(), ArchiveError> {
        apply(file, meta).map_err(|e| write(name, e))
    }

    /// Makes a symbolic link. The target was checked before.
    pub(in crate::feed) fn symlink(&mut self, name: &EntryName, to: &[u8], meta: Meta) -> Result<(), ArchiveError> {
        let (parent, leaf) = self.place(name)?;
        rustix::fs::symlinkat(to, &parent, leaf).map_err(|e| not_made(name, e))?;
        rustix::fs::utimensat(&parent, leaf, &times(meta), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| write(name, e))
    }

    /// Makes a second name of a file. Only of a file: a symbolic link with a second name elsewhere
    /// would lead elsewhere.
    pub(in crate::feed) fn hardlink(&mut self, name: &EntryName, target: &EntryName) -> Result<(), ArchiveError> {
        let bad = || ArchiveError::HardLinkTarget { entry: name.shown(), target: target.shown() };
        let (target_dir, target_leaf) = target.split().ok_or_else(bad)?;
        if !self.dirs.contains_key(&target_dir) {
            return Err(bad());
        }
        let from = self.open_dir(&target_dir, name)?;
        match rustix::fs::statat(&from, target_leaf, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {}
            Ok(_) | Err(Errno::NOENT) => return Err(bad()),
            Err(error) => return Err(write(name, error)),
        }
        let (parent, leaf) = self.place(name)?;
        rustix::fs::linkat(&from, target_leaf, &parent, leaf, AtFlags::empty()).map_err(|e| not_made(name, e))
    }

    /// Gives the directories their modes and times, and the root back.
    pub(in crate::feed) fn finish(self) -> Result<Rc<OwnedFd>, ArchiveError> {
        // A directory sorts before everything in it, so the reverse order is deepest first.
        for (name, dir) in self.dirs.iter().rev() {
            let mut fd = Rc::clone(&self.root);
            for component in name.components() {
                fd = Rc::new(step_into(&fd, component).map_err(|e| write(name, e))?);
            }
            match dir.meta {
                Some(meta) => apply(&*fd, meta),
                None => rustix::fs::fchmod(&*fd, Mode::from_raw_mode(IMPLIED_MODE)),
            }
            .map_err(|e| write(name, e))?;
        }
        Ok(self.root)
    }

    /// The directory that `name` goes into, and its last component.
    fn place<'a>(&mut self, name: &'a EntryName) -> Result<(Rc<OwnedFd>, &'a [u8]), ArchiveError> {
        let (dir, leaf) = name.split().ok_or_else(|| ArchiveError::EmptyComponent { entry: name.shown() })?;
        Ok((self.open_dir(&dir, name)?, leaf))
    }

    /// Opens a directory, making what is missing of it on the way. Errors name the `entry` that needs it.
    fn open_dir(&mut self, dir: &EntryName, entry: &EntryName) -> Result<Rc<OwnedFd>, ArchiveError> {
        if let Some((_, fd)) = self.last.as_ref().filter(|(name, _)| name == dir) {
            return Ok(Rc::clone(fd));
        }
        let mut fd = Rc::clone(&self.root);
        let mut name = EntryName::ROOT;
        for component in dir.components() {
            name = name.child(component);
            if !self.dirs.contains_key(&name) {
                self.make_dir(&fd, &name, component, entry)?;
            }
            fd = Rc::new(step_into(&fd, component).map_err(|e| write(entry, e))?);
        }
        self.last = Some((name, Rc::clone(&fd)));
        Ok(fd)
    }

    fn make_dir(
        &mut self,
        parent: &OwnedFd,
        name: &EntryName,
        leaf: &[u8],
        entry: &EntryName,
    ) -> Result<(), ArchiveError> {
        self.names_bytes += name.as_bytes().len();
        if self.names_bytes > self.names_bytes_max {
            return Err(ArchiveError::TooManyNames { entry: entry.shown(), max: self.names_bytes_max });
        }
        match rustix::fs::mkdirat(parent, leaf, Mode::RWXU) {
            Ok(()) => {}
            // Every directory here was made by us and is known: what is in the way is something else.
            Err(Errno::EXIST) if name == entry => return Err(ArchiveError::Duplicate { entry: entry.shown() }),
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(parent, leaf, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| write(entry, e))?;
                return Err(match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Symlink => ArchiveError::BelowLink { entry: entry.shown(), link: name.shown() },
                    _ => ArchiveError::BelowFile { entry: entry.shown(), file: name.shown() },
                });
            }
            Err(error) => return Err(write(entry, error)),
        }
        self.dirs.insert(name.clone(), Dir { meta: None, archive: self.archive });
        Ok(())
    }
}

/// Opens one component below a directory, never through a link.
fn step_into(dir: &OwnedFd, component: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, component, flags, Mode::empty())
}

fn apply(fd: impl AsFd, meta: Meta) -> Result<(), Errno> {
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(meta.mode & MODE_MASK))?;
    rustix::fs::futimens(&fd, &times(meta))
}

fn times(meta: Meta) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: meta.mtime }
}

fn write(name: &EntryName, error: Errno) -> ArchiveError {
    ArchiveError::Write { entry: name.shown(), source: io::Error::from(error) }
}

fn not_made(name: &EntryName, error: Errno) -> ArchiveError {
    match error {
        Errno::EXIST => ArchiveError::Duplicate { entry: shown(name.as_bytes()) },
        error => write(name, error),
    }
}
