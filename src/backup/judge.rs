//! The rules, without input or output: how old is too old, how small is too small.

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use crate::backup::error::BackupError;
use crate::domain::evidence::Evidence;
use crate::domain::span::Span;

/// How far the clock of the machine that made a backup may be ahead of ours.
pub const CLOCK_SKEW_MAX: Span = Span::mins(5);
/// How many earlier backups the size of the newest is compared with.
pub(super) const EARLIER_MAX: usize = 5;

/// What the date of a backup means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is recent enough.
    Fresh {
        /// Its age.
        age: Span,
    },
    /// It is not.
    TooOld {
        /// Its age.
        age: Span,
    },
    /// It is dated later than any clock error explains.
    FromTheFuture {
        /// How far.
        by: Span,
    },
}

/// Judges the date of a backup. Exactly `max_age` old is fresh.
pub fn judge(evidence: &Evidence, max_age: Span, now: DateTime<Utc>) -> Verdict {
    let age = now - evidence.made_at;
    if -age > CLOCK_SKEW_MAX.delta() {
        Verdict::FromTheFuture { by: whole_secs(-age) }
    } else if age > max_age.delta() {
        Verdict::TooOld { age: whole_secs(age) }
    } else {
        Verdict::Fresh { age: whole_secs(age) }
    }
}

/// Nobody wants to read the nanoseconds of a backup's age.
fn whole_secs(delta: TimeDelta) -> Span {
    Span::secs(delta.num_seconds().try_into().unwrap_or(0))
}

/// Judges the size of a backup against a minimum and the ones before it, newest first.
///
/// # Errors
/// It is too small, or shrank too much.
pub(super) fn judge_size(
    backup: &str,
    size_bytes: u64,
    min_bytes: u64,
    earlier: &[u64],
    max_shrink_percent: u32,
) -> Result<(), BackupError> {
    // An empty file is no backup, whatever the configuration says.
    let min_bytes = min_bytes.max(1);
    if size_bytes < min_bytes {
        return Err(BackupError::TooSmall { backup: backup.to_owned(), size_bytes, min_bytes });
    }
    let Some(median_bytes) = median(&earlier[..earlier.len().min(EARLIER_MAX)]) else { return Ok(()) };
    let lost = u128::from(median_bytes.saturating_sub(size_bytes));
    if lost * 100 > u128::from(median_bytes) * u128::from(max_shrink_percent) {
        let percent = u32::try_from(lost * 100 / u128::from(median_bytes)).unwrap_or(100);
        return Err(BackupError::Shrunk { backup: backup.to_owned(), size_bytes, median_bytes, percent });
    }
    Ok(())
}

/// The middle one; of an even number the smaller of the two, which accuses less.
fn median(sizes: &[u64]) -> Option<u64> {
    let mut sorted = sizes.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(made_at: &str) -> Evidence {
        Evidence { source: "dump".to_owned(), made_at: made_at.parse().unwrap(), size_bytes: None, tested: Vec::new() }
    }

    #[rstest]
    #[case("2026-11-21T02:30:00Z", Verdict::Fresh { age: Span::ZERO })]
    #[case("2026-11-19T02:30:00Z", Verdict::Fresh { age: Span::days(2) })]
    #[case("2026-11-19T02:29:59.999Z", Verdict::TooOld { age: Span::days(2) })]
    #[case("2026-11-18T02:29:59Z", Verdict::TooOld { age: Span::secs(3 * 86_400 + 1) })]
    #[case("2026-11-21T02:35:00Z", Verdict::Fresh { age: Span::ZERO })]
    #[case("2026-11-21T02:35:01Z", Verdict::FromTheFuture { by: Span::secs(301) })]
    fn a_date_is_judged(#[case] made_at: &str, #[case] verdict: Verdict) {
        let now = "2026-11-21T02:30:00Z".parse().unwrap();
        assert_eq!(judge(&at(made_at), Span::days(2), now), verdict);
    }

    #[rstest]
    #[case(50, &[], true)]
    #[case(50, &[100], true)]
    #[case(49, &[100], false)]
    #[case(50, &[100, 90, 110, 1, 100], true)]
    #[case(49, &[100, 90, 110, 1, 100], false)]
    #[case(10, &[20, 20, 20, 20, 20, 1000, 1000, 1000, 1000, 1000, 1000], true)]
    #[case(10, &[20, 1000], true)]
    #[case(9, &[0, 0, 0], false)] // below the minimum of 10
    #[case(10, &[0, 0, 0], true)]
    #[case(u64::MAX, &[u64::MAX], true)]
    fn a_size_is_judged(#[case] size: u64, #[case] earlier: &[u64], #[case] good: bool) {
        assert_eq!(judge_size("dump", size, 10, earlier, 50).is_ok(), good);
    }

    #[test]
    fn nothing_is_no_backup_even_without_a_minimum() {
        assert!(matches!(judge_size("dump", 0, 0, &[], 100), Err(BackupError::TooSmall { min_bytes: 1, .. })));
    }

    #[test]
    fn a_shrunk_backup_is_told_in_percent() {
        let error = judge_size("dump", 25, 1, &[100, 100], 50).unwrap_err();
        assert_eq!(error.to_string(), "accept dump: it has 25 bytes, 75 % less than the 100 bytes of the ones before");
    }
}
