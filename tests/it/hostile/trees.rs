//! The application's user exchanges names all the time while root copies, carries over and restores.

use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::fs::lchown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use afterhours::config::settings::DataSettings;
use afterhours::domain::progress::Silent;
use afterhours::domain::run::RunId;
use afterhours::files::identity::Identity;
use afterhours::files::identity::work_as;
use afterhours::install::Installer;
use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use walkdir::WalkDir;

use crate::install::app;
use crate::install::app::put;
use crate::install::manifest::manifest;
use crate::support::users::APP;
use crate::support::users::account;

const RUN: RunId = RunId(7);
/// How often the attack is tried; what was before showed each effect within a few of them.
const ROUNDS: usize = 25;
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn app_user() -> Identity {
    let account = account(APP);
    Identity { uid: account.uid, gid: account.gid }
}

/// Exchanges two names as the application's user until it is dropped.
struct Exchanger {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Exchanger {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            work_as(Some(app_user()), || {
                while !told.load(Ordering::Relaxed) {
                    // One of them may be gone for a moment; that is what a race is.
                    let _ = rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
                }
            })
            .unwrap();
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Exchanger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// An application whose data belong to its user; what is called `bait` there is no data.
struct Scene {
    root: tempfile::TempDir,
    installer: Installer,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        app::install(root.path());
        let mut settings = app::settings(root.path());
        settings.data = DataSettings::Paths {
            paths: vec![root.path().join("data")],
            include: app::patterns(&[]),
            exclude: app::patterns(&["**/bait", "bait"]),
        };
        let scene = Self { installer: Installer::new(&settings), root };
        scene.give();
        scene
    }

    fn data(&self, name: &str) -> PathBuf {
        self.root.path().join("data").join(name)
    }

    /// Gives the data and the installation to the application's user.
    fn give(&self) {
        for entry in ["data", "app"].iter().flat_map(|dir| WalkDir::new(self.root.path().join(dir))) {
            let Identity { uid, gid } = app_user();
            lchown(entry.unwrap().path(), Some(uid), Some(gid)).unwrap();
        }
    }

    async fn snapshot(&self) {
        self.installer.snapshot(RUN, Arc::new(Silent)).await.unwrap();
    }

    /// Restores while the names are exchanged. A restore that fails is done again, and comes to its end once nobody is in its way.
    async fn restore_attacked(&self, one: &str, other: &str) {
        let exchanger = Exchanger::start(self.data(one), self.data(other));
        for _ in 0..3 {
            let _ = self.installer.restore(RUN).await;
        }
        drop(exchanger);
    }
}

fn owned(path: &Path, owner: u32, mode: u32) -> File {
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    File::open(path).unwrap()
}

#[tokio::test]
async fn a_file_of_roots_put_in_the_way_of_a_restore_stays_roots() {
    let scene = Scene::new();
    scene.snapshot().await;
    for _ in 0..ROUNDS {
        let _ = fs::remove_file(scene.data("books/bait"));
        put(scene.data("books/bait"), "root's secret");
        let secret = owned(&scene.data("books/bait"), 0, 0o600);
        put(scene.data("books/0"), "spoilt");
        scene.restore_attacked("books/0", "books/bait").await;
        let about = secret.metadata().unwrap();
        assert_eq!((about.uid(), about.mode() & 0o7777), (0, 0o600), "handed over");
    }
    let _ = fs::remove_file(scene.data("books/bait"));
    scene.installer.restore(RUN).await.unwrap();
    assert_eq!(fs::read_to_string(scene.data("books/0")).unwrap(), "book 0");
}

#[tokio::test]
async fn a_file_put_in_the_way_of_a_restore_does_not_become_a_program_of_roots() {
    let scene = Scene::new();
    put(scene.data("books/tool"), "root's tool");
    owned(&scene.data("books/tool"), 0, 0o4755);
    scene.snapshot().await;
    for _ in 0..ROUNDS {
        let _ = fs::remove_file(scene.data("books/bait"));
        put(scene.data("books/bait"), "the user's");
        let evil = owned(&scene.data("books/bait"), app_user().uid, 0o755);
        let _ = fs::remove_file(scene.data("books/tool"));
        put(scene.data("books/tool"), "spoilt");
        scene.restore_attacked("books/tool", "books/bait").await;
        let about = evil.metadata().unwrap();
        assert_eq!((about.uid(), about.mode() & 0o7000), (app_user().uid, 0), "made root's, with its power");
    }
    scene.installer.restore(RUN).await.unwrap();
    assert_eq!(fs::metadata(scene.data("books/tool")).unwrap().mode() & 0o7777, 0o4755);
}

#[tokio::test]
async fn a_directory_of_roots_put_in_the_way_of_a_restore_stays_roots() {
    let scene = Scene::new();
    scene.snapshot().await;
    for _ in 0..ROUNDS {
        let _ = fs::remove_dir_all(scene.data("bait"));
        fs::create_dir(scene.data("bait")).unwrap();
        let bait = owned(&scene.data("bait"), 0, 0o700);
        let _ = fs::set_permissions(scene.data("books"), fs::Permissions::from_mode(0o777));
        scene.restore_attacked("books", "bait").await;
        let about = bait.metadata().unwrap();
        assert_eq!((about.uid(), about.mode() & 0o7777), (0, 0o700), "handed over");
    }
    let _ = fs::remove_dir_all(scene.data("bait"));
    scene.installer.restore(RUN).await.unwrap();
    assert_eq!(fs::metadata(scene.data("books")).unwrap().uid(), app_user().uid);
}

#[tokio::test]
async fn no_hard_link_is_made_to_a_file_of_roots() {
    let scene = Scene::new();
    let outside = scene.root.path().join("outside");
    put(outside.join("a"), "root's secret");
    put(scene.data("one/a"), "a");
    fs::create_dir(scene.data("two")).unwrap();
    fs::hard_link(scene.data("one/a"), scene.data("two/b")).unwrap();
    scene.give();
    scene.snapshot().await;
    for _ in 0..ROUNDS {
        // Whichever of them is the link by now.
        for name in ["bait", "one"] {
            let _ = fs::remove_file(scene.data(name)).or_else(|_| fs::remove_dir_all(scene.data(name)));
        }
        let _ = fs::remove_file(scene.data("two/b"));
        symlink(&outside, scene.data("bait")).unwrap();
        scene.restore_attacked("one", "bait").await;
        let about = fs::metadata(outside.join("a")).unwrap();
        assert_eq!((about.nlink(), about.uid()), (1, 0), "linked");
    }
}

#[tokio::test]
async fn a_link_put_in_the_way_of_what_is_carried_over_leads_nowhere() {
    let scene = Scene::new();
    let outside = scene.root.path().join("outside");
    for n in 0..100 {
        put(outside.join(format!("{n}/app.toml")), "root's secret");
        put(scene.root.path().join(format!("app/config/{n}/own.toml")), "the user's");
    }
    scene.give();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).unwrap();
    let config = scene.root.path().join("app/config");
    let bait = scene.root.path().join("app/bait");
    symlink(&outside, &bait).unwrap();
    for _ in 0..ROUNDS {
        let staged = app::stage(scene.root.path(), 2);
        let exchanger = Exchanger::start(config.clone(), bait.clone());
        let _ = scene.installer.prepare(&app::release(2)).await;
        drop(exchanger);
        for entry in WalkDir::new(&staged).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file()) {
            let text = fs::read_to_string(entry.path()).unwrap();
            assert_ne!(text, "root's secret", "{}", entry.path().display());
        }
        fs::remove_dir_all(&staged).unwrap();
    }
}

#[tokio::test]
async fn what_root_left_in_the_data_is_removed_all_the_same() {
    let scene = Scene::new();
    scene.snapshot().await;
    let before = manifest(&scene.data(""));
    for _ in 0..2 {
        // As a migration that ran as root leaves them.
        put(scene.data("books/now/deep"), "root's");
        let _ = fs::remove_dir_all(scene.data("cache"));
        put(scene.data("cache/page/deep"), "root's");
        put(scene.data("cache/bait"), "no data");
        owned(&scene.data("books"), 0, 0o500);
        scene.installer.restore(RUN).await.unwrap();
        assert_eq!(fs::read_to_string(scene.data("cache/bait")).unwrap(), "no data");
        fs::remove_file(scene.data("cache/bait")).unwrap();
        scene.installer.restore(RUN).await.unwrap();
        assert_eq!(manifest(&scene.data("")), before);
    }
    fs::remove_dir_all(scene.data("")).unwrap();
    scene.installer.restore(RUN).await.unwrap();
    assert_eq!(manifest(&scene.data("")), before);
}

#[tokio::test]
async fn only_what_was_roots_keeps_its_power_in_a_copy() {
    let scene = Scene::new();
    let decorate = |name: &str, owner: u32, mode: u32| {
        put(scene.data(name), name);
        owned(&scene.data(name), owner, mode);
        xattr::set(scene.data(name), "security.capability", &CAPABILITY).unwrap();
        xattr::set(scene.data(name), "user.note", b"kept").unwrap();
    };
    decorate("roots", 0, 0o6755);
    decorate("users", app_user().uid, 0o6755);
    decorate("open", 0, 0o6777);
    fs::set_permissions(scene.data("books"), fs::Permissions::from_mode(0o2770)).unwrap();
    scene.snapshot().await;
    for name in ["roots", "users", "open", "books/0"] {
        fs::remove_file(scene.data(name)).unwrap();
    }
    scene.installer.restore(RUN).await.unwrap();
    let power = |name: &str| {
        let capability = xattr::get(scene.data(name), "security.capability").unwrap();
        (fs::metadata(scene.data(name)).unwrap().mode() & 0o7777, capability.is_some())
    };
    assert_eq!(power("roots"), (0o6755, true));
    assert_eq!(power("users"), (0o755, false));
    assert_eq!(power("open"), (0o777, false));
    assert_eq!(power("books").0, 0o2770);
    assert_eq!(xattr::get(scene.data("users"), "user.note").unwrap().as_deref(), Some(b"kept".as_slice()));
}

#[tokio::test]
async fn a_pipe_in_place_of_data_keeps_nobody_waiting() {
    let scene = Scene::new();
    put(scene.root.path().join("orders.db"), "rows");
    let mut settings = app::settings(scene.root.path());
    settings.data = DataSettings::Paths {
        paths: vec![scene.root.path().join("orders.db"), scene.root.path().join("data")],
        include: app::patterns(&[]),
        exclude: app::patterns(&[]),
    };
    let installer = Installer::new(&settings);
    let pipe = |path: &Path| {
        let _ = fs::remove_file(path);
        rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    };
    let within = Duration::from_secs(20);
    pipe(&scene.data("pipe"));
    tokio::time::timeout(within, installer.snapshot(RUN, Arc::new(Silent))).await.unwrap().unwrap();
    for path in [scene.root.path().join("orders.db"), scene.data("books/0")] {
        pipe(&path);
    }
    let restored = tokio::time::timeout(within, installer.restore(RUN)).await;
    // Whoever waits for the other end of a pipe is let go, so that the test can end.
    let _ = File::options().read(true).write(true).open(scene.root.path().join("orders.db"));
    restored.unwrap().unwrap();
    assert_eq!(fs::read_to_string(scene.root.path().join("orders.db")).unwrap(), "rows");
    assert_eq!(fs::read_to_string(scene.data("books/0")).unwrap(), "book 0");
}
