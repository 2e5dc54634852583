//! Runs that wait for one another, in one process and in two.

use std::process::Stdio;

use afterhours::domain::event::RunEvent;
use afterhours::domain::run::Outcome;
use afterhours::domain::run::RunId;
use afterhours::wire::run::RunStateName;
use afterhours::wire::run::RunView;
use afterhours::wire::run::TriggerKind;
use chrono::TimeDelta;
use rstest::rstest;
use serde_json::json;

use super::alone::ALONE;
use super::armed::LATE_AFTER;
use super::armed::time_is;
use super::away::WAITS;
use super::plain::in_secs;
use super::plain::once;
use super::releases::V3;
use super::site::Site;
use super::site::eventually;
use super::truth::Left;

/// Nobody was fenced out: no step was begun a second time.
fn undisturbed(run: &RunView) -> bool {
    run.steps.iter().all(|step| step.attempts == 1)
}

/// The next daemon takes up first what has the lower number; what was left in the middle goes first all the same.
#[rstest]
#[tokio::test]
async fn a_run_that_waits_for_its_turn_is_no_missed_start(#[values(false, true)] has_the_lower_number: bool) {
    let mut site = Site::new().await;
    WAITS.publish(&site.feed());
    V3.publish(&site.feed());
    site.open().await;
    site.job("first", json!({"to": "2.0"})).await;
    let due_at = in_secs(6);
    site.job("second", json!({"start": once(due_at), "misfire": "skip"})).await;
    let second = RunId(if has_the_lower_number { 1 } else { 2 });
    let second_is_armed = async || site.client().show_run(second).await.is_ok();
    if has_the_lower_number {
        eventually("the second is armed", second_is_armed).await;
    }
    let first = site.client().run_job(&"first".parse().unwrap(), &Default::default()).await.unwrap().id;
    site.is_migrating().await;
    eventually("the second is due", second_is_armed).await;
    assert!(site.see(second, |event| matches!(event, RunEvent::Queued { .. })).await);
    site.kill().await;
    time_is(due_at + LATE_AFTER + TimeDelta::milliseconds(200)).await;
    site.go_on();
    site.serve().await;
    assert_eq!(site.settled(first).await.outcome, Some(Outcome::Succeeded));
    let run = site.settled(second).await;
    assert_eq!((run.outcome, run.trigger), (Some(Outcome::Succeeded), TriggerKind::Schedule), "{run:#?}");
    assert_eq!(run.missed_at, None);
    site.desk_answers("3.0").await;
    assert_eq!(site.orders(), ["first|2|3", "second|2|3"]);
    site.reports(2).await;
}

#[tokio::test]
async fn an_edit_does_not_take_back_a_run_that_waits_for_its_turn() {
    let mut site = Site::new().await;
    WAITS.publish(&site.feed());
    V3.publish(&site.feed());
    site.open().await;
    site.job("first", json!({"to": "2.0"})).await;
    let due_at = in_secs(5);
    site.job("second", json!({"start": once(due_at)})).await;
    site.client().run_job(&"first".parse().unwrap(), &Default::default()).await.unwrap();
    site.is_migrating().await;
    let second = RunId(2);
    eventually("the second is due", async || site.client().show_run(second).await.is_ok()).await;
    assert!(site.see(second, |event| matches!(event, RunEvent::Queued { .. })).await);
    time_is(due_at).await;
    // Nothing of a job under way is deleted; an edit is for the next time.
    let (code, _, said) = site.run(&["job", "delete", "second", "--yes"]).await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("run 2"), "{said}");
    site.run(&["job", "edit", "second", "--title", "Another"]).await;
    assert_eq!(site.client().show_run(second).await.unwrap().state, RunStateName::Queued);
    site.go_on();
    let run = site.settled(second).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
    site.desk_answers("3.0").await;
}

#[tokio::test]
async fn a_daemon_that_comes_meanwhile_waits_for_update_now() {
    let mut site = Site::with(ALONE).await;
    WAITS.publish(&site.feed());
    let mut alone = site.command(&["update", "now", "orders", "--yes"]).stdout(Stdio::null()).spawn().unwrap();
    site.is_migrating().await;
    site.serve().await;
    eventually("the daemon would go on", async || site.read("log").contains("taking up a run")).await;
    site.go_on();
    assert!(alone.wait().await.unwrap().success());
    let run = site.settled(RunId(1)).await;
    assert!(undisturbed(&run), "{run:#?}");
    assert_eq!(site.must_be_whole(&run, &[WAITS], &["first", "second"]).await, Left::New);
    site.reports(1).await;
}

#[tokio::test]
async fn update_now_that_does_not_see_the_daemon_leaves_its_run_alone() {
    let mut site = Site::with(ALONE).await;
    WAITS.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    site.is_migrating().await;
    let nobody = site.path("nobody-listens");
    let (code, said, talk) =
        site.run(&["--socket", nobody.to_str().unwrap(), "update", "now", "orders", "--yes"]).await;
    assert_eq!(code, 4, "{said}{talk}");
    assert!(talk.contains("another process works on orders just now"), "{talk}");
    assert!(talk.contains("afterhours status"), "{talk}");
    site.go_on();
    let run = site.settled(run).await;
    assert!(undisturbed(&run), "{run:#?}");
    assert_eq!(site.must_be_whole(&run, &[WAITS], &["first", "second"]).await, Left::New);
    site.reports(1).await;
}

#[tokio::test]
async fn a_run_of_update_now_is_cancelled_at_the_daemon() {
    let mut site = Site::with(ALONE).await;
    WAITS.publish(&site.feed());
    let mut alone = site.command(&["update", "now", "orders", "--yes"]).stdout(Stdio::null()).spawn().unwrap();
    site.is_migrating().await;
    site.serve().await;
    assert_eq!(site.run(&["run", "cancel", "1"]).await.0, 0);
    // Whoever held it can write nothing more; it waits for what becomes of it.
    site.go_on();
    assert_eq!(alone.wait().await.unwrap().code(), Some(5));
    let run = site.settled(RunId(1)).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    assert_eq!(site.must_be_whole(&run, &[WAITS], &["first", "second"]).await, Left::Old);
    site.reports(1).await;
}
