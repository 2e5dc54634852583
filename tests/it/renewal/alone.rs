//! `update now` without a daemon: the same process goes on under the new program, with the same run.

use serde_json::Value;

use super::updater::Flaw;
use super::updater::in_place;
use super::updater::own_program;
use super::updater::publish_bad;
use super::updater::publish_good;
use super::updater::said;
use crate::night::releases::V2;
use crate::night::site::Site;
use crate::night::site::eventually;
use crate::night::truth::Left;
use afterhours::domain::run::RunId;

const ALONE: &[(&str, &str)] = &[
    ("installed_version", "\"1.0\""),
    ("health", "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"3s\" }"),
];

#[tokio::test]
async fn a_newer_afterhours_goes_first_without_a_daemon() {
    let mut site = Site::with(ALONE).await;
    own_program(&mut site);
    let new = publish_good(&site, "0.2.0", 2);
    V2.publish(&site.feed());
    let (code, answer, talk) = site.run(&["update", "now", "orders", "--yes", "--json"]).await;
    assert_eq!(code, 0, "{answer}{talk}");
    let run: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&run["id"], &run["outcome"]), (&1.into(), &"succeeded".into()));
    assert!(in_place(&site) == new);
    site.reports(1).await;
    site.serve().await;
    let view = site.client().show_run(RunId(1)).await.unwrap();
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    assert_eq!(said(&site, RunId(1)).await.0, "Afterhours 0.2.0 (build 2) runs, before it was 0.1.0");
    assert!(site.client().show_run(RunId(2)).await.is_err(), "one update is one run");
}

#[tokio::test]
async fn a_bad_one_without_a_daemon_is_put_back_and_the_run_is_finished() {
    let mut site = Site::with(ALONE).await;
    own_program(&mut site);
    publish_bad(&site, "0.2.0", 2, Flaw::RuinsTheStore);
    V2.publish(&site.feed());
    let old = in_place(&site);
    let (code, answer, _) = site.run(&["update", "now", "orders", "--yes"]).await;
    assert_ne!(code, 0, "{answer}");
    eventually("what the caretaker has started reports", async || !site.mail.taken().is_empty()).await;
    site.reports(1).await;
    assert!(in_place(&site) == old);
    site.serve().await;
    let view = site.settled(RunId(1)).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    assert!(said(&site, RunId(1)).await.0.contains("did not come up"));
}
