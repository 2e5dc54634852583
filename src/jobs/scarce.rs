//! What is scarce for a while and comes back: descriptors, memory, room on a disk, processes. Pure.
//!
//! The way back must not end because of it, nor may a run be left in the middle because its log cannot be written for a
//! moment. So both are done again with growing pauses, for a while, before they count as failed: everything that is undone
//! can be undone twice, and an event that could not be written was not.

use std::time::Duration;

use crate::domain::failure::Scarce;

/// The first and the longest pause.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long is waited in all.
pub(crate) const WAITED_MAX: Duration = Duration::from_secs(10 * 60);

/// How long one undo, or one line of a log, has waited.
#[derive(Debug)]
pub(crate) struct Patience {
    waited: Duration,
    next: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { waited: Duration::ZERO, next: PAUSE.0 }
    }
}

impl Patience {
    /// How long to wait for what is scarce, if anything is; nothing where waiting does not help, or was enough.
    pub(crate) fn pause(&mut self, scarce: Option<Scarce>) -> Option<(Duration, Scarce)> {
        let scarce = scarce?;
        let pause = self.next.min(WAITED_MAX.saturating_sub(self.waited));
        if pause.is_zero() {
            return None;
        }
        self.waited += pause;
        self.next = (self.next * 2).min(PAUSE.1);
        Some((pause, scarce))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::domain::failure::Failure;

    fn failure(source: io::Error) -> Failure {
        #[derive(Debug, thiserror::Error)]
        #[error("copy a file")]
        struct Copy(#[source] io::Error);
        Failure::from_error(&Copy(source))
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut patience = Patience::default();
        let full = failure(io::Error::from_raw_os_error(28));
        let pauses: Vec<Duration> =
            std::iter::from_fn(|| patience.pause(full.scarce)).map(|(pause, _)| pause).collect();
        assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 30].map(Duration::from_secs));
        assert_eq!(pauses.iter().sum::<Duration>(), WAITED_MAX);
    }

    #[test]
    fn only_what_comes_back_is_waited_for() {
        let waits = |error| Patience::default().pause(failure(error).scarce).map(|(_, scarce)| scarce);
        for (number, scarce) in [
            (24, Scarce::Descriptors),
            (23, Scarce::Descriptors),
            (12, Scarce::Memory),
            (11, Scarce::Processes),
            (28, Scarce::Room),
            (122, Scarce::Room),
        ] {
            assert_eq!(waits(io::Error::from_raw_os_error(number)), Some(scarce), "{number}");
            // As `fs_err` wraps it: the number is one level deeper.
            let wrapped = io::Error::other(io::Error::from_raw_os_error(number));
            assert_eq!(waits(wrapped), Some(scarce), "{number}");
        }
        assert_eq!(waits(io::ErrorKind::StorageFull.into()), Some(Scarce::Room));
        for number in [1, 2, 5, 13, 30] {
            assert_eq!(waits(io::Error::from_raw_os_error(number)), None, "{number}");
        }
        assert_eq!(Patience::default().pause(Failure::new("anything else").scarce), None);
    }
}
