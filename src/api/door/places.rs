//! How many may be here at once: in all, and of one user. Pure counting.
//!
//! Nobody has more than is left for the others: one user may take half of what there is, two a third each, and so on, so
//! that there is always a place for somebody who comes for the first time. Some places are root's and the daemon's own
//! user's alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// In all.
    pub all: usize,
    /// Of one user who is neither root nor the daemon's own.
    pub each: usize,
    /// How many of all are for root and the daemon's own user.
    pub reserve: usize,
}

/// Places that are taken and given back.
#[derive(Debug)]
pub struct Places {
    caps: Caps,
    /// The user this process runs as.
    own: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: HashMap<u32, usize>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    /// All of them free.
    pub fn new(caps: Caps) -> Arc<Self> {
        Arc::new(Self { caps, own: rustix::process::geteuid().as_raw(), taken: Mutex::default() })
    }

    /// Takes one for a user; nothing where there is none.
    pub fn take(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut taken = self.lock();
        let has = taken.of.get(&uid).copied().unwrap_or_default();
        if uid == 0 || uid == self.own {
            if taken.all >= self.caps.all {
                return None;
            }
        } else {
            let left = self.caps.all.saturating_sub(self.caps.reserve).saturating_sub(taken.all);
            if has >= self.caps.each.min(left) {
                return None;
            }
        }
        taken.all += 1;
        taken.of.insert(uid, has + 1);
        drop(taken);
        Some(Place { places: Arc::clone(self), uid })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(has) = taken.of.get_mut(&self.uid) {
            *has -= 1;
            if *has == 0 {
                taken.of.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(places: &Arc<Places>, uid: u32) -> Vec<Place> {
        std::iter::from_fn(|| places.take(uid)).collect()
    }

    #[test]
    fn a_newcomer_always_finds_a_place() {
        let places = Places::new(Caps { all: 100, each: 1000, reserve: 10 });
        let first = take_all(&places, 1001);
        assert_eq!(first.len(), 45, "half of what is not in reserve");
        let second = take_all(&places, 1002);
        assert_eq!(second.len(), 23);
        for uid in 1003..1006 {
            assert!(places.take(uid).is_some());
        }
        drop(first);
        assert_eq!(take_all(&places, 1003).len(), 34);
    }

    #[test]
    fn one_user_has_a_maximum_and_root_has_the_reserve() {
        let places = Places::new(Caps { all: 100, each: 7, reserve: 10 });
        let held: Vec<_> = (1001..1030).flat_map(|uid| take_all(&places, uid)).collect();
        assert_eq!(held.len(), 90, "all but the reserve");
        assert!(places.take(1001).is_none());
        let of_root = take_all(&places, 0);
        assert_eq!(of_root.len(), 10);
        drop(held);
        assert_eq!(take_all(&places, 1001).len(), 7);
    }
}
