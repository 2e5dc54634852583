//! Who may write to a run's log, and how often a start is queued.

use chrono::TimeDelta;

use crate::db::events::RunHead;
use crate::db::store::StoreError;
use crate::db::tests::daily;
use crate::db::tests::fresh;
use crate::db::tests::job;
use crate::db::tests::job_name;
use crate::db::tests::logged;
use crate::db::tests::never;
use crate::db::tests::night;
use crate::db::tests::order;
use crate::db::tests::running;
use crate::domain::event::RunEvent;
use crate::domain::job::Job;
use crate::domain::run::Fence;
use crate::domain::run::Order;
use crate::domain::run::Outcome;
use crate::domain::run::RunId;
use crate::domain::run::RunState;
use crate::domain::run::Trigger;

#[tokio::test]
async fn whoever_was_overtaken_writes_nothing_more() {
    let it = fresh();
    let run = it.store.queue_run(order(), night()).await.unwrap();
    let first = it.store.claim_run(run).await.unwrap();
    it.store.append_event(first, logged(run, 1, RunEvent::Started), running()).await.unwrap();
    let second = it.again().claim_run(run).await.unwrap();
    assert!(second > first);

    let late = RunEvent::CancelRequested { by: "anna".to_owned() };
    let refused = it.store.append_event(first, logged(run, 2, late.clone()), running()).await;
    assert!(matches!(refused, Err(StoreError::FenceLost(lost)) if lost == run), "{refused:?}");
    assert_eq!(it.store.events(run, 0).await.unwrap().len(), 1);
    it.store.append_event(second, logged(run, 2, late), running()).await.unwrap();
    assert_eq!(it.store.events(run, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_run_that_is_not_there_cannot_be_claimed_or_written() {
    let it = fresh();
    let run = RunId(99);
    assert!(matches!(it.store.claim_run(run).await, Err(StoreError::NoRun(_))));
    let refused = it.store.append_event(Fence(1), logged(run, 1, RunEvent::Started), running()).await;
    assert!(matches!(refused, Err(StoreError::NoRun(_))));
    assert!(matches!(it.store.run(run).await, Err(StoreError::NoRun(_))));
}

#[tokio::test]
async fn a_place_in_the_log_is_taken_once() {
    let it = fresh();
    let run = it.store.queue_run(order(), night()).await.unwrap();
    let event = logged(run, 1, RunEvent::Started);
    it.store.append_event(Fence(1), event.clone(), running()).await.unwrap();
    assert!(it.store.append_event(Fence(1), event, running()).await.is_err());
    assert_eq!(it.store.events(run, 0).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_application_has_one_run_at_a_time() {
    let it = fresh();
    let first = it.store.queue_run(order(), night()).await.unwrap();
    let second = it.store.queue_run(order(), night()).await.unwrap();
    let elsewhere = it.store.queue_run(Order { app: "crm".parse().unwrap(), ..order() }, night()).await.unwrap();
    it.store.append_event(Fence(1), logged(first, 1, RunEvent::Started), running()).await.unwrap();
    it.store.append_event(Fence(1), logged(elsewhere, 1, RunEvent::Started), running()).await.unwrap();

    let refused = it.store.append_event(Fence(1), logged(second, 1, RunEvent::Started), running()).await;
    assert!(matches!(refused, Err(StoreError::AnotherRun { app }) if app == "orders"));
    assert!(it.store.events(second, 0).await.unwrap().is_empty(), "nothing is written then");
    assert_eq!(it.store.run(second).await.unwrap().state, "queued");

    let outcome = Outcome::Succeeded;
    let over = RunHead { state: RunState::Finished { outcome }, away: false };
    it.store.append_event(Fence(1), logged(first, 2, RunEvent::Finished { outcome }), over).await.unwrap();
    it.store.append_event(Fence(1), logged(second, 1, RunEvent::Started), running()).await.unwrap();
    assert_eq!(it.store.run(first).await.unwrap().finished_at, Some(night() + TimeDelta::seconds(2)));
}

#[tokio::test]
async fn a_start_is_armed_exactly_once() {
    let it = fresh();
    let due = night() + TimeDelta::seconds(5);
    it.store.create_job(job("nightly", Some(due))).await.unwrap();
    let too_early = it.store.arm_due(due - TimeDelta::seconds(1), night(), 10, daily()).await.unwrap();
    assert!(too_early.is_empty());

    let armed = it.store.arm_due(due, night(), 10, daily()).await.unwrap();
    assert_eq!((armed.len(), armed[0].due_at, armed[0].fence), (1, due, Fence(1)));
    assert!(it.store.arm_due(due, night(), 10, daily()).await.unwrap().is_empty());
    assert_eq!(it.store.next_due_at().await.unwrap(), Some(due + TimeDelta::days(1)));
    // Even a clock that was put back, or a hand at the job's row, queues the same start no second time.
    let id = armed[0].run;
    it.store.write(move |tx| Ok(tx.execute("UPDATE jobs SET due_at = ?1", [due])?)).await.unwrap();
    assert!(it.store.arm_due(due, night(), 10, never()).await.unwrap().is_empty());
    assert_eq!(it.store.still_armed(vec![id, RunId(99)]).await.unwrap(), [id]);
    assert_eq!(it.store.next_due_at().await.unwrap(), None);
}

#[tokio::test]
async fn missed_starts_are_not_made_up_for_one_by_one() {
    let it = fresh();
    it.store.create_job(job("nightly", Some(night() - TimeDelta::days(9)))).await.unwrap();
    assert_eq!(it.store.arm_due(night(), night(), 10, daily()).await.unwrap().len(), 1);
    assert_eq!(it.store.next_due_at().await.unwrap(), Some(night() + TimeDelta::days(1)));
}

#[tokio::test]
async fn what_is_due_is_armed_earliest_first_and_no_more_than_asked_for() {
    let it = fresh();
    let jobs = (0..5_i32).rev().map(|i| job(&format!("job-{i}"), Some(night() + TimeDelta::seconds(i64::from(i)))));
    it.store.create_jobs(jobs.collect()).await.unwrap();
    let horizon = night() + TimeDelta::hours(1);
    let instants = |armed: Vec<crate::db::jobs::ArmedRun>| -> Vec<i64> {
        armed.iter().map(|run| (run.due_at - night()).num_seconds()).collect()
    };
    assert_eq!(instants(it.store.arm_due(horizon, night(), 3, never()).await.unwrap()), [0, 1, 2]);
    assert_eq!(instants(it.store.arm_due(horizon, night(), 3, never()).await.unwrap()), [3, 4]);
}

#[tokio::test]
async fn an_edit_or_a_deletion_takes_back_what_was_armed() {
    let it = fresh();
    for deleted in [false, true] {
        it.store.create_job(job("nightly", Some(night()))).await.unwrap();
        let armed = it.store.arm_due(night(), night(), 10, never()).await.unwrap()[0].run;
        let before = night() - TimeDelta::seconds(1);
        if deleted {
            it.store.delete_job(&job_name("nightly"), before).await.unwrap();
        } else {
            let edited = Job { updated_at: before, ..job("nightly", None) };
            it.store.replace_job(&job_name("nightly"), edited).await.unwrap();
        }
        assert!(matches!(it.store.run(armed).await, Err(StoreError::NoRun(_))), "deleted: {deleted}");
        let _ = it.store.delete_job(&job_name("nightly"), before).await;
    }
}

#[tokio::test]
async fn a_start_whose_instant_has_come_is_not_taken_back() {
    let it = fresh();
    it.store.create_job(job("nightly", Some(night()))).await.unwrap();
    let armed = it.store.arm_due(night(), night(), 10, never()).await.unwrap()[0].run;
    let edited = Job { updated_at: night(), ..job("nightly", None) };
    it.store.replace_job(&job_name("nightly"), edited).await.unwrap();
    assert!(!it.store.run(armed).await.unwrap().begun);
    it.store.delete_job(&job_name("nightly"), night()).await.unwrap();
    assert_eq!(it.store.run(armed).await.unwrap().state, "queued");
}

#[tokio::test]
async fn what_has_begun_outlives_its_job() {
    let it = fresh();
    it.store.create_job(job("nightly", Some(night()))).await.unwrap();
    let armed = it.store.arm_due(night(), night(), 10, never()).await.unwrap()[0].run;
    it.store.append_event(Fence(1), logged(armed, 1, RunEvent::Started), running()).await.unwrap();
    it.store.delete_job(&job_name("nightly"), night()).await.unwrap();
    let run = it.store.run(armed).await.unwrap();
    assert_eq!((run.state.as_str(), run.order.job), ("running", Some(job_name("nightly"))));
    assert_eq!(it.store.unfinished_runs().await.unwrap().len(), 1);
    // Its reason for being was fixed when it began.
    it.store.set_trigger(armed, Trigger::Manual).await.unwrap();
    assert_eq!(it.store.run(armed).await.unwrap().order.trigger, Trigger::Schedule);
}

#[tokio::test]
async fn a_follower_is_queued_once() {
    let it = fresh();
    it.store.create_job(job("backup", None)).await.unwrap();
    it.store.create_job(job("nightly", None)).await.unwrap();
    let before = it.store.queue_run(Order { job: Some(job_name("backup")), ..order() }, night()).await.unwrap();
    let follower = Order { job: Some(job_name("nightly")), trigger: Trigger::After { run: before }, ..order() };
    for _ in 0..2 {
        it.store.queue_follower(follower.clone(), before, night()).await.unwrap();
    }
    let queued = it.store.unfinished_runs().await.unwrap();
    assert_eq!(queued.iter().filter(|run| run.order.job == follower.job).count(), 1);
}

#[tokio::test]
async fn a_missed_start_is_answered_with_its_run_or_not_at_all() {
    let it = fresh();
    let name = job_name("nightly");
    it.store.create_job(job("nightly", None)).await.unwrap();
    it.store.set_missed(&name, night()).await.unwrap();
    let make_up = |missed_at| Order { job: Some(name.clone()), trigger: Trigger::Misfire { missed_at }, ..order() };

    let refuse = "CREATE TRIGGER full BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    it.store.write(move |tx| Ok(tx.execute_batch(refuse)?)).await.unwrap();
    assert!(it.store.queue_run(make_up(night()), night()).await.is_err());
    assert_eq!(it.store.job(&name).await.unwrap().missed_at, Some(night()), "it is still asked");
    it.store.write(|tx| Ok(tx.execute_batch("DROP TRIGGER full")?)).await.unwrap();

    // Another start was missed meanwhile: that question stands.
    it.store.queue_run(make_up(night() - TimeDelta::days(1)), night()).await.unwrap();
    assert_eq!(it.store.job(&name).await.unwrap().missed_at, Some(night()));
    it.store.queue_run(make_up(night()), night()).await.unwrap();
    assert_eq!(it.store.job(&name).await.unwrap().missed_at, None);
}
