//! `update now`: without a daemon, beside one, and killed.

use std::process::Stdio;

use afterhours::db::store::Store;
use afterhours::domain::event::RunEvent;
use afterhours::domain::gate::Position;
use afterhours::domain::run::RunId;
use afterhours::domain::step::Step;
use serde_json::Value;

use super::releases::SICK;
use super::releases::V2;
use super::releases::V3;
use super::site::Site;
use super::site::app;
use super::site::eventually;
use super::truth::Left;

pub(crate) const ALONE: &[(&str, &str)] = &[
    ("installed_version", "\"1.0\""),
    ("health", "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"3s\" }"),
];

#[tokio::test]
async fn update_now_without_a_daemon() {
    let mut site = Site::with(ALONE).await;
    V2.publish(&site.feed());
    let (code, said, talk) = site.run(&["update", "now", "orders", "--yes", "--json"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    let run: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&run["outcome"], &run["to_version"]), (&"succeeded".into(), &"2.0".into()));
    site.desk_answers("2.0").await;
    site.reports(1).await;
    // The daemon that comes later finds it all.
    site.serve().await;
    let run = site.client().show_run(RunId(1)).await.unwrap();
    assert_eq!(site.must_be_whole(&run, &[V2], &["first", "second"]).await, Left::New);
}

/// What a store says with and without a daemon.
const LOOKS: &[&[&str]] = &[
    &["run", "list"],
    &["run", "show", "1"],
    &["snapshot", "list", "orders"],
    &["job", "list"],
    &["job", "show", "nightly"],
    &["job", "history", "nightly"],
];

#[tokio::test]
async fn what_happened_is_read_without_a_daemon() {
    let mut site = Site::with(ALONE).await;
    let (code, said, talk) = site.run(&["run", "list", "--json"]).await;
    assert_eq!(code, 7, "{said}{talk}");
    assert!(talk.contains("failed to reach the daemon") && talk.contains("there is no store at"), "{talk}");
    let (code, said, talk) = site.run(&["update", "check", "orders"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    assert!(!site.path("state").exists(), "looking makes nothing");

    site.serve().await;
    site.job("nightly", serde_json::json!({})).await;
    site.stop().await;
    V2.publish(&site.feed());
    assert_eq!(site.run(&["update", "now", "orders", "--yes"]).await.0, 0);
    let store = || fs_err::read(site.path("state/afterhours.db")).unwrap();
    let before = store();
    let mut read = Vec::new();
    for look in LOOKS {
        let (code, said, talk) = site.run(&[look, &["--json"][..]].concat()).await;
        assert_eq!((code, talk.as_str()), (0, ""), "{look:?}: {said}");
        read.push(serde_json::from_str::<Value>(&said).unwrap());
    }
    assert_eq!(read[1]["outcome"], "succeeded");
    let bundle = site.path("bundle");
    let (code, said, talk) = site.run(&["run", "bundle", "1", "-o", bundle.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{said}{talk}");
    assert!(bundle.metadata().unwrap().len() > 100);
    assert_eq!(site.run(&["run", "show", "2"]).await.0, 3);
    let (code, said, _) = site.run(&["status", "--json"]).await;
    assert_eq!(code, 7, "there is no daemon");
    let status: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&status["daemon"], &status["apps"][0]["installed"]["version"]), (&Value::Null, &"2.0".into()));
    assert!(site.run(&["status"]).await.1.contains("No daemon runs"));
    assert!(before == store(), "looking writes nothing");

    // A daemon says the same.
    site.serve().await;
    for (look, read) in LOOKS.iter().zip(read) {
        let (_, said, _) = site.run(&[look, &["--json"][..]].concat()).await;
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), read, "{look:?}");
    }
}

#[tokio::test]
async fn without_a_daemon_only_who_may_read_the_store_sees_what_happened() {
    let site = Site::with(ALONE).await;
    V2.publish(&site.feed());
    assert_eq!(site.run(&["update", "now", "orders", "--yes"]).await.0, 0);
    let open = |name: &str| {
        fs_err::set_permissions(site.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let as_nobody = async || {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let program = site.command(&["run", "list", "--json"]);
        let mut command = tokio::process::Command::new("setpriv");
        command.args(nobody).arg(program.as_std().get_program()).args(program.as_std().get_args());
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    open("");
    let (code, said) = as_nobody().await;
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("may not be read by this user") && said.contains("use sudo"), "{said}");
    open("state");
    // Beside somebody who has it open, and when it rests: then there is no log of writes, and nobody can make one.
    let store = Store::open(&site.path("state/afterhours.db")).unwrap();
    let (code, said) = as_nobody().await;
    assert_eq!(code, Some(0), "{said}");
    drop(store);
    let log = site.path("state/afterhours.db-wal");
    eventually("the store is closed", async || !log.exists()).await;
    let (code, said) = as_nobody().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("succeeded"), "{said}");
    // A log that was left by a crash can only be taken in by who may write.
    fs_err::write(&log, "left").unwrap();
    let (code, said) = as_nobody().await;
    assert_eq!(code, Some(8), "{said}");
}

#[tokio::test]
async fn a_bad_release_without_a_daemon_exits_with_5() {
    let mut site = Site::with(ALONE).await;
    SICK.publish(&site.feed());
    let (code, said, talk) = site.run(&["update", "now", "orders", "--yes"]).await;
    assert_eq!(code, 5, "{said}{talk}");
    site.desk_answers("1.0").await;
    site.reports(1).await;
    site.serve().await;
    let run = site.client().show_run(RunId(1)).await.unwrap();
    assert_eq!(site.must_be_whole(&run, &[SICK], &["first", "second"]).await, Left::Old);
}

#[tokio::test]
async fn update_now_is_refused_while_the_daemon_has_a_run() {
    let mut site = Site::new().await;
    super::releases::Edition { migrate: Some(&["sleep", "1"]), schema: 1, ..V2 }.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let begun = |event: &RunEvent| matches!(event, RunEvent::StepStarted { at, .. } if at.step == Step::MigrateData);
    assert!(site.see(run, begun).await);
    let (code, said, talk) = site.run(&["update", "now", "orders", "--yes"]).await;
    assert_eq!(code, 4, "{said}{talk}");
    assert!(talk.contains("run 1"), "{talk}");
    site.settled(run).await;
    site.desk_answers("2.0").await;
}

#[tokio::test]
async fn update_now_that_was_killed_is_finished_by_the_daemon() {
    let mut site = Site::with(ALONE).await;
    V2.publish(&site.feed());
    V3.publish(&site.feed());
    let mut alone = site.command(&["update", "now", "orders", "--yes"]).spawn().unwrap();
    let swapped = || site.read("opt/orders/version") == "2.0";
    eventually("it is in the middle", async || swapped()).await;
    alone.kill().await.unwrap();
    site.serve().await;
    let run = site.settled(RunId(1)).await;
    site.must_be_whole(&run, &[V2, V3], &["first", "second"]).await;
    assert!(site.client().show_gate(&app()).await.unwrap().admits);
    site.reports(1).await;
}

#[tokio::test]
async fn update_now_that_was_killed_is_finished_by_the_next_one() {
    let mut site = Site::with(ALONE).await;
    V2.publish(&site.feed());
    let mut alone = site.command(&["update", "now", "orders", "--yes"]).spawn().unwrap();
    eventually("it is in the middle", async || site.read("opt/orders/version") == "2.0").await;
    alone.kill().await.unwrap();
    let (code, said, talk) = site.run(&["update", "now", "orders", "--yes"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    site.serve().await;
    let run = site.settled(RunId(1)).await;
    site.must_be_whole(&run, &[V2], &["first", "second"]).await;
}

#[tokio::test]
async fn update_now_without_a_daemon_keeps_its_gate_closed() {
    let anna = "[{ list = [\"echo\", \"[{\\\"id\\\": 1, \\\"user\\\": \\\"anna\\\"}]\"] }]";
    let settings = [ALONE, &[("sessions", anna), ("grace", "\"3m\"")]].concat();
    let site = Site::with(&settings).await;
    V2.publish(&site.feed());
    let mut alone = site.command(&["update", "now", "orders", "--yes"]).stdout(Stdio::null()).spawn().unwrap();
    let file = site.path("state/afterhours.db");
    eventually("there is a store", async || file.exists()).await;
    let store = Store::open(&file).unwrap();
    let lease = async || match store.gate(&app()).await.unwrap().position {
        Position::Closed { lease_until, .. } => lease_until,
        Position::Open => None,
    };
    eventually("the gate is closed", async || lease().await.is_some()).await;
    let first = lease().await;
    eventually("the lease is renewed", async || lease().await > first).await;
    assert!(alone.try_wait().unwrap().is_none(), "people still have time");
    alone.kill().await.unwrap();
}
