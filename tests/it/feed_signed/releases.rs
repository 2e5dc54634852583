//! What goes well: releases of a repository that python-tuf made, staged; and what is not asked for twice.

use std::sync::Arc;

use afterhours::domain::clock::Clock;
use afterhours::domain::finding::Severity;
use afterhours::domain::release::MARKER;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use rstest::rstest;

use crate::feed_signed::Site;
use crate::feed_signed::feed_carrying;
use crate::feed_signed::today;

#[tokio::test]
async fn releases_are_read_staged_and_fetched_once() {
    let mut site = Site::new("one").await;
    assert_eq!(site.builds().await, [1]);
    site.server.take_asked();
    site.turn("two");
    assert_eq!(site.builds().await, [1, 2]);
    let asked = site.server.take_asked();
    assert!(asked.iter().all(|path| !path.starts_with("targets/1/")), "{asked:?}");
    let newest = site.newest().await;
    assert_eq!((newest.notes.as_str(), newest.location.to_str()), ("News of 2.", Some("2")));
    assert_eq!(site.server.take_asked(), Vec::<String>::new(), "what is fresh is not asked for again");

    let tree = site.stage(&newest).await.unwrap();
    assert_eq!(fs_err::read_to_string(tree.join("bin/orders")).unwrap(), "release 2\n");
    assert!(tree.join(MARKER).is_file());
    assert_eq!(site.files("staging/downloads"), [newest.archives[0].sha256.clone()]);
    // Byte for byte as it was signed.
    for (kept, served) in [
        ("timestamp.json", "timestamp.json"),
        ("snapshot.json", "2.snapshot.json"),
        ("targets.json", "2.targets.json"),
        ("root.json", "1.root.json"),
    ] {
        let kept = fs_err::read(site.path("state/feed/metadata").join(kept)).unwrap();
        assert_eq!(kept, fs_err::read(site.path("vendor/two/metadata").join(served)).unwrap());
    }
    let findings = site.feed.check().await;
    assert!(findings.iter().all(|finding| finding.severity == Severity::Good), "{findings:?}");
}

#[tokio::test]
async fn without_a_network_what_is_downloaded_can_be_staged() {
    let mut site = Site::new("two").await;
    let newest = site.newest().await;
    let tree = site.stage(&newest).await.unwrap();
    fs_err::remove_dir_all(&tree).unwrap();
    site.server.stop().await;
    site.turn("two");
    assert_eq!(site.builds().await, [1, 2], "what was verified before holds");
    site.stage(&newest).await.unwrap();
    site.clock.set(today() + TimeDelta::days(31));
    let error = site.feed.releases().await.unwrap_err();
    assert_eq!(error.to_string(), "fetch the metadata");
    assert!(error.hint().unwrap().contains("network"));
}

/// A clock that goes as the runtime's does, which a test makes jump from one wait to the next.
#[derive(Debug)]
struct Going(tokio::time::Instant);

impl Clock for Going {
    fn now(&self) -> DateTime<Utc> {
        today() + TimeDelta::from_std(self.0.elapsed()).unwrap()
    }
}

#[rstest]
#[case::before_anything_was_verified(false)]
#[case::when_something_was_verified_before(true)]
#[tokio::test]
async fn a_server_that_takes_questions_and_says_nothing_is_waited_for_once(#[case] is_known: bool) {
    let site = Site::new("two").await;
    if is_known {
        assert_eq!(site.builds().await, [1, 2]);
    }
    site.server.take_asked();
    site.server.fall_silent();
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let root = site.path("vendor/root.json");
    // Whether it carries an Afterhours is asked of the same server.
    let feed = feed_carrying(site.dir.path(), &site.server, Some(root.clone()), Arc::new(Going(begun)), Some(&root));
    for _ in 0..2 {
        let findings = feed.check().await;
        let reachable = findings.iter().find(|finding| finding.check == "feed_reachable").unwrap();
        let severity = if is_known { Severity::Warning } else { Severity::Fatal };
        assert_eq!(reachable.severity, severity, "{reachable:?}");
        match feed.releases().await {
            Ok(_) => assert!(is_known),
            Err(error) => assert_eq!((error.to_string().as_str(), is_known), ("fetch the metadata", false)),
        }
        assert_eq!(feed.updaters().await.unwrap(), [], "it never carried one");
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
    // Later it may be there again.
    let asked = site.server.take_asked().len();
    tokio::time::advance(std::time::Duration::from_secs(31)).await;
    drop(feed.releases().await);
    assert_eq!(site.server.take_asked().len(), asked, "as often as the first time");
}

#[tokio::test]
async fn what_has_run_out_is_not_used_even_if_it_is_fresh() {
    let site = Site::new("one").await;
    let end = today() + TimeDelta::days(30);
    // A third of a day is when a vendor whose signatures hold for one day signs anew: nothing to say before.
    for (left, severity) in [(TimeDelta::hours(8), Severity::Good), (TimeDelta::seconds(1), Severity::Warning)] {
        site.clock.set(end - left);
        assert_eq!(site.builds().await, [1]);
        let fresh = site.feed.check().await.into_iter().find(|finding| finding.check == "feed_fresh").unwrap();
        assert_eq!(fresh.severity, severity, "{left}");
    }
    site.clock.set(end + TimeDelta::seconds(1));
    let error = site.feed.releases().await.unwrap_err();
    assert_eq!(error.to_string(), "accept the root metadata: it has expired on 2026-12-20 12:00 UTC");
}

#[tokio::test]
async fn keys_change_hands_and_the_old_ones_count_no_longer() {
    let mut site = Site::new("two").await;
    assert_eq!(site.builds().await, [1, 2]);
    site.turn("rotated");
    assert_eq!(site.builds().await, [1, 2]);
    assert_eq!(site.version("root"), 2);
    assert_eq!(site.files("state/feed/metadata/root_history"), ["1.root.json", "2.root.json"]);
    site.turn("old_key");
    let error = site.feed.releases().await.unwrap_err();
    assert_eq!(error.to_string(), "accept the timestamp metadata: 0 good signatures, 1 needed");
}

#[tokio::test]
async fn a_delegated_role_speaks_for_its_own_releases_only() {
    let site = Site::new("delegated").await;
    assert_eq!(site.builds().await, [1, 2]);
    let tree = site.stage(&site.newest().await).await.unwrap();
    assert_eq!(fs_err::read_to_string(tree.join("bin/orders")).unwrap(), "release 2\n");
    assert_eq!(site.version("beta"), 1);
}

#[rstest]
#[case::too_large("too_large", "unknown", "it is larger than 1048576 bytes")]
#[case::no_toml("no_toml", "2.0", "understand 2/release.toml: ")]
#[case::no_text("no_text", "2.0", "read 2/release.toml: ")]
#[case::other_format("other_format", "2.0", "understand 2/release.toml: ")]
#[tokio::test]
async fn a_description_of_no_use_spoils_no_other_release(
    #[case] state: &str,
    #[case] version: &str,
    #[case] because: &str,
) {
    let mut site = Site::new("one").await;
    assert_eq!(site.builds().await, [1]);
    site.turn(state);
    for _ in 0..2 {
        let releases = site.feed.releases().await.unwrap();
        assert_eq!(releases.iter().map(|release| release.id.build).collect::<Vec<_>>(), [1, 2, 3]);
        let said = releases[1].unreadable.as_ref().unwrap();
        assert!(said.contains(because), "{said}");
        assert_eq!(releases[1].id.version.as_str(), version);
        assert!(site.stage(&releases[1]).await.is_err());
        site.stage(&releases[0]).await.unwrap();
        fs_err::remove_dir_all(site.path("staging/tree")).unwrap();
        site.turn(state);
    }
    let finding = site.feed.check().await.into_iter().find(|finding| finding.check == "feed_unreadable").unwrap();
    assert!(finding.severity == Severity::Warning && finding.text.contains(because), "{finding:?}");
    site.turn("mended");
    assert_eq!(site.builds().await, [1, 2], "the vendor has withdrawn it");
}

#[tokio::test]
async fn room_is_given_back() {
    let site = Site::new("two").await;
    let releases = site.feed.releases().await.unwrap();
    for (release, name) in releases.iter().zip(["one", "two"]) {
        let into = site.path(&format!("staging/{name}"));
        site.feed.stage(release, &into, Arc::new(afterhours::domain::progress::Silent)).await.unwrap();
    }
    fs_err::write(site.path("staging/downloads").join(format!("{}.part", "0".repeat(64))), "half").unwrap();
    assert_eq!(site.files("staging/downloads").len(), 3);
    site.feed.retain(&releases[1..], &[]).unwrap();
    assert_eq!(site.files("staging/downloads"), [releases[1].archives[0].sha256.clone()]);
    site.feed.retain(&[], &[]).unwrap();
    site.feed.retain(&[], &[]).unwrap();
    assert!(site.files("staging/downloads").is_empty());
}
