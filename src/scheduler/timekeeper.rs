//! Waits for instants of the wall clock.
//!
//! An instant of the wall clock cannot be waited for with a monotonic timer: the clock may be set, slewed, or have run
//! on while the machine was suspended. Linux has the right thing, a `timerfd` on `CLOCK_REALTIME` with an absolute
//! time, which also wakes its reader when the clock is set (`TFD_TIMER_CANCEL_ON_SET`); one file descriptor is both, exact to
//! some 50 µs. Elsewhere, and for clocks that are not this machine's, [`Timekeeper::paced`] sleeps in slices and
//! compares what the clock did with what really passed.
//!
//! *Invariant:* `Alarm::wait_until` says [`Woken::Reached`] only when the clock shows the instant or a later one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use rustix::io::Errno;
use rustix::time::Itimerspec;
use rustix::time::TimerfdClockId;
use rustix::time::TimerfdFlags;
use rustix::time::TimerfdTimerFlags;
use rustix::time::Timespec;
use rustix::time::timerfd_create;
use rustix::time::timerfd_settime;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::domain::clock::Clock;
use crate::domain::clock::Moment;
use crate::domain::clock::SystemClock;
use crate::scheduler::pace::LOOK_EVERY;
use crate::scheduler::pace::STEP_NOTICED;

/// How late a timer may be before the clock is looked at without it.
const LATE_MAX: Duration = Duration::from_millis(5);
/// The pause after a timer was early for the second time; it doubles up to [`EARLY_PAUSE_MAX`].
const EARLY_PAUSE: Duration = Duration::from_millis(1);
/// The longest such pause.
const EARLY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A clock, and the way to wait on it.
#[derive(Debug, Clone)]
pub struct Timekeeper {
    clock: Arc<dyn Clock>,
    wall: bool,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The instant has come.
    Reached,
    /// The clock was set: whatever was computed from it is void.
    ClockSet,
}

impl Timekeeper {
    /// This machine's clock, exact.
    pub fn wall() -> Self {
        Self { clock: Arc::new(SystemClock), wall: true }
    }

    /// Any clock that runs about as fast as time does; up to 2 ms late, and it notices a step after 30 s at the latest.
    pub fn paced(clock: Arc<dyn Clock>) -> Self {
        Self { clock, wall: false }
    }

    /// What the clock shows.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// What both clocks show.
    pub fn moment(&self) -> Moment {
        self.clock.moment()
    }

    /// One thing to wait with; each task that waits has its own.
    pub(super) fn alarm(&self) -> Alarm {
        let timer = if self.wall { wall_timer() } else { None };
        Alarm { clock: self.clock.clone(), timer }
    }
}

fn wall_timer() -> Option<AsyncFd<OwnedFd>> {
    timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
        .map_err(io::Error::from)
        .and_then(register)
        .inspect_err(|error| tracing::warn!(%error, "no wall clock timer: starts may be some milliseconds late"))
        .ok()
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that change their descriptor; an OwnedFd does not"
)]
fn register(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(timer, Interest::READABLE)
}

/// One thing to wait with.
#[derive(Debug)]
pub(super) struct Alarm {
    clock: Arc<dyn Clock>,
    timer: Option<AsyncFd<OwnedFd>>,
}

impl Alarm {
    /// Waits until the clock shows `at`, or is set. Can be dropped and called again at any point.
    pub(super) async fn wait_until(&self, at: DateTime<Utc>) -> Woken {
        let mut early: u32 = 0;
        loop {
            let now = self.clock.now();
            if now >= at {
                return Woken::Reached;
            }
            if let Some(pause) = pause_when_early(early) {
                tokio::time::sleep(pause.min(slice(now, at))).await;
            }
            let woken = match &self.timer {
                // The kernel's clock may be another one than ours: a timer that is late is not waited for.
                Some(timer) => match tokio::time::timeout(slice(now, at) + LATE_MAX, wait_on(timer, at)).await {
                    Ok(Ok(woken)) => {
                        early = early.saturating_add(1);
                        woken
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "the wall clock timer failed once");
                        self.wait_a_slice(now, at).await
                    }
                    Err(_) => Woken::Reached,
                },
                None => self.wait_a_slice(now, at).await,
            };
            if woken == Woken::ClockSet {
                return woken;
            }
        }
    }

    /// Sleeps until `at` or the next look, and notices if the clock did not do the same as time.
    async fn wait_a_slice(&self, now: DateTime<Utc>, at: DateTime<Utc>) -> Woken {
        let started = Instant::now();
        tokio::time::sleep(slice(now, at)).await;
        let passed = TimeDelta::from_std(started.elapsed()).unwrap_or(TimeDelta::MAX);
        let drift = self.clock.now() - now - passed;
        if drift.abs() > STEP_NOTICED { Woken::ClockSet } else { Woken::Reached }
    }
}

/// How long until `at`, or until the next look.
fn slice(now: DateTime<Utc>, at: DateTime<Utc>) -> Duration {
    (at - now).min(LOOK_EVERY).to_std().unwrap_or(Duration::ZERO)
}

/// How long to wait before a timer is asked again that has said "reached" so many times while the clock says "not yet".
fn pause_when_early(times: u32) -> Option<Duration> {
    // Once it may be by a hair.
    let doublings = times.checked_sub(2)?;
    Some(EARLY_PAUSE.saturating_mul(2_u32.saturating_pow(doublings)).min(EARLY_PAUSE_MAX))
}

/// Waits on a timer for `at`, an instant after 1970.
async fn wait_on(timer: &AsyncFd<OwnedFd>, at: DateTime<Utc>) -> io::Result<Woken> {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let once = Timespec { tv_sec: at.timestamp(), tv_nsec: at.timestamp_subsec_nanos().into() };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    match timerfd_settime(timer, flags, &Itimerspec { it_interval: zero, it_value: once }) {
        Err(Errno::CANCELED) => return Ok(Woken::ClockSet),
        set => set?,
    };
    loop {
        let mut ready = timer.readable().await?;
        let mut expirations = [0; 8];
        let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)));
        match read {
            Ok(Ok(Err(Errno::AGAIN))) | Err(_) => ready.clear_ready(),
            Ok(read) => return woken_by(read?),
        }
    }
}

/// What reading an expired timer says.
fn woken_by(read: Result<usize, Errno>) -> io::Result<Woken> {
    match read {
        Ok(_) => Ok(Woken::Reached),
        Err(Errno::CANCELED) => Ok(Woken::ClockSet),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;
    use std::sync::atomic::Ordering;

    use rstest::rstest;

    use super::*;

    /// This machine's clock, put forward or back.
    #[derive(Debug, Default)]
    struct ShiftedClock(AtomicI64);

    impl Clock for ShiftedClock {
        fn now(&self) -> DateTime<Utc> {
            SystemClock.now() + TimeDelta::milliseconds(self.0.load(Ordering::SeqCst))
        }
    }

    #[rstest]
    #[case::wall(Timekeeper::wall())]
    #[case::paced(Timekeeper::paced(Arc::new(SystemClock)))]
    #[tokio::test]
    async fn an_instant_is_never_reached_early(#[case] time: Timekeeper) {
        let alarm = time.alarm();
        for micros in [0, 1, 700, 1_000, 1_300, 5_000, 20_500] {
            let at = time.now() + TimeDelta::microseconds(micros);
            assert_eq!(alarm.wait_until(at).await, Woken::Reached);
            assert!(time.now() >= at);
        }
        let past = time.now() - TimeDelta::days(1);
        assert_eq!(alarm.wait_until(past).await, Woken::Reached);
    }

    #[tokio::test]
    async fn this_machine_has_a_wall_clock_timer_and_a_dropped_wait_does_no_harm() {
        let time = Timekeeper::wall();
        let alarm = time.alarm();
        assert!(alarm.timer.is_some());
        for _ in 0..20 {
            let soon = alarm.wait_until(time.now() + TimeDelta::microseconds(200));
            drop(tokio::time::timeout(Duration::from_micros(200), soon).await);
        }
        let at = time.now() + TimeDelta::milliseconds(30);
        assert_eq!(alarm.wait_until(at).await, Woken::Reached);
        assert!(time.now() >= at, "what is left of an earlier wait does not end this one");
    }

    #[rstest]
    #[case::forward(3_600_000)]
    #[case::back(-3_600_000)]
    #[tokio::test]
    async fn a_paced_wait_notices_that_its_clock_was_set(#[case] by_ms: i64) {
        let clock = Arc::new(ShiftedClock::default());
        let alarm = Timekeeper::paced(clock.clone()).alarm();
        let wait = alarm.wait_until(clock.now() + TimeDelta::milliseconds(20));
        let set = async { clock.0.store(by_ms, Ordering::SeqCst) };
        assert_eq!(tokio::join!(wait, set).0, Woken::ClockSet);
    }

    /// The clock of a program that is two hours behind the one of its kernel.
    #[tokio::test]
    async fn a_timer_that_is_early_again_and_again_is_asked_with_pauses() {
        #[derive(Debug, Default)]
        struct Slow(AtomicI64);
        impl Clock for Slow {
            fn now(&self) -> DateTime<Utc> {
                self.0.fetch_add(1, Ordering::SeqCst);
                SystemClock.now() - TimeDelta::hours(2)
            }
        }
        let clock = Arc::new(Slow::default());
        let alarm = Timekeeper { clock: clock.clone(), wall: true }.alarm();
        let wait = alarm.wait_until(clock.now() + TimeDelta::hours(1));
        assert!(tokio::time::timeout(Duration::from_millis(300), wait).await.is_err(), "it is not reached");
        let looks = clock.0.load(Ordering::SeqCst);
        assert!(looks < 15, "it was asked {looks} times within 300 ms");
    }

    #[test]
    fn a_cancelled_timer_means_that_the_clock_was_set() {
        assert_eq!(woken_by(Ok(8)).ok(), Some(Woken::Reached));
        assert_eq!(woken_by(Err(Errno::CANCELED)).ok(), Some(Woken::ClockSet));
        assert!(woken_by(Err(Errno::BADF)).is_err());
    }
}
