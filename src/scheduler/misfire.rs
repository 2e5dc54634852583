//! What becomes of a start that nobody was there to make.
//!
//! Pure. The machine was off, suspended, or the clock was put forward: the store then holds a `due_at` in the past, and
//! [`decide`] says what to do with it. The caller writes down which it was.
//!
//! A series may have missed many starts. They are made up for once, not one by one: [`settle`] looks for the start that
//! counts, judges that one, and goes on with the first start in the future. A machine that was off from Friday to
//! Monday 03:00 thus makes up for Monday 02:30, although Saturday's start is beyond all tolerance.

use std::fmt;

use chrono::DateTime;
use chrono::Utc;

use crate::domain::job::MisfirePolicy;
use crate::domain::job::StartCondition;
use crate::domain::span::Span;
use crate::scheduler::calendar::CalendarError;
use crate::scheduler::resolve::next_start;

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

/// What becomes of a job whose time has come, and when it starts after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The start that counts: the one that was due, or a later one that was missed by less.
    pub due_at: DateTime<Utc>,
    /// What to do with it.
    pub decision: MisfireDecision,
    /// The first start after it that still lies ahead.
    pub next_due_at: Option<DateTime<Utc>>,
}

/// Settles a job that is due at `due_at`, or soon will be.
pub fn settle(
    start: &StartCondition,
    policy: MisfirePolicy,
    tolerance: Span,
    due_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Settled, CalendarError> {
    let next_due_at = next_start(start, due_at.max(now))?.map(|next| next.at);
    let decision = decide(policy, tolerance, due_at, now);
    let lost = matches!(decision, MisfireDecision::Skip { .. } | MisfireDecision::Ask { .. });
    // Of a series, a later start may be late by no more than is allowed.
    let allowed = if policy == MisfirePolicy::Run { tolerance.max(LATE_AFTER) } else { LATE_AFTER };
    let later = match now.checked_sub_signed(allowed.delta()) {
        Some(since) if lost => {
            next_start(start, due_at.max(since))?.map(|later| later.at).filter(|later| *later <= now)
        }
        _ => None,
    };
    Ok(match later {
        Some(due_at) => Settled { due_at, decision: decide(policy, tolerance, due_at, now), next_due_at },
        None => Settled { due_at, decision, next_due_at },
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use chrono_tz::Europe::Berlin;
    use proptest::prelude::*;
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

    fn utc(text: &str) -> DateTime<Utc> {
        format!("{}:00Z", text.replace(' ', "T")).parse().unwrap()
    }

    /// A job at 02:30 in Berlin (01:30 UTC), due on Saturday the 21st, with a tolerance of four hours.
    #[rstest]
    #[case::armed_ahead(
        MisfirePolicy::Skip,
        "2026-11-21 01:29",
        "2026-11-21 01:30",
        MisfireDecision::NotMissed,
        "2026-11-22 01:30"
    )]
    #[case::only_slow(
        MisfirePolicy::Skip,
        "2026-11-21 01:30",
        "2026-11-21 01:30",
        MisfireDecision::NotMissed,
        "2026-11-22 01:30"
    )]
    #[case::off_for_an_hour(
        MisfirePolicy::Run,
        "2026-11-21 02:30",
        "2026-11-21 01:30",
        MisfireDecision::RunNow { missed_at: utc("2026-11-21 01:30") },
        "2026-11-22 01:30"
    )]
    #[case::off_for_a_weekend_and_not_too_late(
        MisfirePolicy::Run,
        "2026-11-23 02:00",
        "2026-11-23 01:30",
        MisfireDecision::RunNow { missed_at: utc("2026-11-23 01:30") },
        "2026-11-24 01:30"
    )]
    #[case::off_for_a_weekend_and_just_back(
        MisfirePolicy::Skip,
        "2026-11-23 01:30",
        "2026-11-23 01:30",
        MisfireDecision::NotMissed,
        "2026-11-24 01:30"
    )]
    #[case::off_for_a_weekend_and_too_late(
        MisfirePolicy::Run,
        "2026-11-23 12:30",
        "2026-11-21 01:30",
        MisfireDecision::Skip { reason: SkipReason::BeyondTolerance { late: Span::hours(59), tolerance: Span::hours(4) } },
        "2026-11-24 01:30"
    )]
    #[case::ask_once(
        MisfirePolicy::Ask,
        "2026-11-23 12:30",
        "2026-11-21 01:30",
        MisfireDecision::Ask { missed_at: utc("2026-11-21 01:30") },
        "2026-11-24 01:30"
    )]
    fn a_series_is_settled(
        #[case] policy: MisfirePolicy,
        #[case] now: &str,
        #[case] counts: &str,
        #[case] decision: MisfireDecision,
        #[case] next: &str,
    ) {
        let nightly = StartCondition::Series { calendar: "02:30".to_owned(), zone: Berlin };
        let settled = settle(&nightly, policy, Span::hours(4), utc("2026-11-21 01:30"), utc(now)).unwrap();
        assert_eq!(settled, Settled { due_at: utc(counts), decision, next_due_at: Some(utc(next)) });
    }

    #[test]
    fn a_single_start_is_over_when_it_is_settled() {
        let due_at = utc("2026-11-21 01:30");
        let once = StartCondition::Time { local: "2026-11-21T02:30:00".parse().unwrap(), zone: Berlin };
        for start in [once, StartCondition::Immediate] {
            let settled = settle(&start, MisfirePolicy::Run, HOUR, due_at, due_at + TimeDelta::minutes(5)).unwrap();
            let decision = MisfireDecision::RunNow { missed_at: due_at };
            assert_eq!(settled, Settled { due_at, decision, next_due_at: None });
        }
    }

    proptest! {
        #[test]
        fn a_settled_series_has_no_start_left_in_the_past(
            off_secs in -5_i64..1_000_000,
            tolerance_secs in 0_u64..100_000,
            policy in proptest::sample::select(vec![MisfirePolicy::Skip, MisfirePolicy::Run, MisfirePolicy::Ask]),
            calendar in proptest::sample::select(vec!["*:*:*", "*:0/15", "02:30", "Mon 1:00", "monthly"]),
        ) {
            let due_at = utc("2026-03-01 00:00");
            let now = due_at + TimeDelta::seconds(off_secs);
            let start = StartCondition::Series { calendar: calendar.to_owned(), zone: Berlin };
            let settled = settle(&start, policy, Span::secs(tolerance_secs), due_at, now).unwrap();
            prop_assert!(settled.next_due_at.is_some_and(|next| next > now && next > settled.due_at));
            prop_assert!(settled.due_at >= due_at);
            if settled.due_at > due_at {
                let runs = matches!(settled.decision, MisfireDecision::NotMissed | MisfireDecision::RunNow { .. });
                prop_assert!(runs, "a later start counts only when it can still be made");
            }
        }
    }
}
