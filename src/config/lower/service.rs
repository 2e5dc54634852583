//! `service` and `health`.

use std::collections::BTreeMap;

use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::input::Args;
use crate::config::input::HealthInput;
use crate::config::input::ServiceInput;
use crate::config::lower::check;
use crate::config::lower::secret;
use crate::config::settings::HealthProbe;
use crate::config::settings::HealthSettings;
use crate::config::settings::ServiceControl;
use crate::config::settings::ServiceSettings;
use crate::domain::command::Command;
use crate::domain::command::RunAs;
use crate::domain::command::Tree;
use crate::domain::span::Span;

const SERVICE_DEADLINE: Span = Span::mins(2);
const HEALTH_TIMES: u32 = 3;
const HEALTH_EVERY: Span = Span::secs(1);
const HEALTH_DEADLINE: Span = Span::secs(60);

/// The endings of unit names; a name without one is a service, as for `systemctl`.
const UNIT_TYPES: [&str; 7] = [".service", ".target", ".socket", ".path", ".timer", ".scope", ".slice"];

/// How the application is started and stopped.
pub(super) fn service(place: &Place, input: Option<ServiceInput>, tree: &Tree) -> Result<ServiceSettings, Problem> {
    let input = input.ok_or_else(|| {
        place.missing("say how it is stopped and started: service = { systemd = \"NAME.service\" }, or { none = true }")
    })?;
    let commands = input.start.is_some() || input.stop.is_some() || input.status.is_some();
    let kinds = [
        ("systemd", input.systemd.is_some()),
        ("start", commands),
        ("run", input.run.is_some()),
        ("none", input.none.is_some()),
    ];
    let kind = check::exactly_one(place, &kinds)?;
    let of_run = [("user", input.user.is_some()), ("env", input.env.is_some())];
    check::only_with(place, "run", kind == "run", &of_run)?;
    let must = |key: &str, args| {
        let place = place.key(key);
        let args = Option::ok_or_else(args, || place.missing("`start`, `stop` and `status` belong together"))?;
        check::command(&place, args, tree)
    };
    let control = if let Some(names) = input.systemd {
        ServiceControl::Systemd { units: unit_names(&place.key("systemd"), names.0)? }
    } else if let Some(run) = input.run {
        ServiceControl::Supervised { run: supervised(place, run, input.user, input.env.unwrap_or_default(), tree)? }
    } else if let Some(none) = input.none {
        if !none {
            return Err(place
                .key("none")
                .wrong("can only be true")
                .hint("remove it, and say how the service is controlled"));
        }
        ServiceControl::None
    } else {
        ServiceControl::Commands {
            start: must("start", input.start)?,
            stop: must("stop", input.stop)?,
            status: must("status", input.status)?,
        }
    };
    Ok(ServiceSettings {
        control,
        deadline: check::span(&place.key("deadline"), input.deadline, SERVICE_DEADLINE)?,
        port: input.port.map(|text| check::socket_addr(&place.key("port"), &text)).transpose()?,
    })
}

fn unit_names(place: &Place, names: Vec<String>) -> Result<Vec<String>, Problem> {
    let mut units: Vec<String> = Vec::new();
    for name in names {
        let unit = unit_name(place, name)?;
        if units.contains(&unit) {
            return Err(place
                .wrong(format!("names {unit} twice"))
                .hint("name each unit once, in the order of starting"));
        }
        units.push(unit);
    }
    match units.is_empty() {
        true => Err(place.wrong("is an empty list").hint("name the units, in the order of starting")),
        false => Ok(units),
    }
}

fn unit_name(place: &Place, unit: String) -> Result<String, Problem> {
    if unit.trim().is_empty() || unit.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
        return Err(place.wrong(format!("\"{unit}\" is no unit name")).hint("write it as in `systemctl status NAME`"));
    }
    if unit.ends_with('@') || unit.contains("@.") {
        return Err(place.wrong(format!("\"{unit}\" is a template")).hint(
            "name its instances, as in [\"worker@1.service\", \"worker@2.service\"], or a target that wants them",
        ));
    }
    let has_type = UNIT_TYPES.iter().any(|ending| unit.ends_with(ending));
    Ok(if has_type { unit } else { format!("{unit}.service") })
}

/// A supervised program; `user` and `env` stand beside `run`, or in its table.
fn supervised(
    place: &Place,
    run: Args,
    user: Option<String>,
    env: BTreeMap<String, String>,
    tree: &Tree,
) -> Result<Command, Problem> {
    let mut command = check::command(&place.key("run"), run, tree)?;
    if let Some(user) = user {
        let place = place.key("user");
        let run_as = check::run_as(&place, user)?;
        if command.run_as != RunAs::Owner {
            return Err(place.wrong("is said twice").hint("keep `user`, and leave `as` away"));
        }
        command.run_as = run_as;
    }
    command.env.extend(check::environment(&place.key("env"), env)?);
    Ok(command)
}

/// How the application is known to work.
pub(super) fn health(place: &Place, input: HealthInput, tree: &Tree) -> Result<HealthSettings, Problem> {
    let kinds = [("http", input.http.is_some()), ("tcp", input.tcp.is_some()), ("command", input.command.is_some())];
    check::at_most_one(place, &kinds)?;
    let probe = if let Some(url) = input.http {
        HealthProbe::Http(check::http_url(&place.key("http"), &url)?)
    } else if let Some(addr) = input.tcp {
        HealthProbe::Tcp(check::socket_addr(&place.key("tcp"), &addr)?)
    } else if let Some(command) = input.command {
        HealthProbe::Command(check::command(&place.key("command"), command, tree)?)
    } else {
        HealthProbe::None
    };
    let times = check::at_least_one(&place.key("times"), input.times.unwrap_or(HEALTH_TIMES))?;
    let every = check::span(&place.key("every"), input.every, HEALTH_EVERY)?;
    let deadline = check::span(&place.key("deadline"), input.deadline, HEALTH_DEADLINE)?;
    let least = every.duration().checked_mul(times - 1);
    if least.is_none_or(|least| least >= deadline.duration()) {
        return Err(place
            .key("deadline")
            .wrong(format!("{times} answers, {every} apart, do not fit into {deadline}"))
            .hint("give it more time, or ask for fewer answers (`times`) or more often (`every`)"));
    }
    Ok(HealthSettings {
        probe,
        version: input.version.map(|url| check::http_url(&place.key("version"), &url)).transpose()?,
        ca_file: input.ca_file.map(|file| secret::ca_file(&place.key("ca_file"), &file, "health page")).transpose()?,
        deep: check::maybe_command(&place.key("deep"), input.deep, tree)?,
        times,
        every,
        deadline,
    })
}
