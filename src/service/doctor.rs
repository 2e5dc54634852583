//! Looks whether units of systemd could be stopped, kept down and started again, without touching them.

use std::time::Duration;

use crate::domain::finding::Finding;
use crate::domain::span::Span;
use crate::service::ServiceStatus;
use crate::service::bus::call;
use crate::service::bus::service_at;
use crate::service::error::ServiceError;
use crate::service::plan::Plan;
use crate::service::plan::Planned;
use crate::service::plan::Tie;
use crate::service::systemd::Contact;
use crate::service::systemd::Systemd;

impl Systemd {
    pub(crate) async fn check(&self) -> Vec<Finding> {
        let contact = match self.contact().await {
            Ok(contact) => contact,
            Err(error) => return vec![error.finding("service_bus")],
        };
        let mut findings = vec![Finding::good("service_bus", "systemd answers")];
        let mut all_exist = true;
        for unit in &self.units {
            let exists = self.must_exist(&contact, unit).await;
            all_exist &= exists.is_ok();
            findings.push(match exists {
                Ok(()) => Finding::good("service_unit", format!("{unit} is loaded")),
                Err(error) => error.finding("service_unit"),
            });
        }
        if !all_exist {
            return findings;
        }
        let plan = match self.plan(&contact).await {
            Ok(plan) => plan,
            Err(error) => {
                findings.push(error.finding("service_units"));
                return findings;
            }
        };
        findings.extend(self.told(&plan));
        for unit in &self.units {
            findings.push(self.check_rights(&contact, unit).await);
        }
        findings.push(self.check_hold(&contact, &plan).await);
        for unit in plan.units.iter().filter(|unit| unit.is_ours && unit.name.ends_with(".service")) {
            findings.extend(self.check_stop(&contact, &unit.name).await);
        }
        let (named, one) = (self.units.join(", "), self.units.len() == 1);
        findings.push(match self.status().await {
            Ok(ServiceStatus::Running { .. }) => {
                Finding::good("service_status", format!("{named} {}", if one { "runs" } else { "run" }))
            }
            Ok(ServiceStatus::Stopped) => {
                Finding::good("service_status", format!("{named} {} stopped", if one { "is" } else { "are" }))
            }
            Ok(ServiceStatus::Failed(text)) => {
                let unit = text.split([' ', ':']).next().unwrap_or_default().to_owned();
                Finding::warning("service_status", text, format!("see why: journalctl -u {unit} -n 50"))
            }
            Err(error) => error.finding("service_status"),
        });
        findings
    }

    /// What will happen to each unit that is not named.
    fn told(&self, plan: &Plan) -> Vec<Finding> {
        let mut findings = Vec::new();
        for unit in plan.units.iter().filter(|unit| unit.tie != Tie::Named) {
            let (name, tie) = (&unit.name, tie_in_words(&unit.tie));
            findings.push(match (unit.is_ours, unit.returns) {
                (true, true) => Finding::good(
                    "service_units",
                    format!("{name} ({tie}) is stopped too, kept down, and started again afterwards"),
                ),
                (true, false) => Finding::good(
                    "service_units",
                    format!("{name} ({tie}) is kept down; it is not started afterwards, because it does not run now"),
                ),
                (false, _) => Finding::warning(
                    "service_outside",
                    format!("{name} ({tie}) is stopped along, and started again afterwards"),
                    format!(
                        "where it belongs to the application, write PartOf={} into it; else know that it is away, too",
                        self.units[0]
                    ),
                ),
            });
        }
        if let Some((along, tie)) = &plan.forbidden {
            let error = ServiceError::Forbidden { unit: self.units.join(", "), along: along.clone() };
            let mut finding = error.finding("service_units");
            finding.text = format!("{} ({})", finding.text, tie_in_words(tie));
            findings.push(finding);
        }
        for (name, by) in &plan.stays {
            let all: Vec<String> = self.units.iter().chain([name]).map(|unit| format!("\"{unit}\"")).collect();
            findings.push(Finding::warning(
                "service_stays",
                format!("{name} is wanted by {by} only, and goes on running while the application is updated"),
                format!("where it belongs to the application, name it: service = {{ systemd = [{}] }}", all.join(", ")),
            ));
        }
        findings
    }

    /// Asks for a change of nothing, which needs the same right as starting and stopping.
    async fn check_rights(&self, contact: &Contact, unit: &str) -> Finding {
        let asked = contact.manager.set_unit_properties(unit, true, &[]);
        match call("control", unit, asked).await {
            Ok(()) => Finding::good("service_control", format!("{unit} may be started and stopped")),
            Err(error @ ServiceError::Denied { .. }) => error.finding("service_control"),
            // A systemd that does not know the question does not answer it; the run will tell.
            Err(error) => Finding::warning(
                "service_control",
                format!("could not be asked whether {unit} may be controlled: {error}"),
                "start and stop it once by hand as the daemon's user",
            ),
        }
    }

    async fn check_hold(&self, contact: &Contact, plan: &Plan) -> Finding {
        if let Some(dir) = self.hold(&self.units[0]).unwritable() {
            return Finding::fatal(
                "service_hold",
                format!("{dir} is not writable, so a reboot in the middle of an update could not be held off"),
                "run the daemon as root",
            );
        }
        let foreign = |param: &str| !param.contains("afterhours");
        for Planned { name, .. } in plan.units.iter().filter(|unit| unit.is_held()) {
            let Ok(found) = self.find(contact, name).await else { continue };
            let conditions = found.unit.conditions().await.unwrap_or_default();
            if conditions.iter().any(|(_, trigger, _, param, _)| *trigger && foreign(param)) {
                return Finding::warning(
                    "service_hold",
                    format!("{name} has conditions of the kind \"any of these\" (with a |), which weaken ours"),
                    "write the unit's conditions without the |",
                );
            }
        }
        Finding::good("service_hold", "a reboot in the middle of an update can be held off")
    }

    /// What in a unit file would make a stop fail.
    async fn check_stop(&self, contact: &Contact, unit: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Ok(found) = self.find(contact, unit).await else { return findings };
        let Ok(service) = service_at(&contact.connection, &found.path).await else { return findings };
        if let Ok(mode @ ("process" | "none")) = service.kill_mode().await.as_deref() {
            findings.push(Finding::warning(
                "service_kill_mode",
                format!(
                    "{unit} has KillMode={mode}, so processes may outlive a stop, and the stop then counts as failed"
                ),
                "remove KillMode from the unit file, or set it to mixed",
            ));
        }
        let wait = service.timeout_stop_usec().await.map_or(Span::ZERO, |usec| {
            // Infinity is the largest number there is; it stays longer than any deadline.
            Span::from(Duration::from_secs(usec / 1_000_000))
        });
        if wait >= self.limits.deadline {
            findings.push(Finding::warning(
                "service_stop_timeout",
                format!(
                    "systemd waits longer for {unit} to stop (TimeoutStopSec) than service.deadline allows ({})",
                    self.limits.deadline
                ),
                "raise `service.deadline` above TimeoutStopSec",
            ));
        }
        findings
    }
}

fn tie_in_words(tie: &Tie) -> String {
    match tie {
        Tie::Named => "in the settings".to_owned(),
        Tie::MemberOf(unit) => format!("wanted by {unit}"),
        Tie::PartOf(unit) => format!("part of {unit}"),
        Tie::BoundTo(unit) => format!("bound to {unit}"),
        Tie::Starts(unit) => format!("starts {unit}"),
        Tie::StartedBy(unit) => format!("started by {unit}"),
        Tie::Requires(unit) => format!("requires {unit}"),
    }
}
