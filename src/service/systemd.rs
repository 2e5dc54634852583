//! Units of systemd, over D-Bus: those of the settings, and what hangs on them.
//!
//! A stop takes more along than the unit that is named, and less: a target's services go on unless they say
//! otherwise, a part of a unit stops with it and does not come back with it, a socket starts it again. So `plan.rs`
//! says first what there is to stop, what to keep down and in which order to start it again, and `record.rs` remembers
//! what ran. Stopped is what systemd says *and* has no process left in its control group, for every unit of the plan.
//!
//! A start or stop is a job of systemd's; its end is awaited as the signal `JobRemoved`, and then
//! what it promised is looked up: a start may have been skipped, a stop may have left processes.
//!
//! Between stop and commit the units are held: see `hold.rs`. What is looked at without a change: `doctor.rs`.
//!
//! A start forgets earlier failures first (`reset-failed`): a new version that crashed until
//! systemd lost its patience must not keep the old one down.
//!
//! Deliberately absent: killing. A unit says itself how its processes are ended; one that leaves
//! some behind (`KillMode=process`) is a finding before and an error after.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use futures_util::StreamExt;
use tokio::time::Instant;
use tokio::time::timeout_at;
use zbus::OwnedObjectPath;

use crate::domain::failure::Exhibit;
use crate::domain::failure::Failure;
use crate::domain::foreign;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::service::ServiceStatus;
use crate::service::bus::Bus;
use crate::service::bus::ManagerProxy;
use crate::service::bus::UnitProxy;
use crate::service::bus::call;
use crate::service::bus::facts_of;
use crate::service::bus::service_at;
use crate::service::bus::unit_at;
use crate::service::error::ServiceError;
use crate::service::hold::Hold;
use crate::service::limits::Limits;
use crate::service::limits::Pace;
use crate::service::plan::Facts;
use crate::service::plan::Graph;
use crate::service::plan::Plan;
use crate::service::plan::Tie;
use crate::service::plan::plan;
use crate::service::record::Kept;
use crate::service::record::Record;
use crate::service::record::RecordFile;
use crate::service::state::blocking;

/// More units are not looked up for one application.
const UNITS_MAX: usize = 500;

/// How long the journal is waited for.
const JOURNAL_WAIT: Span = Span::secs(10);

/// Units of systemd.
#[derive(Debug)]
pub struct Systemd {
    /// As they are named in the settings, in their order; never empty.
    pub(super) units: Vec<String>,
    pub(super) limits: Limits,
    bus: Bus,
    /// Our view of systemd's root directory.
    root: PathBuf,
    record: RecordFile,
}

/// A connection.
pub(super) struct Contact {
    pub(super) connection: zbus::Connection,
    pub(super) manager: ManagerProxy<'static>,
}

/// A unit that was looked up.
pub(super) struct Found {
    pub(super) path: OwnedObjectPath,
    pub(super) unit: UnitProxy<'static>,
}

/// What systemd is asked to do with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    /// Marks a target as reached without what it wants.
    StartAlone,
    /// Starts it and does not wait until its work is done.
    Order,
    Stop,
}

impl Systemd {
    pub(crate) fn new(units: &[String], bus: Bus, root: PathBuf, state_dir: &Path, limits: Limits) -> Self {
        Self { units: units.to_vec(), limits, bus, root, record: RecordFile::new(state_dir) }
    }

    /// Starts what ran before the stop, in order, and says what then ran.
    pub(crate) async fn start(&self) -> Result<String, ServiceError> {
        let until = self.limits.until();
        let contact = self.listening().await?;
        let mut record = self.record.load(&self.units).await?;
        if !record.stopped {
            record.stop(&self.plan(&contact).await?);
            record.units.iter_mut().for_each(|unit| unit.ran = false);
        }
        let units = record.to_start();
        for unit in units.iter().filter(|unit| unit.is_named) {
            self.must_exist(&contact, &unit.name).await?;
        }
        // Where nothing ran, the named units bring up all they want.
        for unit in record.units.iter().filter(|unit| unit.ran || (unit.is_ours && record.nothing_ran())) {
            self.hold(&unit.name).permit().await?;
        }
        for unit in units.iter().filter(|unit| unit.is_named) {
            self.hold(&unit.name).permit().await?;
        }
        let (mut failed, mut missed) = (None, Vec::new());
        for wave in units.chunk_by(|one, next| one.wave == next.wave) {
            for (unit, error) in self.start_wave(&contact, &record, wave, until).await? {
                match unit.is_ours {
                    true => failed = failed.or(Some(error)),
                    false => missed.push(format!("{} could not be started again ({error})", unit.name)),
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(self.sentence(&units, ["runs", "run"], "runs again", &missed)),
        }
    }

    /// Starts units that do not wait for each other; those that did not start.
    async fn start_wave<'u>(
        &self,
        contact: &Contact,
        record: &Record,
        wave: &[&'u Kept],
        until: Instant,
    ) -> Result<Vec<(&'u Kept, ServiceError)>, ServiceError> {
        let mut jobs = Vec::new();
        let mut failed = Vec::new();
        for unit in wave {
            match self.active_state(contact, &unit.name).await {
                Ok(state) if state == "active" => {}
                Ok(_) => {
                    // Refused where nothing had failed; then there is nothing to forget.
                    let _ = contact.manager.reset_failed_unit(&unit.name).await;
                    let alone = unit.name.ends_with(".target") && !(record.nothing_ran() && unit.is_named);
                    let verb = match () {
                        () if alone => Verb::StartAlone,
                        () if unit.is_at_once => Verb::Order,
                        () => Verb::Start,
                    };
                    jobs.push((unit.name.as_str(), verb));
                }
                Err(error) => failed.push((*unit, error)),
            }
        }
        let mut ended = self.jobs(contact, &jobs, until).await?;
        for unit in wave {
            let asked = jobs.iter().find(|(name, _)| *name == unit.name);
            match (asked, ended.remove(&unit.name)) {
                (Some(_), Some(error)) => failed.push((*unit, error)),
                (Some((_, Verb::Order)), None) | (None, _) => {}
                (Some(_), None) => {
                    if let Err(error) = self.has_started(contact, &unit.name).await {
                        failed.push((*unit, error));
                    }
                }
            }
        }
        Ok(failed)
    }

    async fn has_started(&self, contact: &Contact, name: &str) -> Result<(), ServiceError> {
        let found = self.find(contact, name).await?;
        match call("read the state of", name, found.unit.active_state()).await?.as_str() {
            "active" | "activating" | "reloading" | "refreshing" => Ok(()),
            "failed" => Err(self.ended_at_once(contact, name).await),
            _ if !call("read the state of", name, found.unit.condition_result()).await? => {
                Err(ServiceError::Skipped { unit: name.to_owned() })
            }
            _ => Err(self.ended_at_once(contact, name).await),
        }
    }

    /// Stops everything that hangs together, verifies it, and says what was seen to be down.
    pub(crate) async fn stop(&self) -> Result<String, ServiceError> {
        let until = self.limits.until();
        let contact = self.listening().await?;
        let plan = self.plan(&contact).await?;
        for unit in plan.units.iter().filter(|unit| unit.tie == Tie::Named) {
            self.must_exist(&contact, &unit.name).await?;
        }
        if let Some((along, _)) = &plan.forbidden {
            return Err(ServiceError::Forbidden { unit: self.units.join(", "), along: along.clone() });
        }
        let mut record = self.record.load(&self.units).await?;
        record.stop(&plan);
        let hold = record.hold.clone();
        let new = if hold.is_some() { record.hold_all(&plan) } else { Vec::new() };
        self.record.save(&record).await?;
        if let Some(hold) = hold.filter(|_| !new.is_empty()) {
            self.install(&hold, &new).await?;
        }
        for unit in &record.units {
            self.hold(&unit.name).withdraw_permit().await?;
        }
        for wave in plan.stop_order() {
            let jobs: Vec<_> = wave.iter().map(|name| (name.as_str(), Verb::Stop)).collect();
            if let Some((_, error)) = self.jobs(&contact, &jobs, until).await?.pop_first() {
                return Err(error);
            }
        }
        let is_planned = |unit: &Kept| plan.units.iter().any(|planned| planned.name == unit.name);
        for unit in record.units.iter().filter(|unit| unit.is_ours || is_planned(unit)) {
            self.wait_until_down(&contact, unit, until).await?;
        }
        self.limits.port_closed(until).await?;
        for unit in record.units.iter().filter(|unit| unit.is_ours) {
            // One that had to be killed counts as failed; it is down, and that was the wish.
            let _ = contact.manager.reset_failed_unit(&unit.name).await;
        }
        let units: Vec<&Kept> = record.units.iter().collect();
        Ok(self.sentence(&units, ["is down", "are down"], "was stopped along", &[]))
    }

    async fn wait_until_down(&self, contact: &Contact, unit: &Kept, until: Instant) -> Result<(), ServiceError> {
        let mut pace = Pace::default();
        loop {
            let left = self.left(contact, &unit.name, unit.is_ours).await?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(self.limits.overdue(format!("stop {}", unit.name), left));
            }
            pace.pause().await;
        }
    }

    /// What was seen of the named units, of those that belong to them, and of others.
    fn sentence(&self, units: &[&Kept], verbs: [&str; 2], others: &str, missed: &[String]) -> String {
        let mut named: Vec<&str> = units.iter().filter(|unit| unit.is_named).map(|unit| unit.name.as_str()).collect();
        let many = named.len() > 1;
        let last = named.pop().unwrap_or(&self.units[0]);
        let named = if named.is_empty() { last.to_owned() } else { format!("{} and {last}", named.join(", ")) };
        let whose = if many { "them" } else { "it" };
        let mut said = match units.iter().filter(|unit| unit.is_ours && !unit.is_named).count() {
            0 => format!("{named} {}", verbs[usize::from(many)]),
            1 => format!("{named} and 1 unit that belongs to {whose} {}", verbs[1]),
            count => format!("{named} and {count} units that belong to {whose} {}", verbs[1]),
        };
        for unit in units.iter().filter(|unit| !unit.is_ours && unit.ran) {
            if !missed.iter().any(|missed| missed.starts_with(&unit.name)) {
                said.push_str(&format!("; {}, which requires {whose}, {others}", unit.name));
            }
        }
        missed.iter().for_each(|missed| said.push_str(&format!("; {missed}")));
        said
    }

    pub(crate) async fn status(&self) -> Result<ServiceStatus, ServiceError> {
        let contact = self.contact().await?;
        let plan = self.plan(&contact).await?;
        let mut record = self.record.load(&self.units).await?;
        record.stop(&plan);
        let mut running = None;
        for unit in record.units.iter().filter(|unit| unit.is_ours) {
            let name = &unit.name;
            if unit.is_named {
                self.must_exist(&contact, name).await?;
            }
            let found = self.find(&contact, name).await?;
            let state = call("read the state of", name, found.unit.active_state()).await?;
            let sub_state = call("read the state of", name, found.unit.sub_state()).await?;
            match state.as_str() {
                "activating" if sub_state.starts_with("auto-restart") => {
                    return Ok(ServiceStatus::Failed(format!("{name} ended and is about to be restarted")));
                }
                "failed" => {
                    let result = self.result(&contact, name).await;
                    return Ok(ServiceStatus::Failed(format!("{name} failed: {result}")));
                }
                "active" | "reloading" | "refreshing" | "activating" | "deactivating" if unit.is_named => {
                    let service = call("read the state of", name, service_at(&contact.connection, &found.path)).await?;
                    let pid = service.main_pid().await.ok().filter(|pid| *pid != 0);
                    running = Some(running.flatten().or(pid));
                }
                _ => {}
            }
        }
        if let Some(pid) = running {
            return Ok(ServiceStatus::Running { pid });
        }
        if let Some(left) = self.left_of_ours(&contact, &record).await? {
            return Ok(ServiceStatus::Failed(left));
        }
        Ok(ServiceStatus::Stopped)
    }

    pub(crate) async fn is_down(&self) -> Result<bool, ServiceError> {
        let contact = self.contact().await?;
        let mut record = self.record.load(&self.units).await?;
        record.stop(&self.plan(&contact).await?);
        for unit in record.units.iter().filter(|unit| unit.is_named) {
            self.must_exist(&contact, &unit.name).await?;
        }
        let left = self.left_of_ours(&contact, &record).await?;
        Ok(left.is_none() && self.limits.port_closed(Instant::now()).await.is_ok())
    }

    /// What of ours is not down. A socket that waits is no part of it that runs.
    async fn left_of_ours(&self, contact: &Contact, record: &Record) -> Result<Option<String>, ServiceError> {
        for unit in record.units.iter().filter(|unit| unit.is_ours && !unit.is_trigger()) {
            let left = self.left(contact, &unit.name, true).await?;
            if !left.is_empty() {
                return Ok(Some(format!("{}: {left}", unit.name)));
            }
        }
        Ok(None)
    }

    pub(crate) async fn exhibits(&self) -> Vec<Exhibit> {
        let mut lines = Vec::new();
        for name in &self.units {
            let said = match self.said_of(name).await {
                Ok(said) => said,
                Err(error) => format!("its state could not be read: {}", Failure::from_error(&error)),
            };
            lines.push(if self.units.len() == 1 { said } else { format!("{name}: {said}") });
        }
        let state = Exhibit { from: format!("systemctl status {}", self.units.join(" ")), lines };
        std::iter::once(state).chain(self.journal().await).collect()
    }

    async fn said_of(&self, name: &str) -> Result<String, ServiceError> {
        let contact = self.contact().await?;
        let found = self.find(&contact, name).await?;
        let active = call("read the state of", name, found.unit.active_state()).await?;
        let sub = call("read the state of", name, found.unit.sub_state()).await?;
        Ok(match name.ends_with(".service") {
            true => format!("{active} ({sub}), result {}", self.result(&contact, name).await),
            false => format!("{active} ({sub})"),
        })
    }

    /// The named units and those that belong to them.
    async fn ours(&self) -> Result<Vec<String>, ServiceError> {
        let mut record = self.record.load(&self.units).await?;
        record.stop(&self.plan(&self.contact().await?).await?);
        Ok(record.units.into_iter().filter(|unit| unit.is_ours).map(|unit| unit.name).collect())
    }

    /// What the units wrote last; nothing where there is no journal.
    async fn journal(&self) -> Option<Exhibit> {
        let root = format!("--root={}", self.root.display());
        let of_root = (self.root != Path::new("/")).then_some(root);
        // A target says nothing itself; those that belong to it do.
        let ours = self.ours().await.unwrap_or_else(|_| self.units.clone());
        let of_units = ours.iter().flat_map(|unit| ["-u".to_owned(), unit.clone()]);
        let args = ["--no-pager", "--quiet", "-o", "short-iso", "-n", "50"].map(str::to_owned);
        let args = args.into_iter().chain(of_units).chain(of_root);
        let said = Exec::ours("journalctl", args, JOURNAL_WAIT).run().await.ok()?;
        let lines = foreign::journal(&said.stdout);
        let named: Vec<String> = self.units.iter().map(|unit| format!("-u {unit}")).collect();
        let from = format!("journalctl {} -n 50", named.join(" "));
        (!lines.is_empty()).then_some(Exhibit { from, lines })
    }

    /// Keeps the units down, and those that hang on them.
    pub(crate) async fn install_hold(&self, hold: &Path) -> Result<(), ServiceError> {
        let plan = self.plan(&self.contact().await?).await?;
        let mut record = self.record.load(&self.units).await?;
        let held = record.begin(hold, &plan);
        // Which drop-ins are ours is known before the first is there.
        self.record.save(&record).await?;
        self.install(hold, &held).await
    }

    async fn install(&self, hold: &Path, units: &[String]) -> Result<(), ServiceError> {
        for unit in units {
            self.hold(unit).install(hold).await?;
        }
        self.reload().await
    }

    pub(crate) async fn remove_hold(&self) -> Result<(), ServiceError> {
        let record = self.record.load(&self.units).await?;
        let names = || record.units.iter().map(|unit| &unit.name).chain(&self.units);
        for unit in names() {
            self.hold(unit).remove().await?;
        }
        self.reload().await?;
        for unit in names() {
            self.hold(unit).withdraw_permit().await?;
        }
        self.record.remove().await
    }

    async fn reload(&self) -> Result<(), ServiceError> {
        let contact = self.contact().await?;
        call("reload systemd for", &self.units[0], contact.manager.reload()).await
    }

    pub(super) fn hold(&self, unit: &str) -> Hold {
        Hold::new(unit, self.root.clone())
    }

    pub(super) async fn contact(&self) -> Result<Contact, ServiceError> {
        let connection = self.bus.connect().await?;
        let manager = ManagerProxy::new(&connection).await.map_err(ServiceError::Bus)?;
        Ok(Contact { connection, manager })
    }

    /// A connection to which systemd says what became of its jobs.
    async fn listening(&self) -> Result<Contact, ServiceError> {
        let contact = self.contact().await?;
        call("watch", &self.units[0], contact.manager.subscribe()).await?;
        Ok(contact)
    }

    /// Looks up everything that hangs together with the named units.
    pub(super) async fn plan(&self, contact: &Contact) -> Result<Plan, ServiceError> {
        let own = blocking(own_unit).await.ok().flatten();
        let (mut graph, mut named) = (Graph::new(), Vec::new());
        for unit in &self.units {
            let facts = self.facts(contact, unit).await?;
            named.push(facts.name.clone());
            graph.insert(facts.name.clone(), facts);
        }
        loop {
            let plan = plan(&graph, &named, own.as_deref());
            if plan.unknown.is_empty() {
                return Ok(plan);
            }
            if graph.len() + plan.unknown.len() > UNITS_MAX {
                return Err(ServiceError::TooMany { unit: self.units[0].clone(), max: UNITS_MAX });
            }
            for name in plan.unknown {
                let facts = self.facts(contact, &name).await?;
                graph.insert(name, facts);
            }
        }
    }

    async fn facts(&self, contact: &Contact, name: &str) -> Result<Facts, ServiceError> {
        let path = match call("load", name, contact.manager.load_unit(name)).await {
            Err(ServiceError::NoUnit { .. }) => return Ok(Facts { name: name.to_owned(), ..Facts::default() }),
            path => path?,
        };
        call("look at", name, facts_of(&contact.connection, &path)).await
    }

    pub(super) async fn find(&self, contact: &Contact, name: &str) -> Result<Found, ServiceError> {
        let path = call("load", name, contact.manager.load_unit(name)).await?;
        let unit = call("load", name, unit_at(&contact.connection, &path)).await?;
        Ok(Found { path, unit })
    }

    async fn active_state(&self, contact: &Contact, name: &str) -> Result<String, ServiceError> {
        let found = self.find(contact, name).await?;
        call("read the state of", name, found.unit.active_state()).await
    }

    pub(super) async fn must_exist(&self, contact: &Contact, name: &str) -> Result<(), ServiceError> {
        let found = self.find(contact, name).await?;
        match call("load", name, found.unit.load_state()).await?.as_str() {
            "loaded" => Ok(()),
            "not-found" => Err(ServiceError::NoUnit { unit: name.to_owned() }),
            state => Err(ServiceError::Job { verb: "load", unit: name.to_owned(), result: format!("it is {state}") }),
        }
    }

    /// Queues jobs and waits until systemd has taken them off its list; what did not go well, by unit.
    async fn jobs(
        &self,
        contact: &Contact,
        jobs: &[(&str, Verb)],
        until: Instant,
    ) -> Result<BTreeMap<String, ServiceError>, ServiceError> {
        let mut errors = BTreeMap::new();
        let Some((first, _)) = jobs.first() else { return Ok(errors) };
        // Signals first: a job may be over before its name is known.
        let mut removed = call("watch", first, contact.manager.receive_job_removed()).await?;
        let mut open = BTreeMap::new();
        for (unit, verb) in jobs {
            let queued = match verb {
                Verb::Start | Verb::Order => call("start", unit, contact.manager.start_unit(unit, "replace")).await,
                Verb::StartAlone => call("start", unit, contact.manager.start_unit(unit, "ignore-dependencies")).await,
                Verb::Stop => call("stop", unit, contact.manager.stop_unit(unit, "replace")).await,
            };
            match queued {
                Ok(_) if *verb == Verb::Order => {}
                Ok(job) => {
                    open.insert(job.as_str().to_owned(), (*unit, *verb));
                }
                // A unit that is forgotten as soon as it is down.
                Err(ServiceError::NoUnit { .. }) if *verb == Verb::Stop => {}
                Err(error) => {
                    errors.insert((*unit).to_owned(), error);
                }
            }
        }
        while !open.is_empty() {
            match timeout_at(until, removed.next()).await {
                Ok(Some(signal)) => {
                    let Ok(args) = signal.args() else { continue };
                    let Some((unit, verb)) = open.remove(args.job.as_str()) else { continue };
                    if let Err(error) = self.ended(contact, unit, verb, args.result.clone()).await {
                        errors.insert(unit.to_owned(), error);
                    }
                }
                Ok(None) => return Err(ServiceError::Bus(zbus::Error::Failure("the connection ended".to_owned()))),
                Err(_) => break,
            }
        }
        for (unit, verb) in open.into_values() {
            let state = match self.find(contact, unit).await {
                Ok(found) => found.unit.sub_state().await.ok(),
                Err(_) => None,
            };
            let state = state.unwrap_or_else(|| "unknown".to_owned());
            let overdue = self.limits.overdue(format!("{} {unit}", verb.word()), format!("its state is \"{state}\""));
            errors.insert(unit.to_owned(), overdue);
        }
        Ok(errors)
    }

    async fn ended(&self, contact: &Contact, unit: &str, verb: Verb, result: String) -> Result<(), ServiceError> {
        let unit = unit.to_owned();
        match result.as_str() {
            "done" => Ok(()),
            "skipped" => Err(ServiceError::Skipped { unit }),
            "failed" => {
                let result = self.result(contact, &unit).await;
                Err(ServiceError::Job { verb: verb.word(), unit, result })
            }
            _ => Err(ServiceError::Job { verb: verb.word(), unit, result }),
        }
    }

    /// What keeps a unit from being down; empty when it is. Whether others left processes is not ours to judge.
    async fn left(&self, contact: &Contact, name: &str, is_ours: bool) -> Result<String, ServiceError> {
        let state = self.active_state(contact, name).await?;
        if !matches!(state.as_str(), "inactive" | "failed") {
            return Ok(format!("its state is \"{state}\""));
        }
        if !is_ours {
            return Ok(String::new());
        }
        let processes = match call("list the processes of", name, contact.manager.get_unit_processes(name)).await {
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

    /// How a service ended, in systemd's words.
    async fn result(&self, contact: &Contact, name: &str) -> String {
        let Ok(found) = self.find(contact, name).await else { return "failed".to_owned() };
        match service_at(&contact.connection, &found.path).await {
            Ok(service) => service.result().await.unwrap_or_else(|_| "failed".to_owned()),
            Err(_) => "failed".to_owned(),
        }
    }

    async fn ended_at_once(&self, contact: &Contact, name: &str) -> ServiceError {
        ServiceError::EndedAtOnce { what: name.to_owned(), last: Some(self.result(contact, name).await) }
    }
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Start | Self::StartAlone | Self::Order => "start",
            Self::Stop => "stop",
        }
    }
}

/// The unit that this process is in, where systemd has started it.
fn own_unit() -> std::io::Result<Option<String>> {
    let groups = fs_err::read_to_string("/proc/self/cgroup")?;
    let units = groups.lines().filter_map(|line| line.rsplit('/').find(|part| part.ends_with(".service")));
    Ok(units.map(str::to_owned).next())
}
