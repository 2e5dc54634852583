//! The gate: files and commands that follow it, and a real nginx that asks it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use afterhours::api::gate_check::Gates;
use afterhours::api::gate_check::router;
use afterhours::config::settings::GateSettings;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::finding::Severity;
use afterhours::domain::gate::ClosedBy;
use afterhours::domain::gate::Gate;
use afterhours::domain::gate::Position;
use afterhours::domain::name::AppName;
use afterhours::domain::span::Span;
use afterhours::gate::GateDrivers;
use afterhours::gate::GateError;
use tokio::net::UnixListener;
use tokio::process::Child;
use tokio::process::Command;

use crate::settings::app_settings;
use crate::support::command;
use crate::support::sh;

fn commands(close: impl AsRef<str>, open: impl AsRef<str>) -> GateSettings {
    GateSettings::Commands { close: sh(close.as_ref()), open: sh(open.as_ref()), deadline: Span::secs(10) }
}

fn drivers(gate: Vec<GateSettings>) -> GateDrivers {
    let mut app = app_settings();
    app.gate = gate;
    GateDrivers::new(&app)
}

#[tokio::test]
async fn a_file_and_commands_follow_the_gate_both_ways_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (nologin, log) = (dir.path().join("nologin"), dir.path().join("log"));
    let gate = drivers(vec![
        GateSettings::File(nologin.clone()),
        commands(
            format!(r#"echo "$AFTERHOURS_APP|$AFTERHOURS_MESSAGE|$AFTERHOURS_UNTIL" >> {}"#, log.display()),
            format!("echo open >> {}", log.display()),
        ),
    ]);
    assert!(gate.check().await.iter().all(|finding| finding.severity == Severity::Good));
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0, "a check moves nothing");
    let until = "2026-11-22T01:30:00Z".parse().unwrap();
    gate.close("An update is coming.", None).await.unwrap();
    gate.close("An update is running.", Some(until)).await.unwrap();
    let text = fs_err::read_to_string(&nologin).unwrap();
    assert!(text.starts_with("An update is running.\nUntil 2026-11-2"), "{text}");
    assert_eq!(fs_err::metadata(&nologin).unwrap().permissions().mode() & 0o777, 0o644);
    gate.open().await.unwrap();
    gate.open().await.unwrap();
    assert!(!nologin.exists());
    let said = fs_err::read_to_string(&log).unwrap();
    let expected = "orders|An update is coming.|\norders|An update is running.|2026-11-22T01:30:00Z\nopen\nopen\n";
    assert_eq!(said, expected);
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
}

#[tokio::test]
async fn a_failing_close_names_its_driver_and_open_tries_all() {
    let dir = tempfile::tempdir().unwrap();
    let opened = dir.path().join("opened");
    let nowhere = dir.path().join("no/such/dir/nologin");
    let gate = drivers(vec![GateSettings::File(nowhere.clone())]);
    let error = gate.close("closed", None).await.unwrap_err();
    assert_eq!(error.to_string(), format!("close the gate with the file {}", nowhere.display()));
    assert!(error.hint().unwrap().contains("no/such/dir"));
    gate.open().await.expect("what is not there is open");
    assert_eq!(gate.check().await[0].severity, Severity::Fatal);

    let gate = drivers(vec![
        commands("true", "echo stuck >&2; exit 3"),
        commands("exit 1", format!("touch {}", opened.display())),
        GateSettings::Commands { close: command(&["/no/such"]), open: command(&["/no/such"]), deadline: Span::secs(1) },
    ]);
    let error = gate.close("closed", None).await.unwrap_err();
    assert!(matches!(error, GateError::Command { verb: "close", .. }), "{error}");
    let error = gate.open().await.unwrap_err();
    assert!(matches!(&error, GateError::Several { others, .. } if others.len() == 1), "{error}");
    assert!(opened.exists());
    let findings = gate.check().await;
    assert_eq!(findings.iter().map(|finding| finding.severity).max(), Some(Severity::Fatal));
}

/// A gate that the test moves.
struct OneGate(Mutex<Gate>);

impl Gates for OneGate {
    async fn gate(&self, app: &AppName) -> Option<Gate> {
        let gate = self.0.lock().unwrap().clone();
        (gate.app == *app).then_some(gate)
    }
}

fn closed(until: Option<&str>, lease_secs: i64) -> Position {
    let now = SystemClock.now();
    Position::Closed {
        by: ClosedBy::Operator("root".into()),
        message: "An update is running.".into(),
        until: until.map(|at| at.parse().unwrap()),
        lease_until: Some(now + chrono::TimeDelta::seconds(lease_secs)),
        lease: None,
        since: now,
    }
}

/// nginx before an application, with its gate at `gate`; everything in `dir`.
fn nginx(dir: &Path) -> Child {
    let config = format!(
        r#"
        daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
            uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
            server {{
                listen unix:{dir}/web;
                root {dir}/www;
                location / {{
                    auth_request /gate;
                    auth_request_set $eta $upstream_http_x_update_eta;
                    auth_request_set $retry $upstream_http_retry_after;
                    error_page 403 502 504 =503 /maintenance.html;
                    error_page 500 =503 /maintenance.html;
                }}
                location = /gate {{
                    internal;
                    proxy_pass http://unix:{dir}/gate:/v1/apps/orders/gate/check;
                    proxy_pass_request_body off;
                    proxy_set_header Content-Length "";
                }}
                location = /maintenance.html {{
                    internal;
                    ssi on;
                    ssi_types *;
                    add_header Retry-After $retry always;
                    add_header Cache-Control no-store always;
                }}
            }}
        }}"#,
        dir = dir.display()
    );
    fs_err::create_dir(dir.join("www")).unwrap();
    fs_err::write(dir.join("www/index.html"), "Order desk").unwrap();
    fs_err::write(dir.join("www/maintenance.html"), "Back at <!--# echo var=\"eta\" -->").unwrap();
    fs_err::write(dir.join("nginx.conf"), config).unwrap();
    fs_err::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let conf = dir.join("nginx.conf");
    Command::new("/usr/sbin/nginx")
        .args(["-e", "stderr", "-c", conf.to_str().unwrap()])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nginx can be started; on Debian it is in the package nginx-light")
}

async fn get(http: &reqwest::Client) -> (u16, String, Option<String>) {
    let deadline = Instant::now() + Duration::from_secs(15);
    let response = loop {
        match http.get("http://localhost/").send().await {
            Ok(response) => break response,
            Err(error) => assert!(Instant::now() < deadline, "nginx does not answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), response.text().await.unwrap(), retry)
}

#[tokio::test]
async fn nginx_obeys_the_gate_and_fails_closed() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(OneGate(Mutex::new(Gate::open("orders".parse().unwrap()))));
    let listener = UnixListener::bind(dir.path().join("gate")).unwrap();
    fs_err::set_permissions(dir.path().join("gate"), std::fs::Permissions::from_mode(0o666)).unwrap();
    let routes = router(Arc::clone(&gate), Arc::new(SystemClock));
    let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let _nginx = nginx(dir.path());
    let http = reqwest::Client::builder().unix_socket(dir.path().join("web")).tls_certs_only([]).build().unwrap();

    assert_eq!(get(&http).await, (200, "Order desk".into(), None));
    gate.0.lock().unwrap().position = closed(Some("2099-01-01T02:30:00Z"), 60);
    let (status, page, retry) = get(&http).await;
    assert_eq!((status, page.as_str()), (503, "Back at 2099-01-01T02:30:00Z"));
    assert!(retry.unwrap().parse::<u64>().unwrap() > 1_000_000);
    gate.0.lock().unwrap().position = closed(None, 60);
    let (status, _, retry) = get(&http).await;
    assert_eq!((status, retry), (503, None));
    gate.0.lock().unwrap().position = closed(None, -1);
    assert_eq!(get(&http).await.0, 200, "a lease that nobody renews has run out");
    gate.0.lock().unwrap().app = "other".parse().unwrap();
    assert_eq!(get(&http).await.0, 503, "an unknown application is closed");
    server.abort();
    let _ = server.await;
    fs_err::remove_file(dir.path().join("gate")).unwrap();
    assert_eq!(get(&http).await.0, 503, "without a daemon the gate is closed");
}
