//! Start, stop and status commands.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use afterhours::config::settings::ServiceControl;
use afterhours::domain::span::Span;
use afterhours::service::Service;
use afterhours::service::ServiceError;
use tempfile::TempDir;

use crate::service::App;
use crate::service::conformance;
use crate::service::script;
use crate::service::settings;
use crate::support::command;

const CTL: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
alive() { test -e ctl.pid && kill -0 "$(cat ctl.pid)" 2>/dev/null; }
case "$1" in
start)
    alive && exit 0
    setsid ./app.sh &
    echo $! > ctl.pid ;;
stop)
    alive || exit 0
    kill -TERM "$(cat ctl.pid)"
    pkill -KILL --session "$(cat ctl.pid)"
    exit 0 ;;
status) alive && exit 0; exit 3 ;;
confused) exit 4 ;;
esac
"#;

fn commands(dir: &TempDir, port: Option<SocketAddr>, verbs: [&str; 3], program: &str) -> Service {
    let [start, stop, status] = verbs.map(|verb| command(&[program, verb]));
    let control = ServiceControl::Commands { start, stop, status };
    Service::new(&settings(dir.path(), control, port, Span::secs(2)), &dir.path().join("state"))
}

#[tokio::test]
async fn commands_conform() {
    let dir = tempfile::tempdir().unwrap();
    let app = App::at(dir.path(), Path::new("/proc"));
    script(&dir.path().join("ctl"), CTL);
    let good = commands(&dir, Some(app.port), ["start", "stop", "status"], "./ctl");
    let missing = commands(&dir, Some(app.port), ["start", "stop", "status"], "./absent");
    conformance(&good, &missing, &app).await;
}

#[tokio::test]
async fn a_status_command_that_does_not_know_is_an_error_and_a_stop_that_does_nothing_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let app = App::at(dir.path(), Path::new("/proc"));
    script(&dir.path().join("ctl"), CTL);
    let confused = commands(&dir, None, ["start", "stop", "confused"], "./ctl");
    let error = confused.status().await.unwrap_err();
    assert!(matches!(error, ServiceError::UnknownStatus { .. }), "{error}");

    let good = commands(&dir, None, ["start", "stop", "status"], "./ctl");
    good.start(&BTreeMap::from([("GREETING".to_owned(), "good evening".to_owned())])).await.unwrap();
    let pid = app.pid("app.pid").await;
    assert_eq!(fs_err::read_to_string(dir.path().join("greeting")).unwrap(), "good evening\n");
    let lazy = commands(&dir, None, ["start", "nothing", "status"], "./ctl");
    let error = lazy.stop(&BTreeMap::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "stop it within 2s: the status command says that it still runs");
    assert!(app.lives(pid));
    good.stop(&BTreeMap::new()).await.unwrap();
}
