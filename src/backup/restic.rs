//! A restic repository, through the real program.
//!
//! `snapshots latest` finds the newest, `check` tests the repository, `stats` tells the size.
//! Nothing is locked and nothing cached: a check must neither make the site's own backup fail nor
//! fill a disk. The location travels in the environment, where other users cannot read it.
//!
//! restic before 0.17 ends with 1 for every error, so what it says tells them apart.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;

use crate::backup::BACKENDS;
use crate::backup::LOOK_MAX;
use crate::backup::error::BackupError;
use crate::backup::error::shown;
use crate::backup::error::told;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::Output;

const PROGRAM: &str = "restic";
/// How many snapshots of each host and path are listed.
const LIST_MAX: &str = "20";

/// A restic repository, as configured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restic<'a> {
    pub(super) repository: &'a str,
    pub(super) password_file: &'a Path,
    pub(super) tag: Option<&'a str>,
    pub(super) read_data_subset: Option<&'a str>,
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) deadline: Span,
}

/// One snapshot, as `restic snapshots --json` prints it.
#[derive(Debug, Deserialize)]
pub(super) struct Snapshot {
    time: DateTime<Utc>,
    pub(super) id: String,
    summary: Option<Summary>,
}

/// What restic 0.17 and newer remember.
#[derive(Debug, Deserialize)]
struct Summary {
    backup_end: Option<DateTime<Utc>>,
    total_bytes_processed: Option<u64>,
}

#[derive(Deserialize)]
struct Stats {
    total_size: u64,
}

impl Snapshot {
    /// When it was finished, where restic remembers; else when it began.
    pub(super) fn made_at(&self) -> DateTime<Utc> {
        self.summary.as_ref().and_then(|summary| summary.backup_end).unwrap_or(self.time)
    }

    /// Its size, where restic remembers.
    pub(super) fn size_bytes(&self) -> Option<u64> {
        self.summary.as_ref().and_then(|summary| summary.total_bytes_processed)
    }

    /// How it is called in messages.
    pub(super) fn name(&self, restic: Restic<'_>) -> String {
        let short = self.id.get(..8).unwrap_or(&self.id);
        format!("restic snapshot {short} in {}", shown(restic.repository))
    }
}

impl Restic<'_> {
    /// The newest snapshot.
    pub(super) async fn newest(self) -> Result<Option<Snapshot>, BackupError> {
        let snapshots = self.snapshots(&["snapshots", "latest", "--json"]).await?;
        Ok(snapshots.into_iter().max_by_key(Snapshot::made_at))
    }

    /// The newest snapshots of each host and path, in no order.
    pub(super) async fn list(self) -> Result<Vec<Snapshot>, BackupError> {
        self.snapshots(&["snapshots", "--json", "--latest", LIST_MAX]).await
    }

    async fn snapshots(self, args: &[&str]) -> Result<Vec<Snapshot>, BackupError> {
        let mut args = args.to_vec();
        if let Some(tag) = self.tag {
            args.extend(["--tag", tag]);
        }
        let output = self.run("list the snapshots", &args, self.deadline.min(LOOK_MAX)).await?;
        serde_json::from_str(&output.stdout)
            .map_err(|source| BackupError::NotUnderstood { origin: PROGRAM.to_owned(), source })
    }

    /// Checks the repository. The answer is what was tested, in words.
    pub(super) async fn check(self) -> Result<String, BackupError> {
        let mut args = vec!["check"];
        if let Some(subset) = self.read_data_subset {
            args.extend(["--read-data-subset", subset]);
        }
        self.run("check", &args, self.deadline).await?;
        Ok(match self.read_data_subset {
            Some(subset) => format!("restic check, {subset} of the data read"),
            None => "restic check, no data read".to_owned(),
        })
    }

    /// How much restoring a snapshot would write.
    pub(super) async fn size_bytes(self, id: &str) -> Result<u64, BackupError> {
        let output = self.run("measure a snapshot", &["stats", "--json", id], self.deadline).await?;
        let stats: Stats = serde_json::from_str(&output.stdout)
            .map_err(|source| BackupError::NotUnderstood { origin: PROGRAM.to_owned(), source })?;
        Ok(stats.total_size)
    }

    async fn run(self, action: &'static str, args: &[&str], deadline: Span) -> Result<Output, BackupError> {
        // restic names the path, but not whether it is missing or forbidden, in a form of its own.
        let password_file = self.password_file.to_owned();
        fs_err::tokio::metadata(&password_file)
            .await
            .map_err(|source| BackupError::PasswordFile { file: password_file, source })?;
        let argv = ["--no-cache", "--no-lock"].iter().chain(args).copied();
        let output = Exec::ours(PROGRAM, argv, deadline)
            .inherit(BACKENDS)
            .envs(self.env)
            .env("RESTIC_REPOSITORY", self.repository)
            .env("RESTIC_PASSWORD_FILE", self.password_file.to_string_lossy())
            .output()
            .await
            .map_err(|source| BackupError::NotAsked { program: PROGRAM.to_owned(), source })?;
        if output.status.success() {
            return Ok(output);
        }
        Err(self.refusal(action, output.status.code(), &output.stderr))
    }

    fn refusal(self, action: &'static str, code: Option<i32>, stderr: &str) -> BackupError {
        let repository = shown(self.repository);
        let says = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
        let absent = says(&["unable to open config file"])
            && says(&["no such file", "does not exist", "not found", "NoSuchBucket"]);
        match code {
            Some(10) => BackupError::RepositoryMissing { program: PROGRAM, repository },
            Some(11) => BackupError::Locked { program: PROGRAM, repository },
            Some(12) => BackupError::WrongPassword { program: PROGRAM, repository },
            _ if says(&["wrong password or no key found"]) => {
                BackupError::WrongPassword { program: PROGRAM, repository }
            }
            _ if absent => BackupError::RepositoryMissing { program: PROGRAM, repository },
            _ if says(&["already locked"]) => BackupError::Locked { program: PROGRAM, repository },
            _ if says(DAMAGE) => {
                BackupError::Damaged { program: PROGRAM, repository, told: told(stderr, self.repository) }
            }
            _ => BackupError::Program { action, repository, told: told(stderr, self.repository) },
        }
    }
}

/// What restic says when the repository is not whole.
const DAMAGE: &[&str] = &[
    "repository contains errors",
    "returned errors",
    "ciphertext verification failed",
    "does not match",
    "not found in index",
    "is damaged",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_newer_versions_say_is_understood() {
        let json = r#"[{"time":"2026-11-21T02:30:00.5+01:00","id":"ee7fbd01c773","paths":["/x"],
            "summary":{"backup_end":"2026-11-21T02:45:00+01:00","total_bytes_processed":42}}]"#;
        let snapshots: Vec<Snapshot> = serde_json::from_str(json).unwrap();
        assert_eq!(snapshots[0].made_at().to_rfc3339(), "2026-11-21T01:45:00+00:00");
        assert_eq!(snapshots[0].size_bytes(), Some(42));
    }

    #[test]
    fn a_server_that_does_not_answer_is_not_a_missing_repository() {
        let restic = Restic {
            repository: "rest:http://u:secret@127.0.0.1:1/x",
            password_file: Path::new("/pw"),
            tag: None,
            read_data_subset: None,
            env: &BTreeMap::new(),
            deadline: Span::secs(1),
        };
        let said = "Fatal: unable to open config file: client.Head: Head \"http://u:secret@127.0.0.1:1/x\": dial tcp \
                    127.0.0.1:1: connect: connection refused\nIs there a repository at the following location?";
        let error = restic.refusal("list the snapshots", Some(1), said);
        assert!(matches!(error, BackupError::Program { .. }), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(matches!(restic.refusal("check", Some(10), ""), BackupError::RepositoryMissing { .. }));
        assert!(matches!(restic.refusal("check", Some(12), ""), BackupError::WrongPassword { .. }));
    }
}
