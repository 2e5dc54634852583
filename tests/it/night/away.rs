//! While the application is away: nobody gets in, and a store that can take nothing is waited for.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::Duration;

use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::run::Outcome;
use afterhours::wire::people::CloseGate;
use afterhours::wire::run::RunStateName;
use chrono::TimeDelta;
use rstest::rstest;

use super::releases::Edition;
use super::releases::V2;
use super::site::PATIENCE;
use super::site::Site;
use super::site::app;
use super::site::eventually;
use super::truth::Left;
use crate::install::mounted::Mounted;

/// A migration that goes on when the test says so: when there is a file `go`.
pub(super) const WAITS: Edition = Edition {
    migrate: Some(&[
        "sh",
        "-c",
        "touch $NIGHT_SITE/migrating; until test -e $NIGHT_SITE/go; do sleep 0.05; done; exec python3 -I -S migrate.py 1 2",
    ]),
    ..V2
};
/// The same, and then it fails.
pub(super) const WAITS_AND_FAILS: Edition = Edition {
    migrate: Some(&[
        "sh",
        "-c",
        "touch $NIGHT_SITE/migrating; until test -e $NIGHT_SITE/go; do sleep 0.05; done; echo no licence >&2; exit 1",
    ]),
    ..V2
};

/// The reconciling chore comes once a minute; then the night goes on.
const NEXT_MINUTE: Duration = Duration::from_secs(60);

impl Site {
    /// Waits until the migration of [`WAITS`] is at work.
    pub(super) async fn is_migrating(&self) {
        eventually("the migration is at work", async || self.path("migrating").exists()).await;
    }

    /// Lets the migration of [`WAITS`] go on.
    pub(super) fn go_on(&self) {
        fs_err::write(self.path("go"), "").unwrap();
    }
}

#[rstest]
#[case::and_it_ends_well(WAITS, Left::New)]
#[case::and_it_goes_back(WAITS_AND_FAILS, Left::Old)]
#[tokio::test]
async fn a_full_disk_under_the_store_is_waited_out(#[case] edition: Edition, #[case] left: Left) {
    let disk = Mounted::tmpfs(8 * 1024);
    let mut site = Site::new().await;
    symlink(disk.at(), site.path("state")).unwrap();
    edition.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    site.is_migrating().await;
    // What the store has kept for this day is gone, too.
    fs_err::remove_file(disk.at().join("afterhours.db.reserve")).unwrap();
    let filler = disk.at().join("filler");
    let mut file = fs_err::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    site.go_on();
    // What fails goes back at once, as far as it can without room, and is written down later.
    let waits = if left == Left::New { "the log waits" } else { "step_failed is written later" };
    eventually("the log waits for room", async || site.read("log").contains(waits)).await;
    // The daemon is there, says where the run stands, and lets nobody in.
    let view = site.client().show_run(run).await.unwrap();
    assert_eq!(view.state, RunStateName::Running, "{view:#?}");
    assert!(!site.client().show_gate(&app()).await.unwrap().admits);
    assert!(site.path("opt/.orders.afterhours/hold").exists());
    fs_err::remove_file(&filler).unwrap();
    let view = site.settled_within(run, PATIENCE + NEXT_MINUTE).await;
    assert_eq!(site.must_be_whole(&view, &[edition], &["first", "second"]).await, left);
    assert!(site.client().show_gate(&app()).await.unwrap().admits);
    site.stop().await;
    site.reports(1).await;
}

#[tokio::test]
async fn nobody_gets_in_whatever_is_done_to_the_gate() {
    let settings = [("sessions", "[{ workstations = true }]"), ("gate", "[{ file = \"DIR/closed\" }]")];
    let mut site = Site::with(&settings).await;
    WAITS.publish(&site.feed());
    site.open().await;
    let logs_in = async || site.run(&["client", "run", "--app", "orders", "--", "true"]).await;
    // One pass was given before, one is given meanwhile.
    assert_eq!(site.run(&["gate", "pass", "orders"]).await.0, 0);
    let run = site.update().await;
    site.is_migrating().await;
    assert_eq!(site.run(&["gate", "pass", "orders", "--user", "root"]).await.0, 0);
    let (code, _, said) = logs_in().await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("is being updated"), "{said}");

    let (code, _, said) = site.run(&["gate", "open", "orders"]).await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(&format!("afterhours run watch {run}")), "{said}");
    assert_eq!(logs_in().await.0, 4);

    // A time that runs out while the application is still away.
    let until = SystemClock.now() + TimeDelta::seconds(1);
    let close = CloseGate { until: Some(until), message: Some("stocktaking".to_owned()) };
    site.client().close_gate(&app(), &close).await.unwrap();
    eventually("the time runs out", async || SystemClock.now() > until).await;
    let gate = site.client().show_gate(&app()).await.unwrap();
    assert!(!gate.admits, "{gate:#?}");
    let (code, _, said) = logs_in().await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("stocktaking"), "{said}");
    assert!(site.path("closed").exists());

    site.go_on();
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[WAITS], &["first", "second"]).await, Left::New);
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    // The operator's time counts again, and it is over.
    let open = async || logs_in().await.0 == 0 && !site.path("closed").exists();
    eventually("the gate is open for everybody", open).await;
}

#[tokio::test]
async fn an_operators_time_that_runs_out_while_it_is_away_opens_nothing() {
    let mut site = Site::new().await;
    WAITS.publish(&site.feed());
    site.open().await;
    let until = SystemClock.now() + TimeDelta::seconds(8);
    site.client().close_gate(&app(), &CloseGate { until: Some(until), message: None }).await.unwrap();
    let run = site.update().await;
    site.is_migrating().await;
    eventually("the time runs out", async || SystemClock.now() > until).await;
    assert!(!site.client().show_gate(&app()).await.unwrap().admits);
    site.go_on();
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[WAITS], &["first", "second"]).await, Left::New);
}

#[tokio::test]
async fn who_slips_in_before_the_stop_is_not_thrown_out() {
    // Nobody is logged in until the gate is pinned; its driver lets the test know.
    let list = "test -e DIR/came && echo '[{\\\"id\\\": 1, \\\"user\\\": \\\"anna\\\"}]' || echo '[]'";
    let sessions = format!("[{{ list = [\"sh\", \"-c\", \"{list}\"], end = [\"touch\", \"DIR/thrown-out\"] }}]");
    // It is closed for the run, and closed again before the stop.
    let close = "test -e DIR/closed-once && touch DIR/came; touch DIR/closed-once";
    let gate = format!("[{{ close = [\"sh\", \"-c\", \"{close}; true\"], open = [\"rm\", \"-f\", \"DIR/came\"] }}]");
    let mut site = Site::with(&[("sessions", &sessions), ("gate", &gate)]).await;
    V2.publish(&site.feed());
    site.open().await;
    let view = site.update().await;
    let view = site.settled(view).await;
    assert_eq!(view.outcome, Some(Outcome::RolledBack), "{view:#?}");
    let cause = view.cause.clone().unwrap();
    assert!(cause.to_string().contains("anna"), "{cause}");
    assert!(cause.hint.is_some());
    assert!(!site.path("thrown-out").exists());
    assert_eq!(site.read("data/starts"), "1.0", "it was never stopped");
    site.must_be_whole(&view, &[V2], &["first", "second"]).await;
    site.reports(1).await;
}
