//! One execution of a job.

use std::fmt;
use std::str::FromStr;

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use crate::domain::failure::Failure;
use crate::domain::job::JobSpec;
use crate::domain::job::JobType;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::Version;
use crate::domain::span::Span;
use crate::domain::step::At;

/// The number of a run, unique within one store and ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub i64);

/// A text that is no run number.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("\"{0}\" is no run: runs are numbers, see `afterhours run list`")]
pub struct BadRunId(String);

impl FromStr for RunId {
    type Err = BadRunId;

    fn from_str(text: &str) -> Result<Self, BadRunId> {
        text.parse().ok().filter(|id| *id > 0).map(Self).ok_or_else(|| BadRunId(text.to_owned()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A count that grows with every claim of a run. Whoever holds a lower one has lost the run and can write nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub i64);

/// Why a run exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Trigger {
    /// The job fell due.
    Schedule,
    /// The job's start was missed and its policy lets it run late.
    Misfire {
        /// When it should have started.
        missed_at: DateTime<Utc>,
    },
    /// Somebody started it by hand.
    Manual,
    /// It follows another job's run that ended well.
    After {
        /// That run.
        run: RunId,
    },
    /// It follows another job's run that did not end well.
    OnFailure {
        /// That run.
        run: RunId,
    },
    /// `update now`.
    UpdateNow,
}

/// Everything a run was told when it was queued; later edits of the job do not reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The job; absent for `update now`.
    pub job: Option<JobName>,
    /// What kind of work.
    #[serde(rename = "type")]
    pub kind: JobType,
    /// The application.
    pub app: AppName,
    /// Why it runs.
    pub trigger: Trigger,
    /// Who started it: a user of this machine, or the creator of the job.
    pub started_by: String,
    /// How long users have; the application's own grace when absent.
    pub grace: Option<Span>,
    /// After this long the run is unwound, unless it is past the commit.
    pub max_runtime: Span,
    /// Install no release beyond this version.
    pub to: Option<Version>,
    /// Mail addresses of this job, beside the application's own.
    #[serde(default)]
    pub mail: Vec<String>,
    /// Started when this run does not succeed.
    pub on_failure: Option<JobName>,
    /// The application may be down or ill when it starts: the update shall mend it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
}

impl Order {
    /// The order of a run of `spec`, as the job is now.
    pub fn of_job(spec: &JobSpec, trigger: Trigger, started_by: &str) -> Self {
        Self {
            job: Some(spec.name.clone()),
            kind: spec.kind,
            app: spec.app.clone(),
            trigger,
            started_by: started_by.to_owned(),
            grace: spec.grace,
            max_runtime: spec.max_runtime,
            to: spec.to.clone(),
            mail: spec.mail.clone(),
            on_failure: spec.on_failure.clone(),
            repair: spec.repair,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new version runs.
    Succeeded,
    /// Something failed after the service was stopped; the old version runs with its own data.
    RolledBack,
    /// Something failed before the service was touched.
    Failed,
    /// A person stopped it, before the service was touched.
    Cancelled,
    /// There was nothing to do, or a missed start was not made up for.
    Skipped,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Succeeded, Self::RolledBack, Self::Failed, Self::Cancelled, Self::Skipped];

    /// The name, spelt the same in SQL, JSON and text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a run turned round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// A step failed.
    StepFailed {
        /// Which one.
        at: At,
        /// Why.
        failure: Failure,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// Who.
        by: String,
    },
    /// It took longer than the job allows.
    Overlong {
        /// The limit.
        max_runtime: Span,
    },
    /// There is no newer release to install, or the run was not needed.
    NothingToDo {
        /// In words.
        reason: String,
        /// Which of these it is.
        #[serde(default, skip_serializing_if = "Idle::is_nothing_newer")]
        why: Idle,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StepFailed { at, failure } => write!(f, "{at} failed: {failure}"),
            Self::Cancelled { by } => write!(f, "cancelled by {by}"),
            Self::Overlong { max_runtime } => write!(f, "took longer than {max_runtime}"),
            Self::NothingToDo { reason, .. } => f.write_str(reason),
        }
    }
}

/// Why a run did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Idle {
    /// There is nothing newer that could be installed.
    #[default]
    NothingNewer,
    /// Its start was missed, and is not made up for.
    Missed {
        /// When it should have been.
        missed_at: DateTime<Utc>,
    },
    /// Its start was missed, and a person says whether it is made up for.
    Asks {
        /// When it should have been.
        missed_at: DateTime<Utc>,
    },
}

impl Idle {
    const fn is_nothing_newer(&self) -> bool {
        matches!(self, Self::NothingNewer)
    }
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RunState {
    /// Waits for its instant or for its turn.
    Queued,
    /// Goes forward.
    Running {
        /// The step it is at.
        at: At,
    },
    /// Waits before it tries again.
    Waiting {
        /// The step it waits before.
        at: At,
        /// Until when.
        until: DateTime<Utc>,
        /// Why.
        reason: String,
    },
    /// Goes back.
    Unwinding {
        /// Why.
        cause: Cause,
    },
    /// Cannot go forward or back; a person decides with `run resolve`.
    Stuck {
        /// Where.
        at: At,
        /// Why.
        failure: Failure,
    },
    /// Over.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

impl RunState {
    /// The name, spelt the same in SQL, JSON and text.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running { .. } => "running",
            Self::Waiting { .. } => "waiting",
            Self::Unwinding { .. } => "unwinding",
            Self::Stuck { .. } => "stuck",
            Self::Finished { .. } => "finished",
        }
    }

    /// The outcome of a finished run.
    pub const fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Finished { outcome } => Some(*outcome),
            _ => None,
        }
    }
}

/// Which version a person says is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The version before the run.
    Old,
    /// The version after it.
    New,
}

impl Side {
    /// The name, as it is typed and as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }
}
