//! Directories held open, so that nobody can slip a link in between us and what we read or write.
//!
//! We work as root in folders that belong to the application's user. A path with several parts can be bent between
//! two calls by whoever owns one of them; a name in a directory that is held open cannot lead elsewhere. Such a name is
//! written `/proc/self/fd/N/name`, which every call that takes a path understands.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::io::Errno;

use crate::install::error::At;
use crate::install::error::InstallError;

const HELD: &str = "/proc/self/fd";
const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that is held open.
#[derive(Debug)]
pub(super) struct Anchor(OwnedFd);

impl Anchor {
    /// Holds the directory `path`, whose last part must not be a link; nothing when there is no directory by that name.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, InstallError> {
        found(rustix::fs::openat(CWD, path, DIR, Mode::empty()), path)
    }

    /// Holds the directory `path` below `root`, with no link on the way.
    pub(super) fn below(root: &Path, path: &Path) -> Result<Option<Self>, InstallError> {
        let Some(root) = Self::open(root)? else { return Ok(None) };
        if path.as_os_str().is_empty() {
            return Ok(Some(root));
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        found(rustix::fs::openat2(&root.0, path, DIR, Mode::empty(), resolve), path)
    }

    /// The path of an entry.
    pub(super) fn entry(&self, name: &OsStr) -> PathBuf {
        self.path().join(name)
    }

    /// The path of the directory itself; only for what follows links.
    pub(super) fn path(&self) -> PathBuf {
        Path::new(HELD).join(self.0.as_raw_fd().to_string())
    }
}

fn found(opened: Result<OwnedFd, Errno>, path: &Path) -> Result<Option<Anchor>, InstallError> {
    match opened {
        Ok(fd) => Ok(Some(Anchor(fd))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error).at("open", path),
    }
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
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        symlink("/etc", root.path().join("a/link")).unwrap();
        assert!(Anchor::open(&root.path().join("a/link")).unwrap().is_none());
        assert!(Anchor::below(root.path(), Path::new("a/link")).unwrap().is_none());
        assert!(Anchor::below(root.path(), Path::new("a/link/ssl")).unwrap().is_none());
        let held = Anchor::below(root.path(), Path::new("a/b")).unwrap().unwrap();
        fs::rename(root.path().join("a/b"), root.path().join("moved")).unwrap();
        symlink("/etc", root.path().join("a/b")).unwrap();
        fs::write(held.entry(OsStr::new("x")), "1").unwrap();
        assert!(root.path().join("moved/x").exists());
        let shown = shown(&held.entry(OsStr::new("x")));
        assert_eq!(shown, fs::canonicalize(root.path()).unwrap().join("moved/x"));
    }
}
