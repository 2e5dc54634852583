//! Two on one file: the daemon, and `update now` beside it.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use crate::db::chain::ChainState;
use crate::db::tests::daily;
use crate::db::tests::fresh;
use crate::db::tests::job;
use crate::db::tests::logged;
use crate::db::tests::night;
use crate::db::tests::order;
use crate::db::tests::running;
use crate::domain::event::RunEvent;
use crate::domain::run::Fence;
use crate::domain::run::Order;

const ROUNDS: i64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_arm_the_same_starts_and_each_is_armed_once() {
    let it = fresh();
    let jobs = (0..60).map(|i| job(&format!("job-{i}"), Some(night() + TimeDelta::seconds(i)))).collect();
    it.store.create_jobs(jobs).await.unwrap();
    let horizon = night() + TimeDelta::hours(1);
    let arm = |store: crate::db::store::Store| async move {
        let mut armed = Vec::new();
        while let some @ [_, ..] = store.arm_due(horizon, night(), 7, daily()).await.unwrap().as_slice() {
            armed.extend(some.iter().map(|run| run.run));
        }
        armed
    };
    let (here, there) = tokio::join!(tokio::spawn(arm(it.store.clone())), tokio::spawn(arm(it.again())));
    let all: Vec<_> = here.unwrap().into_iter().chain(there.unwrap()).collect();
    assert_eq!(all.len(), 60);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_write_logs_and_the_chain_stays_whole() {
    let it = fresh();
    let other = it.again();
    let first = it.store.queue_run(order(), night()).await.unwrap();
    let second = other.queue_run(Order { app: "crm".parse().unwrap(), ..order() }, night()).await.unwrap();
    let write = |store: crate::db::store::Store, run| async move {
        for seq in 1..=ROUNDS {
            let event = if seq == 1 { RunEvent::Started } else { RunEvent::CancelRequested { by: "anna".to_owned() } };
            store.append_event(Fence(1), logged(run, seq, event), running()).await.unwrap();
        }
    };
    let (here, there) = tokio::join!(tokio::spawn(write(it.store.clone(), first)), tokio::spawn(write(other, second)));
    here.unwrap();
    there.unwrap();
    let ChainState::Whole { links, .. } = it.store.verify_chain().await.unwrap() else { panic!() };
    assert_eq!(links, 2 * ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_claim_the_same_run_and_the_last_one_has_it() {
    let it = fresh();
    let other = it.again();
    let run = it.store.queue_run(order(), night()).await.unwrap();
    let (mine, theirs) = tokio::join!(it.store.claim_run(run), other.claim_run(run));
    let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
    assert_ne!(mine, theirs);
    let started = || logged(run, 1, RunEvent::Started);
    let (mine_written, theirs_written) = tokio::join!(
        it.store.append_event(mine, started(), running()),
        other.append_event(theirs, started(), running())
    );
    assert_eq!(mine_written.is_ok(), mine > theirs);
    assert_eq!(theirs_written.is_ok(), theirs > mine);
}
