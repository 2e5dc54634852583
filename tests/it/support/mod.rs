//! What several parts need to be tested.

pub(crate) mod systemd_box;
pub(crate) mod users;

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use afterhours::domain;
use afterhours::domain::command::Tree;
use serde_json::Value;

/// A program at a terminal where each answer is typed to its question, once that shows no more what is typed; its exit code and
/// what stood there.
pub(crate) fn at_a_terminal(program: &Command, answers: &[(&str, &str)]) -> (i64, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/terminal.py");
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(script)
        .arg(serde_json::to_string(answers).unwrap())
        .arg(program.get_program())
        .args(program.get_args());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap_or_else(|error| panic!("python3 cannot be run ({error}); install python3"));
    let ended: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(ended["left"], Value::Array(Vec::new()), "{ended}");
    (ended["code"].as_i64().unwrap(), ended["shown"].as_str().unwrap().to_owned())
}

/// A command of an application whose tree belongs to root, or to whoever runs the tests.
pub(crate) fn command(words: &[&str]) -> domain::command::Command {
    let argv = words.iter().map(|&word| word.to_owned()).collect();
    domain::command::Command::of_owner(argv, Tree::new("/", None))
}

/// A script for `sh`, as such a command.
pub(crate) fn sh(script: &str) -> domain::command::Command {
    command(&["sh", "-c", script])
}

/// Waits until `seen` is true, for at most `bound`; the test fails with `what` otherwise.
pub(crate) async fn eventually(what: &str, bound: Duration, mut seen: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + bound;
    while !seen().await {
        assert!(Instant::now() < until, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
