//! `afterhours feed trust`, `refresh`, `download` and `tuf-client`, without a daemon.

use std::path::Path;
use std::process::Command;
use std::process::Output;

use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use serde_json::Value;

use crate::feed_signed::publish;
use crate::feed_signed::server::Server;

/// A vendor, a server, and a configuration.
struct Machine {
    dir: tempfile::TempDir,
    server: Server,
}

impl Machine {
    async fn new(state: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let vendor = dir.path().join("vendor");
        publish(&vendor, SystemClock.now());
        let server = Server::start(&vendor.join(state)).await;
        let config = format!(
            "[daemon]\ndata_dir = {data:?}\n[app.orders]\ninstall_dir = {install:?}\nservice = {{ none = true }}\n\
             feed = {{ url = \"{url}\", proxy = \"none\" }}\n",
            data = dir.path().join("data"),
            install = dir.path().join("opt/orders"),
            url = server.url()
        );
        fs_err::write(dir.path().join("afterhours.toml"), config).unwrap();
        Self { dir, server }
    }

    fn vendor(&self, name: &str) -> String {
        self.dir.path().join("vendor").join(name).to_str().unwrap().to_owned()
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = afterhours(args);
        command.arg("--config").arg(self.dir.path().join("afterhours.toml"));
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
}

fn afterhours(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    command.args(args);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(output)))
}

#[tokio::test]
async fn a_root_is_trusted_once_and_replaced_only_when_told() {
    let machine = Machine::new("two").await;
    let before = machine.run(&["feed", "refresh", "orders"]).await;
    assert_eq!(before.status.code(), Some(4), "{}", stderr(&before));
    let weak = machine.run(&["feed", "trust", "orders", &machine.vendor("weak.root.json")]).await;
    assert_eq!(weak.status.code(), Some(4));
    assert!(stderr(&weak).contains("accept the root metadata: 1 good signatures, 2 needed"), "{}", stderr(&weak));

    let trusted = machine.run(&["feed", "trust", "orders", &machine.vendor("root.json"), "--json"]).await;
    assert_eq!(trusted.status.code(), Some(0), "{}", stderr(&trusted));
    let shown = json(&trusted);
    assert_eq!((shown["version"].as_u64(), shown["threshold"].as_u64()), (Some(1), Some(2)));
    assert_eq!(shown["key_ids"].as_array().unwrap().len(), 2);
    // The same once more changes nothing and asks nothing.
    let again = machine.run(&["feed", "trust", "orders", &machine.vendor("root.json")]).await;
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));

    let other = machine.vendor("other.root.json");
    let asked = machine.run(&["feed", "trust", "orders", &other]).await;
    assert_eq!(asked.status.code(), Some(4), "{}", stderr(&asked));
    assert!(stderr(&asked).contains("instead of version 1?"), "{}", stderr(&asked));
    assert_eq!(machine.run(&["feed", "refresh", "orders"]).await.status.code(), Some(0));
    assert_eq!(machine.run(&["feed", "trust", "orders", &other, "--yes"]).await.status.code(), Some(0));
    assert_eq!(machine.run(&["feed", "refresh", "orders"]).await.status.code(), Some(4));
}

#[tokio::test]
async fn releases_are_listed_and_downloaded_without_a_daemon() {
    let mut machine = Machine::new("two").await;
    machine.run(&["feed", "trust", "orders", &machine.vendor("root.json")]).await;
    let refreshed = machine.run(&["feed", "refresh", "orders", "--json"]).await;
    let builds: Vec<_> = json(&refreshed)["releases"].as_array().unwrap().iter().map(|r| r["build"].clone()).collect();
    assert_eq!(builds, [1, 2]);
    let downloaded = machine.run(&["feed", "download", "orders", "2.0", "--json"]).await;
    assert_eq!(json(&downloaded)["version"], "2.0", "{}", stderr(&downloaded));
    let there: Vec<_> =
        fs_err::read_dir(machine.dir.path().join("opt/.orders.afterhours/downloads")).unwrap().collect();
    assert_eq!(there.len(), 1);
    assert_eq!(machine.run(&["feed", "download", "orders", "9.0"]).await.status.code(), Some(3));
    assert_eq!(machine.run(&["feed", "refresh", "crm"]).await.status.code(), Some(3));
    machine.server.stop().await;
    assert_eq!(machine.run(&["feed", "refresh", "orders"]).await.status.code(), Some(7));
}

#[tokio::test]
async fn the_client_alone_speaks_the_protocol_of_the_conformance_suite() {
    let machine = Machine::new("two").await;
    let (metadata, targets) = (machine.dir.path().join("metadata"), machine.dir.path().join("targets"));
    let (url, base) = (format!("{}metadata", machine.server.url()), format!("{}targets", machine.server.url()));
    let run = async |rest: &[&str]| {
        let mut command = afterhours(&["feed", "tuf-client", "--metadata-dir", metadata.to_str().unwrap()]);
        command.args(rest);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code().unwrap(), stderr(&output))
    };
    let names = |dir: &Path| {
        let mut names: Vec<_> =
            fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(run(&["--metadata-url", &url, "refresh"]).await.0, 1, "nothing is trusted yet");
    assert_eq!(run(&["init", &machine.vendor("root.json")]).await.0, 0);
    assert_eq!(names(&metadata), ["root.json"]);
    let (code, said) = run(&["--metadata-url", &url, "refresh"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(names(&metadata), ["root.json", "snapshot.json", "targets.json", "timestamp.json"]);
    let into = targets.to_str().unwrap();
    let download = ["--metadata-url", &url, "--target-dir", into, "--target-base-url", &base];
    let two = ["--target-name", "1/release.toml", "--target-name", "2/release.toml", "download"];
    let (code, said) = run(&[&download[..], &two].concat()).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(names(&targets).len(), 2);
    machine.server.take_asked();
    assert_eq!(run(&[&download[..], &two].concat()).await.0, 0);
    assert!(machine.server.take_asked().iter().all(|path| path.starts_with("metadata/")));
    assert_eq!(run(&[&download[..], &["--target-name", "3/release.toml", "download"]].concat()).await.0, 1);
}
