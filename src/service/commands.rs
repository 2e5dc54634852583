//! Commands of the administrator's: start, stop, status.
//!
//! The status command is believed, in the language of init scripts: 0 runs; 1, 2 and 3 do not
//! (dead with a pid file, dead with a lock file, stopped); everything else is unknown, and unknown
//! is an error, never "stopped".
//!
//! A start command may leave the application behind as a daemon. Its output goes to a file,
//! because a pipe of ours would break with us. What a start or stop command says about itself counts less
//! than what the status command sees afterwards.
//!
//! Deliberately absent: looking for processes. What a start command leads to (a container, another
//! init system, a shared database) is not ours to end.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use tokio::time::Instant;

use crate::domain::command::Command;
use crate::domain::failure::Exhibit;
use crate::domain::finding::Finding;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::permit::find_program;
use crate::service::ServiceStatus;
use crate::service::app_log;
use crate::service::error::ServiceError;
use crate::service::limits::Limits;
use crate::service::limits::Pace;

/// How long the status command may take, at most.
const STATUS_DEADLINE_MAX: Span = Span::secs(30);

/// Commands of the administrator's own.
#[derive(Debug)]
pub struct Commands {
    start: Command,
    stop: Command,
    status: Command,
    install_dir: PathBuf,
    log: PathBuf,
    limits: Limits,
}

impl Commands {
    pub(crate) fn new(
        start: &Command,
        stop: &Command,
        status: &Command,
        install_dir: &Path,
        state_dir: &Path,
        limits: Limits,
    ) -> Self {
        Self {
            start: start.clone(),
            stop: stop.clone(),
            status: status.clone(),
            install_dir: install_dir.to_owned(),
            log: state_dir.join("log").join("service.log"),
            limits,
        }
    }

    pub(crate) async fn start(&self, env: &BTreeMap<String, String>) -> Result<(), ServiceError> {
        let until = self.limits.until();
        if let ServiceStatus::Running { .. } = self.ask(env).await? {
            return Ok(());
        }
        self.must_exist(&self.start)?;
        self.make_log_dir().await?;
        let source = self.exec(&self.start, self.limits.deadline, env).log_to(&self.log).run().await.err();
        if let Some(source) = source {
            return Err(ServiceError::Command { which: "start", source });
        }
        self.wait_for(until, env, "start it", |status| matches!(status, ServiceStatus::Running { .. })).await
    }

    pub(crate) async fn stop(&self, env: &BTreeMap<String, String>) -> Result<(), ServiceError> {
        let until = self.limits.until();
        // A status that cannot be learnt is no reason not to try.
        if !matches!(self.ask(env).await, Ok(ServiceStatus::Stopped)) {
            self.must_exist(&self.stop)?;
            self.make_log_dir().await?;
            let said = self.exec(&self.stop, self.limits.deadline, env).log_to(&self.log).run().await;
            if let Err(source) = said
                && !matches!(self.ask(env).await, Ok(ServiceStatus::Stopped))
            {
                return Err(ServiceError::Command { which: "stop", source });
            }
        }
        self.wait_for(until, env, "stop it", |status| *status == ServiceStatus::Stopped).await?;
        self.limits.port_closed(until).await
    }

    pub(crate) async fn status(&self) -> Result<ServiceStatus, ServiceError> {
        self.ask(&BTreeMap::new()).await
    }

    pub(crate) async fn is_down(&self) -> Result<bool, ServiceError> {
        let stopped = self.status().await? == ServiceStatus::Stopped;
        Ok(stopped && self.limits.port_closed(Instant::now()).await.is_ok())
    }

    pub(crate) async fn exhibits(&self) -> Vec<Exhibit> {
        app_log::exhibit(&self.log).await.into_iter().collect()
    }

    pub(crate) async fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (which, argv) in [("start", &self.start), ("stop", &self.stop), ("status", &self.status)] {
            let check = format!("service_{which}_command");
            findings.push(match self.must_exist(argv) {
                Ok(()) => Finding::good(&check, format!("the {which} command exists and is executable")),
                Err(error) => error.finding(&check),
            });
        }
        findings.push(match self.status().await {
            Ok(ServiceStatus::Running { .. }) => Finding::good("service_status", "the application runs"),
            Ok(_) => Finding::good("service_status", "the application is stopped"),
            Err(error) => error.finding("service_status"),
        });
        findings
    }

    async fn ask(&self, env: &BTreeMap<String, String>) -> Result<ServiceStatus, ServiceError> {
        self.must_exist(&self.status)?;
        let deadline = self.limits.deadline.min(STATUS_DEADLINE_MAX);
        let output = self.exec(&self.status, deadline, env).output().await;
        let output = output.map_err(|source| ServiceError::Command { which: "status", source })?;
        match output.status.code() {
            Some(0) => Ok(ServiceStatus::Running { pid: None }),
            Some(1..=3) => Ok(ServiceStatus::Stopped),
            _ => Err(ServiceError::UnknownStatus {
                program: self.status.program().to_owned(),
                status: output.status.to_string(),
            }),
        }
    }

    async fn wait_for(
        &self,
        until: Instant,
        env: &BTreeMap<String, String>,
        what: &str,
        good: impl Fn(&ServiceStatus) -> bool,
    ) -> Result<(), ServiceError> {
        let mut pace = Pace::default();
        loop {
            let status = self.ask(env).await?;
            if good(&status) {
                return Ok(());
            }
            if Instant::now() >= until {
                let runs = if matches!(status, ServiceStatus::Running { .. }) { "still runs" } else { "does not run" };
                return Err(self.limits.overdue(what, format!("the status command says that it {runs}")));
            }
            pace.pause().await;
        }
    }

    fn exec(&self, argv: &Command, deadline: Span, env: &BTreeMap<String, String>) -> Exec {
        Exec::of(argv, deadline).envs(env).dir(self.dir())
    }

    /// Commands run in the installation; while there is none, a stop by an absolute path still works.
    fn dir(&self) -> &Path {
        if self.install_dir.is_dir() { &self.install_dir } else { Path::new("/") }
    }

    fn must_exist(&self, argv: &Command) -> Result<(), ServiceError> {
        match find_program(argv, self.dir()) {
            Some(_) => Ok(()),
            None => Err(ServiceError::NoProgram { program: argv.program().to_owned() }),
        }
    }

    async fn make_log_dir(&self) -> Result<(), ServiceError> {
        let Some(dir) = self.log.parent() else { return Ok(()) };
        let made = fs_err::tokio::create_dir_all(dir).await;
        made.map_err(|source| ServiceError::File { call: "make", path: dir.to_owned(), source })
    }
}
