//! What goes wrong on the way: damage, interruption, full disks, power cuts, two at once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use afterhours::domain::progress::Progress;
use afterhours::domain::progress::Silent;
use afterhours::domain::release::MARKER;
use afterhours::domain::release::Marker;
use afterhours::domain::release::Release;
use afterhours::domain::release::ReleaseId;
use afterhours::feed::ArchiveError;
use afterhours::feed::Feed;
use afterhours::feed::FeedError;
use afterhours::feed::dir::DirFeed;
use afterhours::feed::pack::PackMeta;
use afterhours::feed::pack::pack;
use afterhours::files::staged;
use sha2::Digest;
use sha2::Sha256;

use super::Site;
use super::listing;
use super::run;
use super::sample_tree;
use super::tar_zst;
use super::text;

/// A release of `files` files of 32 KiB that cannot be compressed.
fn publish_noise(site: &Site, files: u32) -> Release {
    fs::create_dir(site.path("noise")).unwrap();
    for name in 0..files {
        let noise: Vec<u8> = (0_u32..1024).flat_map(|i| Sha256::digest(format!("{name} {i}"))).collect();
        fs::write(site.path("noise").join(name.to_string()), noise).unwrap();
    }
    let meta = PackMeta::new(ReleaseId { version: "2.0".parse().unwrap(), build: 20 });
    pack(&site.path("noise"), &meta, &site.path("feed")).unwrap()
}

#[tokio::test]
async fn damage_is_found_whatever_else_is_wrong_with_the_archive() {
    let site = Site::new();
    sample_tree(&site.path("tree"));
    let good = tar_zst(&site.path("tree"), &[], &[]);
    let folder = site.publish("2.0", 20, 400_000, &[&good]);
    let release = site.only().await;
    let archive = folder.join("0.tar.zst");
    for at in [0, good.len() / 2, good.len() - 1] {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        fs::write(&archive, &damaged).unwrap();
        match site.stage(&release).await.unwrap_err() {
            FeedError::WrongHash { declared, found, .. } => assert_ne!(declared, found),
            other => panic!("{at}: {other:?}"),
        }
        site.assert_nothing_staged();
    }
    for wrong in [&good[..good.len() - 1], &[&good[..], b"x"].concat(), b""] {
        fs::write(&archive, wrong).unwrap();
        match site.stage(&release).await.unwrap_err() {
            FeedError::WrongSize { declared, found, .. } => {
                assert_eq!((declared, found), (good.len() as u64, wrong.len() as u64));
            }
            other => panic!("{other:?}"),
        }
        site.assert_nothing_staged();
    }
    fs::remove_file(&archive).unwrap();
    fs::create_dir(&archive).unwrap();
    assert!(matches!(site.stage(&release).await, Err(FeedError::NotAFile { .. })));
    fs::remove_dir(&archive).unwrap();
    fs::write(&archive, &good).unwrap();
    site.stage(&release).await.unwrap();
}

#[tokio::test]
async fn a_release_from_an_old_log_cannot_point_elsewhere() {
    let site = Site::new();
    let mut release = publish_noise(&site, 1);
    release.archives[0].file = "../../noise/0".to_owned();
    assert!(matches!(site.stage(&release).await, Err(FeedError::BadValue { .. })));
}

#[tokio::test]
async fn a_tree_that_stands_is_done_and_anything_else_is_left_alone() {
    let site = Site::new();
    let release = publish_noise(&site, 1);
    let into = site.stage(&release).await.unwrap();
    fs::write(into.join("trace"), "still the same tree").unwrap();
    // Nothing is read any more.
    fs::remove_dir_all(&release.location).unwrap();
    site.stage(&release).await.unwrap();
    assert!(into.join("trace").exists());

    let mut newer = release.clone();
    newer.id.build = 21;
    match site.stage(&newer).await.unwrap_err() {
        FeedError::Occupied { found, .. } => assert_eq!(found, Some(release.id.clone())),
        other => panic!("{other:?}"),
    }
    // What the tree says of itself counts only where nothing is known, and then against it.
    fs::write(into.join(MARKER), "{").unwrap();
    site.stage(&release).await.unwrap();
    fs::remove_dir_all(staged::state_dir(&into)).unwrap();
    assert!(matches!(site.stage(&release).await, Err(FeedError::ParseMarker { .. })));
    fs::remove_file(into.join(MARKER)).unwrap();
    assert!(matches!(site.stage(&release).await, Err(FeedError::Occupied { found: None, .. })));
    fs::remove_dir_all(&into).unwrap();
    fs::write(&into, "a file").unwrap();
    assert!(matches!(site.stage(&release).await, Err(FeedError::Occupied { found: None, .. })));
    assert_eq!(fs::read_to_string(&into).unwrap(), "a file");
}

#[tokio::test]
async fn a_tree_of_the_same_build_with_other_contents_is_staged_anew() {
    let site = Site::new();
    let into = site.path("staging/tree");
    let release = publish_noise(&site, 1);
    // Somebody else's, with the right name; an Afterhours of before wrote such markers.
    fs::create_dir_all(into.join("shut")).unwrap();
    fs::write(into.join("shut/evil"), "x").unwrap();
    fs::write(into.join(MARKER), "{\"version\":\"2.0\",\"build\":20}\n").unwrap();
    fs::set_permissions(into.join("shut"), fs::Permissions::from_mode(0o500)).unwrap();
    site.stage(&release).await.unwrap();
    assert_eq!(listing(&into), listing(&site.path("noise")));

    // The vendor takes a build back and publishes it once more.
    let mut first = release.clone();
    first.archives[0].sha256 = "0".repeat(64);
    staged::seal(&into, &into, &Marker::of(&first)).unwrap();
    fs::write(into.join("of the first"), "x").unwrap();
    site.stage(&release).await.unwrap();
    assert_eq!(listing(&into), listing(&site.path("noise")));
    assert!(!site.path("staging/tree.partial").exists());

    // What cannot be had leaves nothing that could be taken for it.
    assert!(matches!(site.stage(&first).await, Err(FeedError::WrongHash { .. })));
    site.assert_nothing_staged();
}

#[tokio::test]
async fn leftovers_are_removed_without_following_links_out_of_them() {
    let site = Site::new();
    let release = publish_noise(&site, 2);
    let partial = site.path("staging/tree.partial");
    fs::create_dir_all(partial.join("shut/deep")).unwrap();
    fs::create_dir(site.path("outside")).unwrap();
    fs::write(site.path("outside/keep"), "x").unwrap();
    symlink(site.path("outside"), partial.join("shut/link")).unwrap();
    fs::write(partial.join("0"), "half").unwrap();
    fs::write(partial.join(MARKER), Marker::of(&release).to_text()).unwrap();
    for dir in ["shut/deep", "shut", "."] {
        fs::set_permissions(partial.join(dir), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let into = site.stage(&release).await.unwrap();
    assert_eq!(listing(&into), listing(&site.path("noise")));
    assert!(site.path("outside/keep").exists());

    // Nor does a link in the place of the partial tree lead anywhere.
    fs::remove_dir_all(&into).unwrap();
    symlink(site.path("outside"), &partial).unwrap();
    assert!(matches!(site.stage(&release).await, Err(FeedError::Make { .. })));
    assert!(site.path("outside/keep").exists());
}

/// Lets the work come to its first progress, and then stops it until it is let go.
#[derive(Default)]
struct Barrier {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Barrier {
    fn wait_until(&self, ready: impl Fn(&(bool, bool)) -> bool) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, Duration::from_secs(20), |state| !ready(state)).unwrap();
        assert!(!waited.1.timed_out());
    }

    fn set(&self, change: impl Fn(&mut (bool, bool))) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }
}

impl Progress for Barrier {
    fn advance(&self, _done: u64, _total: Option<u64>, _what: &str) {
        self.set(|state| state.0 = true);
        self.wait_until(|state| state.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_try_ends_and_the_next_one_waits_for_it() {
    let site = Site::new();
    let release = publish_noise(&site, 40);
    let into = site.path("staging/tree");
    let barrier = Arc::new(Barrier::default());
    let (feed, first) = (site.feed.clone(), (release.clone(), into.clone(), barrier.clone()));
    let task = tokio::spawn(async move { feed.stage(&first.0, &first.1, first.2).await });
    barrier.wait_until(|state| state.0);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(site.path("staging/tree.partial").is_dir());

    // The second try starts while the first still holds the lock, and must not get in its way.
    let second = tokio::spawn({
        let (feed, release, into) = (site.feed.clone(), release.clone(), into.clone());
        async move { feed.stage(&release, &into, Arc::new(Silent)).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!into.exists() && !second.is_finished());
    barrier.set(|state| state.1 = true);
    second.await.unwrap().unwrap();
    assert_eq!(listing(&into), listing(&site.path("noise")));
    assert!(!site.path("staging/tree.partial").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_make_one_tree() {
    let site = Site::new();
    let release = publish_noise(&site, 20);
    let into = site.path("staging/tree");
    let tries = (0..4).map(|_| site.feed.stage(&release, &into, Arc::new(Silent)));
    for tried in futures_util::future::join_all(tries).await {
        tried.unwrap();
    }
    assert_eq!(listing(&into), listing(&site.path("noise")));
    let mut left: Vec<_> = fs::read_dir(site.path("staging")).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.sort();
    assert_eq!(left, [into.clone(), staged::state_dir(&into)]);
}

/// Stages in a process of its own when it is told where; otherwise for itself, so that it is a test, too.
#[tokio::test]
async fn staging_in_a_process_of_its_own() {
    let told = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (feed, into, _own) = match (told("AFTERHOURS_TEST_FEED"), told("AFTERHOURS_TEST_INTO")) {
        (Some(feed), Some(into)) => (feed, into, None),
        _ => {
            let site = Site::new();
            publish_noise(&site, 1);
            (site.path("feed"), site.path("staging/tree"), Some(site))
        }
    };
    let feed = Feed::Dir(DirFeed::new(feed));
    let release = feed.releases().await.unwrap().remove(0);
    feed.stage(&release, &into, Arc::new(Silent)).await.unwrap();
    assert!(into.join(MARKER).is_file());
}

/// The same, as a command that can be killed; under another program if `wrap` names one.
fn stage_elsewhere(site: &Site, wrap: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let mut argv: Vec<&str> = wrap.to_vec();
    argv.extend([text(&test), "--exact", "feed::faults::staging_in_a_process_of_its_own"]);
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).env("AFTERHOURS_TEST_FEED", site.path("feed"));
    command.env("AFTERHOURS_TEST_INTO", site.path("staging/tree")).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[tokio::test]
async fn killed_in_the_middle_leaves_nothing_and_the_next_try_succeeds() {
    let site = Site::new();
    let release = publish_noise(&site, 200);
    let partial = site.path("staging/tree.partial");
    let mut seen_partial = 0;
    for files in [0, 1, 10, 40, 70, 99, 150] {
        let mut child = stage_elsewhere(&site, &[]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let count = || fs::read_dir(&partial).map_or(0, Iterator::count);
        while count() < files && child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        seen_partial += u32::from(partial.exists());
        if site.path("staging/tree").exists() {
            assert_eq!(listing(&site.path("staging/tree")), listing(&site.path("noise")));
            fs::remove_dir_all(site.path("staging/tree")).unwrap();
        }
    }
    assert!(seen_partial > 0, "none was killed in the middle");
    let into = site.stage(&release).await.unwrap();
    assert_eq!(listing(&into), listing(&site.path("noise")));
}

#[tokio::test]
async fn killed_at_any_system_call_leaves_nothing_or_the_whole_tree() {
    let site = Site::new();
    sample_tree(&site.path("tree"));
    let meta = PackMeta::new(ReleaseId { version: "2.0".parse().unwrap(), build: 20 });
    let release = pack(&site.path("tree"), &meta, &site.path("feed")).unwrap();
    let into = site.path("staging/tree");
    let calls = [
        ("mkdir", 1, false),
        ("flock", 1, false),
        ("openat", 40, false),
        ("mkdirat", 1, false),
        ("mkdirat", 3, false),
        ("symlinkat", 2, false),
        ("linkat", 1, false),
        ("fchmod", 1, false),
        ("fchmod", 3, false),
        ("utimensat", 2, false),
        ("syncfs", 1, false),
        ("renameat2", 1, false),
        ("fsync", 1, true),
    ];
    for (calls, nth, stands) in calls {
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=SIGKILL:when={nth}"));
        let wrap = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let status = stage_elsewhere(&site, &wrap).status();
        let status =
            status.unwrap_or_else(|error| panic!("strace cannot be run ({error}); install the package strace"));
        assert_eq!(into.exists(), stands, "{calls} {nth}: {status}");
        if stands {
            assert_eq!(listing(&into), listing(&site.path("tree")), "{calls} {nth}");
        }
        site.stage(&release).await.unwrap();
        assert_eq!(listing(&into), listing(&site.path("tree")), "{calls} {nth}");
        fs::remove_dir_all(site.path("staging")).unwrap();
    }
}

#[tokio::test]
async fn a_failing_system_call_leaves_nothing_at_all() {
    let site = Site::new();
    sample_tree(&site.path("tree"));
    let meta = PackMeta::new(ReleaseId { version: "2.0".parse().unwrap(), build: 20 });
    pack(&site.path("tree"), &meta, &site.path("feed")).unwrap();
    let into = site.path("staging/tree");
    for (call, works) in [
        ("flock:error=ENOLCK", false),
        ("fchmod:error=EPERM:when=4", false),
        ("utimensat:error=EIO:when=2", false),
        ("linkat:error=EMLINK", false),
        ("syncfs:error=EIO", false),
        ("renameat2:error=EIO", false),
        // A file system that cannot refuse to replace: the plain call does it.
        ("renameat2:error=EINVAL", true),
    ] {
        let name = call.split(':').next().unwrap();
        let (trace, inject) = (format!("trace={name}"), format!("inject={call}"));
        let wrap = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let status = stage_elsewhere(&site, &wrap).status();
        let status =
            status.unwrap_or_else(|error| panic!("strace cannot be run ({error}); install the package strace"));
        assert_eq!((status.success(), into.exists()), (works, works), "{call}");
        if works {
            assert_eq!(listing(&into), listing(&site.path("tree")), "{call}");
        } else if name != "flock" && name != "fchmod" {
            site.assert_nothing_staged();
        }
    }
}

#[tokio::test]
async fn an_ordinary_user_stages_what_is_unwritable_and_removes_it_again() {
    let site = Site::new();
    sample_tree(&site.path("tree"));
    let meta = PackMeta::new(ReleaseId { version: "2.0".parse().unwrap(), build: 20 });
    pack(&site.path("tree"), &meta, &site.path("feed")).unwrap();
    // Where the tests were built need not be open to everybody.
    fs::copy(std::env::current_exe().unwrap(), site.path("it")).unwrap();
    fs::set_permissions(site.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let partial = site.path("staging/tree.partial");
    fs::create_dir_all(partial.join("shut/deep")).unwrap();
    for dir in ["shut/deep", "shut", "."] {
        fs::set_permissions(partial.join(dir), fs::Permissions::from_mode(0o000)).unwrap();
    }
    run("coreutils", "chown", &["-R", "65534:65534", text(&site.path("staging"))]);
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = Command::new("setpriv");
    command.args(user).arg(site.path("it")).args(["--exact", "feed::faults::staging_in_a_process_of_its_own"]);
    command.env("AFTERHOURS_TEST_FEED", site.path("feed")).env("AFTERHOURS_TEST_INTO", site.path("staging/tree"));
    let output = command.output().unwrap_or_else(|e| panic!("setpriv cannot be run ({e}); install util-linux"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(listing(&site.path("staging/tree")), listing(&site.path("tree")));
}

/// A mounted file system that is unmounted at the end, come what may.
struct Mount(PathBuf);

impl Mount {
    fn new(at: PathBuf, args: &[&str]) -> Self {
        fs::create_dir_all(&at).unwrap();
        run("mount", "mount", &[args, &[text(&at)]].concat());
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success(), "{} is still mounted", self.0.display());
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_given_back() {
    let site = Site::new();
    let release = publish_noise(&site, 40);
    let mount = Mount::new(site.path("staging"), &["-t", "tmpfs", "-o", "size=512k,mode=755", "tmpfs"]);
    let error = site.stage(&release).await.unwrap_err();
    match &error {
        FeedError::Unpack { source: ArchiveError::Write { source, .. }, .. } => {
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(error.hint().unwrap(), "free space on that file system; nothing was installed");
    site.assert_nothing_staged();
    run("mount", "mount", &["-o", "remount,size=1m,nr_inodes=10", text(&mount.0)]);
    let error = site.stage(&release).await.unwrap_err();
    assert!(error.hint().unwrap().starts_with("free space"), "{error}");
    site.assert_nothing_staged();
    run("mount", "mount", &["-o", "remount,size=4m,nr_inodes=1000", text(&mount.0)]);
    site.stage(&release).await.unwrap();
    run("mount", "mount", &["-o", "remount,ro", text(&mount.0)]);
    // It stands, and that can be said without writing.
    site.stage(&release).await.unwrap();
    let error = site.feed.stage(&release, &mount.0.join("other"), Arc::new(Silent)).await.unwrap_err();
    assert_eq!(error.hint().unwrap(), "mount that file system for writing");
}

#[tokio::test]
async fn a_power_cut_after_staging_loses_nothing() {
    let site = Site::new();
    let release = publish_noise(&site, 20);
    let image = site.path("disk.img");
    run("coreutils", "truncate", &["-s", "32M", text(&image)]);
    run("e2fsprogs", "mkfs.ext4", &["-q", text(&image)]);
    let cut = |mount: Mount| {
        run("xfsprogs", "xfs_io", &["-x", "-c", "shutdown", text(&mount.0)]);
        drop(mount);
        Mount::new(site.path("staging"), &["-o", "loop", text(&image)])
    };
    let mount = Mount::new(site.path("staging"), &["-o", "loop", text(&image)]);
    let into = site.stage(&release).await.unwrap();
    fs::write(site.path("staging/unsynced"), "lost").unwrap();
    let mount = cut(mount);
    // That the cut was one is seen by what nobody brought to disk.
    assert!(!site.path("staging/unsynced").exists());
    assert_eq!(listing(&into), listing(&site.path("noise")));
    assert!(Path::new(&into).join(MARKER).is_file());
    drop(mount);
}
