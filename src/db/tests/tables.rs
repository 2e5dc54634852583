//! One table after the other: what is put in comes out, and what must happen once happens once.

use chrono::TimeDelta;
use serde_json::json;
use uuid::Uuid;

use crate::db::audit::AuditEntry;
use crate::db::chain::ChainState;
use crate::db::events::RunHead;
use crate::db::gates::Holder;
use crate::db::outbox::OutboxCounts;
use crate::db::outbox::OwedMail;
use crate::db::outbox::SendResult;
use crate::db::sessions::StoredSession;
use crate::db::store::StoreError;
use crate::db::tests::Fresh;
use crate::db::tests::app;
use crate::db::tests::fresh;
use crate::db::tests::job;
use crate::db::tests::job_name;
use crate::db::tests::logged;
use crate::db::tests::never;
use crate::db::tests::night;
use crate::db::tests::order;
use crate::db::tests::running;
use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::gate::ClosedBy;
use crate::domain::gate::Gate;
use crate::domain::gate::Pass;
use crate::domain::gate::Position;
use crate::domain::job::JobSpec;
use crate::domain::job::StartCondition;
use crate::domain::name::AppName;
use crate::domain::release::ReleaseId;
use crate::domain::run::Fence;
use crate::domain::session::SessionId;
use crate::domain::update_check::Offer;
use crate::domain::update_check::UpdateCheck;

/// A chain of three links: two events of a run and an entry of the audit between them.
async fn chained() -> Fresh {
    let it = fresh();
    let run = it.store.queue_run(order(), night()).await.unwrap();
    it.store.append_event(Fence(1), logged(run, 1, RunEvent::Started), running()).await.unwrap();
    let entry = AuditEntry {
        at: night(),
        who: "anna".to_owned(),
        via: "socket".to_owned(),
        action: "run.cancel".to_owned(),
        object: run.to_string(),
        body: json!({}),
    };
    it.store.audit(entry.clone()).await.unwrap();
    assert_eq!(it.store.audit_entries(9).await.unwrap(), [entry]);
    let cancel = RunEvent::CancelRequested { by: "anna".to_owned() };
    it.store.append_event(Fence(1), logged(run, 2, cancel), running()).await.unwrap();
    it
}

#[tokio::test]
async fn a_chain_that_nobody_touched_is_whole() {
    assert!(matches!(fresh().store.verify_chain().await.unwrap(), ChainState::Whole { links: 0, .. }));
    let it = chained().await;
    let ChainState::Whole { links: 3, removed: 0, head } = it.store.verify_chain().await.unwrap() else { panic!() };
    assert_eq!(head.len(), 64);
    assert_eq!(it.store.last_event_at().await.unwrap(), Some(night() + TimeDelta::seconds(2)));
}

#[tokio::test]
async fn whatever_is_changed_or_taken_out_of_the_chain_shows() {
    let tampered = [
        ("UPDATE run_events SET body = '{\"event\":\"committed\"}' WHERE seq = 2", 3),
        ("UPDATE run_events SET at = '2026-11-22T09:00:00+00:00' WHERE seq = 1", 1),
        ("UPDATE run_events SET name = 'committed' WHERE seq = 1", 1),
        ("UPDATE run_events SET seq = 7 WHERE seq = 2", 3),
        ("UPDATE audit SET who = 'bert'", 2),
        ("UPDATE audit SET via = 'command line'", 2),
        ("UPDATE audit SET object = '8'", 2),
        ("UPDATE audit SET action = 'run.show'", 2),
        ("DELETE FROM run_events WHERE seq = 1", 1),
        ("DELETE FROM audit", 2),
        // The end cut off: the head knows better.
        ("DELETE FROM run_events WHERE seq = 2", 3),
        ("UPDATE chain SET link = 2", 4),
    ];
    for (sql, link) in tampered {
        let it = chained().await;
        assert_eq!(it.store.write(move |tx| Ok(tx.execute(sql, [])?)).await.unwrap(), 1, "{sql}");
        assert_eq!(it.store.verify_chain().await.unwrap(), ChainState::Broken { link }, "{sql}");
    }
}

#[tokio::test]
async fn names_of_jobs_are_unique_also_after_an_edit() {
    let it = fresh();
    it.store.create_job(job("nightly", None)).await.unwrap();
    it.store.create_job(job("weekly", None)).await.unwrap();
    assert!(matches!(it.store.create_job(job("nightly", None)).await, Err(StoreError::NameTaken(_))));
    let renamed = it.store.replace_job(&job_name("weekly"), job("nightly", None)).await;
    assert!(matches!(renamed, Err(StoreError::NameTaken(_))), "{renamed:?}");
    it.store.replace_job(&job_name("weekly"), job("monthly", None)).await.unwrap();
    let names: Vec<String> = it.store.jobs().await.unwrap().iter().map(|job| job.spec.name.to_string()).collect();
    assert_eq!(names, ["monthly", "nightly"]);
    assert!(matches!(it.store.job(&job_name("weekly")).await, Err(StoreError::NoJob(_))));
    assert!(matches!(it.store.delete_job(&job_name("weekly"), night()).await, Err(StoreError::NoJob(_))));
    // All or none.
    let many = it.store.create_jobs(vec![job("yearly", None), job("nightly", None)]).await;
    assert!(matches!(many, Err(StoreError::NameTaken(_))));
    assert_eq!(it.store.jobs().await.unwrap().len(), 2);
}

#[tokio::test]
async fn only_enabled_jobs_follow() {
    let it = fresh();
    let first = job_name("backup");
    for (name, enabled) in [("yes", true), ("no", false)] {
        let spec = JobSpec { start: StartCondition::After { job: first.clone() }, ..job(name, None).spec };
        it.store.create_job(crate::domain::job::Job { spec, enabled, ..job(name, None) }).await.unwrap();
    }
    let followers = it.store.jobs_after(&first).await.unwrap();
    assert_eq!(followers.iter().map(|job| job.spec.name.as_str()).collect::<Vec<_>>(), ["yes"]);
    it.store.set_missed(&job_name("yes"), night()).await.unwrap();
    assert_eq!(it.store.job(&job_name("yes")).await.unwrap().missed_at, Some(night()));
}

#[tokio::test]
async fn the_same_mail_is_owed_once() {
    let it = fresh();
    let mail = OwedMail {
        message_id: "run-7.report".to_owned(),
        unique: Uuid::nil(),
        run: None,
        to: vec!["it@example.com".to_owned()],
        subject: "Updated".to_owned(),
        text: "All is well.".to_owned(),
    };
    it.store.owe_mail(mail.clone(), night()).await.unwrap();
    it.store.owe_mail(OwedMail { text: "Written anew.".to_owned(), ..mail.clone() }, night()).await.unwrap();
    let due = it.store.next_due_mail(night()).await.unwrap().unwrap();
    assert_eq!((due.attempts, &due.mail), (0, &mail));

    let later = night() + TimeDelta::minutes(5);
    let to = |result| vec![("it@example.com".to_owned(), result)];
    let busy = SendResult::Later { error: "busy".to_owned() };
    it.store.note_mail(due.id, to(busy), night(), later).await.unwrap();
    assert_eq!(it.store.next_due_mail(night()).await.unwrap(), None);
    assert_eq!(it.store.next_due_mail(later).await.unwrap().unwrap().attempts, 1);
    let sent = SendResult::Sent { said: "250 ok".to_owned() };
    it.store.note_mail(due.id, to(sent), later, later).await.unwrap();
    // Sent is sent: a run that writes its report again after a crash owes nothing new.
    it.store.owe_mail(mail, later).await.unwrap();
    assert_eq!(it.store.next_due_mail(later).await.unwrap(), None);
    let counts = it.store.outbox_counts(None).await.unwrap();
    assert_eq!(counts, OutboxCounts { sent: 1, ..OutboxCounts::default() });
}

/// A mail to these, put into the store; its place there.
async fn owed(it: &Fresh, to: &[&str]) -> i64 {
    let mail = OwedMail {
        message_id: "run-7.report".to_owned(),
        unique: Uuid::nil(),
        run: None,
        to: to.iter().map(|to| (*to).to_owned()).collect(),
        subject: "Updated".to_owned(),
        text: String::new(),
    };
    it.store.owe_mail(mail, night()).await.unwrap();
    it.store.next_due_mail(night()).await.unwrap().unwrap().id
}

#[tokio::test]
async fn a_mail_that_nobody_gets_is_kept_and_not_tried() {
    let it = fresh();
    let id = owed(&it, &[]).await;
    it.store.note_mail(id, Vec::new(), night(), night()).await.unwrap();
    assert_eq!(it.store.next_due_mail(night() + TimeDelta::days(9)).await.unwrap(), None);
    assert_eq!(it.store.outbox_counts(None).await.unwrap().dead, 1);
    assert!(it.store.unsent_letters(night(), 9).await.unwrap().is_empty(), "it is missed by nobody");
}

#[tokio::test]
async fn each_recipient_has_an_outcome_of_their_own() {
    let it = fresh();
    let id = owed(&it, &["full@example.com", "gone@example.com", "it@example.com"]).await;
    let later = night() + TimeDelta::minutes(5);
    let tried = [
        ("it@example.com", SendResult::Sent { said: "250 ok".to_owned() }),
        ("full@example.com", SendResult::Later { error: "452 full".to_owned() }),
        ("gone@example.com", SendResult::Dead { error: "550 no such user".to_owned() }),
    ];
    let tried = tried.map(|(to, result)| (to.to_owned(), result)).to_vec();
    it.store.note_mail(id, tried, night(), later).await.unwrap();

    let due = it.store.next_due_mail(later).await.unwrap().unwrap();
    assert_eq!((due.pending, due.mail.to.len()), (vec!["full@example.com".to_owned()], 3));
    let unsent = async |since| {
        let letters = it.store.unsent_letters(since, 9).await.unwrap();
        letters.into_iter().map(|letter| (letter.to, letter.said.unwrap(), letter.next_at)).collect::<Vec<_>>()
    };
    let full = ("full@example.com".to_owned(), "452 full".to_owned(), Some(later));
    let gone = ("gone@example.com".to_owned(), "550 no such user".to_owned(), None);
    assert_eq!(unsent(night()).await, [full.clone(), gone]);
    assert_eq!(unsent(later).await, [full], "what was given up long ago is not told for ever");

    it.store.hurry_mails(night()).await.unwrap();
    assert_eq!(it.store.next_due_mail(night()).await.unwrap().unwrap().id, id);
    let sent = vec![("full@example.com".to_owned(), SendResult::Sent { said: "250 ok".to_owned() })];
    it.store.note_mail(id, sent, later, later).await.unwrap();
    assert_eq!(it.store.outbox_counts(None).await.unwrap(), OutboxCounts { dead: 1, ..OutboxCounts::default() });
}

#[tokio::test]
async fn a_pass_admits_once_and_its_own_user_first() {
    let it = fresh();
    let pass = |user: Option<&str>, minutes| Pass {
        app: app(),
        user: user.map(str::to_owned),
        uid: user.map(|user| if user == "anna" { 1001 } else { 1002 }),
        valid_until: night() + TimeDelta::minutes(minutes),
        given_by: "it".to_owned(),
    };
    it.store.give_pass(pass(None, 10)).await.unwrap();
    it.store.give_pass(pass(Some("anna"), 10)).await.unwrap();
    it.store.give_pass(pass(Some("bert"), 1)).await.unwrap();
    assert_eq!(it.store.passes(&app(), night()).await.unwrap().len(), 3);

    let later = night() + TimeDelta::minutes(2);
    let note = |pass: &Pass| AuditEntry {
        at: night(),
        who: "anna".to_owned(),
        via: "socket".to_owned(),
        action: "gate.pass_used".to_owned(),
        object: pass.app.to_string(),
        body: json!({}),
    };
    let uses = async |app: AppName, uid: u32, user: &str, vouched: bool| {
        let holder = Holder { uid: Some(uid), user: user.to_owned(), vouched };
        it.store.use_pass(&app, holder, later, note).await.unwrap()
    };
    assert!(!uses("crm".parse().unwrap(), 1001, "anna", false).await, "of another application");
    assert!(uses(app(), 1001, "anna", false).await);
    assert_eq!(it.store.passes(&app(), later).await.unwrap(), [pass(None, 10)], "anna's own went, bert's has run out");
    assert!(uses(app(), 1002, "bert", false).await, "anybody's");
    assert!(!uses(app(), 1002, "bert", false).await);
    // The number counts, not the name; only of whom root speaks for the name does.
    it.store.give_pass(pass(Some("anna"), 10)).await.unwrap();
    assert!(!uses(app(), 1002, "anna", false).await);
    assert!(uses(app(), 0, "anna", true).await);
    assert_eq!(it.store.audit_entries(10).await.unwrap().len(), 3, "each that was used is noted, and no other");
}

#[tokio::test]
async fn a_gate_is_open_until_it_was_closed() {
    let it = fresh();
    assert_eq!(it.store.gate(&app()).await.unwrap(), Gate::open(app()));
    let closed = Position::Closed {
        by: ClosedBy::Operator("anna".to_owned()),
        message: "until Monday".to_owned(),
        until: None,
        lease_until: None,
        lease: None,
        since: night(),
    };
    let gate = Gate { app: app(), position: closed };
    let change = gate.clone();
    assert_eq!(it.store.change_gate(&app(), move |_, _| Some(change)).await.unwrap(), gate);
    assert_eq!(it.store.change_gate(&app(), |_, _| None).await.unwrap(), gate, "left as it is");
    assert_eq!(it.again().gate(&app()).await.unwrap(), gate);
}

#[tokio::test]
async fn sessions_are_remembered_until_they_leave() {
    let it = fresh();
    let id = SessionId("ws-1".to_owned());
    let note = |body| it.store.note_sessions(vec![(app(), id.clone(), body)]);
    note(Some(json!({"user": "anna"}))).await.unwrap();
    note(Some(json!({"user": "bert"}))).await.unwrap();
    let stored = StoredSession { app: "orders".to_owned(), id: id.clone(), body: Some(json!({"user": "bert"})) };
    assert_eq!(it.again().stored_sessions().await.unwrap(), [stored]);
    note(None).await.unwrap();
    assert!(it.store.stored_sessions().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_release_that_failed_is_remembered_with_its_last_reason() {
    let it = fresh();
    let run = it.store.queue_run(order(), night()).await.unwrap();
    let release = ReleaseId { version: "4.0".parse().unwrap(), build: 4 };
    let later = night() + chrono::TimeDelta::days(1);
    for (at, reason) in [(night(), "it did not answer"), (later, "it was tried again")] {
        it.store.quarantine(&app(), &release, run, at, reason.to_owned()).await.unwrap();
    }
    let found = it.store.quarantined(&app()).await.unwrap();
    assert_eq!(
        (found.len(), found[0].build, found[0].at, found[0].reason.as_str()),
        (1, 4, later, "it was tried again")
    );
    assert!(it.store.allow_release(&app(), &release.version).await.unwrap());
    assert!(!it.store.allow_release(&app(), &release.version).await.unwrap());
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_hides_nothing() {
    let it = fresh();
    for name in ["broken", "nightly"] {
        it.store.create_job(job(name, Some(night()))).await.unwrap();
    }
    let broken = it.store.queue_run(order(), night()).await.unwrap();
    it.store.append_event(Fence(1), logged(broken, 1, RunEvent::Started), running()).await.unwrap();
    let garbled = it.store.queue_run(order(), night()).await.unwrap();
    let cancel = RunEvent::CancelRequested { by: "anna".to_owned() };
    it.store.append_event(Fence(1), logged(garbled, 1, cancel), running()).await.unwrap();
    let good = it.store.queue_run(order(), night()).await.unwrap();
    let sql = "UPDATE jobs SET spec = '{}' WHERE name = 'broken'; UPDATE runs SET body = '{}' WHERE id = 1;
               UPDATE run_events SET body = '{\"event\":\"dreamt\"}' WHERE run = 2; INSERT INTO gates VALUES ('orders', '{}')";
    it.store.write(move |tx| Ok(tx.execute_batch(sql)?)).await.unwrap();
    let found = it.again().unreadable().await.unwrap();
    assert_eq!(
        found.iter().map(|bad| bad.what.as_str()).collect::<Vec<_>>(),
        ["job broken", "the gate of orders", "run 1", "run 2"]
    );
    assert!(
        found[0].remedy.contains("afterhours job delete broken") && found[3].why.contains("event 1: unknown variant")
    );

    // A run is under way all the same, and a gate is closed until somebody opens it.
    let ids = |runs: Vec<crate::db::runs::RunRow>| runs.iter().map(|run| run.id).collect::<Vec<_>>();
    assert_eq!(ids(it.store.unfinished_runs().await.unwrap()), [garbled, good]);
    assert_eq!(it.store.active_run(&app()).await.unwrap().map(|run| run.id), Some(broken));
    assert!(!it.store.gate(&app()).await.unwrap().admits(night() + TimeDelta::days(999)));
    let open = |before: &Gate, _| {
        assert!(matches!(before.position, Position::Closed { by: ClosedBy::Operator(_), lease_until: None, .. }));
        Some(Gate::open(app()))
    };
    assert!(it.store.change_gate(&app(), open).await.unwrap().admits(night()));

    // What is due beside an unreadable job starts, and its own start counts as missed.
    let armed = it.store.arm_due(night(), night(), 9, never()).await.unwrap();
    assert_eq!(armed.len(), 1);
    assert_eq!(it.store.next_due_at().await.unwrap(), None);
    let missed = "SELECT count(*) FROM jobs WHERE name = 'broken' AND missed_at IS NOT NULL";
    assert_eq!(it.store.read(move |tx| Ok(tx.query_row(missed, [], |row| row.get::<_, i64>(0))?)).await.unwrap(), 1);
    assert_eq!(it.store.jobs().await.unwrap().len(), 1);
    it.store.delete_job(&job_name("broken"), night()).await.unwrap();
    assert_eq!(it.store.count_jobs().await.unwrap(), 1);
}

#[tokio::test]
async fn of_very_many_that_cannot_be_read_the_others_are_counted() {
    let it = fresh();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120)
               INSERT INTO gates SELECT 'app-' || i, '{}' FROM n";
    it.store.write(move |tx| Ok(tx.execute(sql, [])?)).await.unwrap();
    let found = it.store.unreadable().await.unwrap();
    assert_eq!((found.len(), found[100].what.as_str()), (101, "20 more rows"));
}

#[tokio::test]
async fn what_was_offered_outlives_a_look_that_fails() {
    let it = fresh();
    let later = night() + TimeDelta::hours(1);
    assert_eq!(it.store.update_check(&app()).await.unwrap(), None);
    let failed = UpdateCheck { at: night(), offer: None, failure: Some(Failure::new("ask the feed").hint("mend it")) };
    it.store.note_update_check(&app(), failed.clone()).await.unwrap();
    assert_eq!(it.again().update_check(&app()).await.unwrap(), Some(failed.clone()));

    let release = ReleaseId { version: "4.0".parse().unwrap(), build: 4 };
    let good = UpdateCheck { at: later, offer: Some(Offer::new(later, vec![release], 1)), failure: None };
    it.store.note_update_check(&app(), good.clone()).await.unwrap();
    assert_eq!(it.store.update_check(&app()).await.unwrap(), Some(good.clone()), "it works again");

    let failed = UpdateCheck { at: later + TimeDelta::hours(1), ..failed };
    it.store.note_update_check(&app(), failed.clone()).await.unwrap();
    let noted = it.store.update_check(&app()).await.unwrap();
    assert_eq!(noted, Some(UpdateCheck { offer: good.offer.clone(), ..failed }));

    // What another version of this program has written is replaced by the next look.
    let garble = "UPDATE update_checks SET offer = '{}', failure = NULL";
    it.store.write(move |tx| Ok(tx.execute(garble, [])?)).await.unwrap();
    assert_eq!(it.store.update_check(&app()).await.unwrap(), None);
    it.store.note_update_check(&app(), good.clone()).await.unwrap();
    assert_eq!(it.store.update_check(&app()).await.unwrap(), Some(good));

    it.store.keep_update_checks(vec!["crm".parse().unwrap(), app()]).await.unwrap();
    assert!(it.store.update_check(&app()).await.unwrap().is_some());
    it.store.keep_update_checks(Vec::new()).await.unwrap();
    assert_eq!(it.store.update_check(&app()).await.unwrap(), None);
}

#[tokio::test]
async fn while_the_application_is_away_nobody_can_say_what_is_newer() {
    let it = fresh();
    let run = it.store.queue_run(order(), night()).await.unwrap();
    let away = |away| RunHead { away, ..running() };
    let check = UpdateCheck { at: night(), offer: Some(Offer::new(night(), Vec::new(), 0)), failure: None };
    it.store.append_event(Fence(1), logged(run, 1, RunEvent::Started), away(true)).await.unwrap();
    it.store.note_update_check(&app(), check.clone()).await.unwrap();
    assert_eq!(it.store.update_check(&app()).await.unwrap(), None);
    it.store.append_event(Fence(1), logged(run, 2, RunEvent::Committed), away(false)).await.unwrap();
    it.store.note_update_check(&app(), check.clone()).await.unwrap();
    assert_eq!(it.store.update_check(&app()).await.unwrap(), Some(check));
}
