//! A borg repository, with the real borg.

use std::path::PathBuf;

use super::*;

struct Repository {
    dir: tempfile::TempDir,
}

impl Repository {
    /// Its folder has a name that a shell would take apart.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("it's here").join(name)
    }

    fn borg(&self) -> Command {
        let mut command = Command::new("borg");
        command
            .current_dir(self.path("."))
            .env("BORG_REPO", self.path("repo"))
            .env("BORG_PASSPHRASE", "correct horse")
            .env("TZ", "UTC");
        command
    }

    fn settings(&self, prefix: Option<&str>, check: bool) -> EvidenceSettings {
        EvidenceSettings::Borg {
            repository: self.path("repo").display().to_string(),
            passphrase_file: Some(self.path("passphrase")),
            prefix: prefix.map(str::to_owned),
            check,
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
        let repository = Self { dir: tempfile::tempdir().unwrap() };
        fs_err::create_dir_all(repository.path("data")).unwrap();
        fs_err::write(repository.path("data/orders"), noise(50_000)).unwrap();
        fs_err::write(repository.path("passphrase"), "correct horse\n").unwrap();
        run("borgbackup", repository.borg().args(["init", "--encryption=repokey-blake2"]));
        repository
    }

    fn evidence(&self) -> EvidenceSettings {
        self.settings(None, true)
    }

    fn back_up(&self, at: DateTime<Utc>) {
        let timestamp = format!("--timestamp={}", at.format("%Y-%m-%dT%H:%M:%S"));
        let archive = format!("::orders-{}", at.timestamp());
        run("borgbackup", self.borg().args(["create", &timestamp, &archive, "data"]));
    }

    fn make(&self) -> Run {
        let script = "cd \"$1\" && BORG_PASSPHRASE='correct horse' borg create repo::orders-made data";
        command(&["sh", "-c", script, "sh", &self.path(".").display().to_string()])
    }

    fn damage(&self) {
        let segments = run("findutils", Command::new("find").arg(self.path("repo/data")).args(["-size", "+40k"]));
        let segment = segments.lines().next().unwrap();
        let mut bytes = fs_err::read(segment).unwrap();
        bytes[20_000] ^= 1;
        fs_err::write(segment, bytes).unwrap();
    }

    fn is_damage(error: &BackupError) -> bool {
        matches!(error, BackupError::Damaged { program: "borg", .. })
    }
}

#[tokio::test]
async fn borg_conforms() {
    conforms::<Repository>().await;
}

#[tokio::test]
async fn damage_is_found_only_by_checking() {
    let repository = Repository::new();
    repository.back_up(ago(Span::hours(1)));
    repository.damage();
    assert!(matches!(repository.refusal().await, BackupError::Damaged { .. }));
    let unchecked = gate_of(repository.settings(None, false), None, None);
    assert!(unchecked.newest(now()).await.unwrap().tested.is_empty());
    let findings = unchecked.check(now()).await;
    assert_eq!((findings[1].check.as_str(), findings[1].severity), ("backup_tested", Severity::Warning));
}

#[tokio::test]
async fn a_wrong_passphrase_and_a_missing_repository_are_told_apart() {
    let repository = Repository::new();
    repository.back_up(ago(Span::hours(1)));
    fs_err::write(repository.path("passphrase"), "wrong battery\n").unwrap();
    let error = repository.refusal().await;
    assert!(matches!(error, BackupError::WrongPassword { program: "borg", .. }), "{error}");
    assert!(!error.to_string().contains("battery") && !error.is_mended_by_a_new_backup());
    let mut settings = repository.settings(None, false);
    if let EvidenceSettings::Borg { passphrase_file, .. } = &mut settings {
        *passphrase_file = None;
    }
    let error = gate_of(settings, None, None).newest(now()).await.unwrap_err();
    assert!(matches!(error, BackupError::WrongPassword { .. }), "nobody is asked for a passphrase: {error}");
    fs_err::remove_dir_all(repository.path("repo")).unwrap();
    let error = repository.refusal().await;
    assert!(matches!(error, BackupError::RepositoryMissing { program: "borg", .. }), "{error}");
    fs_err::remove_file(repository.path("passphrase")).unwrap();
    let error = repository.refusal().await;
    assert!(matches!(error, BackupError::PasswordFile { .. }), "{error}");
}

#[tokio::test]
async fn only_archives_with_the_prefix_count_wherever_the_repository_was_moved() {
    let repository = Repository::new();
    repository.back_up(ago(Span::hours(1)));
    fs_err::rename(repository.path("repo"), repository.path("moved")).unwrap();
    let newest = |prefix| {
        let mut settings = repository.settings(Some(prefix), true);
        if let EvidenceSettings::Borg { repository: location, .. } = &mut settings {
            *location = repository.path("moved").display().to_string();
        }
        let gate = gate_of(settings, None, None);
        async move { gate.newest(now()).await }
    };
    assert_eq!(newest("orders-").await.unwrap().tested, ["borg check"]);
    let error = newest("*").await.unwrap_err();
    assert!(matches!(error, BackupError::NotFound { .. }), "a prefix is no pattern: {error}");
}
