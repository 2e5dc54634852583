//! The whole in one line, for a monitoring system; pure.

use serde::Serialize;

use crate::cli::text::Times;
use crate::cli::text::count;
use crate::domain::name::AppName;
use crate::domain::run::Outcome;
use crate::wire::run::RunStateName;
use crate::wire::status::AppView;
use crate::wire::status::StatusView;

/// How bad it is, as plugins of monitoring systems say it; each has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// All is well.
    Ok = 0,
    /// Somebody should look.
    Warning = 1,
    /// Somebody must look now.
    Critical = 2,
    /// It cannot be found out.
    Unknown = 3,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// How bad it is.
    pub(crate) level: Level,
    /// Why, the worst first.
    pub(crate) text: String,
}

impl Check {
    /// Nothing can be said, and why.
    pub(crate) fn unknown(why: impl ToString) -> Self {
        Self { level: Level::Unknown, text: why.to_string() }
    }

    /// `AFTERHOURS OK - 2 applications; next: nightly in 5h 12m`.
    pub(crate) fn line(&self) -> String {
        let level = match self.level {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
            Level::Unknown => "UNKNOWN",
        };
        // A plugin has one line, and what follows a bar is figures.
        let text: String = self.text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/");
        format!("AFTERHOURS {level} - {text}")
    }
}

/// Judges everything, or one application.
pub(crate) fn check(view: &StatusView, app: Option<&AppName>, times: &Times) -> Check {
    if let Some(app) = app.filter(|app| !view.apps.iter().any(|view| view.app == **app)) {
        return Check::unknown(format!("there is no application {app} in the configuration"));
    }
    let is_meant = |name: &AppName| app.is_none_or(|app| app == name);
    let mut found: Vec<(Level, String)> = Vec::new();
    if view.daemon.is_none() {
        found.push((Level::Critical, "no daemon runs, so no job starts".to_owned()));
    }
    for run in view.runs.iter().filter(|run| is_meant(&run.app) && run.state == RunStateName::Stuck) {
        found.push((Level::Critical, format!("run {} of {} is stuck and waits for a person", run.id, run.app)));
    }
    let is_at_work = |name: &AppName| {
        view.runs.iter().any(|run| run.app == *name && run.started_at.is_some() && !run.state.is_settled())
    };
    for app in view.apps.iter().filter(|app| is_meant(&app.app)) {
        found.extend(of_app(app, is_at_work(&app.app)).into_iter().map(|text| (Level::Warning, text)));
    }
    found.extend(view.notices.iter().map(|notice| (Level::Warning, notice.clone())));
    // The order within a level stays.
    found.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    match found.first() {
        Some((level, _)) => {
            let text = found.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("; ");
            Check { level: *level, text }
        }
        None => Check { level: Level::Ok, text: all_well(view, app, times) },
    }
}

fn of_app(view: &AppView, at_work: bool) -> Vec<String> {
    let app = &view.app;
    let mut found = Vec::new();
    if let Some(last) = &view.last_run {
        match last.outcome {
            Some(Outcome::Failed) => found.push(format!("the last run of {app}, {}, failed", last.id)),
            Some(Outcome::RolledBack) => found.push(format!("the last run of {app}, {}, was put back", last.id)),
            Some(Outcome::Succeeded | Outcome::Cancelled | Outcome::Skipped) | None => {}
        }
    }
    if !view.gate.admits && !at_work {
        found.push(format!("the gate of {app} is closed"));
    }
    if view.sessions.is_none() {
        found.push(format!("who is logged in to {app} is not known"));
    }
    if let Some(failure) = view.last_check.as_ref().and_then(|check| check.failure.as_ref()) {
        found.push(format!("newer releases of {app} cannot be looked for: failed to {}", failure.message));
    }
    found
}

fn all_well(view: &StatusView, app: Option<&AppName>, times: &Times) -> String {
    let what = match app {
        Some(app) => app.to_string(),
        None => count(view.apps.len(), "application"),
    };
    let mut parts = vec![what];
    let under_way = view.runs.iter().find(|run| app.is_none_or(|app| *app == run.app) && run.started_at.is_some());
    parts.extend(under_way.map(|run| format!("run {} of {} is under way", run.id, run.app)));
    let next = view.next.iter().find(|next| app.is_none_or(|app| *app == next.app));
    parts.extend(next.map(|next| format!("next: {} {}", next.job, times.away(next.due_at))));
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn times() -> Times {
        Times::in_zone("2026-11-22T01:30:00Z".parse().unwrap(), chrono_tz::Tz::Europe__Berlin)
    }

    fn line(change: impl FnOnce(&mut Value)) -> (Level, String) {
        let mut page = json!({
            "daemon": {"version": "0.1.0", "pid": 812, "started_at": "2026-11-20T08:00:00Z",
                       "now_at": "2026-11-22T01:30:00Z", "zone": "Europe/Berlin", "jobs": 1},
            "apps": [{"app": "orders", "title": "Order desk", "installed": null,
                      "gate": {"app": "orders", "position": "open", "admits": true},
                      "sessions": 3, "last_run": {"id": 7, "outcome": "succeeded", "finished_at": null}}],
            "next": [{"job": "nightly", "app": "orders", "due_at": "2026-11-22T03:30:00Z"}],
            "runs": [], "notices": []
        });
        change(&mut page);
        let found = check(&serde_json::from_value(page).unwrap(), None, &times());
        (found.level, found.line())
    }

    #[test]
    fn a_good_night_is_ok() {
        let expected = "AFTERHOURS OK - 1 application; next: nightly in 2h";
        assert_eq!(line(|_| {}), (Level::Ok, expected.to_owned()));
    }

    #[test]
    fn what_somebody_should_see_is_a_warning_and_what_stands_still_is_critical() {
        let (level, text) = line(|page| page["apps"][0]["last_run"]["outcome"] = json!("rolled_back"));
        assert_eq!(
            (level, text.as_str()),
            (Level::Warning, "AFTERHOURS WARNING - the last run of orders, 7, was put back")
        );
        assert_eq!(line(|page| page["apps"][0]["gate"]["admits"] = json!(false)).0, Level::Warning);
        assert_eq!(line(|page| page["apps"][0]["sessions"] = Value::Null).0, Level::Warning);
        let (level, text) = line(|page| page["notices"] = json!(["two\nlines | more"]));
        assert_eq!((level, text.as_str()), (Level::Warning, "AFTERHOURS WARNING - two lines / more"));
        let (level, text) = line(|page| {
            page["daemon"] = Value::Null;
            page["notices"] = json!(["a mail"]);
        });
        let expected = "AFTERHOURS CRITICAL - no daemon runs, so no job starts; a mail";
        assert_eq!((level, text.as_str()), (Level::Critical, expected));
    }

    #[test]
    fn an_application_that_is_not_there_is_unknown() {
        let page = json!({"daemon": null, "apps": [], "next": [], "runs": [], "notices": []});
        let found = check(&serde_json::from_value(page).unwrap(), Some(&"crm".parse().unwrap()), &times());
        assert_eq!((found.level, found.level as u8), (Level::Unknown, 3));
    }
}
