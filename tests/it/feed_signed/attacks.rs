//! What is refused, with which sentence, and that nothing is left of it.

use rstest::rstest;

use crate::feed_signed::Site;

/// A site that has seen `before` meets `attack`: one sentence that begins like this, a remedy that has these words.
#[rstest]
#[case::rollback(
    "two",
    "one",
    "accept the timestamp metadata: version 1 is offered, version 2 was seen before",
    "replays"
)]
#[case::freeze("one", "frozen", "accept the timestamp metadata: it has expired on 2026-11-19 12:00 UTC", "clock")]
#[case::mix_and_match("one", "mixed", "accept the metadata: they do not belong together (snapshot.json: ", "mixes")]
#[case::one_key_stolen("two", "one_key_stolen", "accept the targets metadata: 1 good signatures, 2 needed", "one key")]
#[case::one_key_twice("two", "one_key_twice", "accept the targets metadata: the key ", "too few")]
#[case::usurped_root("two", "usurped", "accept the root metadata: 0 good signatures, 2 needed", "root.json")]
#[case::changed_description(
    "one",
    "changed_description",
    "accept 2/release.toml: it is not the file that",
    "changed on"
)]
#[case::disagreement("one", "disagreeing", "accept 2/orders.tar.zst: release.toml says 000", "publish it again")]
#[case::misplaced("one", "misplaced", "accept 2/release.toml: it describes build 7", "publish it again")]
#[case::half_signed("one", "half_signed", "find 2/orders.tar.zst among what was signed", "nobody signed for")]
#[tokio::test]
async fn an_attack_is_refused_with_its_sentence(
    #[case] before: &str,
    #[case] attack: &str,
    #[case] sentence: &str,
    #[case] remedy: &str,
) {
    let mut site = Site::new(before).await;
    site.builds().await;
    let trusted = (site.version("root"), site.version("targets"));
    site.turn(attack);
    for _ in 0..2 {
        let error = site.feed.releases().await.unwrap_err();
        assert!(error.to_string().starts_with(sentence), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains(remedy), "{hint}");
    }
    let findings = site.feed.check().await;
    assert_eq!(findings.len(), 1);
    assert!(findings[0].text.contains(sentence), "{findings:?}");
    assert_eq!(site.files("staging"), Vec::<String>::new());
    if ["accept the", "accept the root"].iter().any(|of_tuf| sentence.starts_with(of_tuf)) {
        assert_eq!((site.version("root"), site.version("targets")), trusted);
    }
    // The vendor publishes anew, and all is well again.
    site.turn("mended");
    assert_eq!(site.builds().await, [1, 2]);
}

#[tokio::test]
async fn an_archive_with_other_bytes_is_not_installed() {
    let site = Site::new("changed_archive").await;
    let error = site.stage(&site.newest().await).await.unwrap_err();
    assert!(error.to_string().contains("sha256"), "{error}");
    assert!(error.hint().is_some());
    assert!(!site.path("staging/tree").exists());
    assert!(
        site.files("staging/downloads").iter().all(|file| file.ends_with(".part")),
        "nothing that is taken for whole"
    );
}

#[tokio::test]
async fn metadata_without_end_are_cut_off() {
    let site = Site::new("one").await;
    site.server.make_endless("timestamp.json");
    let error = site.feed.releases().await.unwrap_err();
    assert_eq!(error.to_string(), "accept the metadata: more than 16384 bytes are sent");
    assert!(error.hint().unwrap().contains("cut off"));
}

#[tokio::test]
async fn an_archive_without_end_is_cut_off() {
    let site = Site::new("one").await;
    let newest = site.newest().await;
    site.server.make_endless("orders.tar.zst");
    let error = site.stage(&newest).await.unwrap_err();
    assert!(error.to_string().contains(&newest.size_bytes().to_string()), "{error}");
    let kept: u64 =
        site.files("staging").iter().map(|file| site.path("staging").join(file).metadata().unwrap().len()).sum();
    assert!(kept <= newest.size_bytes() + 64 * 1024, "{kept}");
    assert!(!site.path("staging/tree").exists());
}

#[tokio::test]
async fn without_a_root_nothing_is_believed() {
    let mut site = Site::new("one").await;
    site.turn("one");
    let error = site.feed.releases().await.unwrap_err();
    assert_eq!(error.to_string(), format!("trust the feed {}: there is no trusted root yet", site.server.url()));
    assert!(error.hint().unwrap().contains("afterhours feed trust"));
    assert_eq!(site.server.take_asked(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_trusted_and_cannot_be_kept_or_read_stops_the_refresh() {
    let mut site = Site::new("two").await;
    assert_eq!(site.builds().await, [1, 2]);
    let timestamp = site.path("state/feed/metadata/timestamp.json");
    fs_err::remove_file(&timestamp).unwrap();
    fs_err::create_dir(&timestamp).unwrap();
    site.turn("one");
    let error = site.feed.releases().await.unwrap_err();
    assert_eq!(error.to_string(), format!("read {}", timestamp.display()));
    assert_eq!(site.version("snapshot"), 2, "what cannot be measured is not written over");
}

#[rstest]
#[case::timestamp("timestamp.json", "from a backup")]
#[case::snapshot("snapshot.json", "from a backup")]
#[case::targets("targets.json", "from a backup")]
#[case::root("root.json", "afterhours feed trust APP root.json")]
#[tokio::test]
async fn what_is_trusted_and_torn_opens_no_way_back(#[case] name: &str, #[case] remedy: &str) {
    let mut site = Site::new("two").await;
    assert_eq!(site.builds().await, [1, 2]);
    let file = site.path("state/feed/metadata").join(name);
    let whole = fs_err::read(&file).unwrap();
    for torn in [&b""[..], &whole[..whole.len() / 2]] {
        fs_err::write(&file, torn).unwrap();
        site.turn("one");
        let error = site.feed.releases().await.unwrap_err();
        assert_eq!(error.to_string(), format!("understand {}: it is damaged", file.display()));
        assert!(error.hint().unwrap().contains(remedy), "{error:?}");
        assert_eq!(site.feed.check().await[0].check, "feed_trusted");
        assert_eq!(fs_err::read(&file).unwrap(), torn, "what cannot be measured is not written over");
    }
    fs_err::write(&file, &whole).unwrap();
    site.turn("two");
    assert_eq!(site.builds().await, [1, 2]);
}
