//! What a run would do, shown before anything is done.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::held::HeldBack;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::domain::span::Span;
use crate::domain::step::Step;
use crate::wire::app::FindingView;
use crate::wire::app::ReleaseView;
use crate::wire::people::SessionsView;

/// What a run of a job would do now. Nothing is changed to find out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// The job.
    pub job: Option<JobName>,
    /// The application.
    pub app: AppName,
    /// When it would start by itself.
    pub due_at: Option<DateTime<Utc>>,
    /// What is installed now.
    pub from: Option<ReleaseId>,
    /// What would be installed, ascending; empty when there is nothing to do.
    pub path: Vec<ReleaseView>,
    /// What Afterhours would do for itself first; absent when there is nothing newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_update: Option<SelfUpdateView>,
    /// What is newer as well and would not be installed, ascending, and why.
    #[serde(default)]
    pub held: Vec<HeldBack>,
    /// What would be installed although something would hold it back: by order, or on the way to a security release.
    #[serde(default)]
    pub early: Vec<HeldBack>,
    /// Whether the application may be down or ill: the update shall mend it.
    #[serde(default)]
    pub repair: bool,
    /// How long users would have.
    pub grace: Span,
    /// The steps in order.
    pub steps: Vec<PlannedStep>,
    /// What happens to the files; absent until the releases are unpacked.
    pub files: Option<FilesView>,
    /// Disk space.
    pub space: Option<SpaceView>,
    /// How long the application would be away, from runs before; absent when there were none.
    pub downtime_ms: Option<u64>,
    /// Who would have to log out.
    pub sessions: SessionsView,
    /// Who would get a mail.
    pub mail: Vec<String>,
    /// What would keep it from running, and what to do about it.
    pub findings: Vec<FindingView>,
}

/// Afterhours before and after it has updated itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfUpdateView {
    /// What runs now, in words.
    pub from: String,
    /// What would.
    pub to: ReleaseId,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Which.
    pub step: Step,
    /// For which build of the version path, counted from 0.
    #[serde(default)]
    pub build: u32,
    /// The version it brings, for steps that are done for each.
    pub version: Option<Version>,
    /// What it does.
    pub does: String,
    /// Whether a program of the vendor's does it as root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_root: bool,
    /// What happens when something fails after it.
    pub undo: Option<String>,
}

/// What happens to the files of the program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FilesView {
    /// How many are new.
    pub added: u64,
    /// How many change.
    pub changed: u64,
    /// How many go.
    pub removed: u64,
    /// Which stay as the administrator made them.
    pub kept: Vec<String>,
    /// Which stay, with the vendor's new default beside them as `NAME.new`.
    pub conflicts: Vec<String>,
}

/// Disk space that a run would use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceView {
    /// At its peak, in bytes.
    pub needed_bytes: u64,
    /// Free now, in bytes.
    pub free_bytes: u64,
}
