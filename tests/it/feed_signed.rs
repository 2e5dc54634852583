//! Signed feeds: a vendor with python-tuf, a web server on loopback, and a site that must not be fooled.
//!
//! - `vendor.py` makes every state of the feed, the good ones and those of a thief;
//! - `server.rs` serves one of them at a time, and remembers what was asked for;
//! - `releases.rs` what goes well; `attacks.rs` what is refused; `cli.rs` the commands;
//! - `news.rs` what is noted of a look for newer releases;
//! - `expiry.rs` what runs out, and how a vendor renews it;
//! - `night.rs` whole nights from a signed feed;
//! - `path.rs` which releases a site takes, and when;
//! - `keeping.rs` a vendor who keeps a feed over the years;
//! - `small.rs` small downloads; `offline.rs` a feed in one file; both from our own vendor's side, `vendor.rs`.

mod attacks;
mod cli;
mod expiry;
mod keeping;
mod news;
mod night;
mod offline;
mod path;
mod releases;
pub(crate) mod server;
mod small;
pub(crate) mod vendor;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use afterhours::config::settings::FeedSettings;
use afterhours::config::settings::ProxySettings;
use afterhours::config::settings::SignedFeedSettings;
use afterhours::config::settings::TransportSettings;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::ManualClock;
use afterhours::domain::progress::Silent;
use afterhours::domain::release::Release;
use afterhours::feed::Feed;
use afterhours::feed::FeedError;
use afterhours::feed::FeedHome;
use chrono::DateTime;
use chrono::Utc;
use walkdir::WalkDir;

use crate::feed_signed::server::Server;

/// The vendor's today.
fn today() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

/// Makes every state of the feed in `out`.
fn publish(out: &Path, now: DateTime<Utc>) {
    let tuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign/python-tuf-7.0.1");
    assert!(tuf.is_dir(), "python-tuf is not there; `make test` fetches it");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/feed_signed/vendor.py");
    let made = Command::new("/usr/bin/python3")
        .arg(script)
        .arg(out)
        .arg(now.timestamp().to_string())
        .env("PYTHONPATH", tuf)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A vendor, a server, and a site that trusts the vendor's first root.
struct Site {
    dir: tempfile::TempDir,
    server: Server,
    clock: Arc<ManualClock>,
    feed: Feed,
}

impl Site {
    /// One that sees the feed in `state`.
    async fn new(state: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("vendor");
        publish(&out, today());
        let server = Server::start(&out.join(state)).await;
        let clock = Arc::new(ManualClock::at(today()));
        let feed = feed(dir.path(), &server, Some(out.join("root.json")), clock.clone());
        Self { dir, server, clock, feed }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The server has this state from now on, and the site has been started anew, as after a crash.
    fn turn(&mut self, state: &str) {
        self.server.serve(&self.path("vendor").join(state));
        self.feed = feed(self.dir.path(), &self.server, None, self.clock.clone());
    }

    async fn builds(&self) -> Vec<u64> {
        self.feed.releases().await.unwrap().iter().map(|release| release.id.build).collect()
    }

    async fn newest(&self) -> Release {
        self.feed.releases().await.unwrap().pop().unwrap()
    }

    async fn stage(&self, release: &Release) -> Result<PathBuf, FeedError> {
        let into = self.path("staging/tree");
        self.feed.stage(release, &into, Arc::new(Silent)).await.map(|()| into)
    }

    /// The version of a role's metadata that is trusted.
    fn version(&self, role: &str) -> u64 {
        let text = fs_err::read(self.path(&format!("state/feed/metadata/{role}.json"))).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["signed"]["version"].as_u64().unwrap()
    }

    /// Every file below one of the site's folders.
    fn files(&self, below: &str) -> Vec<String> {
        let root = self.path(below);
        let files = WalkDir::new(&root).sort_by_file_name().into_iter().filter_map(Result::ok);
        let files = files.filter(|entry| entry.file_type().is_file());
        files.map(|entry| entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned()).collect()
    }
}

fn feed(dir: &Path, server: &Server, root: Option<PathBuf>, clock: Arc<dyn Clock>) -> Feed {
    feed_carrying(dir, server, root, clock, None)
}

/// The same, where the makers with this root vouch for an Afterhours.
fn feed_carrying(
    dir: &Path,
    server: &Server,
    root: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    makers: Option<&Path>,
) -> Feed {
    let updater_root = makers.map(|root| Arc::from(fs_err::read(root).unwrap()));
    let home = FeedHome { updater_root, ..FeedHome::new(&dir.join("state"), &dir.join("staging"), clock) };
    let transport = TransportSettings { proxy: ProxySettings::Direct, ..TransportSettings::default() };
    let settings = SignedFeedSettings { url: server.url(), root, transport };
    Feed::new(&FeedSettings::Signed(Box::new(settings)), home)
}
