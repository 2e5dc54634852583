//! Two passes, and back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::UNIX_EPOCH;

use afterhours::config::settings::DataSettings;
use afterhours::domain::progress::Progress;
use afterhours::domain::progress::Silent;
use afterhours::domain::run::RunId;
use afterhours::domain::span::Span;
use afterhours::install::Exchange;
use afterhours::install::InstallError;
use afterhours::install::Installer;
use afterhours::install::SnapshotPhase;
use rstest::rstest;

use super::app;
use super::app::put;
use super::manifest::manifest;
use super::mounted::Mounted;

use crate::support::sh;

const RUN: RunId = RunId(7);

fn quiet() -> Arc<dyn Progress> {
    Arc::new(Silent)
}

/// The data without what is excluded, and without the time of the directory that holds that.
fn data(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut lines = manifest(&root.join("data"));
    lines.retain(|path, _| !path.starts_with("cache"));
    lines
}

/// Adds to the data below `root` what is easily lost.
fn decorate(root: &Path) {
    let data = root.join("data");
    put(data.join("odd/name with\nnewline %41"), "odd");
    xattr::set(data.join("odd"), "user.note", b"keep me").unwrap();
    fs::hard_link(data.join("books/1"), data.join("odd/linked")).unwrap();
    symlink("../books/2", data.join("odd/link")).unwrap();
    fs::create_dir(data.join("empty")).unwrap();
    chown(data.join("empty"), Some(12), Some(34)).unwrap();
    fs::set_permissions(data.join("empty"), fs::Permissions::from_mode(0o1770)).unwrap();
    let file = fs::File::options().write(true).open(data.join("books/3")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::new(1_000_000_000, 42)).unwrap();
}

/// Does to the data below `root` what a migration that goes wrong does.
pub(super) fn spoil(root: &Path) {
    let data = root.join("data");
    fs::write(data.join("books/0"), "BOOK 0").unwrap();
    fs::remove_file(data.join("books/1")).unwrap();
    put(data.join("books/1"), "no link any more");
    let _ = fs::remove_dir_all(data.join("empty"));
    fs::remove_file(data.join("books/2")).unwrap();
    put(data.join("books/2/now/a/directory"), "");
    put(data.join("added/deep/file"), "");
    put(data.join("cache/page"), "cached anew");
    // Same size, same time: only its time of change tells.
    let three = data.join("books/3");
    let modified = fs::metadata(&three).unwrap().modified().unwrap();
    fs::write(&three, "BOOK 3").unwrap();
    fs::File::options().write(true).open(&three).unwrap().set_modified(modified).unwrap();
    fs::set_permissions(data.join("books/4"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o711)).unwrap();
}

/// Passes until nothing needs to be copied any more: what was written a moment ago is copied again.
async fn settle(installer: &Installer) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while installer.snapshot_ahead(RUN, quiet()).await.unwrap().copied_files > 0 {
        assert!(Instant::now() < deadline, "a pass over unchanged data still copies");
    }
}

#[tokio::test]
async fn the_second_pass_copies_only_what_changed() {
    // Where we are built, times are kept; the system's own temporary folder may be in memory.
    fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = root.path();
    app::install(root);
    decorate(root);
    let installer = app::installer(root, Exchange::Atomic);
    let first = installer.snapshot_ahead(RUN, quiet()).await.unwrap();
    assert_eq!((first.files, first.copied_files), (9, 9));
    settle(&installer).await;
    fs::write(root.join("data/books/5"), "BOOK 5").unwrap();
    fs::remove_file(root.join("data/odd/name with\nnewline %41")).unwrap();
    put(root.join("data/books/6"), "book 6");
    assert!(matches!(installer.restore(RUN).await, Err(InstallError::SnapshotIncomplete { .. })));
    let second = installer.snapshot(RUN, quiet()).await.unwrap();
    assert_eq!((second.files, second.copied_files, second.removed), (9, 2, 1));

    let before = data(root);
    spoil(root);
    let report = installer.restore(RUN).await.unwrap();
    assert_eq!(data(root), before);
    // 0, 1 and its link, 2, 3 and 4; and 5 and 6, if their change was too fresh to be trusted.
    assert!((6..=8).contains(&report.restored_files), "{report:?}");
    assert_eq!(fs::read_to_string(root.join("data/cache/page")).unwrap(), "cached anew");
}

#[rstest]
#[tokio::test]
async fn data_come_back_exactly_every_time(#[values("here", "xfs", "tmpfs")] kind: &str) {
    let mounted = match kind {
        "xfs" => Some(Mounted::image("xfs")),
        "tmpfs" => Some(Mounted::tmpfs(8192)),
        _ => None,
    };
    let here = tempfile::tempdir().unwrap();
    let root = mounted.as_ref().map_or_else(|| here.path().to_owned(), Mounted::at);
    app::install(&root);
    decorate(&root);
    let before = data(&root);
    let installer = app::installer(&root, Exchange::Atomic);
    installer.snapshot_ahead(RUN, quiet()).await.unwrap();
    let report = installer.snapshot(RUN, quiet()).await.unwrap();
    if kind == "xfs" {
        assert_eq!(report.copied_bytes, 0, "xfs shares blocks");
    }
    for _ in 0..3 {
        spoil(&root);
        installer.restore(RUN).await.unwrap();
        assert_eq!(data(&root), before);
        installer.restore(RUN).await.unwrap();
        assert_eq!(data(&root), before);
    }
    fs::remove_dir_all(root.join("data")).unwrap();
    installer.restore(RUN).await.unwrap();
    assert_eq!(data(&root), before);
    let infos = installer.snapshots().await.unwrap();
    assert_eq!((infos.len(), infos[0].run, infos[0].phase), (1, RUN, SnapshotPhase::Restored));
    assert!(infos[0].at.is_some());
    installer.discard(RUN).await.unwrap();
    assert!(installer.snapshots().await.unwrap().is_empty());
    assert!(root.join(".data.afterhours-snapshot").exists(), "nobody waits for its removal");
    assert!(matches!(installer.restore(RUN).await, Err(InstallError::SnapshotIncomplete { .. })));
    installer.empty_trash().await.unwrap();
    assert!(!root.join(".data.afterhours-snapshot").exists());
    assert_eq!(data(&root), before);
}

#[tokio::test]
async fn files_and_what_was_not_there_are_data_too() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    put(root.join("orders.db"), "rows");
    let mut app = app::settings(root);
    let missing = root.join("later");
    app.data = DataSettings::Paths {
        paths: vec![root.join("orders.db"), missing.clone(), root.join("data"), root.join("data/books")],
        include: app::patterns(&[]),
        exclude: app::patterns(&[]),
    };
    let installer = Installer::new(&app);
    let before = manifest(&root.join("orders.db"));
    let report = installer.snapshot(RUN, quiet()).await.unwrap();
    // One file, six books and a page: the nested path is not counted twice.
    assert_eq!(report.files, 8);
    put(root.join("orders.db"), "ROWS AND MORE");
    put(missing.join("x"), "");
    installer.restore(RUN).await.unwrap();
    assert_eq!(manifest(&root.join("orders.db")), before);
    assert!(!missing.exists());
}

#[tokio::test]
async fn data_behind_a_link_inside_the_installation_are_data() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    symlink(root.join("data"), root.join("app/var")).unwrap();
    let mut app = app::settings(root);
    app.data = DataSettings::Paths {
        paths: vec![root.join("app/var")],
        include: app::patterns(&[]),
        exclude: app::patterns(&["cache/**"]),
    };
    app::stage(root, 2);
    let installer = Installer::new(&app);
    let before = data(root);
    installer.snapshot(RUN, quiet()).await.unwrap();
    installer.swap(&app::release(2)).await.unwrap();
    assert_eq!(fs::read_link(root.join("app/var")).unwrap(), root.join("data"));
    spoil(root);
    installer.restore(RUN).await.unwrap();
    assert_eq!(data(root), before);
}

#[tokio::test]
async fn only_what_is_included_is_touched() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let mut app = app::settings(root);
    app.data = DataSettings::Paths {
        paths: vec![root.join("data")],
        include: app::patterns(&["books/**"]),
        exclude: app::patterns(&["books/5"]),
    };
    let installer = Installer::new(&app);
    assert_eq!(installer.snapshot(RUN, quiet()).await.unwrap().files, 5);
    for name in ["books/0", "books/5", "cache/page", "other"] {
        put(root.join("data").join(name), "new");
    }
    installer.restore(RUN).await.unwrap();
    let read = |name: &str| fs::read_to_string(root.join("data").join(name)).unwrap();
    assert_eq!([read("books/0"), read("books/5"), read("cache/page"), read("other")], ["book 0", "new", "new", "new"]);
}

#[tokio::test]
async fn a_mounted_data_path_is_copied_to_the_staging_folder() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let mounted = Mounted::tmpfs(4096);
    put(mounted.at().join("rows"), "rows");
    let mut app = app::settings(root);
    app.data =
        DataSettings::Paths { paths: vec![mounted.at()], include: app::patterns(&[]), exclude: app::patterns(&[]) };
    let installer = Installer::new(&app);
    installer.snapshot(RUN, quiet()).await.unwrap();
    assert_eq!(fs::read_to_string(root.join(".app.afterhours/snapshot/7/copy-0/rows")).unwrap(), "rows");
    put(mounted.at().join("rows"), "ROWS");
    installer.restore(RUN).await.unwrap();
    assert_eq!(fs::read_to_string(mounted.at().join("rows")).unwrap(), "rows");
}

#[tokio::test]
async fn a_full_disk_leaves_the_data_as_they_were_and_nothing_behind() {
    let mounted = Mounted::tmpfs(4096);
    let root = mounted.at();
    app::install(&root);
    put(root.join("data/big"), vec![7; 2500 << 10]);
    let before = data(&root);
    let installer = app::installer(&root, Exchange::Atomic);
    for _ in 0..2 {
        let error = installer.snapshot_ahead(RUN, quiet()).await.unwrap_err();
        assert!(error.hint().unwrap().starts_with("make room"), "{error}");
        assert_eq!(data(&root), before);
        assert!(!root.join(".data.afterhours-snapshot").exists());
    }
    assert!(matches!(installer.restore(RUN).await, Err(InstallError::NoSnapshot { .. })));
}

#[tokio::test]
async fn a_full_disk_does_not_keep_data_from_coming_back() {
    let mounted = Mounted::tmpfs(8192);
    let root = mounted.at();
    app::install(&root);
    put(root.join("data/big"), vec![7; 2 << 20]);
    let before = data(&root);
    let installer = app::installer(&root, Exchange::Atomic);
    installer.snapshot(RUN, quiet()).await.unwrap();
    put(root.join("data/big"), vec![8; 2 << 20]);
    // The migration fills the disk.
    let mut rubbish = fs::File::create(root.join("data/rubbish")).unwrap();
    while std::io::Write::write_all(&mut rubbish, &[0; 65536]).is_ok() {}
    drop(rubbish);
    installer.restore(RUN).await.unwrap();
    assert_eq!(data(&root), before);
}

#[tokio::test]
async fn a_lost_copy_is_told_before_anything_is_touched() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let installer = app::installer(root, Exchange::Atomic);
    assert!(matches!(installer.restore(RUN).await, Err(InstallError::NoSnapshot { .. })));
    installer.snapshot(RUN, quiet()).await.unwrap();
    let before = data(root);
    fs::remove_dir_all(root.join(".data.afterhours-snapshot")).unwrap();
    assert!(matches!(installer.restore(RUN).await, Err(InstallError::PartMissing { .. })));
    assert_eq!(data(root), before);
}

#[tokio::test]
async fn work_that_nobody_waits_for_ends_and_is_not_in_the_way() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    for n in 0..1500 {
        put(root.join(format!("data/many/{n}")), "x");
    }
    let installer = app::installer(root, Exchange::Atomic);
    let ahead = tokio::time::timeout(Duration::from_millis(5), installer.snapshot_ahead(RUN, quiet())).await;
    assert!(ahead.is_err(), "the machine is too fast for this test");
    let before = data(root);
    installer.snapshot(RUN, quiet()).await.unwrap();
    spoil(root);
    installer.restore(RUN).await.unwrap();
    assert_eq!(data(root), before);
}

#[tokio::test]
async fn data_may_change_under_the_first_pass() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let busy = root.join("data/busy");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let worker = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                put(busy.join(format!("{}/{}", n % 7, n % 50)), format!("{n}"));
                if n % 20 == 0 {
                    let _ = fs::remove_dir_all(busy.join(format!("{}", n % 3)));
                }
            }
        }
    });
    let installer = app::installer(root, Exchange::Atomic);
    for _ in 0..6 {
        installer.snapshot_ahead(RUN, quiet()).await.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    worker.join().unwrap();
    installer.snapshot(RUN, quiet()).await.unwrap();
    let before = data(root);
    fs::remove_dir_all(root.join("data/busy")).unwrap();
    installer.restore(RUN).await.unwrap();
    assert_eq!(data(root), before);
}

#[tokio::test]
async fn a_database_is_dumped_verified_and_restored_by_its_commands() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    put(root.join("db"), "rows");
    let mut app = app::settings(root);
    let commands = |dump: &str| DataSettings::Dump {
        dump: sh(dump),
        restore: sh("cp $AFTERHOURS_SNAPSHOT $DB"),
        verify: Some(sh("grep -q rows $AFTERHOURS_SNAPSHOT")),
        deadline: Span::secs(20),
    };
    let env = BTreeMap::from([("DB".to_owned(), root.join("db").display().to_string())]);
    app.data = commands("echo damaged > $AFTERHOURS_SNAPSHOT");
    let installer = Installer::with(&app, Exchange::Atomic, env.clone());
    let error = installer.snapshot(RUN, quiet()).await.unwrap_err();
    assert!(error.to_string().starts_with("verify"), "{error}");
    assert!(matches!(installer.restore(RUN).await, Err(InstallError::SnapshotIncomplete { .. })));
    app.data = commands("true");
    app.data = match app.data {
        DataSettings::Dump { dump, restore, deadline, .. } => {
            DataSettings::Dump { dump, restore, verify: None, deadline }
        }
        other => other,
    };
    let installer = Installer::with(&app, Exchange::Atomic, env.clone());
    assert!(matches!(installer.snapshot(RUN, quiet()).await, Err(InstallError::NoDump { .. })));

    app.data = commands("cp $DB $AFTERHOURS_SNAPSHOT");
    let installer = Installer::with(&app, Exchange::Atomic, env);
    installer.snapshot_ahead(RUN, quiet()).await.unwrap();
    installer.snapshot(RUN, quiet()).await.unwrap();
    for _ in 0..2 {
        put(root.join("db"), "migrated");
        installer.restore(RUN).await.unwrap();
        assert_eq!(fs::read_to_string(root.join("db")).unwrap(), "rows");
    }
}

#[tokio::test]
async fn a_link_slipped_in_leads_nowhere() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let outside = root.join("outside");
    put(outside.join("0"), "not data");
    let installer = app::installer(root, Exchange::Atomic);
    installer.snapshot(RUN, quiet()).await.unwrap();
    let before = data(root);
    // Whoever owns the data replaces a directory with a link to somewhere else.
    fs::rename(root.join("data/books"), root.join("data/hidden")).unwrap();
    symlink(&outside, root.join("data/books")).unwrap();
    installer.restore(RUN).await.unwrap();
    assert_eq!(data(root), before);
    assert_eq!(super::manifest::contents(&outside), BTreeMap::from([("0".to_owned(), "not data".to_owned())]));
}
