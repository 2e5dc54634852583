//! The backup gate against real files and the real programs. Every kind of evidence passes the
//! same conformance test, and then the tests of its own peculiarities.

mod borg;
mod files;
mod reported;
mod restic;
mod rotation;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use afterhours::backup::BackupError;
use afterhours::backup::BackupGate;
use afterhours::backup::Made;
use afterhours::config::settings::BackupSettings;
use afterhours::config::settings::EvidenceSettings;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::command::Command as Run;
use afterhours::domain::evidence::Evidence;
use afterhours::domain::finding::Severity;
use afterhours::domain::progress::Silent;
use afterhours::domain::span::Span;
use chrono::DateTime;
use chrono::Utc;

use crate::support::command;

/// A place for backups of one kind, empty at first.
trait Kind {
    fn new() -> Self;
    /// The settings that look there.
    fn evidence(&self) -> EvidenceSettings;
    /// Makes a good backup that is dated `at`.
    fn back_up(&self, at: DateTime<Utc>);
    /// A command that makes a good backup now.
    fn make(&self) -> Run;
    /// Damages the newest backup so that its date does not tell.
    fn damage(&self);
    /// Whether the gate noticed that damage.
    fn is_damage(error: &BackupError) -> bool;
}

/// What every kind of evidence must do. One place goes through it all, because some are slow to set up.
async fn conforms<K: Kind>() {
    let kind = K::new();
    nothing_is_refused(&kind).await;
    kind.back_up(ago(Span::days(3)));
    old_is_refused(&kind).await;
    making_one_satisfies(&kind).await;
    fresh_is_accepted_and_nothing_made(&kind).await;
    kind.damage();
    let error = satisfy(&gate(&kind, None)).await.unwrap_err();
    assert!(K::is_damage(&error) && error.hint().is_some(), "{error}");
    kind.back_up(now() + Span::hours(1).delta());
    let error = satisfy(&gate(&kind, Some(kind.make()))).await.unwrap_err();
    assert!(matches!(error, BackupError::FromTheFuture { .. }), "{error}");
}

async fn nothing_is_refused(kind: &impl Kind) {
    let error = satisfy(&gate(kind, None)).await.unwrap_err();
    assert!(error.is_mended_by_a_new_backup() && error.hint().is_some(), "{error}");
}

async fn old_is_refused(kind: &impl Kind) {
    let error = satisfy(&gate(kind, None)).await.unwrap_err();
    assert!(matches!(error, BackupError::TooOld { .. }), "{error}");
    let error = satisfy(&gate(kind, Some(command(&["true"])))).await.unwrap_err();
    assert!(matches!(error, BackupError::MadeNothing { newest: Some(_) }), "{error}");
}

async fn making_one_satisfies(kind: &impl Kind) {
    let began = now();
    let (evidence, made) = satisfy(&gate(kind, Some(kind.make()))).await.unwrap();
    assert!(matches!(made, Made::Yes { not_rotated: None, .. }), "{made:?}");
    assert_near(evidence.made_at, began);
}

async fn fresh_is_accepted_and_nothing_made(kind: &impl Kind) {
    let (evidence, made) = satisfy(&gate(kind, Some(command(&["false"])))).await.unwrap();
    assert!(matches!(made, Made::No));
    assert!(!evidence.tested.is_empty() && !evidence.source.is_empty(), "{evidence:?}");
    let listed = gate(kind, None).list(now()).await.unwrap();
    assert_eq!(listed[0].source, evidence.source);
    assert!(listed.is_sorted_by_key(|entry| std::cmp::Reverse(entry.made_at)), "{listed:?}");
}

fn gate(kind: &impl Kind, make: Option<Run>) -> BackupGate {
    gate_of(kind.evidence(), make, None)
}

fn gate_of(evidence: EvidenceSettings, make: Option<Run>, keep_last: Option<u32>) -> BackupGate {
    let settings = BackupSettings { max_age: Span::days(2), evidence, make, deadline: Span::secs(60), keep_last };
    BackupGate::new(&"orders".parse().unwrap(), &settings)
}

async fn satisfy(gate: &BackupGate) -> Result<(Evidence, Made), BackupError> {
    gate.satisfy(&SystemClock, &BTreeMap::new(), Arc::new(Silent)).await
}

fn now() -> DateTime<Utc> {
    SystemClock.now()
}

fn ago(span: Span) -> DateTime<Utc> {
    now() - span.delta()
}

/// Programs round to seconds, and tests take some.
fn assert_near(a: DateTime<Utc>, b: DateTime<Utc>) {
    assert!((a - b).abs() < Span::secs(30).delta(), "{a} is not near {b}");
}

/// Writes `bytes` to a file that was last touched `at`.
fn write(path: &Path, bytes: &[u8], at: DateTime<Utc>) {
    fs_err::write(path, bytes).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(at.into()).unwrap();
}

/// Runs a program that the test depends on, and insists that it ends well.
fn run(package: &str, command: &mut Command) -> String {
    let program = command.get_program().to_owned();
    let output = command.output().unwrap_or_else(|error| {
        panic!("run {}: {error}; install the Debian package {package}", program.display());
    });
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Bytes that no program can compress or guess.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(len)
    .collect()
}
