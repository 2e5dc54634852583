//! Room of the store's own: a file beside it that holds nothing. Where the disk is full it is given up, so that what a
//! run must note can be noted; it is made again when there is room.

use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::FallocateFlags;
use rustix::fs::fallocate;
use rustix::fs::statvfs;

/// How much is kept: the log of a way back many times over.
const BYTES: u64 = 4 * 1024 * 1024;
/// How much must be left for others when it is made.
const LEFT_BYTES_MIN: u64 = 1024 * 1024;

/// The file.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// Whether it may be missing.
    missing: AtomicBool,
}

impl Reserve {
    /// That of a store. Nothing is made yet.
    pub(crate) fn beside(store: &Path) -> Self {
        let mut path = store.as_os_str().to_owned();
        path.push(".reserve");
        Self { path: path.into(), missing: AtomicBool::new(true) }
    }

    /// Whether it may be missing: it was given up, or could not be made.
    pub(crate) fn may_be_missing(&self) -> bool {
        self.missing.load(Ordering::Relaxed)
    }

    /// Makes it where it may be missing and there is room; else it is tried again the next time.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn make(&self) -> io::Result<()> {
        if !self.may_be_missing() {
            return Ok(());
        }
        if fs_err::symlink_metadata(&self.path).is_ok_and(|about| about.is_file() && about.len() == BYTES) {
            self.missing.store(false, Ordering::Relaxed);
            return Ok(());
        }
        let room = statvfs(self.path.parent().unwrap_or(Path::new("/")))?;
        if room.f_bavail.saturating_mul(room.f_frsize) < BYTES + LEFT_BYTES_MIN {
            return Ok(());
        }
        let made = self.fill();
        match &made {
            Ok(()) => self.missing.store(false, Ordering::Relaxed),
            // Half of it helps nobody.
            Err(_) => drop(fs_err::remove_file(&self.path)),
        }
        made
    }

    fn fill(&self) -> io::Result<()> {
        let mut file =
            fs_err::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            // A file system that cannot promise room is given something to keep.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                for _ in 0..BYTES / 4096 {
                    file.write_all(&[0xa5; 4096])?;
                }
            }
            promised => promised?,
        }
        file.sync_all()
    }

    /// Gives its room to whoever is in need; whether there was any to give.
    pub(crate) fn give_up(&self) -> bool {
        self.missing.store(true, Ordering::Relaxed);
        let given = fs_err::remove_file(&self.path).is_ok();
        if given {
            tracing::warn!(file = %self.path.display(), "the disk is full; the store gives up the room it has kept");
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_given_up_once_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::beside(&dir.path().join("store.db"));
        let file = dir.path().join("store.db.reserve");
        assert!(!reserve.give_up(), "there is nothing to give yet");
        for _ in 0..2 {
            reserve.make().unwrap();
            reserve.make().unwrap();
            assert_eq!(fs_err::metadata(&file).unwrap().len(), BYTES);
            assert!(reserve.give_up());
            assert!(!file.exists() && !reserve.give_up());
        }
    }
}
