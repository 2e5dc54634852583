//! A thousand workstations at once.

use std::collections::BTreeSet;

use afterhours::domain::session::Census;
use afterhours::domain::session::SessionId;
use afterhours::wire::workstation::ServerMessage;
use futures_util::StreamExt;
use rustix::process::Resource;
use rustix::process::Rlimit;
use tokio::task::JoinSet;

use super::bench::Daemon;
use super::bench::app;
use super::bench::until;
use super::links::register;

/// How many are there before the gate closes, while it closes, and after it.
const CROWD: [usize; 3] = [500, 250, 250];

/// Registers `count` workstations at once; who was admitted, and the streams that keep them there.
async fn register_all(http: reqwest::Client, count: usize) -> (BTreeSet<SessionId>, Vec<impl Sized>) {
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let http = http.clone();
        clients.spawn(async move {
            let url = "http://localhost/v1/apps/orders/workstations";
            let response = http.post(url).json(&register()).send().await.unwrap();
            let mut stream = response.error_for_status().unwrap().bytes_stream();
            let first = stream.next().await.unwrap().unwrap();
            let line = first.split(|byte| *byte == b'\n').next().unwrap();
            let session = match serde_json::from_slice(line).unwrap() {
                ServerMessage::Welcome { session } => Some(session),
                ServerMessage::GateClosed { .. } => None,
                other => panic!("{other:?}"),
            };
            (session, stream)
        });
    }
    let (sessions, streams): (Vec<_>, Vec<_>) = clients.join_all().await.into_iter().unzip();
    (sessions.into_iter().flatten().collect(), streams)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_slips_through_a_gate_that_closes() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    // All of them are one user's here, as on a terminal server.
    daemon.hub.allow(&app(), 1000);
    let http = reqwest::Client::builder().unix_socket(socket).tls_certs_only([]).build().unwrap();
    let known = || match daemon.hub.census(&app()) {
        Census::Known(sessions) => sessions.into_iter().map(|session| session.id).collect::<BTreeSet<_>>(),
        Census::Unknown(why) => panic!("{why}"),
    };

    let (early, _early) = register_all(http.clone(), CROWD[0]).await;
    assert_eq!(early.len(), CROWD[0]);
    let racing = tokio::spawn(register_all(http.clone(), CROWD[1]));
    // Somewhere among them.
    until("the race is on", || known().len() > CROWD[0]).await;
    daemon.hub.close(&app(), "closed", None);
    let at_close = known();
    let (racing, _racing) = racing.await.unwrap();
    let (late, _late) = register_all(http, CROWD[2]).await;
    assert_eq!(late, BTreeSet::new(), "nobody is admitted any more");
    assert_eq!(&early | &racing, at_close, "whoever got in was counted when the gate was closed");
    assert_eq!(known(), at_close);

    // The link of each of them is lost, and nobody knows what their programs do.
    drop((_early, _racing));
    until("the links are lost", || matches!(daemon.hub.census(&app()), Census::Unknown(_))).await;
    daemon.stop().await;
}
