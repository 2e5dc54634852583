//! The command line from outside: help texts, exit codes, JSON, and how answers of a daemon are shown.
//!
//! The daemon is a stand-in here: a socket with answers made of the wire's own types. Nights with the
//! real one are tested elsewhere.

use std::convert::Infallible;
use std::io::Read;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use afterhours::domain::event::RunEvent;
use afterhours::domain::failure::Failure;
use afterhours::domain::run::Outcome;
use afterhours::domain::run::RunId;
use afterhours::domain::session::Census;
use afterhours::domain::step::At;
use afterhours::domain::step::Step;
use afterhours::wire::error::ErrorBody;
use afterhours::wire::error::ErrorKind;
use afterhours::wire::error::ErrorView;
use afterhours::wire::job::CreateJob;
use afterhours::wire::job::StartRequest;
use afterhours::wire::people::SessionsView;
use afterhours::wire::route;
use afterhours::wire::run::EventsQuery;
use afterhours::wire::run::RunEventView;
use afterhours::wire::run::RunStateName;
use afterhours::wire::run::RunView;
use assert_cmd::Command;
use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use rstest::rstest;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

/// The program, in a known terminal, zone and environment.
fn afterhours() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    command.env_clear().env("TZ", "UTC").env("COLUMNS", "100");
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    let output = afterhours().args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Every command there is, with its subcommands, as its own help lists them.
fn commands(path: &[String], found: &mut Vec<(String, String)>) {
    let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let (code, help, _) = run(&args);
    assert_eq!(code, 0, "{args:?}");
    let subcommands: Vec<String> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect();
    found.push((path.join("_"), help));
    for name in subcommands {
        commands(&[path, &[name]].concat(), found);
    }
}

#[test]
fn help_texts_read_well() {
    let mut found = Vec::new();
    commands(&[], &mut found);
    assert!(found.len() > 40, "{}", found.len());
    for (name, help) in &found {
        assert!(help.lines().all(|line| line.chars().count() <= 130), "{name} is too wide");
        insta::assert_snapshot!(format!("help_{name}").trim_end_matches('_'), help);
    }
}

#[test]
fn the_fixed_names_exist() {
    let mut found = Vec::new();
    commands(&[], &mut found);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let fixed = "init doctor serve demo status job_create job_list job_show job_edit job_enable job_disable job_delete \
                 job_run job_plan job_history run_list run_show run_watch run_cancel run_resolve run_bundle update_check \
                 update_now session_list session_message session_end gate_show gate_close gate_open gate_pass \
                 backup_check backup_make backup_list snapshot_list client_run client_status completions man feed_create \
                 feed_publish feed_sign feed_rotate feed_show \
                 audit_verify audit_export";
    for name in fixed.split_whitespace() {
        assert!(names.contains(&name), "{name} is missing");
    }
}

#[rstest]
#[case(&["job", "list", "--nonsense"])]
#[case(&["job"])]
#[case(&["--color", "pink", "status"])]
#[case(&["job", "create", "nightly", "--app", "orders"])]
#[case(&["run", "show", "last"])]
#[case(&["run", "resolve", "7", "--as", "mine"])]
#[case(&["gate", "pass", "orders", "--valid", "soon"])]
#[case(&["gate", "close", "orders", "--until", "yesterday"])]
#[case(&["client", "run", "--app", "orders"])]
#[case(&["status", "-q", "-v"])]
fn misuse_exits_with_2(#[case] args: &[&str]) {
    let (code, stdout, stderr) = run(args);
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(!stderr.is_empty());
}

#[test]
fn misuse_is_a_json_document_too() {
    let (code, stdout, _) = run(&["--json", "job", "bogus"]);
    assert_eq!(code, 2);
    assert_eq!(serde_json::from_str::<ErrorBody>(&stdout).unwrap().error.kind, ErrorKind::Usage);
}

#[test]
fn version_is_an_answer() {
    assert_eq!(run(&["--version"]), (0, format!("afterhours {}\n", env!("CARGO_PKG_VERSION")), String::new()));
}

#[test]
fn a_daemon_that_does_not_run_is_7() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("afterhours.toml");
    let paths = format!("[daemon]\ndata_dir = \"{0}/state\"\nsocket = \"{0}/nobody.sock\"\n", dir.path().display());
    std::fs::write(&config, paths).unwrap();
    for command in [&["job", "list"][..], &["status"], &["run", "watch", "1"], &["gate", "open", "orders"]] {
        let args: Vec<&str> = command.iter().copied().chain(["--json", "--config", config.to_str().unwrap()]).collect();
        // A watch gives a daemon time to come back; one that was never there is no reason to wait.
        let (code, stdout, stderr) = run(&args);
        assert_eq!(code, 7, "{stderr}");
        let body: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(body["error"]["kind"], "unavailable");
        assert_eq!(body["error"]["because"][0], "No such file or directory (os error 2)");
        let hint = body["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("with `afterhours serve`, or `systemctl start afterhours`"), "{hint}");
        assert!(stderr.contains(&format!("hint: {hint}")), "{stderr}");
    }
}

#[test]
fn manual_pages_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    assert_eq!(run(&["man", pages.to_str().unwrap()]).0, 0);
    let page = std::fs::read_to_string(pages.join("afterhours-job-create.1")).unwrap();
    assert!(page.contains(r"\-\-misfire") && page.contains("Create a job"), "{page}");
    assert!(!pages.join("afterhours-job-help.1").exists());
}

#[rstest]
#[case("bash")]
#[case("zsh")]
#[case("fish")]
fn completions_know_the_commands(#[case] shell: &str) {
    let (code, script, _) = run(&["completions", shell]);
    assert_eq!(code, 0);
    assert!(script.contains("snapshot") && script.contains("misfire-tolerance"));
}

/// A daemon that answers as it was told.
struct StandIn {
    _runtime: tokio::runtime::Runtime,
    _dir: TempDir,
    socket: PathBuf,
}

impl StandIn {
    fn new(router: Router) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("afterhours.sock");
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&socket).unwrap() });
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { _runtime: runtime, _dir: dir, socket }
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let args: Vec<&str> = args.iter().copied().chain(["--socket", self.socket.to_str().unwrap()]).collect();
        run(&args)
    }
}

fn refusal(kind: ErrorKind) -> Response {
    let view = ErrorView::new(kind, "that cannot be").hint("do something else");
    (StatusCode::from_u16(kind.http_status()).unwrap(), Json(ErrorBody::from(view))).into_response()
}

#[rstest]
#[case(ErrorKind::Usage, 2)]
#[case(ErrorKind::NotFound, 3)]
#[case(ErrorKind::Refused, 4)]
#[case(ErrorKind::NotPermitted, 8)]
#[case(ErrorKind::Failed, 1)]
#[case(ErrorKind::Unavailable, 7)]
fn the_daemons_own_words_are_shown(#[case] kind: ErrorKind, #[case] expected: i32) {
    let daemon = StandIn::new(Router::new().route(route::JOB, get(move || async move { refusal(kind) })));
    let (code, stdout, stderr) = daemon.run(&["job", "show", "nightly"]);
    assert_eq!((code, stdout.as_str()), (expected, ""));
    assert_eq!(stderr, "error: that cannot be\n   hint: do something else\n");
}

#[test]
fn a_stranger_at_the_socket_is_no_daemon() {
    let daemon = StandIn::new(Router::new().route(route::JOBS, get(async || "hello")));
    assert_eq!(daemon.run(&["job", "list"]).0, 1);
    let (code, _, stderr) = daemon.run(&["status"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("404"), "{stderr}");
}

fn created(job: CreateJob) -> Value {
    json!({
        "name": job.name, "title": "Order desk", "type": "software-update", "app": job.app, "enabled": job.enabled,
        "start": {"kind": "time", "local": "2026-10-25T02:30:00", "zone": "Europe/Berlin", "calendar": null,
                  "job": null, "at": "2026-10-25T00:30:00Z"},
        "due_at": null, "missed_at": null, "last_run": null, "remarks": "", "grace": job.grace, "max_runtime": "4h",
        "misfire": "run", "misfire_tolerance": "4h", "to": null, "on_failure": null, "mail": [], "created_by": "root",
        "created_at": "2026-10-24T20:00:00Z", "updated_at": "2026-10-24T20:00:00Z",
        "resolved": {"at": "2026-10-25T00:30:00Z", "kind": "overlap", "first": "2026-10-25T00:30:00Z",
                     "second": "2026-10-25T01:30:00Z"},
        "warnings": ["that is within working hours"]
    })
}

#[test]
fn a_created_job_shows_both_instants() {
    let create = async |Json(job): Json<CreateJob>| {
        assert!(matches!(&job.start, StartRequest::Time { local, .. } if local == "2026-10-25 02:30"));
        (StatusCode::CREATED, Json(created(job)))
    };
    let daemon = StandIn::new(Router::new().route(route::JOBS, post(create)));
    let line = ["job", "create", "nightly", "--app", "orders", "--at", "2026-10-25 02:30", "--grace", "5m"];
    let (code, stdout, stderr) = daemon.run(&line);
    assert_eq!((code, stderr.as_str()), (0, "warning: that is within working hours\n"));
    insta::assert_snapshot!("created_job", stdout);
    let (code, stdout, _) = daemon.run(&[&line[..], &["--json"]].concat());
    assert_eq!(code, 0);
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&json["name"], &json["grace"]), (&json!("nightly"), &json!("5m")));
    assert_eq!(json["resolved"]["second"], "2026-10-25T01:30:00Z");
}

fn logged_in(census: Census) -> Router {
    let view = SessionsView::new("orders".parse().unwrap(), census);
    Router::new().route(route::SESSIONS, get(async || Json(view)))
}

fn anna() -> Census {
    let session = json!({"id": "41", "app": "orders", "user": "anna", "workstation": "till-2", "unsaved": true});
    Census::Known(vec![serde_json::from_value(session).unwrap()])
}

#[test]
fn an_immediate_job_names_who_is_logged_in_and_asks() {
    let create = async |Json(job): Json<CreateJob>| (StatusCode::CREATED, Json(created(job)));
    let daemon = StandIn::new(logged_in(anna()).route(route::JOBS, post(create)));
    let line = ["job", "create", "now", "--app", "orders", "--start", "immediate"];
    let (code, stdout, stderr) = daemon.run(&line);
    assert_eq!((code, stdout.as_str()), (4, ""));
    assert!(stderr.contains("anna") && stderr.contains("--yes"), "{stderr}");
    assert_eq!(daemon.run(&[&line[..], &["--yes"]].concat()).0, 0);
}

#[test]
fn nobody_is_logged_out_unasked() {
    let daemon = StandIn::new(logged_in(anna()));
    let (code, _, stderr) = daemon.run(&["session", "end", "orders"]);
    assert_eq!(code, 4);
    assert!(stderr.contains("anna") && stderr.contains("Unsaved work is lost"), "{stderr}");
}

/// On a terminal that `script` (Debian: bsdutils) makes, with `key` typed.
#[rstest]
#[case("y", 0)]
#[case("n", 4)]
fn a_person_is_asked(#[case] key: &'static str, #[case] expected: i32) {
    let delete = async || StatusCode::NO_CONTENT;
    let daemon = StandIn::new(Router::new().route(route::JOB, axum::routing::delete(delete)));
    let program = env!("CARGO_BIN_EXE_afterhours");
    let line = format!("{program} job delete nightly --socket {}", daemon.socket.display());
    let mut script = std::process::Command::new("timeout")
        .args(["--foreground", "20", "script", "-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut screen = String::new();
    let (mut keyboard, mut output) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    // The key is typed when the question stands there: what is typed before may be thrown away.
    let mut piece = [0; 1024];
    while !screen.contains("nightly?") {
        let read = output.read(&mut piece).unwrap();
        assert!(read > 0, "no question: {screen}; is `script` there? (Debian: bsdutils)");
        screen.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    keyboard.write_all(key.as_bytes()).unwrap();
    let ended = script.wait().unwrap();
    output.read_to_string(&mut screen).unwrap();
    assert_eq!(ended.code(), Some(expected), "{screen}");
    assert!(screen.contains(if key == "y" { "Deleted job nightly" } else { "you said no" }), "{screen}");
}

#[test]
fn an_unknown_census_is_not_an_empty_list() {
    let daemon = StandIn::new(logged_in(Census::Unknown("the provider did not answer".to_owned())));
    let (code, stdout, stderr) = daemon.run(&["session", "list", "orders", "--json"]);
    assert_eq!(code, 7, "{stderr}");
    let body: ErrorBody = serde_json::from_str(&stdout).unwrap();
    assert_eq!(body.error.because, ["the provider did not answer"]);
    let daemon = StandIn::new(logged_in(anna()));
    let (code, stdout, _) = daemon.run(&["session", "list", "orders", "--json"]);
    let sessions: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &sessions[0]["user"], &sessions[0]["answer"]), (0, &json!("anna"), &Value::Null));
}

fn run_view(state: RunStateName, outcome: Option<Outcome>) -> RunView {
    let value = json!({
        "id": 7, "job": "nightly", "type": "software-update", "app": "orders", "trigger": "schedule",
        "trigger_run": null, "missed_at": null, "started_by": "root", "state": state, "at": null, "outcome": outcome,
        "cause": {"message": "the new version did not answer"}, "waiting_until": null, "from_version": "3.0",
        "to_version": "4.0", "queued_at": "2026-11-22T01:30:00Z", "started_at": "2026-11-22T01:30:00Z",
        "finished_at": "2026-11-22T01:31:00Z", "downtime_ms": 4200, "steps": []
    });
    serde_json::from_value(value).unwrap()
}

/// A log whose connection breaks after two lines; what was shown must not be shown again.
fn broken_log(looks: &AtomicUsize, query: EventsQuery) -> Response {
    let at = At::first(Step::CheckHealth);
    let failure = Failure::new("reach http://127.0.0.1:8080/health");
    let story = [
        RunEvent::Started,
        RunEvent::StepFailed { at, failure },
        RunEvent::UndoSucceeded { at: At::first(Step::Swap), message: String::new() },
        RunEvent::Finished { outcome: Outcome::RolledBack },
    ];
    let lines = (1..).zip(story).filter(|(seq, _)| *seq > query.after).map(|(seq, event)| {
        let logged_at = "2026-11-22T01:30:00Z".parse().unwrap();
        let view = RunEventView::Event { run: RunId(7), seq, logged_at, event };
        serde_json::to_string(&view).unwrap() + "\n"
    });
    let is_first = looks.fetch_add(1, Ordering::SeqCst) == 0;
    let mut pieces: Vec<Result<String, std::io::Error>> = lines.map(Ok).collect();
    if is_first {
        pieces.truncate(2);
        pieces.push(Ok("{\"kind\":\"event\",\"ru".to_owned()));
        pieces.push(Err(std::io::Error::other("the daemon is gone")));
    }
    Body::from_stream(futures_util::stream::iter(pieces)).into_response()
}

#[rstest]
#[case(RunStateName::Finished, Some(Outcome::RolledBack), 5)]
#[case(RunStateName::Finished, Some(Outcome::Succeeded), 0)]
#[case(RunStateName::Stuck, None, 6)]
#[case(RunStateName::Finished, Some(Outcome::Failed), 1)]
fn watching_goes_on_where_it_was_cut_off(
    #[case] state: RunStateName,
    #[case] outcome: Option<Outcome>,
    #[case] expected: i32,
) {
    let looks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&looks);
    let router = Router::new()
        .route(route::RUN, get(async move || Json(run_view(state, outcome))))
        .route(route::RUN_EVENTS, get(async move |Query(query)| Ok::<_, Infallible>(broken_log(&seen, query))));
    let daemon = StandIn::new(router);
    let (code, stdout, stderr) = daemon.run(&["run", "watch", "7"]);
    assert_eq!(code, expected, "{stderr}");
    assert_eq!(looks.load(Ordering::SeqCst), 2);
    insta::assert_snapshot!(format!("watch_exits_with_{expected}"), stdout);
}

#[test]
fn watching_with_json_gives_one_document() {
    let looks = Arc::new(AtomicUsize::new(1));
    let router = Router::new()
        .route(route::RUN, get(async || Json(run_view(RunStateName::Finished, Some(Outcome::RolledBack)))))
        .route(route::RUN_EVENTS, get(async move |Query(query)| Ok::<_, Infallible>(broken_log(&looks, query))));
    let (code, stdout, _) = StandIn::new(router).run(&["run", "watch", "7", "--json"]);
    assert_eq!(code, 5);
    let run: RunView = serde_json::from_str(&stdout).unwrap();
    assert_eq!((run.outcome, run.downtime_ms), (Some(Outcome::RolledBack), Some(4200)));
}

#[test]
fn a_bundle_is_whole_or_absent() {
    let broken = async || {
        let pieces = [Ok("half"), Err(std::io::Error::other("gone"))];
        Body::from_stream(futures_util::stream::iter(pieces)).into_response()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run-7.tar.zst");
    let line = ["run", "bundle", "7", "-o", file.to_str().unwrap()];
    let daemon = StandIn::new(Router::new().route(route::RUN_BUNDLE, get(async || vec![7_u8; 300_000])));
    assert_eq!(daemon.run(&line).0, 0);
    assert_eq!(std::fs::read(&file).unwrap(), vec![7; 300_000]);
    let daemon = StandIn::new(Router::new().route(route::RUN_BUNDLE, get(broken)));
    assert_eq!(daemon.run(&line).0, 7);
    assert_eq!(std::fs::read(&file).unwrap().len(), 300_000);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn who_only_looks_makes_nothing() {
    let dir = TempDir::new().unwrap();
    for folder in ["opt/orders", "releases", "var"] {
        fs_err::create_dir_all(dir.path().join(folder)).unwrap();
    }
    let config = r#"
        [daemon]
        data_dir = "ROOT/state"
        socket = "ROOT/run/afterhours.sock"
        [app.orders]
        install_dir = "ROOT/opt/orders"
        snapshot_dir = "ROOT/copies"
        service = { run = ["/bin/sleep", "1000"] }
        gate = [{ file = "ROOT/opt/nologin" }]
        data = { paths = ["ROOT/var"] }
        feed = { dir = "ROOT/releases" }
        backup = { evidence = { files = "ROOT/backup/*.dump" } }
    "#;
    let file = dir.path().join("afterhours.toml");
    fs_err::write(&file, config.replace("ROOT", dir.path().to_str().unwrap())).unwrap();
    let all = || -> Vec<PathBuf> {
        let entries = walkdir::WalkDir::new(dir.path()).sort_by_file_name().into_iter();
        entries.map(|entry| entry.unwrap().into_path()).collect()
    };
    let before = all();
    for args in [&["doctor", "orders"][..], &["update", "check", "orders"], &["backup", "check", "orders"]] {
        let (code, said, talk) = run(&[args, &["--config", file.to_str().unwrap()]].concat());
        assert!(!said.is_empty() || !talk.is_empty(), "{args:?}: {code}");
        assert_eq!(all(), before, "{args:?}: {said}{talk}");
    }
}
