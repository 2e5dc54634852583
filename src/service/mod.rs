//! Starts and stops an application, and makes sure that it did.
//!
//! | who controls it | stopped means | a process that will not end |
//! |---|---|---|
//! | [`systemd`]: the init system, over D-Bus | units and what hangs on them inactive, control groups empty, port closed | systemd kills it, by the unit's own settings |
//! | [`commands`]: commands of the administrator's | the status command says so, port closed | is theirs: an error names it |
//! | [`supervised`]: this daemon | session, offspring and marked processes gone, port closed | TERM, then KILL |
//! | none | always | – |
//!
//! Starting ends when the application is *started*; whether it works is asked by `probe/`.
//! Starting what runs and stopping what is stopped is nothing. Every wait ends at the settings'
//! deadline with an error that names what is left.
//!
//! Invariant: [`Service::stop`] returns `Ok` only when everything in the middle column was seen.
//!
//! Deliberately absent: restarting in one call (a run does things in between), and ending
//! processes that somebody else started.

mod app_log;
mod bus;
pub mod commands;
mod doctor;
pub mod error;
pub(crate) mod files;
mod hold;
mod limits;
mod plan;
mod record;
mod restarts;
mod state;
pub mod supervised;
pub mod systemd;
mod tree;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::config::settings::AppSettings;
use crate::config::settings::ServiceControl;
use crate::domain::failure::Exhibit;
use crate::domain::finding::Finding;
use crate::service::bus::Bus;
use crate::service::commands::Commands;
pub use crate::service::error::ServiceError;
use crate::service::limits::Limits;
use crate::service::supervised::Supervised;
use crate::service::systemd::Systemd;

/// Whether an application runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceStatus {
    /// It runs, or is on its way up or down.
    Running {
        /// Its main process, where that is known.
        pid: Option<u32>,
    },
    /// It does not run, and should not.
    Stopped,
    /// It should run and does not, or something of it is left. [`Service::stop`] makes this `Stopped`.
    Failed(String),
}

/// Controls one application.
#[derive(Debug)]
pub enum Service {
    /// The init system does.
    Systemd(Systemd),
    /// Commands of the administrator's own do.
    Commands(Commands),
    /// This daemon does.
    Supervised(Box<Supervised>),
    /// There is no process.
    None,
}

impl Service {
    /// The control that `app` asks for; `state_dir` is the application's own folder below `data_dir`.
    pub fn new(app: &AppSettings, state_dir: &Path) -> Self {
        let limits = Limits { deadline: app.service.deadline, port: app.service.port };
        match &app.service.control {
            ServiceControl::Systemd { units } => {
                Self::Systemd(Systemd::new(units, Bus::System, PathBuf::from("/"), state_dir, limits))
            }
            ServiceControl::Commands { start, stop, status } => {
                Self::Commands(Commands::new(start, stop, status, &app.install_dir, state_dir, limits))
            }
            ServiceControl::Supervised { run } => {
                Self::Supervised(Box::new(Supervised::new(&app.name, run, &app.install_dir, state_dir, limits)))
            }
            ServiceControl::None => Self::None,
        }
    }

    /// Units of the systemd behind the bus at `address`, whose root directory is seen here as `root`.
    pub fn systemd_at(app: &AppSettings, units: &[String], address: &str, root: &Path) -> Self {
        let limits = Limits { deadline: app.service.deadline, port: app.service.port };
        let state_dir = root.join("var/lib/afterhours/apps").join(app.name.as_str());
        Self::Systemd(Systemd::new(units, Bus::Address(address.to_owned()), root.to_owned(), &state_dir, limits))
    }

    /// Starts it and returns when it is started, with what was seen then; whether it works is another question. Nothing
    /// when it runs. Of units all come back that ran before the stop.
    ///
    /// `env` reaches commands and supervised programs; a unit has its own environment.
    ///
    /// # Errors
    /// It is not started when the deadline passes, or is known to have failed before.
    pub async fn start(&self, env: &BTreeMap<String, String>) -> Result<String, ServiceError> {
        match self {
            Self::Systemd(systemd) => systemd.start().await,
            Self::Commands(commands) => {
                commands.start(env).await.map(|()| "the status command says that it runs".to_owned())
            }
            Self::Supervised(supervised) => supervised.start(env).await.map(|()| "its process runs".to_owned()),
            Self::None => Ok("there is no process to start".to_owned()),
        }
    }

    /// Stops it, verifies that nothing of it is left, and says what was seen. Only verifies when it is stopped.
    ///
    /// # Errors
    /// Something is left when the deadline passes.
    pub async fn stop(&self, env: &BTreeMap<String, String>) -> Result<String, ServiceError> {
        match self {
            Self::Systemd(systemd) => systemd.stop().await,
            Self::Commands(commands) => {
                commands.stop(env).await.map(|()| "the status command says that it is stopped".to_owned())
            }
            Self::Supervised(supervised) => {
                supervised.stop().await.map(|()| "the service is down: no process of it is left".to_owned())
            }
            Self::None => Ok("there is no process to stop".to_owned()),
        }
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// It cannot be found out.
    pub async fn status(&self) -> Result<ServiceStatus, ServiceError> {
        match self {
            Self::Systemd(systemd) => systemd.status().await,
            Self::Commands(commands) => commands.status().await,
            Self::Supervised(supervised) => supervised.status().await,
            Self::None => Ok(ServiceStatus::Stopped),
        }
    }

    /// Whether it is verified down, without touching it: it should not run, nothing of it is left, and its port is closed.
    /// False where nobody knows of a process.
    pub async fn is_down(&self) -> bool {
        match self {
            Self::Systemd(systemd) => systemd.is_down().await.unwrap_or(false),
            Self::Commands(commands) => commands.is_down().await.unwrap_or(false),
            Self::Supervised(supervised) => supervised.is_down().await.unwrap_or(false),
            Self::None => false,
        }
    }

    /// Whether nobody has started it, because that is for us alone to do and no daemon has run yet.
    pub async fn waits_for_us(&self) -> bool {
        matches!(self, Self::Supervised(_)) && matches!(self.status().await, Ok(ServiceStatus::Stopped))
    }

    /// What there is to see of it at this moment, for whoever looks for the cause of a failure: its state, and what it
    /// wrote last.
    pub async fn exhibits(&self) -> Vec<Exhibit> {
        match self {
            Self::Systemd(systemd) => systemd.exhibits().await,
            Self::Supervised(supervised) => supervised.exhibits().await,
            Self::Commands(commands) => commands.exhibits().await,
            Self::None => Vec::new(),
        }
    }

    /// What it wrote last, in one line, where its output is known: of one that this daemon supervises.
    pub async fn last_words(&self) -> Option<String> {
        match self {
            Self::Supervised(supervised) => supervised.last_words().await,
            Self::Systemd(_) | Self::Commands(_) | Self::None => None,
        }
    }

    /// Looks whether it could be controlled, without touching it.
    pub async fn check(&self) -> Vec<Finding> {
        match self {
            Self::Systemd(systemd) => systemd.check().await,
            Self::Commands(commands) => commands.check().await,
            Self::Supervised(supervised) => supervised.check().await,
            Self::None => vec![Finding::good("service", "no process has to be stopped")],
        }
    }

    /// While the file `hold` exists, nobody but [`Service::start`] brings the application up, a reboot included.
    ///
    /// Put in place before the file is written. Nothing for commands: whoever starts those at boot is not known here.
    ///
    /// # Errors
    /// The hold cannot be put in place.
    pub async fn install_hold(&self, hold: &Path) -> Result<(), ServiceError> {
        match self {
            Self::Systemd(systemd) => systemd.install_hold(hold).await,
            Self::Supervised(supervised) => supervised.set_hold(Some(hold)).await,
            Self::Commands(_) | Self::None => Ok(()),
        }
    }

    /// Takes away what [`Service::install_hold`] put in place; nothing when there is nothing.
    ///
    /// # Errors
    /// It cannot be taken away.
    pub async fn remove_hold(&self) -> Result<(), ServiceError> {
        match self {
            Self::Systemd(systemd) => systemd.remove_hold().await,
            Self::Supervised(supervised) => supervised.set_hold(None).await,
            Self::Commands(_) | Self::None => Ok(()),
        }
    }

    /// Brings a supervised application back whenever it ends by itself, until `shutdown`. The application outlives
    /// this loop and the daemon. For all others it only waits.
    pub async fn supervise(&self, shutdown: CancellationToken) {
        match self {
            Self::Supervised(supervised) => supervised.supervise(shutdown).await,
            Self::Systemd(_) | Self::Commands(_) | Self::None => shutdown.cancelled().await,
        }
    }
}
