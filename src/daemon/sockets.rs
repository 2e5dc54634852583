//! The two sockets: the operators' and the workstations'.
//!
//! The operators' is for root and the operators' group, and serves everything. The workstations' is open to everybody on
//! the machine, and serves what workstations and the login gates of proxies ask. Each has places of its own, so that no
//! flood at the open one keeps an operator out.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::lchown;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::door::Door;
use crate::api::door::Patience;
use crate::api::door::Shares;
use crate::api::server::not_here;
use crate::config::settings::DaemonSettings;
use crate::daemon::House;
use crate::daemon::api;
use crate::daemon::open_routes;
use crate::daemon::routes;
use crate::files::account::find_group;
use crate::files::dirs::make_public;
use crate::files::trusted::required;

/// Both, open.
pub(super) struct Sockets {
    operators: UnixListener,
    workstations: UnixListener,
}

impl Sockets {
    /// Listens at both.
    pub(super) fn open(daemon: &DaemonSettings) -> Result<Self> {
        let operators = listen(&daemon.socket)?;
        let mode = match find_group(&daemon.operator_group) {
            Some(group) => match lchown(&daemon.socket, None, Some(group)) {
                Ok(()) => 0o660,
                Err(error) => {
                    let group = &daemon.operator_group;
                    tracing::warn!(%error, group, "the socket cannot be given to the group: it is its owner's alone");
                    0o600
                }
            },
            None => 0o600,
        };
        set_mode(&daemon.socket, mode)?;
        let workstations = listen(&daemon.workstation_socket)?;
        set_mode(&daemon.workstation_socket, 0o666)?;
        Ok(Self { operators, workstations })
    }

    /// Serves both until `stop`; who waits for what is returned waits until everybody has left.
    pub(super) fn serve(self, house: &House, descriptors: usize, stop: &CancellationToken) -> TaskTracker {
        let per_user = house.settings.apps.values().map(|app| app.sessions_per_user_max as usize).sum();
        let Shares { operators, workstations } = Shares::of(descriptors, per_user);
        // One for both: whoever follows a run takes a place of the same few.
        let api = api(house, stop);
        let elsewhere = not_here(api.clone(), &house.settings.daemon.socket);
        let open_routes = open_routes(house, stop).fallback_service(elsewhere);
        let patience = Patience::default();
        let doors = TaskTracker::new();
        let door = Door::new("operators", self.operators, routes(api, house, stop), operators, patience);
        doors.spawn(door.serve(stop.clone()));
        let door = Door::new("workstations", self.workstations, open_routes, workstations, patience);
        doors.spawn(door.serve(stop.clone()));
        doors.close();
        doors
    }
}

/// Takes both away; what is left of them harms nobody.
pub(super) fn remove(daemon: &DaemonSettings) {
    for socket in [&daemon.socket, &daemon.workstation_socket] {
        let _ = fs_err::remove_file(socket);
    }
}

fn listen(socket: &Path) -> Result<UnixListener> {
    if let Some(dir) = socket.parent() {
        make_public(dir).context("make the directory of the socket")?;
        // Whoever can write there can put a link in the socket's place.
        required(dir).with_context(|| format!("listen in {}", dir.display()))?;
    }
    // We hold the lock of the data directory: whoever listened here before is gone.
    match fs_err::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    UnixListener::bind(socket).with_context(|| format!("listen at {}", socket.display()))
}

fn set_mode(socket: &Path, mode: u32) -> Result<()> {
    Ok(fs_err::set_permissions(socket, PermissionsExt::from_mode(mode))?)
}
