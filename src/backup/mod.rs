//! The backup gate: a run begins only when a fresh backup is proven.
//!
//! ```text
//!            find          judge            test
//! source ──────────▶ newest ──────▶ fresh ──────────▶ evidence
//!   ▲                         │ old, missing, bad
//!   └────── make ◀────────────┘            then rotate
//! ```
//!
//! [`BackupGate::satisfy`] is the whole rule; [`source`] is the closed set of places where proof
//! can be, one file each; [`judge`] holds what is pure.
//!
//! Invariants: evidence is tested, not only dated. A backup that is being written is none yet.
//! What one was made for must be newer than what was there before. Repositories are never locked
//! against the site's own backup for longer than borg's check demands, never repaired, never
//! pruned; only dump files are rotated. No error holds a secret.
//!
//! Deliberately absent: restoring. What brings data back after a failed update is the snapshot,
//! not the backup.

mod borg;
mod checksum;
mod error;
mod files;
mod judge;
mod reported;
mod restic;
mod rotate;
mod source;
mod writers;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use chrono::Utc;
use rustix::fs::Access;
use rustix::fs::access;
use serde::Deserialize;
use serde::Serialize;
use tokio::time::Instant;
use tokio::time::interval;

pub use crate::backup::error::BackupError;
pub use crate::backup::judge::CLOCK_SKEW_MAX;
pub use crate::backup::judge::Verdict;
pub use crate::backup::judge::judge;
use crate::backup::rotate::Place;
use crate::backup::source::Found;
use crate::backup::source::Source;
use crate::config::settings::BackupSettings;
use crate::config::settings::EvidenceSettings;
use crate::domain::clock::Clock;
use crate::domain::evidence::Evidence;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::name::AppName;
use crate::domain::progress::Progress;
use crate::domain::span::Span;
use crate::exec::Exec;

/// How long looking at what there is may take, as opposed to testing it.
const LOOK_MAX: Span = Span::mins(5);
/// What restic and borg may see of our own environment: how their repositories are reached.
const BACKENDS: &[&str] = &[
    "RESTIC_",
    "BORG_",
    "AWS_",
    "B2_",
    "AZURE_",
    "GOOGLE_",
    "RCLONE_",
    "OS_",
    "ST_",
    "SSH_AUTH_SOCK",
    "XDG_CACHE_HOME",
];
/// How often the making of a backup is told to be under way.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The backup gate of one application.
#[derive(Debug, Clone)]
pub struct BackupGate {
    app: AppName,
    settings: BackupSettings,
}

/// One backup in a list; it was not tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupEntry {
    /// Where it is.
    pub source: String,
    /// When it was finished.
    pub made_at: DateTime<Utc>,
    /// Its size in bytes, where that is known.
    pub size_bytes: Option<u64>,
    /// Whether it holds still.
    pub state: EntryState,
}

/// Whether a listed backup holds still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// It was not touched lately.
    Complete,
    /// It was touched a moment ago and may not be finished.
    JustWritten,
}

/// Whether a backup had to be made.
#[derive(Debug)]
pub enum Made {
    /// There was a good one already.
    No,
    /// One was made.
    Yes {
        /// Older dumps that were removed afterwards.
        removed: Vec<String>,
        /// Why rotation failed. The new backup is good all the same.
        not_rotated: Option<BackupError>,
    },
}

impl BackupGate {
    /// The gate of `app`. Nothing is looked at yet.
    pub fn new(app: &AppName, settings: &BackupSettings) -> Self {
        Self { app: app.clone(), settings: settings.clone() }
    }

    fn source(&self) -> Source<'_> {
        Source::new(&self.app, &self.settings)
    }

    /// Finds and tests the newest backup, whatever its age.
    ///
    /// # Errors
    /// There is none, it is bad, or it cannot be looked at.
    pub async fn newest(&self, now: DateTime<Utc>) -> Result<Evidence, BackupError> {
        let found = self.source().find(now).await?;
        self.source().test(found).await
    }

    /// What backups there are, newest first. Cheap: nothing is tested.
    ///
    /// # Errors
    /// It cannot be looked.
    pub async fn list(&self, now: DateTime<Utc>) -> Result<Vec<BackupEntry>, BackupError> {
        self.source().list(now).await
    }

    /// Makes a backup with the configured command. Whether it is any good is not looked at.
    ///
    /// # Errors
    /// No command is configured, it fails, or does not end in time.
    pub async fn make(&self, env: &BTreeMap<String, String>, progress: Arc<dyn Progress>) -> Result<(), BackupError> {
        let argv = self.settings.make.as_ref().ok_or(BackupError::NoMake)?;
        let began = Instant::now();
        let mut tick = interval(TELL_EVERY);
        let making = Exec::of(argv, self.settings.deadline).env("AFTERHOURS_APP", self.app.as_str()).envs(env).run();
        tokio::pin!(making);
        loop {
            tokio::select! {
                made = &mut making => return made.map(drop).map_err(|source| BackupError::MakeFailed { source }),
                _ = tick.tick() => progress.advance(began.elapsed().as_secs(), None, "making a backup"),
            }
        }
    }

    /// Removes dumps beyond `keep_last`, oldest first; the answer is what was removed. The newest
    /// stays, and so does one that passes its test. Does nothing for other kinds of evidence.
    ///
    /// # Errors
    /// No dump passes its test, or one cannot be removed.
    pub async fn rotate(&self, now: DateTime<Utc>) -> Result<Vec<String>, BackupError> {
        match (self.source(), self.settings.keep_last) {
            (Source::Files(files), Some(keep_last)) => rotate::keep_newest(files, keep_last, now).await,
            _ => Ok(Vec::new()),
        }
    }

    /// The whole rule: accepts a fresh and good backup; where there is none, makes one, accepts
    /// only what is newer than before, and rotates.
    ///
    /// Doing it again after a crash is safe: what was made then is found now.
    ///
    /// # Errors
    /// What was found instead of a fresh and good backup, or why none could be made.
    pub async fn satisfy(
        &self,
        clock: &dyn Clock,
        env: &BTreeMap<String, String>,
        progress: Arc<dyn Progress>,
    ) -> Result<(Evidence, Made), BackupError> {
        let found = self.find_finished(clock, None, progress.as_ref()).await;
        let before = found.as_ref().ok().map(|found| found.evidence.made_at);
        let refusal = match self.accept(found, clock.now()).await {
            Ok(evidence) => return Ok((evidence, Made::No)),
            Err(refusal) => refusal,
        };
        if self.settings.make.is_none() || !refusal.is_mended_by_a_new_backup() {
            return Err(refusal);
        }
        tracing::info!(app = %self.app, because = %refusal, "making a backup");
        self.make(env, progress.clone()).await?;
        let found = match self.find_finished(clock, before, progress.as_ref()).await {
            Ok(found) if before.is_some_and(|before| found.evidence.made_at <= before) => {
                return Err(BackupError::MadeNothing { newest: Some(found.evidence.source) });
            }
            Err(BackupError::NotFound { .. }) => return Err(BackupError::MadeNothing { newest: None }),
            found => found?,
        };
        // Before its test, which may be the application's own.
        let (tested, dir) = (found.dump_path(), self.hold_dumps().await);
        let evidence = self.accept(Ok(found), clock.now()).await?;
        Ok((evidence, self.rotate_after_making(tested, dir).await))
    }

    /// Finds the newest backup. Waits for one that is being written, unless there is another that
    /// is fresh and newer than `before`.
    async fn find_finished(
        &self,
        clock: &dyn Clock,
        before: Option<DateTime<Utc>>,
        progress: &dyn Progress,
    ) -> Result<Found, BackupError> {
        let began = Instant::now();
        loop {
            let now = clock.now();
            let found = self.source().find(now).await;
            let enough = match &found {
                Ok(found) => {
                    let evidence = &found.evidence;
                    !found.newer_is_growing
                        || matches!(judge(evidence, self.settings.max_age, now), Verdict::Fresh { .. })
                            && before.is_none_or(|before| evidence.made_at > before)
                }
                Err(error) => !matches!(error, BackupError::StillWritten { .. }),
            };
            if enough || began.elapsed() >= self.settings.deadline.duration() {
                return found;
            }
            // No pause is needed: looking at something that grows takes two looks and the time between them.
            progress.advance(began.elapsed().as_secs(), None, "waiting for a backup that is being written");
        }
    }

    /// Judges what was found, and tests it when its date is right.
    async fn accept(&self, found: Result<Found, BackupError>, now: DateTime<Utc>) -> Result<Evidence, BackupError> {
        let found = found?;
        let backup = found.evidence.source.clone();
        let max_age = self.settings.max_age;
        match judge(&found.evidence, max_age, now) {
            Verdict::Fresh { .. } => self.source().test(found).await,
            Verdict::TooOld { age } => Err(BackupError::TooOld { backup, age, max_age }),
            Verdict::FromTheFuture { by } => Err(BackupError::FromTheFuture { backup, by }),
        }
    }

    async fn hold_dumps(&self) -> Result<Option<Place>, BackupError> {
        match (self.source(), self.settings.keep_last) {
            (Source::Files(files), Some(_)) => Place::hold(files).await,
            _ => Ok(None),
        }
    }

    async fn rotate_after_making(&self, tested: Option<PathBuf>, dir: Result<Option<Place>, BackupError>) -> Made {
        let rotated = match (self.source(), self.settings.keep_last, tested, dir) {
            (Source::Files(files), Some(keep_last), Some(tested), Ok(Some(dir))) => {
                rotate::keep_tested(files, dir, keep_last, tested).await
            }
            (.., Err(error)) => Err(error),
            _ => Ok(Vec::new()),
        };
        match rotated {
            Ok(removed) => Made::Yes { removed, not_rotated: None },
            Err(error) => Made::Yes { removed: Vec::new(), not_rotated: Some(error) },
        }
    }

    /// What `doctor` has to say: whether there is a fresh and good backup, how well it is tested,
    /// and whether one can be made.
    pub async fn check(&self, now: DateTime<Utc>) -> Vec<Finding> {
        let found = self.source().find(now).await;
        let accepted = self.accept(found, now).await;
        let depth = accepted.as_ref().ok().and_then(|evidence| self.check_depth(evidence));
        let evidence = match accepted {
            Ok(Evidence { source, made_at, tested, .. }) => Finding::good(
                "backup_evidence",
                format!("{source} of {made_at} is fresh; tested: {}", tested.join(", ")),
            ),
            Err(error) if self.settings.make.is_some() && error.is_mended_by_a_new_backup() => Finding::warning(
                "backup_evidence",
                told_with_causes(&error),
                "a run will make a backup first; that takes time, so look why there is no fresh one",
            ),
            Err(error) => {
                let remedy = error.hint().unwrap_or_else(|| "check again".to_owned());
                Finding::fatal("backup_evidence", told_with_causes(&error), remedy)
            }
        };
        [Some(evidence), depth, self.check_make()].into_iter().flatten().collect()
    }

    /// Whether more than date and size was tested.
    fn check_depth(&self, evidence: &Evidence) -> Option<Finding> {
        let remedy = match &self.settings.evidence {
            EvidenceSettings::Files { .. } if evidence.tested.len() < 2 => {
                "put a NAME.sha256 beside each dump, or set `test` to a command that reads one"
            }
            EvidenceSettings::Restic { read_data_subset: None, .. } => {
                "set `read_data_subset`, for example to \"5%\"; a damaged disk shows only when data are read"
            }
            EvidenceSettings::Borg { check: false, .. } => "set `check = true`",
            EvidenceSettings::Files { .. }
            | EvidenceSettings::Restic { .. }
            | EvidenceSettings::Borg { .. }
            | EvidenceSettings::Manifest { .. }
            | EvidenceSettings::Command { .. } => return None,
        };
        Some(Finding::warning("backup_tested", "the content of backups is not read", remedy))
    }

    /// Whether the command that makes a backup can be run at all.
    fn check_make(&self) -> Option<Finding> {
        let program = self.settings.make.as_ref()?.program();
        let path = Path::new(program);
        // A bare name is looked up by the system when it is run.
        if !path.is_absolute() {
            return None;
        }
        Some(match access(path, Access::EXEC_OK) {
            Ok(()) if path.is_file() => Finding::good("backup_make", format!("{program} can be run")),
            _ => Finding::fatal(
                "backup_make",
                format!("{program}, which makes a backup, cannot be run"),
                format!("install it, make it executable with `chmod +x {program}`, or correct `backup.make`"),
            ),
        })
    }
}

/// An error with its causes, on one line.
fn told_with_causes(error: &BackupError) -> String {
    Failure::from_error(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::SystemClock;
    use crate::domain::command::Command;
    use crate::domain::command::Tree;
    use crate::domain::progress::Silent;

    #[test]
    fn a_run_can_be_carried_from_thread_to_thread() {
        fn is_send(_: impl Send) {}
        let settings = BackupSettings {
            max_age: Span::days(2),
            evidence: EvidenceSettings::Command {
                command: Command::of_owner(vec!["true".to_owned()], Tree::default()),
            },
            make: None,
            deadline: Span::secs(1),
            keep_last: None,
        };
        let gate = BackupGate::new(&"orders".parse().unwrap(), &settings);
        let env = BTreeMap::new();
        is_send(gate.satisfy(&SystemClock, &env, Arc::new(Silent)));
        is_send(gate.rotate(DateTime::UNIX_EPOCH));
        is_send(gate.check(DateTime::UNIX_EPOCH));
    }
}
