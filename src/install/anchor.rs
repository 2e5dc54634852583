//! Directories held open, so that nobody can slip a link in between us and what we read or write.
//!
//! We work as root in folders that belong to the application's user. A path with several parts can be bent between
//! two calls by whoever owns one of them; a name in a directory that is held open cannot lead elsewhere. Such a name is
//! written `/proc/self/fd/N/name`, which every call that takes a path understands.
//!
//! Invariant: a name in a directory that is not ours is used for one call. What takes two (look and change, make and
//! change) is done on a descriptor: see [`tree`](super::tree) and [`work`](super::work).

use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::files::trusted::reach;
use crate::install::error::At;
use crate::install::error::InstallError;

const HELD: &str = "/proc/self/fd";
const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// A directory that is held open.
#[derive(Debug)]
pub(super) struct Anchor(File);

impl Anchor {
    /// Holds the directory `path`, whose last part must not be a link; nothing when there is no directory by that name.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, InstallError> {
        found(held(|flags| rustix::fs::openat(CWD, path, flags, Mode::empty())), path)
    }

    /// Holds the directory that `path` leads to, over whatever links.
    pub(super) fn follow(path: &Path) -> Result<Option<Self>, InstallError> {
        let open = |flags: OFlags| rustix::fs::openat(CWD, path, flags.difference(OFlags::NOFOLLOW), Mode::empty());
        found(held(open), path)
    }

    /// Holds the directory `path`, which was free of links when it was noted; with one on the way by now it is none.
    pub(super) fn straight(path: &Path) -> Result<Option<Self>, InstallError> {
        let resolve = ResolveFlags::NO_SYMLINKS;
        found(held(|flags| rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve)), path)
    }

    /// Holds the directory `path` like [`straight`](Self::straight), and is nothing only where nobody put a link in the way.
    pub(super) fn noted(path: &Path) -> Result<Option<Self>, InstallError> {
        if let Some(anchor) = Self::straight(path)? {
            return Ok(Some(anchor));
        }
        let is_dir = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match reach(path) {
            Ok(found) if !is_dir(&found.stat) => Ok(None),
            Err(error) if error.is_missing() => Ok(None),
            Ok(_) | Err(_) => Err(io::Error::other("a link was put in the way")).at("open", path),
        }
    }

    /// Holds a directory in this one; nothing when there is no directory by that name.
    pub(super) fn child(&self, name: &OsStr) -> Result<Option<Self>, InstallError> {
        let opened = held(|flags| rustix::fs::openat(&self.0, name, flags, Mode::empty()));
        if matches!(opened, Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) {
            return Ok(None);
        }
        found(opened, &self.entry(name))
    }

    /// Holds the directory `path` below this one, with no link on the way. It may be longer than the system's longest path.
    pub(super) fn below(&self, path: &Path) -> Result<Option<Self>, InstallError> {
        let here = Path::new(".");
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let step = if path.as_os_str().is_empty() { here } else { path };
        match held(|flags| rustix::fs::openat2(&self.0, step, flags, Mode::empty(), resolve)) {
            Err(Errno::NAMETOOLONG) if let Some((above, name)) = path.parent().zip(path.file_name()) => {
                let Some(above) = self.below(above)? else { return Ok(None) };
                above.child(name)
            }
            opened => found(opened, path),
        }
    }

    /// The path of an entry.
    pub(super) fn entry(&self, name: &OsStr) -> PathBuf {
        self.path().join(name)
    }

    /// The path of the directory itself; only for what follows links.
    pub(super) fn path(&self) -> PathBuf {
        Path::new(HELD).join(self.0.as_raw_fd().to_string())
    }

    /// What is known of the directory now.
    pub(super) fn about(&self) -> Result<Metadata, InstallError> {
        self.0.metadata().at("look at", &self.path())
    }

    /// Its descriptor.
    pub(super) fn file(&self) -> &File {
        &self.0
    }
}

/// Opens a directory for reading; where it may only be passed through, for that.
fn held(open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    match open(DIR) {
        Err(Errno::ACCESS) => open(DIR.difference(OFlags::NONBLOCK) | OFlags::PATH),
        opened => opened,
    }
}

fn found(opened: Result<OwnedFd, Errno>, path: &Path) -> Result<Option<Anchor>, InstallError> {
    match opened {
        Ok(fd) => Ok(Some(Anchor(File::from(fd)))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error).at("open", path),
    }
}

/// The path by which an open file can be named.
pub(super) fn held_path(file: &File) -> PathBuf {
    Path::new(HELD).join(file.as_raw_fd().to_string())
}

/// A path as people know it.
pub(super) fn shown(path: &Path) -> PathBuf {
    let known = || {
        let mut rest = path.strip_prefix(HELD).ok()?.components();
        let held = fs::read_link(Path::new(HELD).join(rest.next()?)).ok()?;
        Some(if rest.as_path().as_os_str().is_empty() { held } else { held.join(rest.as_path()) })
    };
    known().unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_leads_out() {
        let root = tempfile::tempdir().unwrap();
        let held = |path: &Path| Anchor::open(path).unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        symlink("/etc", root.path().join("a/link")).unwrap();
        assert!(held(&root.path().join("a/link")).is_none());
        assert!(Anchor::straight(&root.path().join("a/link/ssl")).unwrap().is_none());
        let top = held(root.path()).unwrap();
        assert!(top.below(Path::new("a/link")).unwrap().is_none());
        assert!(top.below(Path::new("a/link/ssl")).unwrap().is_none());
        assert!(top.below(Path::new("a")).unwrap().unwrap().child(OsStr::new("link")).unwrap().is_none());
        let held = top.below(Path::new("a/b")).unwrap().unwrap();
        fs::rename(root.path().join("a/b"), root.path().join("moved")).unwrap();
        symlink("/etc", root.path().join("a/b")).unwrap();
        fs::write(held.entry(OsStr::new("x")), "1").unwrap();
        assert!(root.path().join("moved/x").exists());
        let shown = shown(&held.entry(OsStr::new("x")));
        assert_eq!(shown, fs::canonicalize(root.path()).unwrap().join("moved/x"));
    }
}
