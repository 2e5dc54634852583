//! From local times to instants, and the next start of a job.
//!
//! *Invariant:* a later local time never resolves to an earlier instant. A local time in a gap runs at the first
//! instant after the gap; one that exists twice runs the first time.

use chrono::DateTime;
use chrono::MappedLocalTime;
use chrono::NaiveDateTime;
use chrono::TimeZone;
use chrono::Utc;
use chrono_tz::GapInfo;
use chrono_tz::Tz;

use crate::domain::job::StartCondition;
use crate::scheduler::calendar::Calendar;
use crate::scheduler::calendar::CalendarError;

/// An instant, and how a local time came to mean it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// When it is.
    pub at: DateTime<Utc>,
    /// Why then.
    pub kind: ResolvedKind,
}

/// How a local time maps to an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolvedKind {
    /// It exists once.
    Exact,
    /// It does not exist: the clock is put forward over it.
    Gap {
        /// What the clock shows at the first instant after the gap.
        shifted_to_local: NaiveDateTime,
    },
    /// It exists twice: the clock is put back over it.
    Overlap {
        /// The one that counts.
        first: DateTime<Utc>,
        /// The one that does not.
        second: DateTime<Utc>,
    },
}

/// The instant that a local time means in a zone.
pub fn resolve_local(local: NaiveDateTime, zone: Tz) -> Resolved {
    match zone.from_local_datetime(&local) {
        MappedLocalTime::Single(at) => Resolved { at: at.to_utc(), kind: ResolvedKind::Exact },
        MappedLocalTime::Ambiguous(a, b) => {
            let (first, second) = (a.min(b).to_utc(), a.max(b).to_utc());
            Resolved { at: first, kind: ResolvedKind::Overlap { first, second } }
        }
        MappedLocalTime::None => {
            // Every gap has an end; only beyond the last year that chrono knows there is nothing to say.
            let after = GapInfo::new(&local, &zone).and_then(|gap| gap.end);
            let after = after.unwrap_or_else(|| zone.from_utc_datetime(&local));
            Resolved { at: after.to_utc(), kind: ResolvedKind::Gap { shifted_to_local: after.naive_local() } }
        }
    }
}

/// When a job that is enabled at `now` starts first; none when it waits for another job or its time is over.
pub fn first_start(start: &StartCondition, now: DateTime<Utc>) -> Result<Option<Resolved>, CalendarError> {
    match start {
        StartCondition::Immediate => Ok(Some(Resolved { at: now, kind: ResolvedKind::Exact })),
        _ => next_start(start, now),
    }
}

/// When a job starts next, strictly after `after`; none when it does not by the clock, or not any more.
///
/// After a start, ask with that start's very instant. One that a store has rounded down would be found again.
pub fn next_start(start: &StartCondition, after: DateTime<Utc>) -> Result<Option<Resolved>, CalendarError> {
    match start {
        // "Immediate" is over as soon as it has started; `first_start` says when that is.
        StartCondition::Immediate | StartCondition::After { .. } => Ok(None),
        StartCondition::Time { local, zone } => Ok(Some(resolve_local(*local, *zone)).filter(|start| start.at > after)),
        StartCondition::Series { calendar, zone } => Ok(Calendar::parse(calendar)?.next_resolved(after, *zone)),
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Europe::Berlin;
    use chrono_tz::Pacific::Apia;
    use proptest::prelude::*;

    use super::*;

    fn local(text: &str) -> NaiveDateTime {
        text.replace(' ', "T").parse().unwrap()
    }

    fn utc(text: &str) -> DateTime<Utc> {
        local(text).and_utc()
    }

    #[test]
    fn a_local_time_exists_once_never_or_twice() {
        let at = |text: &str| resolve_local(local(text), Berlin);
        let exact = Resolved { at: utc("2026-07-01 00:30:00"), kind: ResolvedKind::Exact };
        assert_eq!(at("2026-07-01 02:30:00"), exact);
        let kind = ResolvedKind::Gap { shifted_to_local: local("2026-03-29 03:00:00") };
        assert_eq!(at("2026-03-29 02:00:00"), Resolved { at: utc("2026-03-29 01:00:00"), kind });
        assert_eq!(at("2026-03-29 02:59:59"), Resolved { at: utc("2026-03-29 01:00:00"), kind });
        let (first, second) = (utc("2026-10-25 00:30:00"), utc("2026-10-25 01:30:00"));
        assert_eq!(at("2026-10-25 02:30:00"), Resolved { at: first, kind: ResolvedKind::Overlap { first, second } });
    }

    #[test]
    fn a_day_that_a_country_left_out_is_a_gap() {
        let resolved = resolve_local(local("2011-12-30 12:00:00"), Apia);
        let kind = ResolvedKind::Gap { shifted_to_local: local("2011-12-31 00:00:00") };
        assert_eq!(resolved, Resolved { at: utc("2011-12-30 10:00:00"), kind });
    }

    #[test]
    fn each_start_condition_has_its_next_start() {
        let now = utc("2026-11-21 12:00:00");
        let at = |start: &StartCondition| next_start(start, now).unwrap().map(|resolved| resolved.at);
        let first = |start: &StartCondition| first_start(start, now).unwrap().map(|resolved| resolved.at);

        assert_eq!((first(&StartCondition::Immediate), at(&StartCondition::Immediate)), (Some(now), None));
        let tonight = StartCondition::Time { local: local("2026-11-22 02:30:00"), zone: Berlin };
        assert_eq!(
            (first(&tonight), at(&tonight)),
            (Some(utc("2026-11-22 01:30:00")), Some(utc("2026-11-22 01:30:00")))
        );
        let past = StartCondition::Time { local: local("2026-11-21 13:00:00"), zone: Berlin };
        assert_eq!(at(&past), None, "what is due at this very instant is not after it");
        let nightly = StartCondition::Series { calendar: "02:30".to_owned(), zone: Berlin };
        assert_eq!(at(&nightly), Some(utc("2026-11-22 01:30:00")));
        let after = StartCondition::After { job: "backup".parse().unwrap() };
        assert_eq!((first(&after), at(&after)), (None, None));
        let broken = StartCondition::Series { calendar: "nightly".to_owned(), zone: Berlin };
        assert!(next_start(&broken, now).is_err());
    }

    proptest! {
        #[test]
        fn later_local_times_never_resolve_to_earlier_instants(
            secs in 0_i64..3_000_000_000,
            step in 0_i64..200_000,
            zone in proptest::sample::select(chrono_tz::TZ_VARIANTS.as_slice()),
        ) {
            let at = |secs| resolve_local(DateTime::from_timestamp(secs, 0).unwrap().naive_utc(), zone).at;
            prop_assert!(at(secs) <= at(secs + step));
        }
    }
}
