//! Why a program could not be run under the gate, and what helps.

use std::error::Error;
use std::io;

use thiserror::Error;

/// A program could not be run under the gate.
#[derive(Debug, Error)]
pub enum WorkstationError {
    /// The connection could not be set up.
    #[error("set up the connection to the daemon")]
    Prepare {
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The daemon cannot be reached.
    #[error("reach the daemon")]
    Unreachable {
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The daemon does not accept the request.
    #[error("be accepted by the daemon: it failed to {message}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// What the daemon says.
        message: String,
    },
    /// The program cannot be started.
    #[error("start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program's end could not be waited for.
    #[error("wait for {program}")]
    Wait {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl WorkstationError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } if self.is_permission() => Some(
                "that socket is the operators'; name the workstations' with --socket, as in \
                 --socket /run/afterhours/workstations.sock"
                    .to_owned(),
            ),
            Self::Unreachable { .. } => {
                Some("the program is not started without the daemon; ask your administrator to start it".to_owned())
            }
            Self::Rejected { status: 403, .. } => {
                Some("ask your administrator: `users` and `group` of the application say who works with it".to_owned())
            }
            Self::Rejected { status: 404, .. } => Some("check the name of the application".to_owned()),
            Self::Rejected { status: 429, .. } => {
                Some("close one of yours, or ask your administrator for a larger sessions_per_user_max".to_owned())
            }
            Self::Start { .. } => Some("check the program after --".to_owned()),
            Self::Prepare { .. } | Self::Rejected { .. } | Self::Wait { .. } => None,
        }
    }

    /// Whether the socket is there, and not for this user.
    pub fn is_permission(&self) -> bool {
        let first: Option<&(dyn Error + 'static)> = self.source();
        std::iter::successors(first, |cause| (*cause).source())
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    }
}
