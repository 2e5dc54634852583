//! An application's settings to begin with; a test changes what it is about.

use std::collections::BTreeMap;

use afterhours::config::settings::AppSettings;
use afterhours::config::settings::DataSettings;
use afterhours::config::settings::FeedSettings;
use afterhours::config::settings::HealthProbe;
use afterhours::config::settings::HealthSettings;
use afterhours::config::settings::HookSettings;
use afterhours::config::settings::OpenGate;
use afterhours::config::settings::Patterns;
use afterhours::config::settings::PeopleSettings;
use afterhours::config::settings::ReportMail;
use afterhours::config::settings::ReportSettings;
use afterhours::config::settings::ServiceControl;
use afterhours::config::settings::ServiceSettings;
use afterhours::config::settings::UpdateSettings;
use afterhours::domain::span::Span;

/// An application that does nothing and is asked nothing.
pub(crate) fn app_settings() -> AppSettings {
    AppSettings {
        name: "orders".parse().unwrap(),
        title: "Order desk".into(),
        install_dir: "/opt/orders".into(),
        installed_version: None,
        staging_dir: "/opt/.orders.afterhours".into(),
        snapshot_dir: None,
        keep: Patterns::default(),
        owner: None,
        allow_migrate_as_root: false,
        env: BTreeMap::new(),
        keep_old: 1,
        service: ServiceSettings { control: ServiceControl::None, deadline: Span::secs(10), port: None },
        health: HealthSettings {
            probe: HealthProbe::None,
            ca_file: None,
            version: None,
            deep: None,
            times: 1,
            every: Span::secs(1),
            deadline: Span::secs(10),
        },
        data: DataSettings::Paths { paths: Vec::new(), include: Patterns::default(), exclude: Patterns::default() },
        backup: None,
        feed: FeedSettings::Dir("/srv/releases/orders".into()),
        updates: UpdateSettings::default(),
        sessions: Vec::new(),
        sessions_per_user_max: 16,
        people: PeopleSettings::default(),
        gate: Vec::new(),
        grace: Span::mins(5),
        reminders: Vec::new(),
        polite_end: Span::secs(10),
        census_wait: Span::mins(1),
        open_gate: OpenGate::Automatic,
        report: ReportSettings {
            started_by: false,
            group: Vec::new(),
            mail: ReportMail::default(),
            language: "en".to_owned(),
        },
        hooks: HookSettings::default(),
        restart: None,
        secrets: Vec::new(),
    }
}
