//! The state of a run as a fold over its log.
//!
//! [`Machine::apply`] is the one transition table: one match over where the run stands and what is
//! said to have happened. Whatever is not in it is [`IllegalEvent`]. It reads no clock, does no
//! input or output and decides nothing; [`crate::jobs::decide`] does.
//!
//! ```text
//!  queued ──► running ◄──► waiting          stuck ◄── undo failed for good, or gave up after the commit
//!    │          │  │                          │
//!    │          │  └─ committed ─► running ─► finished(succeeded)
//!    └──────────┴──────► unwinding ─────────► finished(rolled_back | failed | cancelled | skipped)
//! ```
//!
//! Invariants: a result follows its intent; a step is undone at most once, in as many attempts as it takes, and only when
//! it was begun; after the commit nothing is undone; a finished run never changes.

use chrono::DateTime;
use chrono::Utc;
use thiserror::Error;

use crate::domain::answers::Answers;
use crate::domain::answers::Before;
use crate::domain::clock::Moment;
use crate::domain::clock::Term;
use crate::domain::event::How;
use crate::domain::event::LoggedEvent;
use crate::domain::event::Output;
use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::release::Release;
use crate::domain::run::Cause;
use crate::domain::run::Order;
use crate::domain::run::Outcome;
use crate::domain::run::RunState;
use crate::domain::run::Side;
use crate::domain::step::At;
use crate::domain::step::Leg;
use crate::domain::step::Step;
use crate::domain::step::TABLE;
use crate::domain::step::sequence;
pub use crate::jobs::known::Known;
pub use crate::jobs::known::Resolved;

/// An event that cannot follow what is in the log.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{event} cannot follow: the run is {state}{}", .at.map(|at| format!(" at {at}")).unwrap_or_default())]
pub struct IllegalEvent {
    /// The event's name.
    pub event: &'static str,
    /// The state it met.
    pub state: &'static str,
    /// The step it speaks of.
    pub at: Option<At>,
}

/// What the run is in the middle of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// Nothing: every intent has its result.
    Idle,
    /// A step was begun and its result is not in the log.
    Acting {
        /// Which.
        at: At,
        /// Which attempt.
        attempt: u32,
    },
    /// A step failed, and nothing is decided yet.
    Failed {
        /// Which.
        at: At,
        /// Why.
        failure: Failure,
    },
    /// An undo was begun and its result is not in the log.
    Undoing {
        /// Which.
        at: At,
        /// Which attempt.
        attempt: u32,
    },
    /// An undo failed and is tried again.
    Pausing {
        /// Which.
        at: At,
        /// Which attempt failed.
        attempt: u32,
        /// Until when.
        until: DateTime<Utc>,
    },
}

/// A run, folded from its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    order: Order,
    state: RunState,
    cursor: Cursor,
    /// Done, in order.
    done: Vec<At>,
    /// Begun and not undone, in order: the way back.
    begun: Vec<At>,
    /// Failures of the current step since it last succeeded.
    failures: u32,
    attempts: u32,
    committed: bool,
    cancelled_by: Option<String>,
    cause: Option<Cause>,
    known: Known,
}

impl Machine {
    /// Folds a whole log.
    ///
    /// # Errors
    /// The log is empty, does not begin with `queued`, or holds an event that cannot follow.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a LoggedEvent>) -> Result<Self, IllegalEvent> {
        let mut events = events.into_iter();
        let mut machine = match events.next().map(|logged| &logged.event) {
            Some(RunEvent::Queued { order }) => Self::queued(order.clone()),
            other => {
                let event = other.map_or("an empty log", RunEvent::name);
                return Err(IllegalEvent { event, state: "not there yet", at: None });
            }
        };
        for logged in events {
            machine.apply(&logged.event, logged.moment())?;
        }
        Ok(machine)
    }

    /// A run of which only `queued` is in the log.
    pub fn queued(order: Order) -> Self {
        Self {
            order,
            state: RunState::Queued,
            cursor: Cursor::Idle,
            done: Vec::new(),
            begun: Vec::new(),
            failures: 0,
            attempts: 0,
            committed: false,
            cancelled_by: None,
            cause: None,
            known: Known::default(),
        }
    }

    /// What the run was told.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Where it stands.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// What it is in the middle of.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// What earlier steps found out.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Whether it only goes forward.
    pub fn is_committed(&self) -> bool {
        self.committed
    }

    /// Who wants it to stop.
    pub fn cancelled_by(&self) -> Option<&str> {
        self.cancelled_by.as_deref()
    }

    /// Why it turned round, also when it is stuck or over.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// Failures of the current step since it last succeeded.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Entries into the current step since it last succeeded.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether a step is done.
    pub fn is_done(&self, at: At) -> bool {
        self.done.contains(&at)
    }

    /// Whether the service was touched: from then on a failure is a rollback.
    pub fn is_past_stop(&self) -> bool {
        self.known.away_since.is_some()
    }

    /// Whether the application is away: stopped, and neither committed nor put back.
    pub fn is_away(&self) -> bool {
        !self.committed && self.begun.iter().any(|at| at.step.row().leg == Leg::Away)
    }

    /// The release that was put in place last; while it is not taken back.
    pub fn in_place(&self) -> Option<&Release> {
        let swap = self.done.iter().rev().find(|at| at.step == Step::Swap)?;
        self.known.path.as_ref()?.get(swap.build as usize)
    }

    /// What the version of a side must answer, where that is known: of the old one no more than it could do before the run.
    pub fn answers_of(&self, side: Side) -> Option<Answers> {
        match (side, &self.known.before) {
            (Side::Old, Some(Before::Well { version })) => version.as_deref().map(Answers::heard),
            (Side::Old, _) => self.known.from.as_ref().map(|from| Answers::from(&from.version)),
            (Side::New, _) => self.known.path.as_ref().and_then(|path| path.last()).map(Release::answers),
        }
    }

    /// Whether the old version was down or ill before the run; then nothing is asked of it when it is back.
    pub fn was_ill(&self) -> bool {
        matches!(self.known.before, Some(Before::Down | Before::Ill))
    }

    /// The pending builds; 0 until they are selected.
    pub fn builds(&self) -> u32 {
        self.known.path.as_ref().map_or(0, |path| u32::try_from(path.len()).unwrap_or(u32::MAX))
    }

    /// The next step forward. After a commit only steps past it remain.
    pub fn next_step(&self) -> Option<At> {
        sequence(self.builds())
            .into_iter()
            .filter(|at| !self.committed || at.step.row().leg == Leg::After)
            .find(|at| !self.done.contains(at))
    }

    /// The next step to undo.
    pub fn next_undo(&self) -> Option<At> {
        self.begun.iter().rev().copied().find(|at| at.has_undo())
    }

    /// The next step that is done even at the end of a run that was put back.
    pub fn next_always(&self) -> Option<At> {
        sequence(0).into_iter().filter(|at| at.step.row().always).find(|at| !self.done.contains(at))
    }

    /// How a run that goes back will end.
    pub fn outcome_of_unwinding(&self) -> Outcome {
        match &self.cause {
            Some(Cause::NothingToDo { .. }) => Outcome::Skipped,
            _ if self.is_past_stop() => Outcome::RolledBack,
            Some(Cause::Cancelled { .. }) => Outcome::Cancelled,
            _ => Outcome::Failed,
        }
    }

    /// Takes one event in.
    ///
    /// # Errors
    /// It cannot follow; the machine is then unchanged.
    pub fn apply(&mut self, event: &RunEvent, now: impl Into<Moment>) -> Result<(), IllegalEvent> {
        use RunEvent as E;
        use RunState as S;
        let moment = now.into();
        let at_instant = moment.at;

        // One table: where it stands × what happened. Guards name the only step that may be meant.
        match (&self.state, &self.cursor, event) {
            (S::Queued, Cursor::Idle, E::Started) => {
                self.known.started = Some(moment);
                self.state = S::Running { at: At::first(TABLE[0].step) };
            }
            (S::Running { .. }, Cursor::Idle, E::StepStarted { at, attempt, how: How::Act })
                if self.next_step() == Some(*at) && (self.committed || at.step.row().leg != Leg::After) =>
            {
                self.begin(*at, *attempt, at_instant);
                self.state = S::Running { at: *at };
            }
            (
                S::Running { .. } | S::Waiting { .. },
                Cursor::Acting { at: now, .. },
                E::StepStarted { at, attempt, .. },
            ) if now == at => {
                self.known.interrupted |= at.step.row().leg == Leg::Away;
                self.begin(*at, *attempt, at_instant);
            }
            (
                S::Running { .. } | S::Waiting { .. },
                Cursor::Failed { at: now, .. },
                E::StepStarted { at, attempt, .. },
            ) if now == at => {
                self.begin(*at, *attempt, at_instant);
                self.state = S::Running { at: *at };
            }
            (
                S::Running { .. } | S::Unwinding { .. } | S::Stuck { .. },
                Cursor::Acting { at: now, .. },
                E::StepSucceeded { at, output, message },
            ) if now == at => {
                self.learn(*at, output, moment);
                if at.step == Step::Select {
                    self.known.selection = Some(message.clone());
                }
                self.finish_step(*at);
            }
            (
                S::Running { .. } | S::Unwinding { .. } | S::Stuck { .. },
                Cursor::Acting { at: now, .. },
                E::StepFailed { at, failure },
            ) if now == at => {
                self.failures += 1;
                self.cursor = Cursor::Failed { at: *at, failure: failure.clone() };
            }
            (S::Running { .. }, Cursor::Failed { at: now, .. }, E::Deferred { at, until, reason }) if now == at => {
                self.known.pause = Some(Term::until(moment, *until));
                self.state = S::Waiting { at: *at, until: *until, reason: reason.clone() };
            }
            (
                S::Running { .. } | S::Unwinding { .. } | S::Stuck { .. },
                Cursor::Failed { at: now, .. },
                E::PassedOver { at, failure },
            ) if now == at && at.step.row().always => {
                self.known.passed_over.push((*at, failure.clone()));
                self.finish_step(*at);
            }
            (S::Running { .. }, Cursor::Failed { at: now, .. }, E::GaveUp { at, failure })
                if now == at && self.committed =>
            {
                self.cursor = Cursor::Idle;
                self.state = S::Stuck { at: *at, failure: failure.clone() };
            }
            (S::Running { .. }, Cursor::Idle, E::Committed)
                if !self.committed
                    && self.builds() > 0
                    && self.next_step().is_some_and(|at| at.step.row().leg == Leg::After) =>
            {
                self.committed = true;
                self.begun.clear();
            }
            (S::Running { .. }, Cursor::Idle, E::Finished { outcome: Outcome::Succeeded })
                if self.committed && self.next_step().is_none() =>
            {
                self.state = S::Finished { outcome: Outcome::Succeeded };
            }

            (S::Queued | S::Running { .. } | S::Waiting { .. }, _, E::CancelRequested { by }) if !self.committed => {
                self.cancelled_by.get_or_insert_with(|| by.clone());
            }
            (S::Queued | S::Running { .. } | S::Waiting { .. }, cursor, E::UnwindStarted { cause })
                if !self.committed && may_turn_round(cursor) =>
            {
                if self.is_away() {
                    // A build before may have answered; now the application is away again.
                    self.known.back_at = None;
                }
                self.cursor = Cursor::Idle;
                self.failures = 0;
                self.attempts = 0;
                self.cause = Some(cause.clone());
                self.state = S::Unwinding { cause: cause.clone() };
            }
            (S::Unwinding { .. }, Cursor::Idle, E::UndoStarted { at, attempt }) if self.next_undo() == Some(*at) => {
                self.cursor = Cursor::Undoing { at: *at, attempt: *attempt };
                self.attempts = *attempt;
            }
            (
                S::Unwinding { .. },
                Cursor::Undoing { at: now, .. } | Cursor::Pausing { at: now, .. },
                E::UndoStarted { at, attempt },
            ) if now == at => {
                self.cursor = Cursor::Undoing { at: *at, attempt: *attempt };
                self.attempts = *attempt;
            }
            (S::Unwinding { .. }, Cursor::Undoing { at: now, .. }, E::UndoSucceeded { at, .. }) if now == at => {
                let at = *at;
                let place = self.begun.iter().rposition(|begun| *begun == at).unwrap_or(0);
                self.begun.truncate(place);
                self.cursor = Cursor::Idle;
                self.attempts = 0;
                if at.step == Step::Stop {
                    self.known.back_at = Some(at_instant);
                }
            }
            (
                S::Unwinding { .. },
                Cursor::Undoing { at: now, attempt },
                E::UndoFailed { at, again_at: Some(until), .. },
            ) if now == at => {
                self.known.pause = Some(Term::until(moment, *until));
                self.cursor = Cursor::Pausing { at: *at, attempt: *attempt, until: *until };
            }
            (
                S::Unwinding { .. },
                Cursor::Undoing { at: now, .. },
                E::UndoFailed { at, failure, again_at: None, .. },
            ) if now == at => {
                self.cursor = Cursor::Idle;
                self.attempts = 0;
                self.state = S::Stuck { at: *at, failure: failure.clone() };
            }
            (S::Unwinding { .. }, cursor, E::StepStarted { at, attempt, .. })
                if self.next_undo().is_none() && self.may_begin_always(cursor, *at) =>
            {
                self.begin(*at, *attempt, at_instant);
            }
            (S::Unwinding { .. }, Cursor::Idle, E::Finished { outcome })
                if self.next_undo().is_none()
                    && self.next_always().is_none()
                    && *outcome == self.outcome_of_unwinding() =>
            {
                self.state = S::Finished { outcome: *outcome };
            }

            (S::Stuck { .. }, cursor, E::StepStarted { at, attempt, .. })
                if at.step == Step::Report && self.may_begin_always(cursor, *at) =>
            {
                self.begin(*at, *attempt, at_instant);
            }
            (S::Stuck { .. }, Cursor::Idle, E::Resolved { side, by, open_gate, reports })
                if *side == Side::New || !self.committed =>
            {
                if self.is_away() {
                    self.known.back_at = Some(at_instant);
                }
                self.known.resolved = Some(Resolved { side: *side, by: by.clone(), open_gate: *open_gate });
                self.leave_stuck(*reports);
                match side {
                    Side::New => {
                        self.committed = true;
                        self.begun.clear();
                        self.state = S::Running { at: self.next_step().unwrap_or(At::first(Step::Report)) };
                    }
                    Side::Old => {
                        // The person has seen to the application; what is left is to let the users in again.
                        self.begun.retain(|at| at.step.row().leg == Leg::Before);
                        self.state = S::Unwinding { cause: self.cause_or_cancelled(by) };
                    }
                }
            }
            (S::Stuck { at, .. }, Cursor::Idle, E::Retried { by }) => {
                let at = *at;
                self.leave_stuck(true);
                self.state = match self.committed {
                    true => S::Running { at },
                    false => S::Unwinding { cause: self.cause_or_cancelled(by) },
                };
            }
            (state, _, event) => {
                return Err(IllegalEvent { event: event.name(), state: state.name(), at: at_of(event) });
            }
        }
        if matches!(event, E::StepStarted { at, .. } if at.step == Step::LogOut) {
            self.known.log_out_since.get_or_insert(moment);
        }
        Ok(())
    }

    /// A person has spoken: it goes on, and reports once more when it is over.
    fn leave_stuck(&mut self, reports: bool) {
        self.failures = 0;
        self.attempts = 0;
        if reports {
            self.known.reports += 1;
            self.done.retain(|at| at.step != Step::Report);
        }
    }

    fn cause_or_cancelled(&self, by: &str) -> Cause {
        self.cause.clone().unwrap_or_else(|| Cause::Cancelled { by: by.to_owned() })
    }

    fn may_begin_always(&self, cursor: &Cursor, at: At) -> bool {
        match cursor {
            Cursor::Idle => self.next_always() == Some(at),
            Cursor::Acting { at: now, .. } | Cursor::Failed { at: now, .. } => *now == at,
            Cursor::Undoing { .. } | Cursor::Pausing { .. } => false,
        }
    }

    fn begin(&mut self, at: At, attempt: u32, at_instant: DateTime<Utc>) {
        if !self.begun.contains(&at) {
            self.begun.push(at);
        }
        if at == At::first(Step::Stop) {
            self.known.away_since.get_or_insert(at_instant);
        }
        self.attempts = attempt;
        self.cursor = Cursor::Acting { at, attempt };
    }

    fn finish_step(&mut self, at: At) {
        self.done.push(at);
        self.failures = 0;
        self.attempts = 0;
        self.cursor = Cursor::Idle;
    }

    fn learn(&mut self, at: At, output: &Output, now: Moment) {
        match output {
            Output::Nothing => {}
            // More than one step checks something.
            Output::Checked { findings, before } => {
                self.known.findings.extend_from_slice(findings);
                self.known.before = before.clone().or_else(|| self.known.before.take());
            }
            Output::Selected { from, path, blocked } => {
                self.known.blocked.clone_from(blocked);
                self.known.from.clone_from(from);
                self.known.path = Some(path.clone());
            }
            Output::BackedUp { evidence } => self.known.evidence = Some(evidence.clone()),
            Output::Announced { grace_ends_at, grace, .. } => {
                self.known.grace = Some(grace.unwrap_or_else(|| Term::until(now, *grace_ends_at)));
            }
            Output::LoggedOut { closed } => self.known.closed.clone_from(closed),
        }
        if at.step == Step::CheckHealth {
            self.known.back_at = Some(now.at);
        }
    }
}

/// A step between stop and commit is never left in the middle; one before may be.
fn may_turn_round(cursor: &Cursor) -> bool {
    match cursor {
        Cursor::Idle | Cursor::Failed { .. } => true,
        Cursor::Acting { at, .. } => at.step.row().leg == Leg::Before,
        Cursor::Undoing { .. } | Cursor::Pausing { .. } => false,
    }
}

fn at_of(event: &RunEvent) -> Option<At> {
    match event {
        RunEvent::StepStarted { at, .. }
        | RunEvent::StepSucceeded { at, .. }
        | RunEvent::StepFailed { at, .. }
        | RunEvent::Deferred { at, .. }
        | RunEvent::UndoStarted { at, .. }
        | RunEvent::UndoSucceeded { at, .. }
        | RunEvent::UndoFailed { at, .. }
        | RunEvent::GaveUp { at, .. }
        | RunEvent::PassedOver { at, .. } => Some(*at),
        _ => None,
    }
}
