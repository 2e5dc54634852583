//! What must be known of a renewal by whoever runs next, the old program or the new one: `record.json`.
//!
//! Two versions of this program read it. What is added later must have a default, and nothing may be taken away.
//!
//! Invariant: it is written whole and durable before the effect it announces, and only under the lock.

use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::release::ReleaseId;
use crate::domain::run::RunId;
use crate::domain::span::Span;
use crate::renewal::error::At;
use crate::renewal::error::RenewalError;
use crate::renewal::place;

/// How long another process is waited for: what is done under the lock takes no longer than copying a program.
const LOCK_WAIT: Span = Span::mins(2);
/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Everything that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// What this program put in place; absent while the administrator's own stands there.
    #[serde(default)]
    pub(super) installed: Option<Build>,
    /// What is under way.
    #[serde(default)]
    pub(super) pending: Option<Pending>,
    /// How the last one ended.
    #[serde(default)]
    pub(super) last: Option<Ended>,
}

/// A program, known by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Build {
    #[serde(flatten)]
    pub(super) id: ReleaseId,
    /// SHA-256 of the program's file.
    pub(super) sha256: String,
}

/// A process that is known by more than its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Prover {
    pub(super) pid: u32,
    pub(super) start_ticks: u64,
}

/// A renewal that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// The run that goes on afterwards.
    pub(super) run: RunId,
    /// In words, what was there before.
    pub(super) from: String,
    pub(super) to: Build,
    /// The file that is replaced.
    pub(super) program: PathBuf,
    /// The copy of what was there before.
    pub(super) kept: PathBuf,
    /// What the program was started with, without its name.
    pub(super) args: Vec<String>,
    /// It is no daemon: nobody else will start it again.
    pub(super) alone: bool,
    /// How long the new program may take to come up.
    pub(super) deadline: Span,
    /// How often the new program has begun.
    #[serde(default)]
    pub(super) starts: u32,
    /// Who is expected to come up.
    #[serde(default)]
    pub(super) prover: Option<Prover>,
    /// It was told to stop; that it is gone is no failure.
    #[serde(default)]
    pub(super) unwatched: bool,
    /// Why the old program is put back.
    #[serde(default)]
    pub(super) going_back: Option<String>,
}

/// How a renewal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// In which run.
    pub run: RunId,
    /// In words, what was there before.
    pub from: String,
    /// What was to come.
    pub to: ReleaseId,
    /// How it ended.
    #[serde(flatten)]
    pub ending: Ending,
    /// It is in the store that this build failed here.
    #[serde(default)]
    pub noted: bool,
}

/// How a renewal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ending", rename_all = "snake_case")]
pub enum Ending {
    /// The new program came up.
    Confirmed,
    /// It did not, and the old one was put back.
    PutBack {
        /// Why.
        reason: String,
    },
    /// It was never in place; that says nothing about it.
    NotTried {
        /// Why.
        reason: String,
    },
}

impl Record {
    /// What is under way is over.
    pub(super) fn end(&mut self, ending: Ending) {
        let Some(pending) = self.pending.take() else { return };
        let Pending { run, from, to, .. } = pending;
        if ending == Ending::Confirmed {
            self.installed = Some(to.clone());
        }
        self.last = Some(Ended { run, from, to: to.id, ending, noted: false });
    }
}

/// The folder of the renewal in the data directory.
#[derive(Debug, Clone)]
pub(super) struct RecordDir(pub(super) PathBuf);

/// Nobody else changes the record, or the program, while this exists.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl RecordDir {
    fn file(&self) -> PathBuf {
        self.0.join("record.json")
    }

    /// What is known; nothing where there never was a renewal.
    pub(super) fn load(&self) -> Result<Record, RenewalError> {
        let path = self.file();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| RenewalError::BadRecord { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(error).at("read", &path),
        }
    }

    pub(super) fn save(&self, record: &Record) -> Result<(), RenewalError> {
        let path = self.file();
        let text = serde_json::to_vec_pretty(record)
            .map_err(|source| RenewalError::BadRecord { path: path.clone(), source })?;
        place::write(&path, &text)
    }

    /// The lock, unless somebody has it.
    pub(super) fn try_lock(&self) -> Result<Option<Lock>, RenewalError> {
        place::create_dir(&self.0)?;
        let path = self.0.join("lock");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).at("lock", &path),
        }
    }

    pub(super) async fn lock(&self) -> Result<Lock, RenewalError> {
        let until = tokio::time::Instant::now() + LOCK_WAIT.duration();
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            if tokio::time::Instant::now() >= until {
                return Err(RenewalError::Busy { path: self.0.join("lock"), waited: LOCK_WAIT });
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    /// The copy of the store as the old program left it.
    pub(super) fn store_copy(&self) -> PathBuf {
        self.0.join("store")
    }

    /// The data directory.
    pub(super) fn data_dir(&self) -> &Path {
        self.0.parent().unwrap_or(&self.0)
    }
}

impl From<&Path> for RecordDir {
    fn from(data_dir: &Path) -> Self {
        Self(data_dir.join("renewal"))
    }
}
