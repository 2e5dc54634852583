//! A unit of systemd, over D-Bus.
//!
//! A start or stop is a job of systemd's; its end is awaited as the signal `JobRemoved`, and then
//! what it promised is looked up: a start may have been skipped, a stop may have left processes.
//!
//! Between stop and commit the unit is held: see `hold.rs`.
//!
//! A start forgets earlier failures first (`reset-failed`): a new version that crashed until
//! systemd lost its patience must not keep the old one down.
//!
//! Deliberately absent: killing. A unit says itself how its processes are ended; one that leaves
//! some behind (`KillMode=process`) is a finding before and an error after.

use std::path::Path;
use std::path::PathBuf;

use futures_util::StreamExt;
use tokio::time::Instant;
use tokio::time::timeout_at;
use zbus::OwnedObjectPath;

use crate::domain::finding::Finding;
use crate::domain::span::Span;
use crate::service::ServiceStatus;
use crate::service::bus::Bus;
use crate::service::bus::ManagerProxy;
use crate::service::bus::UnitProxy;
use crate::service::bus::call;
use crate::service::bus::service_at;
use crate::service::bus::unit_at;
use crate::service::error::ServiceError;
use crate::service::hold::Hold;
use crate::service::limits::Limits;
use crate::service::limits::Pace;

/// The kinds of units that can be controlled.
const KINDS: [&str; 4] = [".service", ".target", ".socket", ".scope"];

/// A unit of systemd.
#[derive(Debug)]
pub struct Systemd {
    unit: String,
    bus: Bus,
    hold: Hold,
    limits: Limits,
}

/// A connection with the unit looked up.
struct Contact {
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
    path: OwnedObjectPath,
    unit: UnitProxy<'static>,
}

impl Systemd {
    pub(crate) fn new(unit: &str, bus: Bus, root: PathBuf, limits: Limits) -> Self {
        let whole = KINDS.iter().any(|kind| unit.ends_with(kind));
        let unit = if whole { unit.to_owned() } else { format!("{unit}.service") };
        let hold = Hold::new(&unit, root);
        Self { unit, bus, hold, limits }
    }

    pub(crate) async fn start(&self) -> Result<(), ServiceError> {
        let until = self.limits.until();
        let contact = self.contact().await?;
        self.must_exist(&contact).await?;
        let state = call("read the state of", &self.unit, contact.unit.active_state()).await?;
        self.hold.permit().await?;
        if state == "active" {
            return Ok(());
        }
        // Refused where nothing had failed; then there is nothing to forget.
        let _ = contact.manager.reset_failed_unit(&self.unit).await;
        self.job(&contact, "start", until).await?;
        match call("read the state of", &self.unit, contact.unit.active_state()).await?.as_str() {
            "active" | "activating" | "reloading" | "refreshing" => Ok(()),
            "failed" => Err(self.ended_at_once(&contact).await),
            _ if !call("read the state of", &self.unit, contact.unit.condition_result()).await? => {
                Err(ServiceError::Skipped { unit: self.unit.clone() })
            }
            _ => Err(self.ended_at_once(&contact).await),
        }
    }

    pub(crate) async fn stop(&self) -> Result<(), ServiceError> {
        let until = self.limits.until();
        let contact = self.contact().await?;
        self.must_exist(&contact).await?;
        self.hold.withdraw_permit().await?;
        self.job(&contact, "stop", until).await?;
        let mut pace = Pace::default();
        loop {
            let left = self.left(&contact).await?;
            if left.is_empty() {
                break;
            }
            if Instant::now() >= until {
                return Err(self.limits.overdue(format!("stop {}", self.unit), left));
            }
            pace.pause().await;
        }
        self.limits.port_closed(until).await?;
        // One that had to be killed counts as failed; it is down, and that was the wish.
        let _ = contact.manager.reset_failed_unit(&self.unit).await;
        Ok(())
    }

    pub(crate) async fn status(&self) -> Result<ServiceStatus, ServiceError> {
        let contact = self.contact().await?;
        self.must_exist(&contact).await?;
        let state = call("read the state of", &self.unit, contact.unit.active_state()).await?;
        let sub_state = call("read the state of", &self.unit, contact.unit.sub_state()).await?;
        match state.as_str() {
            "activating" if sub_state.starts_with("auto-restart") => {
                Ok(ServiceStatus::Failed(format!("{} ended and is about to be restarted", self.unit)))
            }
            "active" | "reloading" | "refreshing" | "activating" | "deactivating" => {
                let service =
                    call("read the state of", &self.unit, service_at(&contact.connection, &contact.path)).await?;
                Ok(ServiceStatus::Running { pid: service.main_pid().await.ok().filter(|pid| *pid != 0) })
            }
            "failed" => Ok(ServiceStatus::Failed(format!("{} failed: {}", self.unit, self.result(&contact).await))),
            _ => match self.left(&contact).await? {
                left if left.is_empty() => Ok(ServiceStatus::Stopped),
                left => Ok(ServiceStatus::Failed(format!("{}: {left}", self.unit))),
            },
        }
    }

    pub(crate) async fn check(&self) -> Vec<Finding> {
        let contact = match self.contact().await {
            Ok(contact) => contact,
            Err(error) => return vec![error.finding("service_bus")],
        };
        let mut findings = vec![Finding::good("service_bus", "systemd answers")];
        if let Err(error) = self.must_exist(&contact).await {
            findings.push(error.finding("service_unit"));
            return findings;
        }
        findings.push(Finding::good("service_unit", format!("{} is loaded", self.unit)));
        findings.push(self.check_rights(&contact).await);
        findings.push(self.check_hold(&contact).await);
        findings.extend(self.check_stop(&contact).await);
        findings.push(match self.status().await {
            Ok(ServiceStatus::Running { .. }) => Finding::good("service_status", format!("{} runs", self.unit)),
            Ok(ServiceStatus::Stopped) => Finding::good("service_status", format!("{} is stopped", self.unit)),
            Ok(ServiceStatus::Failed(text)) => {
                Finding::warning("service_status", text, format!("see why: journalctl -u {} -n 50", self.unit))
            }
            Err(error) => error.finding("service_status"),
        });
        findings
    }

    /// Asks for a change of nothing, which needs the same right as starting and stopping.
    async fn check_rights(&self, contact: &Contact) -> Finding {
        let asked = contact.manager.set_unit_properties(&self.unit, true, &[]);
        match call("control", &self.unit, asked).await {
            Ok(()) => Finding::good("service_control", format!("{} may be started and stopped", self.unit)),
            Err(error @ ServiceError::Denied { .. }) => error.finding("service_control"),
            // A systemd that does not know the question does not answer it; the run will tell.
            Err(error) => Finding::warning(
                "service_control",
                format!("could not be asked whether {} may be controlled: {error}", self.unit),
                "start and stop it once by hand as the daemon's user",
            ),
        }
    }

    async fn check_hold(&self, contact: &Contact) -> Finding {
        if let Some(dir) = self.hold.unwritable() {
            return Finding::fatal(
                "service_hold",
                format!("{dir} is not writable, so a reboot in the middle of an update could not be held off"),
                "run the daemon as root",
            );
        }
        let conditions = contact.unit.conditions().await.unwrap_or_default();
        let foreign = |param: &str| !param.contains("afterhours");
        if conditions.iter().any(|(_, trigger, _, param, _)| *trigger && foreign(param)) {
            return Finding::warning(
                "service_hold",
                format!("{} has conditions of the kind \"any of these\" (with a |), which weaken ours", self.unit),
                "write the unit's conditions without the |",
            );
        }
        Finding::good("service_hold", "a reboot in the middle of an update can be held off")
    }

    /// What in the unit file would make a stop fail or not last.
    async fn check_stop(&self, contact: &Contact) -> Vec<Finding> {
        let mut findings = Vec::new();
        let sockets = contact.unit.triggered_by().await.unwrap_or_default();
        if !sockets.is_empty() {
            findings.push(Finding::warning(
                "service_trigger",
                format!("{} is also started by {}", self.unit, sockets.join(", ")),
                "name that unit's port nowhere in the settings, or disable it: a stopped service would be started again",
            ));
        }
        let Ok(service) = service_at(&contact.connection, &contact.path).await else { return findings };
        if let Ok(mode @ ("process" | "none")) = service.kill_mode().await.as_deref() {
            findings.push(Finding::warning(
                "service_kill_mode",
                format!(
                    "{} has KillMode={mode}, so processes may outlive a stop, and the stop then counts as failed",
                    self.unit
                ),
                "remove KillMode from the unit file, or set it to mixed",
            ));
        }
        let wait = service.timeout_stop_usec().await.map_or(Span::ZERO, |usec| {
            // Infinity is the largest number there is; it stays longer than any deadline.
            Span::from(std::time::Duration::from_secs(usec / 1_000_000))
        });
        if wait >= self.limits.deadline {
            findings.push(Finding::warning(
                "service_stop_timeout",
                format!(
                    "systemd waits longer for {} to stop (TimeoutStopSec) than service.deadline allows ({})",
                    self.unit, self.limits.deadline
                ),
                "raise `service.deadline` above TimeoutStopSec",
            ));
        }
        findings
    }

    pub(crate) async fn install_hold(&self, hold: &Path) -> Result<(), ServiceError> {
        self.hold.install(hold).await?;
        self.reload().await
    }

    pub(crate) async fn remove_hold(&self) -> Result<(), ServiceError> {
        self.hold.remove().await?;
        self.reload().await?;
        self.hold.withdraw_permit().await
    }

    async fn reload(&self) -> Result<(), ServiceError> {
        let connection = self.bus.connect().await?;
        let manager = ManagerProxy::new(&connection).await.map_err(ServiceError::Bus)?;
        call("reload systemd for", &self.unit, manager.reload()).await
    }

    async fn contact(&self) -> Result<Contact, ServiceError> {
        let connection = self.bus.connect().await?;
        let manager = ManagerProxy::new(&connection).await.map_err(ServiceError::Bus)?;
        let path = call("load", &self.unit, manager.load_unit(&self.unit)).await?;
        let unit = call("load", &self.unit, unit_at(&connection, &path)).await?;
        Ok(Contact { connection, manager, path, unit })
    }

    async fn must_exist(&self, contact: &Contact) -> Result<(), ServiceError> {
        match call("load", &self.unit, contact.unit.load_state()).await?.as_str() {
            "loaded" => Ok(()),
            "not-found" => Err(ServiceError::NoUnit { unit: self.unit.clone() }),
            state => Err(ServiceError::Job { verb: "load", unit: self.unit.clone(), result: format!("it is {state}") }),
        }
    }

    /// Queues a job and waits until systemd has taken it off its list.
    async fn job(&self, contact: &Contact, verb: &'static str, until: Instant) -> Result<(), ServiceError> {
        // Signals first: a job may be over before its name is known.
        let mut removed = call("watch", &self.unit, contact.manager.receive_job_removed()).await?;
        call("watch", &self.unit, contact.manager.subscribe()).await?;
        let job = match verb {
            "start" => call("start", &self.unit, contact.manager.start_unit(&self.unit, "replace")).await?,
            _ => call("stop", &self.unit, contact.manager.stop_unit(&self.unit, "replace")).await?,
        };
        let over = async {
            while let Some(signal) = removed.next().await {
                if let Ok(args) = signal.args()
                    && args.job.as_str() == job.as_str()
                {
                    return Ok(args.result.clone());
                }
            }
            Err(ServiceError::Bus(zbus::Error::Failure("the connection ended".to_owned())))
        };
        match timeout_at(until, over).await {
            Ok(Ok(result)) if result == "done" => Ok(()),
            Ok(Ok(result)) if result == "skipped" => Err(ServiceError::Skipped { unit: self.unit.clone() }),
            Ok(Ok(result)) => {
                let result = if result == "failed" { self.result(contact).await } else { result };
                Err(ServiceError::Job { verb, unit: self.unit.clone(), result })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let state = contact.unit.sub_state().await.unwrap_or_else(|_| "unknown".to_owned());
                Err(self.limits.overdue(format!("{verb} {}", self.unit), format!("its state is \"{state}\"")))
            }
        }
    }

    /// What keeps the unit from being stopped; empty when it is.
    async fn left(&self, contact: &Contact) -> Result<String, ServiceError> {
        let state = call("read the state of", &self.unit, contact.unit.active_state()).await?;
        if !matches!(state.as_str(), "inactive" | "failed") {
            return Ok(format!("its state is \"{state}\""));
        }
        let processes = call("list the processes of", &self.unit, contact.manager.get_unit_processes(&self.unit));
        let processes = match processes.await {
            // systemd forgets a unit that is inactive, but never one with processes in its control group.
            Err(ServiceError::NoUnit { .. }) => Vec::new(),
            processes => processes?,
        };
        let names: Vec<_> = processes.iter().take(5).map(|(_, pid, line)| format!("{pid} ({line})")).collect();
        match processes.len() {
            0 => Ok(String::new()),
            1 => Ok(format!("process {} is left", names[0])),
            count => Ok(format!("{count} processes are left: {}", names.join(", "))),
        }
    }

    /// How the service ended, in systemd's words.
    async fn result(&self, contact: &Contact) -> String {
        match service_at(&contact.connection, &contact.path).await {
            Ok(service) => service.result().await.unwrap_or_else(|_| "failed".to_owned()),
            Err(_) => "failed".to_owned(),
        }
    }

    async fn ended_at_once(&self, contact: &Contact) -> ServiceError {
        ServiceError::EndedAtOnce { what: self.unit.clone(), last: Some(self.result(contact).await) }
    }
}
