//! What can go wrong between us and an application's processes.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::domain::finding::Finding;
use crate::domain::span::Span;
use crate::exec::ExecError;
use crate::exec::permit::Refusal;

/// An application could not be controlled.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The bus of the init system does not answer.
    #[error("reach systemd over its bus")]
    Bus(#[source] zbus::Error),
    /// The init system refused for want of rights.
    #[error("{call} {unit}: not permitted")]
    Denied {
        /// What was asked.
        call: &'static str,
        /// Of which unit.
        unit: String,
        /// Its answer.
        #[source]
        source: zbus::Error,
    },
    /// The init system answered with an error.
    #[error("{call} {unit}")]
    Systemd {
        /// What was asked.
        call: &'static str,
        /// Of which unit.
        unit: String,
        /// Its answer.
        #[source]
        source: zbus::Error,
    },
    /// There is no such unit.
    #[error("find the unit {unit}")]
    NoUnit {
        /// The unit.
        unit: String,
    },
    /// The init system tried and could not.
    #[error("{verb} {unit}: systemd says \"{result}\"")]
    Job {
        /// Start or stop.
        verb: &'static str,
        /// The unit.
        unit: String,
        /// The result of the job or of the service.
        result: String,
    },
    /// The init system left the unit alone.
    #[error("start {unit}: systemd skipped it because of a condition in its unit file")]
    Skipped {
        /// The unit.
        unit: String,
    },
    /// It was started and ended at once.
    #[error("start {what}: it ended at once{}", .last.as_deref().map(|last| format!(": {last}")).unwrap_or_default())]
    EndedAtOnce {
        /// The unit or program.
        what: String,
        /// The last thing that is known of it.
        last: Option<String>,
    },
    /// The deadline passed.
    #[error("{what} within {deadline}: {left}")]
    Overdue {
        /// What was being done.
        what: String,
        /// The limit.
        deadline: Span,
        /// What was seen last.
        left: String,
    },
    /// A stop would take something along that must go on.
    #[error("stop {unit}: systemd would stop {along} along")]
    Forbidden {
        /// The unit that should be stopped.
        unit: String,
        /// The unit that must not be.
        along: String,
    },
    /// More units hang together than can be looked after.
    #[error("look at what hangs together with {unit}: more than {max} units")]
    TooMany {
        /// Where it began.
        unit: String,
        /// The bound.
        max: usize,
    },
    /// The record of stopped units says something that nobody wrote.
    #[error("understand {}", .path.display())]
    Units {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// The application is stopped but its port still accepts.
    #[error("verify that it is stopped: {port} still accepts connections")]
    PortOpen {
        /// The port of the settings.
        port: SocketAddr,
    },
    /// A command of the administrator's failed.
    #[error("run the {which} command")]
    Command {
        /// Start, stop or status.
        which: &'static str,
        /// How.
        #[source]
        source: ExecError,
    },
    /// The status command answered something without a meaning.
    #[error("learn the status: {program} ended with {status}")]
    UnknownStatus {
        /// The program.
        program: String,
        /// How it ended, in words.
        status: String,
    },
    /// A program does not exist or is not executable.
    #[error("find the program {program}")]
    NoProgram {
        /// As it stands in the settings.
        program: String,
    },
    /// A program may not be run, because of the user it would run as.
    #[error("run {program}")]
    Refused {
        /// As it stands in the settings.
        program: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// A program could not be run.
    #[error("run {program}")]
    Spawn {
        /// As it stands in the settings.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of ours cannot be read or written.
    #[error("{call} {}", .path.display())]
    File {
        /// Read, write, …
        call: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of ours says something that nobody wrote.
    #[error("understand {}", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// A path cannot stand in a unit file.
    #[error("write {} into a unit file", .path.display())]
    BadHold {
        /// The path.
        path: PathBuf,
    },
}

impl ServiceError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Bus(_) => Some("is systemd running here, and is dbus installed? try: busctl status".to_owned()),
            Self::Denied { .. } => Some(
                "run the daemon as root, or give its user the right \"org.freedesktop.systemd1.manage-units\" with polkit"
                    .to_owned(),
            ),
            Self::NoUnit { unit } => {
                Some(format!("check `service.systemd` of the application: systemctl list-unit-files '{unit}'"))
            }
            Self::Job { unit, .. } | Self::EndedAtOnce { what: unit, .. } if unit.contains(".service") => {
                Some(format!("see why: journalctl -u {unit} -n 50"))
            }
            Self::Skipped { unit } => Some(format!("see which condition: systemctl status {unit}")),
            Self::Overdue { .. } => Some("raise `service.deadline`, or find out what keeps it".to_owned()),
            Self::PortOpen { port } => Some(format!("see who listens: ss -ltnp 'sport = :{}'", port.port())),
            Self::UnknownStatus { .. } => {
                Some("the status command must end with 0 when the application runs and with 3 when it does not".to_owned())
            }
            Self::NoProgram { program } => Some(format!(
                "is {program} installed and executable? give its absolute path, or one relative to install_dir"
            )),
            Self::State { path, .. } => {
                Some(format!("stop the application by hand, then delete {}", path.display()))
            }
            Self::Forbidden { unit, along } => Some(format!(
                "see which unit says so (Requires, BindsTo or PartOf): systemctl list-dependencies --reverse {unit}; it must \
                 not name {along}"
            )),
            Self::TooMany { .. } => {
                Some("name the application's own units in `service.systemd` instead of one above them".to_owned())
            }
            Self::Units { path, .. } => Some(format!(
                "see which of the application's units should run, then delete {} and start them by hand",
                path.display()
            )),
            Self::BadHold { .. } => Some("use a data_dir without control characters and backslashes".to_owned()),
            Self::Refused { source, .. } => Some(source.remedy()),
            Self::Systemd { .. }
            | Self::Job { .. }
            | Self::EndedAtOnce { .. }
            | Self::Command { .. }
            | Self::Spawn { .. }
            | Self::File { .. } => None,
        }
    }

    /// Whether the program that was to be started is at fault: it did not come up. False where nobody could ask it to, and
    /// where what it depends on or the memory is missing.
    pub(crate) fn is_of_program(&self) -> bool {
        let of_others = ["dependency", "canceled", "resources", "oom-kill", "exec-condition"];
        match self {
            Self::Job { verb: "start", result, .. } => !of_others.contains(&result.as_str()),
            Self::EndedAtOnce { last, .. } => last.as_deref().is_none_or(|last| !of_others.contains(&last)),
            Self::Overdue { .. } => true,
            Self::Command { which: "start", source } => {
                matches!(source, ExecError::Failed { .. } | ExecError::Overdue { .. })
            }
            _ => false,
        }
    }

    /// The error as the result of a check that must not fail.
    pub(crate) fn finding(&self, check: &str) -> Finding {
        let cause = self.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let remedy = self.hint().unwrap_or_else(|| "remove the cause, then check again".to_owned());
        Finding::fatal(check, format!("failed to {self}{cause}"), remedy)
    }
}
