//! There and back, with everything that belongs to the administrator.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use afterhours::config::settings::DataSettings;
use afterhours::config::settings::Patterns;
use afterhours::domain::run::RunId;
use afterhours::install::Exchange;
use afterhours::install::InstallError;
use afterhours::install::Installer;
use rstest::rstest;

use super::app;
use super::app::put;
use super::app::release;
use super::manifest::manifest;
use super::mounted::Mounted;

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// Gives the installation below `root` everything a careful administrator's has.
fn decorate(app: &Path) {
    let key = app.join("certs/server.key");
    put(&key, "secret");
    xattr::set(&key, "user.origin", b"the safe").unwrap();
    // An access list: user 1234 may read.
    let acl = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 210, 4, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255, 16, 0, 4,
        0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
    ];
    xattr::set(&key, "system.posix_acl_access", &acl).unwrap();
    fs::hard_link(&key, app.join("certs/alias.key")).unwrap();
    symlink("server.key", app.join("certs/link")).unwrap();
    symlink("/nowhere", app.join("config/dangling")).unwrap();
    let tool = app.join("config/tool");
    put(&tool, "#!/bin/sh");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o4751)).unwrap();
    put(app.join("config/theirs"), "");
    chown(app.join("config/theirs"), Some(1234), Some(4321)).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(&tool, "security.capability", &capability).unwrap();
    let sparse = fs::File::create(app.join("config/sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    for name in ["certs/server.key", "config/tool"] {
        let file = fs::File::options().write(true).open(app.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789)).unwrap();
    }
    fs::set_permissions(app.join("certs"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[rstest]
#[tokio::test]
async fn what_is_kept_is_kept_with_all_its_attributes(
    #[values(Exchange::Atomic, Exchange::Journalled)] exchange: Exchange,
) {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let live = root.join("app");
    decorate(&live);
    app::stage(root, 2);
    let before = manifest(&live);
    let installer = app::installer(root, exchange);

    let report = installer.swap(&release(2)).await.unwrap();
    assert_eq!(report.exchange, exchange);
    assert_eq!(fs::metadata(root.join(".app.afterhours")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(report.conflicts, [PathBuf::from("config/app.toml")]);
    assert_eq!(read(live.join("config/app.toml")), "changed by the administrator");
    assert_eq!(read(live.join("config/app.toml.new")), "default of release 2");
    assert!(!live.join("config/same.toml.new").exists());
    assert_eq!(read(live.join("bin/program-0")), "program 0 of release 2");
    assert!(live.join("only-in-2").exists() && !live.join("only-in-1").exists());

    let after = manifest(&live);
    let kept = |path: &&PathBuf| ["config", "certs", "licence.key"].iter().any(|top| path.starts_with(top));
    for path in before.keys().filter(kept) {
        assert_eq!(before[path], after[path], "{}", path.display());
    }
    assert!(fs::metadata(live.join("config/sparse")).unwrap().blocks() < 8);

    // The old tree was only read, and comes back as it was.
    assert_eq!(manifest(&installer.staged_path(&release(2))), before);
    assert!(installer.is_swapped(&release(2)).await.unwrap());
    put(live.join("config/app.toml"), "changed by the new version");
    installer.swap_back(&release(2)).await.unwrap();
    installer.swap_back(&release(2)).await.unwrap();
    assert_eq!(installer.installed().await.unwrap(), None);
    assert_eq!(manifest(&live), before);

    // A tree that was in place is no release any more; staged anew, it is.
    assert!(matches!(installer.swap(&release(2)).await, Err(InstallError::Spoilt { .. })));
    installer.discard(RunId(1)).await.unwrap();
    app::stage(root, 2);
    assert_eq!(installer.swap(&release(2)).await.unwrap(), report);
    assert_eq!(installer.swap(&release(2)).await.unwrap().conflicts, report.conflicts);
    assert_eq!(read(live.join("config/app.toml")), "changed by the administrator");
}

#[tokio::test]
async fn the_new_tree_belongs_to_whom_the_old_one_did() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    chown(root.join("app"), Some(1234), Some(4321)).unwrap();
    fs::set_permissions(root.join("app"), fs::Permissions::from_mode(0o2750)).unwrap();
    let staged = app::stage(root, 2);
    fs::set_permissions(staged.join("bin/program-1"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("program-1", staged.join("bin/latest")).unwrap();
    app::seal(&staged, 2);
    app::installer(root, Exchange::Atomic).swap(&release(2)).await.unwrap();
    for name in ["", "bin", "bin/program-1", "bin/latest"] {
        let about = fs::symlink_metadata(root.join("app").join(name)).unwrap();
        assert_eq!((about.uid(), about.gid()), (1234, 4321), "{name}");
    }
    assert_eq!(fs::metadata(root.join("app")).unwrap().mode() & 0o7777, 0o2750);
    assert_eq!(fs::metadata(root.join("app/bin/program-1")).unwrap().mode() & 0o7777, 0o4755);
    // What is kept stays its owner's.
    assert_eq!(fs::metadata(root.join("app/config/app.toml")).unwrap().uid(), 0);

    let mut app = app::settings(root);
    app.owner = Some("77:88".to_owned());
    app::stage(root, 3);
    Installer::new(&app).swap(&release(3)).await.unwrap();
    let about = fs::metadata(root.join("app/bin/program-0")).unwrap();
    assert_eq!((about.uid(), about.gid()), (77, 88));
}

#[tokio::test]
async fn a_kept_link_is_never_written_through() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let outside = root.join("etc");
    put(outside.join("default.pem"), "the site's");
    symlink(&outside, root.join("app/certs")).unwrap();
    let staged = app::stage(root, 2);
    put(staged.join("certs/default.pem"), "the vendor's");
    put(staged.join("licence.key/not-a-file"), "a directory by now");
    put(staged.join("site"), "a file by now");
    app::seal(&staged, 2);
    put(root.join("app/site/local.conf"), "local");
    let mut app = app::settings(root);
    app.keep.texts.push("site/*.conf".to_owned());
    let installer = Installer::new(&app);
    let preview = installer.preview(&release(2)).await.unwrap();
    installer.prepare(&release(2)).await.unwrap();
    let prepared = installer.preview(&release(2)).await.unwrap();
    let report = installer.swap(&release(2)).await.unwrap();
    assert_eq!(preview.conflicts.paths, report.conflicts);
    assert_eq!(prepared.conflicts.paths, report.conflicts);
    let live = root.join("app");
    assert_eq!(
        (read(live.join("site/local.conf")).as_str(), read(live.join("site.new")).as_str()),
        ("local", "a file by now")
    );
    assert_eq!(fs::read_link(live.join("certs")).unwrap(), outside);
    assert_eq!(read(outside.join("default.pem")), "the site's");
    assert_eq!(read(live.join("certs.new/default.pem")), "the vendor's");
    assert_eq!(read(live.join("licence.key")), "1234");
    assert_eq!(report.conflicts, ["certs", "config/app.toml", "licence.key", "site"].map(PathBuf::from));
}

#[tokio::test]
async fn data_inside_the_installation_are_copied_and_the_old_tree_keeps_its_own() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let live = root.join("app");
    put(live.join("var/db"), "before");
    let mut app = app::settings(root);
    app.data = DataSettings::Paths {
        paths: vec![live.join("var")],
        include: Patterns::default(),
        exclude: Patterns::default(),
    };
    let staged = app::stage(root, 2);
    put(staged.join("var/db"), "the vendor's empty one");
    put(staged.join("var/sample"), "the vendor's");
    app::seal(&staged, 2);
    let installer = Installer::new(&app);
    // Most is carried over while people work; what they do after that counts.
    put(live.join("var/draft"), "a draft");
    put(live.join("var/db"), "earlier");
    installer.prepare(&release(2)).await.unwrap();
    installer.prepare(&release(2)).await.unwrap();
    fs::remove_file(live.join("var/draft")).unwrap();
    put(live.join("var/db"), "before");
    put(live.join("var/late"), "late");
    let report = installer.swap(&release(2)).await.unwrap();
    assert_eq!(report.conflicts, [PathBuf::from("config/app.toml")]);
    assert_eq!((read(live.join("var/db")).as_str(), read(live.join("var/late")).as_str()), ("before", "late"));
    assert!(!live.join("var/draft").exists());
    assert!(!live.join("var/sample").exists() && !live.join("var/db.new").exists());
    put(live.join("var/db"), "migrated");
    installer.swap_back(&release(2)).await.unwrap();
    assert_eq!(read(live.join("var/db")), "before");
}

#[tokio::test]
async fn other_patterns_prepare_anew() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let staged = app::stage(root, 2);
    put(staged.join("site"), "a file by now");
    app::seal(&staged, 2);
    put(root.join("app/site/local.conf"), "local");
    let pristine = super::manifest::contents(&staged);
    let mut app = app::settings(root);
    app.keep.texts.push("site/*.conf".to_owned());
    Installer::new(&app).prepare(&release(2)).await.unwrap();
    assert_eq!(read(staged.join("config/app.toml")), "changed by the administrator");
    assert_eq!(read(staged.join("site.new")), "a file by now");
    app.keep = app::patterns(&[]);
    Installer::new(&app).prepare(&release(2)).await.unwrap();
    assert_eq!(super::manifest::contents(&staged), pristine);
    Installer::new(&app).swap(&release(2)).await.unwrap();
    assert_eq!(read(root.join("app/config/app.toml")), "default of release 2");
}

#[tokio::test]
async fn a_tree_that_is_not_the_release_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let installer = app::installer(root, Exchange::Atomic);
    assert!(matches!(installer.swap(&release(2)).await, Err(InstallError::NotStaged { .. })));
    let staged = app::stage(root, 2);
    app::seal(&staged, 3);
    let error = installer.swap(&release(2)).await.unwrap_err();
    assert!(error.to_string().ends_with("it holds 3.0 (build 3)"), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(read(root.join("app/bin/program-0")), "program 0 of release 1");
}

#[tokio::test]
async fn a_preview_says_what_the_swap_then_does() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    app::stage(root, 2);
    let installer = app::installer(root, Exchange::Atomic);
    let before = manifest(root);
    let preview = installer.preview(&release(2)).await.unwrap();
    assert_eq!(manifest(root), before);
    let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(preview.changed.count, 4);
    assert_eq!(preview.added.paths, paths(&["only-in-2"]));
    assert_eq!(preview.removed.paths, paths(&["only-in-1"]));
    assert_eq!(
        preview.kept.paths,
        paths(&["config/app.toml", "config/same.toml", "config/sites/north.toml", "licence.key"])
    );
    assert_eq!(preview.conflicts.paths, paths(&["config/app.toml"]));
    assert!(preview.free_bytes > 0 && preview.kept_bytes > 0);
    installer.prepare(&release(2)).await.unwrap();
    assert_eq!(installer.preview(&release(2)).await.unwrap().conflicts, preview.conflicts);
    assert_eq!(installer.swap(&release(2)).await.unwrap().conflicts, preview.conflicts.paths);
}

#[tokio::test]
async fn a_path_of_two_releases_retires_to_the_tree_of_before() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    put(root.join("app_old/notes"), "the administrator's own");
    let before = manifest(&root.join("app"));
    let installer = app::installer(root, Exchange::Atomic);
    let path = [release(2), release(3)];
    app::stage(root, 2);
    app::stage(root, 3);
    app::stage(root, 9);
    assert!(installer.retire(RunId(1), &path).await.is_err());
    for id in &path {
        installer.swap(id).await.unwrap();
    }
    installer.retire(RunId(1), &path).await.unwrap();
    installer.retire(RunId(1), &path).await.unwrap();
    // The administrator's own tree is passed over.
    assert_eq!(read(root.join("app_old/notes")), "the administrator's own");
    let mut old = manifest(&root.join("app_old.2"));
    old.remove(Path::new(""));
    assert!(before.iter().filter(|(path, _)| !path.as_os_str().is_empty()).eq(old.iter()));
    assert!(!root.join("app/.afterhours-prepared").exists());
    assert!(!installer.staged_path(&release(2)).exists() && !installer.staged_path(&release(3)).exists());
    assert!(installer.staged_path(&release(9)).exists());

    for build in 4..=6 {
        app::stage(root, build);
        installer.swap(&release(build)).await.unwrap();
        installer.retire(RunId(i64::try_from(build).unwrap()), &[release(build)]).await.unwrap();
    }
    // Two are kept, newest first.
    assert!(root.join("app_old.2/only-in-5").exists());
    assert!(root.join("app_old.3/only-in-4").exists());
    assert!(!root.join("app_old.4").exists() && root.join("app_old/notes").exists());
}

#[tokio::test]
async fn a_version_that_ran_and_failed_is_discarded() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    app::stage(root, 2);
    app::stage(root, 3);
    let installer = app::installer(root, Exchange::Atomic);
    installer.swap(&release(2)).await.unwrap();
    // While it is in place, the way back is never discarded.
    installer.discard(RunId(1)).await.unwrap();
    installer.swap_back(&release(2)).await.unwrap();
    installer.discard(RunId(1)).await.unwrap();
    assert!(!installer.staged_path(&release(2)).exists());
    assert!(installer.staged_path(&release(3)).exists());
    assert!(root.join("app/only-in-1").exists());
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_version_as_it_was() {
    let mounted = Mounted::tmpfs(6144);
    let root = mounted.at();
    app::install(&root);
    put(root.join("app/config/big"), vec![1; 2 << 20]);
    app::stage(&root, 2);
    let before = manifest(&root.join("app"));
    let data = manifest(&root.join("data"));
    let installer = app::installer(&root, Exchange::Atomic);
    put(root.join("filler"), vec![0; 2400 << 10]);
    let error = installer.swap(&release(2)).await.unwrap_err();
    assert!(error.hint().unwrap().starts_with("make room"), "{error}");
    assert_eq!(manifest(&root.join("app")), before);
    assert_eq!(manifest(&root.join("data")), data);
    fs::remove_file(root.join("filler")).unwrap();
    installer.swap(&release(2)).await.unwrap();
    assert_eq!(fs::read(root.join("app/config/big")).unwrap().len(), 2 << 20);
}

#[tokio::test]
async fn the_hold_file_is_where_the_unit_looks() {
    let root = tempfile::tempdir().unwrap();
    let app = app::settings(root.path());
    let installer = Installer::new(&app);
    assert!(!installer.is_held().await.unwrap());
    installer.hold().await.unwrap();
    installer.hold().await.unwrap();
    assert!(afterhours::install::hold_path(&app).exists());
    installer.lift_hold().await.unwrap();
    installer.lift_hold().await.unwrap();
    assert!(!installer.is_held().await.unwrap());
}
