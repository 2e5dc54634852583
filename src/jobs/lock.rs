//! One process works on an application at a time: the daemon, or `update now`.
//!
//! An advisory lock on a file in the data directory. The kernel drops it when its holder dies, so
//! nothing is left behind by a crash. The store's fencing number is the second guard: a process that
//! was thought dead and comes back cannot write.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use thiserror::Error;

use crate::domain::name::AppName;

/// How often a lock that is held elsewhere is tried again.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// The lock could not be had.
#[derive(Debug, Error)]
#[error("lock {}", .path.display())]
pub struct LockError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Held as long as it lives.
#[derive(Debug)]
pub struct AppLock {
    _file: OwnedFd,
}

impl AppLock {
    /// Takes the lock of `app` if nobody holds it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn try_take(data_dir: &Path, app: &AppName) -> Result<Option<Self>, LockError> {
        let dir = data_dir.join("apps").join(app.as_str());
        let path = dir.join("lock");
        let take = || {
            fs_err::create_dir_all(&dir)?;
            let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(Self { _file: file })),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        take().map_err(|source| LockError { path: path.clone(), source })
    }

    /// Waits until the lock of `app` is free. Drop the future to stop waiting.
    ///
    /// # Errors
    /// The file cannot be made.
    pub async fn take(data_dir: &Path, app: &AppName) -> Result<Self, LockError> {
        loop {
            if let Some(lock) = Self::try_take(data_dir, app)? {
                return Ok(lock);
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_held_once_and_free_again() {
        let dir = tempfile::tempdir().unwrap();
        let app: AppName = "orders".parse().unwrap();
        let held = AppLock::try_take(dir.path(), &app).unwrap().unwrap();
        assert!(AppLock::try_take(dir.path(), &app).unwrap().is_none());
        assert!(AppLock::try_take(dir.path(), &"other".parse().unwrap()).unwrap().is_some());
        drop(held);
        assert!(AppLock::try_take(dir.path(), &app).unwrap().is_some());
    }
}
