//! Radicale: two real releases in one night, then one that ruins the calendars.

use std::path::Path;
use std::path::PathBuf;

use crate::foreign::site::Site;
use crate::foreign::site::text;
use crate::foreign::site::write;
use crate::support::systemd_box::SystemdBox;

const EVENT: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Example//EN\r\nBEGIN:VEVENT\r\nUID:audit\r\n\
                     DTSTAMP:20261121T000000Z\r\nDTSTART:20261122T100000Z\r\nSUMMARY:Audit\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
const CONFIG: &str = "[server]\nhosts = ADDRESS\n[auth]\ntype = htpasswd\nhtpasswd_filename = /etc/radicale/users\n\
                      htpasswd_encryption = plain\n[storage]\nfilesystem_folder = /var/lib/radicale/collections\n";

const EXAMPLE: &str = include_str!("../../../config/examples/radicale.toml");
const OURSELVES: &str = include_str!("../../../dist/afterhours.service");
const UNIT: &str = "[Service]\nExecStart=/opt/radicale/radicale --config /etc/radicale/config\nRestart=on-failure\n";

/// What PyPI has, as `.ci/foreign` left it.
fn program(version: &str) -> PathBuf {
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("foreign/radicale-{version}"));
    assert!(tree.exists(), "{} is missing: make packages", tree.display());
    tree
}

/// A machine on which 3.1.9 is installed, with users, and 3.5.10 and 3.9.0 to come.
async fn site() -> (Site, String) {
    // Free a moment ago; the system hands out another one to whoever asks next.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let address = format!("127.0.0.1:{port}");
    let site = Site::new("radicale.toml", "radicale", &[("127.0.0.1:5232", &address)]).await;
    site.write("/etc/radicale/config", &CONFIG.replace("ADDRESS", &address));
    site.write("/etc/radicale/users.open", "anna:secret\nprobe:probe\n");
    site.write("/etc/radicale/users.closed", "probe:probe\n");
    site.run(&["ln", "-s", "users.open", text(&site.at("/etc/radicale/users"))]).await;
    site.write("/etc/afterhours/radicale.netrc", "machine 127.0.0.1 login probe password probe\n");
    fs_err::create_dir_all(site.at("/var/lib/radicale/collections")).expect("a folder");
    site.run(&["cp", "-a", text(&program("3.1.9")), text(&site.at("/opt/radicale"))]).await;
    for (version, build) in [("3.1.9", 1), ("3.5.10", 2), ("3.9.0", 3)] {
        site.publish(&program(version), version, build, false).await;
    }
    (site, format!("http://{address}/anna/work/"))
}

/// What a user of the calendar gets.
async fn as_anna(site: &Site, args: &[&str]) -> String {
    site.run(
        &[&["curl", "-fsS", "--retry", "50", "--retry-delay", "1", "--retry-connrefused", "-u", "anna:secret"], args]
            .concat(),
    )
    .await
}

#[tokio::test]
async fn two_releases_of_radicale_are_installed_and_a_bad_one_is_taken_back() {
    let (mut site, calendar) = site().await;
    let event = format!("{calendar}audit.ics");
    site.serve().await;
    as_anna(&site, &["-X", "MKCALENDAR", &calendar]).await;
    as_anna(&site, &["-H", "Content-Type: text/calendar", "--data-binary", EVENT, "-X", "PUT", &event]).await;
    let entered = as_anna(&site, &[&event]).await;
    assert!(entered.contains("SUMMARY:Audit"), "{entered}");
    let (code, said) = site.afterhours(&["doctor", "radicale"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the application answers as version 3.1.9"), "{said}");

    let run = site.night("nightly").await;
    assert_eq!(run["outcome"], "succeeded", "{run:#}");
    assert_eq!((&run["from_version"], &run["to_version"]), (&"3.1.9".into(), &"3.9.0".into()));
    let mail = site.mail().await;
    assert!(mail.contains("Subject: Calendars: updated to 3.9.0"), "{mail}");
    assert!(mail.contains("3.5.10 (build 2) is in place"), "it is installed on the way: {mail}");
    assert_eq!(as_anna(&site, &[&event]).await, entered);

    // Its migration ends well and has thrown the calendars away; and nobody can log in.
    let bad = site.at("/bad");
    site.run(&["cp", "-a", text(&program("3.9.0")), text(&bad)]).await;
    let collections = site.at("/var/lib/radicale/collections/collection-root");
    write(&bad.join("migrate"), &format!("#!/bin/sh\nrm -r '{}/anna' && echo done\n", collections.display()));
    let start = fs_err::read_to_string(bad.join("radicale")).expect("the start script");
    let told = "case $1 in --version) echo 3.9.1; exit ;; esac\nset -- \"$@\" --auth-type denyall\n";
    write(&bad.join("radicale"), &start.replacen('\n', &format!("\n{told}"), 1));
    site.publish(&bad, "3.9.1", 4, true).await;
    let run = site.night("second").await;
    assert_eq!(run["outcome"], "rolled_back", "{run:#}");
    let mail = site.mail().await;
    assert!(mail.contains("Subject: Calendars: update to 3.9.1 failed, 3.9.0 is back"), "{mail}");
    assert!(mail.contains("401"), "why: {mail}");
    assert_eq!(as_anna(&site, &[&event]).await, entered);
    assert_eq!(site.run(&[text(&site.at("/opt/radicale/radicale")), "--version"]).await, "3.9.0");

    // Without a daemon; what failed here is not tried again by itself.
    site.stop().await;
    let (code, said) = site.afterhours(&["update", "now", "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    site.publish(&program("3.9.0"), "3.9.2", 5, false).await;
    let (code, said) = site.afterhours(&["update", "check"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("failed here before"), "{said}");
}

/// The example with the one line that it says a unit takes, and with less patience.
fn with_a_unit() -> String {
    let (run, unit) = ("service = { run =", "service = { systemd = \"radicale.service\", port = \"127.0.0.1:5232\" }");
    assert!(EXAMPLE.contains(&format!("# Where a unit starts it: {unit}")), "the example does not say it any more");
    let lines = EXAMPLE.lines().map(|line| if line.starts_with(run) { unit } else { line });
    lines.collect::<Vec<_>>().join("\n").replace("grace = \"5m\"", "grace = \"1s\"")
}

#[tokio::test]
async fn radicale_as_a_unit_of_systemd_is_updated_by_configuration_alone() {
    let (site, _) = site().await;
    let systemd = SystemdBox::boot().await;
    let there = |path: &str| systemd.root().join(path.trim_start_matches('/'));
    systemd.install_program();
    systemd.write("/etc/afterhours/afterhours.toml", &with_a_unit());
    systemd.write("/etc/afterhours/radicale.netrc", "machine 127.0.0.1 login probe password probe\n");
    systemd.write("/etc/radicale/config", &CONFIG.replace("ADDRESS", "127.0.0.1:5232"));
    systemd.write("/etc/radicale/users.open", "anna:secret\nprobe:probe\n");
    systemd.write("/etc/radicale/users.closed", "probe:probe\n");
    for folder in ["/srv/backup", "/srv/releases", "/opt", "/var/lib/radicale/collections"] {
        fs_err::create_dir_all(there(folder)).expect("a folder in the box");
    }
    site.run(&["cp", "-a", text(&site.at("/opt/radicale")), text(&there("/opt"))]).await;
    site.run(&["cp", "-a", text(&site.at("/srv/releases/radicale")), text(&there("/srv/releases"))]).await;
    let run = async |argv: &[&str]| {
        let (good, said) = systemd.run(argv).await;
        assert!(good, "{argv:?}: {said}");
        said
    };
    run(&["ln", "-s", "users.open", "/etc/radicale/users"]).await;
    systemd.unit("radicale.service", UNIT).await;
    systemd.unit("afterhours.service", OURSELVES).await;
    run(&["systemctl", "start", "radicale.service", "afterhours.service"]).await;
    let calendar = "http://127.0.0.1:5232/anna/work/";
    let event = format!("{calendar}audit.ics");
    let as_anna = async |args: &[&str]| {
        let curl = ["curl", "-fsS", "--retry", "50", "--retry-delay", "1", "--retry-connrefused", "-u", "anna:secret"];
        run(&[&curl[..], args].concat()).await
    };
    as_anna(&["-X", "MKCALENDAR", calendar]).await;
    as_anna(&["-H", "Content-Type: text/calendar", "--data-binary", EVENT, "-X", "PUT", &event]).await;
    let entered = as_anna(&[&event]).await;
    assert!(entered.contains("SUMMARY:Audit"), "{entered}");

    let afterhours = |args: &[&'static str]| [&["/usr/local/bin/afterhours", "-q"], args].concat();
    run(&afterhours(&["job", "create", "nightly", "--app", "radicale", "--at", "2099-01-01 02:30", "--enabled"])).await;
    let said = run(&afterhours(&["job", "run", "nightly", "--yes", "--wait", "--json"])).await;
    let night: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&night["outcome"], &night["to_version"]), (&"succeeded".into(), &"3.9.0".into()), "{night:#}");
    assert!(run(&["/opt/radicale/radicale", "--version"]).await.starts_with("3.9.0\n"));
    assert_eq!(run(&["systemctl", "is-active", "radicale.service"]).await.trim(), "active");
    assert_eq!(as_anna(&[&event]).await, entered);
    assert!(!there("/etc/systemd/system/radicale.service.d").exists(), "the hold is taken away");
}
