//! `service` and `health`.

use std::collections::BTreeMap;

use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::input::HealthInput;
use crate::config::input::ServiceInput;
use crate::config::lower::check;
use crate::config::settings::HealthProbe;
use crate::config::settings::HealthSettings;
use crate::config::settings::ServiceControl;
use crate::config::settings::ServiceSettings;
use crate::domain::span::Span;

const SERVICE_DEADLINE: Span = Span::mins(2);
const HEALTH_TIMES: u32 = 3;
const HEALTH_EVERY: Span = Span::secs(1);
const HEALTH_DEADLINE: Span = Span::secs(60);

/// The endings of unit names; a name without one is a service, as for `systemctl`.
const UNIT_TYPES: [&str; 5] = [".service", ".target", ".socket", ".scope", ".slice"];

/// How the application is started and stopped.
pub(super) fn service(place: &Place, input: Option<ServiceInput>) -> Result<ServiceSettings, Problem> {
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
    check::only_with(place, "run", kind == "run", &[("env", input.env.is_some())])?;
    let must = |key: &str, args| {
        let place = place.key(key);
        check::argv(&place, Option::ok_or_else(args, || place.missing("`start`, `stop` and `status` belong together"))?)
    };
    let control = if let Some(unit) = input.systemd {
        ServiceControl::Systemd { unit: unit_name(&place.key("systemd"), unit)? }
    } else if let Some(run) = input.run {
        let env = environment(&place.key("env"), input.env.unwrap_or_default())?;
        ServiceControl::Supervised { run: check::argv(&place.key("run"), run)?, env }
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

fn unit_name(place: &Place, unit: String) -> Result<String, Problem> {
    if unit.trim().is_empty() || unit.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
        return Err(place.wrong(format!("\"{unit}\" is no unit name")).hint("write it as in `systemctl status NAME`"));
    }
    let has_type = UNIT_TYPES.iter().any(|ending| unit.ends_with(ending));
    Ok(if has_type { unit } else { format!("{unit}.service") })
}

fn environment(place: &Place, env: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Problem> {
    match env.iter().find(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0')) {
        Some((key, _)) => Err(place.key(key).wrong("cannot be an environment variable")),
        None => Ok(env),
    }
}

/// How the application is known to work.
pub(super) fn health(place: &Place, input: HealthInput) -> Result<HealthSettings, Problem> {
    let kinds = [("http", input.http.is_some()), ("tcp", input.tcp.is_some()), ("command", input.command.is_some())];
    check::at_most_one(place, &kinds)?;
    let probe = if let Some(url) = input.http {
        HealthProbe::Http(check::http_url(&place.key("http"), &url)?)
    } else if let Some(addr) = input.tcp {
        HealthProbe::Tcp(check::socket_addr(&place.key("tcp"), &addr)?)
    } else if let Some(command) = input.command {
        HealthProbe::Command(check::argv(&place.key("command"), command)?)
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
        deep: check::maybe_argv(&place.key("deep"), input.deep)?,
        times,
        every,
        deadline,
    })
}
