//! `kill -9` while Afterhours replaces itself: at the end there is a daemon, of the old program or the new one, and the
//! run is finished.

use afterhours::domain::event::RunEvent;
use afterhours::domain::step::Step;
use rstest::rstest;
use serde_json::Value;

use super::updater::in_place;
use super::updater::publish_good;
use super::updater::record;
use super::updater::site;
use crate::night::releases::V2;
use crate::night::site::PATIENCE;
use crate::night::site::Site;
use crate::night::truth::Left;

/// Where it is killed.
#[derive(Debug, Clone, Copy)]
enum Point {
    Begun,
    Staged,
    Rehearsing,
    Intended,
    Copied,
    Kept,
    InPlace,
    Proving,
    Confirmed,
}

impl Point {
    fn is_reached(self, site: &Site, new: &[u8]) -> bool {
        let exists = |name: &str| site.path(name).exists();
        match self {
            Self::Begun => exists("bin/.afterhours.renewal"),
            Self::Staged => exists("bin/.afterhours.renewal/staged/2"),
            Self::Rehearsing => exists("state/renewal/rehearsal/afterhours.db"),
            Self::Intended => record(site)["pending"] != Value::Null,
            Self::Copied => exists("state/renewal/store"),
            Self::Kept => exists("bin/.afterhours.renewal/kept"),
            Self::InPlace => fs_err::metadata(site.path("bin/afterhours")).is_ok_and(|it| it.len() == new.len() as u64),
            Self::Proving => record(site)["pending"]["starts"].as_u64().is_some_and(|starts| starts > 0),
            Self::Confirmed => record(site)["last"]["ending"] == "confirmed",
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at(
    #[values(
        Point::Begun,
        Point::Staged,
        Point::Rehearsing,
        Point::Intended,
        Point::Copied,
        Point::Kept,
        Point::InPlace,
        Point::Proving,
        Point::Confirmed
    )]
    point: Point,
) {
    let mut site = site().await;
    let (old, new) = (in_place(&site), publish_good(&site, "0.2.0", 2));
    V2.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let begun = |event: &RunEvent| matches!(event, RunEvent::StepStarted { at, .. } if at.step == Step::SelfUpdate);
    assert!(site.see(run, begun).await);
    let until = std::time::Instant::now() + PATIENCE;
    // A moment that was missed is followed by another one.
    while !point.is_reached(&site, &new) && !Point::Confirmed.is_reached(&site, &new) {
        assert!(std::time::Instant::now() < until, "{point:?} is never reached");
        tokio::task::yield_now().await;
    }
    site.kill().await;
    site.serve().await;
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    let is = in_place(&site);
    assert!(is == old || is == new, "the program is half a program");
    assert_eq!(record(&site)["pending"], Value::Null);
    site.reports(1).await;
    site.stop().await;
}
