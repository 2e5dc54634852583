//! What else closes and opens with an application's gate.
//!
//! The gate itself stands in the store, and the workstations' hub is told by the engine. These
//! drivers carry it to places that know neither: a file that a login program looks at, or
//! commands of the administrator's own. A reverse proxy asks for itself, over HTTP.
//!
//! Both ways can be done twice. Closing stops at the first driver that fails, since a gate that is
//! half closed is not closed; opening tries all of them and reports every failure.

mod file;

use std::io;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::SecondsFormat;
use chrono::Utc;
use thiserror::Error;

use crate::config::settings::AppSettings;
use crate::config::settings::GateSettings;
use crate::config::settings::SessionsSettings;
use crate::domain::command::Command;
use crate::domain::finding::Finding;
use crate::domain::name::AppName;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::ExecError;
use crate::exec::missing_program;

/// A gate could not be moved.
#[derive(Debug, Error)]
pub enum GateError {
    /// The file could not be put in place.
    #[error("close the gate with the file {}", .path.display())]
    CloseFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file could not be removed.
    #[error("open the gate by removing the file {}", .path.display())]
    OpenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command failed.
    #[error("{verb} the gate with the command {program}")]
    Command {
        /// Close or open.
        verb: &'static str,
        /// The command.
        program: String,
        /// Why.
        #[source]
        source: ExecError,
    },
    /// Several drivers failed to open.
    #[error("open the gate: {} drivers failed, also to {}", .others.len() + 1, .others.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several {
        /// The first one.
        #[source]
        first: Box<GateError>,
        /// The others.
        others: Vec<GateError>,
    },
}

impl GateError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::CloseFile { path, .. } => {
                Some(format!("the daemon must be allowed to write in {}", path.parent().unwrap_or(path).display()))
            }
            Self::OpenFile { path, .. } => Some(format!("remove {} by hand", path.display())),
            Self::Command { program, .. } => {
                Some(format!("run {program} by hand as the user whom `afterhours doctor` names for it"))
            }
            Self::Several { first, .. } => first.hint(),
        }
    }
}

/// The drivers of one application's gate.
#[derive(Debug)]
pub struct GateDrivers {
    app: AppName,
    drivers: Vec<Driver>,
    /// Whether programs at workstations ask for it.
    asked: bool,
}

/// One place that the gate is carried to.
#[derive(Debug)]
enum Driver {
    /// A file that exists while the gate is closed.
    File(PathBuf),
    /// Commands of the administrator's own.
    Commands { close: Command, open: Command, deadline: Span },
}

impl GateDrivers {
    /// The drivers of an application, as configured.
    pub fn new(app: &AppSettings) -> Self {
        let driver = |settings: &GateSettings| match settings.clone() {
            GateSettings::File(path) => Driver::File(path),
            GateSettings::Commands { close, open, deadline } => Driver::Commands { close, open, deadline },
        };
        let asked = app.sessions.contains(&SessionsSettings::Workstations);
        Self { app: app.name.clone(), drivers: app.gate.iter().map(driver).collect(), asked }
    }

    /// Whether there is nothing that closes and opens with the gate.
    pub fn is_empty(&self) -> bool {
        self.drivers.is_empty()
    }

    /// What to say where the gate is connected to nothing that we know of: a web server may ask for it all the same.
    pub fn unkept(&self) -> Option<String> {
        (self.drivers.is_empty() && !self.asked).then(|| {
            format!(
                "nothing keeps the users of {} out while its gate is closed, unless a web server asks for it",
                self.app
            )
        })
    }

    /// Closes the gate everywhere.
    ///
    /// # Errors
    /// A driver failed; those before it are closed.
    pub async fn close(&self, message: &str, until: Option<DateTime<Utc>>) -> Result<(), GateError> {
        for driver in &self.drivers {
            driver.close(&self.app, message, until).await?;
        }
        Ok(())
    }

    /// Opens the gate everywhere.
    ///
    /// # Errors
    /// Drivers failed; the others are open.
    pub async fn open(&self) -> Result<(), GateError> {
        let mut errors = Vec::new();
        for driver in &self.drivers {
            errors.extend(driver.open(&self.app).await.err());
        }
        if errors.is_empty() {
            return Ok(());
        }
        let first = errors.remove(0);
        Err(if errors.is_empty() { first } else { GateError::Several { first: Box::new(first), others: errors } })
    }

    /// Whether the gate can be moved; moves nothing.
    pub async fn check(&self) -> Vec<Finding> {
        let remedy = || format!("connect it: [app.{}] gate = [{{ file = … }}] or {{ close = …, open = … }}", self.app);
        let mut findings: Vec<Finding> =
            self.unkept().map(|unkept| Finding::warning("gate", unkept, remedy())).into_iter().collect();
        for driver in &self.drivers {
            findings.push(driver.check().await);
        }
        findings
    }
}

impl Driver {
    async fn close(&self, app: &AppName, message: &str, until: Option<DateTime<Utc>>) -> Result<(), GateError> {
        match self {
            Self::File(path) => {
                let text = file::content(message, until);
                let to = path.clone();
                blocking(move || file::put(&to, &text))
                    .await
                    .map_err(|source| GateError::CloseFile { path: path.clone(), source })
            }
            Self::Commands { close, deadline, .. } => {
                let until = until.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true)).unwrap_or_default();
                let exec = Exec::of(close, *deadline)
                    .env("AFTERHOURS_APP", app.as_str())
                    .env("AFTERHOURS_MESSAGE", message)
                    .env("AFTERHOURS_UNTIL", until);
                command("close", close, exec).await
            }
        }
    }

    async fn open(&self, app: &AppName) -> Result<(), GateError> {
        match self {
            Self::File(path) => {
                let at = path.clone();
                blocking(move || file::remove(&at))
                    .await
                    .map_err(|source| GateError::OpenFile { path: path.clone(), source })
            }
            Self::Commands { open, deadline, .. } => {
                let exec = Exec::of(open, *deadline).env("AFTERHOURS_APP", app.as_str());
                command("open", open, exec).await
            }
        }
    }

    async fn check(&self) -> Finding {
        match self {
            Self::File(path) => {
                let at = path.clone();
                match blocking(move || file::try_put(&at)).await {
                    Ok(()) => Finding::good("gate_file", format!("{} can be written", path.display())),
                    Err(error) => Finding::fatal(
                        "gate_file",
                        format!("the gate file {} cannot be written: {error}", path.display()),
                        format!("create {} and let the daemon write there", path.parent().unwrap_or(path).display()),
                    ),
                }
            }
            Self::Commands { close, open, .. } => match [close, open].into_iter().find_map(missing_program) {
                None => Finding::good("gate_commands", "the commands of the gate are there"),
                Some(program) => Finding::fatal(
                    "gate_commands",
                    format!("{program} is missing or cannot be run"),
                    "correct the gate's commands in the configuration, or make the file executable",
                ),
            },
        }
    }
}

async fn command(verb: &'static str, of: &Command, exec: Exec) -> Result<(), GateError> {
    let program = of.program().to_owned();
    exec.run().await.map(drop).map_err(|source| GateError::Command { verb, program, source })
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
