//! Removes trees, as fast as the file system can and as far as it goes.
//!
//! A directory is read, and what is in it removed in the order of the inodes, as `rm -r` does: in the order of names, that of a hash,
//! each removal would touch another block of the disk. What cannot be removed is noted, and everything else is. By directories held open,
//! so that no path is too long; what is very deep is moved up first, so that no tree is too deep.
//!
//! Invariant: nothing outside the tree is removed; a link is not followed, and another file system that is mounted there not entered.

use std::collections::HashSet;
use std::ffi::CString;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use rustix::fs::AtFlags;
use rustix::fs::Dir;
use rustix::fs::FileType;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::install::anchor::Anchor;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::layout::parent;
use crate::install::walk::DEPTH_MAX;
use crate::install::walk::Several;

/// So many entries of a directory are held in memory at once.
const ENTRIES_MAX: usize = 65_536;

/// What could not be removed, and why the first of it.
#[derive(Debug, Default)]
pub(super) struct Stays {
    pub(super) entries: Several,
    pub(super) because: Option<InstallError>,
}

impl Stays {
    /// Notes what stays for an error that names it.
    pub(super) fn note(&mut self, path: PathBuf, because: InstallError) {
        self.entries.note(path);
        self.because.get_or_insert(because);
    }
}

/// Removes whatever is at `path`; it may be gone already. Ends early only where nobody waits for it any more.
pub(super) fn remove(path: &Path, stays: &mut Stays, cancelled: &AtomicBool) -> Result<(), InstallError> {
    let Some(above) = Anchor::follow(parent(path))? else { return Ok(()) };
    let name = path.file_name().unwrap_or_default();
    let Some(top) = above.child(name)? else {
        if let Err(error) = durable::remove_file(path) {
            stays.note(path.to_owned(), error);
        }
        return Ok(());
    };
    let dev = top.about()?.dev();
    let mut work = Work { top: &top, dev, shown: path, deep: Vec::new(), count: 0, stays, cancelled };
    let mut is_empty = work.empty(&top, Path::new(""), 0)?;
    while let Some(deep) = work.deep.pop() {
        is_empty &= work.dir(&top, &deep, Path::new(&deep), 0)?;
    }
    if is_empty {
        work.unlink(&above, name, Path::new(""), AtFlags::REMOVEDIR)
    } else {
        false
    };
    Ok(())
}

struct Work<'a> {
    top: &'a Anchor,
    dev: u64,
    shown: &'a Path,
    /// Names in the tree's own directory of what was too deep.
    deep: Vec<OsString>,
    count: u64,
    stays: &'a mut Stays,
    cancelled: &'a AtomicBool,
}

/// One entry of a directory.
struct Entry {
    inode: u64,
    is_dir: bool,
    name: CString,
}

impl Work<'_> {
    /// Removes what is in a directory; says whether nothing of it stays.
    fn empty(&mut self, dir: &Anchor, at: &Path, depth: usize) -> Result<bool, InstallError> {
        let mut left = HashSet::new();
        loop {
            let mut entries = match entries(dir, &left) {
                Ok(entries) => entries,
                Err(error) => {
                    self.stays.note(self.shown.join(at), error);
                    return Ok(false);
                }
            };
            if entries.is_empty() {
                return Ok(left.is_empty());
            }
            entries.sort_unstable_by_key(|entry| entry.inode);
            for entry in entries {
                if self.cancelled.load(Ordering::Relaxed) {
                    return Err(InstallError::Cancelled);
                }
                let name = OsStr::from_bytes(entry.name.as_bytes());
                let path = at.join(name);
                let gone = match () {
                    () if !entry.is_dir => self.unlink(dir, name, &path, AtFlags::empty()),
                    () if depth == DEPTH_MAX => self.move_up(dir, name, &path),
                    () => self.dir(dir, name, &path, depth + 1)?,
                };
                if !gone {
                    left.insert(entry.inode);
                }
            }
        }
    }

    fn dir(&mut self, above: &Anchor, name: &OsStr, path: &Path, depth: usize) -> Result<bool, InstallError> {
        match above.child(name) {
            // Not a directory any more.
            Ok(None) => Ok(self.unlink(above, name, path, AtFlags::empty())),
            Ok(Some(dir)) if dir.about()?.dev() != self.dev => {
                let mounted = io::Error::from(io::ErrorKind::ResourceBusy);
                let error = Err::<(), _>(mounted).at("remove", &self.shown.join(path));
                Ok(self.note(path, error))
            }
            Ok(Some(dir)) => Ok(self.empty(&dir, path, depth)? && self.unlink(above, name, path, AtFlags::REMOVEDIR)),
            Err(error) => Ok(self.note(path, Err(error))),
        }
    }

    fn unlink(&mut self, dir: &Anchor, name: &OsStr, path: &Path, flags: AtFlags) -> bool {
        match rustix::fs::unlinkat(dir.file(), name, flags) {
            Ok(()) | Err(Errno::NOENT) => true,
            Err(error) => self.note(path, Err(error).at("remove", &self.shown.join(path))),
        }
    }

    /// Moves a directory into the one that holds the tree, to be removed from there.
    fn move_up(&mut self, dir: &Anchor, name: &OsStr, path: &Path) -> bool {
        loop {
            self.count += 1;
            let to = OsString::from(format!("deep-{}", self.count));
            match rustix::fs::renameat_with(dir.file(), name, self.top.file(), &to, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.deep.push(to);
                    return true;
                }
                Err(Errno::EXIST) => {}
                Err(error) => return self.note(path, Err(error).at("remove", &self.shown.join(path))),
            }
        }
    }

    fn note(&mut self, path: &Path, error: Result<(), InstallError>) -> bool {
        if let Err(error) = error {
            self.stays.note(self.shown.join(path), error);
        }
        false
    }
}

/// Some of what is in a directory, but for what is known to stay.
fn entries(dir: &Anchor, left: &HashSet<u64>) -> Result<Vec<Entry>, InstallError> {
    let read = || -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(dir.file())? {
            let entry = entry?;
            let name = entry.file_name();
            if left.contains(&entry.ino()) || matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Unknown => fs::symlink_metadata(dir.entry(OsStr::from_bytes(name.to_bytes())))
                    .is_ok_and(|about| about.is_dir()),
                kind => kind == FileType::Directory,
            };
            found.push(Entry { inode: entry.ino(), is_dir, name: name.to_owned() });
            if found.len() == ENTRIES_MAX {
                break;
            }
        }
        Ok(found)
    };
    read().at("list", &dir.path())
}
