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

    fn admits(&self, peer: &Peer, name: &str) -> bool {
        peer.uid == 0 || peer.uid == rustix::process::geteuid().as_raw() || is_member(&self.group, name)
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
                let who = user_name(peer.uid);
                let role = if api.operators.admits(&peer, &who) { Role::Operator } else { Role::Workstation };
                Caller { who, via: "socket", role }
            }
            None => Caller { who: "somebody unknown".to_owned(), via: "socket", role: Role::Workstation },
        };
        Ok(Self(caller))
    }
}

/// The name of a user of this machine; the number where there is none.
pub fn user_name(uid: u32) -> String {
    let passwd = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [name, _, id, ..] if id.parse() == Ok(uid) => Some(name.to_owned()),
        _ => None,
    });
    found.unwrap_or_else(|| uid.to_string())
}

fn is_member(group: &str, name: &str) -> bool {
    let groups = fs_err::read_to_string("/etc/group").unwrap_or_default();
    groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).any(|fields| match fields[..] {
        [of, _, _, members] => of == group && members.split(',').any(|member| member == name),
        _ => false,
    })
}
