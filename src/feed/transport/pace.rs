//! How fast: the limit that the administrator sets, the least that a server must bring, and how
//! long it is asked again. All of it computed; who calls does the waiting.

use std::time::Duration;

use tokio::time::Instant;

/// What may be had at once after a pause, as a part of a second.
const BURST: f64 = 0.25;

/// At most so many bytes a second: a bucket of tokens that may be overdrawn by one piece.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Throttle {
    /// A full bucket. Nothing a second would be for ever, so it is at least one byte.
    pub(super) fn new(bytes_per_second_max: u64, now: Instant) -> Self {
        let bytes_per_second = bytes_per_second_max.max(1) as f64;
        Self { bytes_per_second, tokens: bytes_per_second * BURST, filled_at: now }
    }

    /// Takes `bytes` out, and says how long to wait before more.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = now;
        let full = self.bytes_per_second * BURST;
        self.tokens = (self.tokens + passed * self.bytes_per_second).min(full) - bytes as f64;
        Duration::from_secs_f64((-self.tokens / self.bytes_per_second).max(0.0))
    }
}

/// At least so many bytes a second, over a window of waiting. Time in which we do not wait for the
/// server does not count, so a limit of our own is nobody's fault.
#[derive(Debug)]
pub(super) struct Floor {
    bytes_per_second_min: u64,
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Floor {
    pub(super) fn new(bytes_per_second_min: u64, window: Duration) -> Self {
        Self { bytes_per_second_min, window, waited: Duration::ZERO, bytes: 0 }
    }

    /// After `waited`, `bytes` came: whether that will do.
    pub(super) fn holds(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.window {
            return true;
        }
        let needed = self.bytes_per_second_min as f64 * self.waited.as_secs_f64();
        let enough = self.bytes as f64 >= needed;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        enough
    }
}

/// How often and how long something is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The most tries without getting further.
    pub tries_max: u32,
    /// How long after the first of them no other is begun.
    pub span_max: Duration,
    /// The pause after the first; it doubles with each.
    pub pause_first: Duration,
    /// The longest pause, also when the server asks for a longer one.
    pub pause_max: Duration,
}

/// The tries since it last got further.
#[derive(Debug)]
pub(super) struct Tries {
    patience: Patience,
    made: u32,
    since: Instant,
}

impl Tries {
    pub(super) const fn new(patience: Patience, now: Instant) -> Self {
        Self { patience, made: 0, since: now }
    }

    /// It got further: begins to count anew.
    pub(super) const fn got_further(&mut self, now: Instant) {
        self.made = 0;
        self.since = now;
    }

    /// A try failed: how long to wait before the next, or nothing when there is none. `chance` is from
    /// 0 to 1 and keeps the sites of a vendor from coming back all at once.
    pub(super) fn failed(&mut self, retry_after: Option<Duration>, now: Instant, chance: f64) -> Option<Duration> {
        let Patience { tries_max, span_max, pause_first, pause_max } = self.patience;
        self.made += 1;
        if self.made >= tries_max {
            return None;
        }
        let doubled = pause_first.saturating_mul(2_u32.saturating_pow(self.made - 1)).min(pause_max);
        let pause = doubled.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        let pause = retry_after.map_or(pause, |asked| asked.min(pause_max).max(pause));
        (now.saturating_duration_since(self.since) + pause <= span_max).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_limit_is_kept_over_any_pieces() {
        let start = Instant::now();
        for piece in [1, 700, 16_384, 1_000_000] {
            let mut throttle = Throttle::new(100_000, start);
            let (mut now, mut taken) = (start, 0);
            while taken < 2_000_000 {
                now += throttle.take(piece, now);
                taken += piece;
            }
            let rate = taken as f64 / (now - start).as_secs_f64();
            assert!((99_000.0..=102_000.0).contains(&rate), "pieces of {piece}: {rate} bytes a second");
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut throttle = Throttle::new(1000, start);
        throttle.take(250, start);
        let later = start + 3600 * SECOND;
        assert_eq!(throttle.take(250, later), Duration::ZERO);
        assert_eq!(throttle.take(1000, later), SECOND);
    }

    #[test]
    fn a_drip_is_too_slow_and_a_stop_of_ours_is_not() {
        let mut floor = Floor::new(1024, 10 * SECOND);
        assert!((0..9).all(|_| floor.holds(SECOND, 1)));
        assert!(!floor.holds(SECOND, 1), "ten bytes in ten seconds");
        let mut floor = Floor::new(1024, 10 * SECOND);
        assert!((0..100).all(|_| floor.holds(SECOND, 1024)));
        assert!((0..100).all(|_| floor.holds(Duration::ZERO, 1)), "nobody waited");
    }

    const PATIENCE: Patience = Patience {
        tries_max: 5,
        span_max: Duration::from_secs(60),
        pause_first: SECOND,
        pause_max: Duration::from_secs(8),
    };

    #[test]
    fn tries_are_counted_and_spread() {
        let now = Instant::now();
        let pauses = |chance| {
            let mut tries = Tries::new(PATIENCE, now);
            std::iter::from_fn(|| tries.failed(None, now, chance)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(1.0), [1, 2, 4, 8].map(Duration::from_secs));
        assert_eq!(pauses(0.0), [500, 1000, 2000, 4000].map(Duration::from_millis));
    }

    #[test]
    fn the_server_may_ask_for_more_but_not_for_ever() {
        let now = Instant::now();
        let mut tries = Tries::new(PATIENCE, now);
        assert_eq!(tries.failed(Some(5 * SECOND), now, 1.0), Some(5 * SECOND));
        assert_eq!(tries.failed(Some(86_400 * SECOND), now, 1.0), Some(8 * SECOND));
        assert_eq!(tries.failed(None, now + 58 * SECOND, 1.0), None, "the time is over");
    }

    #[test]
    fn getting_further_begins_anew() {
        let now = Instant::now();
        let mut tries = Tries::new(PATIENCE, now);
        for _ in 0..20 {
            assert_eq!(tries.failed(None, now, 1.0), Some(SECOND));
            tries.got_further(now);
        }
    }
}
