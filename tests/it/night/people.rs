//! People who change their mind, and people who are asked: cancel, the longest runtime, `run resolve`.

use std::process::Stdio;

use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::event::RunEvent;
use afterhours::domain::run::Outcome;
use afterhours::domain::run::RunId;
use afterhours::domain::step::Step;
use afterhours::wire::run::RunStateName;
use chrono::TimeDelta;
use rstest::rstest;
use serde_json::json;

use super::releases::Edition;
use super::releases::SICK;
use super::releases::V2;
use super::site::Site;
use super::site::app;
use super::site::eventually;
use super::truth::Left;

fn begun(step: Step) -> impl FnMut(&RunEvent) -> bool {
    move |event| matches!(event, RunEvent::StepStarted { at, .. } if at.step == step)
}

async fn logged_in(site: &Site, count: usize) {
    let sessions = async || site.client().list_sessions(&app()).await.unwrap();
    let known = async || serde_json::to_value(sessions().await).unwrap()["sessions"].as_array().map(Vec::len);
    eventually("the workstation is known", async || known().await == Some(count)).await;
}

#[tokio::test]
async fn cancelled_in_the_grace_nobody_is_logged_out() {
    let settings = [("sessions", "[{ workstations = true }]"), ("grace", "\"1m\"")];
    let mut site = Site::with(&settings).await;
    V2.publish(&site.feed());
    site.open().await;
    let mut client = site.command(&["client", "run", "--app", "orders"]);
    // What follows `--` is the program's.
    client.args(["--", "sleep", "1000"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = client.spawn().unwrap();
    logged_in(&site, 1).await;
    let run = site.update().await;
    assert!(site.see(run, begun(Step::Grace)).await);
    let (code, _, said) = site.run(&["run", "cancel", &run.to_string()]).await;
    assert_eq!(code, 0, "{said}");
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::Cancelled), "{run:#?}");
    site.must_be_whole(&run, &[V2], &["first", "second"]).await;
    logged_in(&site, 1).await;
    assert!(client.try_wait().unwrap().is_none(), "the program still runs");
    site.reports(1).await;
    assert_eq!(site.run(&["run", "cancel", &run.id.to_string()]).await.0, 4, "it is over");
}

#[tokio::test]
async fn cancelled_after_the_stop_everything_goes_back() {
    let slow = Edition { migrate: Some(&["sleep", "1"]), ..V2 };
    let mut site = Site::new().await;
    slow.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    assert!(site.see(run, begun(Step::MigrateData)).await);
    assert_eq!(site.run(&["run", "cancel", &run.to_string()]).await.0, 0);
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    assert!(run.cause.as_ref().unwrap().message.contains("cancelled by"));
    assert_eq!(site.must_be_whole(&run, &[slow], &["first", "second"]).await, Left::Old);
    site.reports(1).await;
    assert_eq!(site.run(&["run", "watch", &run.id.to_string()]).await.0, 5);
}

#[tokio::test]
async fn cancelled_while_it_goes_back_it_says_so_and_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let go_on = dir.path().join("go-on");
    // The way back hangs at the gate until the test lets it go on.
    let open = format!("while [ ! -e {} ]; do sleep 0.05; done", go_on.display());
    let gate = format!("[{{ close = [\"true\"], open = [\"sh\", \"-c\", \"{open}\"], deadline = \"5m\" }}]");
    let mut site = Site::with(&[("gate", &gate)]).await;
    SICK.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let at_the_gate =
        |event: &RunEvent| matches!(event, RunEvent::UndoStarted { at, .. } if at.step == Step::CloseGate);
    assert!(site.see(run, at_the_gate).await);
    let (code, _, said) = site.run(&["run", "cancel", &run.to_string()]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("Run {run} is going back; watch it with `afterhours run watch {run}`.")), "{said}");
    assert_eq!(site.client().show_run(run).await.unwrap().state, RunStateName::Unwinding);
    fs_err::write(&go_on, "").unwrap();
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    site.must_be_whole(&run, &[SICK], &["first", "second"]).await;
}

#[rstest]
#[case::before_the_stop(
    Some("[{ list = [\"echo\", \"[{\\\"id\\\": \\\"1\\\", \\\"user\\\": \\\"anna\\\"}]\"] }]"),
    V2,
    Outcome::Failed
)]
#[case::after_the_stop(None, Edition { migrate: Some(&["sleep", "3"]), ..V2 }, Outcome::RolledBack)]
#[tokio::test]
async fn an_overlong_run_is_unwound(
    #[case] sessions: Option<&str>,
    #[case] edition: Edition,
    #[case] outcome: Outcome,
) {
    let sessions = sessions.unwrap_or("[]");
    let mut site = Site::with(&[("sessions", sessions), ("grace", "\"1s\""), ("polite_end", "\"20s\"")]).await;
    edition.publish(&site.feed());
    site.open().await;
    site.job("nightly", json!({"max_runtime": "2s"})).await;
    let run = site.client().run_job(&"nightly".parse().unwrap(), &Default::default()).await.unwrap().id;
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(outcome), "{run:#?}");
    assert_eq!(run.cause.as_ref().unwrap().message, "took longer than 2s");
    assert_eq!(site.must_be_whole(&run, &[edition], &["first", "second"]).await, Left::Old);
    site.reports(1).await;
}

/// A run that is stuck: the new version is sick, and what is needed to go back is gone.
pub(super) async fn stuck(after_start: &str) -> Site {
    let quick = ("health", "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"2s\" }");
    let hooks = format!("{{ after_start = [\"sh\", \"-c\", \"{after_start}\"] }}");
    let mut site = Site::with(&[quick, ("hooks", &hooks)]).await;
    SICK.publish(&site.feed());
    site.open().await;
    let (code, said, talk) = site.run(&["update", "now", "orders", "--yes"]).await;
    assert_eq!(code, 6, "{said}{talk}");
    let run = site.client().show_run(RunId(1)).await.unwrap();
    assert_eq!(run.state, RunStateName::Stuck);
    assert!(run.cause.unwrap().hint.unwrap().contains("run resolve"));
    assert!(!site.client().show_gate(&app()).await.unwrap().admits, "nobody logs in to half an application");
    site.reports(1).await;
    assert!(site.mail.taken()[0].content.contains("afterhours run resolve 1 --as old"));
    // A crash before that is noted would send it again.
    let sent = async || site.client().status().await.unwrap().mail.is_empty();
    eventually("the report is noted as sent", sent).await;
    // It is still stuck after a crash, and nothing is done beside it.
    site.restart().await;
    assert_eq!(site.client().show_run(RunId(1)).await.unwrap().state, RunStateName::Stuck);
    assert_eq!(site.run(&["run", "watch", "1"]).await.0, 6);
    let (code, _, said) = site.run(&["update", "now", "orders", "--yes"]).await;
    assert_eq!(code, 4, "{said}");
    site
}

#[tokio::test]
async fn a_stuck_run_is_resolved_as_the_old_version() {
    // The old tree waits where the new one was staged; it will not start.
    let site = stuck("touch DIR/opt/.orders.afterhours/staged/2.0+2/dies").await;
    assert_eq!(site.read("opt/orders/version"), "1.0");
    fs_err::remove_file(site.path("opt/orders/dies")).unwrap();
    let (code, _, said) = site.run(&["run", "resolve", "1", "--as", "old", "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    let run = site.settled(RunId(1)).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    assert_eq!(site.must_be_whole(&run, &[SICK], &["first", "second"]).await, Left::Old);
    site.reports(2).await;
    assert_eq!(site.run(&["run", "resolve", "1", "--as", "old", "--yes"]).await.0, 4);
}

#[tokio::test]
async fn a_stuck_run_is_resolved_without_a_daemon() {
    let mut site = stuck("touch DIR/opt/.orders.afterhours/staged/2.0+2/dies").await;
    site.stop().await;
    let missing = site.run(&["run", "resolve", "7", "--as", "old", "--yes"]).await;
    assert_eq!(missing.0, 3, "{missing:?}");
    fs_err::remove_file(site.path("opt/orders/dies")).unwrap();
    let (code, said, talk) = site.run(&["run", "resolve", "1", "--as", "old", "--yes", "--json"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    let run: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(run["outcome"], "rolled_back");
    assert_eq!(site.run(&["run", "resolve", "1", "--as", "old", "--yes"]).await.0, 4);
    site.open().await;
    let run = site.client().show_run(RunId(1)).await.unwrap();
    assert_eq!(site.must_be_whole(&run, &[SICK], &["first", "second"]).await, Left::Old);
    assert!(site.client().show_gate(&app()).await.unwrap().admits);
}

#[tokio::test]
async fn a_stuck_run_is_resolved_as_the_new_version() {
    let site = stuck("rm -r DIR/.data.afterhours-snapshot").await;
    assert_eq!(site.read("opt/orders/version"), "2.0");
    fs_err::remove_file(site.path("opt/orders/sick")).unwrap();
    let (code, _, said) = site.run(&["run", "resolve", "1", "--as", "new", "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    let run = site.settled(RunId(1)).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
    assert_eq!(site.must_be_whole(&run, &[SICK], &["first", "second"]).await, Left::New);
    site.reports(2).await;
}

#[rstest]
#[case::the_new_one_is_there("rm -r DIR/.data.afterhours-snapshot", "2.0", "old", "new")]
#[case::the_old_one_is_there("touch DIR/opt/.orders.afterhours/staged/2.0+2/dies", "1.0", "new", "old")]
#[tokio::test]
async fn a_stuck_run_is_not_resolved_against_what_is_there(
    #[case] after_start: &str,
    #[case] there: &str,
    #[case] wrong: &str,
    #[case] right: &str,
) {
    let site = stuck(after_start).await;
    assert_eq!(site.read("opt/orders/version"), there);
    let before = site.client().show_run(RunId(1)).await.unwrap();
    let (code, _, said) = site.run(&["run", "resolve", "1", "--as", wrong, "--yes"]).await;
    assert_eq!(code, 4, "{said}");
    let place = site.installed().display().to_string();
    assert!(said.contains("cannot be resolved so") && said.contains(&place), "{said}");
    assert!(said.contains("put the version you mean"), "{said}");
    assert_eq!(site.client().show_run(RunId(1)).await.unwrap(), before, "nothing has changed");
    assert!(!site.client().show_gate(&app()).await.unwrap().admits);
    // What is wrong with either is mended by hand.
    for flaw in ["sick", "dies"] {
        let _ = fs_err::remove_file(site.path("opt/orders").join(flaw));
    }
    let (code, _, said) = site.run(&["run", "resolve", "1", "--as", right, "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    let run = site.settled(RunId(1)).await;
    assert_eq!(run.state, RunStateName::Finished, "{run:#?}");
    site.desk_answers(there).await;
}

#[tokio::test]
async fn only_a_stuck_run_that_exists_is_resolved() {
    let mut site = Site::new().await;
    V2.publish(&site.feed());
    site.open().await;
    let (code, _, said) = site.run(&["run", "resolve", "9", "--as", "old", "--yes"]).await;
    assert_eq!(code, 3, "{said}");
    let run = site.update().await;
    assert_eq!(site.settled(run).await.outcome, Some(Outcome::Succeeded));
    let (code, _, said) = site.run(&["run", "resolve", "1", "--as", "new", "--yes"]).await;
    assert_eq!(code, 4, "{said}");
    site.desk_answers("2.0").await;
}

/// One session, as long as there is a file `anna`; `end` notes whether force was used.
fn anna(list: &str, end: &str) -> String {
    let anna = "[{\\\"id\\\": 1, \\\"user\\\": \\\"anna\\\"}]";
    let list = format!("{list}; if test -e DIR/anna; then echo '{anna}'; else echo '[]'; fi");
    let end = format!("echo $AFTERHOURS_FORCE >> DIR/asked; {end}");
    format!("[{{ list = [\"sh\", \"-c\", \"{list}\"], end = [\"sh\", \"-c\", \"{end}\"] }}]")
}

#[tokio::test]
async fn who_does_not_go_politely_goes_by_force() {
    let sessions = anna("true", "test $AFTERHOURS_FORCE = 1 && rm DIR/anna; true");
    let mut site = Site::with(&[("sessions", &sessions), ("grace", "\"1s\""), ("polite_end", "\"2s\"")]).await;
    fs_err::write(site.path("anna"), "").unwrap();
    V2.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
    assert_eq!(site.read("asked"), "0\n1");
    let log_out = run.steps.iter().find(|step| step.step == Step::LogOut).unwrap();
    assert!(log_out.finished_at.unwrap() - log_out.started_at.unwrap() >= TimeDelta::seconds(2), "{log_out:#?}");
}

#[tokio::test]
async fn patience_counts_from_the_first_request() {
    // From the log-out on it is not known who is there, for longer than a request may take.
    let sessions = anna("test -e DIR/unknown && exit 1", "rm DIR/anna");
    let settings =
        [("sessions", sessions.as_str()), ("grace", "\"1s\""), ("polite_end", "\"2s\""), ("census_wait", "\"40s\"")];
    let mut site = Site::with(&settings).await;
    fs_err::write(site.path("anna"), "").unwrap();
    V2.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    assert!(site.see(run, begun(Step::Grace)).await);
    fs_err::write(site.path("unknown"), "").unwrap();
    assert!(site.see(run, begun(Step::LogOut)).await);
    let known_at = SystemClock.now() + TimeDelta::seconds(3);
    eventually("a request would be overdue", async || SystemClock.now() > known_at).await;
    assert_eq!(site.read("asked"), "", "nobody is asked while it is not known who is there");
    fs_err::remove_file(site.path("unknown")).unwrap();
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
    assert_eq!(site.read("asked"), "0", "politely");
}

#[tokio::test]
async fn nobody_is_thrown_out_when_it_is_not_known_who_is_there() {
    let sessions = anna("test -e DIR/unknown && exit 1", "rm DIR/anna");
    let settings = [("sessions", sessions.as_str()), ("grace", "\"1s\""), ("census_wait", "\"2s\"")];
    let mut site = Site::with(&settings).await;
    fs_err::write(site.path("anna"), "").unwrap();
    V2.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    assert!(site.see(run, begun(Step::Grace)).await);
    fs_err::write(site.path("unknown"), "").unwrap();
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::Failed), "{run:#?}");
    assert!(run.cause.as_ref().unwrap().hint.as_ref().unwrap().contains("session list"), "{run:#?}");
    let log_out = run.steps.iter().find(|step| step.step == Step::LogOut).unwrap();
    assert!(log_out.finished_at.unwrap() - log_out.started_at.unwrap() >= TimeDelta::seconds(2), "{log_out:#?}");
    assert_eq!(site.read("asked"), "");
    assert_eq!(site.must_be_whole(&run, &[V2], &["first", "second"]).await, Left::Old);
    assert_eq!(site.read("data/starts"), "1.0", "nobody was disturbed");
    site.reports(1).await;
}
