//! The configuration that `afterhours init` writes.

use crate::config::DEFAULT;
use crate::domain::name::AppName;

/// The application of the commented example.
const EXAMPLE: &str = "orders";
const EXAMPLE_TITLE: &str = "Order desk";
/// What an application cannot do without, and what everybody should say.
const ACTIVE: [&str; 4] = ["title", "install_dir", "service", "feed"];

/// A commented configuration: [`DEFAULT`], with a real `[app.NAME]` where an application is named.
///
/// Its paths and its unit are guesses from the name, to be looked over.
pub fn template(app: Option<&AppName>) -> String {
    match app {
        None => DEFAULT.to_owned(),
        Some(app) => DEFAULT.lines().map(|line| of_app(line, app.as_str()) + "\n").collect(),
    }
}

fn of_app(line: &str, app: &str) -> String {
    if line == format!("#[app.{EXAMPLE}]") {
        // A name with dots is one key, not several.
        return if app.contains('.') { format!("[app.\"{app}\"]") } else { format!("[app.{app}]") };
    }
    let key = line.strip_prefix('#').and_then(|line| line.split_once(" = ")).map(|(key, _)| key);
    let line = line.replace(EXAMPLE_TITLE, app);
    match (key, line.strip_prefix('#')) {
        // `port` is part of the example and no guess anybody could make.
        (Some("service"), _) => format!("service = {{ systemd = \"{app}.service\" }}"),
        (Some(key), Some(active)) if ACTIVE.contains(&key) => active.replace(EXAMPLE, app),
        _ => line.replace(EXAMPLE, app),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::config::settings::ServiceControl;

    #[test]
    fn a_named_application_is_there_at_once() {
        for name in ["crm", "a.b", "orders"] {
            let app: AppName = name.parse().unwrap();
            let text = template(Some(&app));
            let settings = parse(&text, "template").unwrap();
            let app = &settings.apps[&app];
            assert_eq!(app.title, name);
            assert_eq!(app.install_dir.to_str(), Some(format!("/opt/{name}").as_str()));
            assert_eq!(app.service.control, ServiceControl::Systemd { units: vec![format!("{name}.service")] });
            assert!(app.backup.is_none());
        }
    }

    #[test]
    fn without_a_name_it_is_the_reference() {
        let settings = parse(&template(None), "template").unwrap();
        assert!(settings.apps.is_empty());
    }
}
