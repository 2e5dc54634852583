//! Lateness in figures.

use chrono::TimeDelta;

/// How late a number of starts were.
#[derive(Debug, Default)]
pub(crate) struct Lateness {
    /// How many were early.
    pub(crate) early: usize,
    /// Half of them were no later than this.
    pub(crate) p50_ms: f64,
    /// All but one in a hundred were no later than this.
    pub(crate) p99_ms: f64,
    /// The latest.
    pub(crate) max_ms: f64,
}

impl Lateness {
    /// From what was measured, start by start.
    pub(crate) fn of(mut late: Vec<TimeDelta>) -> Self {
        late.sort_unstable();
        let ms = |late: &TimeDelta| late.num_nanoseconds().map_or(f64::NAN, |ns| (ns as f64 / 1e6 * 1e3).round() / 1e3);
        // The smallest value that so many percent do not exceed.
        let percentile =
            |percent: usize| late.get((late.len() * percent).div_ceil(100).saturating_sub(1)).map_or(f64::NAN, ms);
        Self {
            early: late.iter().filter(|late| **late < TimeDelta::zero()).count(),
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            max_ms: percentile(100),
        }
    }
}
