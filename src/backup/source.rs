//! The five places where the proof of a backup can be, as one closed set: find, test, list.

use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;

use crate::backup::BackupEntry;
use crate::backup::EntryState;
use crate::backup::borg::Borg;
use crate::backup::checksum;
use crate::backup::error::BackupError;
use crate::backup::error::clipped;
use crate::backup::error::shown;
use crate::backup::files::Dump;
use crate::backup::files::Files;
use crate::backup::judge::EARLIER_MAX;
use crate::backup::judge::judge_size;
use crate::backup::reported::Manifest;
use crate::backup::reported::Reported;
use crate::backup::restic::Restic;
use crate::config::settings::BackupSettings;
use crate::config::settings::EvidenceSettings;
use crate::domain::command::Command;
use crate::domain::evidence::Evidence;
use crate::domain::name::AppName;
use crate::domain::span::Span;

/// How many backups are listed.
const LIST_MAX: usize = 100;

/// Where proof is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Files(Files<'a>),
    Restic(Restic<'a>),
    Borg(Borg<'a>),
    Manifest { file: &'a Path, deadline: Span },
    Command { app: &'a AppName, command: &'a Command, deadline: Span },
}

/// The newest backup, found but not yet tested.
#[derive(Debug)]
pub(super) struct Found {
    /// What is known without testing.
    pub(super) evidence: Evidence,
    /// Whether a newer one is being written right now.
    pub(super) newer_is_growing: bool,
    proof: Proof,
}

/// What testing needs.
#[derive(Debug)]
enum Proof {
    Dump { dump: Dump, earlier: Vec<u64>, writers_known: bool },
    Snapshot { id: String },
    Archive,
    Manifest(Manifest),
    Reported,
}

impl Found {
    fn new(source: String, made_at: DateTime<Utc>, size_bytes: Option<u64>, proof: Proof) -> Self {
        let evidence = Evidence { source, made_at, size_bytes, tested: Vec::new() };
        Self { evidence, newer_is_growing: false, proof }
    }

    /// The path of a dump.
    pub(super) fn dump_path(&self) -> Option<PathBuf> {
        match &self.proof {
            Proof::Dump { dump, .. } => Some(dump.path.clone()),
            Proof::Snapshot { .. } | Proof::Archive | Proof::Manifest(_) | Proof::Reported => None,
        }
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(app: &'a AppName, settings: &'a BackupSettings) -> Self {
        let deadline = settings.deadline;
        match &settings.evidence {
            EvidenceSettings::Files { glob, min_size_bytes, max_shrink_percent, test } => Self::Files(Files {
                app,
                glob,
                min_size_bytes: *min_size_bytes,
                max_shrink_percent: *max_shrink_percent,
                test: test.as_ref(),
                deadline,
            }),
            EvidenceSettings::Restic { repository, password_file, tag, read_data_subset, env } => {
                Self::Restic(Restic {
                    repository,
                    password_file,
                    tag: tag.as_deref(),
                    read_data_subset: read_data_subset.as_deref(),
                    env,
                    deadline,
                })
            }
            EvidenceSettings::Borg { repository, passphrase_file, prefix, check, env } => Self::Borg(Borg {
                repository,
                passphrase_file: passphrase_file.as_deref(),
                prefix: prefix.as_deref(),
                check: *check,
                env,
                deadline,
            }),
            EvidenceSettings::Manifest { file } => Self::Manifest { file, deadline },
            EvidenceSettings::Command { command } => Self::Command { app, command, deadline },
        }
    }

    /// Where it is looked, for people.
    fn place(self) -> String {
        match self {
            Self::Files(files) => files.glob.to_owned(),
            Self::Restic(restic) => match restic.tag {
                Some(tag) => format!("{} with the tag {tag}", shown(restic.repository)),
                None => shown(restic.repository),
            },
            Self::Borg(borg) => match borg.prefix {
                Some(prefix) => format!("{} with names that begin with {prefix}", shown(borg.repository)),
                None => shown(borg.repository),
            },
            Self::Manifest { file, .. } => file.display().to_string(),
            Self::Command { command, .. } => command.program().to_owned(),
        }
    }

    /// Finds the newest finished backup.
    pub(super) async fn find(self, now: DateTime<Utc>) -> Result<Found, BackupError> {
        let found = match self {
            Self::Files(files) => return find_dump(files, now).await,
            Self::Restic(restic) => restic.newest().await?.map(|snapshot| {
                let proof = Proof::Snapshot { id: snapshot.id.clone() };
                Found::new(snapshot.name(restic), snapshot.made_at(), snapshot.size_bytes(), proof)
            }),
            Self::Borg(borg) => borg
                .newest()
                .await?
                .map(|archive| Found::new(archive.name(borg), archive.made_at(), None, Proof::Archive)),
            Self::Manifest { file, .. } => Manifest::read(file).await?.map(|manifest| {
                let (made_at, size) = (manifest.made_at, manifest.size_bytes());
                Found::new(file.display().to_string(), made_at, Some(size), Proof::Manifest(manifest))
            }),
            Self::Command { app, command, deadline } => {
                let reported = Reported::ask(app, command, deadline).await?;
                let source = clipped(&reported.source);
                Some(Found::new(source, reported.made_at, reported.size_bytes, Proof::Reported))
            }
        };
        found.ok_or_else(|| BackupError::NotFound { place: self.place() })
    }

    /// Tests what was found, in every way that is configured.
    pub(super) async fn test(self, found: Found) -> Result<Evidence, BackupError> {
        let mut evidence = found.evidence;
        match (self, found.proof) {
            (Self::Files(files), Proof::Dump { dump, earlier, writers_known }) => {
                evidence.tested = files.test(&dump, &earlier).await?;
                if let Some(first) = evidence.tested.first_mut().filter(|_| !writers_known) {
                    first.push_str(", and it holds still (who has it open cannot be seen)");
                }
            }
            (Self::Restic(restic), Proof::Snapshot { id }) => {
                evidence.tested.push(restic.check().await?);
                if evidence.size_bytes.is_none() {
                    evidence.size_bytes = Some(restic.size_bytes(&id).await?);
                }
            }
            (Self::Borg(borg), Proof::Archive) => evidence.tested.extend(borg.check().await?),
            (Self::Manifest { file, deadline }, Proof::Manifest(manifest)) => {
                let expected = manifest.expected(file)?;
                evidence.tested.push(format!("sha256 of {} files matches", expected.len()));
                checksum::verify(expected, file, deadline).await?;
            }
            (Self::Command { command, .. }, Proof::Reported) => {
                evidence.tested.push(format!("reported by {}", command.program()));
            }
            // What was found elsewhere proves nothing here.
            (_, proof) => {
                tracing::error!(?proof, "found by another source");
                return Err(BackupError::NotFound { place: self.place() });
            }
        }
        if let Some(size_bytes) = evidence.size_bytes {
            judge_size(&evidence.source, size_bytes, 1, &[], 100)?;
        }
        Ok(evidence)
    }

    /// What there is, newest first, at most [`LIST_MAX`]. Nothing is tested.
    pub(super) async fn list(self, now: DateTime<Utc>) -> Result<Vec<BackupEntry>, BackupError> {
        let entry =
            |source, made_at, size_bytes| BackupEntry { source, made_at, size_bytes, state: EntryState::Complete };
        let mut entries: Vec<_> = match self {
            Self::Files(files) => files
                .look()
                .await?
                .into_iter()
                .map(|dump| BackupEntry {
                    source: dump.name(),
                    made_at: dump.modified_at,
                    size_bytes: Some(dump.size_bytes),
                    state: if dump.is_young(now) { EntryState::JustWritten } else { EntryState::Complete },
                })
                .collect(),
            Self::Restic(restic) => restic
                .list()
                .await?
                .into_iter()
                .map(|snapshot| entry(snapshot.name(restic), snapshot.made_at(), snapshot.size_bytes()))
                .collect(),
            Self::Borg(borg) => borg
                .list()
                .await?
                .into_iter()
                .map(|archive| entry(archive.name(borg), archive.made_at(), None))
                .collect(),
            Self::Manifest { .. } | Self::Command { .. } => match self.find(now).await {
                Ok(Found { evidence, .. }) => vec![entry(evidence.source, evidence.made_at, evidence.size_bytes)],
                Err(BackupError::NotFound { .. }) => Vec::new(),
                Err(error) => return Err(error),
            },
        };
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.made_at));
        entries.truncate(LIST_MAX);
        Ok(entries)
    }
}

async fn find_dump(files: Files<'_>, now: DateTime<Utc>) -> Result<Found, BackupError> {
    let mut survey = files.survey(now).await?;
    let mut finished = std::mem::take(&mut survey.finished).into_iter();
    let Some(dump) = finished.next() else {
        return Err(match survey.growing.first() {
            Some(growing) => BackupError::StillWritten { backup: growing.name(), by: survey.writer(growing) },
            None => BackupError::NotFound { place: files.glob.to_owned() },
        });
    };
    let earlier = finished.take(EARLIER_MAX).map(|dump| dump.size_bytes).collect();
    let (name, made_at, size) = (dump.name(), dump.modified_at, dump.size_bytes);
    let newer_is_growing = survey.growing.iter().any(|growing| growing.modified_at >= made_at);
    let proof = Proof::Dump { dump, earlier, writers_known: survey.writers.is_known };
    let mut found = Found::new(name, made_at, Some(size), proof);
    found.newer_is_growing = newer_is_growing;
    Ok(found)
}
