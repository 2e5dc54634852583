//! Backups that a manifest or a command vouches for.

use std::path::PathBuf;

use serde_json::json;

use super::*;

/// A folder with a manifest.
struct Manifested {
    dir: tempfile::TempDir,
}

impl Manifested {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_manifest(&self, files: &serde_json::Value) {
        let manifest = json!({ "made_at": ago(Span::hours(1)), "files": files, "tool": "ours" });
        fs_err::write(self.path("manifest.json"), manifest.to_string()).unwrap();
    }

    async fn refusal(&self) -> BackupError {
        gate(self, None).newest(now()).await.unwrap_err()
    }
}

impl Kind for Manifested {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn evidence(&self) -> EvidenceSettings {
        EvidenceSettings::Manifest { file: self.path("manifest.json") }
    }

    fn back_up(&self, at: DateTime<Utc>) {
        let argv = self.make().argv;
        run("coreutils", Command::new(&argv[0]).args(&argv[1..]).env("AT", at.to_rfc3339()));
    }

    fn make(&self) -> Run {
        let script = r#"cd "$1" && mkdir -p parts && head -c 500 /dev/urandom > parts/one &&
            sum=$(sha256sum < parts/one | cut -d' ' -f1) && at=${AT:-$(date -u +%Y-%m-%dT%H:%M:%SZ)} &&
            echo "{\"made_at\":\"$at\",\"files\":[{\"path\":\"parts/one\",\"sha256\":\"$sum\",\"size_bytes\":500}]}" > manifest.json"#;
        command(&["sh", "-c", script, "sh", &self.dir.path().display().to_string()])
    }

    fn damage(&self) {
        let part = self.path("parts/one");
        let mut bytes = fs_err::read(&part).unwrap();
        bytes[250] ^= 1;
        fs_err::write(part, bytes).unwrap();
    }

    fn is_damage(error: &BackupError) -> bool {
        matches!(error, BackupError::ChecksumMismatch { .. })
    }
}

#[tokio::test]
async fn a_manifest_conforms() {
    conforms::<Manifested>().await;
}

#[tokio::test]
async fn every_file_of_a_manifest_is_verified() {
    let manifested = Manifested::new();
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let abc = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
    fs_err::write(manifested.path("a"), "abc").unwrap();
    let named = |path: &str, sha256: &str, size: u64| json!({ "path": path, "sha256": sha256, "size_bytes": size });

    let absolute = manifested.path("a").display().to_string();
    manifested.write_manifest(&json!([named("a", abc, 3), named(&absolute, abc, 3)]));
    let evidence = gate(&manifested, None).newest(now()).await.unwrap();
    assert_eq!((evidence.size_bytes, evidence.tested), (Some(6), vec!["sha256 of 2 files matches".to_owned()]));

    manifested.write_manifest(&json!([named("a", abc, 3), named("gone", empty, 0)]));
    assert!(matches!(manifested.refusal().await, BackupError::FileMissing { .. }));
    manifested.write_manifest(&json!([named("a", abc, 4)]));
    assert!(matches!(manifested.refusal().await, BackupError::ChecksumMismatch { .. }));
    manifested.write_manifest(&json!([named("a", empty, 3)]));
    assert!(matches!(manifested.refusal().await, BackupError::ChecksumMismatch { .. }));
    manifested.write_manifest(&json!([]));
    assert!(matches!(manifested.refusal().await, BackupError::EmptyManifest { .. }));
    fs_err::write(manifested.path("manifest.json"), "{").unwrap();
    assert!(matches!(manifested.refusal().await, BackupError::NotUnderstood { .. }));
}

/// A command that prints a file.
struct Commanded {
    dir: tempfile::TempDir,
}

impl Commanded {
    fn report(&self) -> PathBuf {
        self.dir.path().join("report.json")
    }
}

impl Kind for Commanded {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn evidence(&self) -> EvidenceSettings {
        EvidenceSettings::Command { command: command(&["cat", &self.report().display().to_string()]) }
    }

    fn back_up(&self, at: DateTime<Utc>) {
        let report = json!({ "made_at": at, "size_bytes": 4711, "source": "tape 7" });
        fs_err::write(self.report(), report.to_string()).unwrap();
    }

    fn make(&self) -> Run {
        let script = r#"echo "{\"made_at\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\",\"source\":\"tape 8\"}" > "$1""#;
        command(&["sh", "-c", script, "sh", &self.report().display().to_string()])
    }

    fn damage(&self) {
        // What a command does about damage is its own affair: it fails.
        fs_err::remove_file(self.report()).unwrap();
    }

    fn is_damage(error: &BackupError) -> bool {
        matches!(error, BackupError::NotAsked { .. })
    }
}

#[tokio::test]
async fn a_command_conforms() {
    conforms::<Commanded>().await;
}

#[tokio::test]
async fn a_command_that_reports_nothing_is_not_believed() {
    let commanded = Commanded::new();
    let report = json!({ "made_at": now(), "size_bytes": 0, "source": "tape 7" });
    fs_err::write(commanded.report(), report.to_string()).unwrap();
    let error = gate(&commanded, None).newest(now()).await.unwrap_err();
    assert!(matches!(error, BackupError::TooSmall { .. }), "{error}");
    let absent = EvidenceSettings::Command { command: command(&["/nowhere/report"]) };
    let error = gate_of(absent, Some(command(&["true"])), None).newest(now()).await.unwrap_err();
    assert!(!error.is_mended_by_a_new_backup() && error.hint().is_some(), "{error}");
}
