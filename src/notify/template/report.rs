//! What is told of a run, before it is put into words.

use chrono::DateTime;
use chrono::Utc;
use chrono_tz::Tz;

use crate::domain::evidence::Evidence;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::history::Anchor;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::ReleaseId;
use crate::domain::run::Cause;
use crate::domain::run::Outcome;
use crate::domain::run::RunId;
use crate::domain::span::Span;
use crate::domain::step::At;

/// All that is told of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// The application.
    pub app: AppName,
    /// What people call it.
    pub app_title: String,
    /// The machine it runs on.
    pub host: String,
    /// The run.
    pub run: RunId,
    /// Its job; absent for `update now`.
    pub job: Option<JobName>,
    /// Who started it, or created its job.
    pub started_by: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was installed before, where that is known.
    pub from: Option<ReleaseId>,
    /// What was, or should have been, installed; absent when nothing newer was found.
    pub to: Option<ReleaseId>,
    /// The zone in which times are shown.
    pub zone: Tz,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended, or got stuck.
    pub finished_at: DateTime<Utc>,
    /// Since when the application is away; absent when it is not.
    pub away_since: Option<DateTime<Utc>>,
    /// Since when nobody can log in; absent when the gate is open.
    pub closed_since: Option<DateTime<Utc>>,
    /// How long the application was away; absent when it was not stopped, or still is.
    pub downtime: Option<Span>,
    /// Why it turned round.
    pub cause: Option<Cause>,
    /// What was done, in order.
    pub steps: Vec<StepReport>,
    /// What the preflight check found; good ones are not shown.
    pub findings: Vec<Finding>,
    /// The proof of a backup that was accepted.
    pub evidence: Option<Evidence>,
    /// Who was logged out.
    pub logged_out: Vec<LoggedOut>,
    /// Whether people can log in now.
    pub gate: GateRemark,
    /// What is new in the releases that were, or should have been, installed, ascending; the vendor's text.
    pub notes: Vec<(ReleaseId, String)>,
    /// Jobs that should have followed, but are disabled.
    pub idle: Vec<JobName>,
    /// Whether the application did not pass its own check before the run, either.
    pub was_ill: bool,
    /// The release that this run has held back.
    pub held: Option<ReleaseId>,
    /// The release that was held back before, and that everything newer waits for.
    pub blocked: Option<ReleaseId>,
    /// The newest entry of the history when this was written; absent where there is none.
    pub history: Option<Anchor>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is over.
    Finished(Outcome),
    /// It cannot go on, and a person must decide.
    Stuck {
        /// Where.
        at: At,
        /// Why.
        failure: Failure,
    },
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    /// Which.
    pub at: At,
    /// What became of it.
    pub state: StepState,
    /// How long it took, all tries together.
    pub took: Option<Span>,
    /// For people.
    pub message: String,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// Done.
    Done,
    /// Could not be done.
    Failed,
    /// Done, and taken back.
    Undone,
    /// Done, and could not be taken back.
    UndoFailed,
    /// Left out: nothing depends on it.
    PassedOver,
}

/// Somebody who was logged out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedOut {
    /// The user.
    pub user: String,
    /// The workstation, where it is known.
    pub workstation: Option<String>,
}

/// Whether people can log in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateRemark {
    /// They can.
    Open,
    /// They can when the administrator says `gate open`.
    ByHand,
    /// They can when the run is no longer stuck.
    Stuck,
    /// An operator had closed it before the run, and it stays so.
    ByOperator,
}
