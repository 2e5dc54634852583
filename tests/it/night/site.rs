//! One site: a directory with an order desk, its data and its feed, a mail server, and the daemon as a process.
//!
//! Every process that is started here, at whatever remove, inherits `NIGHT_SITE`; what is left of them when the site
//! is over is found by it and ended. The order desk's port stays bound by us, without listening, so that nobody
//! else gets it while the desk is away.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use afterhours::client::api::Client;
use afterhours::domain::event::RunEvent;
use afterhours::domain::name::AppName;
use afterhours::domain::run::RunId;
use afterhours::wire::error::ErrorKind;
use afterhours::wire::run::EventsQuery;
use afterhours::wire::run::RunEventView;
use afterhours::wire::run::RunView;
use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::process::Command;

use super::mail::Sink;
use super::releases::V1;

/// How long anything is waited for: a loaded machine must not fail a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What every process of a site inherits.
const MARK: &str = "NIGHT_SITE";
/// The daemon looks for newer releases only when it is asked.
pub(crate) const NO_LOOKS: &str = "{ check_at_start = false, check_every = \"never\" }";

/// A site, and the daemon if it runs.
pub(crate) struct Site {
    dir: TempDir,
    program: PathBuf,
    pub(crate) mail: Sink,
    daemon: Option<Child>,
    client: Client,
    port: u16,
    port_kept: Option<OwnedFd>,
    /// What the program sees beyond the environment of the tests.
    pub(crate) env: BTreeMap<&'static str, &'static str>,
}

impl Site {
    /// A site with version 1.0, two orders, and no daemon yet.
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same, with other settings of the application, as in the file.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("night").tempdir().unwrap();
        let (kept, port) = keep_a_port();
        let mail = Sink::start().await;
        let client = Client::new(&dir.path().join("s")).unwrap();
        let program = program().to_owned();
        let site = Self { dir, program, mail, daemon: None, client, port, port_kept: Some(kept), env: BTreeMap::new() };
        V1.install(&site.installed());
        for folder in ["data", "feed"] {
            fs_err::create_dir(site.path(folder)).unwrap();
        }
        fs_err::write(site.path("data/schema"), "1\n").unwrap();
        fs_err::write(site.path("data/orders"), "first\nsecond\n").unwrap();
        site.configure(settings);
        site
    }

    /// Writes the configuration anew; the next daemon reads it.
    pub(crate) fn configure(&self, settings: &[(&str, &str)]) {
        let (dir, port) = (self.dir.path().display().to_string(), self.port);
        let (address, mail) = (format!("127.0.0.1:{port}"), self.mail.port);
        let mut app: BTreeMap<String, String> = [
            ("title", "\"Order desk\"".to_owned()),
            ("env", format!("{{ {MARK} = \"DIR\" }}")),
            ("install_dir", "\"DIR/opt/orders\"".to_owned()),
            ("keep", "[\"config/**\"]".to_owned()),
            (
                "service",
                format!("{{ run = [\"python3\", \"-I\", \"-S\", \"desk.py\", \"{port}\"], deadline = \"15s\", port = \"{address}\" }}"),
            ),
            (
                "health",
                format!("{{ http = \"http://{address}/\", times = 2, every = \"30ms\", deadline = \"15s\" }}"),
            ),
            ("data", "{ paths = [\"DIR/data\"] }".to_owned()),
            ("feed", "{ dir = \"DIR/feed\" }".to_owned()),
            // The daemon's own looks would share the feed's server, and what it refuses, with the test.
            ("updates", NO_LOOKS.to_owned()),
            ("sessions", "[]".to_owned()),
            ("grace", "\"2s\"".to_owned()),
            ("reminders", "[]".to_owned()),
            ("polite_end", "\"2s\"".to_owned()),
            ("census_wait", "\"1s\"".to_owned()),
            ("report", "{ started_by = false, group = [\"it@example.com\"], mail = \"always\" }".to_owned()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        app.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let app: String = app.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let daemon = format!(
            "[daemon]\ndata_dir = \"DIR/state\"\nsocket = \"DIR/s\"\n\
             mail = {{ smtp = \"smtp+plain://127.0.0.1:{mail}\", from = \"afterhours@example.com\" }}\n"
        );
        let text = format!("{daemon}\n[app.orders]\n{app}").replace("DIR", &dir).replace("PORT", &port.to_string());
        fs_err::write(self.path("afterhours.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn installed(&self) -> PathBuf {
        self.path("opt/orders")
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.path(name)).unwrap_or_default().trim_end().to_owned()
    }

    pub(crate) fn feed(&self) -> PathBuf {
        self.path("feed")
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The program with these arguments, in this site.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.path("afterhours.toml")).args(args).kill_on_drop(true);
        command.env(MARK, self.dir.path()).env("TZ", "UTC").envs(&self.env).stdin(Stdio::null());
        command
    }

    /// Lets another user than that of the tests bind the desk's port.
    pub(crate) fn let_go_of_the_port(&mut self) {
        self.port_kept = None;
    }

    /// From now on the program is this one.
    pub(crate) fn use_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Changes the text of the configuration.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let text = self.read("afterhours.toml");
        assert!(text.contains(from), "{from}");
        fs_err::write(self.path("afterhours.toml"), text.replacen(from, to, 1) + "\n").unwrap();
    }

    /// The process of the daemon that was started here.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().and_then(Child::id).expect("a daemon runs")
    }

    /// Waits until the daemon that was started here has ended by itself.
    pub(crate) async fn ended(&mut self) {
        let daemon = self.daemon.as_mut().expect("a daemon runs");
        tokio::time::timeout(PATIENCE, daemon.wait()).await.expect("it ends in time").unwrap();
        self.daemon = None;
    }

    /// Runs the program to its end; its exit code and what it said.
    pub(crate) async fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output =
            tokio::time::timeout(PATIENCE, self.command(args).output()).await.expect("it ends in time").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) async fn serve(&mut self) {
        self.spawn();
        let client = &self.client;
        eventually("the daemon answers", async || client.status().await.is_ok()).await;
    }

    /// Starts the daemon.
    pub(crate) fn spawn(&mut self) {
        let log = fs_err::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.command(&["serve"]);
        let (log, _) = log.into_parts();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    /// Starts the daemon and waits until the order desk answers, too.
    pub(crate) async fn open(&mut self) {
        self.serve().await;
        self.desk_answers("1.0").await;
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        daemon.kill().await.unwrap();
    }

    /// SIGTERM, and its end.
    pub(crate) async fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        let pid = Pid::from_raw(daemon.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        let ended = tokio::time::timeout(PATIENCE, daemon.wait()).await.expect("the daemon stops in time").unwrap();
        assert!(ended.success(), "{ended}\n{}", self.read("log"));
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::HUP).unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        self.serve().await;
    }

    /// Starts the desk as nobody's child but the administrator's.
    pub(crate) async fn start_desk_by_hand(&self) {
        let mut command = Command::new("setsid");
        command.args(["--fork", "python3", "-I", "-S", "desk.py", &self.port.to_string()]).env(MARK, self.dir.path());
        command.current_dir(self.installed()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().await.unwrap().success());
        self.desk_answers("1.0").await;
    }

    /// The desk's answer; nothing when it does not listen.
    pub(crate) async fn ask(&self, request: &str) -> Option<(u16, Value)> {
        let mut door = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        door.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        door.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
    }

    /// The version that answers and is well.
    pub(crate) async fn version(&self) -> Option<String> {
        let (status, body) = self.ask("GET / HTTP/1.1\r\nHost: desk\r\n\r\n").await?;
        (status == 200).then(|| body["version"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn desk_answers(&self, version: &str) {
        eventually("the order desk answers", async || self.version().await.as_deref() == Some(version)).await;
    }

    /// Hands in an order; the version that has taken it.
    pub(crate) async fn order(&self, what: &str) -> Option<String> {
        let (status, body) = self.ask(&format!("POST / HTTP/1.1\r\nHost: desk\r\n\r\n{what}")).await?;
        (status == 200).then(|| body["version"].as_str().unwrap().to_owned())
    }

    pub(crate) fn orders(&self) -> Vec<String> {
        self.read("data/orders").lines().map(str::to_owned).collect()
    }

    /// Creates a job; `more` is merged into what is asked.
    pub(crate) async fn job(&self, name: &str, more: Value) {
        let mut ask = json!({
            "name": name, "app": "orders", "enabled": true, "max_runtime": "10m",
            "start": {"kind": "time", "local": "2099-01-01 02:30", "zone": "UTC"},
        });
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.client.create_job(&serde_json::from_value(ask).unwrap()).await.unwrap();
    }

    /// Starts an update now, by the API.
    pub(crate) async fn update(&self) -> RunId {
        self.client.update_now(&app(), &Default::default()).await.unwrap().id
    }

    /// Waits until an event of the run is seen that is wanted; false when the run is over before.
    pub(crate) async fn see(&self, run: RunId, mut wanted: impl FnMut(&RunEvent) -> bool) -> bool {
        let mut events = self.client.run_events(run, EventsQuery { follow: true, after: 0 }).await.unwrap();
        let seen = async {
            while let Some(line) = events.next().await.unwrap() {
                if let RunEventView::Event { event, .. } = line
                    && wanted(&event)
                {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("the run goes on")
    }

    /// Waits until the run is over or stuck.
    pub(crate) async fn settled(&self, run: RunId) -> RunView {
        self.settled_within(run, PATIENCE).await
    }

    /// The same, with more patience.
    pub(crate) async fn settled_within(&self, run: RunId, bound: Duration) -> RunView {
        let until = Instant::now() + bound;
        loop {
            let view = match self.client.show_run(run).await {
                Ok(view) if view.state.is_settled() => return view,
                // A daemon that goes over into another program is away for a moment.
                Err(error) if error.kind() != ErrorKind::Unavailable => panic!("{error:?}"),
                view => view,
            };
            assert!(Instant::now() < until, "run {run} does not end: {view:#?}\n{}", self.read("log"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the reports of `runs` runs; they must be as many different mails.
    pub(crate) async fn reports(&self, runs: usize) {
        eventually("the reports arrive", async || self.mail.taken().len() >= runs).await;
        let ids: std::collections::BTreeSet<String> = self.mail.taken().into_iter().map(|mail| mail.id).collect();
        assert_eq!(ids.len(), runs, "{:#?}", self.mail.taken());
    }
}

impl Drop for Site {
    #[expect(clippy::disallowed_methods, reason = "nothing else happens any more while the processes end")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test fails anyhow, whether this can be written or not.
            let _ = writeln!(std::io::stderr(), "the daemon's log:\n{}", self.read("log"));
        }
        let mark = format!("{MARK}={}", self.dir.path().display());
        let until = Instant::now() + Duration::from_secs(10);
        while end_all(&mark) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Ends every process that inherited the mark; whether there was any.
fn end_all(mark: &str) -> bool {
    let mut any = false;
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) else { continue };
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            any = true;
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    any
}

/// A port of our own: bound and not listening, so that only who shares it can have it.
fn keep_a_port() -> (OwnedFd, u16) {
    use rustix::net;
    let (family, kind) = (net::AddressFamily::INET, net::SocketType::STREAM);
    let socket = net::socket_with(family, kind, net::SocketFlags::CLOEXEC, None).unwrap();
    net::sockopt::set_socket_reuseport(&socket, true).unwrap();
    net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = SocketAddr::try_from(net::getsockname(&socket).unwrap()).unwrap();
    (socket, address.port())
}

/// Waits for a condition, with a bound.
pub(crate) async fn eventually(what: &str, mut seen: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !seen().await {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn app() -> AppName {
    "orders".parse().unwrap()
}

/// The program under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_afterhours"))
}
