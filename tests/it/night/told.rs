//! A tree that was put there by hand: its build is found in the feed, and nothing older is ever installed over it.

use std::path::Path;
use std::sync::Arc;
use std::sync::Weak;
use std::thread::JoinHandle;

use afterhours::domain::run::Outcome;
use rstest::rstest;

use super::releases::V1;
use super::releases::V2;
use super::releases::V3;
use super::site::Site;
use crate::renewal::signed::Vendor;

/// A site with version 2.0, which only its administrator or its page can tell, and with `feed`.
async fn with_second(feed: &str, told: Option<&str>) -> Site {
    let told = told.map(|told| format!("\"{told}\""));
    let told = told.as_deref().map(|told| ("installed_version", told));
    let site = Site::with(&[("feed", feed)].into_iter().chain(told).collect::<Vec<_>>()).await;
    fs_err::remove_dir_all(site.installed()).unwrap();
    V2.install(&site.installed());
    fs_err::write(site.path("data/schema"), "2\n").unwrap();
    fs_err::write(site.path("data/orders"), "first|2\n").unwrap();
    site
}

/// The third version is installed, and only that one was.
fn is_third(site: &Site) {
    assert_eq!((site.read("opt/orders/version"), site.read("data/schema")), ("3.0".to_owned(), "3".to_owned()));
    assert_eq!(site.orders(), ["first|2|3"]);
    assert_eq!(site.read("opt/orders_old/version"), "2.0");
}

#[rstest]
#[case::by_the_administrator(Some("2.0"))]
#[case::by_its_page(None)]
#[tokio::test]
async fn a_server_that_refuses_every_second_time_makes_nothing_old_newer(#[case] told: Option<&str>) {
    let vendor = Vendor::new().await;
    let mut site = with_second(&vendor.setting(), told).await;
    for edition in [V1, V2, V3] {
        vendor.release(edition, &[]);
    }
    site.serve().await;
    site.desk_answers("2.0").await;
    vendor.server.make_halting("timestamp.json");
    let check = async || site.run(&["update", "check", "orders"]).await;
    let (code, said, talk) = check().await;
    assert_ne!(code, 0, "{said}");
    assert!(talk.contains("timestamp"), "{talk}");
    let (code, said, talk) = check().await;
    assert_eq!(code, 0, "{talk}");
    // What the application says of itself is nobody's word but its own.
    let doubt = if told.is_some() { "" } else { " (unverified)" };
    assert!(said.contains(&format!("2.0 (build 2) is installed{doubt}, 1 pending\n  3.0 (build 3")), "{said}");
    // What was seen a moment ago is not asked for again, else the first run is refused, and not the second.
    let mut view = site.settled(site.update().await).await;
    if view.outcome == Some(Outcome::Failed) {
        view = site.settled(site.update().await).await;
    }
    assert_eq!(view.outcome, Some(Outcome::Succeeded), "{view:?}");
    is_third(&site);
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_at_times_makes_nothing_old_newer() {
    let site = with_second("{ dir = \"DIR/feed\" }", Some("2.0")).await;
    for edition in [V1, V2, V3] {
        edition.publish(&site.feed());
    }
    let is_wanted = Arc::new(());
    let spoiler = spoil_and_mend(&site.feed(), Arc::downgrade(&is_wanted));
    for _ in 0..40 {
        let (code, said, talk) = site.run(&["update", "check", "orders"]).await;
        // Nobody can tell how new the half one is, so nothing is taken past it.
        let is_walled = said.contains("2.0 (build 2) is installed, 2 pending, of which 2 not taken now")
            && said.contains("/feed/spoilt");
        let is_right = said.contains("2.0 (build 2) is installed, 1 pending") || is_walled;
        assert!(if code == 0 { is_right } else { talk.contains("/feed/spoilt") }, "{said}{talk}");
    }
    // A run ends before it has begun, or installs what is newer.
    for _ in 0..3 {
        site.run(&["update", "now", "orders", "--yes"]).await;
        assert!(["first|2", "first|2|3"].contains(&site.read("data/orders").as_str()), "{:?}", site.orders());
    }
    drop(is_wanted);
    spoiler.join().unwrap();
    let (code, said, talk) = site.run(&["update", "now", "orders", "--yes"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    is_third(&site);
}

/// Makes a feed unreadable and readable again, as often as that goes, while somebody wants it.
fn spoil_and_mend(feed: &Path, is_wanted: Weak<()>) -> JoinHandle<()> {
    let folder = feed.join("spoilt");
    fs_err::create_dir(&folder).unwrap();
    let (hidden, description) = (folder.join("hidden"), folder.join("release.toml"));
    fs_err::write(&hidden, "half a descrip").unwrap();
    std::thread::spawn(move || {
        let spoil_and_mend =
            || fs_err::rename(&hidden, &description).and_then(|()| fs_err::rename(&description, &hidden));
        while is_wanted.strong_count() > 0 && spoil_and_mend().is_ok() {}
    })
}
