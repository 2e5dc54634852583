//! How many sessions one user may have, and how often one may register. Pure: what is, and the time, are arguments.
//!
//! A user is a uid. It has a maximum at each application; in all it has no more than is left for everybody else; and it
//! registers from a bucket that holds twice the maximum and fills as fast as people really start programs.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::name::AppName;

/// How many sessions one user may have at one application where nothing else is configured.
pub const SESSIONS_PER_USER_MAX: u32 = 16;
/// How long an empty bucket takes to hold the maximum.
const FILLS_IN: Duration = Duration::from_secs(4);
/// How many buckets are kept before the full ones are thrown away: those say nothing.
const BUCKETS_MAX: usize = 1024;

/// What the maxima are, and who registered lately. Nobody is a user, too: one for all whom the kernel does not name.
#[derive(Debug, Default)]
pub(super) struct Quota {
    per_user_max: BTreeMap<AppName, u32>,
    buckets: HashMap<Option<u32>, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Quota {
    /// From now on one user may have so many sessions at `app`.
    pub(super) fn allow(&mut self, app: &AppName, per_user_max: u32) {
        self.per_user_max.insert(app.clone(), per_user_max);
    }

    /// How many sessions one user may have at `app`.
    pub(super) fn per_user_max(&self, app: &AppName) -> usize {
        self.per_user_max.get(app).copied().unwrap_or(SESSIONS_PER_USER_MAX) as usize
    }

    /// Whether this user may register once more now; it counts as done if so.
    pub(super) fn knock(&mut self, uid: Option<u32>, now: Instant) -> bool {
        let most = self.per_user_max.values().copied().max().unwrap_or_default().max(SESSIONS_PER_USER_MAX);
        let (burst, a_second) = (2.0 * f64::from(most), f64::from(most) / FILLS_IN.as_secs_f64());
        let refill = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            since.mul_add(a_second, bucket.left).min(burst)
        };
        if self.buckets.len() >= BUCKETS_MAX {
            self.buckets.retain(|_, bucket| refill(bucket) < burst);
        }
        let bucket = self.buckets.entry(uid).or_insert(Bucket { left: burst, at: now });
        bucket.left = refill(bucket);
        bucket.at = now;
        let may = bucket.left >= 1.0;
        if may {
            bucket.left -= 1.0;
        }
        may
    }
}

/// Whether somebody who has `own` sessions of `all` may have one more of the `max` there can be.
pub(super) fn has_share(own: usize, all: usize, max: usize) -> bool {
    own < max.saturating_sub(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppName {
        "orders".parse().unwrap()
    }

    #[test]
    fn a_flood_is_slowed_down_and_nobody_elses_matter() {
        let (mut quota, now) = (Quota::default(), Instant::now());
        let let_in = |quota: &mut Quota, uid, now| (0..1000).filter(|_| quota.knock(Some(uid), now)).count();
        assert_eq!(let_in(&mut quota, 1, now), 32);
        assert_eq!(let_in(&mut quota, 2, now), 32, "another user");
        assert_eq!(let_in(&mut quota, 1, now + Duration::from_secs(1)), 4);
        assert_eq!(let_in(&mut quota, 1, now + Duration::from_secs(3600)), 32);
    }

    #[test]
    fn a_terminal_server_has_a_larger_maximum_and_a_larger_bucket() {
        let (mut quota, now) = (Quota::default(), Instant::now());
        assert_eq!(quota.per_user_max(&app()), 16);
        quota.allow(&app(), 500);
        assert_eq!(quota.per_user_max(&app()), 500);
        assert_eq!((0..5000).filter(|_| quota.knock(None, now)).count(), 1000);
    }

    #[test]
    fn full_buckets_are_thrown_away() {
        let (mut quota, now) = (Quota::default(), Instant::now());
        for uid in 0..10_000 {
            assert!(quota.knock(Some(uid), now + Duration::from_secs(u64::from(uid))));
        }
        assert!(quota.buckets.len() <= BUCKETS_MAX, "{}", quota.buckets.len());
    }

    #[test]
    fn nobody_has_more_than_is_left() {
        assert!(has_share(0, 9_999, 10_000));
        assert!(!has_share(0, 10_000, 10_000));
        assert!(has_share(4_999, 4_999, 10_000));
        assert!(!has_share(5_000, 5_000, 10_000));
    }
}
