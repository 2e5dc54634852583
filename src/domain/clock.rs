//! Where `now` comes from, and how long something has lasted.
//!
//! Pure code takes `now` as an argument. Shells hold a [`Clock`], so that a test can decide what time it is.
//!
//! There are two clocks. The wall clock says which day it is, and anybody may set it. The other one counts from the boot
//! of the machine, suspended or not, and never jumps. A [`Moment`] is what both say. *When* something is due is asked of the wall
//! clock; *how long* something lasts is a [`Term`], and is asked of the one that does not jump:
//!
//! | between | has passed |
//! |---|---|
//! | two moments of one boot | what the clock of that boot counted, whatever the wall clock was set to |
//! | two moments of different boots | what the wall clocks say, but no less than this boot has lasted |
//!
//! *Invariant:* a term ends: of its length no more is ever left than the length itself.

use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::time::Duration;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use rustix::time::ClockId;
use rustix::time::clock_gettime;
use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::domain::span::Span;

/// How long the machine has run, and since which boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uptime {
    /// The boot; each has a number of its own.
    pub boot: Uuid,
    /// The time since then, suspended or not, in milliseconds.
    pub ms: u64,
}

/// An instant, as both clocks of this machine show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// What the wall clock shows.
    pub at: DateTime<Utc>,
    /// What the clock shows that does not jump; absent where it was not noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Uptime>,
}

impl From<DateTime<Utc>> for Moment {
    fn from(at: DateTime<Utc>) -> Self {
        Self { at, up: None }
    }
}

impl Moment {
    /// How long this is after `earlier`; nothing when it is not.
    pub fn since(self, earlier: Self) -> Span {
        let by_the_wall = Span::between(earlier.at, self.at);
        match (self.up, earlier.up) {
            (Some(now), Some(then)) if now.boot == then.boot => millis(now.ms.saturating_sub(then.ms)),
            // At least since this boot.
            (Some(now), Some(_)) => by_the_wall.max(millis(now.ms)),
            _ => by_the_wall,
        }
    }

    /// How far the wall clock was set between `earlier` and this moment; forward is positive. Unknown over a boot.
    pub fn set_since(self, earlier: Self) -> Option<TimeDelta> {
        let (now, then) = self.up.zip(earlier.up).filter(|(now, then)| now.boot == then.boot)?;
        let passed = TimeDelta::milliseconds(i64::try_from(now.ms).ok()? - i64::try_from(then.ms).ok()?);
        Some(self.at - earlier.at - passed)
    }
}

/// A length that began at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// When it began.
    pub from: Moment,
    /// How long it lasts.
    pub length: Span,
}

impl Term {
    /// What was to end at an instant of the wall clock, as that stood when it began.
    pub fn until(from: impl Into<Moment>, ends_at: DateTime<Utc>) -> Self {
        let from = from.into();
        Self { from, length: Span::between(from.at, ends_at) }
    }

    /// How much of it is left.
    pub fn left(self, now: Moment) -> Span {
        Span::from(self.length.duration().saturating_sub(now.since(self.from).duration()))
    }

    /// Whether nothing of it is left.
    pub fn is_over(self, now: Moment) -> bool {
        self.left(now) == Span::ZERO
    }

    /// What the wall clock will show at its end, if it is not set until then.
    pub fn ends_at(self, now: Moment) -> DateTime<Utc> {
        now.at.checked_add_signed(self.left(now).delta()).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Whether it is over by the wall clocks of two boots alone: nobody knows how long the machine was off.
    pub fn ended_over_a_boot(self, now: Moment) -> bool {
        let this_boot = now.up.map(|up| millis(up.ms));
        self.is_over(now) && now.set_since(self.from).is_none() && this_boot.is_some_and(|ran| ran < self.length)
    }
}

fn millis(ms: u64) -> Span {
    Span::from(Duration::from_millis(ms))
}

/// A source of the current instant.
pub trait Clock: Send + Sync + Debug {
    /// The current instant, in UTC.
    fn now(&self) -> DateTime<Utc>;

    /// The same on both clocks; a source that has only one says what that shows.
    fn moment(&self) -> Moment {
        self.now().into()
    }
}

/// The clocks of this machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn moment(&self) -> Moment {
        Moment { at: self.now(), up: uptime() }
    }
}

/// The clock that does not jump; nothing where the kernel does not number its boots.
fn uptime() -> Option<Uptime> {
    static BOOT: OnceLock<Option<Uuid>> = OnceLock::new();
    let read = || Uuid::parse_str(fs_err::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim()).ok();
    let boot = (*BOOT.get_or_init(read))?;
    let shown = clock_gettime(ClockId::Boottime);
    let ms = u64::try_from(shown.tv_sec).ok()? * 1000 + u64::try_from(shown.tv_nsec / 1_000_000).ok()?;
    Some(Uptime { boot, ms })
}

/// Clocks that stand until they are moved, for tests and for planning.
#[derive(Debug)]
pub struct ManualClock(Mutex<Moment>);

impl ManualClock {
    /// Clocks that stand at `at`, a while after a boot.
    pub fn at(at: DateTime<Utc>) -> Self {
        let up = Some(Uptime { boot: Uuid::from_u128(1), ms: 3_600_000 });
        Self(Mutex::new(Moment { at, up }))
    }

    /// Time passes until the wall clock shows `at`; before what it shows, it is set back.
    pub fn set(&self, at: DateTime<Utc>) {
        self.change(|moment| {
            if let Some(up) = &mut moment.up {
                up.ms += u64::try_from((at - moment.at).num_milliseconds()).unwrap_or_default();
            }
            moment.at = at;
        });
    }

    /// Somebody sets the wall clock forward or back; no time passes.
    pub fn jump(&self, by: TimeDelta) {
        self.change(|moment| moment.at += by);
    }

    /// The machine is off for a while and boots; the wall clock is kept.
    pub fn reboot(&self, off: Span) {
        self.change(|moment| {
            let boot = moment.up.map_or(1, |up| up.boot.as_u128() + 1);
            *moment = Moment { at: moment.at + off.delta(), up: Some(Uptime { boot: Uuid::from_u128(boot), ms: 0 }) };
        });
    }

    fn change(&self, change: impl FnOnce(&mut Moment)) {
        change(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        self.moment().at
    }

    fn moment(&self) -> Moment {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const GRACE: Span = Span::mins(5);

    fn clock() -> ManualClock {
        ManualClock::at("2026-11-22T02:30:00Z".parse().unwrap())
    }

    fn pass(clock: &ManualClock, span: Span) {
        clock.set(clock.now() + span.delta());
    }

    #[rstest]
    fn a_clock_that_is_set_changes_no_length(#[values(3, -3, 5, -5)] hours: i64) {
        let clock = clock();
        let term = Term { from: clock.moment(), length: GRACE };
        pass(&clock, Span::mins(2));
        clock.jump(TimeDelta::hours(hours));
        assert_eq!(term.left(clock.moment()), Span::mins(3));
        assert_eq!(clock.moment().set_since(term.from), Some(TimeDelta::hours(hours)));
        assert_eq!(term.ends_at(clock.moment()), clock.now() + Span::mins(3).delta());
        pass(&clock, Span::mins(3));
        assert!(term.is_over(clock.moment()) && !term.ended_over_a_boot(clock.moment()));
    }

    #[test]
    fn over_a_boot_the_wall_clocks_say_how_long_the_machine_was_off() {
        let clock = clock();
        let term = Term { from: clock.moment(), length: GRACE };
        clock.reboot(Span::mins(1));
        assert_eq!(term.left(clock.moment()), Span::mins(4));
        clock.reboot(Span::hours(1));
        assert!(term.is_over(clock.moment()) && term.ended_over_a_boot(clock.moment()), "and that is said");
    }

    #[rstest]
    fn over_a_boot_a_clock_that_is_behind_lengthens_nothing(#[values(-3, -300_000)] hours: i64) {
        let clock = clock();
        let term = Term { from: clock.moment(), length: GRACE };
        clock.reboot(Span::ZERO);
        clock.jump(TimeDelta::hours(hours));
        assert_eq!(term.left(clock.moment()), GRACE);
        pass(&clock, Span::mins(2));
        assert_eq!(term.left(clock.moment()), Span::mins(3), "this boot counts");
        pass(&clock, Span::mins(3));
        assert!(term.is_over(clock.moment()) && !term.ended_over_a_boot(clock.moment()));
    }

    #[test]
    fn what_an_older_version_has_written_is_measured_on_the_wall_clock() {
        let clock = clock();
        let moment: Moment = serde_json::from_str(r#"{"at": "2026-11-22T02:30:00Z"}"#).unwrap();
        pass(&clock, Span::mins(1));
        assert_eq!((moment.up, clock.moment().since(moment)), (None, Span::mins(1)));
    }

    #[test]
    fn this_machine_has_both_clocks() {
        let (first, second) = (SystemClock.moment(), SystemClock.moment());
        assert!(second.up.unwrap().ms >= first.up.unwrap().ms && second.set_since(first).is_some());
    }
}
