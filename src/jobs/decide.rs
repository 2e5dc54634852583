//! What a run does next: a pure function of where it stands and what time it is.
//!
//! The engine asks, does, writes the result down, and asks again. After a crash it asks the same
//! question of the same log, and so goes on where it was; there is no other recovery.

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use crate::domain::clock::Moment;
use crate::domain::clock::Term;
use crate::domain::event::How;
use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::run::Cause;
use crate::domain::run::Idle;
use crate::domain::run::Outcome;
use crate::domain::run::RunState;
use crate::domain::span::Span;
use crate::domain::step::At;
use crate::domain::step::Leg;
use crate::domain::step::Replay;
use crate::domain::step::Step;
use crate::jobs::machine::Cursor;
use crate::jobs::machine::Machine;

/// How often the same step is entered again after a crash, beside its own attempts, before it counts as failed.
pub const CRASHES_MAX: u32 = 5;
/// The pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(1);
/// The longest pause between two attempts of a step.
const PAUSE_MAX: TimeDelta = TimeDelta::minutes(5);
/// The longest pause between two attempts of an undo: nobody works meanwhile.
const UNDO_PAUSE_MAX: TimeDelta = TimeDelta::seconds(30);
/// How often an undo is tried that lacks what comes back by itself ([`Failure::scarce`]), or that a crash interrupts:
/// with the pauses, ten minutes.
pub const SCARCE_ATTEMPTS_MAX: u32 = 25;

/// What the engine does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Write this down; there is nothing to do.
    Append(RunEvent),
    /// Do a step.
    Act {
        /// Which.
        at: At,
        /// Which attempt, counted from 1.
        attempt: u32,
        /// How it is entered.
        how: How,
    },
    /// Undo a step.
    Undo {
        /// Which.
        at: At,
        /// Which attempt, counted from 1.
        attempt: u32,
    },
    /// Wait, or until somebody cancels.
    Wait {
        /// How long.
        left: Span,
    },
    /// Nothing more happens by itself: the run is over, or a person must decide.
    Halt,
}

/// Decides the next thing to do.
pub fn decide(machine: &Machine, now: impl Into<Moment>) -> Decision {
    let now = now.into();
    if let Some(cause) = interruption(machine, now) {
        return Decision::Append(RunEvent::UnwindStarted { cause });
    }
    match (machine.state(), machine.cursor()) {
        (RunState::Queued, _) => Decision::Append(RunEvent::Started),
        (RunState::Finished { .. }, _) => Decision::Halt,
        (RunState::Waiting { at, .. }, _) => match pause(machine, now) {
            Span::ZERO => Decision::Act { at: *at, attempt: machine.attempts() + 1, how: How::Act },
            left => Decision::Wait { left },
        },

        (RunState::Running { .. }, Cursor::Idle) => forward(machine),
        (RunState::Running { .. }, Cursor::Failed { at, failure }) => after_failure(machine, *at, failure, now.at),

        (RunState::Unwinding { .. }, Cursor::Undoing { at, attempt }) => again(*at, *attempt),
        (RunState::Unwinding { .. }, Cursor::Pausing { at, attempt, .. }) => match pause(machine, now) {
            Span::ZERO => Decision::Undo { at: *at, attempt: attempt + 1 },
            left => Decision::Wait { left },
        },
        (RunState::Unwinding { .. }, Cursor::Idle) => match (machine.next_undo(), machine.next_always()) {
            (Some(at), _) => Decision::Undo { at, attempt: 1 },
            (None, Some(at)) => Decision::Act { at, attempt: 1, how: How::Act },
            (None, None) => Decision::Append(RunEvent::Finished { outcome: machine.outcome_of_unwinding() }),
        },

        (RunState::Stuck { .. }, Cursor::Idle) => match machine.next_always() {
            Some(at) if at.step == Step::Report => Decision::Act { at, attempt: 1, how: How::Act },
            _ => Decision::Halt,
        },
        (RunState::Unwinding { .. } | RunState::Stuck { .. }, Cursor::Failed { at, failure }) => {
            if machine.failures() < at.step.row().attempts_max {
                Decision::Act { at: *at, attempt: machine.attempts() + 1, how: How::Act }
            } else {
                Decision::Append(RunEvent::PassedOver { at: *at, failure: failure.clone() })
            }
        }

        (_, Cursor::Acting { at, attempt }) => replay(*at, *attempt),
        (_, Cursor::Undoing { .. } | Cursor::Pausing { .. }) => Decision::Halt,
    }
}

/// What is left of the pause before the next attempt.
fn pause(machine: &Machine, now: Moment) -> Span {
    machine.known().pause.map_or(Span::ZERO, |pause| pause.left(now))
}

/// Why a run must turn round now, if it must. Nothing between stop and commit is interrupted in the
/// middle of a step; a step before may be, and the engine asks while it runs.
pub fn interruption(machine: &Machine, now: Moment) -> Option<Cause> {
    let turnable = match (machine.state(), machine.cursor()) {
        (RunState::Queued | RunState::Waiting { .. }, _) => true,
        (RunState::Running { .. }, Cursor::Idle | Cursor::Failed { .. }) => true,
        (RunState::Running { .. }, Cursor::Acting { at, .. }) => at.step.row().leg == Leg::Before,
        _ => false,
    };
    if machine.is_committed() || !turnable || about_to_commit(machine) {
        return None;
    }
    if let Some(by) = machine.cancelled_by() {
        return Some(Cause::Cancelled { by: by.to_owned() });
    }
    let overlong = |runtime: Term| Cause::Overlong { max_runtime: runtime.length };
    runtime(machine).filter(|runtime| runtime.is_over(now)).map(overlong)
}

/// How long a run may take, from its start; absent before that.
pub fn runtime(machine: &Machine) -> Option<Term> {
    machine.known().started.map(|from| Term { from, length: machine.order().max_runtime })
}

/// A healthy new version is kept, however late it is.
fn about_to_commit(machine: &Machine) -> bool {
    machine.builds() > 0
        && *machine.cursor() == Cursor::Idle
        && machine.next_step().is_some_and(|at| at.step.row().leg == Leg::After)
}

fn forward(machine: &Machine) -> Decision {
    if machine.known().path.as_ref().is_some_and(Vec::is_empty) {
        let reason = machine.known().selection.clone().unwrap_or_else(|| "there is no newer release".to_owned());
        return Decision::Append(RunEvent::UnwindStarted {
            cause: Cause::NothingToDo { reason, why: Idle::NothingNewer },
        });
    }
    match machine.next_step() {
        None => Decision::Append(RunEvent::Finished { outcome: Outcome::Succeeded }),
        Some(at) if at.step.row().leg == Leg::After && !machine.is_committed() => Decision::Append(RunEvent::Committed),
        Some(at) => Decision::Act { at, attempt: 1, how: How::Act },
    }
}

fn after_failure(machine: &Machine, at: At, failure: &Failure, now: DateTime<Utc>) -> Decision {
    let row = at.step.row();
    let failures = machine.failures();
    Decision::Append(if failures < row.attempts_max {
        RunEvent::Deferred { at, until: now + pause_after(failures, PAUSE_MAX), reason: failure.to_string() }
    } else if !machine.is_committed() {
        RunEvent::UnwindStarted { cause: Cause::StepFailed { at, failure: failure.clone() } }
    } else if row.always {
        RunEvent::PassedOver { at, failure: failure.clone() }
    } else {
        RunEvent::GaveUp { at, failure: failure.clone() }
    })
}

/// The pause after so many failures.
fn pause_after(failures: u32, longest: TimeDelta) -> TimeDelta {
    (FIRST_PAUSE * 2_i32.saturating_pow(failures.saturating_sub(1).min(16))).min(longest)
}

/// What follows an attempt to undo that failed: another one after a pause, or a run that is stuck.
pub fn undo_failed(at: At, attempt: u32, failure: Failure, now: DateTime<Utc>) -> RunEvent {
    let usual = at.step.row().undo_attempts_max();
    let attempts_max = if failure.scarce.is_some() { SCARCE_ATTEMPTS_MAX } else { usual };
    let again_at = (attempt < attempts_max).then(|| now + pause_after(attempt, UNDO_PAUSE_MAX));
    RunEvent::UndoFailed { at, attempt, failure, again_at }
}

/// A crash left the result unknown.
fn replay(at: At, attempt: u32) -> Decision {
    if attempt >= CRASHES_MAX + at.step.row().attempts_max {
        let failure = Failure::new(format!("{at} was interrupted {attempt} times"))
            .hint("look into the daemon's log for what ends it, then start the job again");
        return Decision::Append(RunEvent::StepFailed { at, failure });
    }
    let how = match at.step.row().replay {
        Replay::Again => How::Act,
        Replay::Probe => How::Probe,
        Replay::UndoThenAgain if at.build == 0 => How::UndoFirst,
        Replay::UndoThenAgain => {
            let failure =
                Failure::new(format!("{at} was interrupted, and only the data before the run can be restored"));
            return Decision::Append(RunEvent::StepFailed { at, failure });
        }
    };
    Decision::Act { at, attempt: attempt + 1, how }
}

fn again(at: At, attempt: u32) -> Decision {
    if attempt >= SCARCE_ATTEMPTS_MAX {
        let failure = Failure::new(format!("undo {at}: it was interrupted or failed {attempt} times"))
            .hint("look into the daemon's log for what ends it");
        return Decision::Append(RunEvent::UndoFailed { at, attempt, failure, again_at: None });
    }
    Decision::Undo { at, attempt: attempt + 1 }
}
