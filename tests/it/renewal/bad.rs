//! New programs that are no good: refused after the rehearsal, or put back with the store as it was.

use afterhours::domain::run::Outcome;
use afterhours::wire::app::AllowRelease;
use rstest::rstest;

use super::updater::Flaw;
use super::updater::good_program;
use super::updater::in_place;
use super::updater::publish;
use super::updater::publish_bad;
use super::updater::publish_good;
use super::updater::said;
use super::updater::site;
use crate::night::releases::V2;
use crate::night::releases::V3;
use crate::night::site::Site;
use crate::night::site::eventually;
use crate::night::truth::Left;

#[rstest]
#[case::ends("#!/bin/sh\necho it is broken >&2\nexit 1\n", "it is broken")]
#[case::hangs("#!/bin/sh\nexec sleep 1000\n", "did not end within 4s")]
#[case::is_something_else("#!/bin/sh\necho hello\n", "recognise")]
#[case::is_no_program("no program", "ended with")]
#[tokio::test]
async fn what_cannot_rehearse_is_refused(#[case] file: &str, #[case] because: &str) {
    let mut site = site().await;
    publish(&site, "0.2.0", 2, file.as_bytes());
    V2.publish(&site.feed());
    site.open().await;
    let (old, pid) = (in_place(&site), site.pid());
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    let (message, findings) = said(&site, run).await;
    assert!(message.contains(because), "{message}");
    assert_eq!(findings.len(), 1);
    assert!(in_place(&site) == old);
    assert_eq!(site.client().status().await.unwrap().daemon.unwrap().pid, pid);
    site.reports(1).await;
    assert!(site.mail.taken()[0].content.contains("Afterhours stays as it is"), "{}", site.mail.taken()[0].content);
    is_held_back(&site).await;
}

#[tokio::test]
async fn one_of_another_version_than_it_is_called_is_refused() {
    let mut site = site().await;
    let file = good_program(&site, "0.1.1", 2);
    publish(&site, "0.2.0", 2, &file);
    V2.publish(&site.feed());
    site.open().await;
    let (old, pid) = (in_place(&site), site.pid());
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    let (message, findings) = said(&site, run).await;
    assert!(message.contains("0.2.0 (build 2)") && message.contains("0.1.1"), "{message}");
    assert_eq!(findings.len(), 1);
    assert!(in_place(&site) == old);
    assert_eq!(site.client().status().await.unwrap().daemon.unwrap().pid, pid);
    is_held_back(&site).await;
}

/// It is not tried again by itself, and is when somebody says so.
async fn is_held_back(site: &Site) {
    let (_, doctor, _) = site.run(&["doctor", "orders"]).await;
    assert!(doctor.contains("Afterhours 0.2.0 (build 2) failed here before"), "{doctor}");
    V3.publish(&site.feed());
    let view = site.settled(site.update().await).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    let (message, _) = said(site, view.id).await;
    assert!(message.ends_with("stays, not 0.2.0 (build 2)"), "{message}");
    let ask = AllowRelease { version: "0.2.0".parse().unwrap() };
    let allowed = site.client().allow_release(&"afterhours".parse().unwrap(), &ask).await.unwrap();
    assert!(allowed.was_held_back);
}

#[rstest]
#[tokio::test]
async fn what_does_not_come_up_is_put_back(#[values(Flaw::Dies, Flaw::Hangs, Flaw::RuinsTheStore)] flaw: Flaw) {
    let mut site = site().await;
    publish_bad(&site, "0.2.0", 2, flaw);
    V2.publish(&site.feed());
    site.open().await;
    let old = in_place(&site);
    let run = site.update().await;
    // The init system sees that the daemon has ended, and starts what is there: until that is a daemon.
    site.ended().await;
    eventually("a daemon answers", async || {
        site.spawn();
        let socket = site.path("s");
        let up = async { while is_away(&socket).await {} };
        tokio::select! {
            () = up => true,
            () = site.ended() => false,
        }
    })
    .await;
    put_back(&site, run, &old).await;
}

async fn is_away(socket: &std::path::Path) -> bool {
    tokio::task::yield_now().await;
    tokio::net::UnixStream::connect(socket).await.is_err()
}

#[rstest]
#[tokio::test]
async fn without_an_init_system_the_caretaker_starts_the_old_one(
    #[values(Flaw::HangsWithTheLock, Flaw::RuinsTheStore)] flaw: Flaw,
) {
    let mut site = site().await;
    publish_bad(&site, "0.2.0", 2, flaw);
    V2.publish(&site.feed());
    site.open().await;
    let old = in_place(&site);
    let run = site.update().await;
    site.ended().await;
    eventually("the caretaker's daemon answers", async || site.client().status().await.is_ok()).await;
    put_back(&site, run, &old).await;
}

async fn put_back(site: &Site, run: afterhours::domain::run::RunId, old: &[u8]) {
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    let (message, findings) = said(site, run).await;
    assert!(message.contains("0.2.0 (build 2) did not come up") && message.contains("0.1.0 runs again"), "{message}");
    assert_eq!(findings.len(), 1);
    assert!(in_place(site) == old);
    site.reports(1).await;
    is_held_back(site).await;
}

#[tokio::test]
async fn after_a_bad_one_a_better_one_is_taken() {
    let mut site = site().await;
    publish_bad(&site, "0.2.0", 2, Flaw::Dies);
    V2.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    site.ended().await;
    eventually("the caretaker's daemon answers", async || site.client().status().await.is_ok()).await;
    site.settled(run).await;
    let new = publish_good(&site, "0.2.1", 3);
    V3.publish(&site.feed());
    let view = site.settled(site.update().await).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    site.desk_answers("3.0").await;
    assert!(in_place(&site) == new);
}
