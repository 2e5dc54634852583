//! What came of looking for newer releases of an application.
//!
//! It is noted, so that everybody can see it without asking the vendor: who looks at the status, also where no daemon
//! runs.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::failure::Failure;
use crate::domain::release::ReleaseId;

/// How many newer releases are noted at most: the newest ones.
pub const PENDING_MAX: usize = 100;

/// What came of looking, the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateCheck {
    /// When.
    pub at: DateTime<Utc>,
    /// What was offered the last time that could be found out; nothing where it never could.
    pub offer: Option<Offer>,
    /// Why it could not be found out; absent when it could.
    pub failure: Option<Failure>,
}

/// The releases that were newer than what was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// When they were seen.
    pub at: DateTime<Utc>,
    /// Ascending, at most [`PENDING_MAX`].
    pub pending: Vec<ReleaseId>,
    /// How many of them, from the first on, a run would have installed; the others are held back.
    pub open: usize,
}

impl Offer {
    /// What is newer, ascending, of which the first `open` are not held back.
    pub fn new(at: DateTime<Utc>, pending: Vec<ReleaseId>, open: usize) -> Self {
        let left_out = pending.len().saturating_sub(PENDING_MAX);
        Self { at, pending, open }.without(left_out)
    }

    /// What of it is newer than what is installed meanwhile.
    #[must_use]
    pub fn beyond(self, installed: Option<&ReleaseId>) -> Self {
        let there = |release: &ReleaseId| installed.is_some_and(|installed| release.build <= installed.build);
        let first = self.pending.iter().position(|release| !there(release)).unwrap_or(self.pending.len());
        self.without(first)
    }

    /// The same without the first ones.
    fn without(mut self, first: usize) -> Self {
        self.pending.drain(..first);
        Self { open: self.open.saturating_sub(first), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(build: u64) -> ReleaseId {
        ReleaseId { version: format!("{build}.0").parse().unwrap(), build }
    }

    fn offer(builds: impl IntoIterator<Item = u64>, open: usize) -> Offer {
        Offer::new(DateTime::UNIX_EPOCH, builds.into_iter().map(release).collect(), open)
    }

    #[test]
    fn what_was_installed_meanwhile_is_new_no_more() {
        let builds = |offer: Offer| (offer.pending.iter().map(|release| release.build).collect::<Vec<_>>(), offer.open);
        let beyond = |installed: u64| builds(offer(2..=4, 2).beyond(Some(&release(installed))));
        assert_eq!(beyond(1), (vec![2, 3, 4], 2));
        assert_eq!(beyond(2), (vec![3, 4], 1));
        assert_eq!(beyond(3), (vec![4], 0), "what is held back still is");
        assert_eq!(beyond(9), (vec![], 0));
        assert_eq!(builds(offer(2..=4, 2).beyond(None)), (vec![2, 3, 4], 2), "it is not known what is installed");
    }

    #[test]
    fn of_very_many_the_newest_are_noted() {
        let noted = offer(1..=120, 30);
        assert_eq!((noted.pending.len(), noted.pending[0].build, noted.open), (PENDING_MAX, 21, 10));
    }
}
