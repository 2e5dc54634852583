//! The daemon is away when a job falls due.

use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::run::Outcome;
use afterhours::domain::run::RunId;
use afterhours::wire::run::RunView;
use afterhours::wire::run::RunsQuery;
use afterhours::wire::run::TriggerKind;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use rstest::rstest;
use serde_json::json;

use super::plain::in_secs;
use super::plain::once;
use super::releases::V2;
use super::site::Site;
use super::site::eventually;

/// A later start counts as missed.
pub(super) const LATE_AFTER: TimeDelta = TimeDelta::seconds(5);

pub(super) async fn time_is(at: DateTime<Utc>) {
    eventually("the time comes", async || SystemClock.now() >= at).await;
}

async fn runs(site: &Site) -> Vec<RunView> {
    site.client().list_runs(&RunsQuery::default()).await.unwrap()
}

/// A site whose job "nightly" falls due then, and whose daemon was killed; with `armed`, after its run was queued.
async fn site_without_daemon(due_at: DateTime<Utc>, misfire: &str, armed: bool) -> Site {
    let mut site = Site::new().await;
    V2.publish(&site.feed());
    site.open().await;
    site.job("nightly", json!({"start": once(due_at), "misfire": misfire})).await;
    if armed {
        let queued = async || site.client().show_run(RunId(1)).await.is_ok();
        eventually("the run is armed", queued).await;
        assert!(SystemClock.now() < due_at, "too slow a machine for this test");
    }
    site.kill().await;
    site
}

#[rstest]
#[case::back_before_it_is_due(TimeDelta::seconds(-1))]
#[case::back_after_it_was_due(TimeDelta::seconds(1))]
#[tokio::test]
async fn an_armed_start_is_neither_lost_nor_doubled(#[case] back: TimeDelta) {
    let due_at = in_secs(4);
    let mut site = site_without_daemon(due_at, "skip", true).await;
    time_is(due_at + back).await;
    site.serve().await;
    eventually("the run starts", async || !runs(&site).await.is_empty()).await;
    let run = site.settled(RunId(1)).await;
    assert_eq!((run.outcome, run.trigger), (Some(Outcome::Succeeded), TriggerKind::Schedule), "{run:#?}");
    assert!(run.started_at.unwrap() >= due_at);
    assert_eq!(runs(&site).await.len(), 1);
    site.reports(1).await;
}

#[rstest]
#[tokio::test]
async fn a_missed_start_is_decided_by_its_job(
    #[values("skip", "run", "ask")] misfire: &str,
    #[values(false, true)] armed: bool,
) {
    let due_at = in_secs(if armed { 4 } else { 8 });
    let mut site = site_without_daemon(due_at, misfire, armed).await;
    time_is(due_at + LATE_AFTER + TimeDelta::milliseconds(200)).await;
    site.serve().await;
    eventually("it is decided", async || !runs(&site).await.is_empty()).await;
    let run = site.settled(RunId(1)).await;
    assert_eq!(runs(&site).await.len(), 1);
    let job = site.client().show_job(&"nightly".parse().unwrap()).await.unwrap();
    if misfire == "run" {
        assert_eq!((run.outcome, run.trigger), (Some(Outcome::Succeeded), TriggerKind::Misfire), "{run:#?}");
        assert_eq!(run.missed_at, Some(due_at));
    } else {
        assert_eq!(run.outcome, Some(Outcome::Skipped), "{run:#?}");
        assert!(run.cause.unwrap().message.contains("missed"));
        site.desk_answers("1.0").await;
    }
    site.reports(1).await;
    assert_eq!(job.missed_at, (misfire == "ask").then_some(due_at));
    if misfire == "ask" {
        let (code, _, said) = site.run(&["job", "run", "nightly", "--yes", "--wait"]).await;
        assert_eq!(code, 0, "{said}");
        let run = site.settled(RunId(2)).await;
        assert_eq!((run.trigger, run.missed_at), (TriggerKind::Misfire, Some(due_at)));
        site.desk_answers("2.0").await;
    }
}
