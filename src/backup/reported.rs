//! Backups that others vouch for: a manifest file, or a command that prints what there is.

use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use crate::backup::checksum::Expected;
use crate::backup::checksum::SIDE_FILE_BYTES_MAX;
use crate::backup::error::BackupError;
use crate::domain::command::Command;
use crate::domain::name::AppName;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::files::small::read_small_linked;

/// A manifest. Keys that are not ours are of no interest.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) made_at: DateTime<Utc>,
    files: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    path: PathBuf,
    sha256: String,
    size_bytes: u64,
}

impl Manifest {
    /// Reads it; none when there is no such file.
    pub(super) async fn read(file: &Path) -> Result<Option<Self>, BackupError> {
        let path = file.to_owned();
        let text = spawn_blocking(move || {
            let unread = |source| BackupError::Io { action: "read", path: path.clone(), source };
            read_small_linked(&path, SIDE_FILE_BYTES_MAX).map_err(|error| unread(error.into()))
        })
        .await
        .map_err(|_| BackupError::Interrupted { place: file.display().to_string() })??;
        text.map(|text| serde_json::from_slice(&text))
            .transpose()
            .map_err(|source| BackupError::NotUnderstood { origin: file.display().to_string(), source })
    }

    /// The size of everything it names.
    pub(super) fn size_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size_bytes))
    }

    /// The files it names; relative paths begin where it lies.
    pub(super) fn expected(self, file: &Path) -> Result<Vec<Expected>, BackupError> {
        if self.files.is_empty() {
            return Err(BackupError::EmptyManifest { manifest: file.to_owned() });
        }
        let dir = file.parent().unwrap_or(Path::new("/"));
        let expected = |named: Named| Expected {
            path: dir.join(named.path),
            sha256: named.sha256.to_ascii_lowercase(),
            size_bytes: Some(named.size_bytes),
        };
        Ok(self.files.into_iter().map(expected).collect())
    }
}

/// What a command prints.
#[derive(Debug, Deserialize)]
pub(super) struct Reported {
    pub(super) made_at: DateTime<Utc>,
    pub(super) size_bytes: Option<u64>,
    pub(super) source: String,
}

impl Reported {
    /// Runs the command.
    pub(super) async fn ask(app: &AppName, command: &Command, deadline: Span) -> Result<Self, BackupError> {
        let program = command.program().to_owned();
        let output = Exec::of(command, deadline)
            .env("AFTERHOURS_APP", app.as_str())
            .run()
            .await
            .map_err(|source| BackupError::NotAsked { program: program.clone(), source })?;
        serde_json::from_str(&output.stdout).map_err(|source| BackupError::NotUnderstood { origin: program, source })
    }
}
