//! `kill -9` of the daemon: at every step, at every undo, and at random instants.
//!
//! Whatever it hits, the next daemon ends the run with the old or the new version upon its own data, with the gate
//! open, and with one report.

use std::io::Write;

use afterhours::domain::event::RunEvent;
use afterhours::domain::run::Outcome;
use afterhours::domain::step::At;
use afterhours::domain::step::Step;
use afterhours::domain::step::TABLE;
use afterhours::domain::step::Undo;
use rstest::rstest;

use super::chance::Night;
use super::releases::SICK;
use super::releases::V2;
use super::releases::V3;
use super::site::Site;
use super::truth::Left;

/// A little patience for the release that never becomes healthy.
const SOON_GIVEN_UP: (&str, &str) =
    ("health", "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"3s\" }");

fn is_start(event: &RunEvent, wanted: At) -> bool {
    matches!(event, RunEvent::StepStarted { at, .. } if *at == wanted)
}

fn is_end(event: &RunEvent, wanted: At) -> bool {
    matches!(event, RunEvent::StepSucceeded { at, .. } if *at == wanted)
}

/// Twice in one run: when the step is begun, and, after the next daemon has done it again, when it is done.
async fn killed_in_and_after(at: At, editions: &[super::releases::Edition]) {
    let mut site = Site::new().await;
    editions.iter().for_each(|edition| edition.publish(&site.feed()));
    site.open().await;
    let run = site.update().await;
    assert!(site.see(run, |event| is_start(event, at)).await, "{at} is begun");
    site.restart().await;
    // Unless it was done already when the first kill came.
    assert!(site.see(run, |event| is_end(event, at)).await, "{at} is done");
    site.restart().await;
    let run = site.settled(run).await;
    let left = site.must_be_whole(&run, editions, &["first", "second"]).await;
    // Only a migration upon a migration cannot be taken back alone: when a kill came late enough to hit that,
    // everything is put back.
    if run.outcome != Some(Outcome::Succeeded) {
        let cause = &run.cause.as_ref().unwrap().message;
        assert!(cause.contains("migrate_data[2] was interrupted"), "{cause}\n{}", site.read("log"));
    }
    assert_eq!(left == Left::New, run.outcome == Some(Outcome::Succeeded));
    site.stop().await;
    // One that was handed over just before the kill may have come again, as the same mail.
    site.reports(1).await;
}

#[rstest]
#[tokio::test]
async fn killed_in_and_after_each_step(
    #[values(
        Step::Preflight,
        Step::SelfUpdate,
        Step::Select,
        Step::Download,
        Step::Backup,
        Step::SnapshotAhead,
        Step::CloseGate,
        Step::Announce,
        Step::Grace,
        Step::LogOut,
        Step::Stop,
        Step::Snapshot,
        Step::Swap,
        Step::MigrateData,
        Step::Start,
        Step::CheckHealth,
        Step::OpenGate,
        Step::Report,
        Step::CleanUp
    )]
    step: Step,
) {
    killed_in_and_after(At::first(step), &[V2]).await;
}

#[rstest]
#[tokio::test]
async fn killed_in_and_after_each_step_of_a_second_build(
    #[values(Step::Stop, Step::Swap, Step::Start, Step::CheckHealth)] step: Step,
) {
    killed_in_and_after(At { step, build: 1 }, &[V2, V3]).await;
}

#[test]
fn every_step_is_in_the_list_above() {
    assert_eq!(TABLE.len(), 19);
}

#[tokio::test]
async fn killed_in_the_second_migration_everything_goes_back() {
    let mut site = Site::new().await;
    V2.publish(&site.feed());
    V3.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let at = At { step: Step::MigrateData, build: 1 };
    assert!(site.see(run, |event| is_start(event, at)).await);
    site.restart().await;
    let run = site.settled(run).await;
    site.must_be_whole(&run, &[V2, V3], &["first", "second"]).await;
    site.reports(1).await;
    let held = site.run(&["update", "allow", "--list", "--app", "orders", "--json"]).await.1;
    assert_eq!(held.trim(), "[]", "a kill is nobody's fault");
}

#[tokio::test]
async fn after_a_crash_in_the_health_check_the_new_version_is_started_again() {
    let mut site = Site::new().await;
    V2.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    assert!(site.see(run, |event| is_start(event, At::first(Step::CheckHealth))).await);
    // As a power cut does: the daemon and the application are gone, and a hold keeps everybody else from starting it.
    site.kill().await;
    let pid = rustix::process::Pid::from_raw(site.read("pid").parse().unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    site.serve().await;
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
    assert_eq!(site.must_be_whole(&run, &[V2], &["first", "second"]).await, Left::New);
}

#[rstest]
#[tokio::test]
async fn killed_at_each_undo(
    #[values(Step::Start, Step::MigrateData, Step::Swap, Step::Stop, Step::Announce, Step::CloseGate)] step: Step,
) {
    assert_ne!(step.row().undo, Undo::Nothing);
    let mut site = Site::with(&[SOON_GIVEN_UP]).await;
    SICK.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let begun = |event: &RunEvent| matches!(event, RunEvent::UndoStarted { at, .. } if at.step == step);
    assert!(site.see(run, begun).await, "{step} is being undone");
    site.restart().await;
    let done = |event: &RunEvent| matches!(event, RunEvent::UndoSucceeded { at, .. } if at.step == step);
    assert!(site.see(run, done).await, "{step} is undone");
    site.restart().await;
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    assert_eq!(site.must_be_whole(&run, &[SICK], &["first", "second"]).await, Left::Old);
    site.stop().await;
    // One that was handed over just before the kill may have come again, as the same mail.
    site.reports(1).await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests may want more of them, or one again")]
async fn killed_at_random_instants() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let nights = number("AFTERHOURS_NIGHTS").unwrap_or(3);
    let first = number("AFTERHOURS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    for seed in first..first + nights {
        let night = Night::roll(seed);
        let again = format!("again: AFTERHOURS_NIGHTS=1 AFTERHOURS_SEED={seed}: {night:?}");
        writeln!(std::io::stderr(), "{again}").unwrap();
        let found = night.pass().await;
        assert!(found.left.is_some() && found.gate_open, "{found:?}; {again}");
        // One that was handed over just before a kill may come again, as the same mail.
        assert!(found.reports == 1 && found.mails >= 1, "{found:?}; {again}");
    }
}
