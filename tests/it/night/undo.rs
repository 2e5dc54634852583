//! The way back that stumbles: data that cannot be written for a while, a full disk, what a command left running, and a
//! stuck run that is tried again.

use std::path::Path;

use afterhours::domain::event::RunEvent;
use afterhours::domain::gate::Position;
use afterhours::domain::run::Outcome;
use afterhours::domain::run::RunId;
use afterhours::domain::step::Step;
use afterhours::wire::run::RunStateName;
use rstest::rstest;
use serde_json::Value;

use super::people::stuck;
use super::releases::Edition;
use super::releases::SICK;
use super::releases::V2;
use super::site::Site;
use super::site::app;
use super::site::eventually;
use super::truth::Left;
use crate::install::mounted::Mounted;
use crate::install::mounted::run;

/// The old tree waits where the new one was staged; it will not start.
const OLD_DIES: &str = "touch DIR/opt/.orders.afterhours/staged/2.0+2/dies";
const QUICK: (&str, &str) =
    ("health", "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"2s\" }");

/// A site whose data are on a disk of their own, of so many KiB.
async fn with_data_on_a_disk(kib: u32, settings: &[(&str, &str)]) -> (Site, Mounted) {
    let disk = Mounted::tmpfs(kib);
    let site = Site::with(settings).await;
    run("coreutils", "mv", &[site.path("data").to_str().unwrap(), disk.at().to_str().unwrap()]);
    std::os::unix::fs::symlink(disk.at().join("data"), site.path("data")).unwrap();
    let paths = format!("{{ paths = [\"{}/data\"] }}", disk.at().display());
    let mut moved = settings.to_vec();
    moved.push(("data", &paths));
    site.configure(&moved);
    (site, disk)
}

fn remount(disk: &Path, how: &str) {
    run("mount", "mount", &["-o", &format!("remount,{how}"), disk.to_str().unwrap()]);
}

#[tokio::test]
async fn data_that_are_read_only_for_a_while_are_put_back() {
    let (site, disk) = with_data_on_a_disk(16 << 10, &[QUICK]).await;
    let hook = format!("{{ after_start = [\"mount\", \"-o\", \"remount,ro\", \"{}\"] }}", disk.at().display());
    let paths = format!("{{ paths = [\"{}/data\"] }}", disk.at().display());
    site.configure(&[QUICK, ("hooks", &hook), ("data", &paths)]);
    let mut site = site;
    SICK.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let tried_twice = |event: &RunEvent| matches!(event, RunEvent::UndoFailed { at, attempt: 2, again_at: Some(_), .. } if at.step == Step::MigrateData);
    assert!(site.see(run, tried_twice).await);
    let view = site.client().show_run(run).await.unwrap();
    assert_eq!(view.state, RunStateName::Unwinding);
    assert!(view.waiting_until.is_some() && view.at.unwrap().step == Step::MigrateData, "{view:#?}");
    remount(&disk.at(), "rw");
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    assert_eq!(site.must_be_whole(&run, &[SICK], &["first", "second"]).await, Left::Old);
    site.reports(1).await;
    assert_eq!(site.run(&["run", "watch", &run.id.to_string()]).await.0, 5);
}

#[tokio::test]
async fn a_migration_that_fills_the_disk_of_the_store_is_put_back() {
    let (site, disk) = with_data_on_a_disk(24 << 10, &[]).await;
    let (inside, state) = (site.path("state"), disk.at().join("state"));
    site.reconfigure(inside.to_str().unwrap(), state.to_str().unwrap());
    let mut site = site;
    // It fills what is left to the last byte, and goes on doing so for a moment.
    const FILLS: &str = "cat /dev/zero > $NIGHT_SITE/data/fill; for i in 1 2 3 4 5 6 7 8 9; do echo x >> $NIGHT_SITE/data/$i; done; exit 1";
    let fills = Edition { migrate: Some(&["sh", "-c", FILLS]), ..V2 };
    fills.publish(&site.feed());
    site.open().await;
    let reserve = state.join("afterhours.db.reserve");
    assert_eq!(fs_err::metadata(&reserve).unwrap().len(), 4 << 20);
    let run = site.update().await;
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    assert_eq!(site.must_be_whole(&run, &[fills], &["first", "second"]).await, Left::Old);
    site.reports(1).await;
    assert!(site.read("log").contains("gives up the room"), "it was needed");
    assert_eq!(fs_err::metadata(&reserve).unwrap().len(), 4 << 20, "it is made again");
}

/// Leaves a process behind that has left the group and goes on writing.
const ESCAPES: &str = "setsid sh -c 'echo $$ > $NIGHT_SITE/escaped; \
                       while :; do echo x >> $NIGHT_SITE/data/more; sleep 0.01; done' </dev/null >/dev/null 2>&1 & \
                       while [ ! -s $NIGHT_SITE/data/more ]; do sleep 0.01; done; ";

#[rstest]
#[case::it_fails("exit 1", Left::Old)]
#[case::it_hangs("sleep 1000", Left::Old)]
#[case::it_succeeds("exec python3 -I -S migrate.py 1 2", Left::New)]
#[tokio::test]
async fn what_a_migration_leaves_running_does_not_go_on_writing(#[case] ends: &str, #[case] left: Left) {
    let mut site = Site::with(&[("hooks", "{ deadline = \"3s\" }")]).await;
    let script: &'static str = Box::leak(format!("{ESCAPES}{ends}").into_boxed_str());
    let argv: &'static [&'static str] = Box::leak(Box::new(["sh", "-c", script]));
    let escapes = Edition { migrate: Some(argv), ..V2 };
    escapes.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let run = site.settled(run).await;
    assert_eq!(site.must_be_whole(&run, &[escapes], &["first", "second"]).await, left);
    let escaped = site.read("escaped");
    // Who has ended and is not taken note of yet has no command line any more.
    let command = fs_err::read(Path::new("/proc").join(&escaped).join("cmdline")).unwrap_or_default();
    assert!(!escaped.is_empty() && command.is_empty(), "{}", site.read("log"));
    let migrate = run.steps.iter().find(|step| step.step == Step::MigrateData).unwrap();
    match left {
        Left::Old => assert!(!site.path("data/more").exists()),
        Left::New => assert!(migrate.message.as_ref().unwrap().contains("left processes running"), "{migrate:#?}"),
    }
}

#[tokio::test]
async fn a_stuck_run_is_tried_again_when_the_cause_is_removed() {
    let mut site = stuck(OLD_DIES).await;
    let view = site.client().show_run(RunId(1)).await.unwrap();
    assert!(view.away_since.is_some() && view.downtime_ms.is_none(), "{view:#?}");
    assert!(view.cause.unwrap().hint.unwrap().contains("`afterhours run retry 1`"));
    let gate = site.client().show_gate(&app()).await.unwrap().gate;
    let Position::Closed { message, until, .. } = gate.position else { panic!("{gate:#?}") };
    assert!(message.contains("ask your administrator") && until.is_none(), "{message} {until:?}");
    let mail = site.mail.taken()[0].content.clone();
    assert!(mail.contains("afterhours run retry 1") && !mail.contains("not at all"), "{mail}");
    assert_eq!(mail.matches("since 20").count(), 2, "since when it is away, and the gate closed: {mail}");
    assert_eq!(site.run(&["run", "retry", "7"]).await.0, 3);
    // The cause is still there: it is stuck again, and says so. Without a daemon, too.
    site.stop().await;
    assert_eq!(site.run(&["run", "retry", "7"]).await.0, 3);
    let (code, said, talk) = site.run(&["run", "retry", "1", "--json"]).await;
    assert_eq!(code, 6, "{said}{talk}");
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["state"], "stuck");
    site.serve().await;
    site.reports(2).await;
    fs_err::remove_file(site.path("opt/orders/dies")).unwrap();
    let (code, said, talk) = site.run(&["run", "retry", "1", "--wait"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    assert!(said.contains("was rolled back"), "{said}");
    let run = site.settled(RunId(1)).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    assert_eq!(site.must_be_whole(&run, &[SICK], &["first", "second"]).await, Left::Old);
    assert!(run.downtime_ms.is_some() && run.away_since.is_none(), "{run:#?}");
    site.reports(3).await;
    assert!(!site.mail.taken()[2].content.contains("not at all"));
    assert_eq!(site.run(&["run", "retry", "1"]).await.0, 4);
    let (_, audit, _) = site.run(&["audit", "export"]).await;
    assert!(audit.matches("run.retry").count() >= 2, "{audit}");
}

#[tokio::test]
async fn the_gate_is_not_opened_onto_a_dead_application() {
    let site = stuck(OLD_DIES).await;
    let (code, _, said) = site.run(&["run", "resolve", "1", "--as", "old"]).await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("does not answer its health check") && said.contains("--yes"), "{said}");
    let (code, _, said) = site.run(&["run", "resolve", "1", "--as", "old", "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("does not answer its health check"), "{said}");
    let run = site.settled(RunId(1)).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    assert!(run.downtime_ms.is_some(), "{run:#?}");
    let close_gate = run.steps.iter().find(|step| step.step == Step::CloseGate).unwrap();
    assert!(close_gate.message.as_ref().unwrap().contains("STAYS CLOSED"), "{close_gate:#?}");
    assert!(!site.client().show_gate(&app()).await.unwrap().admits);
    site.reports(2).await;
    let mail = site.mail.taken()[1].content.clone();
    assert!(mail.contains("CANNOT log in yet") && mail.contains("afterhours gate open orders"), "{mail}");
    // By another flag it is; and by hand.
    let (code, _, said) = site.run(&["gate", "open", "orders"]).await;
    assert_eq!(code, 0, "{said}");
    eventually("the gate is open", async || site.client().show_gate(&app()).await.unwrap().admits).await;
}

#[tokio::test]
async fn whoever_wants_it_opens_the_gate_onto_what_does_not_answer() {
    let mut site = stuck(OLD_DIES).await;
    site.stop().await;
    let (code, said, talk) = site.run(&["run", "resolve", "1", "--as", "old", "--yes", "--open-gate"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    site.serve().await;
    assert!(site.client().show_gate(&app()).await.unwrap().admits);
}
