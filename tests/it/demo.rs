//! The demo, run for real: a daemon, workstations and an application as processes, a signed feed, two nights.

use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use fs_err as fs;
use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::eventually;

/// The demo, which finds nothing in its environment but a place for its directory.
fn demo(tmp: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    command.arg("demo").env_clear().env("TZ", "UTC").env("TMPDIR", tmp).stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// The command lines of the processes that have to do with `dir`.
fn processes_of(dir: &Path) -> Vec<String> {
    let lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(dir.to_str().unwrap())).collect()
}

fn nothing_is_left(tmp: &Path) {
    assert_eq!(processes_of(tmp), Vec::<String>::new());
    let files: Vec<_> = fs::read_dir(tmp).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(files.is_empty(), "{files:?}");
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn both_nights_are_as_they_should_be_and_nothing_is_left() {
    let tmp = tempfile::tempdir().unwrap();
    let output = demo(tmp.path()).arg("--json").output().unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(summary["ok"], true);
    let checks = |part: usize| -> Vec<&str> {
        let checks = summary["parts"][part]["checks"].as_array().unwrap();
        checks.iter().map(|check| check["what"].as_str().unwrap()).collect()
    };
    insta::assert_snapshot!([0, 1, 2, 3, 4].map(|part| checks(part).join("\n")).join("\n\n"));
    for (night, least_ms) in [(0, 1), (2, 6_000)] {
        let downtime = summary["parts"][night]["downtime_ms"].as_u64().unwrap();
        assert!(downtime >= least_ms, "night {night}: {downtime}");
    }
    let web_server = summary["parts"][1]["checks"].to_string();
    for told in ["0 good signatures, 1 needed", "version 3 is offered, version 4 was seen before"] {
        assert!(web_server.contains(told), "{told}: {web_server}");
    }
    for told in ["swap[2]", "Everything is put back as it was.", "4.0 failed, 3.0 is back"] {
        assert!(stderr.contains(told), "{told}: {stderr}");
    }
    nothing_is_left(tmp.path());
}

#[tokio::test]
async fn ctrl_c_leaves_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let demo = demo(tmp.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // In the middle of it: an order is entered, so that daemon, application and workstations all run.
    eventually("somebody works", Duration::from_secs(60), async || {
        processes_of(tmp.path()).iter().any(|line| line.contains("--ledger") && line.contains("sample-desk desk"))
    })
    .await;
    let pid = Pid::from_raw(demo.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let output = demo.wait_with_output().unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!((output.status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("the demo was interrupted"), "{stderr}");
    nothing_is_left(tmp.path());
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("diary"), "dear diary").unwrap();
    let output = demo(dir.path()).arg("--dir").arg(dir.path()).output().unwrap();
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
