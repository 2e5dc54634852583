//! Whether a workstation whose link is lost still counts. Pure.
//!
//! A dropped link says little: the daemon was restarted, the client was killed, the machine lost
//! its power. What is known decides, and where nothing is known the answer is *unknown* for a
//! while and then *open*; only a fact or a long silence makes a session *gone*:
//!
//! | program | client | within the grace | after it | after [`LOST_OPEN_MAX`] |
//! |---|---|---|---|---|
//! | alive | any | open | open | open |
//! | dead | dead | gone | gone | gone |
//! | dead | alive | unknown: it may have started it again | gone | gone |
//! | dead | unseen | unknown | gone | gone |
//! | never told | dead | unknown: it may have started it in its last moment | gone | gone |
//! | never told | alive or unseen | unknown | open | gone |
//! | unseen | any | unknown | open | gone |
//!
//! The other half of the last row is the client's: one that cannot reach the daemon ends its
//! program by itself when the time comes that it was told.

use std::time::Duration;

use crate::exec::process::Life;

/// How long a client has to come back before its silence means something.
pub const LOST_GRACE: Duration = Duration::from_secs(10);
/// The same for those that were known before the daemon was restarted.
pub const RECONNECT_GRACE: Duration = Duration::from_secs(15);
/// How long a session that nobody can look at blocks: a machine without power must not do so for ever.
pub const LOST_OPEN_MAX: Duration = Duration::from_secs(5 * 60);

/// What a lost session counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Logged in.
    Open,
    /// It cannot be known yet.
    Unknown,
    /// Logged out.
    Gone,
}

/// What is known of a session without a link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    /// How long it has been silent.
    pub(super) silent: Duration,
    /// How long it may be before that means something.
    pub(super) grace: Duration,
    /// Whether its client lives; unseen when that process cannot be looked at from here.
    pub(super) client: Life,
    /// Whether its program lives; `None` when none was ever told.
    pub(super) program: Option<Life>,
}

/// What a lost session counts as.
pub(super) fn standing(lost: &Lost) -> Standing {
    let within = lost.silent < lost.grace;
    match (lost.program, lost.client) {
        (Some(Life::Alive), _) => Standing::Open,
        (Some(Life::Dead), Life::Dead) => Standing::Gone,
        _ if within => Standing::Unknown,
        (Some(Life::Dead), _) | (None, Life::Dead) => Standing::Gone,
        _ if lost.silent < LOST_OPEN_MAX => Standing::Open,
        _ => Standing::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_module_holds() {
        use Life::{Alive, Dead, Unknown as Unseen};
        use Standing::{Gone, Open, Unknown};
        let rows = [
            (Some(Alive), [Alive, Dead, Unseen].as_slice(), [Open, Open, Open]),
            (Some(Dead), &[Dead], [Gone, Gone, Gone]),
            (Some(Dead), &[Alive, Unseen], [Unknown, Gone, Gone]),
            (None, &[Dead], [Unknown, Gone, Gone]),
            (None, &[Alive, Unseen], [Unknown, Open, Gone]),
            (Some(Unseen), &[Alive, Dead, Unseen], [Unknown, Open, Gone]),
        ];
        for (program, clients, expected) in rows {
            for client in clients {
                let silences = [Duration::ZERO, LOST_GRACE, LOST_OPEN_MAX];
                for (silent, expected) in silences.into_iter().zip(expected) {
                    let lost = Lost { silent, grace: LOST_GRACE, client: *client, program };
                    assert_eq!(standing(&lost), expected, "{lost:?}");
                }
            }
        }
    }
}
