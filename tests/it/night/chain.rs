//! Jobs that follow others.

use afterhours::domain::event::RunEvent;
use afterhours::domain::run::Outcome;
use afterhours::domain::run::RunId;
use afterhours::domain::step::Step;
use afterhours::wire::run::RunsQuery;
use afterhours::wire::run::TriggerKind;
use serde_json::json;

use super::releases::SICK;
use super::releases::V2;
use super::releases::V3;
use super::site::Site;
use super::site::eventually;

#[tokio::test]
async fn a_job_follows_the_one_before_it_once_also_through_a_crash() {
    let mut site = Site::new().await;
    V2.publish(&site.feed());
    V3.publish(&site.feed());
    site.open().await;
    site.job("first", json!({"to": "2.0"})).await;
    site.job("second", json!({"start": {"kind": "after", "job": "first"}})).await;
    let first = site.client().run_job(&"first".parse().unwrap(), &Default::default()).await.unwrap().id;
    let reporting = |event: &RunEvent| matches!(event, RunEvent::StepSucceeded { at, .. } if at.step == Step::Report);
    assert!(site.see(first, reporting).await);
    site.restart().await;
    assert_eq!(site.settled(first).await.outcome, Some(Outcome::Succeeded));
    eventually("the second starts", async || site.client().show_run(RunId(2)).await.is_ok()).await;
    let second = site.settled(RunId(2)).await;
    assert_eq!((second.trigger, second.trigger_run), (TriggerKind::After, Some(first)));
    assert_eq!(second.outcome, Some(Outcome::Succeeded), "{second:#?}");
    site.desk_answers("3.0").await;
    site.reports(2).await;
    assert_eq!(site.client().list_runs(&RunsQuery::default()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_failure_has_its_own_follower_and_the_other_one_rests() {
    let quick = ("health", "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"2s\" }");
    let mut site = Site::with(&[quick]).await;
    SICK.publish(&site.feed());
    site.open().await;
    site.job("rescue", json!({})).await;
    site.job("first", json!({"on_failure": "rescue"})).await;
    site.job("second", json!({"start": {"kind": "after", "job": "first"}})).await;
    let first = site.client().run_job(&"first".parse().unwrap(), &Default::default()).await.unwrap().id;
    assert_eq!(site.settled(first).await.outcome, Some(Outcome::RolledBack));
    eventually("the rescue starts", async || site.client().show_run(RunId(2)).await.is_ok()).await;
    let rescue = site.settled(RunId(2)).await;
    assert_eq!(rescue.job.as_ref().map(ToString::to_string).as_deref(), Some("rescue"));
    assert_eq!((rescue.trigger, rescue.trigger_run), (TriggerKind::OnFailure, Some(first)));
    // What failed is not tried again by itself.
    assert_eq!(rescue.outcome, Some(Outcome::Skipped), "{rescue:#?}");
    let select = rescue.steps.iter().find(|step| step.step == Step::Select).unwrap();
    assert!(select.message.as_ref().unwrap().contains("failed here before"), "{select:#?}");
    site.reports(2).await;
    assert_eq!(site.client().list_runs(&RunsQuery::default()).await.unwrap().len(), 2);
    site.desk_answers("1.0").await;
}
