//! People at workstations: real sockets, real programs, scripted persons.

pub(crate) mod bench;
mod commands;
mod crowd;
mod links;

use afterhours::client::ui::Scene;
use afterhours::client::workstation::Outcome;
use afterhours::client::workstation::WorkstationError;
use afterhours::client::workstation::status;
use afterhours::client::workstation::statuses;
use afterhours::domain::session::Answer;
use afterhours::domain::span::Span;
use afterhours::exec::process::Life;
use afterhours::exec::process::life;
use afterhours::exec::process::start_ticks;
use afterhours::sessions::Finished;

use self::bench::Daemon;
use self::bench::Person;
use self::bench::app;
use self::bench::notice;
use self::bench::options;
use self::bench::until;

fn news() -> Finished {
    Finished { success: true, version: Some("2".parse().unwrap()), message: "Version 2 is installed.".into() }
}

fn cancelled() -> Finished {
    Finished { success: false, version: None, message: "The update of Order desk was cancelled.".into() }
}

#[tokio::test]
async fn a_program_ends_by_itself_and_its_session_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let go = dir.path().join("go");
    let script = format!("until test -e {}; do sleep 0.02; done; exit 7", go.display());
    let anna = Person::sits_down(options(&socket, &script));
    daemon.running(1).await;
    let session = daemon.sessions().remove(0);
    assert_eq!((session.user.as_str(), session.workstation.as_deref()), ("anna", Some("pc-3")));
    assert!(session.since.is_some());
    fs_err::write(&go, "").unwrap();
    assert_eq!(anna.outcome().await, Outcome::Exited { code: 7 });
    assert!(daemon.is_empty(), "given up before the client ends");
    until("the store has forgotten it", || daemon.memory.lock().unwrap().is_empty()).await;
}

#[tokio::test]
async fn ok_closes_and_ready_offers_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let anna = Person::sits_down(options(&socket, "exec sleep 100"));
    daemon.running(1).await;
    let notice = notice(300);
    daemon.hub.close(&app(), "An update is coming.", None);
    daemon.hub.announce(&app(), &notice);
    daemon.hub.announce(&app(), &notice);
    anna.sees("the warning", |scene| matches!(scene, Scene::Warned { .. })).await;
    anna.sees("the countdown", |scene| matches!(scene, Scene::Countdown { .. })).await;
    anna.says(Answer::Ok);
    anna.sees("that it waits", |scene| *scene == Scene::Waiting { restart: false }).await;
    until("she is logged out", || daemon.is_empty()).await;
    daemon.hub.open(&app());
    daemon.hub.finish(&app(), &news());
    anna.sees("ready", |scene| matches!(scene, Scene::Ready { can_start: true, success: true, .. })).await;
    assert!(daemon.is_empty(), "nothing starts by itself");
    anna.presses_start();
    daemon.running(1).await;
    anna.stop.cancel();
    assert_eq!(anna.scenes.lock().unwrap().iter().filter(|scene| matches!(scene, Scene::Warned { .. })).count(), 1);
    assert_eq!(anna.outcome().await, Outcome::Exited { code: 128 + 15 });
}

#[tokio::test]
async fn restart_afterwards_starts_it_again_whichever_comes_last() {
    for by_hand in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let daemon = Daemon::start(&socket, Vec::new());
        let anna = Person::sits_down(options(&socket, "exec sleep 100"));
        daemon.running(1).await;
        let first = daemon.pid();
        daemon.hub.close(&app(), "An update is coming.", None);
        daemon.hub.announce(&app(), &notice(300));
        anna.sees("the warning", |scene| matches!(scene, Scene::Warned { .. })).await;
        anna.says(Answer::RestartAfterwards);
        until("she is logged out", || daemon.is_empty()).await;
        // The time is put off while she waits; her answer holds.
        daemon.hub.announce(&app(), &notice(600));
        if by_hand {
            daemon.hub.finish(&app(), &news());
            assert!(daemon.is_empty(), "the gate is still closed");
            daemon.hub.open(&app());
        } else {
            daemon.hub.open(&app());
            assert!(daemon.is_empty(), "the update is not over");
            daemon.hub.finish(&app(), &news());
        }
        assert_eq!(daemon.sessions().len(), 1, "logged in from that word on");
        anna.sees("the restart", |scene| matches!(scene, Scene::Restarted { .. })).await;
        daemon.running(1).await;
        assert_ne!(daemon.pid(), first);
        assert_eq!(daemon.sessions()[0].answer, None);
        anna.stop.cancel();
        anna.outcome().await;
    }
}

#[tokio::test]
async fn not_now_puts_aside_and_a_cancelled_update_is_called_off_once() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let anna = Person::sits_down(options(&socket, "exec sleep 100"));
    daemon.running(1).await;
    let notice = notice(300);
    daemon.hub.announce(&app(), &notice);
    anna.sees("the warning", |scene| matches!(scene, Scene::Warned { .. })).await;
    anna.says(Answer::NotNow);
    until("the answer is known", || daemon.sessions()[0].answer == Some(Answer::NotNow)).await;
    until("the answer is remembered", || daemon.memory.lock().unwrap()[0].session.answer == Some(Answer::NotNow)).await;
    daemon.hub.remind(&app(), &notice, Span::secs(30));
    anna.sees("the reminder", |scene| matches!(scene, Scene::Reminded { .. })).await;
    daemon.hub.message(&app(), "Coffee is ready.", None).unwrap();
    anna.sees("the message", |scene| *scene == Scene::Message("Coffee is ready.".into())).await;
    daemon.hub.finish(&app(), &cancelled());
    let off = Scene::Ready { success: false, text: cancelled().message, can_start: false };
    anna.sees("that it is called off", |scene| *scene == off).await;
    daemon.hub.finish(&app(), &cancelled());
    assert_eq!(daemon.sessions()[0].answer, None);
    daemon.hub.message(&app(), "The end.", None).unwrap();
    anna.sees("the message", |scene| *scene == Scene::Message("The end.".into())).await;
    let times = anna.scenes.lock().unwrap().iter().filter(|scene| **scene == off).count();
    assert_eq!(times, 1, "one sentence for one end");
    anna.stop.cancel();
    anna.outcome().await;
}

#[tokio::test]
async fn who_waits_stays_through_a_second_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let anna = Person::sits_down(options(&socket, "exec sleep 100"));
    daemon.running(1).await;
    daemon.hub.announce(&app(), &notice(300));
    anna.sees("the warning", |scene| matches!(scene, Scene::Warned { .. })).await;
    anna.says(Answer::Ok);
    anna.sees("that it waits", |scene| *scene == Scene::Waiting { restart: false }).await;
    // Whatever is said of the update, the door is closed when the program is to start.
    *daemon.door.0.lock().unwrap() = Some(0);
    daemon.hub.finish(&app(), &news());
    anna.sees("ready", |scene| matches!(scene, Scene::Ready { can_start: true, .. })).await;
    anna.presses_start();
    anna.sees("the refusal", |scene| matches!(scene, Scene::Refused { .. })).await;
    anna.sees("that it waits on", |scene| *scene == Scene::Waiting { restart: true }).await;
    // Another daemon is waited for, too.
    daemon.stop().await;
    let daemon = Daemon::start(&socket, Vec::new());
    daemon.running(1).await;
    anna.stop.cancel();
    assert_eq!(anna.outcome().await, Outcome::Exited { code: 128 + 15 });
}

#[tokio::test]
async fn whoever_wanted_a_restart_gets_it_when_the_update_is_called_off() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let anna = Person::sits_down(options(&socket, "exec sleep 100"));
    daemon.running(1).await;
    daemon.hub.close(&app(), "An update is coming.", None);
    daemon.hub.announce(&app(), &notice(300));
    anna.sees("the warning", |scene| matches!(scene, Scene::Warned { .. })).await;
    anna.says(Answer::RestartAfterwards);
    until("she is logged out", || daemon.is_empty()).await;
    daemon.hub.finish(&app(), &cancelled());
    daemon.hub.open(&app());
    daemon.running(1).await;
    anna.stop.cancel();
    anna.outcome().await;
}

#[tokio::test]
async fn a_session_is_ended_politely_then_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let deaf = dir.path().join("deaf");
    let script = format!("trap '' TERM; touch {}; while :; do sleep 0.05; done", deaf.display());
    let mut unattended = options(&socket, &script);
    unattended.interactive = false;
    let anna = Person::sits_down(unattended);
    daemon.running(1).await;
    until("it is deaf", || deaf.exists()).await;
    let (id, pid) = (daemon.sessions()[0].id.clone(), daemon.pid());
    let ticks = start_ticks(pid).unwrap();
    daemon.hub.end(&app(), &id, false, Span::mins(5)).unwrap();
    anna.sees("the end", |scene| *scene == Scene::Ending { force_after: Span::mins(5) }).await;
    assert_eq!(daemon.sessions().len(), 1, "it is deaf to TERM, and still open");
    daemon.hub.end(&app(), &id, true, Span::mins(5)).unwrap();
    until("she is logged out", || daemon.is_empty()).await;
    assert_eq!(life(pid, ticks), Life::Dead);
    assert_eq!(anna.outcome().await, Outcome::Closed);
    daemon.hub.end(&app(), &id, true, Span::ZERO).expect("ending it twice is no error");
}

#[tokio::test]
async fn the_client_uses_force_by_itself_when_politeness_has_had_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let deaf = dir.path().join("deaf");
    let script = format!("trap '' TERM; touch {}; while :; do sleep 0.05; done", deaf.display());
    let anna = Person::sits_down(options(&socket, &script));
    daemon.running(1).await;
    until("it is deaf", || deaf.exists()).await;
    let id = daemon.sessions()[0].id.clone();
    daemon.hub.end(&app(), &id, false, Span::from(std::time::Duration::from_millis(200))).unwrap();
    until("she is logged out", || daemon.is_empty()).await;
    // No update is under way, and the gate is open: she may start it again at once.
    anna.sees("ready", |scene| matches!(scene, Scene::Ready { can_start: true, .. })).await;
    anna.stop.cancel();
    assert_eq!(anna.outcome().await, Outcome::Closed);
}

#[tokio::test]
async fn a_session_is_open_until_the_last_of_its_processes_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let (child, saved) = (dir.path().join("child"), dir.path().join("saved"));
    // The wrapper ends at TERM; the program behind it takes its time to save.
    let script = format!(
        "sh -c 'trap \"sleep 0.3; touch {}; exit\" TERM; touch {}; while :; do sleep 0.02; done' & wait",
        saved.display(),
        child.display()
    );
    let anna = Person::sits_down(options(&socket, &script));
    daemon.running(1).await;
    until("the program behind the wrapper runs", || child.exists()).await;
    let id = daemon.sessions()[0].id.clone();
    daemon.hub.end(&app(), &id, false, Span::mins(5)).unwrap();
    until("she is logged out", || daemon.is_empty()).await;
    assert!(saved.exists(), "it was given the time to save");
    anna.stop.cancel();
    anna.outcome().await;
}

#[tokio::test]
async fn a_closed_gate_refuses_and_a_pass_admits_once() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    *daemon.door.0.lock().unwrap() = Some(1);
    daemon.hub.close(&app(), "An update is coming.", None);
    let mut lasting = options(&socket, "exec sleep 100");
    lasting.interactive = false;
    let anna = Person::sits_down(lasting.clone());
    daemon.running(1).await;
    let bo = Person::sits_down(options(&socket, "exec sleep 100"));
    let Outcome::Refused { message, until: Some(_) } = bo.outcome().await else { panic!("admitted twice") };
    assert_eq!(message, "The office is closed.");
    // Whatever control believes, the gate that the hub was told decides.
    *daemon.door.0.lock().unwrap() = None;
    let bo = Person::sits_down(options(&socket, "exec sleep 100"));
    let Outcome::Refused { message, .. } = bo.outcome().await else { panic!("admitted past the hub") };
    assert_eq!(message, "An update is coming.");
    let status = status(&socket, &app()).await.unwrap();
    assert_eq!((status.sessions, status.closed.unwrap().text), (1, "An update is coming.".to_owned()));
    let own = &statuses(&socket).await.unwrap()[&app()].own;
    assert_eq!((&own[0].session, own[0].waits), (&daemon.sessions()[0].id, false));
    anna.stop.cancel();
    anna.outcome().await;
}

#[tokio::test]
async fn without_a_daemon_nothing_starts_unless_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let mark = dir.path().join("mark");
    let mut options = options(&socket, &format!("touch {}; exec sleep 100", mark.display()));
    let error = Person::sits_down(options.clone()).error().await;
    assert!(matches!(error, WorkstationError::Unreachable { .. }) && error.hint().is_some(), "{error}");
    assert!(!mark.exists());
    options.without_daemon = true;
    let anna = Person::sits_down(options);
    until("it runs", || mark.exists()).await;
    assert!(anna.saw(|scene| *scene == Scene::Unguarded));
    // The daemon that comes later counts it, even behind a closed gate: it runs.
    let daemon = Daemon::start(&socket, Vec::new());
    daemon.hub.close(&app(), "closed", None);
    daemon.running(1).await;
    anna.stop.cancel();
    anna.outcome().await;
}

#[tokio::test]
async fn an_unknown_application_and_a_missing_program_are_said_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let mut options = options(&socket, "true");
    options.program = vec!["/no/such/program".into()];
    let error = Person::sits_down(options.clone()).error().await;
    assert_eq!(error.to_string(), "start /no/such/program");
    assert!(daemon.is_empty(), "its session was given up");
    options.app = "ghost".parse().unwrap();
    let error = Person::sits_down(options).error().await;
    assert_eq!(error.to_string(), "be accepted by the daemon: it failed to find application ghost");
}

#[tokio::test]
async fn a_program_can_say_that_work_is_unsaved() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let script = r#"echo '{"unsaved": true, "last_activity": "2026-11-21T20:00:00Z"}' > "$AFTERHOURS_STATUS_FILE"
        test "$AFTERHOURS_APP" = orders && exec sleep 100"#;
    let anna = Person::sits_down(options(&socket, script));
    daemon.running(1).await;
    assert_eq!(daemon.sessions()[0].unsaved, None, "not known is not no");
    until("it is known", || daemon.sessions()[0].unsaved == Some(true)).await;
    assert_eq!(daemon.sessions()[0].last_activity, Some("2026-11-21T20:00:00Z".parse().unwrap()));
    anna.stop.cancel();
    anna.outcome().await;
}

#[tokio::test]
async fn nobody_answers_at_an_unattended_workstation_but_its_options_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let unattended = |answer| {
        let mut options = options(&socket, "exec sleep 100");
        options.interactive = false;
        options.answer = Some(answer);
        Person::sits_down(options)
    };
    let (anna, bo) = (unattended(Answer::Ok), unattended(Answer::RestartAfterwards));
    daemon.running(2).await;
    daemon.hub.close(&app(), "An update is coming.", None);
    daemon.hub.announce(&app(), &notice(300));
    assert_eq!(anna.outcome().await, Outcome::Closed);
    until("both are logged out", || daemon.is_empty()).await;
    daemon.hub.open(&app());
    daemon.hub.finish(&app(), &news());
    daemon.running(1).await;
    bo.stop.cancel();
    bo.outcome().await;
}
