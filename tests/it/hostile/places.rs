//! A directory of root's in a place that is not root's.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use afterhours::config::settings::AppSettings;
use afterhours::domain::finding::Severity;
use afterhours::domain::progress::Silent;
use afterhours::domain::run::RunId;
use afterhours::files::trusted::Untrusted;
use afterhours::files::trusted::trusted_dir;
use afterhours::install::Exchange;
use afterhours::install::InstallError;
use afterhours::install::Installer;
use afterhours::install::SpaceNeed;

use crate::install::app;
use crate::install::app::put;
use crate::install::app::release;
use crate::support::users::APP;
use crate::support::users::STRANGER;
use crate::support::users::account;
use crate::support::users::as_user;

fn is_moved_away(by: &str, dir: &Path) -> bool {
    let away = dir.with_extension("away");
    as_user(by, "mv").arg(dir).arg(away).output().unwrap().status.success()
}

/// What the check says is what users can do.
#[test]
fn only_a_trusted_directory_stays_where_it_is() {
    let temp = tempfile::tempdir().unwrap();
    fs_err::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let place = temp.path().join("place");
    let ours = place.join("ours");
    fs_err::create_dir_all(&ours).unwrap();

    fs_err::set_permissions(&place, std::fs::Permissions::from_mode(0o1777)).unwrap();
    trusted_dir(&ours).unwrap();
    assert!(!is_moved_away(STRANGER, &ours));

    fs_err::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&place, Some(account(APP).uid), None).unwrap();
    let refused = trusted_dir(&ours).unwrap_err();
    assert!(matches!(&refused, Untrusted::Owner { path, owner } if *path == place && owner == APP), "{refused}");
    assert!(is_moved_away(APP, &ours));
}

/// A directory that everybody may walk through, with `home`, which is the application's, and the application in it.
fn scene() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    fs_err::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let home = temp.path().join("home");
    app::install(&home);
    give(&home);
    (temp, home)
}

fn give(tree: &Path) {
    for entry in walkdir::WalkDir::new(tree) {
        let user = account(APP);
        std::os::unix::fs::lchown(entry.unwrap().path(), Some(user.uid), Some(user.gid)).unwrap();
    }
}

fn attack(program: &str, args: &[&Path]) {
    let output = as_user(APP, program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The application in its user's home, with a staging place of root's.
fn settings(temp: &Path, home: &Path) -> AppSettings {
    AppSettings { staging_dir: temp.join(".afterhours-orders"), ..app::settings(home) }
}

fn stage(app: &AppSettings, build: u64) -> PathBuf {
    let tree = Installer::new(app).staged_path(&release(build));
    put(tree.join("bin/program-0"), format!("program 0 of release {build}"));
    app::seal(&tree, build);
    tree
}

fn is_untrusted<T: std::fmt::Debug>(answer: Result<T, InstallError>) {
    let error = answer.unwrap_err();
    assert!(matches!(&error, InstallError::Untrusted { .. }), "{error:?}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn a_planted_journal_moves_nothing() {
    let (temp, home) = scene();
    let units = temp.path().join("units");
    fs_err::create_dir(&units).unwrap();
    let staging = home.join(".app.afterhours");
    put(staging.join("aside/evil.service"), "ExecStart=…");
    put(staging.join("staged/2/x"), "");
    let intent = serde_json::json!({"install_dir": units.join("orders.service.d"), "staged": staging.join("staged/2")});
    put(staging.join("exchange.json"), intent.to_string());
    give(&staging);

    let app = app::settings(&home);
    let installer = Installer::new(&app);
    is_untrusted(installer.installed().await);
    is_untrusted(installer.swap(&release(2)).await);
    is_untrusted(installer.hold().await);
    is_untrusted(installer.place().await);
    assert_eq!(installer.marked().await.unwrap(), None, "who only looks may look");
    assert!(!units.join("orders.service.d").exists() && staging.join("aside/evil.service").exists());
    assert!(!staging.join("hold").exists());

    let finding = installer.check_places().await.remove(0);
    assert_eq!((finding.check.as_str(), finding.severity), ("staging_dir", Severity::Fatal));
    assert!(finding.text.contains(APP), "{}", finding.text);
    assert!(finding.text.contains(&home.display().to_string()), "{}", finding.text);
}

#[tokio::test]
async fn where_the_parent_is_the_applications_another_place_is_proposed() {
    let (temp, home) = scene();
    let app = app::settings(&home);
    let finding = Installer::new(&app).check_places().await.remove(0);
    let proposal = temp.path().join(".afterhours-orders");
    let line = format!("set staging_dir = \"{}\" in [app.orders]", proposal.display());
    assert_eq!(finding.remedy.unwrap(), line);
    assert!(!home.join(".app.afterhours").exists());
    let trusted = Installer::new(&settings(temp.path(), &home));
    assert!(trusted.check_places().await.is_empty());
}

/// Even in a place of root's, a journal moves only what we move.
#[tokio::test]
async fn a_journal_that_speaks_of_other_directories_is_refused() {
    let (temp, home) = scene();
    let app = settings(temp.path(), &home);
    put(app.staging_dir.join("aside/x"), "");
    put(app.staging_dir.join("staged/2/x"), "");
    let intent =
        serde_json::json!({"install_dir": temp.path().join("units"), "staged": app.staging_dir.join("staged/2")});
    put(app.staging_dir.join("exchange.json"), intent.to_string());
    assert!(matches!(Installer::new(&app).installed().await, Err(InstallError::Tangled { .. })));
    assert!(!temp.path().join("units").exists());
}

#[tokio::test]
async fn a_link_in_the_staging_place_leads_nowhere() {
    let (temp, home) = scene();
    let etc = temp.path().join("etc");
    put(etc.join("passwd"), "");
    fs_err::set_permissions(&etc, std::fs::Permissions::from_mode(0o755)).unwrap();
    attack("ln", &[Path::new("-s"), &etc, &home.join(".app.afterhours")]);
    let installer = Installer::new(&app::settings(&home));
    is_untrusted(installer.prepare(&release(2)).await);
    is_untrusted(installer.hold().await);
    is_untrusted(installer.snapshot(RunId(1), Arc::new(Silent)).await);
    assert_eq!(fs_err::metadata(&etc).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs_err::read_dir(&etc).unwrap().count(), 1);
}

#[tokio::test]
async fn a_staging_folder_that_is_swapped_between_two_steps_is_not_worked_in() {
    let (temp, home) = scene();
    let other = temp.path().join("other");
    fs_err::create_dir(&other).unwrap();
    let app = AppSettings { staging_dir: other.join("staging"), ..app::settings(&home) };
    stage(&app, 2);
    let installer = Installer::new(&app);
    installer.prepare(&release(2)).await.unwrap();
    // The directory comes into the hands of the application's user, who puts another folder there.
    give_one(&other);
    assert!(is_moved_away(APP, &app.staging_dir));
    attack("mkdir", &[&app.staging_dir]);
    is_untrusted(installer.swap(&release(2)).await);
    is_untrusted(installer.hold().await);
    assert!(home.join("app/only-in-1").exists());
    assert_eq!(fs_err::read_dir(&app.staging_dir).unwrap().count(), 0);
}

fn give_one(dir: &Path) {
    std::os::unix::fs::chown(dir, Some(account(APP).uid), None).unwrap();
}

#[tokio::test]
async fn a_link_on_the_way_to_the_installation_leads_nowhere() {
    let (temp, home) = scene();
    let deep = home.join("deep");
    app::install(&deep);
    give(&deep);
    let app = AppSettings { staging_dir: temp.path().join(".afterhours-orders"), ..app::settings(&deep) };
    stage(&app, 2);
    put(temp.path().join("roots/app/precious"), "");
    attack("mv", &[&deep, &home.join("away")]);
    attack("ln", &[Path::new("-s"), &temp.path().join("roots"), &deep]);
    for how in [Exchange::Atomic, Exchange::Journalled] {
        let installer = Installer::with(&app, how, std::collections::BTreeMap::new());
        assert!(installer.swap(&release(2)).await.is_err());
        assert!(temp.path().join("roots/app/precious").exists());
    }
}

#[tokio::test]
async fn with_a_staging_place_of_roots_the_application_may_own_its_parent() {
    for how in [Exchange::Atomic, Exchange::Journalled] {
        let (temp, home) = scene();
        let app = settings(temp.path(), &home);
        let installer = Installer::with(&app, how, std::collections::BTreeMap::new());
        let fatal = installer.check(SpaceNeed::default()).await;
        assert!(fatal.iter().all(|finding| finding.severity != Severity::Fatal), "{fatal:#?}");
        stage(&app, 2);
        installer.snapshot(RunId(1), Arc::new(Silent)).await.unwrap();
        assert_eq!(installer.swap(&release(2)).await.unwrap().exchange, how);
        installer.swap_back(&release(2)).await.unwrap();
        assert!(home.join("app/only-in-1").exists());
        installer.discard(RunId(1)).await.unwrap();
        stage(&app, 2);
        installer.swap(&release(2)).await.unwrap();
        installer.retire(RunId(2), &[release(2)]).await.unwrap();
        assert_eq!(fs_err::read_to_string(home.join("app/bin/program-0")).unwrap(), "program 0 of release 2");
        assert!(app.staging_dir.join("app_old/only-in-1").exists());
        let mut left: Vec<_> = fs_err::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["app", "data"], "nothing of ours is in the application's directory");
    }
}

#[tokio::test]
async fn copies_of_the_data_lie_where_only_root_can_change_them() {
    let (temp, home) = scene();
    let mut app = settings(temp.path(), &home);
    let copies = async |app: &AppSettings, run: i64| {
        let installer = Installer::new(app);
        installer.snapshot(RunId(run), Arc::new(Silent)).await.unwrap();
        let info = installer.snapshots().await.unwrap().into_iter().find(|info| info.run == RunId(run)).unwrap();
        installer.restore(RunId(run)).await.unwrap();
        info.copies[0].1.clone()
    };
    assert!(copies(&app, 1).await.starts_with(&app.staging_dir));
    app.snapshot_dir = Some(temp.path().join(".copies"));
    assert!(copies(&app, 2).await.starts_with(temp.path().join(".copies")));
    assert!(!home.join(".data.afterhours-snapshot").exists());

    app.snapshot_dir = Some(home.join("copies"));
    let finding = Installer::new(&app).check_places().await.remove(0);
    assert_eq!((finding.check.as_str(), finding.severity), ("snapshot_dir", Severity::Fatal));
    assert!(copies(&app, 3).await.starts_with(&app.staging_dir));
    assert!(!home.join("copies").exists());
    app.snapshot_dir = Some("/proc/copies".into());
    assert!(Installer::new(&app).check_places().await[0].text.contains("another file system"));
}
