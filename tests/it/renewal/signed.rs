//! A newer Afterhours in a signed feed: published with our own commands, fetched over HTTP, and checked like everything.

use std::path::Path;
use std::path::PathBuf;

use afterhours::domain::run::Outcome;
use afterhours::domain::run::RunId;
use rstest::rstest;
use tempfile::TempDir;

use super::updater::Flaw;
use super::updater::bad_program;
use super::updater::folder;
use super::updater::good_program;
use super::updater::in_place;
use super::updater::own_program;
use super::updater::publish_by;
use super::updater::said;
use super::updater::trust_makers;
use crate::feed_signed::server::Server;
use crate::feed_signed::vendor::create;
use crate::feed_signed::vendor::create_named;
use crate::feed_signed::vendor::vendor;
use crate::night::releases::Edition;
use crate::night::releases::V2;
use crate::night::releases::V3;
use crate::night::site::Site;
use crate::night::site::eventually;
use crate::night::truth::Left;

/// A vendor with a signed feed on a web server.
pub(crate) struct Vendor {
    dir: TempDir,
    pub(crate) server: Server,
}

impl Vendor {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &[]);
        create_named(dir.path(), "afterhours", &["--updater"]);
        let server = Server::start(&dir.path().join("orders/published")).await;
        Self { dir, server }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A site that trusts this vendor, with further settings of the application, and a program of its own.
    pub(crate) async fn site(&self, settings: &[(&str, &str)]) -> Site {
        let mut site = Site::with(&[&[("feed", self.setting().as_str())], settings].concat()).await;
        own_program(&mut site);
        trust_makers(&site, self.dir.path());
        site
    }

    /// How a site that trusts it configures its feed.
    pub(crate) fn setting(&self) -> String {
        let root = self.path("orders/root.json");
        format!("{{ url = \"{}\", root = \"{}\", proxy = \"none\" }}", self.server.url(), root.display())
    }

    fn publish(&self, version: &str, build: u64, what: &[&str]) {
        let (orders, build) = (self.path("orders"), build.to_string());
        let args = ["publish", orders.to_str().unwrap(), "--version", version, "--build", &build];
        vendor(self.dir.path(), &[&args[..], what].concat());
    }

    /// Publishes a version of the order desk.
    pub(crate) fn release(&self, edition: Edition, more: &[&str]) {
        let tree = tempfile::tempdir().unwrap();
        edition.tree(tree.path());
        let migration = edition.migration().unwrap_or_default();
        let migration: Vec<&str> = migration.iter().flat_map(|arg| ["--migrate", arg.as_str()]).collect();
        let tree = ["--tree", tree.path().to_str().unwrap()];
        self.publish(edition.version, edition.build, &[&tree[..], &migration[..], more].concat());
    }

    /// The makers of Afterhours publish a file, and the vendor carries it.
    pub(crate) fn updater(&self, version: &str, build: u64, program: &[u8]) {
        publish_by(self.dir.path(), version, build, program);
        self.carry(&self.path("afterhours/published"));
    }

    /// Carries what is published there.
    pub(crate) fn carry(&self, from: &Path) {
        let orders = self.path("orders");
        vendor(self.dir.path(), &["publish", orders.to_str().unwrap(), "--updater", "--from", from.to_str().unwrap()]);
    }

    /// The published archive of a build of Afterhours.
    fn archive(&self, build: u64) -> PathBuf {
        let published =
            fs_err::read_dir(self.path(&format!("orders/published/afterhours/targets/updater/{build}"))).unwrap();
        let mut archives = published.map(|entry| entry.unwrap().path());
        archives.find(|path| path.extension().is_some_and(|extension| extension == "zst")).unwrap()
    }
}

/// Another byte in the middle of a file; once more, and it is right again.
fn spoil(file: &Path) {
    let mut bytes = fs_err::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(file, bytes).unwrap();
}

/// How many archives, whole or begun, wait beside the installation.
fn downloads(site: &Site) -> usize {
    fs_err::read_dir(site.path("opt/.orders.afterhours/downloads")).map_or(0, Iterator::count)
}

/// What is unpacked of Afterhours, whole or begun.
fn staged(site: &Site) -> usize {
    fs_err::read_dir(folder(site).join("staged")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_newer_afterhours_goes_first_then_the_release_that_needs_it() {
    let vendor = Vendor::new().await;
    let mut site = vendor.site(&[]).await;
    let new = good_program(&site, "0.2.0", 2);
    vendor.release(V2, &["--min-afterhours", "0.2"]);
    vendor.updater("0.2.0", 2, &new);
    site.open().await;
    let pid = site.pid();
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    assert_eq!(said(&site, run).await, ("Afterhours 0.2.0 (build 2) runs, before it was 0.1.0".to_owned(), Vec::new()));
    assert!(in_place(&site) == new);
    assert_eq!(site.client().status().await.unwrap().daemon.unwrap().pid, pid, "the same process");
    site.reports(1).await;
    assert!(site.client().show_run(RunId(run.0 + 1)).await.is_err(), "it is one run");
    assert_eq!(downloads(&site), 1, "only what the next small download of the application starts from");
    site.stop().await;
}

#[tokio::test]
async fn a_wrong_byte_is_refused_and_nothing_is_left_of_it() {
    let vendor = Vendor::new().await;
    let mut site = vendor.site(&[]).await;
    let (old, new) = (in_place(&site), good_program(&site, "0.2.0", 2));
    vendor.release(V2, &[]);
    vendor.updater("0.2.0", 2, &new);
    spoil(&vendor.archive(2));
    site.open().await;
    let pid = site.pid();
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    let (message, findings) = said(&site, run).await;
    assert!(message.starts_with("Afterhours stays as it is; failed to accept http://127.0.0.1:"), "{message}");
    assert!(message.contains(": its sha256 is "), "{message}");
    assert_eq!(findings.len(), 1);
    assert!(findings[0].remedy.as_ref().unwrap().contains("not the one that was signed"), "{findings:?}");
    assert!(in_place(&site) == old);
    assert_eq!(site.client().status().await.unwrap().daemon.unwrap().pid, pid);
    assert_eq!((downloads(&site), staged(&site)), (1, 0));
    // That says nothing about the build: the vendor uploads it again, and it is taken.
    spoil(&vendor.archive(2));
    vendor.release(V3, &[]);
    site.restart().await;
    let view = site.settled(site.update().await).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    assert_eq!(said(&site, view.id).await.0, "Afterhours 0.2.0 (build 2) runs, before it was 0.1.0");
    assert!(in_place(&site) == new);
    site.stop().await;
}

#[tokio::test]
async fn one_that_does_not_come_up_is_put_back_with_the_store() {
    let vendor = Vendor::new().await;
    let mut site = vendor.site(&[]).await;
    let old = in_place(&site);
    vendor.release(V2, &[]);
    vendor.updater("0.2.0", 2, &bad_program(&site, "0.2.0", Flaw::RuinsTheStore));
    site.open().await;
    let run = site.update().await;
    site.ended().await;
    eventually("the caretaker's daemon answers", async || site.client().status().await.is_ok()).await;
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    let (message, findings) = said(&site, run).await;
    assert!(message.contains("0.2.0 (build 2) did not come up") && message.contains("0.1.0 runs again"), "{message}");
    assert_eq!(findings.len(), 1);
    assert!(in_place(&site) == old);
    site.reports(1).await;
    assert_eq!(downloads(&site), 1, "what failed is not kept");
    let (_, doctor, _) = site.run(&["doctor", "orders"]).await;
    assert!(doctor.contains("Afterhours 0.2.0 (build 2) failed here before"), "{doctor}");
}

/// What somebody does who owns the web server and none of the vendor's keys.
#[derive(Debug, Clone, Copy)]
enum Thief {
    /// Puts a program there, and describes it.
    AddsFiles,
    /// And signs for it, with other keys.
    SignsThem,
    /// And has it all signed with other keys, from the root on.
    IsAnotherVendor,
}

#[rstest]
#[tokio::test]
async fn what_nobody_trusted_has_signed_is_never_run(
    #[values(Thief::AddsFiles, Thief::SignsThem, Thief::IsAnotherVendor)] thief: Thief,
) {
    let (vendor, other) = (Vendor::new().await, Vendor::new().await);
    let mut site = vendor.site(&[]).await;
    let (old, mark) = (in_place(&site), site.path("it-ran"));
    vendor.release(V2, &[]);
    other.release(V2, &[]);
    other.updater("0.2.0", 2, format!("#!/bin/sh\ntouch {}\n", mark.display()).as_bytes());
    let copy = |from: &str| {
        let (from, to) = (other.path("orders/published").join(from), vendor.path("orders/published").join(from));
        let copied = std::process::Command::new("cp").args(["-a", "-T"]).args([from, to]).status().unwrap();
        assert!(copied.success());
    };
    match thief {
        Thief::AddsFiles => copy("targets"),
        Thief::SignsThem => {
            copy("targets");
            copy("metadata/timestamp.json");
            for name in ["snapshot", "targets"] {
                for version in 1..=2 {
                    copy(&format!("metadata/{version}.{name}.json"));
                }
            }
        }
        Thief::IsAnotherVendor => copy("."),
    }
    site.open().await;
    vendor.server.take_asked();
    let view = site.settled(site.update().await).await;
    match thief {
        Thief::AddsFiles => {
            assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
            assert_eq!(said(&site, view.id).await.0, "Afterhours 0.1.0 stays; the feed has no newer one");
        }
        Thief::SignsThem | Thief::IsAnotherVendor => {
            assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::Old);
            assert_eq!(view.outcome, Some(Outcome::Failed));
            let told = format!("{view:?}");
            assert!(told.contains("accept the timestamp metadata: 0 good signatures, 1 needed"), "{told}");
        }
    }
    assert!(!mark.exists(), "it ran");
    assert!(in_place(&site) == old && !folder(&site).exists());
    assert!(vendor.server.take_asked().iter().all(|path| !path.contains("updater")), "it was not even fetched");
}

#[tokio::test]
async fn a_site_without_a_network_takes_it_from_a_bundle() {
    let mut vendor = Vendor::new().await;
    let mut site = vendor.site(&[]).await;
    let new = good_program(&site, "0.2.0", 2);
    vendor.release(V2, &["--min-afterhours", "0.2"]);
    vendor.updater("0.2.0", 2, &new);
    let office = Site::with(&[("feed", vendor.setting().as_str())]).await;
    trust_makers(&office, vendor.dir.path());
    let bundle = site.path("orders.bundle");
    let bundle = bundle.to_str().unwrap();
    let (code, wrote, talk) = office.run(&["feed", "bundle", "orders", "2.0", "-o", bundle]).await;
    assert_eq!(code, 0, "{talk}");
    assert!(wrote.contains("\n  2.0 (build 2)\n  Afterhours 0.2.0 (build 2)"), "{wrote}");
    vendor.server.stop().await;
    // By far the most of it is Afterhours.
    spoil(Path::new(bundle));
    let (code, _, talk) = site.run(&["feed", "refresh", "orders", "--bundle", bundle]).await;
    assert_eq!(code, 4, "{talk}");
    assert!(talk.contains("accept updater/2/afterhours-"), "{talk}");
    assert_eq!(downloads(&site), 1, "what came before it is right");
    spoil(Path::new(bundle));
    let (code, took, talk) = site.run(&["feed", "refresh", "orders", "--bundle", bundle]).await;
    assert_eq!(code, 0, "{talk}");
    assert!(took.contains("\n  2.0 (build 2), downloaded\n  Afterhours 0.2.0 (build 2), downloaded"), "{took}");
    site.open().await;
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    assert_eq!(said(&site, run).await.0, "Afterhours 0.2.0 (build 2) runs, before it was 0.1.0");
    assert!(in_place(&site) == new);
    assert_eq!(downloads(&site), 1);
    site.stop().await;
}

#[tokio::test]
async fn one_that_waits_is_taken_when_a_release_needs_it() {
    let vendor = Vendor::new().await;
    let mut site =
        vendor.site(&[("updates", "{ cool_down = \"30d\", check_at_start = false, check_every = \"never\" }")]).await;
    let (old, new) = (in_place(&site), good_program(&site, "0.2.0", 2));
    vendor.updater("0.2.0", 2, &new);
    vendor.release(V2, &["--security"]);
    site.open().await;
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    let (message, findings) = said(&site, run).await;
    assert!(message.starts_with("Afterhours 0.1.0 stays; 0.2.0 (build 2) is held back until "), "{message}");
    assert_eq!(findings, []);
    assert!(in_place(&site) == old);
    let (_, doctor, _) = site.run(&["doctor", "orders"]).await;
    assert!(doctor.contains("self_update: Afterhours 0.1.0 stays: 0.2.0 (build 2) is held back until "), "{doctor}");
    vendor.release(V3, &["--security", "--min-afterhours", "0.2"]);
    site.restart().await;
    let view = site.settled(site.update().await).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    assert_eq!(said(&site, view.id).await.0, "Afterhours 0.2.0 (build 2) runs, before it was 0.1.0");
    assert!(in_place(&site) == new);
    site.stop().await;
}
