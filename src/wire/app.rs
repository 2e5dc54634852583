//! What is known of one application: backups, snapshots, findings, newer releases.

use std::path::PathBuf;

use chrono::DateTime;
use chrono::NaiveDate;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::evidence::Evidence;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::finding::Severity;
use crate::domain::held::HeldBack;
use crate::domain::held::HeldBy;
use crate::domain::name::AppName;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::domain::run::RunId;
use crate::domain::span::Span;
use crate::wire::plan::SelfUpdateView;

/// One thing that was checked.
pub type FindingView = Finding;

/// Proof that a backup exists.
pub type EvidenceView = Evidence;

/// The newest backup, looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupView {
    /// The application.
    pub app: AppName,
    /// Whether a run would accept it.
    pub accepted: bool,
    /// The oldest that is accepted; absent where no evidence is demanded.
    pub max_age: Option<Span>,
    /// The newest backup.
    pub evidence: Option<EvidenceView>,
    /// Why it is not accepted; its message is a fragment that fits after "failed to".
    pub problem: Option<Failure>,
}

/// A copy of program or data that is kept for rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// The application.
    pub app: AppName,
    /// The run that took it.
    pub run: Option<RunId>,
    /// When.
    pub taken_at: DateTime<Utc>,
    /// The version it belongs to.
    pub version: Option<Version>,
    /// Its size in bytes.
    pub size_bytes: Option<u64>,
    /// Where it is.
    pub path: PathBuf,
}

/// Everything a run will need, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorView {
    /// The application.
    pub app: AppName,
    /// What was looked at, in order.
    pub findings: Vec<FindingView>,
}

impl DoctorView {
    /// The worst of all findings; good when there are none.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Good)
    }
}

/// A published release as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// For people.
    pub version: Version,
    /// For ordering.
    pub build: u64,
    /// The day it was published.
    pub date: Option<NaiveDate>,
    /// The bytes to fetch.
    pub size_bytes: u64,
    /// The bytes of the unpacked tree.
    pub unpacked_bytes: u64,
    /// What is new, in Markdown.
    pub notes: String,
    /// The lowest version that may be updated to this one directly.
    pub min_version: Option<Version>,
    /// Every path of versions stops here.
    pub barrier: bool,
    /// Whether it changes the data.
    pub migrates: bool,
    /// Whether it does that as root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub migrates_as_root: bool,
    /// It failed here before and is not tried again by itself.
    pub failed_before: bool,
    /// Why it is not installed now; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldBy>,
    /// What would hold it back, but does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early: Option<HeldBy>,
    /// It mends something that can be abused.
    #[serde(default)]
    pub security: bool,
}

impl ReleaseView {
    /// A release as it is shown; nothing holds it back.
    pub fn new(release: &Release) -> Self {
        Self {
            version: release.id.version.clone(),
            build: release.id.build,
            date: release.date,
            size_bytes: release.size_bytes(),
            unpacked_bytes: release.unpacked_bytes(),
            notes: release.notes.clone(),
            min_version: release.min_version.clone(),
            barrier: release.barrier,
            migrates: release.migrate.is_some(),
            migrates_as_root: release.migrate_as_root,
            failed_before: false,
            held: None,
            early: None,
            security: release.security,
        }
    }
}

impl ReleaseView {
    /// What holds it back, with its name.
    pub fn held_back(&self) -> Option<HeldBack> {
        let release = ReleaseId { version: self.version.clone(), build: self.build };
        self.held.clone().map(|why| HeldBack { release, why })
    }
}

/// What is newer than what is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatesView {
    /// The application.
    pub app: AppName,
    /// What is installed now, where that is known.
    pub installed: Option<ReleaseId>,
    /// Whether that is only what the application says: Afterhours has not put it there.
    #[serde(default)]
    pub unverified: bool,
    /// Why that should be looked at; as `doctor` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<FindingView>,
    /// What is newer, ascending; what is `held` is not installed now.
    pub pending: Vec<ReleaseView>,
    /// What Afterhours would do for itself before it installs any of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_update: Option<SelfUpdateView>,
    /// Present where the vendor's server was not reached: all of this was verified before.
    #[serde(default)]
    pub not_reached: Option<NotReachedView>,
}

/// A vendor's server that was not reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReachedView {
    /// Why; its message is a fragment that fits after "failed to".
    pub failure: Failure,
    /// When it was asked with success the last time, where that was noted.
    pub seen_at: Option<DateTime<Utc>>,
}

/// Updates an application now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateNow {
    /// Install no release beyond this version.
    #[serde(default)]
    pub to: Option<Version>,
    /// How long users have; the application's own grace when absent.
    #[serde(default)]
    pub grace: Option<Span>,
    /// The application may be down or ill now: the update shall mend it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
}

/// A release that failed here and is not tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedView {
    /// The application; `afterhours` for a build of Afterhours itself.
    pub app: AppName,
    /// Its version.
    pub version: String,
    /// Its build.
    pub build: u64,
    /// The run in which it failed, the last time.
    pub run: RunId,
    /// When that was.
    pub failed_at: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

/// Lets a release that failed here be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowRelease {
    /// Its version.
    pub version: Version,
}

/// What became of allowing a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedView {
    /// The application.
    pub app: AppName,
    /// The version.
    pub version: Version,
    /// False when it had not failed here: nothing has changed.
    pub was_held_back: bool,
}
