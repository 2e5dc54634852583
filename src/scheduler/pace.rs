//! How far ahead, how many at once, and how long until the next look: the dispatcher's policy, pure.

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
/// How often a clock is asked whether it can be believed that does as time does.
pub(super) const BELIEVED_FOR: TimeDelta = TimeDelta::hours(1);
/// A clock that differs by more than this from what passed since the last look was set.
pub(super) const STEP_NOTICED: TimeDelta = TimeDelta::seconds(1);

/// When the store is looked at next, given the earliest start that is not armed yet.
pub(super) fn next_look_at(next_due_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
    let latest = now + LOOK_EVERY;
    next_due_at.and_then(|due_at| due_at.checked_sub_signed(ARM_LEAD)).map_or(latest, |at| at.min(latest))
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
}
