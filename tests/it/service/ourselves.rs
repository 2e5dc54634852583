//! The daemon itself as the unit that is shipped, under a real systemd.

use serde_json::Value;

use super::BOUND;
use crate::support::eventually;
use crate::support::systemd_box::SystemdBox;

const UNIT: &str = include_str!("../../../dist/afterhours.service");
const CONFIG: &str = "\
[app.orders]
install_dir = \"/opt/orders\"
service = { run = [\"./app.sh\"] }
health = { command = [\"true\"] }
data = { paths = [] }
feed = { dir = \"/srv/releases/orders\" }
";
const APP: &str = "#!/bin/sh\necho $$ > /opt/app.pid\nexec sleep 1000\n";

/// A property of the unit.
async fn told(systemd: &SystemdBox, property: &str) -> String {
    systemd.run(&["systemctl", "show", "--value", "-p", property, "afterhours.service"]).await.1.trim().to_owned()
}

/// `systemctl VERB afterhours`, which has to go well.
async fn order(systemd: &SystemdBox, verb: &str) {
    let (good, said) = systemd.run(&["systemctl", verb, "afterhours.service"]).await;
    let log = systemd.run(&["journalctl", "-u", "afterhours.service", "--no-pager"]).await.1;
    assert!(good, "{verb}: {said}\n{log}");
}

async fn status(systemd: &SystemdBox) -> Option<Value> {
    let (good, said) = systemd.run(&["/usr/local/bin/afterhours", "status", "--json"]).await;
    good.then(|| serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")))
}

#[tokio::test]
async fn the_daemon_runs_as_the_unit_that_is_shipped() {
    let systemd = SystemdBox::boot().await;
    systemd.install_program();
    systemd.write("/etc/afterhours/afterhours.toml", CONFIG);
    systemd.write("/opt/orders/app.sh", APP);
    systemd.write("/srv/releases/orders/README", "");
    systemd.unit("afterhours.service", UNIT).await;

    // It counts as started when it answers, not before.
    order(&systemd, "start").await;
    let first = status(&systemd).await.expect("it is ready");
    assert_eq!(first["daemon"]["pid"].to_string(), told(&systemd, "MainPID").await);
    let app = || std::fs::read_to_string(systemd.root().join("opt/app.pid")).unwrap_or_default();
    eventually("the application runs", BOUND, async || app().ends_with('\n')).await;
    let pid = app();
    let lives = async || systemd.run(&["kill", "-0", pid.trim()]).await.0;
    let mode = systemd.run(&["stat", "-c", "%a %U", "/var/lib/afterhours", "/run/afterhours"]).await.1;
    assert_eq!(mode, "700 root\n755 root\n");

    // What an out-of-memory killer does: systemd starts it again, and its application has not noticed.
    assert!(systemd.run(&["kill", "-KILL", &first["daemon"]["pid"].to_string()]).await.0);
    let mut second = None;
    eventually("it is back", BOUND, async || {
        second = status(&systemd).await.filter(|status| status["daemon"]["pid"] != first["daemon"]["pid"]);
        second.is_some()
    })
    .await;
    assert_eq!(told(&systemd, "NRestarts").await, "1");
    assert!(lives().await, "the application outlives the daemon");
    assert_eq!(app(), pid, "it was not started twice");

    // A stop is in order, and is no reason to start again.
    order(&systemd, "stop").await;
    let ended = [told(&systemd, "ActiveState").await, told(&systemd, "Result").await];
    assert_eq!(ended, ["inactive", "success"]);
    assert_eq!(told(&systemd, "ExecMainStatus").await, "0");
    let log = systemd.run(&["journalctl", "-u", "afterhours.service", "--no-pager", "-o", "cat"]).await.1;
    assert!(log.contains("stopping") && log.contains("stopped"), "{log}");
    assert!(lives().await);
    assert!(!systemd.root().join("run/afterhours/afterhours.sock").exists());
    assert!(systemd.root().join("run/afterhours").exists(), "the permits stay over a restart");
    assert!(status(&systemd).await.is_none());

    order(&systemd, "start").await;
    assert!(status(&systemd).await.is_some());
    assert_eq!(app(), pid);
}
