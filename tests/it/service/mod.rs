//! Services against real init systems and real processes. Every implementation passes [`conformance`].

mod commands;
mod ourselves;
mod supervised;
mod systemd;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

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
use afterhours::domain::finding::Severity;
use afterhours::domain::span::Span;
use afterhours::service::Service;
use afterhours::service::ServiceError;
use afterhours::service::ServiceStatus;

use crate::support::eventually;

/// The application: counts its starts, tells its number, and may have a child that ignores TERM.
const APP: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
echo started >> starts
echo "$GREETING" > greeting
if [ -e stubborn ]; then
    sh -c 'trap "" TERM; echo $$ > child.tmp; mv child.tmp child.pid; exec sleep 1000' &
fi
echo $$ > app.tmp
mv app.tmp app.pid
exec sleep 1000
"#;

const BOUND: Duration = Duration::from_secs(20);

/// One application under the control of one implementation.
struct App {
    /// Its folder as seen from here.
    dir: PathBuf,
    /// Its process table as seen from here.
    proc: PathBuf,
    /// A port that must be closed for it to count as stopped.
    port: SocketAddr,
}

impl App {
    /// Writes it into `dir`.
    fn at(dir: &Path, proc: &Path) -> Self {
        fs_err::create_dir_all(dir).unwrap();
        script(&dir.join("app.sh"), APP);
        // Bound and left again: nobody else gets this number soon.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { dir: dir.to_owned(), proc: proc.to_owned(), port }
    }

    fn starts(&self) -> usize {
        fs_err::read_to_string(self.dir.join("starts")).map_or(0, |text| text.lines().count())
    }

    /// The process that wrote `file`, once it did.
    async fn pid(&self, file: &str) -> i32 {
        let file = self.dir.join(file);
        eventually("the application tells its number", BOUND, async || file.exists()).await;
        let pid = fs_err::read_to_string(&file).unwrap().trim().parse().unwrap();
        fs_err::remove_file(&file).unwrap();
        pid
    }

    fn lives(&self, pid: i32) -> bool {
        let stat = fs_err::read_to_string(self.proc.join(pid.to_string()).join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    fn stubborn(&self) {
        fs_err::write(self.dir.join("stubborn"), "").unwrap();
    }
}

/// What every implementation keeps. `missing` is the same control of something that does not exist.
async fn conformance(service: &Service, missing: &Service, app: &App) {
    let env = BTreeMap::new();
    let running = async || matches!(service.status().await, Ok(ServiceStatus::Running { .. }));

    assert_eq!(service.status().await.unwrap(), ServiceStatus::Stopped, "before anything");
    service.stop(&env).await.expect("stopping what never ran is nothing");
    let bad: Vec<_> = service.check().await.into_iter().filter(|found| found.severity == Severity::Fatal).collect();
    assert_eq!(bad, [], "all is well");

    service.start(&env).await.unwrap();
    assert!(running().await, "{:?}", service.status().await);
    let first = app.pid("app.pid").await;
    service.start(&env).await.expect("starting what runs is nothing");
    assert!(app.lives(first));
    assert_eq!(app.starts(), 1, "it was not started twice");

    service.stop(&env).await.unwrap();
    assert!(!app.lives(first));
    assert_eq!(service.status().await.unwrap(), ServiceStatus::Stopped);
    service.stop(&env).await.expect("stopping twice is nothing");

    app.stubborn();
    service.start(&env).await.unwrap();
    let (second, child) = (app.pid("app.pid").await, app.pid("child.pid").await);
    assert!(app.lives(second) && app.lives(child));
    service.stop(&env).await.unwrap();
    assert!(!app.lives(second));
    assert!(!app.lives(child), "a child that ignores TERM was left");
    assert_eq!(service.status().await.unwrap(), ServiceStatus::Stopped, "ended by force is stopped");

    let listener = TcpListener::bind(app.port).unwrap();
    let error = service.stop(&env).await.expect_err("the port is open");
    assert!(matches!(error, ServiceError::PortOpen { port } if port == app.port), "{error}");
    assert!(error.hint().is_some());
    drop(listener);
    service.stop(&env).await.expect("the port is closed");

    let error = missing.start(&env).await.expect_err("there is nothing to start");
    assert!(matches!(error, ServiceError::NoProgram { .. } | ServiceError::NoUnit { .. }), "{error}");
    assert!(error.hint().is_some());
    assert!(missing.check().await.iter().any(|found| found.severity == Severity::Fatal && found.remedy.is_some()));

    let hold = app.dir.join("hold");
    for _ in 0..2 {
        service.install_hold(&hold).await.unwrap();
    }
    for _ in 0..2 {
        service.remove_hold().await.unwrap();
    }
}

fn script(file: &Path, text: &str) {
    fs_err::write(file, text).unwrap();
    fs_err::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn settings(dir: &Path, control: ServiceControl, port: Option<SocketAddr>, deadline: Span) -> AppSettings {
    AppSettings {
        name: "orders".parse().unwrap(),
        title: "Order desk".to_owned(),
        install_dir: dir.to_owned(),
        installed_version: None,
        staging_dir: dir.join(".staging"),
        snapshot_dir: None,
        keep: Patterns::default(),
        owner: None,
        allow_migrate_as_root: false,
        env: BTreeMap::new(),
        keep_old: 1,
        service: ServiceSettings { control, deadline, port },
        health: HealthSettings {
            probe: HealthProbe::None,
            ca_file: None,
            version: None,
            deep: None,
            times: 1,
            every: Span::secs(1),
            deadline: Span::secs(1),
        },
        data: DataSettings::Paths { paths: Vec::new(), include: Patterns::default(), exclude: Patterns::default() },
        backup: None,
        feed: FeedSettings::Dir(dir.to_owned()),
        updates: UpdateSettings::default(),
        sessions: Vec::new(),
        sessions_per_user_max: 16,
        people: PeopleSettings::default(),
        gate: Vec::new(),
        grace: Span::ZERO,
        reminders: Vec::new(),
        polite_end: Span::ZERO,
        census_wait: Span::ZERO,
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

#[tokio::test]
async fn no_process_is_always_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::new(&settings(dir.path(), ServiceControl::None, None, Span::secs(1)), dir.path());
    service.start(&BTreeMap::new()).await.unwrap();
    assert_eq!(service.status().await.unwrap(), ServiceStatus::Stopped);
    service.stop(&BTreeMap::new()).await.unwrap();
}
