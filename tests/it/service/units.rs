//! Whole runs over units that hang together, under a real systemd: what stops, what stays down, what comes back.

use std::path::Path;
use std::path::PathBuf;

use afterhours::domain::release::ReleaseId;
use afterhours::feed::pack::PackMeta;
use afterhours::feed::pack::pack;
use serde_json::Value;

use crate::service::BOUND;
use crate::support::eventually;
use crate::support::systemd_box::SystemdBox;

/// Ends slowly, and says when it begins and when it is over.
const SLOW: &str = "#!/bin/sh
echo \"up $1\" >> /srv/order
trap 'sleep 0.3; echo \"down $1\" >> /srv/order; exit 0' TERM
while :; do sleep 0.05; done
";
/// Writes its version into the data, and then says outside of them that it did.
const WRITER: &str = "#!/bin/sh
while :; do cat /opt/APP/VERSION >> /srv/APP/written; echo x >> /srv/acknowledged; sleep 0.05; done
";
/// Answers on the socket that systemd hands over, and cannot make one itself.
const SOCKET_SERVER: &str = "#!/usr/bin/python3
import os, socket, sys
if os.environ.get('LISTEN_FDS') != '1':
    sys.exit('no socket was handed over')
listener = socket.socket(fileno=3)
version = open(os.path.dirname(os.path.abspath(__file__)) + '/VERSION', 'rb').read().strip()
while True:
    link, _ = listener.accept()
    link.recv(4096)
    status = b'500 Ill' if version.startswith(b'3') else b'200 OK'
    link.sendall(b'HTTP/1.1 ' + status + b'\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(version), version))
    link.close()
";

/// One application in a box: version 1.0 is installed, and its units are yet to be written.
struct Site {
    systemd: SystemdBox,
    app: &'static str,
    program: &'static str,
}

impl Site {
    async fn new(app: &'static str, service: &str, rest: &str, program: &'static str) -> Self {
        let site = Self { systemd: SystemdBox::boot().await, app, program };
        site.systemd.install_program();
        let config = format!(
            "[app.{app}]\ninstall_dir = \"/opt/{app}\"\nservice = {{ {service}, deadline = \"15s\" }}\n\
             data = {{ paths = [\"/srv/{app}\"] }}\nfeed = {{ dir = \"/srv/releases\" }}\nsessions = []\ngrace = \"0s\"\n{rest}\n"
        );
        site.systemd.write("/etc/afterhours/afterhours.toml", &config);
        site.systemd.write(&format!("/srv/{app}/written"), "");
        site.systemd.write("/srv/releases/README", "");
        site.tree(&site.there(&format!("/opt/{app}")), "1.0");
        site
    }

    fn there(&self, path: &str) -> PathBuf {
        self.systemd.root().join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> String {
        fs_err::read_to_string(self.there(path)).unwrap_or_default()
    }

    fn tree(&self, dir: &Path, version: &str) {
        fs_err::create_dir_all(dir).unwrap();
        fs_err::write(dir.join("VERSION"), format!("{version}\n")).unwrap();
        crate::service::script(&dir.join("srv"), &self.program.replace("APP", self.app));
    }

    fn publish(&self, version: &str, build: u64, migrate: &str) {
        let tree = tempfile::tempdir().unwrap();
        self.tree(tree.path(), version);
        let id = ReleaseId { version: version.parse().unwrap(), build };
        let migrate = ["sh", "-c", migrate].map(str::to_owned).to_vec();
        pack(tree.path(), &PackMeta { migrate: Some(migrate), ..PackMeta::new(id) }, &self.there("/srv/releases"))
            .unwrap();
    }

    /// Writes units and starts some of them.
    async fn units(&self, units: &[(&str, &str)], start: &[&str]) {
        for (name, text) in units {
            self.systemd.write(&format!("/etc/systemd/system/{name}"), text);
        }
        self.must(&["systemctl", "daemon-reload"]).await;
        self.must(&[&["systemctl", "start"], start].concat()).await;
    }

    async fn must(&self, argv: &[&str]) -> String {
        let (good, said) = self.systemd.run(argv).await;
        assert!(good, "{argv:?}: {said}");
        said
    }

    /// Updates it now; how the run ended.
    async fn update(&self) -> Value {
        let argv = ["/usr/local/bin/afterhours", "-q", "--json", "update", "now", self.app, "--yes"];
        let (_, said) = self.systemd.run(&argv).await;
        let json = said.find('{').map_or("", |at| &said[at..]);
        let mut documents = serde_json::Deserializer::from_str(json).into_iter::<Value>();
        documents.next().and_then(Result::ok).unwrap_or_else(|| panic!("no run: {said}"))
    }

    /// What doctor says of units: check, severity, sentence.
    async fn findings(&self) -> Vec<String> {
        let (_, said) = self.systemd.run(&["/usr/local/bin/afterhours", "--json", "doctor", self.app]).await;
        let mut found = Vec::new();
        let json = said.find(['{', '[']).map_or("", |at| &said[at..]);
        let mut documents = serde_json::Deserializer::from_str(json).into_iter::<Value>();
        collect(&documents.next().and_then(Result::ok).unwrap_or_else(|| panic!("{said}")), &mut found);
        found
    }

    async fn states(&self, units: &[&str]) -> Vec<String> {
        let (_, said) = self.systemd.run(&[&["systemctl", "is-active"], units].concat()).await;
        said.lines().map(str::to_owned).collect()
    }

    async fn pid(&self, unit: &str) -> String {
        self.must(&["systemctl", "show", "--value", "-p", "MainPID", unit]).await.trim().to_owned()
    }

    fn drop_ins(&self) -> Vec<String> {
        let entries = fs_err::read_dir(self.there("/etc/systemd/system")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(self.app) && name.ends_with(".d")).collect()
    }
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let (Some(check), Some(severity), Some(text)) = (map.get("check"), map.get("severity"), map.get("text"))
                && ["service_units", "service_outside", "service_stays"].iter().any(|name| *name == check)
            {
                let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                found.push(format!("{} {}: {}", word(check), word(severity), word(text)));
            }
            map.values().for_each(|value| collect(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// What a step of a run said.
fn said<'r>(run: &'r Value, step: &str) -> &'r str {
    let steps = run["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_step = steps.iter().find(|known| known["step"] == step);
    of_step.and_then(|step| step["message"].as_str()).unwrap_or_else(|| panic!("{step}: {run:#}"))
}

#[tokio::test]
async fn what_a_target_only_wants_is_stopped_held_and_started_again() {
    let health = "health = { command = [\"true\"], times = 1 }";
    let site = Site::new("unitsone", "systemd = \"unitsone.target\"", health, WRITER).await;
    let service = "[Service]\nExecStart=/opt/unitsone/srv\n";
    let idle = "[Service]\nExecStart=/bin/sleep 1000\n";
    let all = ["unitsone.target", "unitsone-web.service", "unitsone@1.service", "unitsone-off.service"];
    site.units(
        &[
            (
                "unitsone.target",
                "[Unit]\nWants=unitsone-web.service unitsone@1.service unitsone-off.service network.target\n",
            ),
            ("unitsone-web.service", idle),
            ("unitsone@.service", service),
            ("unitsone-off.service", idle),
        ],
        &["unitsone.target"],
    )
    .await;
    site.must(&["systemctl", "stop", "unitsone-off.service"]).await;
    let before = [site.pid(all[1]).await, site.pid(all[2]).await];
    // Somebody tries to bring it up in the middle; then the migration fails.
    site.publish("2.0", 2, "systemctl start unitsone.target unitsone@1.service unitsone-off.service; sleep 1; exit 1");
    let run = site.update().await;
    assert_eq!(run["outcome"], "rolled_back", "{run:#}");
    assert_eq!(said(&run, "stop"), "the old version runs again: unitsone.target and 2 units that belong to it run");
    assert_eq!(site.states(&all).await, ["active", "active", "active", "inactive"]);
    let after = [site.pid(all[1]).await, site.pid(all[2]).await];
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");
    site.must(&["systemctl", "stop", all[2]]).await;
    let (written, acknowledged) = (site.read("/srv/unitsone/written"), site.read("/srv/acknowledged"));
    let (written, acknowledged) = (written.lines().count(), acknowledged.lines().count());
    // Twice it may have been ended between the two.
    assert!((acknowledged..=acknowledged + 2).contains(&written), "{written} of {acknowledged} are left");
    site.must(&["systemctl", "start", all[2]]).await;

    site.publish("3.0", 3, "true");
    let run = site.update().await;
    assert_eq!(run["outcome"], "succeeded", "{run:#}");
    assert_eq!(said(&run, "stop"), "unitsone.target and 3 units that belong to it are down");
    assert_eq!(site.states(&all).await, ["active", "active", "active", "inactive"]);
    eventually("the new version works", BOUND, async || site.read("/srv/unitsone/written").contains("3.0")).await;
    let mut found = site.findings().await;
    found.sort();
    assert_eq!(
        found,
        [
            "service_units good: unitsone-off.service (wanted by unitsone.target) is kept down; it is not started afterwards, because it does not run now",
            "service_units good: unitsone-web.service (wanted by unitsone.target) is stopped too, kept down, and started again afterwards",
            "service_units good: unitsone@1.service (wanted by unitsone.target) is stopped too, kept down, and started again afterwards",
        ]
    );
    assert_eq!(site.drop_ins(), Vec::<String>::new());
}

#[tokio::test]
async fn what_stops_along_is_verified_and_started_again_and_nothing_else_is() {
    let health = "health = { command = [\"true\"], times = 1 }";
    let site = Site::new("unitstwo", "systemd = \"unitstwo\"", health, SLOW).await;
    let part =
        |rest: &str| format!("[Unit]\nPartOf=unitstwo.service\n[Service]\nExecStart=/opt/unitstwo/srv %n\n{rest}");
    let other = "[Service]\nExecStart=/bin/sleep 1000\n";
    site.units(
        &[
            ("unitstwo.service", "[Unit]\nWants=helper-of-two.service\n[Service]\nExecStart=/opt/unitstwo/srv %n\n"),
            ("unitstwo-worker.service", &part("")),
            ("unitstwo-off.service", &part("[Install]\nWantedBy=multi-user.target\n")),
            ("unitstwo-clean.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n"),
            ("unitstwo-clean.timer", "[Unit]\nPartOf=unitstwo.service\n[Timer]\nOnCalendar=yearly\n"),
            ("watcher-of-two.service", &format!("[Unit]\nRequires=unitstwo.service\n{other}")),
            ("helper-of-two.service", other),
        ],
        &["unitstwo.service", "unitstwo-worker.service", "unitstwo-clean.timer", "watcher-of-two.service"],
    )
    .await;
    site.must(&["systemctl", "enable", "--no-reload", "unitstwo-off.service"]).await;
    site.must(&["systemctl", "daemon-reload"]).await;
    let all = [
        "unitstwo.service",
        "unitstwo-worker.service",
        "unitstwo-clean.timer",
        "watcher-of-two.service",
        "unitstwo-off.service",
    ];
    let expected = ["active", "active", "active", "active", "inactive"];
    assert_eq!(site.states(&all).await, expected);
    let helper = site.pid("helper-of-two.service").await;
    let down = "unitstwo.service and 4 units that belong to it are down; watcher-of-two.service, which requires it, was stopped along";
    let back = "the old version runs again: unitstwo.service and 2 units that belong to it run; watcher-of-two.service, which requires it, runs again";
    for (version, build, migrate, outcome, told) in
        [("2.0", 2, "exit 1", "rolled_back", back), ("3.0", 3, "true", "succeeded", down)]
    {
        fs_err::write(site.there("/srv/order"), "").unwrap();
        site.publish(version, build, &format!("cp /srv/order /srv/order-down; {migrate}"));
        let run = site.update().await;
        assert_eq!(run["outcome"], outcome, "{run:#}");
        assert_eq!(said(&run, "stop"), told);
        assert_eq!(site.states(&all).await, expected, "{outcome}");
        let down = site.read("/srv/order-down");
        assert!(down.contains("down unitstwo.service") && down.contains("down unitstwo-worker.service"), "{down}");
        eventually("both are up", BOUND, async || site.read("/srv/order").matches("up ").count() == 2).await;
    }
    assert_eq!(site.pid("helper-of-two.service").await, helper, "what it only needs goes on");
    let found = site.findings().await;
    for (name, what) in [
        ("unitstwo-worker.service (part of unitstwo.service) is stopped too", "service_units good"),
        ("unitstwo-off.service (part of unitstwo.service) is kept down", "service_units good"),
        ("unitstwo-clean.timer (part of unitstwo.service) is stopped too", "service_units good"),
        ("unitstwo-clean.service (started by unitstwo-clean.timer) is kept down", "service_units good"),
        ("helper-of-two.service is wanted by unitstwo.service only, and goes on running", "service_stays warning"),
        (
            "watcher-of-two.service (requires unitstwo.service) is stopped along, and started again",
            "service_outside warning",
        ),
    ] {
        assert!(found.iter().any(|line| line.starts_with(&format!("{what}: {name}"))), "{name}: {found:#?}");
    }
    assert_eq!(site.drop_ins(), Vec::<String>::new());
}

#[tokio::test]
async fn a_socket_waits_with_its_service_and_is_there_before_it() {
    let health = "health = { http = \"http://127.0.0.1:18310/\", times = 1, deadline = \"4s\" }";
    let site = Site::new("unitsthree", "systemd = \"unitsthree.service\"", health, SOCKET_SERVER).await;
    site.units(
        &[
            ("unitsthree.socket", "[Socket]\nListenStream=127.0.0.1:18310\n"),
            ("unitsthree.service", "[Service]\nExecStart=/opt/unitsthree/srv\n"),
        ],
        &["unitsthree.socket"],
    )
    .await;
    let get = ["curl", "-fsS", "-m", "10", "http://127.0.0.1:18310/"];
    assert_eq!(site.must(&get).await, "1.0");
    // People who come in the middle, and somebody who tries to help.
    let visit = "for i in 1 2 3; do curl -m1 http://127.0.0.1:18310/; sleep 0.2; done; systemctl start unitsthree.socket; curl -m1 http://127.0.0.1:18310/; true";
    let down = "unitsthree.service and 1 unit that belongs to it are down";
    let back = "the old version 2.0 runs again: unitsthree.service and 1 unit that belongs to it run";
    for (version, build, outcome, told) in [("2.0", 2, "succeeded", down), ("3.0", 3, "rolled_back", back)] {
        site.publish(version, build, visit);
        let run = site.update().await;
        assert_eq!(run["outcome"], outcome, "{run:#}");
        assert_eq!(said(&run, "stop"), told);
        assert_eq!(site.states(&["unitsthree.socket", "unitsthree.service"]).await, ["active", "active"]);
        assert_eq!(site.must(&get).await, "2.0");
    }
    let found = site.findings().await;
    assert_eq!(
        found,
        [
            "service_units good: unitsthree.socket (starts unitsthree.service) is stopped too, kept down, and started again afterwards"
        ]
    );
    assert_eq!(site.drop_ins(), Vec::<String>::new());
}

#[tokio::test]
async fn a_list_is_stopped_backwards_and_started_in_its_order() {
    let health = "health = { command = [\"true\"], times = 1 }";
    let list = "systemd = [\"unitsfour@web.service\", \"unitsfour@worker\"]";
    let site = Site::new("unitsfour", list, health, SLOW).await;
    let instance = "[Service]\nExecStart=/opt/unitsfour/srv %i\n";
    let all = ["unitsfour@web.service", "unitsfour@worker.service", "unitsfour@other.service"];
    site.units(&[("unitsfour@.service", instance)], &all).await;
    eventually("all are up", BOUND, async || site.read("/srv/order").matches("up ").count() == 3).await;
    let other = site.pid(all[2]).await;
    site.publish("2.0", 2, "true");
    fs_err::write(site.there("/srv/order"), "").unwrap();
    let run = site.update().await;
    assert_eq!(run["outcome"], "succeeded", "{run:#}");
    assert_eq!(said(&run, "stop"), "unitsfour@web.service and unitsfour@worker.service are down");
    eventually("both are up", BOUND, async || site.read("/srv/order").matches("up ").count() == 2).await;
    let order = site.read("/srv/order");
    assert!(order.starts_with("down worker\ndown web\n"), "{order}");
    assert_eq!(site.states(&all).await, ["active", "active", "active"]);
    assert_eq!(site.pid(all[2]).await, other, "an instance that is not named goes on");
    assert_eq!(site.drop_ins(), Vec::<String>::new());
}
