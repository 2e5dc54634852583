//! Every finding that keeps a run from beginning, made real.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;

use afterhours::config::settings::AppSettings;
use afterhours::config::settings::DataSettings;
use afterhours::domain::finding::Finding;
use afterhours::domain::finding::Severity;
use afterhours::domain::progress::Silent;
use afterhours::domain::run::RunId;
use afterhours::domain::span::Span;
use afterhours::install::Installer;
use afterhours::install::SpaceNeed;

use super::app;
use super::app::put;
use super::mounted::Mounted;
use super::mounted::run;

use crate::support::sh;

pub(super) async fn look(app: &AppSettings, need: SpaceNeed) -> Vec<Finding> {
    let findings = Installer::new(app).check(need).await;
    for finding in &findings {
        assert_eq!(finding.severity == Severity::Good, finding.remedy.is_none(), "{finding:?}");
    }
    findings
}

/// The one finding of a check that is not good.
pub(super) async fn bad(app: &AppSettings, check: &str) -> Finding {
    let findings = look(app, SpaceNeed::default()).await;
    let found = findings.iter().find(|finding| finding.check == check && finding.severity != Severity::Good);
    found.unwrap_or_else(|| panic!("nothing bad about {check} in {findings:#?}")).clone()
}

#[tokio::test]
async fn all_is_good_with_a_plain_installation_and_nothing_is_left_behind() {
    let root = tempfile::tempdir().unwrap();
    app::install(root.path());
    let before = super::manifest::contents(root.path());
    let findings =
        look(&app::settings(root.path()), SpaceNeed { download_bytes: 1, unpacked_bytes: 1, backup_bytes: None }).await;
    assert!(findings.iter().all(|finding| finding.severity == Severity::Good), "{findings:#?}");
    let mut checks: Vec<&str> = findings.iter().map(|finding| finding.check.as_str()).collect();
    checks.dedup();
    assert_eq!(checks, ["install_dir", "exchange", "owner", "data", "space", "inodes", "open_files"]);
    assert_eq!(super::manifest::contents(root.path()), before);
    assert!(!root.path().join(".data.afterhours-snapshot").exists());
    assert!(!root.path().join(".app.afterhours").exists(), "what is looked for is not made");
    let mut app = app::settings(root.path());
    app.snapshot_dir = Some(root.path().join("copies"));
    look(&app, SpaceNeed::default()).await;
    assert!(!root.path().join("copies").exists());
}

#[tokio::test]
async fn what_a_check_that_was_killed_has_left_is_removed_by_the_next() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    put(root.join(".afterhours-test-Ab12/written"), "");
    put(root.join(".app.afterhours/.afterhours-test-Cd34/renamed"), "");
    put(root.join(".afterhours-test-of-mine"), "no folder");
    fs::set_permissions(root.join(".app.afterhours"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    look(&app::settings(root), SpaceNeed::default()).await;
    let left = |dir: std::path::PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left(root.join(".app.afterhours")).next().is_none());
    let mut names: Vec<_> = left(root.to_owned()).collect();
    names.sort();
    assert_eq!(names, [".afterhours-test-of-mine", ".app.afterhours", "app", "data"]);
}

#[tokio::test]
async fn an_installation_that_cannot_be_exchanged() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let app = app::settings(root);
    assert!(bad(&app, "install_dir").await.text.contains("does not exist"));
    app::install(&root.join("real"));
    symlink(root.join("real/app"), root.join("app")).unwrap();
    assert!(bad(&app, "install_dir").await.text.contains("is a link to"));
    fs::remove_file(root.join("app")).unwrap();
    put(root.join("app"), "a file");
    assert!(bad(&app, "install_dir").await.text.contains("not a directory"));

    let mounted = Mounted::tmpfs(1024);
    let mut app = app::settings(root);
    app.install_dir = mounted.at();
    assert!(bad(&app, "install_dir").await.text.contains("is a mount point"));
    app.install_dir = mounted.at().parent().unwrap().to_owned();
    let finding = bad(&app, "install_dir").await;
    assert!(finding.text.contains("is mounted inside"), "{finding:?}");
    assert_eq!(finding.severity, Severity::Fatal);
}

#[tokio::test]
async fn a_bind_mount_of_the_same_file_system_is_a_mount_point() {
    let root = tempfile::tempdir().unwrap();
    let mounted = Mounted::tmpfs(1024);
    app::install(&mounted.at());
    let (from, to) = (mounted.at().join("app"), mounted.at().join("bound"));
    fs::create_dir(&to).unwrap();
    run("mount", "mount", &["--bind", from.to_str().unwrap(), to.to_str().unwrap()]);
    let mut app = app::settings(root.path());
    app.install_dir = to.clone();
    let finding = Installer::new(&app).check(SpaceNeed::default()).await.remove(0);
    run("mount", "umount", &[to.to_str().unwrap()]);
    assert!(finding.text.contains("is a mount point"), "{finding:?}");
}

#[tokio::test]
async fn a_staging_folder_elsewhere_or_read_only() {
    let root = tempfile::tempdir().unwrap();
    app::install(root.path());
    let mounted = Mounted::tmpfs(4096);
    let mut app = app::settings(root.path());
    app.staging_dir = mounted.at().join("staging");
    assert!(bad(&app, "exchange").await.remedy.unwrap().contains("must be on the file system"));

    app::install(&mounted.at());
    run("mount", "mount", &["-o", "remount,ro", mounted.at().to_str().unwrap()]);
    let finding = bad(&app::settings(&mounted.at()), "exchange").await;
    assert!(finding.remedy.unwrap().contains("remount,rw"));
}

#[tokio::test]
async fn too_little_space_and_too_few_inodes() {
    let mounted = Mounted::tmpfs(4096);
    app::install(&mounted.at());
    let app = app::settings(&mounted.at());
    let need = SpaceNeed { download_bytes: 3 << 20, unpacked_bytes: 3 << 20, backup_bytes: None };
    let findings = look(&app, need).await;
    let space = findings.iter().find(|finding| finding.check == "space").unwrap();
    assert_eq!(space.severity, Severity::Fatal, "{space:?}");
    assert!(space.text.contains("8 MiB are needed"), "{space:?}");
    // The data count, too.
    put(mounted.at().join("data/big"), vec![1; 2 << 20]);
    assert_eq!(bad(&app, "space").await.severity, Severity::Fatal);
    run("mount", "mount", &["-o", "remount,nr_inodes=45", mounted.at().to_str().unwrap()]);
    assert_eq!(bad(&app, "inodes").await.severity, Severity::Fatal);
}

#[tokio::test]
async fn a_dump_needs_room_too() {
    let mounted = Mounted::tmpfs(4096);
    app::install(&mounted.at());
    let mut app = app::settings(&mounted.at());
    app.data = DataSettings::Dump {
        dump: sh("head -c 1500000 /dev/zero > $AFTERHOURS_SNAPSHOT"),
        restore: sh("true"),
        verify: None,
        deadline: Span::secs(20),
    };
    let unknown = bad(&app, "dump_size").await;
    assert_eq!(unknown.severity, Severity::Warning);
    assert!(unknown.remedy.unwrap().contains("room"));

    let told = |findings: &[Finding], check: &str| {
        let found = findings.iter().find(|finding| finding.check == check).unwrap();
        (found.severity, found.text.clone())
    };
    let like_the_backup = SpaceNeed { backup_bytes: Some(8 << 20), ..SpaceNeed::default() };
    let findings = look(&app, like_the_backup).await;
    let expected = "a dump of 8 MiB is expected, like the newest backup";
    assert_eq!(told(&findings, "dump_size"), (Severity::Good, expected.to_owned()));
    assert_eq!(told(&findings, "space").0, Severity::Fatal);

    // One that was made says more than a backup, also when it is gone.
    Installer::new(&app).snapshot(RunId(7), Arc::new(Silent)).await.unwrap();
    Installer::new(&app).discard(RunId(7)).await.unwrap();
    Installer::new(&app).empty_trash().await.unwrap();
    let findings = look(&app, like_the_backup).await;
    let expected = "a dump of 2 MiB is expected, like the last one";
    assert_eq!(told(&findings, "dump_size"), (Severity::Good, expected.to_owned()));
    assert_eq!(told(&findings, "space").0, Severity::Good);
}

#[tokio::test]
async fn owners_and_data() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let mut app = app::settings(root);
    app.owner = Some("nobody-of-that-name:root".to_owned());
    assert_eq!(bad(&app, "owner").await.severity, Severity::Fatal);
    app.owner = Some("1234:1234".to_owned());
    assert_eq!(bad(&app, "owner").await.severity, Severity::Warning);
    app.owner = None;
    chown(root.join("app/bin/program-0"), Some(1234), None).unwrap();
    assert!(bad(&app, "owner").await.text.starts_with("1 entries"));
    app.data = DataSettings::Paths {
        paths: vec![root.join("nowhere"), root.join("db.sqlite"), root.to_owned()],
        include: app::patterns(&[]),
        exclude: app::patterns(&[]),
    };
    put(root.join("db.sqlite"), "");
    put(root.join("db.sqlite-wal"), "");
    let findings: Vec<_> = look(&app, SpaceNeed::default()).await.into_iter().filter(|f| f.check == "data").collect();
    assert_eq!(
        findings.iter().map(|f| f.severity).collect::<Vec<_>>(),
        [Severity::Fatal, Severity::Warning, Severity::Fatal]
    );
}

#[tokio::test]
async fn somebody_writes_to_the_installation() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let file = root.join("app/only-in-1");
    let script = format!("exec 9>>{}; echo ready; read wait", file.display());
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let finding = bad(&app::settings(root), "open_files").await;
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.text.contains("only-in-1"), "{finding:?}");
    let findings = look(&app::settings(root), SpaceNeed::default()).await;
    assert!(findings.iter().all(|finding| finding.severity == Severity::Good));
}
