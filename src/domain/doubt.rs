//! Whether the clock on the wall can be believed.
//!
//! A machine may wake with its clock years ahead for some seconds, or in 1970. What is remembered is the last moment at which the
//! clock was believed ([`Seen`]), and [`judge`] compares with that:
//!
//! | the clock | and | is |
//! |---|---|---|
//! | differs by little, or a time service vouches for it | | believed |
//! | is further ahead than [`FAR`], of what is known to have passed | nobody vouches | doubted: nothing starts |
//! | is behind by less than that, or vouched for | | believed: it was wrong before, and what was computed then is void |
//! | is further behind | nobody vouches | doubted |
//!
//! A site without a time service works as any other; only after a gap so long an operator is asked.

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::clock::Moment;

/// A clock that differs by more than this from what is known is believed only where somebody vouches for it.
pub const FAR: TimeDelta = TimeDelta::days(30);
/// A clock that is behind what was written down by more than this was wrong before, or is wrong now.
pub const BEHIND: TimeDelta = TimeDelta::minutes(1);

/// What is remembered of the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The last moment at which it was believed.
    pub good: Moment,
    /// Why it is not believed now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
    /// What was put right, and when; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended: Option<(DateTime<Utc>, String)>,
}

impl Seen {
    /// A clock that is believed at `good`.
    pub fn at(good: Moment) -> Self {
        Self { good, doubt: None, mended: None }
    }
}

/// What a look at the clock tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// All is well.
    Believed,
    /// It is right now, and was ahead before.
    WasAhead,
    /// It is further ahead than anything explains.
    Ahead(TimeDelta),
    /// It is further behind than anything explains.
    Behind(TimeDelta),
}

/// Judges the clock at `now`: by what was `seen`, by the `newest` thing that was written down, and by whether a time
/// service has `vouched` for it.
pub fn judge(now: Moment, seen: &Seen, newest: Option<DateTime<Utc>>, vouched: bool) -> Word {
    // Within a boot it is known what has passed, else it may have been anything.
    let ahead = now.set_since(seen.good).unwrap_or(now.at - seen.good.at);
    let behind = seen.good.at - now.at;
    if !vouched && ahead > FAR {
        return Word::Ahead(ahead);
    }
    if !vouched && behind > FAR {
        return Word::Behind(behind);
    }
    match behind > BEHIND || newest.is_some_and(|newest| newest - now.at > BEHIND) {
        true => Word::WasAhead,
        false => Word::Believed,
    }
}

/// What a person can do about a clock that is doubted.
pub const REMEDY: &str = "set the clock (timedatectl), or say that it is right: `afterhours doctor --accept-clock`";

impl Word {
    /// For people: why nothing starts, and what to do; nothing when the clock is believed.
    pub fn doubt(self, now: Moment) -> Option<String> {
        let (by, where_to, of) = match self {
            Self::Believed | Self::WasAhead => return None,
            Self::Ahead(by) => (by, "ahead of", "a machine that was switched off for so long looks the same"),
            Self::Behind(by) => (by, "behind", "its battery may be empty"),
        };
        Some(format!(
            "the clock shows {}, {} days {where_to} what it showed the last time, and no time service vouches for it ({of}): \
             no job starts",
            now.at.format("%Y-%m-%d %H:%M:%S UTC"),
            by.num_days(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::domain::clock::Clock;
    use crate::domain::clock::ManualClock;
    use crate::domain::span::Span;

    const YEARS: TimeDelta = TimeDelta::days(4_400);

    fn clock() -> ManualClock {
        ManualClock::at("2026-11-22T02:30:00Z".parse().unwrap())
    }

    #[test]
    fn a_boot_years_ahead_is_doubted_and_what_comes_after_it_believed() {
        let clock = clock();
        let seen = Seen::at(clock.moment());
        clock.reboot(Span::mins(1));
        assert_eq!(judge(clock.moment(), &seen, None, false), Word::Believed);
        clock.jump(YEARS);
        let ahead = judge(clock.moment(), &seen, None, false);
        assert_eq!(ahead, Word::Ahead(YEARS + TimeDelta::minutes(1)));
        assert!(ahead.doubt(clock.moment()).unwrap().contains("4400 days ahead"), "{ahead:?}");
        assert_eq!(judge(clock.moment(), &seen, None, true), Word::Believed, "a time service vouches for it");
        let written = clock.now();
        clock.jump(-YEARS);
        assert_eq!(judge(clock.moment(), &seen, None, false), Word::Believed);
        assert_eq!(judge(clock.moment(), &seen, Some(written), false), Word::WasAhead);
    }

    #[test]
    fn a_clock_that_was_weeks_ahead_and_is_put_right_was_ahead() {
        let clock = clock();
        clock.jump(TimeDelta::days(20));
        let seen = Seen::at(clock.moment());
        clock.jump(TimeDelta::days(-20));
        assert_eq!(judge(clock.moment(), &seen, None, false), Word::WasAhead);
        clock.jump(TimeDelta::days(-9_000));
        assert!(matches!(judge(clock.moment(), &seen, None, false), Word::Behind(_)), "its battery is empty");
        clock.set(seen.good.at);
        assert_eq!(judge(clock.moment(), &seen, None, true), Word::Believed);
    }

    #[test]
    fn a_machine_that_runs_for_months_is_believed_and_one_that_is_set_on_by_months_is_not() {
        let clock = clock();
        let seen = Seen::at(clock.moment());
        clock.set(clock.now() + TimeDelta::days(100));
        assert_eq!(judge(clock.moment(), &seen, None, false), Word::Believed, "that has passed");
        clock.jump(TimeDelta::days(31));
        assert!(matches!(judge(clock.moment(), &seen, None, false), Word::Ahead(_)));
    }
}
