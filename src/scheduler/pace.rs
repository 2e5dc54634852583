//! How far ahead, how many at once, how long until the next look, and when to hold: the dispatcher's policy, pure.

use std::time::Duration;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

/// A run is armed at most this long before it is due.
pub(super) const ARM_AHEAD: TimeDelta = TimeDelta::seconds(5);
/// A run is armed at least this long before it is due, if its job was there by then. The difference to [`ARM_AHEAD`] is
/// how often a busy store commits.
pub(super) const ARM_LEAD: TimeDelta = TimeDelta::seconds(3);
/// The most runs that are armed in one transaction.
pub(super) const ARM_BATCH_MAX: usize = 1_000;
/// The most armed runs that are kept in memory; beyond them nothing is armed until some have fired.
pub(super) const ARMED_MAX: usize = 50_000;
/// The most runs that are validated with one question to the store.
pub(super) const FIRE_BATCH_MAX: usize = 1_000;
/// How often the store and the clock are looked at when nothing happens.
pub(super) const LOOK_EVERY: TimeDelta = TimeDelta::seconds(30);
/// How long until a store that failed is asked again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A clock that is put back further than this holds new starts.
pub(super) const STEP_BACK_TOLERANCE: TimeDelta = TimeDelta::seconds(60);
/// A clock that differs by more than this from what passed since the last look was set.
pub(super) const STEP_NOTICED: TimeDelta = TimeDelta::seconds(1);

/// When the store is looked at next, given the earliest start that is not armed yet.
pub(super) fn next_look_at(next_due_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
    let latest = now + LOOK_EVERY;
    next_due_at.and_then(|due_at| due_at.checked_sub_signed(ARM_LEAD)).map_or(latest, |at| at.min(latest))
}

/// Watches a clock that may be put back.
///
/// A small step back does no harm: every instant is waited for on the clock as it then stands, and what has started has
/// its next start in the future. After a big one nobody knows which time is right, so nothing starts until the clock
/// has passed the latest time it has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClockWatch {
    latest: DateTime<Utc>,
    held: bool,
}

/// What a look at the clock tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClockState {
    /// All is well.
    Steady,
    /// It has just been put back too far: hold.
    SteppedBack {
        /// How far.
        by: TimeDelta,
        /// When the hold ends.
        until: DateTime<Utc>,
    },
    /// Still held.
    Held {
        /// When the hold ends.
        until: DateTime<Utc>,
    },
    /// The hold is over.
    CaughtUp,
}

impl ClockState {
    /// Nothing starts before this.
    pub(super) fn held_until(self) -> Option<DateTime<Utc>> {
        match self {
            Self::SteppedBack { until, .. } | Self::Held { until } => Some(until),
            Self::Steady | Self::CaughtUp => None,
        }
    }
}

impl ClockWatch {
    /// Begins to watch.
    pub(super) fn new(now: DateTime<Utc>) -> Self {
        Self { latest: now, held: false }
    }

    /// Takes in that the clock shows `now`.
    pub(super) fn observe(&mut self, now: DateTime<Utc>) -> ClockState {
        let (by, until) = (self.latest - now, self.latest);
        self.latest = self.latest.max(now);
        match self.held {
            true if by > TimeDelta::zero() => ClockState::Held { until },
            true => {
                self.held = false;
                ClockState::CaughtUp
            }
            false if by > STEP_BACK_TOLERANCE => {
                self.held = true;
                ClockState::SteppedBack { by, until }
            }
            false => ClockState::Steady,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(1_000_000 + secs)
    }

    #[test]
    fn a_start_is_armed_in_time_and_an_idle_store_is_looked_at_rarely() {
        assert_eq!(next_look_at(None, at(0)), at(30));
        assert_eq!(next_look_at(Some(at(3_600)), at(0)), at(30));
        assert_eq!(next_look_at(Some(at(20)), at(0)), at(17));
        assert_eq!(next_look_at(Some(at(-20)), at(0)), at(-23), "at once");
        assert_eq!(next_look_at(Some(DateTime::<Utc>::MIN_UTC), at(0)), at(30), "no arithmetic beyond the calendar");
    }

    #[test]
    fn a_small_step_back_is_nothing() {
        let mut watch = ClockWatch::new(at(0));
        assert_eq!([at(100), at(40), at(99), at(40)].map(|now| watch.observe(now)), [ClockState::Steady; 4]);
    }

    #[test]
    fn a_big_step_back_holds_until_the_clock_is_past_again() {
        let mut watch = ClockWatch::new(at(0));
        let until = at(100);
        let seen = [100, 39, 38, 99, 100, 101, 200].map(|secs| watch.observe(at(secs)));
        let expected = [
            ClockState::Steady,
            ClockState::SteppedBack { by: TimeDelta::seconds(61), until },
            ClockState::Held { until },
            ClockState::Held { until },
            ClockState::CaughtUp,
            ClockState::Steady,
            ClockState::Steady,
        ];
        assert_eq!(seen, expected);
        assert_eq!(seen.map(ClockState::held_until), [None, Some(until), Some(until), Some(until), None, None, None]);
    }

    #[test]
    fn a_step_forward_is_time_that_has_passed() {
        let mut watch = ClockWatch::new(at(0));
        assert_eq!(watch.observe(at(86_400)), ClockState::Steady);
        assert!(matches!(watch.observe(at(0)), ClockState::SteppedBack { .. }));
    }
}
