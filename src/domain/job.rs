//! What an administrator defines.

use std::fmt;

use chrono::DateTime;
use chrono::NaiveDateTime;
use chrono::Utc;
use chrono_tz::Tz;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::Version;
use crate::domain::span::Span;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobType {
    /// Installs pending releases of an application.
    #[default]
    SoftwareUpdate,
}

impl JobType {
    /// The name, spelt the same on the command line, in SQL and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SoftwareUpdate => "software-update",
        }
    }
}

/// When a job starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StartCondition {
    /// As soon as it is enabled.
    Immediate,
    /// Once, at a wall-clock time of a zone.
    Time {
        /// The wall-clock time.
        local: NaiveDateTime,
        /// The zone it is meant in.
        zone: Tz,
    },
    /// Again and again, by a calendar expression in a zone.
    Series {
        /// systemd calendar syntax or five cron fields.
        calendar: String,
        /// The zone it is meant in.
        zone: Tz,
    },
    /// When another job's run has succeeded.
    After {
        /// That job.
        job: JobName,
    },
}

impl StartCondition {
    /// The name of the kind, as in SQL and JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Time { .. } => "time",
            Self::Series { .. } => "series",
            Self::After { .. } => "after",
        }
    }
}

impl fmt::Display for StartCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Immediate => f.write_str("immediately"),
            Self::Time { local, zone } => write!(f, "{} {zone}", local.format("%Y-%m-%d %H:%M:%S")),
            Self::Series { calendar, zone } => write!(f, "{calendar} {zone}"),
            Self::After { job } => write!(f, "after {job}"),
        }
    }
}

/// What happens to a start that was missed because nobody was there to start it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MisfirePolicy {
    /// It is not made up for.
    Skip,
    /// It runs late, within the tolerance.
    #[default]
    Run,
    /// It waits until somebody says `job run` or `job disable`.
    Ask,
}

impl MisfirePolicy {
    /// The name, spelt the same on the command line, in SQL and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Run => "run",
            Self::Ask => "ask",
        }
    }
}

/// The longest a run may take where the job says nothing.
pub const MAX_RUNTIME_DEFAULT: Span = Span::hours(4);
/// How late a missed start may be made up for where the job says nothing.
pub const MISFIRE_TOLERANCE_DEFAULT: Span = Span::hours(4);

/// What an administrator says of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Unique.
    pub name: JobName,
    /// For people.
    pub title: String,
    /// What it does.
    #[serde(rename = "type", default)]
    pub kind: JobType,
    /// The application.
    pub app: AppName,
    /// Free text.
    #[serde(default)]
    pub remarks: String,
    /// When it starts.
    pub start: StartCondition,
    /// How long users have; the application's own grace when absent.
    #[serde(default)]
    pub grace: Option<Span>,
    /// After this long a run is unwound, unless it is past the commit.
    pub max_runtime: Span,
    /// What happens to a missed start.
    #[serde(default)]
    pub misfire: MisfirePolicy,
    /// How late a missed start may run.
    pub misfire_tolerance: Span,
    /// Install no release beyond this version.
    #[serde(default)]
    pub to: Option<Version>,
    /// When that version was named, the last time. Other changes of the job do not repeat the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_named_at: Option<DateTime<Utc>>,
    /// Started when a run of this job does not succeed.
    #[serde(default)]
    pub on_failure: Option<JobName>,
    /// Mail addresses beside the application's own.
    #[serde(default)]
    pub mail: Vec<String>,
    /// The application may be down or ill when it starts: the update shall mend it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
}

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What the administrator said.
    #[serde(flatten)]
    pub spec: JobSpec,
    /// A disabled job never starts by itself.
    pub enabled: bool,
    /// The next start; absent when disabled, when it is over, or when it follows another job.
    pub due_at: Option<DateTime<Utc>>,
    /// A start was missed and its policy is to ask; this is when it should have been.
    #[serde(default)]
    pub missed_at: Option<DateTime<Utc>>,
    /// Who created it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}
