//! Who asks: the user at the other end of the Unix socket.
//!
//! Root, the user the daemon runs as, and members of the operators' group are operators. Everybody else
//! may ask what workstations ask.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::api::server::Api;
use crate::control::Caller;
use crate::control::Role;
use crate::files::account::Account;
use crate::sessions::station::Peer;

/// Who is an operator.
#[derive(Debug, Clone)]
pub struct Operators {
    group: Arc<str>,
}

impl Operators {
    /// Root, this process's own user, and the members of `group`.
    pub fn of_group(group: &str) -> Self {
        Self { group: group.into() }
    }

    fn admits(&self, account: &Account) -> bool {
        account.is_root() || account.uid == rustix::process::geteuid().as_raw() || account.is_member(&self.group)
    }
}

/// The caller of a request.
pub struct PeerCaller(pub Caller);

impl FromRequestParts<Api> for PeerCaller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>().map(|info| info.0);
        let caller = match peer {
            Some(peer) => {
                // Where users come from may be slow, and other requests must not wait for it.
                let operators = api.operators.clone();
                let found = tokio::task::spawn_blocking(move || {
                    let account = Account::of_uid(peer.uid);
                    let role = if operators.admits(&account) { Role::Operator } else { Role::Workstation };
                    (account.name, role)
                });
                let (who, role) = found.await.unwrap_or_else(|_| (peer.uid.to_string(), Role::Workstation));
                Caller { who, via: "socket", role }
            }
            None => Caller { who: "somebody unknown".to_owned(), via: "socket", role: Role::Workstation },
        };
        Ok(Self(caller))
    }
}
