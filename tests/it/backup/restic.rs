//! A restic repository, with the real restic.

use std::path::PathBuf;

use super::*;

const PASSWORD: &str = "correct horse\n";

/// A repository that was only initialised. That takes seconds, so it is kept for all tests.
fn empty_repository() -> PathBuf {
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("restic-empty");
    if !kept.exists() {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let password_file = dir.path().join("password");
        fs_err::write(&password_file, PASSWORD).unwrap();
        let mut init = Command::new("restic");
        init.args(["--no-cache", "init", "--repo"]).arg(dir.path().join("repo")).arg("--password-file");
        run("restic", init.arg(password_file));
        // Another test may have been faster; then its repository is as good as ours.
        if let Err(error) = fs_err::rename(dir.path().join("repo"), &kept) {
            assert!(kept.exists(), "{error}");
        }
    }
    kept
}

struct Repository {
    dir: tempfile::TempDir,
    read_data_subset: Option<String>,
}

impl Repository {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn restic(&self) -> Command {
        let mut command = Command::new("restic");
        command
            .args(["--no-cache", "--quiet"])
            .current_dir(self.dir.path())
            .env("RESTIC_REPOSITORY", self.path("repo"))
            .env("RESTIC_PASSWORD_FILE", self.path("password"));
        command
    }

    fn settings(&self, tag: Option<&str>) -> EvidenceSettings {
        EvidenceSettings::Restic {
            repository: self.path("repo").display().to_string(),
            password_file: self.path("password"),
            tag: tag.map(str::to_owned),
            read_data_subset: self.read_data_subset.clone(),
            env: BTreeMap::new(),
        }
    }

    async fn refusal(&self) -> BackupError {
        let error = gate(self, None).newest(now()).await.unwrap_err();
        assert!(error.hint().is_some(), "{error}");
        error
    }
}

impl Kind for Repository {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = Self { dir, read_data_subset: Some("100%".to_owned()) };
        fs_err::write(repository.path("password"), PASSWORD).unwrap();
        fs_err::create_dir(repository.path("data")).unwrap();
        fs_err::write(repository.path("data/orders"), noise(50_000)).unwrap();
        run("coreutils", Command::new("cp").arg("-a").arg(empty_repository()).arg(repository.path("repo")));
        repository
    }

    fn evidence(&self) -> EvidenceSettings {
        self.settings(None)
    }

    fn back_up(&self, at: DateTime<Utc>) {
        let time = at.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M:%S").to_string();
        run("restic", self.restic().args(["backup", "data", "--time", &time, "--tag", "nightly"]));
    }

    fn make(&self) -> Run {
        let script = format!(
            "cd {} && restic -q --no-cache -r repo --password-file password backup data",
            self.dir.path().display()
        );
        command(&["sh", "-c", &script])
    }

    fn damage(&self) {
        let packs = run("findutils", Command::new("find").arg(self.path("repo/data")).args(["-size", "+40k"]));
        let pack = packs.lines().next().unwrap();
        fs_err::set_permissions(pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut bytes = fs_err::read(pack).unwrap();
        bytes[20_000] ^= 1;
        fs_err::write(pack, bytes).unwrap();
    }

    fn is_damage(error: &BackupError) -> bool {
        matches!(error, BackupError::Damaged { program: "restic", .. })
    }
}

#[tokio::test]
async fn restic_conforms() {
    conforms::<Repository>().await;
}

#[tokio::test]
async fn damaged_data_are_found_only_by_reading_them() {
    let mut repository = Repository::new();
    repository.back_up(ago(Span::hours(1)));
    let evidence = gate(&repository, None).newest(now()).await.unwrap();
    assert_eq!(evidence.size_bytes, Some(50_000));
    assert_eq!(evidence.tested, ["restic check, 100% of the data read"]);
    assert_near(evidence.made_at, ago(Span::hours(1)));
    repository.damage();
    assert!(matches!(repository.refusal().await, BackupError::Damaged { .. }));
    repository.read_data_subset = None;
    let findings = gate(&repository, None).check(now()).await;
    assert!(findings[0].text.contains("restic check, no data read"), "{findings:?}");
    assert_eq!((findings[0].check.as_str(), findings[0].severity), ("backup_evidence", Severity::Good));
    assert_eq!((findings[1].check.as_str(), findings[1].severity), ("backup_tested", Severity::Warning));
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_repository_are_told_apart() {
    let repository = Repository::new();
    repository.back_up(ago(Span::hours(1)));
    fs_err::write(repository.path("password"), "wrong battery\n").unwrap();
    let error = repository.refusal().await;
    assert!(matches!(error, BackupError::WrongPassword { program: "restic", .. }), "{error}");
    assert!(!error.to_string().contains("battery") && !error.is_mended_by_a_new_backup());
    fs_err::remove_dir_all(repository.path("repo")).unwrap();
    let error = repository.refusal().await;
    assert!(matches!(error, BackupError::RepositoryMissing { program: "restic", .. }), "{error}");
    fs_err::remove_file(repository.path("password")).unwrap();
    let error = repository.refusal().await;
    assert!(matches!(error, BackupError::PasswordFile { .. }), "{error}");
}

#[tokio::test]
async fn only_snapshots_with_the_tag_count_and_nothing_is_locked() {
    let repository = Repository::new();
    repository.back_up(ago(Span::hours(1)));
    // A file where locks belong: nobody can lock the repository now.
    fs_err::remove_dir_all(repository.path("repo/locks")).unwrap();
    fs_err::write(repository.path("repo/locks"), "").unwrap();
    let newest = |tag| {
        let gate = gate_of(repository.settings(Some(tag)), None, None);
        async move { gate.newest(now()).await }
    };
    newest("nightly").await.unwrap();
    let error = newest("weekly").await.unwrap_err();
    assert!(matches!(&error, BackupError::NotFound { place } if place.contains("weekly")), "{error}");
}
