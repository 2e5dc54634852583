//! Jobs from the command line through the real daemon: what is accepted, what is refused with which exit
//! code, and that nothing is stored when it is refused.

use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use afterhours::client::api::Client;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::wire::people::CloseGate;
use chrono::TimeDelta;
use rstest::rstest;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::eventually;

/// A daemon for one application that is only files, in a directory of its own.
struct Desk {
    dir: TempDir,
    daemon: Child,
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Desk {
    async fn open() -> Self {
        Self::with("").await
    }

    /// The same with more applications; `ROOT` is its directory.
    async fn with(more: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().display();
        fs_err::create_dir_all(dir.path().join("opt/desk")).unwrap();
        fs_err::create_dir_all(dir.path().join("releases")).unwrap();
        let config = format!(
            r#"
            [daemon]
            data_dir = "{root}/var"
            socket = "{root}/afterhours.sock"
            [app.desk]
            install_dir = "{root}/opt/desk"
            installed_version = "1.0"
            service = {{ none = true }}
            feed = {{ dir = "{root}/releases" }}
            sessions = [{{ workstations = true }}]
            gate = [{{ file = "{root}/nologin" }}]
            "#
        );
        let config = config + &more.replace("ROOT", &root.to_string());
        fs_err::write(dir.path().join("afterhours.toml"), config).unwrap();
        let desk = Self { daemon: serve(dir.path()), dir };
        desk.answers().await;
        desk
    }

    async fn answers(&self) {
        eventually("the daemon answers", Duration::from_secs(30), async || self.run(&["status"]).0 == 0).await;
    }

    /// Ends the daemon, lets somebody write into its store, and starts it again.
    async fn meddle(&mut self, sql: &str) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        let (store, flags) = (self.dir.path().join("var/afterhours.db"), OpenFlags::SQLITE_OPEN_READ_WRITE);
        let store = Connection::open_with_flags(store, flags).unwrap();
        store.execute_batch(sql).unwrap();
        self.daemon = serve(self.dir.path());
        self.answers().await;
    }

    /// Exit code, stdout and stderr of one command.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = command(self.dir.path()).args(args).stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[args, &["--json"]].concat());
        assert_eq!(code, 0, "{args:?}: {stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let jobs = self.json(&["job", "list"]);
        jobs.as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn serve(dir: &Path) -> Child {
    command(dir).arg("serve").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    command.env_clear().env("TZ", "UTC").env("COLUMNS", "100").arg("--config").arg(dir.join("afterhours.toml"));
    command
}

const AT: &str = "2047-03-01 02:30";

#[rstest]
#[case::unknown_app(&["job", "create", "x", "--app", "dsk", "--at", AT], 3, "there is no application dsk")]
#[case::name_taken(&["job", "create", "first", "--app", "desk", "--at", AT], 4, "a job named first exists already")]
#[case::past(&["job", "create", "x", "--app", "desk", "--at", "2020-01-01 00:00"], 2, "is past")]
#[case::no_time(&["job", "create", "x", "--app", "desk", "--at", "tonight"], 2, "is no date and time")]
#[case::zone(&["job", "create", "x", "--app", "desk", "--at", AT, "--zone", "Europe/Berln"], 2, "did you mean Europe/Berlin?")]
#[case::grace(&["job", "create", "x", "--app", "desk", "--at", AT, "--grace", "5h"], 2, "does not fit into a maximum runtime of 4h")]
#[case::calendar(&["job", "create", "x", "--app", "desk", "--every", "Tuu 02:30"], 2, "no days of the week")]
#[case::never(&["job", "create", "x", "--app", "desk", "--every", "*-02-30 02:30"], 2, "find any time that matches")]
#[case::after_nobody(&["job", "create", "x", "--app", "desk", "--after", "nix"], 3, "there is no job named nix")]
#[case::after_itself(&["job", "edit", "first", "--after", "first"], 2, "start each other for ever: first → first")]
#[case::circle(&["job", "edit", "first", "--after", "second"], 2, "start each other for ever")]
#[case::follow_up_nobody(&["job", "edit", "first", "--on-failure", "nix"], 3, "there is no job named nix")]
#[case::mail(&["job", "edit", "first", "--mail", "nobody"], 2, "is no mail address")]
#[case::bad_name(&["job", "create", "-x", "--app", "desk", "--at", AT], 2, "")]
#[case::disabled(&["job", "run", "first", "--yes"], 4, "afterhours job enable first")]
#[case::needed(&["job", "delete", "first", "--yes"], 4, "edit or delete second first")]
#[case::nobody_to_ask(&["job", "create", "x", "--app", "desk", "--start", "immediate"], 4, "--yes")]
#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing(
    #[case] args: &[&str],
    #[case] code: i32,
    #[case] told: &str,
) {
    let desk = Desk::open().await;
    assert_eq!(desk.run(&["job", "create", "first", "--app", "desk", "--at", AT]).0, 0);
    assert_eq!(desk.run(&["job", "create", "second", "--app", "desk", "--after", "first"]).0, 0);
    let before = desk.json(&["job", "list"]);
    let (got, _, stderr) = desk.run(args);
    assert_eq!(got, code, "{stderr}");
    assert!(stderr.contains(told), "{stderr}");
    assert_eq!(desk.json(&["job", "list"]), before);
}

#[tokio::test]
async fn a_job_lives_and_goes() {
    let desk = Desk::open().await;
    let created = desk.json(&[
        "job",
        "create",
        "nightly",
        "--app",
        "desk",
        "--every",
        "Tue *-*-8..14 02:30",
        "--zone",
        "Europe/Berlin",
    ]);
    assert_eq!((&created["enabled"], &created["due_at"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(desk.json(&["status"])["next"].as_array().unwrap().len(), 0, "a disabled job is never due");

    let enabled = desk.json(&["job", "enable", "nightly"]);
    let due_at = enabled["due_at"].as_str().unwrap().to_owned();
    assert!(due_at.ends_with("00:30:00Z") || due_at.ends_with("01:30:00Z"), "{due_at}: 02:30 in Berlin");
    assert_eq!(desk.json(&["status"])["next"][0]["due_at"], due_at.as_str());

    let edited =
        desk.json(&["job", "edit", "nightly", "--zone", "UTC", "--grace", "10m", "--title", "Every second Tuesday"]);
    assert!(edited["due_at"].as_str().unwrap().ends_with("02:30:00Z"));
    assert_eq!((edited["grace"].as_str(), edited["title"].as_str()), (Some("10m"), Some("Every second Tuesday")));
    assert_eq!(desk.json(&["job", "show", "nightly"])["start"]["zone"], "UTC");

    let plan = desk.json(&["job", "plan", "nightly"]);
    assert_eq!((plan["grace"].as_str(), plan["path"].as_array().unwrap().len()), (Some("10m"), 0));
    assert_eq!(desk.json(&["job", "history", "nightly"]), serde_json::json!([]));

    assert_eq!(desk.json(&["job", "disable", "nightly"])["due_at"], Value::Null);
    assert_eq!(desk.run(&["job", "delete", "nightly", "--yes"]).0, 0);
    assert_eq!(desk.names(), Vec::<String>::new());
    assert_eq!(desk.run(&["job", "show", "nightly"]).0, 3);
}

#[tokio::test]
async fn a_time_in_the_gap_and_one_that_exists_twice_are_told() {
    let desk = Desk::open().await;
    // Summer time in Berlin begins on 31 March 2047 and ends on 27 October 2047.
    let create = |name, at| desk.json(&["job", "create", name, "--app", "desk", "--at", at, "--zone", "Europe/Berlin"]);
    let gap = create("gap", "2047-03-31 02:30");
    assert_eq!(
        (gap["resolved"]["kind"].as_str(), gap["resolved"]["at"].as_str()),
        (Some("gap"), Some("2047-03-31T01:00:00Z"))
    );
    let twice = create("twice", "2047-10-27 02:30");
    assert_eq!(twice["resolved"]["kind"], "overlap");
    assert_eq!(twice["resolved"]["at"], "2047-10-27T00:30:00Z", "once, the first time");
    assert_eq!(twice["resolved"]["second"], "2047-10-27T01:30:00Z");
}

#[tokio::test]
async fn a_run_by_hand_with_nothing_to_install_is_skipped_and_says_why() {
    let desk = Desk::open().await;
    assert_eq!(desk.run(&["job", "create", "nightly", "--app", "desk", "--at", AT, "--enabled"]).0, 0);
    let run = desk.json(&["job", "run", "nightly", "--yes", "--wait"]);
    assert_eq!((run["state"].as_str(), run["outcome"].as_str()), (Some("finished"), Some("skipped")));
    assert!(run["cause"]["message"].as_str().unwrap().contains("1.0"), "{}", run["cause"]);
    let history = desk.json(&["job", "history", "nightly"]);
    assert_eq!(history[0]["id"], run["id"]);
    assert_eq!(desk.json(&["job", "show", "nightly"])["last_run"]["outcome"], "skipped");
    assert_eq!(desk.json(&["gate", "show", "desk"])["position"], "open");
}

#[tokio::test]
async fn a_gate_closed_by_hand_stays_closed_until_it_is_opened_by_hand() {
    let desk = Desk::open().await;
    let closed = desk.json(&["gate", "close", "desk", "--message", "stocktaking"]);
    assert_eq!((closed["position"].as_str(), closed["message"].as_str()), (Some("closed"), Some("stocktaking")));
    assert_eq!(desk.json(&["gate", "show", "desk"])["admits"], false);
    assert_eq!(desk.run(&["client", "run", "--app", "desk", "--", "true"]).0, 4, "a closed gate refuses");
    assert_eq!(desk.run(&["gate", "pass", "desk"]).0, 0);
    assert_eq!(desk.run(&["client", "run", "--app", "desk", "--", "true"]).0, 0, "a pass admits once");
    assert_eq!(desk.run(&["client", "run", "--app", "desk", "--", "true"]).0, 4, "and only once");
    assert_eq!(desk.json(&["gate", "open", "desk"])["admits"], true);
    assert_eq!(
        desk.run(&["client", "run", "--app", "desk", "--", "sh", "-c", "exit 7"]).0,
        7,
        "the program's own code"
    );
}

#[tokio::test]
async fn a_bundle_tells_of_the_run_and_of_no_address() {
    let desk = Desk::open().await;
    let mail = "somebody.private@example.com";
    assert_eq!(desk.run(&["job", "create", "nightly", "--app", "desk", "--at", AT, "--enabled", "--mail", mail]).0, 0);
    let run = desk.json(&["job", "run", "nightly", "--yes", "--wait"]);
    let file = desk.dir.path().join("bundle.tar.zst");
    let (code, _, stderr) = desk.run(&["run", "bundle", &run["id"].to_string(), "-o", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let tar = zstd::decode_all(fs_err::File::open(&file).unwrap()).unwrap();
    let text = String::from_utf8_lossy(&tar);
    for whole in ["about.json", "run.json", "events.json", "findings.json", "\"nightly\""] {
        assert!(text.contains(whole), "{whole}");
    }
    assert!(!text.contains(mail));
}

#[tokio::test]
async fn what_cannot_be_read_does_not_keep_the_daemon_from_starting() {
    let mut desk = Desk::open().await;
    for name in ["first", "second"] {
        assert_eq!(desk.run(&["job", "create", name, "--app", "desk", "--at", AT]).0, 0);
    }
    desk.meddle(
        "UPDATE jobs SET spec = '{}' WHERE name = 'first'; INSERT INTO gates VALUES ('desk', '{}');
         INSERT INTO sessions VALUES ('desk', 'ws-1', '{}');
         INSERT INTO runs (app, body, state, fence, queued_at) VALUES ('desk', '{}', 'queued', 1, '2026-11-22T02:30:00Z')",
    )
    .await;
    let status = desk.json(&["status"]);
    let notices: Vec<&str> = status["notices"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    for told in ["job delete first", "gate open desk", "run 1 cannot be read", "session end desk ws-1"] {
        assert!(notices.iter().any(|notice| notice.contains(told)), "{told}: {notices:?}");
    }
    assert_eq!(notices.len(), 4, "{notices:?}");

    // It is taken for the worst.
    assert_eq!(desk.json(&["gate", "show", "desk"])["admits"], false);
    assert_eq!(status["apps"][0]["sessions"], Value::Null);
    assert_eq!(desk.run(&["session", "list", "desk"]).0, 7);
    assert_eq!(desk.names(), ["second"]);

    // What the notices say to type helps.
    for remedy in [
        &["job", "delete", "first", "--yes"][..],
        &["gate", "open", "desk"],
        &["session", "end", "desk", "ws-1", "--yes"],
    ] {
        let (code, _, stderr) = desk.run(remedy);
        assert_eq!(code, 0, "{remedy:?}: {stderr}");
    }
    desk.meddle("DELETE FROM runs").await;
    let status = desk.json(&["status"]);
    assert_eq!((status["notices"].as_array().unwrap().len(), &status["apps"][0]["sessions"]), (0, &Value::from(0)));
    assert_eq!(desk.json(&["gate", "show", "desk"])["admits"], true);
}

#[tokio::test]
async fn a_gate_that_does_not_open_everywhere_says_what_to_do() {
    let desk = Desk::open().await;
    let nologin = desk.dir.path().join("nologin");
    assert_eq!(desk.run(&["gate", "close", "desk"]).0, 0);
    fs_err::remove_file(&nologin).unwrap();
    fs_err::create_dir(&nologin).unwrap();
    let (code, _, stderr) = desk.run(&["gate", "open", "desk"]);
    assert_eq!(code, 1);
    for told in ["open the gate of desk everywhere", "remove", "it is tried again by itself"] {
        assert!(stderr.contains(told), "{told}: {stderr}");
    }
    let (_, shown, _) = desk.run(&["gate", "show", "desk"]);
    assert!(shown.starts_with("desk: open\n  closed:  failed to open the gate by removing the file"), "{shown}");
    assert!(shown.contains("or at once with `afterhours gate open desk`"), "{shown}");
    let (_, status, _) = desk.run(&["status"]);
    assert!(status.contains("open in part") && status.contains("the gate of desk is open, but failed to"), "{status}");
    fs_err::remove_dir(&nologin).unwrap();
    assert_eq!(desk.run(&["gate", "open", "desk"]).0, 0);
    assert_eq!(desk.run(&["gate", "show", "desk"]).1.trim(), "desk: open");
}

#[tokio::test]
async fn trouble_with_one_application_keeps_no_chore_from_the_others() {
    // The first in the order of the alphabet is the one in trouble.
    let app = |name: &str| {
        format!(
            "[app.{name}]\ninstall_dir = \"ROOT/opt/{name}\"\ninstalled_version = \"1.0\"\n\
             service = {{ none = true }}\nfeed = {{ dir = \"ROOT/releases\" }}\nsessions = []\n\
             gate = [{{ close = [\"touch\", \"ROOT/{name}.closed\"], open = [\"rm\", \"ROOT/{name}.closed\"] }}]\n"
        )
    };
    let desk = Desk::with(&(app("attic") + &app("cellar"))).await;
    for name in ["attic", "cellar"] {
        // Whose they are decides whose commands these are.
        fs_err::create_dir_all(desk.dir.path().join("opt").join(name)).unwrap();
    }
    let client = Client::new(&desk.dir.path().join("afterhours.sock")).unwrap();
    let until = SystemClock.now() + TimeDelta::seconds(2);
    for name in ["attic", "cellar"] {
        let close = CloseGate { until: Some(until), message: None };
        client.close_gate(&name.parse().unwrap(), &close).await.unwrap();
    }
    let closed = |name: &str| desk.dir.path().join(format!("{name}.closed"));
    // Now the attic's own command cannot open it.
    fs_err::remove_file(closed("attic")).unwrap();
    eventually("the cellar is open", Duration::from_secs(90), async || !closed("cellar").exists()).await;
    assert_eq!(desk.json(&["gate", "show", "cellar"])["position"], "open");
    // Its trouble over, the attic is not forgotten either.
    fs_err::write(closed("attic"), "").unwrap();
    eventually("the attic is open", Duration::from_secs(90), async || !closed("attic").exists()).await;
}

#[tokio::test]
async fn who_is_no_operator_sees_nothing_but_may_work() {
    let desk = Desk::open().await;
    assert_eq!(desk.run(&["job", "create", "first", "--app", "desk", "--at", AT]).0, 0);
    let set_mode = |path: &Path, mode| {
        fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    set_mode(desk.dir.path(), 0o755);
    let as_nobody = |args: &[&str]| {
        let ours = command(desk.dir.path());
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(ours.get_program());
        let output = nobody.args(ours.get_args()).args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    // The socket is not theirs; nor would it help if it were.
    for (mode, why) in [(None, "Permission denied"), (Some(0o666), "nobody")] {
        if let Some(mode) = mode {
            set_mode(&desk.dir.path().join("afterhours.sock"), mode);
        }
        for look in [
            &["status"][..],
            &["job", "list"],
            &["job", "show", "first"],
            &["run", "list"],
            &["session", "list", "desk"],
        ] {
            let (code, said) = as_nobody(look);
            assert_eq!(code, Some(8), "{look:?}: {said}");
            assert!(said.contains(why) && !said.contains("first"), "{look:?}: {said}");
        }
    }
    let (code, said) = as_nobody(&["client", "run", "--app", "desk", "--", "echo", "at work"]);
    assert_eq!((code, said.contains("at work")), (Some(0), true), "{said}");
}
