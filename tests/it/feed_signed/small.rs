//! Small downloads over real HTTP: how much is sent, and what happens where one is of no use.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use afterhours::domain::clock::Clock;
use afterhours::domain::clock::ManualClock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::progress::Progress;
use afterhours::domain::release::Release;
use afterhours::feed::Feed;
use sha2::Digest;
use sha2::Sha256;

use crate::feed_signed::feed;
use crate::feed_signed::server::Server;
use crate::feed_signed::vendor::create;
use crate::feed_signed::vendor::vendor;

/// A vendor with our own commands, a web server, and a site.
pub(crate) struct Trade {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: Server,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) feed: Feed,
}

impl Trade {
    /// One with a feed that has no release yet.
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same, created with these flags.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        create(dir.path(), flags);
        let server = Server::start(&path("orders/published")).await;
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let feed = feed(dir.path(), &server, Some(path("orders/root.json")), clock.clone());
        Self { dir, server, clock, feed }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The vendor publishes a build: one megabyte that does not compress, and the build's own number in it.
    pub(crate) fn publish(&self, build: u64, more: &[&str]) {
        let tree = self.path("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        let mut data = noise(1_000_000);
        data.splice(500_000..500_008, build.to_le_bytes());
        fs::write(tree.join("data"), data).unwrap();
        fs::write(tree.join("bin/orders"), format!("release {build}\n")).unwrap();
        let (version, number) = (format!("{build}.0"), build.to_string());
        let (orders, tree) = (self.path("orders"), tree);
        let args = ["publish", orders.to_str().unwrap(), "--version", &version, "--build", &number, "--tree"];
        vendor(self.dir.path(), &[&args[..], &[tree.to_str().unwrap()], more].concat());
    }

    /// The site as after a restart.
    pub(crate) fn restart(&mut self) {
        self.feed = feed(self.dir.path(), &self.server, None, self.clock.clone());
    }

    pub(crate) async fn release(&self, build: u64) -> Release {
        let releases = self.feed.releases().await.unwrap();
        releases.into_iter().find(|release| release.id.build == build).unwrap()
    }

    /// Stages a release, looks at its tree, and says how many bytes were sent and what was told meanwhile.
    async fn stage(&self, release: &Release) -> (u64, Vec<String>) {
        self.server.take_sent();
        let (tree, told) = (self.path(&format!("staging/{}", release.id.build)), Arc::new(Told::default()));
        self.feed.stage(release, &tree, Arc::clone(&told) as Arc<dyn Progress>).await.unwrap();
        let mut data = noise(1_000_000);
        data.splice(500_000..500_008, release.id.build.to_le_bytes());
        assert!(fs::read(tree.join("data")).unwrap() == data);
        let program = fs::read_to_string(tree.join("bin/orders")).unwrap();
        assert_eq!(program, format!("release {}\n", release.id.build));
        fs::remove_dir_all(tree).unwrap();
        (self.server.take_sent(), std::mem::take(&mut told.0.lock().unwrap()))
    }

    pub(crate) fn downloads(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("staging/downloads")).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn download(&self, hash: &str) -> PathBuf {
        self.path("staging/downloads").join(hash)
    }
}

/// Everything that progress was told, once.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn advance(&self, done: u64, total: Option<u64>, what: &str) {
        assert!(done <= total.unwrap(), "{what}: {done} of {total:?}");
        let mut told = self.0.lock().unwrap();
        if told.last().is_none_or(|last| last != what) {
            told.push(what.to_owned());
        }
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    (0_u64..).flat_map(|n| Sha256::digest(n.to_le_bytes())).take(bytes).collect()
}

fn tar_of(release: &Release) -> &str {
    release.archives[0].tar_sha256.as_deref().unwrap()
}

/// Other bytes in the middle, the same size.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0);
    fs::write(path, bytes).unwrap();
}

const WHOLE: u64 = 1_000_000;
const SMALL: u64 = 20_000;

#[tokio::test]
async fn an_update_fetches_only_what_changed() {
    let mut trade = Trade::new().await;
    trade.publish(1, &[]);
    let first = trade.release(1).await;
    assert!(trade.stage(&first).await.0 > WHOLE);
    trade.publish(2, &[]);
    trade.publish(3, &[]);
    trade.restart();
    let (second, third) = (trade.release(2).await, trade.release(3).await);
    assert_eq!(third.archives[0].deltas.iter().map(|delta| delta.from_build).collect::<Vec<_>>(), [2, 1]);

    // From the archive as it was published.
    let (sent, told) = trade.stage(&second).await;
    assert!((1..SMALL).contains(&sent), "{sent} bytes");
    assert!(told.iter().all(|what| !what.contains("no use")), "{told:?}");
    assert_eq!(trade.downloads().len(), 2);
    assert!(trade.download(tar_of(&second)).is_file());
    assert_eq!(trade.stage(&second).await.0, 0, "what was made once is there");
    // From one that was made here, when it alone is kept.
    trade.feed.retain(std::slice::from_ref(&second), &[]).unwrap();
    assert_eq!(trade.downloads(), [tar_of(&second)]);
    let (sent, _) = trade.stage(&third).await;
    assert!((1..SMALL).contains(&sent), "{sent} bytes");
}

#[tokio::test]
async fn a_damaged_base_is_removed_and_all_is_fetched() {
    let mut trade = Trade::new().await;
    trade.publish(1, &[]);
    let first = trade.release(1).await;
    trade.stage(&first).await;
    trade.publish(2, &[]);
    trade.restart();
    let second = trade.release(2).await;
    damage(&trade.download(&first.archives[0].sha256));
    let (sent, told) = trade.stage(&second).await;
    assert!(sent > WHOLE, "{sent} bytes");
    assert!(told.contains(&"the small download is of no use; fetching all of it".to_owned()), "{told:?}");
    assert_eq!(trade.downloads(), [second.archives[0].sha256.clone()]);
}

#[tokio::test]
async fn a_delta_that_is_not_there_or_not_right_is_no_obstacle() {
    for is_there in [false, true] {
        let mut trade = Trade::new().await;
        trade.publish(1, &[]);
        let first = trade.release(1).await;
        trade.stage(&first).await;
        trade.publish(2, &[]);
        trade.restart();
        let second = trade.release(2).await;
        let delta = &second.archives[0].deltas[0];
        let served = trade.path(&format!("orders/published/targets/2/{}.{}", delta.sha256, delta.file));
        if is_there {
            damage(&served);
        } else {
            fs::remove_file(served).unwrap();
        }
        assert!(trade.stage(&second).await.0 > WHOLE);
        // The base is not to blame.
        assert!(trade.download(&first.archives[0].sha256).is_file());
        assert!(trade.downloads().iter().all(|name| !name.starts_with(&delta.sha256)), "{:?}", trade.downloads());
    }
}

#[tokio::test]
async fn what_was_damaged_after_it_came_is_fetched_anew() {
    let mut trade = Trade::new().await;
    trade.publish(1, &[]);
    let first = trade.release(1).await;
    trade.stage(&first).await;
    damage(&trade.download(&first.archives[0].sha256));
    assert!(trade.stage(&first).await.0 > WHOLE);
    trade.publish(2, &[]);
    trade.restart();
    let second = trade.release(2).await;
    trade.stage(&second).await;
    damage(&trade.download(tar_of(&second)));
    let (sent, _) = trade.stage(&second).await;
    assert!((1..SMALL).contains(&sent), "{sent} bytes");
}

#[tokio::test]
async fn the_vendor_decides_how_many_there_are() {
    let trade = Trade::new().await;
    trade.publish(1, &[]);
    trade.publish(2, &["--deltas", "0"]);
    trade.publish(3, &["--deltas", "1"]);
    // Nothing in common with any before: a delta would be no smaller.
    let tree = trade.path("other");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("data"), noise(2_000_000).split_off(1_000_000)).unwrap();
    let orders = trade.path("orders");
    let args =
        ["publish", orders.to_str().unwrap(), "--version", "4.0", "--build", "4", "--tree", tree.to_str().unwrap()];
    vendor(trade.dir.path(), &args);
    let releases = trade.feed.releases().await.unwrap();
    let counts: Vec<_> = releases.iter().map(|release| release.archives[0].deltas.len()).collect();
    assert_eq!(counts, [0, 0, 1, 0]);
}
