//! What must be known of a supervised application after we have died: `supervised.json`.
//!
//! Written before each effect (that it is wanted, the token its processes will carry) and after it
//! (its main process). If we die between the two, the token finds the processes.
//!
//! One writer at a time, in this process or another: `supervised.lock`. A file that cannot be
//! understood is an error, never an empty state.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde::Serialize;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::service::error::ServiceError;
use crate::service::files::write_durably;
use crate::service::files::write_whole;
use crate::service::tree;
use crate::service::tree::Identity;
use crate::service::tree::Wanted;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Whether it should run.
    pub(crate) wanted: bool,
    /// The main process, once it is known.
    pub(crate) main: Option<Identity>,
    /// The boot that the main process belongs to.
    pub(crate) boot_id: String,
    /// What every process of the application carries; the same for good.
    pub(crate) token: String,
    /// What the last start was given; a restart is given the same.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// While this file exists it is not restarted.
    #[serde(default)]
    pub(crate) hold: Option<PathBuf>,
}

impl State {
    /// What is sought in the process table.
    pub(crate) fn sought(&self) -> Wanted {
        Wanted { main: self.main, token: self.token.clone() }
    }
}

/// The folder in which an application's state lies.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// Nobody else changes the state while this exists.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: fs_err::File,
}

impl StateDir {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    fn file(&self) -> PathBuf {
        self.0.join("supervised.json")
    }

    /// Whether nothing was ever written: nobody has started or stopped it.
    pub(crate) async fn is_new(&self) -> bool {
        matches!(fs_err::tokio::try_exists(self.file()).await, Ok(false))
    }

    /// What is known; a fresh state when nothing ever was.
    pub(crate) async fn load(&self) -> Result<State, ServiceError> {
        let path = self.file();
        let read = |source| ServiceError::File { call: "read", path: path.clone(), source };
        let boot_id = blocking(tree::boot_id).await.map_err(read)?;
        let text = match fs_err::tokio::read(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token = Uuid::now_v7().to_string();
                return Ok(State { wanted: false, main: None, boot_id, token, env: BTreeMap::new(), hold: None });
            }
            Err(source) => return Err(read(source)),
        };
        let mut state: State =
            serde_json::from_slice(&text).map_err(|source| ServiceError::State { path: path.clone(), source })?;
        if state.boot_id != boot_id {
            state.main = None;
            state.boot_id = boot_id;
        }
        Ok(state)
    }

    /// Writes what is intended; it survives a power cut.
    pub(crate) async fn save(&self, state: &State) -> Result<(), ServiceError> {
        self.write(state, write_durably).await
    }

    /// Writes which process it is. A power cut may take this back, for it takes the process, too.
    pub(crate) async fn record(&self, state: &State) -> Result<(), ServiceError> {
        self.write(state, write_whole).await
    }

    async fn write(&self, state: &State, write: fn(&Path, &[u8], u32) -> io::Result<()>) -> Result<(), ServiceError> {
        let (path, file) = (self.file(), self.file());
        let text =
            serde_json::to_vec_pretty(state).map_err(|source| ServiceError::State { path: path.clone(), source })?;
        blocking(move || {
            file.parent().map_or(Ok(()), fs_err::create_dir_all)?;
            write(&file, &text, 0o600)
        })
        .await
        .map_err(|source| ServiceError::File { call: "write", path, source })
    }

    /// The lock, unless somebody has it.
    pub(crate) async fn try_lock(&self) -> Result<Option<Lock>, ServiceError> {
        let path = self.0.join("supervised.lock");
        let file = path.clone();
        let locked = blocking(move || {
            file.parent().map_or(Ok(()), fs_err::create_dir_all)?;
            let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(&file)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(Lock { _file: file })),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
                Err(error) => Err(error.into()),
            }
        });
        locked.await.map_err(|source| ServiceError::File { call: "lock", path, source })
    }
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::from).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_read_as_written_but_a_process_does_not_survive_a_reboot() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(&dir.path().join("apps/orders"));
        let mut state = state_dir.load().await.unwrap();
        assert!(!state.wanted);
        state.wanted = true;
        state.main = Some(Identity { pid: 7, start_time: 11 });
        state_dir.save(&state).await.unwrap();
        assert_eq!(state_dir.load().await.unwrap(), state);
        state.boot_id = "an earlier one".to_owned();
        state_dir.save(&state).await.unwrap();
        let after = state_dir.load().await.unwrap();
        assert_eq!((after.main, after.wanted), (None, true));
    }

    #[tokio::test]
    async fn half_a_file_is_no_empty_state() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("supervised.json"), "{\"wanted\": tr").unwrap();
        let error = StateDir::new(dir.path()).load().await.unwrap_err();
        assert!(matches!(error, ServiceError::State { .. }), "{error}");
        assert!(error.hint().is_some());
    }

    #[tokio::test]
    async fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(dir.path());
        let lock = state_dir.try_lock().await.unwrap();
        assert!(lock.is_some());
        assert!(state_dir.try_lock().await.unwrap().is_none());
        drop(lock);
        assert!(state_dir.try_lock().await.unwrap().is_some());
    }
}
