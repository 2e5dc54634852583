//! A temporary directory that stands for a machine: its files, the daemon, and the mail it sends.

use std::path::Path;
use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::process::Child;
use tokio::process::ChildStdout;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::eventually;

/// Within this everything happens, or the test fails.
pub(super) const BOUND: Duration = Duration::from_secs(60);
/// Debian's programs, whatever else is installed.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples");

/// One machine with one application; gone when dropped.
pub(super) struct Site {
    dir: TempDir,
    app: &'static str,
    env: Vec<(&'static str, String)>,
    daemon: Option<Child>,
    mail: Mail,
}

impl Site {
    /// A machine with the configuration of an example. What stands below /etc, /opt, /run, /srv and
    /// /var there, stands in the machine's directory here; `changes` are made besides.
    pub(super) async fn new(example: &str, app: &'static str, changes: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder for a machine");
        // The database server's user has to get through.
        set_mode(dir.path(), 0o755);
        let mail = Mail::start().await;
        let smtp = format!("smtp+plain://127.0.0.1:{}", mail.port);
        let times = [("\"5m\"", "\"1s\""), ("\"1s\"\ndeadline = \"60s\"", "\"100ms\"\ndeadline = \"6s\"")];
        let changes = [&times[..], &[("smtp+plain://127.0.0.1:25", smtp.as_str())], changes].concat();
        let mut text = fs_err::read_to_string(Path::new(EXAMPLES).join(example)).expect("the example");
        for (from, to) in changes {
            assert!(text.contains(from), "{example} does not say {from} any more");
            text = text.replace(from, to);
        }
        let this = Self { dir, app, env: Vec::new(), daemon: None, mail };
        this.write("/etc/afterhours/afterhours.toml", &text);
        for folder in ["/opt", "/srv/backup", &format!("/srv/releases/{app}")] {
            fs_err::create_dir_all(this.at(folder)).expect("a folder");
        }
        this
    }

    /// What the daemon and everything it starts find in their environment.
    pub(super) fn set_env(&mut self, name: &'static str, value: String) {
        // Commands see only what is configured.
        let (path, app) = (self.at("/etc/afterhours/afterhours.toml"), format!("[app.{}]\n", self.app));
        let text = fs_err::read_to_string(&path).expect("the configuration");
        fs_err::write(&path, text.replace(&app, &format!("{app}env.{name} = {value:?}\n"))).expect("the configuration");
        self.env.push((name, value));
    }

    /// Where a path of the machine is.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file; paths in its text are moved, too.
    pub(super) fn write(&self, path: &str, text: &str) {
        write(&self.at(path), &moved(text, self.dir.path()));
    }

    /// A command with the environment of the machine.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PATH).env("TZ", "UTC").env("LC_ALL", "C.UTF-8").current_dir("/");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a program that has to end well; what it prints.
    pub(super) async fn run(&self, argv: &[&str]) -> String {
        let output = timeout(BOUND, self.command(argv[0]).args(&argv[1..]).output()).await.expect("in time");
        let output = output.unwrap_or_else(|error| panic!("{}: {error} (make packages)", argv[0]));
        assert!(output.status.success(), "{argv:?}: {}", all(&output));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// Runs the product: its exit code, and all it said.
    pub(super) async fn afterhours(&self, args: &[&str]) -> (i32, String) {
        let output = self.product(args).await;
        (output.status.code().unwrap_or(-1), all(&output))
    }

    async fn product(&self, args: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_afterhours"));
        command.arg("--config").arg(self.at("/etc/afterhours/afterhours.toml")).args(args);
        timeout(BOUND, command.output()).await.expect("in time").expect("the binary")
    }

    /// Runs the product with `--json`; it has to end well.
    pub(super) async fn json(&self, args: &[&str]) -> Value {
        let output = self.product(&[args, &["--json"]].concat()).await;
        assert!(output.status.success(), "{args:?}: {}", all(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", all(&output)))
    }

    /// Starts the daemon; it answers.
    pub(super) async fn serve(&mut self) {
        let log = fs_err::File::create(self.at("/daemon.log")).expect("a log");
        let mut command = self.command(env!("CARGO_BIN_EXE_afterhours"));
        command.arg("--config").arg(self.at("/etc/afterhours/afterhours.toml")).arg("serve");
        self.daemon = Some(command.stdout(Stdio::null()).stderr(log.into_parts().0).spawn().expect("the binary"));
        eventually("the daemon answers", BOUND, async || self.afterhours(&["status"]).await.0 == 0).await;
    }

    /// Stops the daemon in order. A supervised application goes on.
    pub(super) async fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        let pid = daemon.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        rustix::process::kill_process(pid, Signal::TERM).expect("a signal");
        assert!(timeout(BOUND, daemon.wait()).await.expect("in time").expect("a status").success());
    }

    /// A job that is due in a moment; the run it became, when that is over.
    pub(super) async fn night(&self, job: &str) -> Value {
        let soon = (SystemClock.now() + chrono::TimeDelta::seconds(2)).format("%Y-%m-%d %H:%M:%S").to_string();
        self.json(&["job", "create", job, "--app", self.app, "--at", &soon, "--enabled"]).await;
        let mut run = Value::Null;
        eventually("the job has run", BOUND, async || {
            let history = self.json(&["job", "history", job]).await;
            let newest = history.as_array().and_then(|runs| runs.first()).cloned();
            run = newest.unwrap_or_default();
            run["state"] == "finished" || run["outcome"].is_string()
        })
        .await;
        run
    }

    /// The next mail that the daemon sent, as people read it.
    pub(super) async fn mail(&mut self) -> String {
        self.mail.next().await
    }

    /// Publishes a tree as the example says a vendor does it.
    pub(super) async fn publish(&self, tree: &Path, version: &str, build: u64, migrates: bool) {
        let folder = self.at(&format!("/srv/releases/{}/{version}", self.app));
        fs_err::create_dir_all(&folder).expect("a folder");
        let archive = folder.join("app.tar.zst");
        let pack = "tar -C \"$0\" --owner=0 --group=0 -cf - . | zstd -q > \"$1\"";
        self.run(&["sh", "-c", pack, text(tree), text(&archive)]).await;
        let unpacked = self.run(&["du", "-sb", text(tree)]).await;
        let sha256 = self.run(&["sha256sum", text(&archive)]).await;
        let size = self.run(&["stat", "-c", "%s", text(&archive)]).await;
        let first = |text: &str| text.split_whitespace().next().expect("a word").to_owned();
        let values = [
            ("\"2.4.1\"", format!("{version:?}")),
            ("build = 24", format!("build = {build}")),
            (&"0".repeat(64), first(&sha256)),
            ("\nsize_bytes = 0", format!("\nsize_bytes = {size}")),
            ("\nunpacked_bytes = 0", format!("\nunpacked_bytes = {}", first(&unpacked))),
        ];
        let mut said = fs_err::read_to_string(Path::new(EXAMPLES).join("release.toml")).expect("the example");
        for (from, to) in &values {
            assert!(said.contains(from), "release.toml does not say {from} any more");
            said = said.replace(from, to);
        }
        if migrates {
            assert!(said.contains("#migrate = [\"./migrate\"]"), "{said}");
            said = said.replace("#migrate =", "migrate =");
        }
        fs_err::write(folder.join("release.toml"), said).expect("release.toml");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.daemon.take());
        // A supervised application outlives its daemon, but not its machine.
        let state = self.at(&format!("/var/lib/afterhours/apps/{}/supervised.json", self.app));
        let state: Value =
            std::fs::read(state).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let pid = state["main"]["pid"].as_i64().and_then(|pid| Pid::from_raw(pid.try_into().unwrap_or(0)));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// A mail server that the machine is told of.
struct Mail {
    _server: Child,
    said: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Mail {
    async fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/smtp.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut server = command.spawn().expect("python3 (Debian package: python3)");
        let said = BufReader::new(server.stdout.take().expect("piped")).lines();
        let mut mail = Self { _server: server, said, port: 0 };
        let hello: Value = serde_json::from_str(&mail.line().await).expect("JSON");
        mail.port = hello["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        mail
    }

    async fn line(&mut self) -> String {
        let line = timeout(BOUND, self.said.next_line()).await.expect("it says something in time");
        line.expect("text").expect("aiosmtpd (Debian package: python3-aiosmtpd)")
    }

    async fn next(&mut self) -> String {
        let mail: Value = serde_json::from_str(&self.line().await).expect("JSON");
        let content = mail["content"].as_str().expect("text");
        assert!(content.contains("\r\nMIME-Version: 1.0\r\n"), "it is encoded: {content}");
        content.replace("=\r\n", "").replace("\r\n", "\n")
    }
}

/// The text with every path of the machine below `root`.
fn moved(text: &str, root: &Path) -> String {
    // In two passes, because the root may have such a name in it.
    let tops = ["/etc/", "/opt/", "/run/", "/srv/", "/var/"];
    let marked = tops.iter().fold(text.to_owned(), |text, top| text.replace(top, &format!("\0{top}")));
    marked.replace('\0', &root.display().to_string())
}

/// Writes a file with the folders above it; executable when it begins like a script.
pub(super) fn write(path: &Path, text: &str) {
    fs_err::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs_err::write(path, text).expect("a file");
    if text.starts_with("#!") {
        set_mode(path, 0o755);
    }
}

/// A path as an argument.
pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

fn all(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}
