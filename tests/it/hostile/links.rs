//! The application's user puts a link where root goes by a name.

use std::fs;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use afterhours::backup::BackupError;
use afterhours::backup::BackupGate;
use afterhours::config::settings::AppSettings;
use afterhours::config::settings::BackupSettings;
use afterhours::config::settings::DataSettings;
use afterhours::config::settings::EvidenceSettings;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::command::Command;
use afterhours::domain::command::Tree;
use afterhours::domain::finding::Finding;
use afterhours::domain::finding::Severity;
use afterhours::domain::progress::Silent;
use afterhours::domain::run::RunId;
use afterhours::domain::span::Span;
use afterhours::install::InstallError;
use afterhours::install::Installer;
use afterhours::install::SpaceNeed;
use rustix::fs::CWD;

use crate::install::app;
use crate::install::app::put;
use crate::support::users::APP;
use crate::support::users::account;
use crate::support::users::as_user;

const RUN: RunId = RunId(7);
const WITHIN: Duration = Duration::from_secs(20);

/// An application with a directory of its user's, and a directory that is root's alone.
struct Scene {
    root: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        app::install(root.path());
        let scene = Self { root };
        put(scene.victim().join("db/rows"), "root's");
        fs::set_permissions(scene.victim(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(scene.theirs("")).unwrap();
        let user = account(APP);
        std::os::unix::fs::chown(scene.theirs(""), Some(user.uid), Some(user.gid)).unwrap();
        scene
    }

    fn victim(&self) -> PathBuf {
        self.root.path().join("victim")
    }

    fn theirs(&self, name: &str) -> PathBuf {
        self.root.path().join("theirs").join(name)
    }

    fn settings(&self, data: PathBuf) -> AppSettings {
        let mut settings = app::settings(self.root.path());
        settings.data =
            DataSettings::Paths { paths: vec![data], include: app::patterns(&[]), exclude: app::patterns(&[]) };
        settings
    }

    /// What root keeps, as it should be.
    fn is_unharmed(&self) -> bool {
        fs::read_to_string(self.victim().join("db/rows")).is_ok_and(|rows| rows == "root's")
    }
}

/// The application's user runs a command.
fn they_run(program: &str, args: &[&Path]) {
    assert!(as_user(APP, program).args(args).status().unwrap().success(), "{program}");
}

fn they_link(target: &Path, link: &Path) {
    they_run("ln", &[Path::new("-s"), target, link]);
}

#[tokio::test]
async fn a_link_above_data_that_were_absent_leads_no_rollback_to_roots() {
    let scene = Scene::new();
    they_run("mkdir", &[&scene.theirs("data")]);
    let installer = Installer::new(&scene.settings(scene.theirs("data/db")));
    installer.snapshot(RUN, Arc::new(Silent)).await.unwrap();
    they_run("rmdir", &[&scene.theirs("data")]);
    they_link(&scene.victim(), &scene.theirs("data"));
    let error = installer.restore(RUN).await.unwrap_err();
    assert!(scene.is_unharmed());
    assert!(error.to_string().contains("theirs/data"), "{error}");

    they_run("rm", &[&scene.theirs("data")]);
    they_run("mkdir", &[&scene.theirs("data")]);
    they_run("mkdir", &[&scene.theirs("data/db")]);
    installer.restore(RUN).await.unwrap();
    assert!(!scene.theirs("data/db").exists(), "what was not there at the snapshot goes");
}

#[tokio::test]
async fn a_pipe_above_data_that_were_absent_keeps_no_rollback_waiting() {
    let scene = Scene::new();
    let installer = Installer::new(&scene.settings(scene.theirs("data/db")));
    installer.snapshot(RUN, Arc::new(Silent)).await.unwrap();
    let pipe = scene.theirs("data");
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let restored = tokio::time::timeout(WITHIN, installer.restore(RUN)).await;
    // Whoever waits for the other end of the pipe is let go, so that the test can end.
    let _ = File::options().read(true).write(true).open(&pipe);
    restored.unwrap().unwrap();
}

#[tokio::test]
async fn a_link_of_theirs_makes_nobody_elses_data_the_applications() {
    let scene = Scene::new();
    they_link(&scene.victim(), &scene.theirs("data"));
    let installer = Installer::new(&scene.settings(scene.theirs("data")));
    let error = installer.snapshot(RUN, Arc::new(Silent)).await.unwrap_err();
    assert!(matches!(error, InstallError::LeadsElsewhere { .. }), "{error}");
    let findings = installer.check(SpaceNeed::default()).await;
    let link = scene.theirs("data").display().to_string();
    let named = |finding: &Finding| finding.text.contains(&format!("{link} belongs to {APP}"));
    let found = findings.iter().find(|finding| named(finding)).unwrap_or_else(|| panic!("{findings:?}"));
    assert!(found.severity == Severity::Fatal && found.remedy.is_some(), "{found:?}");

    // A link of root's is root's choice.
    let chosen = scene.root.path().join("chosen");
    std::os::unix::fs::symlink(scene.victim(), &chosen).unwrap();
    let installer = Installer::new(&scene.settings(chosen.join("db")));
    installer.snapshot(RUN, Arc::new(Silent)).await.unwrap();
    put(scene.victim().join("db/rows"), "spoilt");
    installer.restore(RUN).await.unwrap();
    assert!(scene.is_unharmed());
}

#[tokio::test]
async fn a_test_of_a_backup_leads_no_rotation_to_roots() {
    let scene = Scene::new();
    let (backup, victim) = (scene.theirs("backup"), scene.victim());
    fs::create_dir(&backup).unwrap();
    for name in ["orders-1", "orders-2", "orders-3"] {
        put(backup.join(name), "their dump");
        put(victim.join(name), "root's");
    }
    put(victim.join(".afterhours-removing-orders-0/deep"), "root's");
    let bend = "mv $1 $1.old && ln -s $2 $1";
    let args = ["sh", "-c", bend, "sh"].map(str::to_owned);
    let test = args.into_iter().chain([backup.display().to_string(), victim.display().to_string()]);
    let gate = |test: Option<Command>| {
        let evidence = EvidenceSettings::Files {
            glob: format!("{}/orders-*", backup.display()),
            min_size_bytes: 1,
            max_shrink_percent: 100,
            test,
        };
        let (max_age, deadline) = (Span::days(2), Span::secs(60));
        BackupGate::new(
            &"orders".parse().unwrap(),
            &BackupSettings { max_age, evidence, make: None, deadline, keep_last: Some(1) },
        )
    };
    let now = SystemClock.now();
    let rotated = gate(Some(Command::of_owner(test.collect(), Tree::new(scene.theirs(""), None)))).rotate(now).await;
    assert!(fs::symlink_metadata(&backup).unwrap().is_symlink(), "the attack did not take place: {rotated:?}");
    let unharmed = || {
        let names = ["orders-1", "orders-2", "orders-3", ".afterhours-removing-orders-0/deep"];
        names.iter().all(|name| victim.join(name).exists())
    };
    assert!(unharmed());
    let error = gate(None).rotate(now).await.unwrap_err();
    assert!(matches!(error, BackupError::LeadsElsewhere { .. }), "{error}");
    assert!(unharmed() && error.hint().is_some());
}
