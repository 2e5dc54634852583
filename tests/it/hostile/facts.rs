//! What lies inside a tree of the application's says nothing about the tree.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use afterhours::domain::release::MARKER;
use afterhours::domain::run::RunId;
use afterhours::files::staged;
use afterhours::install::Exchange;
use afterhours::install::InstallError;

use crate::install::app;
use crate::install::app::put;
use crate::install::app::release;
use crate::night::releases::V2;
use crate::night::site::Site;
use crate::support::users::APP;
use crate::support::users::account;
use crate::support::users::as_user;

/// Longer than reading a small file ever takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// An installation that the application's user may change as he likes.
fn scene() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    app::install(root.path());
    give(&root.path().join("app"));
    root
}

fn give(tree: &Path) {
    for entry in walkdir::WalkDir::new(tree) {
        let user = account(APP);
        std::os::unix::fs::lchown(entry.unwrap().path(), Some(user.uid), Some(user.gid)).unwrap();
    }
}

/// What the application's user does.
fn attack(program: &str, args: &[&str], path: &Path) {
    let output = as_user(APP, program).args(args).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_fifo_or_a_device_as_a_marker_holds_nobody_up() {
    let root = scene();
    let installer = app::installer(root.path(), Exchange::Atomic);
    let marker = root.path().join("app").join(MARKER);
    attack("mkfifo", &[], &marker);
    let read = tokio::time::timeout(DEADLINE, installer.marked()).await.expect("nobody waits for the other end");
    assert!(read.unwrap_err().to_string().starts_with("read "));
    fs_err::remove_file(&marker).unwrap();
    attack("ln", &["-s", "/dev/zero"], &marker);
    let read = tokio::time::timeout(DEADLINE, installer.installed()).await.expect("it is not read without an end");
    assert!(read.is_err());
}

#[tokio::test]
async fn a_tree_that_calls_itself_the_new_release_is_replaced_all_the_same() {
    let root = scene();
    let root = root.path();
    let claim = "printf '{\"version\":\"2.0\",\"build\":2}' >";
    attack("sh", &["-c", &format!("{claim} \"$0\"")], &root.join("app").join(MARKER));
    app::stage(root, 2);
    let installer = app::installer(root, Exchange::Atomic);
    assert_eq!(installer.installed().await.unwrap(), Some(release(2)), "it is a hint, while nothing else is known");
    assert!(!installer.is_swapped(&release(2)).await.unwrap());
    installer.swap(&release(2)).await.unwrap();
    assert!(installer.is_swapped(&release(2)).await.unwrap());
    assert_eq!(fs_err::read_to_string(root.join("app/bin/program-0")).unwrap(), "program 0 of release 2");
    // And what it says afterwards counts as little.
    fs_err::write(root.join("app").join(MARKER), "{\"version\":\"9.0\",\"build\":9}").unwrap();
    assert_eq!(installer.installed().await.unwrap(), Some(release(2)));
    installer.retire(RunId(1), &[release(2)]).await.unwrap();
    assert_eq!(installer.installed().await.unwrap(), Some(release(2)));
}

#[tokio::test]
async fn a_tree_that_was_tampered_with_in_place_is_no_release_after_a_rollback() {
    let root = scene();
    let root = root.path();
    let staged = app::stage(root, 2);
    let installer = app::installer(root, Exchange::Atomic);
    installer.swap(&release(2)).await.unwrap();
    give(&root.join("app"));
    attack("sh", &["-c", "echo evil > \"$0\""], &root.join("app/bin/program-0"));
    // A tree of before that was in place once could be told by this; it says nothing any more.
    attack("mkdir", &["-p"], &root.join("app/.afterhours-prepared"));
    installer.swap_back(&release(2)).await.unwrap();
    assert!(staged::is_spoilt(&staged).unwrap());
    assert!(matches!(installer.prepare(&release(2)).await, Err(InstallError::Spoilt { .. })));
    assert!(matches!(installer.swap(&release(2)).await, Err(InstallError::Spoilt { .. })));
    installer.discard(RunId(1)).await.unwrap();
    assert!(!staged.exists());
    app::stage(root, 2);
    installer.swap(&release(2)).await.unwrap();
    assert_eq!(fs_err::read_to_string(root.join("app/bin/program-0")).unwrap(), "program 0 of release 2");
}

#[tokio::test]
async fn a_staged_file_that_was_changed_is_found_before_anybody_is_disturbed() {
    let root = scene();
    let root = root.path();
    let staged = app::stage(root, 2);
    put(staged.join("bin/program-1"), "something else");
    let installer = app::installer(root, Exchange::Atomic);
    let error = installer.prepare(&release(2)).await.unwrap_err();
    assert!(matches!(&error, InstallError::Altered { what, .. } if what == Path::new("bin/program-1")), "{error}");
    assert!(matches!(installer.prepare(&release(2)).await, Err(InstallError::Spoilt { .. })));
    assert!(root.join("app/only-in-1").exists());
}

/// Compared once while people work, looked at once more when it takes the place of the old version.
#[tokio::test]
async fn a_prepared_file_that_was_changed_is_found_at_the_swap() {
    for how in [Exchange::Atomic, Exchange::Journalled] {
        let root = scene();
        let root = root.path();
        let staged = app::stage(root, 2);
        let installer = app::installer(root, how);
        installer.prepare(&release(2)).await.unwrap();
        let path = staged.join("bin/program-1");
        let content = fs_err::read_to_string(&path).unwrap();
        fs_err::write(&path, "X".repeat(content.len())).unwrap();
        let error = installer.swap(&release(2)).await.unwrap_err();
        assert!(matches!(&error, InstallError::Altered { what, .. } if what == Path::new("bin/program-1")), "{error}");
        assert!(root.join("app/only-in-1").exists(), "the old version stays");
        assert!(matches!(installer.swap(&release(2)).await, Err(InstallError::Spoilt { .. })));
    }
}

#[tokio::test]
async fn a_retired_mark_in_a_tree_does_not_have_it_removed() {
    let root = scene();
    let root = root.path();
    // The administrator's own copy of the application's tree, with a mark that an earlier Afterhours believed.
    put(root.join("app_old.7/.afterhours-retired"), "1");
    put(root.join("app_old.7/precious"), "");
    app::stage(root, 2);
    let installer = app::installer(root, Exchange::Atomic);
    installer.swap(&release(2)).await.unwrap();
    installer.retire(RunId(1), &[release(2)]).await.unwrap();
    assert!(root.join("app_old.7/precious").exists());
    assert!(root.join("app_old/only-in-1").exists());
}

#[tokio::test]
async fn records_in_a_tree_lead_nowhere() {
    let root = scene();
    let root = root.path();
    put(root.join("outside/kept"), "root's");
    attack("mkdir", &[], &root.join("app/.afterhours-prepared"));
    symlink(root.join("outside"), root.join("app/.afterhours-prepared/vendor")).unwrap();
    put(root.join("app/.afterhours-prepared/cleared.json"), "[\"../outside/kept\"]");
    app::stage(root, 2);
    let installer = app::installer(root, Exchange::Atomic);
    installer.swap(&release(2)).await.unwrap();
    installer.swap_back(&release(2)).await.unwrap();
    installer.discard(RunId(1)).await.unwrap();
    assert_eq!(fs_err::read_to_string(root.join("outside/kept")).unwrap(), "root's");
}

/// A version that nobody has installed is shown as what it is: somebody's word. Too high a one stops all updates.
#[tokio::test]
async fn a_marker_that_lies_is_shown_as_unverified_with_what_it_stops() {
    let mut site = Site::new().await;
    std::fs::set_permissions(site.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    V2.publish(&site.feed());
    give(&site.installed());
    let marker = site.installed().join(MARKER);
    let claim = "printf '{\"version\":\"9.9\",\"build\":999}' > \"$0\"";
    attack("sh", &["-c", claim], &marker);
    site.serve().await;

    let (_, status, _) = site.run(&["status"]).await;
    assert!(status.contains("9.9 (build 999), unverified"), "{status}");
    let (_, status, _) = site.run(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["apps"][0]["unverified"], true, "{status}");
    let (_, doctor, _) = site.run(&["doctor", "orders"]).await;
    let (_, check, _) = site.run(&["update", "check", "orders"]).await;
    assert!(check.contains("9.9 (build 999) is installed (unverified), nothing newer"), "{check}");
    for said in [doctor, check] {
        assert!(said.contains(&format!("belongs to {APP}")), "{said}");
        assert!(said.contains("that is newer than all of the feed, whose newest is 2.0"), "{said}");
        assert!(said.contains(&format!("remove {} and set installed_version", marker.display())), "{said}");
    }
    let (_, check, _) = site.run(&["update", "check", "orders", "--json"]).await;
    let check: serde_json::Value = serde_json::from_str(&check).unwrap();
    assert_eq!((&check["unverified"], &check["doubt"]["severity"]), (&true.into(), &"warning".into()), "{check}");

    fs_err::remove_file(&marker).unwrap();
    attack("mkfifo", &[], &marker);
    let (_, doctor, _) = site.run(&["doctor", "orders"]).await;
    assert!(doctor.contains(&format!("look what {} is", marker.display())), "{doctor}");
}
