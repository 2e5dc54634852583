//! A stranger who wants nobody else to get in: at the door, among the sessions, in the store's queue.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use afterhours::api::door::Door;
use afterhours::api::door::Patience;
use afterhours::api::door::Shares;
use afterhours::domain::run::Outcome;
use afterhours::sessions::notes::BATCH_PAUSE;
use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::routing::get;
use axum::routing::post;
use futures_util::stream;
use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::process::ChildStdout;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::night::releases::SICK;
use crate::night::site::Site;
use crate::night::site::program;
use crate::people::bench::Daemon;
use crate::people::bench::until;
use crate::support::users::APP;
use crate::support::users::STRANGER;
use crate::support::users::as_user;
use crate::support::users::within_reach;

/// How long anything is waited for: a loaded machine must not fail a test.
const PATIENCE: Duration = Duration::from_secs(120);

/// A user at the workstations' door with `door.py`; goes when this is dropped.
struct Attack {
    _child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Attack {
    fn begin(user: &str, mode: &str, count: usize, socket: &Path) -> Self {
        let mut command = as_user(user, "/usr/bin/python3");
        command.args(["-I", "-S", "-c", include_str!("door.py"), mode, &count.to_string()]).arg(socket);
        let mut command = Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, said }
    }

    async fn says(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.said.next_line()).await.expect("it goes on").unwrap();
        serde_json::from_str(&line.expect("it does not fail")).unwrap()
    }
}

/// A directory that everybody may enter.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), 0o755);
    dir
}

fn open(path: &Path, mode: u32) {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn silent_connections_keep_out_neither_operators_nor_the_gate_nor_the_way_back() {
    let mut site = Site::new().await;
    open(&site.path(""), 0o755);
    // As many descriptors as a service has where nobody asks for more.
    let few = site.path("afterhours-with-few-descriptors");
    fs_err::write(&few, format!("#!/bin/sh\nulimit -n 1024\nexec {} \"$@\"\n", program().display())).unwrap();
    open(&few, 0o755);
    site.use_program(few);
    SICK.publish(&site.feed());
    site.open().await;
    let socket = site.path("workstations.sock");
    let mut attack = Attack::begin(STRANGER, "silent", 2000, &socket);
    assert_eq!(attack.says().await["opened"], 2000);

    let (code, _, said) = site.run(&["status"]).await;
    assert_eq!(code, 0, "{said}");
    let proxy = reqwest::Client::builder().unix_socket(socket).tls_certs_only([]).build().unwrap();
    let gate = proxy.get("http://localhost/v1/apps/orders/gate/check").timeout(PATIENCE).send().await.unwrap();
    assert_eq!(gate.status(), 204);
    let run = site.update().await;
    let run = site.settled_within(run, PATIENCE).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    site.desk_answers("1.0").await;
}

#[tokio::test]
async fn the_workstations_door_serves_no_operator_and_the_operators_no_stranger() {
    let mut site = Site::new().await;
    open(&site.path(""), 0o755);
    site.serve().await;
    let workstations = site.path("workstations.sock");
    let (code, _, said) = site.run(&["--socket", workstations.to_str().unwrap(), "status"]).await;
    assert_eq!(code, 8, "{said}");
    assert!(said.contains(site.path("s").to_str().unwrap()), "it names the other one: {said}");
    let reachable = within_reach(program(), &site.path(""));
    let as_stranger = |args: &[&str]| {
        let output = as_user(STRANGER, &reachable).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let operators = site.path("s");
    let operators = operators.to_str().unwrap();
    let (code, said) = as_stranger(&["--socket", operators, "status"]);
    assert_eq!(code, Some(8), "{said}");
    let (code, said) = as_stranger(&["client", "run", "--app", "orders", "--socket", operators, "--", "true"]);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("workstations.sock"), "it names the other one: {said}");
    let workstations = workstations.to_str().unwrap();
    let (code, said) = as_stranger(&["client", "run", "--app", "orders", "--socket", workstations, "--", "true"]);
    assert_eq!(code, Some(0), "{said}");
    for status in [&["client", "status"][..], &["client", "status", "--app", "orders"]] {
        let (code, said) = as_stranger(&[status, &["--socket", workstations]].concat());
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = as_stranger(&["client", "run", "--socket", workstations, "--", "true"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--app"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seventeen_thousand_registrations_leave_room_for_everybody_else() {
    let dir = open_dir();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    open(&socket, 0o666);
    let begun = Instant::now();
    let mut attack = Attack::begin(STRANGER, "register", 17_000, &socket);
    let counts = attack.says().await;
    assert_eq!(counts["admitted"], 16, "{counts}");
    let mut honest = Attack::begin(APP, "register", 3, &socket);
    assert_eq!(honest.says().await["admitted"], 3);
    until("all are known", || daemon.sessions().len() == 19).await;
    few_writes(&daemon, begun);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flapping_does_not_fill_the_stores_queue() {
    let dir = open_dir();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    open(&socket, 0o666);
    let begun = Instant::now();
    let mut attack = Attack::begin(STRANGER, "flap", 5_000, &socket);
    until("the attack is under way", || !daemon.sessions().is_empty()).await;
    // Each of these waits until it is written down.
    let mut honest = Attack::begin(APP, "register", 8, &socket);
    assert_eq!(honest.says().await["admitted"], 8);
    let counts = attack.says().await;
    assert!(counts["admitted"].as_u64() >= Some(1), "{counts}");
    few_writes(&daemon, begun);
}

/// The writer is left alone between two writes, whatever anybody does.
#[track_caller]
fn few_writes(daemon: &Daemon, since: Instant) {
    let writes = daemon.writes.load(std::sync::atomic::Ordering::Relaxed) as u128;
    let most = since.elapsed().as_millis() / BATCH_PAUSE.as_millis() + 2;
    assert!(writes <= most, "{writes} writes, and at most {most} were to be");
}

/// A door with little patience.
struct Impatient {
    _dir: tempfile::TempDir,
    socket: std::path::PathBuf,
    stop: CancellationToken,
}

impl Impatient {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 4096])));
        let routes = Router::new()
            .route("/", get(async || "here"))
            .route("/told", post(async |body: Bytes| format!("{} bytes", body.len())))
            .route("/endless", get(async || Body::from_stream(endless)));
        let little = Duration::from_millis(300);
        let patience = Patience { head: little, body: little, write: little };
        let stop = CancellationToken::new();
        let listener = UnixListener::bind(&socket).unwrap();
        let door = Door::new("test", listener, routes, Shares::of(1024, 16).workstations, patience);
        tokio::spawn(door.serve(stop.clone()));
        Self { _dir: dir, socket, stop }
    }

    /// Whether a connection that says this first, and then one byte after the other, is closed.
    async fn is_cut(&self, first: &[u8], more: u8) -> String {
        let (mut reads, mut writes) = UnixStream::connect(&self.socket).await.unwrap().into_split();
        writes.write_all(first).await.unwrap();
        let drips = tokio::spawn(async move {
            let mut drop = tokio::time::interval(Duration::from_millis(20));
            while writes.write_all(&[more]).await.is_ok() {
                drop.tick().await;
            }
        });
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, reads.read_to_end(&mut answer)).await.expect("it is closed");
        drops(drips).await;
        // A connection that is closed upon us is closed, too.
        let _ = read;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

async fn drops(drips: tokio::task::JoinHandle<()>) {
    tokio::time::timeout(PATIENCE, drips).await.expect("it is closed for writing").unwrap();
}

impl Drop for Impatient {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_cut_off() {
    let door = Impatient::open();
    door.is_cut(b"GET / HTTP/1.1\r\nHost: ", b'x').await;
    let answer = door.is_cut(b"POST /told HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b'x').await;
    assert!(!answer.contains("100000 bytes"), "{answer}");
    // One that has been answered may say nothing for a while, and not for ever.
    let answer = door.is_cut(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET ", b'x').await;
    assert!(answer.contains("here"), "{answer}");
}

#[tokio::test]
async fn whoever_does_not_read_loses_the_connection() {
    let door = Impatient::open();
    let mut reader = UnixStream::connect(&door.socket).await.unwrap();
    reader.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    // Nothing is read: the connection is there for a while, and then writing to it fails.
    let began = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(20));
    while reader.write_all(b"x").await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "it is still there");
        look.tick().await;
    }
}
