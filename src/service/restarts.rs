//! When an application that ended by itself is started again.

use std::time::Duration;

use tokio::time::Instant;

use crate::service::tree::Identity;

/// The longest pause before a restart.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(60);
/// One that ran so long did not fail at its start; the pauses begin anew.
const RAN_WELL: Duration = Duration::from_secs(60);

/// When the next restart is due: at once at first, then after ever longer pauses.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// Since it last ran well.
    count: u32,
    next_at: Option<Instant>,
    main: Option<(Identity, Instant)>,
}

impl Restarts {
    /// It runs.
    pub(crate) fn runs(&mut self, main: Identity, now: Instant) {
        match self.main {
            Some((known, since)) if known == main => {
                if now - since >= RAN_WELL {
                    self.count = 0;
                }
            }
            _ => self.main = Some((main, now)),
        }
        self.next_at = None;
    }

    /// It should not run.
    pub(crate) fn rests(&mut self) {
        *self = Self::default();
    }

    /// It is gone: whether it is started now.
    pub(crate) fn due(&mut self, now: Instant) -> bool {
        // The daemon itself has just come up: the machine was off, and nobody has to be spared.
        let first = self.main.is_none() && self.count == 0;
        let pause = if first { Duration::ZERO } else { pause(self.count) };
        let due = *self.next_at.get_or_insert(now + pause) <= now;
        if due {
            self.count += 1;
            self.next_at = None;
        }
        due
    }
}

/// The pause before a restart: 1 s, 2 s, 4 s, … 1 min.
fn pause(restarts: u32) -> Duration {
    Duration::from_secs(1 << restarts.min(6)).min(RESTART_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<_> = (0..8).map(|count| pause(count).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(u32::MAX), RESTART_PAUSE_MAX);
    }

    #[test]
    fn one_that_ran_well_is_restarted_soon_again() {
        let begin = Instant::now();
        let at = |secs| begin + Duration::from_secs(secs);
        let main = |pid| Identity { pid, start_time: 1 };
        let mut restarts = Restarts::default();
        assert!(restarts.due(at(0)), "after a reboot it is started at once");
        restarts.runs(main(1), at(1));
        assert!(!restarts.due(at(2)));
        assert!(!restarts.due(at(3)));
        assert!(restarts.due(at(4)), "it had failed once already: two seconds");
        restarts.runs(main(2), at(5));
        restarts.runs(main(2), at(66));
        assert!(!restarts.due(at(70)));
        assert!(restarts.due(at(71)), "it ran for a minute: one second");
    }
}
