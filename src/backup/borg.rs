//! A borg repository, through the real program.
//!
//! `list` finds the newest archive, `check` tests the repository. The passphrase goes from its
//! file to borg without passing through us. borg prints times in local time without a zone, so it
//! is made to live in UTC. It asks nothing: every question has its answer in the environment.
//!
//! Sizes are deliberately absent: `borg info` first builds a cache of the whole repository.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::DateTime;
use chrono::NaiveDateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;

use crate::backup::BACKENDS;
use crate::backup::LOOK_MAX;
use crate::backup::error::BackupError;
use crate::backup::error::clipped;
use crate::backup::error::shown;
use crate::backup::error::told;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::Output;

const PROGRAM: &str = "borg";
/// How many archives are listed.
const LIST_MAX: u32 = 100;
/// How long borg waits for another that holds the repository, in seconds.
const LOCK_WAIT_SECS: u64 = 60;
/// borg's exit status when it has something to say but went on.
const WARNING: i32 = 1;

/// A borg repository, as configured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Borg<'a> {
    pub(super) repository: &'a str,
    pub(super) passphrase_file: Option<&'a Path>,
    pub(super) prefix: Option<&'a str>,
    pub(super) check: bool,
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) deadline: Span,
}

#[derive(Deserialize)]
struct Listing {
    archives: Vec<Archive>,
}

/// One archive, as `borg list --json` prints it.
#[derive(Debug, Deserialize)]
pub(super) struct Archive {
    name: String,
    #[serde(deserialize_with = "utc")]
    end: DateTime<Utc>,
}

impl Archive {
    /// When it was finished.
    pub(super) fn made_at(&self) -> DateTime<Utc> {
        self.end
    }

    /// How it is called in messages.
    pub(super) fn name(&self, borg: Borg<'_>) -> String {
        format!("borg archive {} in {}", self.name, shown(borg.repository))
    }
}

/// A time with its zone, or without one in UTC.
fn utc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let zoned = DateTime::parse_from_rfc3339(&text).map(|at| at.to_utc());
    zoned.or_else(|_| text.parse::<NaiveDateTime>().map(|at| at.and_utc())).map_err(D::Error::custom)
}

/// One line of `borg --log-json`.
#[derive(Deserialize)]
struct LogLine {
    message: String,
    levelname: String,
    msgid: Option<String>,
}

impl Borg<'_> {
    /// The newest archive.
    pub(super) async fn newest(self) -> Result<Option<Archive>, BackupError> {
        let archives = self.archives(1).await?;
        Ok(archives.into_iter().max_by_key(Archive::made_at))
    }

    /// The newest archives, in no order.
    pub(super) async fn list(self) -> Result<Vec<Archive>, BackupError> {
        self.archives(LIST_MAX).await
    }

    async fn archives(self, last: u32) -> Result<Vec<Archive>, BackupError> {
        let mut args = vec!["list".to_owned(), "--json".to_owned(), "--format={end}".to_owned()];
        args.push(format!("--last={last}"));
        args.extend(self.prefix.map(|prefix| format!("--glob-archives={}*", escaped(prefix))));
        let output = self.run(&args, self.deadline.min(LOOK_MAX)).await?;
        if !output.status.success() && output.status.code() != Some(WARNING) {
            return Err(self.refusal("list the archives", &output.stderr));
        }
        let listing: Listing = serde_json::from_str(&output.stdout)
            .map_err(|source| BackupError::NotUnderstood { origin: PROGRAM.to_owned(), source })?;
        Ok(listing.archives)
    }

    /// Checks the repository and the newest archive. The answer is what was tested, in words.
    pub(super) async fn check(self) -> Result<Option<String>, BackupError> {
        if !self.check {
            return Ok(None);
        }
        let mut args = vec!["check".to_owned(), "--last=1".to_owned()];
        args.extend(self.prefix.map(|prefix| format!("--glob-archives={}*", escaped(prefix))));
        let output = self.run(&args, self.deadline).await?;
        match output.status.code() {
            Some(0) => Ok(Some("borg check".to_owned())),
            // A check that found something counts as a warning to borg.
            Some(WARNING) => Err(self.damaged(&output.stderr)),
            _ => Err(self.refusal("check", &output.stderr)),
        }
    }

    async fn run(self, args: &[String], deadline: Span) -> Result<Output, BackupError> {
        let lock_wait = LOCK_WAIT_SECS.min(deadline.duration().as_secs() / 2);
        let mut argv = vec!["--log-json".to_owned(), format!("--lock-wait={lock_wait}")];
        argv.extend_from_slice(args);
        let passcommand = match self.passphrase_file {
            None => "true".to_owned(),
            Some(file) => {
                fs_err::tokio::metadata(file)
                    .await
                    .map_err(|source| BackupError::PasswordFile { file: file.to_owned(), source })?;
                format!("cat {}", quoted(&file.to_string_lossy()))
            }
        };
        Exec::ours(PROGRAM, argv, deadline)
            .inherit(BACKENDS)
            .envs(self.env)
            .env("BORG_REPO", self.repository)
            .env("BORG_PASSCOMMAND", passcommand)
            .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_DISPLAY_PASSPHRASE", "no")
            .env("TZ", "UTC")
            .output()
            .await
            .map_err(|source| BackupError::NotAsked { program: PROGRAM.to_owned(), source })
    }

    fn damaged(self, stderr: &str) -> BackupError {
        let first = errors(stderr).map(|line| clipped(&line.message)).next();
        BackupError::Damaged {
            program: PROGRAM,
            repository: shown(self.repository),
            told: first.unwrap_or_else(|| told(stderr, self.repository)),
        }
    }

    fn refusal(self, action: &'static str, stderr: &str) -> BackupError {
        let repository = shown(self.repository);
        let Some(line) = errors(stderr).last() else {
            return BackupError::Program { action, repository, told: told(stderr, self.repository) };
        };
        match line.msgid.as_deref().unwrap_or_default() {
            "PassphraseWrong" | "NoPassphraseFailure" | "PasscommandFailure" => {
                BackupError::WrongPassword { program: PROGRAM, repository }
            }
            "Repository.DoesNotExist" | "Repository.InvalidRepository" => {
                BackupError::RepositoryMissing { program: PROGRAM, repository }
            }
            "LockTimeout" | "LockError" | "LockErrorT" | "LockFailed" => {
                BackupError::Locked { program: PROGRAM, repository }
            }
            id if id.contains("Integrity") || id == "Repository.CheckNeeded" || id == "Repository.ObjectNotFound" => {
                self.damaged(stderr)
            }
            _ => BackupError::Program { action, repository, told: told(&line.message, self.repository) },
        }
    }
}

fn errors(stderr: &str) -> impl Iterator<Item = LogLine> {
    stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<LogLine>(line).ok())
        .filter(|line| matches!(line.levelname.as_str(), "ERROR" | "CRITICAL"))
}

/// A text that a pattern of borg's matches as it stands.
fn escaped(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '*' | '?' | '[') { format!("[{c}]") } else { c.to_string() }).collect()
}

/// One word for a POSIX shell; borg takes its command apart as a shell would.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_and_without_a_zone() {
        let json =
            r#"[{"name":"a","end":"2026-11-21T02:30:00.000000"},{"name":"b","end":"2026-11-21T03:30:00+01:00"}]"#;
        let archives: Vec<Archive> = serde_json::from_str(json).unwrap();
        assert_eq!(archives[0].made_at(), archives[1].made_at());
        assert!(serde_json::from_str::<Archive>(r#"{"name":"a","end":"yesterday"}"#).is_err());
    }

    #[test]
    fn a_prefix_is_no_pattern_and_a_file_name_no_command() {
        assert_eq!(escaped("a*[b]?"), "a[*][[]b][?]");
        assert_eq!(quoted("/it's here"), r"'/it'\''s here'");
    }
}
