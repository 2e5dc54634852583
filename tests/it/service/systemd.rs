//! Units of a real systemd.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use afterhours::config::settings::ServiceControl;
use afterhours::domain::finding::Severity;
use afterhours::domain::span::Span;
use afterhours::service::Service;
use afterhours::service::ServiceError;
use afterhours::service::ServiceStatus;

use crate::service::App;
use crate::service::BOUND;
use crate::service::conformance;
use crate::service::settings;
use crate::support::eventually;
use crate::support::systemd_box::SystemdBox;

fn unit(rest: &str) -> String {
    format!("[Service]\nExecStart=/opt/orders/app.sh\nTimeoutStopSec=1\n{rest}\n")
}

fn in_box(systemd: &SystemdBox, name: &str, port: Option<SocketAddr>, deadline: Span) -> Service {
    let units = vec![name.to_owned()];
    let control = ServiceControl::Systemd { units: units.clone() };
    let settings = settings(Path::new("/opt/orders"), control, port, deadline);
    Service::systemd_at(&settings, &units, &systemd.bus(), &systemd.root())
}

fn app_in(systemd: &SystemdBox) -> App {
    App::at(&systemd.root().join("opt/orders"), &systemd.root().join("proc"))
}

#[tokio::test]
async fn systemd_conforms() {
    let systemd = SystemdBox::boot().await;
    let app = app_in(&systemd);
    systemd.unit("orders.service", &unit("")).await;
    let good = in_box(&systemd, "orders.service", Some(app.port), Span::secs(3));
    let missing = in_box(&systemd, "absent.service", Some(app.port), Span::secs(3));
    conformance(&good, &missing, &app).await;
    let findings = good.check().await;
    let all: Vec<_> = findings.iter().map(|found| (found.check.as_str(), found.severity)).collect();
    let names = ["service_bus", "service_unit", "service_control", "service_hold", "service_status"];
    assert_eq!(all, names.map(|name| (name, Severity::Good)));
}

#[tokio::test]
async fn a_held_unit_is_started_by_nobody_but_us() {
    let systemd = SystemdBox::boot().await;
    let app = app_in(&systemd);
    systemd.unit("orders.service", &unit("Restart=always\nRestartSec=0")).await;
    let service = in_box(&systemd, "orders.service", None, Span::secs(3));
    let env = BTreeMap::new();
    service.start(&env).await.unwrap();
    app.pid("app.pid").await;
    service.stop(&env).await.unwrap();

    service.install_hold(Path::new("/var/lib/after hours/100%/hold")).await.unwrap();
    systemd.write("/var/lib/after hours/100%/hold", "");
    let starts = app.starts();
    systemd.run(&["systemctl", "daemon-reload"]).await;
    systemd.run(&["systemctl", "start", "orders.service"]).await;
    assert_eq!(service.status().await.unwrap(), ServiceStatus::Stopped, "somebody started what is held");
    assert_eq!(app.starts(), starts);

    service.start(&env).await.expect("we start it although it is held");
    let first = app.pid("app.pid").await;
    let (killed, said) = systemd.run(&["kill", "-KILL", &first.to_string()]).await;
    assert!(killed, "{said}");
    let second = app.pid("app.pid").await;
    assert_ne!(first, second, "systemd restarts it after a crash, held or not");

    service.stop(&env).await.unwrap();
    systemd.run(&["systemctl", "start", "orders.service"]).await;
    assert_eq!(service.status().await.unwrap(), ServiceStatus::Stopped, "a stop takes the permit back");
    service.start(&env).await.unwrap();
    app.pid("app.pid").await;

    // What a reboot does: everything below /run is gone.
    systemd.run(&["systemctl", "stop", "orders.service"]).await;
    let (removed, said) = systemd.run(&["rm", "-r", "/run/afterhours"]).await;
    assert!(removed, "{said}");
    systemd.run(&["systemctl", "start", "orders.service"]).await;
    assert_eq!(service.status().await.unwrap(), ServiceStatus::Stopped, "a reboot started what is held");

    service.remove_hold().await.unwrap();
    let (started, said) = systemd.run(&["systemctl", "start", "orders.service"]).await;
    assert!(started, "{said}");
    assert!(matches!(service.status().await.unwrap(), ServiceStatus::Running { pid: Some(_) }));
    assert!(!systemd.root().join("etc/systemd/system/orders.service.d").exists(), "nothing of ours is left");
}

#[tokio::test]
async fn what_ran_is_known_after_we_died_and_nobody_starts_it_meanwhile() {
    let systemd = SystemdBox::boot().await;
    let app = app_in(&systemd);
    // systemd may end the children of the trap, too, as long as it looks for processes of the unit.
    let slow = "#!/bin/sh\ntrap 'for i in $(seq 40); do sleep 0.05; done; exit 0' TERM\n\
                echo > /opt/orders/armed\nwhile :; do sleep 0.05; done\n";
    systemd.write("/opt/orders/slow.sh", slow);
    let part = "[Unit]\nPartOf=died.service\n[Service]\nExecStart=/opt/orders/slow.sh\nTimeoutStopSec=60\n";
    systemd.unit("died-part.service", part).await;
    systemd.unit("died.service", &unit("")).await;
    let both = ["died.service", "died-part.service"];
    let start = [&["systemctl", "start"], &both[..]].concat();
    let states = async || systemd.run(&[&["systemctl", "is-active"], &both[..]].concat()).await.1;
    assert!(systemd.run(&start).await.0);
    eventually("the part takes its time", BOUND, async || app.dir.join("armed").exists()).await;

    let env = BTreeMap::new();
    let hasty = in_box(&systemd, "died.service", None, Span::secs(1));
    hasty.install_hold(Path::new("/var/lib/died/hold")).await.unwrap();
    systemd.write("/var/lib/died/hold", "");
    let error = hasty.stop(&env).await.unwrap_err();
    assert_eq!(error.to_string(), "stop died-part.service within 1s: its state is \"stop-sigterm\"");

    // Somebody comes after us; then the machine reboots.
    let patient = || in_box(&systemd, "died.service", None, Span::secs(15));
    let down = "died.service and 1 unit that belongs to it are down";
    for _ in 0..2 {
        assert_eq!(patient().stop(&env).await.unwrap(), down);
    }
    assert!(systemd.run(&["rm", "-rf", "/run/afterhours"]).await.0);
    systemd.run(&start).await;
    assert_eq!(states().await, "inactive\ninactive\n");
    assert_eq!(patient().status().await.unwrap(), ServiceStatus::Stopped);

    for _ in 0..2 {
        assert_eq!(patient().start(&env).await.unwrap(), "died.service and 1 unit that belongs to it run");
    }
    assert_eq!(states().await, "active\nactive\n");
    for _ in 0..2 {
        patient().remove_hold().await.unwrap();
    }
    for left in [
        "etc/systemd/system/died.service.d",
        "etc/systemd/system/died-part.service.d",
        "var/lib/afterhours/apps/orders/units.json",
    ] {
        assert!(!systemd.root().join(left).exists(), "{left}");
    }
}

#[tokio::test]
async fn what_systemd_does_not_manage_is_told() {
    let systemd = SystemdBox::boot().await;
    let app = app_in(&systemd);
    let env = BTreeMap::new();

    let slow = "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; echo > /opt/orders/armed; while :; do sleep 0.1; done'\nTimeoutStopSec=60\n";
    systemd.unit("slow.service", slow).await;
    let service = in_box(&systemd, "slow.service", None, Span::secs(1));
    service.start(&env).await.unwrap();
    eventually("it ignores TERM", BOUND, async || app.dir.join("armed").exists()).await;
    let error = service.stop(&env).await.unwrap_err();
    assert_eq!(error.to_string(), "stop slow.service within 1s: its state is \"stop-sigterm\"");
    assert!(error.hint().is_some());
    assert!(matches!(service.status().await.unwrap(), ServiceStatus::Running { .. }), "it is not down");
    assert!(service.check().await.iter().any(|found| found.check == "service_stop_timeout"));

    app.stubborn();
    systemd.unit("leaky.service", &unit("KillMode=process")).await;
    let service = in_box(&systemd, "leaky.service", None, Span::secs(2));
    service.start(&env).await.unwrap();
    let child = app.pid("child.pid").await;
    let error = service.stop(&env).await.unwrap_err();
    assert!(error.to_string().contains("process") && error.to_string().contains("sleep"), "{error}");
    assert!(app.lives(child));
    assert!(matches!(service.status().await.unwrap(), ServiceStatus::Failed(_)), "something of it is left");
    assert!(service.check().await.iter().any(|found| found.check == "service_kill_mode"));

    // A version that crashed until systemd lost its patience does not keep the next one down.
    let crashing = "[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=3600\n[Service]\nExecStart=/opt/orders/run\n";
    systemd.write("/opt/orders/run", "#!/bin/sh\nexit 7\n");
    systemd.unit("crashing.service", crashing).await;
    let service = in_box(&systemd, "crashing.service", None, Span::secs(5));
    let _ = service.start(&env).await;
    eventually("it crashes", BOUND, async || matches!(service.status().await, Ok(ServiceStatus::Failed(_)))).await;
    let (started, _) = systemd.run(&["systemctl", "start", "crashing.service"]).await;
    assert!(!started, "systemd has lost its patience");
    systemd.write("/opt/orders/run", "#!/bin/sh\nexec sleep 1000\n");
    service.start(&env).await.unwrap();
    assert!(matches!(service.status().await.unwrap(), ServiceStatus::Running { .. }));

    systemd.unit("picky.service", &format!("[Unit]\nConditionPathExists=/absent\n{}", unit(""))).await;
    let error = in_box(&systemd, "picky.service", None, Span::secs(5)).start(&env).await.unwrap_err();
    assert!(matches!(error, ServiceError::Skipped { .. }), "{error}");

    systemd.unit("broken.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n").await;
    let error = in_box(&systemd, "broken.service", None, Span::secs(5)).start(&env).await.unwrap_err();
    assert_eq!(error.to_string(), "start broken.service: systemd says \"exit-code\"");
}

#[tokio::test]
async fn a_bus_that_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let units = vec!["orders.service".to_owned()];
    let settings = settings(dir.path(), ServiceControl::Systemd { units: units.clone() }, None, Span::secs(1));
    let address = format!("unix:path={}/none", dir.path().display());
    let service = Service::systemd_at(&settings, &units, &address, dir.path());
    let error = service.status().await.unwrap_err();
    assert!(matches!(error, ServiceError::Bus(_)), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(service.check().await[0].severity, Severity::Fatal);
}
