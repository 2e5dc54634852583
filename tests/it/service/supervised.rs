//! Applications that the daemon runs itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use afterhours::config::settings::ServiceControl;
use afterhours::domain::command::Command;
use afterhours::domain::span::Span;
use afterhours::service::Service;
use afterhours::service::ServiceError;
use afterhours::service::ServiceStatus;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::service::App;
use crate::service::BOUND;
use crate::service::conformance;
use crate::service::script;
use crate::service::settings;
use crate::support::command;
use crate::support::eventually;

struct Supervised {
    dir: TempDir,
    app: App,
    service: Service,
}

impl Supervised {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let app = App::at(dir.path(), Path::new("/proc"));
        let service = supervised(&dir, &app, "./app.sh");
        Self { dir, app, service }
    }

    /// Another daemon after ours, with nothing but the files.
    fn next_daemon(&self) -> Service {
        supervised(&self.dir, &self.app, "./app.sh")
    }

    fn state_file(&self) -> PathBuf {
        self.dir.path().join("state/supervised.json")
    }
}

impl Drop for Supervised {
    /// A failed test leaves nothing behind: what its own application started carries its own token.
    fn drop(&mut self) {
        let Ok(text) = fs_err::read_to_string(self.state_file()) else { return };
        let state: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let mark = format!("AFTERHOURS_SUPERVISED={}", state["token"].as_str().unwrap_or("none"));
        for entry in fs_err::read_dir("/proc").into_iter().flatten().flatten() {
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
                kill(entry.file_name().to_string_lossy().parse().unwrap());
            }
        }
    }
}

fn supervised(dir: &TempDir, app: &App, program: &str) -> Service {
    let env = BTreeMap::from([("FROM_SETTINGS".to_owned(), "1".to_owned())]);
    let control = ServiceControl::Supervised { run: Command { env, ..command(&[program]) } };
    Service::new(&settings(dir.path(), control, Some(app.port), Span::secs(2)), &dir.path().join("state"))
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

#[tokio::test]
async fn supervised_conforms() {
    let it = Supervised::new();
    let missing = supervised(&tempfile::tempdir().unwrap(), &it.app, "./absent");
    conformance(&it.service, &missing, &it.app).await;
}

#[test]
fn an_application_outlives_the_daemon_and_is_adopted() {
    let mut it = Supervised::new();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let pid = first.block_on(async {
        it.service.start(&BTreeMap::new()).await.unwrap();
        it.app.pid("app.pid").await
    });
    let log = fs_err::read_link(format!("/proc/{pid}/fd/1")).unwrap();
    assert_eq!(log, it.dir.path().join("state/log/app.log"), "its output depends on no daemon");
    let session = rustix::process::getsid(rustix::process::Pid::from_raw(pid)).unwrap();
    assert_eq!(session.as_raw_nonzero().get(), pid, "it leads a session of its own");
    it.service = it.next_daemon();
    drop(first);

    runtime().block_on(async {
        let adopted = ServiceStatus::Running { pid: Some(pid.cast_unsigned()) };
        assert_eq!(it.service.status().await.unwrap(), adopted);
        it.service.start(&BTreeMap::new()).await.unwrap();
        assert_eq!(it.app.starts(), 1);
        it.service.stop(&BTreeMap::new()).await.unwrap();
        assert!(!it.app.lives(pid));
    });
}

#[tokio::test]
async fn a_daemon_that_died_before_it_wrote_the_number_down_still_finds_its_application() {
    let it = Supervised::new();
    it.service.start(&BTreeMap::new()).await.unwrap();
    let pid = it.app.pid("app.pid").await;
    let mut state: serde_json::Value = serde_json::from_str(&fs_err::read_to_string(it.state_file()).unwrap()).unwrap();
    assert_eq!(state["main"]["pid"], pid);
    state["main"] = serde_json::Value::Null;
    fs_err::write(it.state_file(), state.to_string()).unwrap();

    let next = it.next_daemon();
    assert_eq!(next.status().await.unwrap(), ServiceStatus::Running { pid: Some(pid.cast_unsigned()) });
    next.start(&BTreeMap::new()).await.unwrap();
    assert_eq!(it.app.starts(), 1, "it was not started twice");
    next.stop(&BTreeMap::new()).await.unwrap();
    assert!(!it.app.lives(pid));
}

#[tokio::test]
async fn what_was_being_stopped_when_the_daemon_died_is_started_anew() {
    let it = Supervised::new();
    it.service.start(&BTreeMap::new()).await.unwrap();
    let dying = it.app.pid("app.pid").await;
    let text = fs_err::read_to_string(it.state_file()).unwrap();
    fs_err::write(it.state_file(), text.replace("\"wanted\": true", "\"wanted\": false")).unwrap();

    let next = it.next_daemon();
    next.start(&BTreeMap::new()).await.unwrap();
    let fresh = it.app.pid("app.pid").await;
    assert!(!it.app.lives(dying) && it.app.lives(fresh), "it went on with one that was told to end");
    next.stop(&BTreeMap::new()).await.unwrap();
}

#[tokio::test]
async fn stop_ends_what_left_the_session_or_lost_its_environment() {
    let it = Supervised::new();
    script(
        &it.dir.path().join("app.sh"),
        "#!/bin/sh\nsetsid sh -c 'echo $$ > d.tmp; mv d.tmp daemon.pid; exec sleep 1000' &\n\
         env -i /usr/bin/setsid /bin/sh -c 'echo $$ > b.tmp; mv b.tmp bare.pid; exec /bin/sleep 1000' &\n\
         env -i /bin/sh -c 'echo $$ > o.tmp; mv o.tmp orphan.pid; exec /bin/sleep 1000' &\n\
         echo $$ > a.tmp; mv a.tmp app.pid\nwait\n",
    );
    it.service.start(&BTreeMap::new()).await.unwrap();
    let mut pids = Vec::new();
    for file in ["app.pid", "daemon.pid", "bare.pid", "orphan.pid"] {
        pids.push(it.app.pid(file).await);
    }
    assert!(pids.iter().all(|pid| it.app.lives(*pid)));
    it.service.stop(&BTreeMap::new()).await.unwrap();
    let left: Vec<_> = pids.iter().filter(|pid| it.app.lives(**pid)).collect();
    assert!(left.is_empty(), "{left:?} of {pids:?} are left");
}

#[tokio::test]
async fn what_is_left_of_a_crashed_application_is_seen_and_ended_before_the_next_start() {
    let it = Supervised::new();
    it.app.stubborn();
    it.service.start(&BTreeMap::new()).await.unwrap();
    let (main, child) = (it.app.pid("app.pid").await, it.app.pid("child.pid").await);
    kill(main);
    eventually("the end is seen", BOUND, async || matches!(it.service.status().await, Ok(ServiceStatus::Failed(_))))
        .await;
    assert!(it.app.lives(child));
    it.service.start(&BTreeMap::new()).await.unwrap();
    assert!(!it.app.lives(child), "two generations ran side by side");
    it.service.stop(&BTreeMap::new()).await.unwrap();
}

#[tokio::test]
async fn the_daemon_brings_it_back_but_not_when_it_was_stopped_or_held() {
    let (it, stopped, held) = (Supervised::new(), Supervised::new(), Supervised::new());
    let shutdown = CancellationToken::new();
    let greeting = BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]);
    // Before anybody looks after them: one that was never started would be started with an environment of its own.
    for one in [&it, &stopped, &held] {
        one.service.start(&greeting).await.unwrap();
    }
    let test = async {
        let hold = held.dir.path().join("hold");
        held.service.install_hold(&hold).await.unwrap();
        fs_err::write(&hold, "").unwrap();
        kill(held.app.pid("app.pid").await);
        stopped.service.stop(&greeting).await.unwrap();
        let first = it.app.pid("app.pid").await;
        kill(first);
        let second = it.app.pid("app.pid").await;
        assert_ne!(first, second);
        let said = fs_err::read_to_string(it.dir.path().join("greeting")).unwrap();
        assert_eq!(said, "hello\n", "it was started with something else");
        kill(second);
        let third = it.app.pid("app.pid").await;
        eventually("it is known again", BOUND, async || {
            it.service.status().await.unwrap() == ServiceStatus::Running { pid: Some(third.cast_unsigned()) }
        })
        .await;

        // They were looked after just as often.
        assert_eq!((it.app.starts(), stopped.app.starts(), held.app.starts()), (3, 1, 1));
        assert_eq!(stopped.service.status().await.unwrap(), ServiceStatus::Stopped);
        fs_err::remove_file(&hold).unwrap();
        held.app.pid("app.pid").await;
        shutdown.cancel();
    };
    let [a, b, c] = [&it, &stopped, &held].map(|one| one.service.supervise(shutdown.clone()));
    tokio::join!(a, b, c, test);
    for one in [&it, &held] {
        one.service.stop(&greeting).await.unwrap();
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_told_with_its_last_words() {
    let it = Supervised::new();
    script(&it.dir.path().join("app.sh"), "#!/nowhere/interpreter\n");
    let error = it.service.start(&BTreeMap::new()).await.unwrap_err();
    assert!(matches!(error, ServiceError::EndedAtOnce { .. }), "{error}");
    assert!(error.to_string().contains("./app.sh"), "{error}");
    assert_eq!(it.service.status().await.unwrap(), ServiceStatus::Stopped, "it is not tried on");
}
