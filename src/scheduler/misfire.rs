//! What becomes of a start that nobody was there to make.
//!
//! Pure. The machine was off, suspended, or the clock was put forward: the store then holds a `due_at` in the past, and
//! [`decide`] says what to do with it. The caller writes down which it was.

use std::fmt;

use chrono::DateTime;
use chrono::Utc;

use crate::domain::job::MisfirePolicy;
use crate::domain::span::Span;

/// A start that is later than this was missed; an earlier one is only slow.
pub const LATE_AFTER: Span = Span::secs(5);

/// What to do with a start that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MisfireDecision {
    /// It is in time, or not due yet.
    NotMissed,
    /// Start it now, late.
    RunNow {
        /// When it should have been.
        missed_at: DateTime<Utc>,
    },
    /// Leave it out.
    Skip {
        /// Why.
        reason: SkipReason,
    },
    /// Wait for a person.
    Ask {
        /// When it should have been.
        missed_at: DateTime<Utc>,
    },
}

/// Why a missed start is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// The job does not make up for missed starts.
    Policy {
        /// How late it is.
        late: Span,
    },
    /// The job makes up for missed starts, but not for one so late.
    BeyondTolerance {
        /// How late it is.
        late: Span,
        /// How late it may be.
        tolerance: Span,
    },
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy { late } => write!(f, "missed by {late}; missed starts of this job are skipped"),
            Self::BeyondTolerance { late, tolerance } => {
                write!(f, "missed by {late}; this job starts at most {tolerance} late")
            }
        }
    }
}

/// Decides what becomes of a start that was due at `due_at`.
pub fn decide(policy: MisfirePolicy, tolerance: Span, due_at: DateTime<Utc>, now: DateTime<Utc>) -> MisfireDecision {
    if Span::between(due_at, now) <= LATE_AFTER {
        return MisfireDecision::NotMissed;
    }
    // For people: whole seconds.
    let late = Span::secs((now - due_at).num_seconds().unsigned_abs());
    match policy {
        MisfirePolicy::Skip => MisfireDecision::Skip { reason: SkipReason::Policy { late } },
        MisfirePolicy::Ask => MisfireDecision::Ask { missed_at: due_at },
        MisfirePolicy::Run if now - due_at <= tolerance.delta() => MisfireDecision::RunNow { missed_at: due_at },
        MisfirePolicy::Run => MisfireDecision::Skip { reason: SkipReason::BeyondTolerance { late, tolerance } },
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use rstest::rstest;

    use super::*;

    const HOUR: Span = Span::hours(1);

    #[rstest]
    #[case::not_due_yet(MisfirePolicy::Skip, -60_000, MisfireDecision::NotMissed)]
    #[case::in_time(MisfirePolicy::Skip, 0, MisfireDecision::NotMissed)]
    #[case::only_slow(MisfirePolicy::Skip, 5_000, MisfireDecision::NotMissed)]
    #[case::skip(MisfirePolicy::Skip, 5_001, MisfireDecision::Skip { reason: SkipReason::Policy { late: LATE_AFTER } })]
    #[case::run(MisfirePolicy::Run, 5_001, MisfireDecision::RunNow { missed_at: DateTime::UNIX_EPOCH })]
    #[case::run_at_the_edge(MisfirePolicy::Run, 3_600_000, MisfireDecision::RunNow { missed_at: DateTime::UNIX_EPOCH })]
    #[case::run_too_late(MisfirePolicy::Run, 3_600_001, MisfireDecision::Skip { reason: SkipReason::BeyondTolerance { late: HOUR, tolerance: HOUR } })]
    #[case::ask(MisfirePolicy::Ask, 5_001, MisfireDecision::Ask { missed_at: DateTime::UNIX_EPOCH })]
    #[case::ask_for_ever(MisfirePolicy::Ask, 3_600_001, MisfireDecision::Ask { missed_at: DateTime::UNIX_EPOCH })]
    fn a_missed_start(#[case] policy: MisfirePolicy, #[case] late_ms: i64, #[case] expected: MisfireDecision) {
        let now = DateTime::UNIX_EPOCH + TimeDelta::milliseconds(late_ms);
        assert_eq!(decide(policy, HOUR, DateTime::UNIX_EPOCH, now), expected);
    }

    #[test]
    fn a_reason_reads_as_a_sentence() {
        let reason = SkipReason::BeyondTolerance { late: Span::secs(7_260), tolerance: HOUR };
        assert_eq!(reason.to_string(), "missed by 2h 1m; this job starts at most 1h late");
    }
}
