//! A small application for tests: `ROOT/app`, its data in `ROOT/data`, releases staged as the download step leaves them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

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
use afterhours::domain::release::MARKER;
use afterhours::domain::release::Marker;
use afterhours::domain::release::ReleaseId;
use afterhours::domain::span::Span;
use afterhours::files::staged;
use afterhours::install::Exchange;
use afterhours::install::Installer;

/// Patterns as the configuration makes them.
pub(crate) fn patterns(texts: &[&str]) -> Patterns {
    let mut set = globset::GlobSetBuilder::new();
    for text in texts {
        set.add(globset::GlobBuilder::new(text).literal_separator(true).build().unwrap());
    }
    Patterns { texts: texts.iter().map(ToString::to_string).collect(), set: set.build().unwrap() }
}

/// The application below `root`.
pub(crate) fn settings(root: &Path) -> AppSettings {
    AppSettings {
        name: "orders".parse().unwrap(),
        title: "Order desk".to_owned(),
        install_dir: root.join("app"),
        installed_version: None,
        staging_dir: root.join(".app.afterhours"),
        snapshot_dir: None,
        keep: patterns(&["config/**", "certs/**", "licence.key"]),
        owner: None,
        allow_migrate_as_root: false,
        env: BTreeMap::new(),
        keep_old: 2,
        service: ServiceSettings { control: ServiceControl::None, deadline: Span::mins(1), port: None },
        health: HealthSettings {
            probe: HealthProbe::None,
            ca_file: None,
            version: None,
            deep: None,
            times: 1,
            every: Span::secs(1),
            deadline: Span::mins(1),
        },
        data: DataSettings::Paths {
            paths: vec![root.join("data")],
            include: Patterns::default(),
            exclude: patterns(&["cache/**"]),
        },
        backup: None,
        feed: FeedSettings::Dir(root.join("feed")),
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
            started_by: true,
            group: Vec::new(),
            mail: ReportMail::default(),
            language: "en".to_owned(),
        },
        hooks: HookSettings::default(),
        restart: None,
        secrets: Vec::new(),
    }
}

/// The installer of the application below `root`.
pub(crate) fn installer(root: &Path, exchange: Exchange) -> Installer {
    Installer::with(&settings(root), exchange, BTreeMap::new())
}

/// `2.0 (build 2)` for 2.
pub(crate) fn release(build: u64) -> ReleaseId {
    ReleaseId { version: format!("{build}.0").parse().unwrap(), build }
}

/// Writes a file with the directories above it.
pub(crate) fn put(path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Stages release `build` below `root`: a program, and the vendor's defaults.
pub(crate) fn stage(root: &Path, build: u64) -> PathBuf {
    let tree = installer(root, Exchange::Atomic).staged_path(&release(build));
    for n in 0..4 {
        put(tree.join(format!("bin/program-{n}")), format!("program {n} of release {build}"));
    }
    put(tree.join("config/app.toml"), format!("default of release {build}"));
    put(tree.join("config/same.toml"), "never changes");
    put(tree.join(format!("only-in-{build}")), "");
    put(tree.join(MARKER), Marker { id: release(build), archives: Vec::new() }.to_text());
    seal(&tree, build);
    tree
}

/// Records that what stands at `tree` now is release `build`, as staging does.
pub(crate) fn seal(tree: &Path, build: u64) {
    staged::seal(tree, tree, &Marker { id: release(build), archives: Vec::new() }).unwrap();
}

/// Installs release 1 below `root` by hand, with an administrator's changes, and data.
pub(crate) fn install(root: &Path) {
    let app = root.join("app");
    for n in 0..4 {
        put(app.join(format!("bin/program-{n}")), format!("program {n} of release 1"));
    }
    put(app.join("only-in-1"), "");
    put(app.join("config/app.toml"), "changed by the administrator");
    put(app.join("config/same.toml"), "never changes");
    put(app.join("config/sites/north.toml"), "north");
    put(app.join("licence.key"), "1234");
    let data = root.join("data");
    for n in 0..6 {
        put(data.join(format!("books/{n}")), format!("book {n}"));
    }
    put(data.join("cache/page"), "cached");
}
