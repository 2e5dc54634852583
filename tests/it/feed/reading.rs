//! What is in a feed, and what `doctor` says of it.

use std::fs;

use afterhours::domain::finding::Finding;
use afterhours::domain::finding::Severity;
use afterhours::domain::release::ReleaseId;
use afterhours::feed::Feed;
use afterhours::feed::FeedError;
use afterhours::feed::dir::DirFeed;
use afterhours::feed::select::path;

use super::Site;
use super::run;
use super::text;

fn summary(findings: &[Finding]) -> Vec<(&str, Severity)> {
    assert!(findings.iter().all(|finding| (finding.severity == Severity::Good) == finding.remedy.is_none()));
    findings.iter().map(|finding| (finding.check.as_str(), finding.severity)).collect()
}

#[tokio::test]
async fn releases_ascend_and_what_is_half_copied_is_ignored() {
    let site = Site::new();
    for (version, build) in [("10.0", 100), ("9.1", 91), ("2.0", 7)] {
        site.publish(version, build, 1, &[b"x"]);
    }
    fs::create_dir(site.path("feed/half")).unwrap();
    fs::write(site.path("feed/half/0.tar.zst"), "x").unwrap();
    fs::create_dir(site.path("feed/.hidden")).unwrap();
    fs::write(site.path("feed/.hidden/release.toml"), "nonsense").unwrap();
    fs::write(site.path("feed/README"), "x").unwrap();
    std::os::unix::fs::symlink("nowhere", site.path("feed/latest")).unwrap();
    let builds: Vec<u64> = site.feed.releases().await.unwrap().iter().map(|release| release.id.build).collect();
    assert_eq!(builds, [7, 91, 100]);
    let findings = site.feed.check().await;
    assert_eq!(
        summary(&findings),
        [("feed_reachable", Severity::Good), ("feed_releases", Severity::Good), ("feed_incomplete", Severity::Warning)]
    );
    assert_eq!(findings[1].text, "the feed has 3 releases; the newest is 10.0 (build 100)");
}

#[tokio::test]
async fn the_same_build_twice_is_neither() {
    let site = Site::new();
    site.publish("1.0", 6, 1, &[b"x"]);
    site.publish("2.0", 7, 1, &[b"x"]);
    site.publish("2.1", 7, 1, &[b"x"]);
    site.publish("3.0", 8, 1, &[b"x"]);
    let releases = site.feed.releases().await.unwrap();
    assert_eq!(releases.iter().map(|release| release.id.build).collect::<Vec<_>>(), [6, 7, 8]);
    let because = releases[1].unreadable.as_ref().unwrap();
    assert!(because.contains("feed/2.0 and in ") && because.ends_with("feed/2.1"), "{because}");
    assert_eq!(summary(&site.feed.check().await)[2], ("feed_unreadable", Severity::Warning));
}

#[tokio::test]
async fn a_bad_description_spoils_no_other_and_is_named() {
    for (text, build, expected) in [
        ("version = \"1\"\n", 0, "understand "),
        ("version = \"1\"\nbuild = 3\n", 3, "archive must be there"),
        ("version = \"1\"\nbuild = 3\nmigrate = { by = \"moon\" }\n", 3, "understand "),
        ("\u{0}", 0, "understand "),
    ] {
        let site = Site::new();
        fs::create_dir(site.path("feed/1")).unwrap();
        fs::write(site.path("feed/1/release.toml"), text).unwrap();
        site.publish("2.0", 2, 1, &[b"x"]);
        site.publish("4.0", 4, 1, &[b"x"]);
        let releases = site.feed.releases().await.unwrap();
        let bad = releases.iter().find(|release| release.unreadable.is_some()).unwrap();
        let because = bad.unreadable.as_ref().unwrap();
        assert!(because.contains(expected) && because.contains("feed/1/release.toml"), "{because}");
        assert_eq!((releases.len(), bad.id.build), (3, build));
        // Nobody goes past it. Where its place cannot be told, that is nobody at all.
        let installed = |version: &str, build| ReleaseId { version: version.parse().unwrap(), build };
        let found = path(Some(&installed("1.0", 1)), &releases, None).unwrap();
        let first = if build == 0 { [0, 2, 4] } else { [2, 3, 4] };
        assert_eq!(found.iter().map(|release| release.id.build).collect::<Vec<_>>(), first);
        let findings = site.feed.check().await;
        assert_eq!(findings[1].text, "the feed has 2 releases; the newest is 4.0 (build 4)");
        assert_eq!(summary(&findings)[2], ("feed_unreadable", Severity::Warning));
    }
}

#[tokio::test]
async fn a_description_that_is_no_file_does_not_hold_us_up() {
    let site = Site::new();
    fs::create_dir(site.path("feed/1")).unwrap();
    run("coreutils", "mkfifo", &[text(&site.path("feed/1/release.toml"))]);
    let because = async || site.only().await.unreadable.unwrap();
    assert!(because().await.ends_with("it is not a regular file"));
    fs::remove_file(site.path("feed/1/release.toml")).unwrap();
    fs::write(site.path("feed/1/release.toml"), vec![b'#'; 2_000_000]).unwrap();
    assert!(because().await.ends_with("it is larger than 1048576 bytes"));
    fs::write(site.path("feed/1/release.toml"), b"notes = \"\xff\"").unwrap();
    assert!(because().await.contains("utf-8"));
}

#[tokio::test]
async fn a_missing_feed_and_an_empty_one() {
    let site = Site::new();
    assert_eq!(
        summary(&site.feed.check().await),
        [("feed_reachable", Severity::Good), ("feed_releases", Severity::Warning)]
    );
    let missing = Feed::Dir(DirFeed::new(site.path("nowhere")));
    let error = missing.releases().await.unwrap_err();
    assert_eq!(error.to_string(), format!("list the releases in {}", site.path("nowhere").display()));
    assert_eq!(error.hint().unwrap(), "create the directory, mount it, or correct feed.dir");
    assert_eq!(summary(&missing.check().await), [("feed_reachable", Severity::Fatal)]);
}

#[tokio::test]
async fn archives_that_are_missing_or_of_another_size_are_found() {
    let site = Site::new();
    for (version, build) in [("1", 1), ("2", 2), ("3", 3)] {
        site.publish(version, build, 1, &[b"archive"]);
    }
    fs::remove_file(site.path("feed/1/0.tar.zst")).unwrap();
    fs::write(site.path("feed/3/0.tar.zst"), "arch").unwrap();
    let findings = site.feed.check().await;
    assert_eq!(summary(&findings)[2], ("feed_archives", Severity::Warning));
    assert!(findings[2].text.contains("/1/0.tar.zst") && findings[2].text.contains("/3/0.tar.zst"));
    assert!(!findings[2].text.contains("/2/0.tar.zst"));
    assert!(matches!(site.stage(&site.feed.releases().await.unwrap()[0]).await, Err(FeedError::ReadArchive { .. })));
    site.assert_nothing_staged();
}

#[tokio::test]
async fn a_folder_of_updaters_is_no_release_and_offers_none() {
    let site = Site::new();
    site.publish("2.0", 20, 0, &[b""]);
    assert_eq!(site.feed.updaters().await.unwrap(), []);
    fs::create_dir(site.path("feed/updater")).unwrap();
    let folder = site.publish("updater/3", 3, 0, &[b""]);
    let description = fs::read_to_string(folder.join("release.toml")).unwrap().replace("updater/3", "1.3");
    fs::write(folder.join("release.toml"), description).unwrap();
    assert_eq!(site.only().await.id.build, 20);
    assert_eq!(site.feed.updaters().await.unwrap(), [], "a directory vouches for nothing");
    // It is no release that somebody forgot to describe.
    assert!(site.feed.check().await.iter().all(|finding| finding.severity == Severity::Good));
}
