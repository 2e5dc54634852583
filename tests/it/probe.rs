//! The probe against real servers on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use afterhours::config::settings::HealthProbe;
use afterhours::config::settings::HealthSettings;
use afterhours::domain::answers::Answers;
use afterhours::domain::finding::Severity;
use afterhours::domain::name::AppName;
use afterhours::domain::progress::Progress;
use afterhours::domain::progress::Silent;
use afterhours::domain::span::Span;
use afterhours::exec::ExecError;
use afterhours::probe::BODY_BYTES_MAX;
use afterhours::probe::Probe;
use afterhours::probe::ProbeError;
use afterhours::probe::before::Asking;
use afterhours::probe::before::Leave;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::support::command;
use crate::support::sh;

/// A server that gives the n-th connection the n-th answer, then the last one again and again.
struct Server {
    address: SocketAddr,
    /// Every request it got, one a connection.
    requests: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
enum Say {
    /// An answer with status, more header lines, and body.
    Answer(u16, &'static str, String),
    /// Nothing, for good.
    Nothing,
    /// A body without end.
    Endless,
}

impl Server {
    async fn start(answers: Vec<Say>) -> Self {
        // Once a process; a second time it is there already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let say = answers[number.min(answers.len() - 1)].clone();
                open.push(tokio::spawn(serve(stream, say, seen.clone())));
            }
        });
        Self { address, requests, task }
    }

    fn url(&self, path: &str) -> url::Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, say: Say, seen: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk).await {
            Ok(read @ 1..) => request.extend_from_slice(&chunk[..read]),
            _ => return,
        }
    }
    seen.lock().unwrap().push(String::from_utf8_lossy(&request).to_ascii_lowercase());
    match say {
        Say::Answer(status, headers, body) => {
            let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            // The connection stays open for another question, which must not come.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            if !rest.is_empty() {
                seen.lock().unwrap().push(format!("on a used connection: {}", String::from_utf8_lossy(&rest)));
            }
        }
        Say::Nothing => std::future::pending().await,
        Say::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            while stream.write_all(format!("1000\r\n{}\r\n", "9".repeat(0x1000)).as_bytes()).await.is_ok() {}
            seen.lock().unwrap().push("hung up".to_owned());
        }
    }
}

fn ok(body: &str) -> Say {
    Say::Answer(200, "", body.to_owned())
}

fn bad(status: u16) -> Say {
    Say::Answer(status, "", "down".to_owned())
}

fn settings(probe: HealthProbe) -> HealthSettings {
    let every = Span::from(Duration::from_millis(10));
    HealthSettings { probe, version: None, ca_file: None, deep: None, times: 3, every, deadline: Span::secs(10) }
}

fn version(text: &str) -> Answers {
    text.parse().unwrap()
}

fn orders() -> AppName {
    "orders".parse().unwrap()
}

fn no_env() -> BTreeMap<String, String> {
    BTreeMap::new()
}

/// A short deadline for what will not get well.
fn hopeless(probe: HealthProbe) -> HealthSettings {
    HealthSettings { deadline: Span::from(Duration::from_millis(300)), ..settings(probe) }
}

/// The last bad answer of a probe that gave up.
fn last_bad(error: ProbeError) -> ProbeError {
    match error {
        ProbeError::NotHealthy { source: Some(last), .. } => *last,
        other => panic!("it did not give up after a bad answer: {other}"),
    }
}

/// Remembers what it was told.
#[derive(Default)]
struct Notes(Mutex<Vec<(u64, String)>>);

impl Progress for Notes {
    fn advance(&self, done: u64, total: Option<u64>, what: &str) {
        assert_eq!(total, Some(3));
        self.0.lock().unwrap().push((done, what.to_owned()));
    }
}

#[tokio::test]
async fn good_answers_count_only_in_a_row() {
    let server = Server::start(vec![ok("1.2"), bad(503), ok("1.2"), ok("1.2"), ok("1.2")]).await;
    let probe = Probe::new(&settings(HealthProbe::Http(server.url("/health")))).unwrap();
    let notes = Notes::default();
    let healthy = probe.wait_healthy(Some(&version("1.2")), &no_env(), &notes).await.unwrap();
    assert_eq!((healthy.asked, healthy.version.as_deref()), (5, Some("1.2")));
    assert!(healthy.took >= Span::from(Duration::from_millis(40)), "it did not pause: {}", healthy.took);
    let done: Vec<_> = notes.0.lock().unwrap().iter().map(|(done, _)| *done).collect();
    assert_eq!(done, [1, 0, 1, 2, 3]);
    assert!(notes.0.lock().unwrap()[1].1.contains("503"));
}

#[tokio::test]
async fn every_question_is_a_new_one() {
    let server = Server::start(vec![ok("1.2")]).await;
    let probe = Probe::new(&settings(HealthProbe::Http(server.url("/health?deep=1")))).unwrap();
    probe.wait_healthy(None, &no_env(), &Silent).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    for request in requests {
        assert!(request.starts_with("get /health?deep=1 http/1.1\r\n"), "{request}");
        assert!(request.contains("\r\ncache-control: no-cache"), "{request}");
    }
}

#[tokio::test]
async fn an_answer_from_a_cache_does_not_count() {
    let server = Server::start(vec![Say::Answer(200, "Age: 30\r\n", "1.2".to_owned())]).await;
    let probe = Probe::new(&settings(HealthProbe::Http(server.url("/")))).unwrap();
    let error = probe.ask(Some(&version("1.2")), &no_env()).await.unwrap_err();
    assert!(matches!(error, ProbeError::Cached { age: 30, .. }), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn the_old_version_that_still_answers_is_not_the_new_one() {
    let server = Server::start(vec![ok("{\"status\": \"up\", \"version\": \"1.1\"}")]).await;
    let probe = Probe::new(&hopeless(HealthProbe::Http(server.url("/")))).unwrap();
    let error = probe.wait_healthy(Some(&version("1.2")), &no_env(), &Silent).await.unwrap_err();
    assert_eq!(last_bad(error).to_string(), "see version 1.2: version 1.1 answers");
    let answer = probe.ask(None, &no_env()).await.unwrap();
    assert_eq!(answer.version.as_deref(), Some("1.1"), "nothing is expected after a rollback from an unknown version");
}

#[tokio::test]
async fn a_clear_answer_of_another_version_ends_the_waiting() {
    let server = Server::start(vec![bad(503), ok("1.1"), bad(503), ok("1.1")]).await;
    let probe = Probe::new(&settings(HealthProbe::Http(server.url("/")))).unwrap();
    let begin = std::time::Instant::now();
    let error = probe.wait_healthy(Some(&version("1.2")), &no_env(), &Silent).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5), "the deadline is 10 s of downtime");
    assert!(error.to_string().contains("6 asked, the last 3 by another version"), "{error}");
    assert_eq!(error.exhibit().unwrap().lines, ["1.1"]);
    assert!(error.hint().unwrap().contains("answers"));
}

#[tokio::test]
async fn what_a_release_declares_is_the_answer() {
    let server = Server::start(vec![ok("1.2+build.7")]).await;
    let probe = Probe::new(&settings(HealthProbe::Http(server.url("/")))).unwrap();
    for good in ["1.2+build.7", "1.2+*"] {
        let healthy = probe.wait_healthy(Some(&version(good)), &no_env(), &Silent).await.unwrap();
        assert_eq!(healthy.version.as_deref(), Some("1.2+build.7"));
    }
    probe.ask(Some(&version("1.2")), &no_env()).await.unwrap_err();
}

#[tokio::test]
async fn a_question_that_the_deadline_cut_hides_no_cause() {
    let server = Server::start(vec![bad(503), Say::Nothing]).await;
    let probe = Probe::new(&hopeless(HealthProbe::Http(server.url("/")))).unwrap();
    let error = last_bad(probe.wait_healthy(None, &no_env(), &Silent).await.unwrap_err());
    assert!(matches!(error, ProbeError::Status { .. }), "{error}");
}

#[tokio::test]
async fn a_page_that_sends_to_a_login_is_seen_before_the_run() {
    let server = Server::start(vec![Say::Answer(302, "Location: /login\r\n", String::new())]).await;
    let probe = Probe::new(&settings(HealthProbe::Http(server.url("/")))).unwrap();
    let begin = std::time::Instant::now();
    let standing = probe.standing(Some(&version("1.2")), &no_env(), Asking::Patiently).await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(server.requests().len(), 3, "it is clear after three");
    assert_eq!(standing.findings(&orders(), Leave::default())[0].severity, Severity::Fatal);
}

#[tokio::test]
async fn an_application_that_is_just_starting_is_waited_for() {
    let server = Server::start(vec![bad(503), bad(503), bad(503), bad(503), ok("1.2")]).await;
    let probe = Probe::new(&settings(HealthProbe::Http(server.url("/")))).unwrap();
    let standing = probe.standing(Some(&version("1.2")), &no_env(), Asking::Patiently).await;
    assert!(standing.is_good());
}

#[tokio::test]
async fn another_spelling_is_fatal_unless_the_new_release_declares_its_own() {
    let server = Server::start(vec![ok("1.2+build.7")]).await;
    let probe = Probe::new(&settings(HealthProbe::Http(server.url("/")))).unwrap();
    let standing = probe.standing(Some(&version("1.2")), &no_env(), Asking::Once).await;
    assert_eq!(standing.version.as_deref(), Some("1.2+build.7"));
    let of = |leave| standing.findings(&orders(), leave)[0].severity;
    assert_eq!(of(Leave::default()), Severity::Fatal);
    assert_eq!(of(Leave { declared: true, ..Leave::default() }), Severity::Warning);
}

#[tokio::test]
async fn the_version_page_decides_where_there_is_one() {
    let health = Server::start(vec![ok("1.1")]).await;
    let tells = Server::start(vec![ok("1.2\n"), ok("<html>welcome</html>"), bad(404)]).await;
    let settings =
        HealthSettings { version: Some(tells.url("/version")), ..settings(HealthProbe::Http(health.url("/health"))) };
    let probe = Probe::new(&settings).unwrap();
    let expected = version("1.2");
    let answer = probe.ask(Some(&expected), &no_env()).await.unwrap();
    assert_eq!(answer.version.as_deref(), Some("1.2"));
    let error = probe.ask(Some(&expected), &no_env()).await.unwrap_err();
    assert!(matches!(error, ProbeError::NoVersion { .. }), "{error}");
    let error = probe.ask(Some(&expected), &no_env()).await.unwrap_err();
    assert!(matches!(error, ProbeError::Status { .. }), "{error}");
}

#[tokio::test]
async fn the_error_at_the_deadline_names_the_last_bad_answer() {
    let server = Server::start(vec![bad(500), bad(503)]).await;
    let probe = Probe::new(&hopeless(HealthProbe::Http(server.url("/health")))).unwrap();
    let error = probe.wait_healthy(None, &no_env(), &Silent).await.unwrap_err();
    assert!(error.to_string().starts_with("see 3 good answers in a row within 300ms: "), "{error}");
    assert!(error.to_string().ends_with(" asked, the last 0 were good"), "{error}");
    assert!(error.hint().unwrap().contains("curl"));
    let last = last_bad(error).to_string();
    assert_eq!(last, format!("get a good answer from {}: it answered 503 Service Unavailable", server.url("/health")));
}

#[tokio::test]
async fn a_server_that_never_answers_costs_no_more_than_the_deadline() {
    let server = Server::start(vec![Say::Nothing]).await;
    let probe = Probe::new(&hopeless(HealthProbe::Http(server.url("/")))).unwrap();
    let begin = std::time::Instant::now();
    let error = probe.wait_healthy(None, &no_env(), &Silent).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(matches!(last_bad(error), ProbeError::Slow { .. }));
}

#[tokio::test]
async fn a_body_without_end_is_cut() {
    let server = Server::start(vec![Say::Endless]).await;
    let probe = Probe::new(&settings(HealthProbe::Http(server.url("/")))).unwrap();
    let answer = probe.ask(None, &no_env()).await.unwrap();
    assert_eq!(answer.version, None, "{BODY_BYTES_MAX} bytes of nines are no version");
    let seen = || server.requests().contains(&"hung up".to_owned());
    crate::support::eventually("the connection is given up", Duration::from_secs(10), async || seen()).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = Server::start(vec![Say::Answer(302, "Location: /login\r\n", String::new())]).await;
    let probe = Probe::new(&settings(HealthProbe::Http(server.url("/")))).unwrap();
    let error = probe.ask(None, &no_env()).await.unwrap_err();
    assert!(matches!(error, ProbeError::Status { .. }), "{error}");
    assert!(error.hint().unwrap().contains("redirects"));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_port_that_accepts_is_an_answer_and_one_that_refuses_is_not() {
    let server = Server::start(vec![Say::Nothing]).await;
    let probe = Probe::new(&settings(HealthProbe::Tcp(server.address))).unwrap();
    let healthy = probe.wait_healthy(Some(&version("1.2")), &no_env(), &Silent).await.unwrap();
    assert_eq!((healthy.asked, healthy.version), (3, None));

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let probe = Probe::new(&hopeless(HealthProbe::Tcp(closed))).unwrap();
    let error = last_bad(probe.wait_healthy(None, &no_env(), &Silent).await.unwrap_err());
    assert_eq!(error.to_string(), format!("connect to {closed}"));
    let standing = probe.standing(None, &no_env(), Asking::Once).await;
    assert_eq!(
        standing.findings(&orders(), Leave::default())[0].severity,
        Severity::Fatal,
        "neither version would pass"
    );
    let repair = Leave { repair: true, ..Leave::default() };
    assert_eq!(standing.findings(&orders(), repair)[0].severity, Severity::Warning, "that is what the update is for");
}

#[tokio::test]
async fn nobody_there_is_told_with_the_cause() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}/health").parse().unwrap();
    let error = Probe::new(&settings(HealthProbe::Http(url))).unwrap().ask(None, &no_env()).await.unwrap_err();
    let text = afterhours::domain::failure::Failure::from_error(&error).to_string();
    assert!(text.starts_with(&format!("get an answer from http://{closed}/health: ")), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_command_answers_with_its_status_and_may_name_the_version() {
    let ask = async |script: &str, expected: Option<&str>| {
        let probe = Probe::new(&settings(HealthProbe::Command(sh(script)))).unwrap();
        let env = BTreeMap::from([("AFTERHOURS_APP".to_owned(), "orders".to_owned())]);
        probe.ask(expected.map(version).as_ref(), &env).await
    };
    assert_eq!(ask("test $AFTERHOURS_APP = orders", Some("1.2")).await.unwrap().version, None);
    let named = ask("echo checking; echo 1.2; echo", Some("1.2")).await.unwrap();
    assert_eq!(named.version.as_deref(), Some("1.2"));
    assert_eq!(ask("echo 1.1; echo all is well", Some("1.2")).await.unwrap().version, None);
    let error = ask("echo 1.1", Some("1.2")).await.unwrap_err();
    assert!(matches!(error, ProbeError::WrongVersion { .. }), "{error}");
    let error = ask("echo 1.2; echo 'no database' >&2; exit 1", Some("1.2")).await.unwrap_err();
    let ProbeError::Command { which: "health", source: ExecError::Failed { said, .. } } = error else {
        panic!("{error}");
    };
    assert_eq!(said, ["1.2", "no database"]);
}

#[tokio::test]
async fn a_shallow_answer_alone_is_not_enough_where_there_is_a_deep_check() {
    let dir = tempfile::tempdir().unwrap();
    let count = dir.path().join("count");
    let script = dir.path().join("login");
    // The first probe login fails: the database is not migrated yet.
    let text = format!(
        "#!/bin/sh\necho x >> {0}\ntest $(wc -l < {0}) -gt 1 || {{ echo 'no login' >&2; exit 1; }}\n",
        count.display()
    );
    fs_err::write(&script, text).unwrap();
    fs_err::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::start(vec![ok("1.2"), bad(503), ok("1.2")]).await;
    let deep = Some(command(&[script.to_str().unwrap()]));
    let settings = HealthSettings { deep, ..settings(HealthProbe::Http(server.url("/"))) };
    let healthy = Probe::new(&settings).unwrap().wait_healthy(Some(&version("1.2")), &no_env(), &Silent).await.unwrap();
    assert_eq!(healthy.asked, 5, "deep failed, shallow failed, three good");
    assert_eq!(fs_err::read_to_string(&count).unwrap().lines().count(), 4, "nothing deep is asked after a bad answer");

    let failing = HealthSettings { deep: Some(sh("exit 9")), ..hopeless(HealthProbe::None) };
    let error = Probe::new(&failing).unwrap().wait_healthy(None, &no_env(), &Silent).await.unwrap_err();
    assert!(matches!(last_bad(error), ProbeError::Command { which: "deep", .. }));
}

#[tokio::test]
async fn doctor_is_told_what_the_probe_cannot_do() {
    let check = async |settings: &HealthSettings| {
        let standing = Probe::new(settings).unwrap().standing(None, &no_env(), Asking::Once).await;
        let findings = standing.findings(&orders(), Leave::default());
        findings.into_iter().map(|found| (found.check, found.severity)).collect::<Vec<_>>()
    };
    let server = Server::start(vec![ok("1.2"), ok("OK")]).await;
    let http = settings(HealthProbe::Http(server.url("/")));
    assert_eq!(check(&http).await, [("health".to_owned(), Severity::Good)]);
    let nameless = [("health".to_owned(), Severity::Good), ("health_version".to_owned(), Severity::Warning)];
    assert_eq!(check(&http).await, nameless);
    let missing = settings(HealthProbe::Command(command(&["/absent/check"])));
    assert_eq!(check(&missing).await, [("health".to_owned(), Severity::Fatal)]);
    let nothing = settings(HealthProbe::None);
    assert_eq!(check(&nothing).await, [("health".to_owned(), Severity::Warning)]);
    let healthy = Probe::new(&nothing).unwrap().wait_healthy(None, &no_env(), &Silent).await.unwrap();
    assert_eq!(healthy.asked, 0);
}
