//! What a run writes into its log. The log is the truth; every state is a fold over it.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::answers::Before;
use crate::domain::clock::Moment;
use crate::domain::clock::Term;
use crate::domain::clock::Uptime;
use crate::domain::evidence::Evidence;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::run::Cause;
use crate::domain::run::Order;
use crate::domain::run::Outcome;
use crate::domain::run::RunId;
use crate::domain::run::Side;
use crate::domain::session::Session;
use crate::domain::session::SessionId;
use crate::domain::step::At;

/// How a step is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// For the first time, or once more after a clean failure.
    Act,
    /// After a crash: first look whether it was done.
    Probe,
    /// After a crash: undo first, then act.
    UndoFirst,
}

/// What later steps need to know of an earlier one; all else is found out anew.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Output {
    /// Nothing.
    #[default]
    Nothing,
    /// Preflight: what it found.
    Checked {
        /// Findings that are not all good.
        findings: Vec<Finding>,
        /// What the running version answered, where it was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Before>,
    },
    /// Select: the version path.
    Selected {
        /// What is installed now, where that is known.
        from: Option<ReleaseId>,
        /// What will be installed, ascending; empty when there is nothing newer.
        path: Vec<Release>,
        /// What failed here before, where nothing is installed because everything newer waits behind it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blocked: Option<ReleaseId>,
    },
    /// Backup: the evidence that was accepted.
    BackedUp {
        /// The proof.
        evidence: Evidence,
    },
    /// Announce: the deadline that users were told.
    Announced {
        /// When grace ends, as users were told.
        grace_ends_at: DateTime<Utc>,
        /// The same as a length, which no clock that is set changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace: Option<Term>,
        /// Who was logged in.
        sessions: Vec<SessionId>,
    },
    /// Log out: who had to be closed.
    LoggedOut {
        /// Closed politely or by force.
        closed: Vec<Session>,
    },
}

/// One line of a run's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// The run exists.
    Queued {
        /// What it was told.
        order: Order,
    },
    /// It has its turn.
    Started,
    /// Intent: a step is about to be done.
    StepStarted {
        /// Which.
        at: At,
        /// Counted from 1 over the whole run.
        attempt: u32,
        /// How it is entered.
        how: How,
    },
    /// Result: the step is done.
    StepSucceeded {
        /// Which.
        at: At,
        /// For later steps.
        output: Output,
        /// For people.
        message: String,
    },
    /// Result: the step could not be done.
    StepFailed {
        /// Which.
        at: At,
        /// Why.
        failure: Failure,
    },
    /// The run pauses before the step is tried again.
    Deferred {
        /// Which step.
        at: At,
        /// Until when.
        until: DateTime<Utc>,
        /// Why.
        reason: String,
    },
    /// Somebody wants it to stop.
    CancelRequested {
        /// Who.
        by: String,
    },
    /// The new version is accepted; from here the run only goes forward.
    Committed,
    /// The run turns round.
    UnwindStarted {
        /// Why.
        cause: Cause,
    },
    /// Intent: a step is about to be undone.
    UndoStarted {
        /// Which.
        at: At,
        /// Counted from 1.
        attempt: u32,
    },
    /// Result: it is undone.
    UndoSucceeded {
        /// Which.
        at: At,
        /// For people.
        message: String,
    },
    /// Result: it could not be undone. It is tried again, or the run is stuck.
    UndoFailed {
        /// Which.
        at: At,
        /// Which attempt; 0 in logs of before there were several.
        #[serde(default)]
        attempt: u32,
        /// Why.
        failure: Failure,
        /// When it is tried again; absent when it is not, and the run is stuck.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again_at: Option<DateTime<Utc>>,
    },
    /// A step past the commit cannot be done. The run is stuck.
    GaveUp {
        /// Which.
        at: At,
        /// Why.
        failure: Failure,
    },
    /// A step that nothing depends on was left undone.
    PassedOver {
        /// Which.
        at: At,
        /// Why.
        failure: Failure,
    },
    /// A person decided which version is the good one.
    Resolved {
        /// Which.
        side: Side,
        /// Who.
        by: String,
        /// Whether users are let in also where it does not answer.
        #[serde(default)]
        open_gate: bool,
        /// Whether the run reports once more when it is over; not in logs of before.
        #[serde(default)]
        reports: bool,
    },
    /// A person has removed what a stuck run failed by, and lets it try again.
    Retried {
        /// Who.
        by: String,
    },
    /// The run is over.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

impl RunEvent {
    /// The event's name, as in JSON and SQL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Started => "started",
            Self::StepStarted { .. } => "step_started",
            Self::StepSucceeded { .. } => "step_succeeded",
            Self::StepFailed { .. } => "step_failed",
            Self::Deferred { .. } => "deferred",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::Committed => "committed",
            Self::UnwindStarted { .. } => "unwind_started",
            Self::UndoStarted { .. } => "undo_started",
            Self::UndoSucceeded { .. } => "undo_succeeded",
            Self::UndoFailed { .. } => "undo_failed",
            Self::GaveUp { .. } => "gave_up",
            Self::PassedOver { .. } => "passed_over",
            Self::Resolved { .. } => "resolved",
            Self::Retried { .. } => "retried",
            Self::Finished { .. } => "finished",
        }
    }
}

/// An event as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedEvent {
    /// The run.
    pub run: RunId,
    /// Counted from 1 without gaps.
    pub seq: i64,
    /// When it was written.
    #[serde(rename = "logged_at")]
    pub at: DateTime<Utc>,
    /// How long the machine had run then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Uptime>,
    /// What happened.
    #[serde(flatten)]
    pub event: RunEvent,
}

impl LoggedEvent {
    /// When it was written, on both clocks.
    pub fn moment(&self) -> Moment {
        Moment { at: self.at, up: self.up }
    }
}
