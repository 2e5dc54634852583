//! What retention removes, what it never does, and that whatever else is missing shows.

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use rstest::rstest;
use serde_json::json;
use uuid::Uuid;

use crate::db::audit::AuditEntry;
use crate::db::chain::ChainState;
use crate::db::events::RunHead;
use crate::db::outbox::OwedMail;
use crate::db::outbox::SendResult;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::tests::Fresh;
use crate::db::tests::app;
use crate::db::tests::fresh;
use crate::db::tests::job;
use crate::db::tests::job_name;
use crate::db::tests::logged;
use crate::db::tests::night;
use crate::db::tests::order;
use crate::db::tests::running;
use crate::domain::event::RunEvent;
use crate::domain::release::ReleaseId;
use crate::domain::run::Fence;
use crate::domain::run::Order;
use crate::domain::run::Outcome;
use crate::domain::run::RunId;
use crate::domain::run::RunState;

/// A run that is over, with two events at once after `night`.
async fn finished(store: &Store, order: Order) -> RunId {
    let run = store.queue_run(order, night()).await.unwrap();
    let cancel = RunEvent::CancelRequested { by: "anna".to_owned() };
    store.append_event(Fence(1), logged(run, 1, cancel), running()).await.unwrap();
    let outcome = Outcome::Succeeded;
    let head = RunHead { state: RunState::Finished { outcome }, away: false };
    store.append_event(Fence(1), logged(run, 2, RunEvent::Finished { outcome }), head).await.unwrap();
    run
}

async fn audited(store: &Store, at: DateTime<Utc>) {
    let text = |text: &str| text.to_owned();
    let (who, via, action, object) = (text("anna"), text("socket"), text("gate.open"), text("orders"));
    store.audit(AuditEntry { at, who, via, action, object, body: json!({}) }).await.unwrap();
}

fn late() -> DateTime<Utc> {
    night() + TimeDelta::days(500)
}

/// The runs that may go a day after they were over.
async fn old(store: &Store) -> Vec<RunId> {
    let old = store.old_runs(night() + TimeDelta::days(1), RunId(0), 9).await.unwrap();
    old.into_iter().map(|old| old.run).collect()
}

async fn links(store: &Store) -> (i64, i64) {
    match store.verify_chain().await.unwrap() {
        ChainState::Whole { links, removed, .. } => (links, removed),
        broken @ ChainState::Broken { .. } => panic!("{broken:?}"),
    }
}

async fn count(store: &Store, sql: &'static str) -> i64 {
    store.read(move |tx| Ok(tx.query_row(sql, [], |row| row.get(0))?)).await.unwrap()
}

/// Runs 1 to 4, an audit entry before each; runs 1 and 3 are removed.
async fn pruned() -> Fresh {
    let it = fresh();
    for _ in 0..4 {
        audited(&it.store, night()).await;
        finished(&it.store, order()).await;
    }
    it.store.remove_runs(vec![RunId(3), RunId(1)], late()).await.unwrap();
    it
}

#[tokio::test]
async fn what_is_left_still_verifies_and_says_how_much_is_missing() {
    let it = pruned().await;
    assert_eq!(links(&it.store).await, (13, 4), "twelve, and the checkpoint");
    assert!(matches!(it.store.run(RunId(1)).await, Err(StoreError::NoRun(_))));
    assert_eq!(it.store.events(RunId(2), 0).await.unwrap().len(), 2);
    let newest = &it.store.audit_entries(1).await.unwrap()[0];
    assert_eq!((newest.action.as_str(), &newest.body["removed"]["runs"]), ("history.prune", &json!([3, 1])));
    assert_eq!(it.store.newest_link_at().await.unwrap(), Some(late()));

    // Life goes on, and gaps that touch become one.
    audited(&it.store, late()).await;
    assert_eq!(it.store.remove_entries(night() + TimeDelta::days(1), 3, late()).await.unwrap(), 3);
    assert_eq!(links(&it.store).await, (15, 7));
    assert_eq!(count(&it.store, "SELECT count(*) FROM chain_gaps").await, 2);
    it.store.remove_runs(vec![RunId(2)], late()).await.unwrap();
    assert_eq!(links(&it.store).await, (16, 9));
    assert_eq!(count(&it.store, "SELECT count(*) FROM chain_gaps").await, 1);
    // The last entry that is old, and the checkpoints before the newest one.
    assert_eq!(it.store.remove_entries(late() + TimeDelta::days(1), 99, late()).await.unwrap(), 5);
    assert_eq!(links(&it.again()).await, (17, 14));
    assert_eq!(it.store.remove_entries(late(), 99, late()).await.unwrap(), 0, "nothing to do writes nothing");
    assert_eq!(links(&it.store).await, (17, 14));
}

#[rstest]
#[case::an_event_taken_out("DELETE FROM run_events WHERE run = 2 AND seq = 1", 5)]
#[case::an_entry_between_two_gaps("DELETE FROM audit WHERE link = 4", 4)]
#[case::an_entry_changed("UPDATE audit SET who = 'bert' WHERE link = 4", 4)]
#[case::a_gap_made_wider("UPDATE chain_gaps SET last = 4 WHERE first = 2; DELETE FROM audit WHERE link = 4", 5)]
#[case::a_gap_with_its_hash_made_wider(
    "UPDATE chain_gaps SET last = 4, after = (SELECT hash FROM audit WHERE link = 4) WHERE first = 2;
     DELETE FROM audit WHERE link = 4",
    2
)]
#[case::a_gap_of_somebody_elses(
    "INSERT INTO chain_gaps SELECT 5, 6, (SELECT hash FROM audit WHERE link = 4), hash FROM run_events WHERE link = 6;
     DELETE FROM run_events WHERE run = 2",
    2
)]
#[case::a_gap_that_is_denied("DELETE FROM chain_gaps WHERE first = 2", 2)]
#[case::another_hash_before("UPDATE chain_gaps SET before = 'x' WHERE first = 2", 2)]
#[case::the_checkpoint_taken_out(
    "DELETE FROM audit WHERE link = 13; UPDATE chain SET link = 12, hash = (SELECT hash FROM run_events WHERE link = 12)",
    2
)]
#[case::the_checkpoint_changed("UPDATE audit SET body = '{}' WHERE link = 13", 13)]
#[tokio::test]
async fn whatever_else_is_missing_shows(#[case] sql: &'static str, #[case] link: i64) {
    let it = pruned().await;
    it.store.write(move |tx| Ok(tx.execute_batch(sql)?)).await.unwrap();
    assert_eq!(it.store.verify_chain().await.unwrap(), ChainState::Broken { link });
    // Retention does not cover it up: it leaves everything as it is, or it removes something else.
    match it.store.remove_entries(late(), 1, late()).await {
        Ok(removed) => assert_eq!(removed, 1),
        Err(error) => assert!(matches!(error, StoreError::Unaccounted { .. }), "{error:?}"),
    }
    assert!(matches!(it.store.verify_chain().await.unwrap(), ChainState::Broken { .. }));
}

#[tokio::test]
async fn a_gap_by_hand_without_any_checkpoint_shows() {
    let it = fresh();
    finished(&it.store, order()).await;
    let sql = "INSERT INTO chain_gaps SELECT 1, 1, '', hash FROM run_events WHERE link = 1;
               DELETE FROM run_events WHERE link = 1";
    it.store.write(move |tx| Ok(tx.execute_batch(sql)?)).await.unwrap();
    assert_eq!(it.store.verify_chain().await.unwrap(), ChainState::Broken { link: 1 });
}

#[tokio::test]
async fn what_is_needed_stays_whatever_its_age() {
    let it = fresh();
    it.store.create_job(job("yearly", None)).await.unwrap();
    let of_the_job = || Order { job: Some(job_name("yearly")), ..order() };
    let first = finished(&it.store, of_the_job()).await;
    let last_of_the_job = finished(&it.store, of_the_job()).await;
    let (failed, unsent, plain) =
        (finished(&it.store, order()).await, finished(&it.store, order()).await, finished(&it.store, order()).await);
    let stuck = it.store.queue_run(order(), night()).await.unwrap();
    it.store.append_event(Fence(1), logged(stuck, 1, RunEvent::Started), running()).await.unwrap();
    let last_of_the_app = finished(&it.store, order()).await;

    let release = ReleaseId { version: "4.0".parse().unwrap(), build: 4 };
    it.store.quarantine(&app(), &release, failed, night(), "no answer".to_owned()).await.unwrap();
    let mail = OwedMail {
        message_id: "m".to_owned(),
        unique: Uuid::nil(),
        run: Some(unsent),
        to: vec!["it@example.com".to_owned()],
        subject: String::new(),
        text: String::new(),
    };
    it.store.owe_mail(mail, night()).await.unwrap();
    assert_eq!(old(&it.store).await, [first, plain]);
    assert!(it.store.old_runs(night(), RunId(0), 9).await.unwrap().is_empty(), "they are not old enough");
    for keeps in [failed, unsent, stuck] {
        let removed = it.store.remove_runs(vec![plain, keeps], late()).await;
        assert!(removed.is_err(), "{keeps}");
        assert_eq!(links(&it.store).await, (13, 0), "all or none");
    }

    // What kept them has gone.
    let due = it.store.next_due_mail(night()).await.unwrap().unwrap();
    let dead = SendResult::Dead { error: "no such mailbox".to_owned() };
    it.store.note_mail(due.id, vec![("it@example.com".to_owned(), dead)], night(), night()).await.unwrap();
    it.store.allow_release(&app(), &release.version).await.unwrap();
    it.store.delete_job(&job_name("yearly"), night()).await.unwrap();
    let all = old(&it.store).await;
    assert_eq!(all, [first, last_of_the_job, failed, unsent, plain]);
    it.store.remove_runs(all, late()).await.unwrap();
    assert_eq!(count(&it.store, "SELECT count(*) FROM outbox").await, 0);
    assert_eq!(count(&it.store, "SELECT count(*) FROM outbox_recipients").await, 0);
    let left = it.store.runs(Default::default()).await.unwrap();
    assert_eq!(left.iter().map(|run| run.id).collect::<Vec<_>>(), [last_of_the_app, stuck]);
    assert_eq!(links(&it.store).await, (14, 10));
}

#[tokio::test]
async fn after_every_part_of_it_we_may_die() {
    let it = fresh();
    for _ in 0..5 {
        finished(&it.store, order()).await;
        audited(&it.store, night()).await;
    }
    for left in (0..4).rev() {
        // Each time another process, which knows nothing of the one before.
        let store = it.again();
        let next = store.old_runs(night() + TimeDelta::days(1), RunId(0), 1).await.unwrap();
        store.remove_runs(vec![next[0].run], late()).await.unwrap();
        links(&it.again()).await;
        assert_eq!(old(&it.again()).await.len(), left);
    }
    let failed: Result<(), StoreError> = it
        .store
        .write(|tx| {
            tx.execute("DELETE FROM run_events WHERE run = 5", [])?;
            Err(StoreError::Closed)
        })
        .await;
    assert!(failed.is_err());
    assert_eq!(links(&it.again()).await, (19, 8));
}
