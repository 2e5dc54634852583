//! Runs on the wire.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::job::JobType;
use crate::domain::letter::Letter;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::Version;
use crate::domain::run::Outcome;
use crate::domain::run::RunId;
use crate::domain::run::RunState;
use crate::domain::run::Side;
use crate::domain::run::Trigger;
use crate::domain::step::At;
use crate::domain::step::Step;

/// How many runs a list holds where the query does not say.
pub const RUNS_LIMIT_DEFAULT: u32 = 50;
/// How many runs a list holds at most.
pub const RUNS_LIMIT_MAX: u32 = 1_000;

/// A run as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Its number.
    pub id: RunId,
    /// The job; absent for `update now`.
    pub job: Option<JobName>,
    /// What kind of work.
    #[serde(rename = "type")]
    pub kind: JobType,
    /// The application.
    pub app: AppName,
    /// Why it runs.
    pub trigger: TriggerKind,
    /// The run that it follows.
    pub trigger_run: Option<RunId>,
    /// When it should have started, had nobody missed it.
    pub missed_at: Option<DateTime<Utc>>,
    /// Who started it.
    pub started_by: String,
    /// Where it stands.
    pub state: RunStateName,
    /// The step that it is at.
    pub at: Option<At>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it waits, turned round, is stuck or did not succeed; its message reads alone.
    pub cause: Option<Failure>,
    /// Until when it waits.
    pub waiting_until: Option<DateTime<Utc>>,
    /// What was installed before.
    pub from_version: Option<Version>,
    /// What it installs, or has installed.
    pub to_version: Option<Version>,
    /// When it was queued.
    pub queued_at: DateTime<Utc>,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
    /// From the stop of the service until it was healthy again, in milliseconds.
    pub downtime_ms: Option<u64>,
    /// Since when the application is away; absent when it is not, or was not.
    #[serde(default)]
    pub away_since: Option<DateTime<Utc>>,
    /// Its steps in order, as far as they are known; empty in lists.
    #[serde(default)]
    pub steps: Vec<StepView>,
    /// Its report, with each of its recipients; nothing before it is written.
    #[serde(default)]
    pub mail: Vec<Letter>,
}

/// Why a run exists, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    /// The job fell due.
    Schedule,
    /// A missed start was made up for.
    Misfire,
    /// Somebody started it by hand.
    Manual,
    /// It follows a run that ended well.
    After,
    /// It follows a run that did not end well.
    OnFailure,
    /// `update now`.
    UpdateNow,
}

impl TriggerKind {
    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Misfire => "misfire",
            Self::Manual => "manual",
            Self::After => "after",
            Self::OnFailure => "on_failure",
            Self::UpdateNow => "update_now",
        }
    }
}

impl From<&Trigger> for TriggerKind {
    fn from(trigger: &Trigger) -> Self {
        match trigger {
            Trigger::Schedule => Self::Schedule,
            Trigger::Misfire { .. } => Self::Misfire,
            Trigger::Manual => Self::Manual,
            Trigger::After { .. } => Self::After,
            Trigger::OnFailure { .. } => Self::OnFailure,
            Trigger::UpdateNow => Self::UpdateNow,
        }
    }
}

/// Where a run stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStateName {
    /// Waits for its instant or for its turn.
    Queued,
    /// Goes forward.
    Running,
    /// Waits before it tries again.
    Waiting,
    /// Goes back.
    Unwinding,
    /// A person decides with `run resolve`.
    Stuck,
    /// Over.
    Finished,
}

impl RunStateName {
    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Unwinding => "unwinding",
            Self::Stuck => "stuck",
            Self::Finished => "finished",
        }
    }

    /// Whether the run stays so until a person does something.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Stuck | Self::Finished)
    }
}

impl From<&RunState> for RunStateName {
    fn from(state: &RunState) -> Self {
        match state {
            RunState::Queued => Self::Queued,
            RunState::Running { .. } => Self::Running,
            RunState::Waiting { .. } => Self::Waiting,
            RunState::Unwinding { .. } => Self::Unwinding,
            RunState::Stuck { .. } => Self::Stuck,
            RunState::Finished { .. } => Self::Finished,
        }
    }
}

/// One step of a run as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// Which.
    pub step: Step,
    /// For which build of the version path, counted from 0.
    #[serde(default)]
    pub build: u32,
    /// Where it stands.
    pub state: StepState,
    /// When it was first begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was last ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How often it was tried.
    pub attempts: u32,
    /// What it has to say.
    pub message: Option<String>,
}

impl StepView {
    /// The step within its run.
    pub const fn at(&self) -> At {
        At { step: self.step, build: self.build }
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Being done.
    Running,
    /// Done.
    Succeeded,
    /// Could not be done.
    Failed,
    /// Being undone.
    Undoing,
    /// Put back.
    Undone,
    /// Could not be put back.
    UndoFailed,
    /// Nothing depends on it, and it was left.
    PassedOver,
}

impl StepState {
    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
            Self::PassedOver => "passed_over",
        }
    }
}

/// Which runs are listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunsQuery {
    /// Only of this application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// Only of this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// How many at most; [`RUNS_LIMIT_DEFAULT`] when absent, never more than [`RUNS_LIMIT_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Which lines of a run's log are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Whether the answer goes on until the run is finished or stuck.
    #[serde(default)]
    pub follow: bool,
    /// Only lines after this one; a reader that was cut off goes on where it was.
    #[serde(default)]
    pub after: i64,
}

/// How long a followed log may be silent, in seconds; before that the server says [`RunEventView::Alive`].
pub const ALIVE_SECS: u64 = 10;

/// One line of a run's log, or of what happens between two lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunEventView {
    /// A line of the log.
    Event {
        /// The run.
        run: RunId,
        /// Counted from 1 without gaps.
        seq: i64,
        /// When it was written.
        logged_at: DateTime<Utc>,
        /// What happened.
        event: RunEvent,
    },
    /// How far a long step is. Not kept: a reader that comes later does not see it.
    Progress {
        /// The step.
        at: At,
        /// Units done.
        done: u64,
        /// Units in all, where that is known.
        total: Option<u64>,
        /// What is going on.
        what: String,
    },
    /// Nothing happened, and the daemon is still there.
    Alive,
}

/// Stops a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRun {}

/// Says which version of a stuck run is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveRun {
    /// The old or the new one.
    #[serde(rename = "as")]
    pub side: Side,
    /// Let users in also where that version does not answer its health check.
    #[serde(default)]
    pub open_gate: bool,
}

/// Lets a stuck run try again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRun {}

/// Which version is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookQuery {
    /// The old or the new one; it must be the one in place.
    #[serde(rename = "as")]
    pub side: Side,
}

/// What is seen of the version in place, while a run is stuck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookView {
    /// Which version it is, where that is known.
    pub version: Option<Version>,
    /// Why it does not count as well; absent when it answers its health check.
    pub unwell: Option<Failure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_wire() {
        let line = RunEventView::Event {
            run: RunId(7),
            seq: 3,
            logged_at: DateTime::UNIX_EPOCH,
            event: RunEvent::StepFailed { at: At::first(Step::Backup), failure: Failure::new("find a backup") },
        };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<RunEventView>(&text).unwrap(), line, "{text}");
    }

    #[test]
    fn states_are_spelt_as_in_the_domain() {
        let at = At::first(Step::Stop);
        let failure = Failure::new("x");
        for state in [
            RunState::Queued,
            RunState::Running { at },
            RunState::Stuck { at, failure },
            RunState::Finished { outcome: Outcome::Succeeded },
        ] {
            assert_eq!(RunStateName::from(&state).name(), state.name());
            assert_eq!(serde_json::to_value(RunStateName::from(&state)).unwrap(), state.name());
        }
    }
}
