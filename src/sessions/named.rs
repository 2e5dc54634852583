//! Whose session it is: the user whom the kernel names, and what the client says besides.

use crate::domain::foreign;
use crate::files::account::user_name;
use crate::sessions::station::Peer;

/// What the user is called who comes through something that is no socket of this machine.
const UNKNOWN: &str = "somebody unknown";

/// A user by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The name that holds.
    pub user: String,
    /// What the client says, where that is another name.
    pub said: Option<String>,
}

impl Named {
    /// The peer's user. What a peer says is believed only of one that [vouches](Peer::vouches).
    pub async fn of(peer: Option<Peer>, said: &str) -> Self {
        let said = foreign::name(said);
        match peer {
            Some(peer) if peer.vouches() => Self { user: said, said: None },
            Some(peer) => {
                // The system's own databases may be on another machine.
                let found = tokio::task::spawn_blocking(move || user_name(peer.uid)).await;
                let user = found.unwrap_or_else(|_| peer.uid.to_string());
                Self { said: Some(said).filter(|said| *said != user), user }
            }
            None => Self { user: UNKNOWN.to_owned(), said: Some(said) },
        }
    }
}
