//! A feed in one file: written where there is a network, taken where there is none, and what must not get through.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use afterhours::domain::finding::Severity;
use afterhours::domain::progress::Silent;
use afterhours::feed::Feed;
use afterhours::feed::FeedError;
use afterhours::feed::signed::SignedFeed;
use afterhours::feed::signed::Taken;
use chrono::TimeDelta;
use rstest::rstest;

use crate::feed_signed::Site;
use crate::feed_signed::feed;
use crate::feed_signed::feed_carrying;
use crate::feed_signed::small::Trade;
use crate::feed_signed::vendor::create_named;
use crate::feed_signed::vendor::vendor;

fn signed(feed: &Feed) -> &SignedFeed {
    let Feed::Signed(signed) = feed else { panic!("the feed is signed") };
    signed
}

/// Another site of the same vendor, which has never reached the server.
fn away(trade: &Trade) -> Feed {
    let dir = trade.path("away");
    fs::create_dir_all(&dir).unwrap();
    feed(&dir, &trade.server, Some(trade.path("orders/root.json")), trade.clock.clone())
}

async fn write(trade: &Trade, builds: &[u64], name: &str) {
    let releases = trade.feed.releases().await.unwrap();
    let path: Vec<_> = releases.into_iter().filter(|release| builds.contains(&release.id.build)).collect();
    signed(&trade.feed).bundle(&path, &[], &trade.path(name), &Silent).await.unwrap();
}

async fn take(feed: &Feed, bundle: &Path) -> Result<Taken, FeedError> {
    signed(feed).take_bundle(bundle).await
}

fn files(dir: &Path) -> usize {
    walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file()).count()
}

type Files = Vec<(String, Vec<u8>)>;

fn unpacked(bundle: &Path) -> Files {
    let mut tar = tar::Archive::new(fs::File::open(bundle).unwrap());
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    });
    entries.collect()
}

fn packed(files: &Files, bundle: &Path) {
    let mut tar = tar::Builder::new(fs::File::create(bundle).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().sync_all().unwrap();
}

#[tokio::test]
async fn a_site_without_a_network_takes_a_bundle_and_installs_from_it() {
    let mut trade = Trade::new().await;
    for build in [1, 2, 3] {
        trade.publish(build, &[]);
    }
    write(&trade, &[2, 3], "bundle").await;
    trade.server.stop().await;
    let site = away(&trade);
    let taken = take(&site, &trade.path("bundle")).await.unwrap();
    let builds = |ids: &[afterhours::domain::release::ReleaseId]| ids.iter().map(|id| id.build).collect::<Vec<_>>();
    assert_eq!((builds(&taken.releases), builds(&taken.here)), (vec![1, 2, 3], vec![2, 3]));
    // Like every run: it asks, nobody answers, and what was taken holds.
    let newest = site.releases().await.unwrap().pop().unwrap();
    let tree = trade.path("away/staging/tree");
    site.stage(&newest, &tree, Arc::new(Silent)).await.unwrap();
    assert_eq!(fs::read_to_string(tree.join("bin/orders")).unwrap(), "release 3\n");
    let found = site.check().await.into_iter().find(|finding| finding.check == "feed_reachable").unwrap();
    assert_eq!(found.severity, Severity::Warning);
    let until = taken.good_until.format("%Y-%m-%d %H:%M UTC").to_string();
    assert!(found.text.contains("cannot be reached") && found.text.contains(&until), "{found:?}");
    assert!(signed(&site).refresh().await.is_err(), "whoever asks for news is told that there are none");
    // A run that stops at 2 leaves 3 where it is.
    let second = site.releases().await.unwrap().remove(1);
    site.retain(std::slice::from_ref(&second), &[]).unwrap();
    assert_eq!(files(&trade.path("away/staging/downloads")), 2);
    // But not for longer than was signed.
    trade.clock.set(taken.good_until + TimeDelta::seconds(1));
    assert!(site.releases().await.is_err());
}

#[tokio::test]
async fn a_bundle_has_the_roots_that_there_are() {
    let mut site = Site::new("two").await;
    assert_eq!(site.builds().await, [1, 2]);
    site.turn("rotated");
    site.server.forbid_what_is_absent();
    let bundle = site.path("bundle");
    let roots = async || {
        signed(&site.feed).bundle(&[], &[], &bundle, &Silent).await.unwrap();
        let names = unpacked(&bundle).into_iter().map(|(name, _)| name);
        names.filter(|name| name.ends_with(".root.json")).collect::<Vec<_>>()
    };
    let both = ["metadata/1.root.json", "metadata/2.root.json"];
    assert_eq!(roots().await, both);
    // The vendor clears old ones away.
    fs::remove_file(site.path("vendor/rotated/metadata/1.root.json")).unwrap();
    assert_eq!(roots().await, both);
    fs::remove_file(site.path("state/feed/metadata/root_history/1.root.json")).unwrap();
    assert_eq!(roots().await, both[1..]);
}

#[tokio::test]
async fn a_bundle_carries_afterhours_as_well() {
    let mut trade = Trade::new().await;
    trade.publish(1, &[]);
    create_named(trade.dir.path(), "afterhours", &["--updater"]);
    let (orders, makers, program) = (trade.path("orders"), trade.path("afterhours"), trade.path("program"));
    fs::write(&program, "Afterhours 0.7").unwrap();
    let mut args = vec!["publish", makers.to_str().unwrap(), "--updater", "--version", "0.7", "--build", "7"];
    // The same program for both, and so the same archive.
    for machine in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
        args.extend(["--triple", machine, "--binary", program.to_str().unwrap()]);
    }
    vendor(trade.dir.path(), &args);
    let published = makers.join("published");
    vendor(
        trade.dir.path(),
        &["publish", orders.to_str().unwrap(), "--updater", "--from", published.to_str().unwrap()],
    );
    let makers = makers.join("root.json");
    let root = Some(trade.path("orders/root.json"));
    trade.feed =
        feed_carrying(trade.dir.path(), &trade.server, root.clone(), trade.clock.clone(), Some(makers.as_path()));
    let (path, updaters) = (trade.feed.releases().await.unwrap(), trade.feed.updaters().await.unwrap());
    assert_eq!(updaters[0].archives[0].sha256, updaters[0].archives[1].sha256);
    let (whole, partly, without) = (trade.path("whole"), trade.path("partly"), trade.path("without"));
    signed(&trade.feed).bundle(&path, &updaters, &whole, &Silent).await.unwrap();
    signed(&trade.feed).bundle(&path, &[], &partly, &Silent).await.unwrap();
    let mut content = unpacked(&partly);
    content.retain(|(_, bytes)| !String::from_utf8_lossy(bytes).contains("file = \"afterhours-"));
    packed(&content, &without);

    let dir = trade.path("away");
    fs::create_dir_all(&dir).unwrap();
    let site = feed_carrying(&dir, &trade.server, root, trade.clock.clone(), Some(makers.as_path()));
    // Without descriptions, as an earlier program writes it; with those alone; with all of it.
    for (bundle, told, here) in [(&without, vec![], vec![]), (&partly, vec![7], vec![]), (&whole, vec![7], vec![7])] {
        let taken = take(&site, bundle).await.unwrap();
        assert_eq!(taken.here.len(), 1);
        let builds =
            |ids: Vec<afterhours::domain::release::ReleaseId>| ids.iter().map(|id| id.build).collect::<Vec<_>>();
        assert_eq!((builds(taken.updaters), builds(taken.updaters_here)), (told, here));
    }
    let known = site.known_updaters();
    assert_eq!(known, updaters);
    // What waits for its turn is not given back with the rest, and goes alone when it has had it.
    let downloads = trade.path("away/staging/downloads");
    site.retain(&path, &known).unwrap();
    assert_eq!(files(&downloads), 2);
    site.retain_updaters(&known).unwrap();
    assert_eq!(files(&downloads), 2);
    site.retain_updaters(&[]).unwrap();
    assert_eq!(files(&downloads), 1);
    assert!(downloads.join(&path[0].archives[0].sha256).is_file());
}

#[tokio::test]
async fn what_is_old_is_not_taken() {
    let mut trade = Trade::new().await;
    trade.publish(1, &[]);
    write(&trade, &[1], "old").await;
    trade.publish(2, &[]);
    trade.restart();
    write(&trade, &[2], "new").await;
    let site = away(&trade);
    take(&site, &trade.path("new")).await.unwrap();
    let error = take(&site, &trade.path("old")).await.unwrap_err();
    assert!(error.to_string().contains("was seen before"), "{error}");
    trade.clock.set(trade.path("new").metadata().unwrap().modified().unwrap().into());
    let later = afterhours::domain::clock::Clock::now(trade.clock.as_ref()) + TimeDelta::days(4);
    trade.clock.set(later);
    let error = take(&site, &trade.path("new")).await.unwrap_err();
    assert!(error.to_string().starts_with("accept the timestamp metadata: it has expired"), "{error}");
}

#[rstest]
#[case::climbing("../../evil", "has no place in it")]
#[case::absolute("/tmp/evil", "has no place in it")]
#[case::deep("targets/a/b", "has no place in it")]
#[case::twice("metadata/timestamp.json", "is there twice")]
#[case::endless("metadata/2.root.json", "bytes are sent")]
#[case::changed("", "it is not the file that was signed")]
#[case::cut_off("cut", "is cut off")]
#[tokio::test]
async fn a_hostile_bundle_is_refused_and_leaves_nothing(#[case] name: &str, #[case] sentence: &str) {
    let trade = Trade::new().await;
    trade.publish(1, &[]);
    write(&trade, &[1], "bundle").await;
    let bundle = trade.path("bundle");
    let mut content = unpacked(&bundle);
    match name {
        "" => content.iter_mut().max_by_key(|(_, bytes)| bytes.len()).unwrap().1[1000] ^= 1,
        "cut" => {}
        "metadata/2.root.json" => content.push((name.to_owned(), vec![b' '; 6_000_000])),
        _ => content.push((name.to_owned(), b"evil".to_vec())),
    }
    packed(&content, &bundle);
    if name == "cut" {
        let file = fs::File::options().write(true).open(&bundle).unwrap();
        file.set_len(bundle.metadata().unwrap().len() - 500_000).unwrap();
    }
    let before = files(trade.dir.path());
    let site = away(&trade);
    let error = take(&site, &bundle).await.unwrap_err();
    assert!(error.to_string().contains(sentence), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(files(&trade.path("away/staging")), 0);
    // What was verified before the refusal may stay, and the lock; nothing is anywhere else.
    let state = files(&trade.path("away/state/feed"));
    assert_eq!(files(trade.dir.path()), before + state);
}
