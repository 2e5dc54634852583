//! Trees that are hard to copy or to remove: marks that bind root, and paths without end.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use afterhours::domain::finding::Severity;
use afterhours::domain::progress::Silent;
use afterhours::domain::run::RunId;
use afterhours::install::Exchange;
use afterhours::install::SpaceNeed;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::openat;

use super::app;
use super::app::put;
use super::app::release;
use super::check::bad;
use super::check::look;
use super::manifest::manifest;
use super::mounted::Mounted;
use super::mounted::run;

const RUN: RunId = RunId(7);

fn chattr(marks: &str, path: &Path) {
    run("e2fsprogs", "chattr", &[marks, path.to_str().unwrap()]);
}

/// The application on a file system that has such marks, whatever the temporary folder lies on.
fn scene() -> (Mounted, PathBuf) {
    let mounted = Mounted::image("ext4");
    let root = mounted.at();
    app::install(&root);
    (mounted, root)
}

#[tokio::test]
async fn marked_data_are_found_before_anybody_is_disturbed() {
    let (_mounted, root) = scene();
    let app = app::settings(&root);
    chattr("+i", &root.join("data/cache/page"));
    let findings = look(&app, SpaceNeed::default()).await;
    assert!(findings.iter().all(|finding| finding.check != "data" || finding.severity == Severity::Good));
    for (marks, path) in [("+a", "data/books/1"), ("+i", "data/books/2"), ("+a", "data/books"), ("+i", "data")] {
        let path = root.join(path);
        chattr(marks, &path);
        let finding = bad(&app, "data").await;
        assert_eq!(finding.severity, Severity::Fatal, "{finding:?}");
        assert!(finding.text.contains(&path.display().to_string()), "{finding:?}");
        let remedy = finding.remedy.unwrap();
        assert!(remedy.starts_with(&format!("chattr -i -a {};", path.display())), "{remedy}");
        chattr(&marks.replace('+', "-"), &path);
    }
    for n in 0..6 {
        chattr("+a", &root.join(format!("data/books/{n}")));
    }
    let finding = bad(&app, "data").await;
    assert!(finding.text.contains("6 entries of the data are ") && finding.text.ends_with("and 3 more"), "{finding:?}");
    assert!(finding.remedy.unwrap().starts_with("chattr -R -i -a "));
    run("e2fsprogs", "chattr", &["-R", "-i", "-a", root.join("data").to_str().unwrap()]);
}

#[tokio::test]
async fn a_mark_that_a_migration_sets_does_not_keep_the_data_from_coming_back() {
    let (_mounted, root) = scene();
    let data = root.join("data");
    let before = manifest(&data.join("books"));
    let installer = app::installer(&root, Exchange::Atomic);
    installer.snapshot(RUN, Arc::new(Silent)).await.unwrap();
    fs::write(data.join("books/1"), "another book").unwrap();
    put(data.join("books/7/new"), "");
    for (marks, path) in [("+a", "books/1"), ("+i", "books/7/new"), ("+i", "books/7"), ("+a", "books"), ("+i", "")] {
        chattr(marks, &data.join(path));
    }
    installer.restore(RUN).await.unwrap();
    assert_eq!(manifest(&data.join("books")), before);
    fs::write(data.join("books/1"), "they can be written again").unwrap();
}

#[tokio::test]
async fn what_cannot_be_removed_keeps_nothing_else_from_it() {
    let (_mounted, root) = scene();
    let app = app::settings(&root);
    let installer = app::installer(&root, Exchange::Atomic);
    let bound = root.join("app/bin/program-1");
    chattr("+i", &bound);
    let finding = bad(&app, "install_dir").await;
    assert_eq!(finding.severity, Severity::Warning, "it can be exchanged");
    assert!(finding.text.contains(&bound.display().to_string()), "{finding:?}");
    assert_eq!(finding.remedy.unwrap(), format!("chattr -i -a {}", bound.display()));

    let trash = root.join(".app.afterhours/trash");
    for build in 2..=6 {
        app::stage(&root, build);
        installer.swap(&release(build)).await.unwrap();
        let run = RunId(i64::try_from(build).unwrap());
        installer.snapshot(run, Arc::new(Silent)).await.unwrap();
        let left = installer.retire(run, &[release(build)]).await.unwrap();
        assert!(left.because.is_none(), "{left:?}");
    }
    let left = installer.empty_trash().await.unwrap();
    assert!(left.entries.ends_with("bin/program-1"), "{left:?}");
    assert!(left.because.unwrap().hint().unwrap().starts_with("chattr -i -a "));
    let files = walkdir::WalkDir::new(&trash).into_iter().filter(|it| it.as_ref().unwrap().file_type().is_file());
    assert_eq!(files.count(), 1, "all but one file is gone");
    let copies = fs::read_dir(root.join(".data.afterhours-snapshot")).unwrap();
    assert_eq!(copies.count(), 1, "and so are the older copies of the data");

    let finding = bad(&app, "trash").await;
    assert!(finding.text.starts_with("1 old tree waits"), "{finding:?}");
    let remedy = finding.remedy.unwrap();
    let command = remedy.split(';').next().unwrap();
    run("e2fsprogs", "sh", &["-c", command]);
    let left = installer.empty_trash().await.unwrap();
    assert!(left.because.is_none(), "{left:?}");
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
    assert!(look(&app, SpaceNeed::default()).await.iter().all(|finding| finding.check != "trash"));
}

#[tokio::test]
async fn no_update_begins_with_too_many_trees_that_cannot_be_removed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let staging = root.join(".app.afterhours");
    fs::create_dir(&staging).unwrap();
    fs::set_permissions(&staging, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    put(staging.join("trash/0/x"), "");
    let findings = look(&app::settings(root), SpaceNeed::default()).await;
    let told = findings.iter().find(|finding| finding.check == "trash").unwrap();
    assert_eq!(told.severity, Severity::Good, "it will be gone in a minute: {told:?}");
    for n in 1..17 {
        put(staging.join(format!("trash/{n}/x")), "");
    }
    let finding = bad(&app::settings(root), "trash").await;
    assert_eq!(finding.severity, Severity::Fatal);
    assert!(finding.text.starts_with("17 old trees wait to be removed: 34 entries"), "{finding:?}");
}

/// So many directories in one another, with a file at the end.
fn nest(root: &Path, depth: usize, name: &str) {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let mut dir = openat(CWD, root, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&dir, name, Mode::RWXU).unwrap();
        dir = openat(&dir, name, flags, Mode::empty()).unwrap();
    }
    let file = openat(&dir, "deep.txt", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
}

/// What is in the file at their end, by steps that are short enough.
fn read_nested(root: &Path, depth: usize, name: &str) -> String {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let mut dir = openat(CWD, root, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        dir = openat(&dir, name, flags, Mode::empty()).unwrap();
    }
    let file = openat(&dir, "deep.txt", OFlags::RDONLY, Mode::empty()).unwrap();
    std::io::read_to_string(fs::File::from(file)).unwrap()
}

#[tokio::test]
async fn a_path_longer_than_the_systems_longest_is_copied_and_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let (app, data, name) = (app::settings(root), root.join("data"), "d".repeat(200));
    nest(&data, 25, &name);
    let findings = look(&app, SpaceNeed::default()).await;
    assert!(findings.iter().all(|finding| finding.severity == Severity::Good), "{findings:#?}");
    let installer = app::installer(root, Exchange::Atomic);
    installer.snapshot(RUN, Arc::new(Silent)).await.unwrap();
    fs::remove_dir_all(data.join(&name)).unwrap();
    // Deeper than what is ever copied, and put there by the new version.
    nest(&data, 400, "e");
    installer.restore(RUN).await.unwrap();
    assert_eq!(read_nested(&data, 25, &name), "deep");
    assert!(!data.join("e").exists());
    installer.discard(RUN).await.unwrap();
    let left = installer.empty_trash().await.unwrap();
    assert!(left.because.is_none(), "{left:?}");
    assert!(!root.join(".data.afterhours-snapshot").exists());
}

#[tokio::test]
async fn what_is_too_deep_to_be_copied_is_named() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let mut app = app::settings(root);
    nest(&root.join("data/books"), 3000, "d");
    let finding = bad(&app, "data").await;
    assert_eq!(finding.severity, Severity::Fatal);
    let begin: PathBuf = root.join("data/books/d/d");
    assert!(finding.text.contains(&begin.display().to_string()), "{finding:?}");
    assert!(finding.remedy.unwrap().contains("`exclude`"));
    app.data = afterhours::config::settings::DataSettings::Paths {
        paths: vec![root.join("data")],
        include: app::patterns(&[]),
        exclude: app::patterns(&["books/d/**"]),
    };
    assert!(look(&app, SpaceNeed::default()).await.iter().all(|finding| finding.severity == Severity::Good));

    // What nobody may copy can be removed all the same.
    let trash = root.join(".app.afterhours/trash");
    fs::create_dir_all(&trash).unwrap();
    fs::set_permissions(trash.parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::rename(root.join("data/books"), trash.join("1")).unwrap();
    let left = app::installer(root, Exchange::Atomic).empty_trash().await.unwrap();
    assert!(left.because.is_none(), "{left:?}");
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
}

#[tokio::test]
async fn a_kept_path_that_is_too_long_to_be_carried_over_is_named() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    app::install(root);
    let name = "d".repeat(200);
    fs::create_dir(root.join("app/certs")).unwrap();
    nest(&root.join("app/certs"), 300, "d");
    assert!(bad(&app::settings(root), "keep").await.text.contains("more than 256 directories"));
    fs::remove_dir_all(root.join("app/certs")).unwrap();
    nest(&root.join("app/config"), 25, &name);
    let finding = bad(&app::settings(root), "keep").await;
    assert_eq!(finding.severity, Severity::Fatal);
    assert!(finding.text.contains(&root.join("app/config").join(&name).display().to_string()), "{finding:?}");
    let left: Vec<OsString> = finding.text.split(' ').map(OsString::from).collect();
    assert!(left.iter().all(|word| word.as_bytes().len() < 400), "it can be read");
}
