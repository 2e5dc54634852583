//! Killed at every system call that changes something, and cut off from power.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use afterhours::domain::progress::Silent;
use afterhours::domain::run::RunId;
use afterhours::files::staged::Identity;
use afterhours::install::Exchange;
use afterhours::install::Installer;
use rstest::rstest;

use super::app;
use super::app::release;
use super::manifest::contents;
use super::manifest::manifest;
use super::mounted::Mounted;
use super::snapshot::spoil;

const RUN: RunId = RunId(7);
/// What changes something on a disk.
const CALLS: &str = "/^(rename|unlink|rmdir|mkdir|link|symlink|fsync|syncfs|fchown|lchown|chown|chmod|utimensat|ftruncate|pwrite|write$)";

/// Runs one step under strace and kills it when it enters the `nth` call of `calls`. Says whether it was killed.
fn killed_at(nth: u32, calls: &str, root: &Path, step: &str, exchange: Exchange) -> bool {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/install_step");
    assert!(program.exists(), "{} is missing; run `cargo build --examples`", program.display());
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:signal=SIGKILL:when={nth}")])
        .arg(program)
        .arg(root)
        .arg(step);
    if exchange == Exchange::Journalled {
        command.arg("journalled");
    }
    let output = command.output().unwrap_or_else(|error| panic!("strace: {error}; install the Debian package strace"));
    let killed = output.status.signal() == Some(9) || output.status.code() == Some(137);
    assert!(killed || output.status.success(), "{step}, call {nth}: {}", String::from_utf8_lossy(&output.stderr));
    killed
}

/// What an installation consists of, for its users: neither our own files nor what the vendor's look like beside kept ones.
fn program(root: &Path) -> BTreeMap<String, String> {
    let mut files = contents(&root.join("app"));
    files.retain(|path, _| !path.starts_with(".afterhours"));
    files
}

fn data(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut lines = manifest(&root.join("data"));
    lines.retain(|path, _| !path.starts_with("cache"));
    lines
}

/// A fresh scene: release 1 installed, release 2 staged. With what `program` is before and after a swap.
struct Scene {
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        app::install(&root);
        app::stage(&root, 2);
        Self { root, _dir: dir }
    }

    fn installer(&self, exchange: Exchange) -> Installer {
        app::installer(&self.root, exchange)
    }
}

async fn swapped_program() -> BTreeMap<String, String> {
    let scene = Scene::new();
    scene.installer(Exchange::Atomic).swap(&release(2)).await.unwrap();
    program(&scene.root)
}

#[rstest]
#[tokio::test]
async fn a_swap_killed_anywhere_leaves_old_or_new(
    #[values(Exchange::Atomic, Exchange::Journalled)] exchange: Exchange,
) {
    let old = program(&Scene::new().root);
    let new = swapped_program().await;
    // In small strides where nothing is in place yet, then at every rename.
    let places = (1..).step_by(2).map(|nth| (nth, CALLS)).take_while(|(nth, _)| *nth < 400);
    let mut seen = [false; 2];
    for (places, label) in
        [(places.collect::<Vec<_>>(), "any call"), ((1..40).map(|nth| (nth, "/^rename")).collect(), "a rename")]
    {
        for (nth, calls) in places {
            let scene = Scene::new();
            let killed = killed_at(nth, calls, &scene.root, "swap", exchange);
            let installer = scene.installer(exchange);
            let swapped = installer.is_swapped(&release(2)).await.unwrap();
            assert_eq!(program(&scene.root), if swapped { &new } else { &old }.clone(), "{label} {nth}");
            seen[usize::from(swapped)] = true;
            installer.swap(&release(2)).await.unwrap();
            assert_eq!(program(&scene.root), new, "{label} {nth}, again");
            assert!(!scene.root.join(".app.afterhours/exchange.json").exists());
            installer.swap_back(&release(2)).await.unwrap();
            assert_eq!(program(&scene.root), old, "{label} {nth}, and back");
            if !killed {
                break;
            }
        }
    }
    assert_eq!(seen, [true, true]);
}

#[rstest]
#[tokio::test]
async fn a_swap_back_killed_at_a_rename_leaves_old_or_new(
    #[values(Exchange::Atomic, Exchange::Journalled)] exchange: Exchange,
) {
    let old = program(&Scene::new().root);
    let new = swapped_program().await;
    for nth in 1..20 {
        let scene = Scene::new();
        let installer = scene.installer(exchange);
        installer.swap(&release(2)).await.unwrap();
        let killed = killed_at(nth, "/^(rename|unlink|fsync)", &scene.root, "swap-back", exchange);
        let swapped = installer.is_swapped(&release(2)).await.unwrap();
        assert_eq!(program(&scene.root), if swapped { &new } else { &old }.clone(), "{nth}");
        installer.swap_back(&release(2)).await.unwrap();
        assert_eq!(program(&scene.root), old);
        if !killed {
            return;
        }
    }
    panic!("it never came to its end");
}

#[tokio::test]
async fn a_snapshot_killed_anywhere_is_incomplete_or_right() {
    for nth in (1..).step_by(3) {
        let scene = Scene::new();
        let before = data(&scene.root);
        let killed = killed_at(nth, CALLS, &scene.root, "snapshot", Exchange::Atomic);
        assert_eq!(data(&scene.root), before);
        let installer = scene.installer(Exchange::Atomic);
        spoil(&scene.root);
        let spoilt = data(&scene.root);
        match installer.restore(RUN).await {
            Ok(_) => assert_eq!(data(&scene.root), before, "{nth}"),
            Err(_) => {
                assert!(killed);
                assert_eq!(data(&scene.root), spoilt, "{nth}");
                // Taken again, it is whole.
                installer.snapshot(RUN, std::sync::Arc::new(Silent)).await.unwrap();
                fs::remove_dir_all(scene.root.join("data/books")).unwrap();
                installer.restore(RUN).await.unwrap();
                assert_eq!(data(&scene.root), spoilt, "{nth}");
            }
        }
        if !killed {
            return;
        }
    }
}

#[tokio::test]
async fn a_restore_killed_anywhere_is_finished_by_the_next() {
    for nth in 1.. {
        let scene = Scene::new();
        let before = data(&scene.root);
        let installer = scene.installer(Exchange::Atomic);
        installer.snapshot(RUN, std::sync::Arc::new(Silent)).await.unwrap();
        spoil(&scene.root);
        let killed = killed_at(nth, CALLS, &scene.root, "restore", Exchange::Atomic);
        installer.restore(RUN).await.unwrap();
        assert_eq!(data(&scene.root), before, "{nth}");
        spoil(&scene.root);
        installer.restore(RUN).await.unwrap();
        assert_eq!(data(&scene.root), before, "{nth}, and once more");
        if !killed {
            return;
        }
    }
}

#[tokio::test]
async fn retiring_killed_anywhere_is_finished_by_the_next() {
    for nth in (1..).step_by(2) {
        let scene = Scene::new();
        let old = program(&scene.root);
        let older = scene.root.join("app_old");
        app::put(older.join("older"), "");
        let known = serde_json::json!({"retired": [{"run": 1, "root": Identity::of(&older).unwrap()}]});
        app::put(scene.root.join(".app.afterhours/trees.json"), known.to_string());
        let installer = scene.installer(Exchange::Atomic);
        installer.swap(&release(2)).await.unwrap();
        let new = program(&scene.root);
        let calls = "/^(rename|unlink|rmdir|mkdir|fsync)";
        let killed = killed_at(nth, calls, &scene.root, "retire", Exchange::Atomic);
        installer.retire(RUN, &[release(2)]).await.unwrap();
        let left = installer.empty_trash().await.unwrap();
        assert!(left.because.is_none(), "{left:?}");
        assert_eq!(program(&scene.root), new, "{nth}");
        let mut retired = contents(&scene.root.join("app_old"));
        retired.retain(|path, _| !path.starts_with(".afterhours"));
        assert_eq!(retired, old, "{nth}");
        assert!(scene.root.join("app_old.2/older").exists(), "{nth}");
        assert_eq!(fs::read_dir(scene.root.join(".app.afterhours/trash")).unwrap().count(), 0);
        if !killed {
            return;
        }
    }
}

#[rstest]
#[tokio::test]
async fn what_was_done_survives_a_power_cut(
    #[values("ext4", "xfs")] kind: &str,
    #[values(Exchange::Atomic, Exchange::Journalled)] exchange: Exchange,
) {
    let mounted = Mounted::image(kind);
    let root = mounted.at();
    app::install(&root);
    app::stage(&root, 2);
    super::mounted::run("coreutils", "sync", &["-f", root.to_str().unwrap()]);
    let (old, before) = (program(&root), data(&root));
    let installer = app::installer(&root, exchange);

    installer.hold().await.unwrap();
    installer.snapshot_ahead(RUN, std::sync::Arc::new(Silent)).await.unwrap();
    fs::write(root.join("data/books/0"), "changed after the first pass").unwrap();
    super::mounted::run("coreutils", "sync", &[root.join("data/books/0").to_str().unwrap()]);
    let at_the_stop = data(&root);
    assert_ne!(at_the_stop, before);
    installer.snapshot(RUN, std::sync::Arc::new(Silent)).await.unwrap();
    installer.swap(&release(2)).await.unwrap();
    let new = program(&root);
    mounted.cut_power();
    assert!(installer.is_held().await.unwrap());
    assert!(installer.is_swapped(&release(2)).await.unwrap());
    assert_eq!(program(&root), new);

    spoil(&root);
    installer.restore(RUN).await.unwrap();
    installer.swap_back(&release(2)).await.unwrap();
    mounted.cut_power();
    assert_eq!(data(&root), at_the_stop);
    assert_eq!(program(&root), old);

    // Cut off in the middle: whatever of a half-done restore reached the disk, it can be finished.
    spoil(&root);
    killed_at(20, CALLS, &root, "restore", exchange);
    mounted.cut_power();
    installer.restore(RUN).await.unwrap();
    assert_eq!(data(&root), at_the_stop);
    installer.lift_hold().await.unwrap();
    mounted.cut_power();
    assert!(!installer.is_held().await.unwrap());
}
