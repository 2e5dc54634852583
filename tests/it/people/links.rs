//! Links that break: the daemon restarts, the client is killed, somebody else tries to speak.

use std::process::Stdio;
use std::sync::Arc;

use afterhours::client::ui::Scene;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::session::Answer;
use afterhours::domain::session::Census;
use afterhours::domain::session::SessionId;
use afterhours::domain::span::Span;
use afterhours::exec::process::start_ticks;
use afterhours::sessions::hub::Hub;
use afterhours::sessions::hub::HubError;
use afterhours::sessions::hub::Joined;
use afterhours::sessions::hub::QUEUE_MAX;
use afterhours::sessions::hub::Seat;
use afterhours::sessions::hub::Verdict;
use afterhours::sessions::notes::notes;
use afterhours::sessions::station::Member;
use afterhours::sessions::station::Peer;
use afterhours::wire::workstation::ClientState;
use afterhours::wire::workstation::Process;
use afterhours::wire::workstation::Program;
use afterhours::wire::workstation::Register;
use afterhours::wire::workstation::ServerMessage;
use tokio::process::Command;

use super::bench::Daemon;
use super::bench::Person;
use super::bench::app;
use super::bench::notice;
use super::bench::options;
use super::bench::until;

pub(super) fn register() -> Register {
    Register {
        user: "anna".into(),
        workstation: "pc-3".into(),
        program_name: "orders".into(),
        client: Process { pid: 1, start_ticks: 0 },
        session: None,
        state: ClientState { program: Program::NotStarted, unsaved: None, last_activity: None },
        answered: None,
    }
}

pub(super) async fn sit(hub: &Arc<Hub>, peer: Option<Peer>) -> Seat {
    match hub.join(&app(), &register(), peer, &Verdict::Admitted).await.unwrap() {
        Joined::Seat(seat) => seat,
        Joined::GateClosed(closed) => panic!("{closed:?}"),
    }
}

#[tokio::test]
async fn a_restarted_daemon_does_not_know_until_everybody_is_back() {
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
    let (before, pid) = (daemon.sessions(), daemon.pid());
    let remembered = daemon.stop().await;
    anna.sees("that the link is lost", |scene| *scene == Scene::LinkLost).await;

    // Of the process nothing is remembered, so that only the client itself can tell.
    let known: Vec<_> = remembered.iter().map(|member| Member::from(member.session.clone())).collect();
    let hub = Hub::new(known, Arc::new(SystemClock), None);
    assert!(matches!(hub.census(&app()), Census::Unknown(_)), "nobody has come back yet");
    // With it, a look at the process is enough.
    let hub = Hub::new(remembered.clone(), Arc::new(SystemClock), None);
    assert!(matches!(hub.census(&app()), Census::Known(sessions) if sessions.len() == 1));

    // Of a session that cannot be read it is not even known whether there is one.
    let hub = Hub::new(Vec::new(), Arc::new(SystemClock), None);
    let session = remembered[0].session.id.clone();
    hub.doubt(&app(), session.clone());
    assert!(matches!(hub.census(&app()), Census::Unknown(reason) if reason.contains(&session.0)));
    hub.end(&app(), &session, false, Span::secs(1)).unwrap();
    assert_eq!(hub.census(&app()), Census::Known(Vec::new()), "whoever ended it has looked");

    let daemon = Daemon::start(&socket, remembered);
    // It is known again as soon as its client is back.
    daemon.hub.doubt(&app(), session);
    daemon.hub.announce(&app(), &notice);
    anna.sees("that the link is back", |scene| *scene == Scene::LinkBack).await;
    until("the answer is known again", || daemon.sessions()[0].answer == Some(Answer::NotNow)).await;
    assert_eq!(daemon.sessions(), before, "the same session, as it was");
    assert_eq!(daemon.pid(), pid, "the program was not touched");
    assert_eq!(anna.scenes.lock().unwrap().iter().filter(|scene| matches!(scene, Scene::Warned { .. })).count(), 1);
    anna.stop.cancel();
    anna.outcome().await;
}

#[tokio::test]
async fn a_restart_that_was_asked_for_survives_the_daemon() {
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
    // The update ends while nobody is there to tell her.
    let remembered = daemon.stop().await;
    let daemon = Daemon::start(&socket, remembered);
    daemon.running(1).await;
    anna.sees("the restart", |scene| matches!(scene, Scene::Restarted { .. })).await;
    anna.stop.cancel();
    anna.outcome().await;
}

#[tokio::test]
async fn a_program_whose_client_was_killed_is_counted_and_can_be_ended() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let mut program = Command::new("sleep").arg("100").process_group(0).spawn().unwrap();
    let pid = program.id().unwrap();
    // A client that is a process of its own: the shell says who it is and becomes curl.
    let script = format!(
        r#"ticks=$(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f20)
        exec curl -sN --unix-socket {} http://localhost/v1/apps/orders/workstations -H 'Content-Type: application/json' -d '{{
            "user": "bo", "workstation": "pc-4", "program_name": "sleep",
            "client": {{"pid": '$$', "start_ticks": '$ticks'}},
            "state": {{"program": "running", "pid": {pid}, "start_ticks": {}}} }}'"#,
        socket.display(),
        start_ticks(pid).unwrap()
    );
    let mut client = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap();
    daemon.running(1).await;
    let id = daemon.sessions()[0].id.clone();
    assert!(daemon.memory.lock().unwrap()[0].program_seen);
    client.kill().await.unwrap();
    until("the link is lost", || daemon.hub.message(&app(), "?", Some(&id)).is_err()).await;
    assert_eq!(daemon.sessions().len(), 1, "the program lives, and its user works on");
    daemon.hub.end(&app(), &id, true, Span::ZERO).unwrap();
    program.wait().await.unwrap();
    until("he is logged out", || daemon.is_empty()).await;
    until("the store has forgotten it", || daemon.memory.lock().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_client_lost_before_it_told_anything_is_unknown() {
    let hub = Hub::new(Vec::new(), Arc::new(SystemClock), None);
    let seat = sit(&hub, None).await;
    let id = seat.session().clone();
    assert!(matches!(hub.census(&app()), Census::Known(sessions) if sessions.len() == 1));
    drop(seat);
    assert!(matches!(hub.census(&app()), Census::Unknown(_)));
    assert!(matches!(hub.end(&app(), &id, true, Span::ZERO), Err(HubError::Unreachable { .. })));
}

#[tokio::test]
async fn nobody_speaks_for_somebody_elses_session() {
    let hub = Hub::new(Vec::new(), Arc::new(SystemClock), None);
    let (anna, bo, root) = (Peer { uid: 1001, pid: None }, Peer { uid: 1002, pid: None }, Peer { uid: 0, pid: None });
    let seat = sit(&hub, Some(anna)).await;
    let ended = ClientState { program: Program::Ended, unsaved: None, last_activity: None };
    for other in [Some(bo), None] {
        assert!(matches!(hub.state(seat.session(), other, &ended), Err(HubError::NotYours { .. })));
        assert!(matches!(hub.leave(seat.session(), other), Err(HubError::NotYours { .. })));
        let claim = Register { session: Some(seat.session().clone()), ..register() };
        let Joined::Seat(claimed) = hub.join(&app(), &claim, other, &Verdict::Admitted).await.unwrap() else {
            panic!("refused")
        };
        assert_ne!(claimed.session(), seat.session(), "not taken over");
        hub.leave(claimed.session(), other).unwrap();
    }
    hub.leave(seat.session(), Some(root)).unwrap();
    assert!(hub.census(&app()).is_known_empty());
    let ghost = SessionId("ghost".into());
    assert!(matches!(hub.state(&ghost, Some(root), &ended), Err(HubError::NoSession { .. })));
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_link() {
    let hub = Hub::new(Vec::new(), Arc::new(SystemClock), None);
    let mut seat = sit(&hub, None).await;
    for _ in 0..QUEUE_MAX {
        hub.message(&app(), "hello", None).unwrap();
    }
    assert!(matches!(hub.message(&app(), "hello", Some(seat.session())), Err(HubError::Unreachable { .. })));
    let mut read = 0;
    while seat.messages.recv().await.is_some() {
        read += 1;
    }
    assert_eq!(read, QUEUE_MAX, "what fitted is read, then the stream ends");
    assert!(matches!(hub.census(&app()), Census::Unknown(_)));
}

#[tokio::test]
async fn what_cannot_be_remembered_is_not_admitted() {
    let (memory, mut changes) = notes();
    let hub = Hub::new(Vec::new(), Arc::new(SystemClock), Some(memory));
    let disk_full = tokio::spawn(async move { while !changes.next().await.is_empty() {} });
    let error = hub.join(&app(), &register(), None, &Verdict::Admitted).await.unwrap_err();
    assert!(matches!(error, HubError::NotRemembered { .. }), "{error}");
    assert!(hub.census(&app()).is_known_empty());
    drop(hub);
    disk_full.await.unwrap();
}

#[tokio::test]
async fn a_client_that_hears_but_does_not_act_is_not_waited_for() {
    let hub = Hub::new(Vec::new(), Arc::new(SystemClock), None);
    let mut program = Command::new("sleep").arg("100").process_group(0).spawn().unwrap();
    let process = |pid| Process { pid, start_ticks: start_ticks(pid).unwrap() };
    let own = std::process::id();
    let peer = Some(Peer { uid: afterhours::exec::process::uid(own).unwrap(), pid: Some(own) });
    let mut running = Register { client: process(own), ..register() };
    running.state.program = Program::Running { process: process(program.id().unwrap()) };
    let join = async |register: &Register| match hub.join(&app(), register, peer, &Verdict::Admitted).await.unwrap() {
        Joined::Seat(seat) => seat,
        Joined::GateClosed(closed) => panic!("{closed:?}"),
    };
    let seat = join(&running).await;
    let id = seat.session().clone();
    hub.end(&app(), &id, false, Span::mins(5)).unwrap();
    drop(seat);
    // It comes back, and is told again what it may have missed.
    running.session = Some(id.clone());
    let mut seat = join(&running).await;
    assert_eq!(seat.messages.recv().await, Some(ServerMessage::Welcome { session: id.clone() }));
    assert_eq!(seat.messages.recv().await, Some(ServerMessage::EndNow { force_after: Span::mins(5) }));
    hub.end(&app(), &id, true, Span::ZERO).unwrap();
    assert_eq!(seat.messages.recv().await, Some(ServerMessage::EndNow { force_after: Span::ZERO }));
    assert!(program.try_wait().unwrap().is_none());
    hub.end(&app(), &id, true, Span::ZERO).unwrap();
    program.wait().await.unwrap();
    drop(seat);
    assert!(matches!(hub.census(&app()), Census::Unknown(_)), "its client lives, and may have started it again");
}

#[tokio::test]
async fn an_old_link_that_ends_late_does_not_touch_the_new_one() {
    let hub = Hub::new(Vec::new(), Arc::new(SystemClock), None);
    let old = sit(&hub, None).await;
    let id = old.session().clone();
    let again = Register { session: Some(id.clone()), ..register() };
    let Joined::Seat(new) = hub.join(&app(), &again, None, &Verdict::Admitted).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(new.session(), &id);
    drop(old);
    hub.message(&app(), "Hello", Some(&id)).unwrap();
    assert!(matches!(hub.census(&app()), Census::Known(sessions) if sessions.len() == 1));
    drop(new);
    assert!(hub.message(&app(), "Hello", Some(&id)).is_err());
}
