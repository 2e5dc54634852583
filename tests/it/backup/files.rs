//! A directory of dumps.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::*;
use afterhours::backup::EntryState;

const MIN: u64 = 10;

pub(super) struct Dumps {
    dir: tempfile::TempDir,
}

impl Dumps {
    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn settings(&self, test: Option<Run>) -> EvidenceSettings {
        EvidenceSettings::Files {
            glob: self.dir.path().join("orders-*").display().to_string(),
            min_size_bytes: MIN,
            max_shrink_percent: 50,
            test,
        }
    }

    /// A dump of `len` bytes.
    pub(super) fn dump(&self, name: &str, len: usize, age: Span) -> std::path::PathBuf {
        let path = self.path(name);
        write(&path, &noise(len), ago(age));
        path
    }

    fn sum(&self, path: &Path) -> String {
        let out =
            run("coreutils", Command::new("sha256sum").arg(path.file_name().unwrap()).current_dir(self.dir.path()));
        out.lines().next().unwrap().to_owned() + "\n"
    }

    async fn newest(&self, test: Option<Run>) -> Result<Evidence, BackupError> {
        gate_of(self.settings(test), None, None).newest(now()).await
    }
}

impl Kind for Dumps {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn evidence(&self) -> EvidenceSettings {
        self.settings(None)
    }

    fn back_up(&self, at: DateTime<Utc>) {
        let path = self.path(&format!("orders-{}.dump", at.timestamp()));
        write(&path, &noise(1000), at);
        fs_err::write(format!("{}.sha256", path.display()), self.sum(&path)).unwrap();
    }

    fn make(&self) -> Run {
        let script = format!(
            "cd {} && head -c 1000 /dev/urandom > orders-made.dump && sha256sum orders-made.dump > orders-made.dump.sha256",
            self.dir.path().display()
        );
        command(&["sh", "-c", &script])
    }

    fn damage(&self) {
        let entries = fs_err::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let dumps = entries.filter(|path| path.extension().is_some_and(|ending| ending == "dump"));
        let dump = dumps.max_by_key(|path| fs_err::metadata(path).unwrap().modified().unwrap()).unwrap();
        let at = fs_err::metadata(&dump).unwrap().modified().unwrap();
        let mut bytes = noise(1000);
        bytes[500] ^= 1;
        write(&dump, &bytes, at.into());
    }

    fn is_damage(error: &BackupError) -> bool {
        matches!(error, BackupError::ChecksumMismatch { .. })
    }
}

#[tokio::test]
async fn dumps_conform() {
    conforms::<Dumps>().await;
}

#[tokio::test]
async fn a_backup_that_cannot_be_made_is_told() {
    let dumps = Dumps::new();
    let error = satisfy(&gate(&dumps, Some(command(&["false"])))).await.unwrap_err();
    assert!(matches!(error, BackupError::MakeFailed { .. }), "{error}");
    let error = satisfy(&gate(&dumps, Some(command(&["true"])))).await.unwrap_err();
    assert!(matches!(error, BackupError::MadeNothing { newest: None }), "{error}");
    let findings = gate(&dumps, None).check(now()).await;
    assert_eq!(findings[0].severity, Severity::Fatal, "{findings:?}");
}

#[tokio::test]
async fn a_directory_that_does_not_exist_holds_no_backup() {
    let dumps = Dumps::new();
    fs_err::remove_dir(dumps.dir.path()).unwrap();
    assert!(matches!(dumps.newest(None).await, Err(BackupError::NotFound { .. })));
}

#[tokio::test]
async fn the_size_is_judged_against_a_minimum_and_the_ones_before() {
    let dumps = Dumps::new();
    dumps.dump("orders-1", 9, Span::hours(9));
    assert!(matches!(dumps.newest(None).await, Err(BackupError::TooSmall { size_bytes: 9, min_bytes: MIN, .. })));
    for (name, len, age) in [("orders-2", 1000, 8), ("orders-3", 1100, 7), ("orders-4", 900, 6)] {
        dumps.dump(name, len, Span::hours(age));
    }
    dumps.dump("orders-5", 449, Span::hours(5));
    assert!(matches!(dumps.newest(None).await, Err(BackupError::Shrunk { median_bytes: 900, percent: 50, .. })));
    dumps.dump("orders-6", 450, Span::hours(4));
    let evidence = dumps.newest(None).await.unwrap();
    assert_eq!(evidence.tested, ["size, compared with 5 before"]);
    assert_eq!(evidence.size_bytes, Some(450));
}

#[tokio::test]
async fn a_bad_newest_is_mended_by_making_one() {
    let dumps = Dumps::new();
    dumps.dump("orders-1", 1000, Span::hours(9));
    dumps.dump("orders-2", 3, Span::hours(1));
    let (evidence, made) = satisfy(&gate(&dumps, Some(dumps.make()))).await.unwrap();
    assert!(evidence.source.ends_with("orders-made.dump") && matches!(made, Made::Yes { .. }));
}

#[tokio::test]
async fn what_was_made_is_tested_too() {
    let dumps = Dumps::new();
    dumps.dump("orders-1", 1000, Span::days(9));
    let script = format!("printf tiny > {}", dumps.path("orders-2").display());
    let error = satisfy(&gate(&dumps, Some(command(&["sh", "-c", &script])))).await.unwrap_err();
    assert!(matches!(error, BackupError::TooSmall { .. }), "{error}");
}

#[tokio::test]
async fn checksums_are_found_in_every_usual_place() {
    let dumps = Dumps::new();
    let path = dumps.dump("orders-1", 1000, Span::hours(1));
    let sum = dumps.sum(&path);
    let wrong = format!("{}{}", "0".repeat(64), &sum[64..]);
    for side in ["orders-1.sha256", "orders-1.sha256sum", "SHA256SUMS"] {
        let side = dumps.path(side);
        fs_err::write(&side, &sum).unwrap();
        let evidence = dumps.newest(None).await.unwrap();
        assert_eq!(evidence.tested, ["size".to_owned(), format!("sha256 matches {}", side.display())]);
        fs_err::write(&side, &wrong).unwrap();
        let error = dumps.newest(None).await.unwrap_err();
        assert!(matches!(&error, BackupError::ChecksumMismatch { against, .. } if *against == side), "{error}");
        fs_err::remove_file(&side).unwrap();
    }
    // A checksum file of the dump's own that says nothing is a broken backup job.
    fs_err::write(dumps.path("orders-1.sha256"), "").unwrap();
    assert!(matches!(dumps.newest(None).await, Err(BackupError::ChecksumMismatch { .. })));
}

#[tokio::test]
async fn a_test_command_reads_the_dump() {
    let dumps = Dumps::new();
    let path = dumps.dump("orders-1.gz", 100, Span::hours(1));
    let test = command(&["gzip", "--test", "{}"]);
    let error = dumps.newest(Some(test.clone())).await.unwrap_err();
    assert!(matches!(error, BackupError::TestFailed { .. }) && error.is_mended_by_a_new_backup(), "{error}");
    let plain = dumps.dump("plain", 100, Span::hours(1));
    run("gzip", Command::new("gzip").arg(plain));
    fs_err::rename(dumps.path("plain.gz"), &path).unwrap();
    let evidence = dumps.newest(Some(test)).await.unwrap();
    assert_eq!(evidence.tested, ["size", "read by gzip"]);
    let absent = dumps.newest(Some(command(&["/nowhere/test", "{}"]))).await.unwrap_err();
    assert!(!absent.is_mended_by_a_new_backup(), "{absent}");
}

#[tokio::test]
async fn a_test_command_that_hangs_is_ended() {
    let dumps = Dumps::new();
    dumps.dump("orders-1", 100, Span::hours(1));
    let settings = BackupSettings {
        max_age: Span::days(2),
        evidence: dumps.settings(Some(command(&["sleep", "1000"]))),
        make: None,
        deadline: Duration::from_millis(100).into(),
        keep_last: None,
    };
    let error = BackupGate::new(&"orders".parse().unwrap(), &settings).newest(now()).await.unwrap_err();
    assert!(matches!(error, BackupError::TestFailed { .. }) && !error.is_mended_by_a_new_backup(), "{error}");
}

#[tokio::test]
async fn unfinished_files_are_no_backup() {
    let dumps = Dumps::new();
    for name in ["orders-1.part", "orders-1.tmp", "orders-1.dump.sha256"] {
        dumps.dump(name, 1000, Span::hours(1));
    }
    assert!(matches!(dumps.newest(None).await, Err(BackupError::NotFound { .. })));
}

/// Appends to a file until it is dropped.
struct Writer(std::process::Child);

impl Writer {
    fn to(path: &Path) -> Self {
        let script = format!("exec 3>>{}; while echo more >&3; do sleep 0.05; done", path.display());
        Self(Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_growing_file_is_no_backup_but_the_one_before_is() {
    let dumps = Dumps::new();
    let growing = dumps.dump("orders-2", 1000, Span::ZERO);
    let _writer = Writer::to(&growing);
    let error = dumps.newest(None).await.unwrap_err();
    assert!(matches!(error, BackupError::StillWritten { .. }), "{error}");
    dumps.dump("orders-1", 1000, Span::hours(3));
    let (evidence, made) = satisfy(&gate(&dumps, Some(command(&["false"])))).await.unwrap();
    assert!(evidence.source.ends_with("orders-1") && matches!(made, Made::No));
    let listed = gate(&dumps, None).list(now()).await.unwrap();
    assert_eq!([listed[0].state, listed[1].state], [EntryState::JustWritten, EntryState::Complete]);
}

/// Has a file open for writing, and pauses.
fn pausing(path: &Path) -> Writer {
    let script = format!("exec 3>>{}; echo more >&3; echo ready; exec sleep 1000", path.display());
    let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    Writer(child)
}

#[tokio::test]
async fn a_file_that_somebody_has_open_is_no_backup_however_long_it_holds_still() {
    let dumps = Dumps::new();
    let open = dumps.dump("orders-2", 1000, Span::hours(1));
    let writer = pausing(&open);
    std::fs::File::open(&open).unwrap().set_modified(ago(Span::mins(30)).into()).unwrap();
    let error = dumps.newest(None).await.unwrap_err();
    let by = format!("still being written by sleep (process {})", writer.0.id());
    assert!(error.to_string().contains(&by) && !error.is_mended_by_a_new_backup(), "{error}");
    assert!(error.hint().unwrap().contains("end it"), "{error:?}");
    dumps.dump("orders-1", 1000, Span::hours(3));
    let evidence = dumps.newest(None).await.unwrap();
    assert!(evidence.source.ends_with("orders-1"));
    drop(writer);
    assert!(dumps.newest(None).await.unwrap().source.ends_with("orders-2"));
    // Who only reads it does no harm, and neither does a writer within an older directory.
    let _reader = std::fs::File::open(&open).unwrap();
    let dir = dumps.path("orders-0");
    fs_err::create_dir(&dir).unwrap();
    let part = dir.join("part");
    write(&part, &noise(1000), ago(Span::hours(5)));
    let _writer = pausing(&part);
    std::fs::File::open(&part).unwrap().set_modified(ago(Span::hours(5)).into()).unwrap();
    std::fs::File::open(&dir).unwrap().set_modified(ago(Span::hours(5)).into()).unwrap();
    let (evidence, made) = satisfy(&gate(&dumps, Some(command(&["false"])))).await.unwrap();
    assert!(evidence.source.ends_with("orders-2") && matches!(made, Made::No));
    assert_eq!(evidence.tested, ["size, compared with 1 before"], "the one that is open is none of them");
}

#[tokio::test]
async fn a_growing_file_is_waited_for_before_another_is_made() {
    let dumps = Dumps::new();
    dumps.dump("orders-1", 1000, Span::days(3));
    let growing = dumps.dump("orders-2", 1000, Span::ZERO);
    let writer = Writer::to(&growing);
    let gate = gate(&dumps, Some(command(&["false"])));
    let waiting = Waiting(tokio::sync::Notify::new().into());
    let told = waiting.0.clone();
    let env = BTreeMap::new();
    let satisfied = gate.satisfy(&SystemClock, &env, Arc::new(waiting));
    let end = async {
        told.notified().await;
        drop(writer);
    };
    let both = async { tokio::join!(satisfied, end) };
    let (satisfied, ()) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("the gate waits");
    assert!(satisfied.unwrap().0.source.ends_with("orders-2"));
}

/// Tells when the gate begins to wait.
struct Waiting(Arc<tokio::sync::Notify>);

impl afterhours::domain::progress::Progress for Waiting {
    fn advance(&self, _done: u64, _total: Option<u64>, what: &str) {
        assert_eq!(what, "waiting for a backup that is being written");
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_dump_may_be_a_directory() {
    let dumps = Dumps::new();
    let dir = dumps.path("orders-dir");
    fs_err::create_dir_all(dir.join("sub")).unwrap();
    for name in ["toc.dat", "sub/1.dat"] {
        write(&dir.join(name), &noise(600), ago(Span::hours(2)));
    }
    // Its date is that of the newest file, not only of itself.
    for dir in [dir.join("sub"), dir.clone()] {
        std::fs::File::open(dir).unwrap().set_modified(ago(Span::hours(5)).into()).unwrap();
    }
    let evidence = dumps.newest(None).await.unwrap();
    assert_near(evidence.made_at, ago(Span::hours(2)));
    assert_eq!(evidence.size_bytes, Some(1200));

    let sums = run("coreutils", Command::new("sha256sum").args(["toc.dat", "./sub/1.dat"]).current_dir(&dir));
    write(&dir.join("SHA256SUMS"), sums.as_bytes(), ago(Span::hours(2)));
    std::fs::File::open(&dir).unwrap().set_modified(ago(Span::hours(2)).into()).unwrap();
    assert_eq!(dumps.newest(None).await.unwrap().tested.len(), 2);
    write(&dir.join("sub/1.dat"), &noise(601), ago(Span::hours(2)));
    assert!(matches!(dumps.newest(None).await, Err(BackupError::ChecksumMismatch { .. })));
    fs_err::remove_file(dir.join("toc.dat")).unwrap();
    std::fs::File::open(&dir).unwrap().set_modified(ago(Span::hours(2)).into()).unwrap();
    assert!(matches!(dumps.newest(None).await, Err(BackupError::FileMissing { .. })));
}

#[tokio::test]
async fn a_link_to_the_newest_is_not_a_second_backup() {
    let dumps = Dumps::new();
    dumps.dump("orders-1", 1000, Span::hours(1));
    std::os::unix::fs::symlink("orders-1", dumps.path("orders-latest")).unwrap();
    std::os::unix::fs::symlink("nowhere", dumps.path("orders-broken")).unwrap();
    let listed = gate(&dumps, None).list(now()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].source.ends_with("orders-1"));
}

#[tokio::test]
async fn doctor_names_untested_content_and_a_missing_make() {
    let dumps = Dumps::new();
    dumps.dump("orders-1", 1000, Span::hours(1));
    let findings = gate(&dumps, Some(command(&["/nowhere/backup"]))).check(now()).await;
    let seen: Vec<_> = findings.iter().map(|finding| (finding.check.as_str(), finding.severity)).collect();
    assert_eq!(
        seen,
        [("backup_evidence", Severity::Good), ("backup_tested", Severity::Warning), ("backup_make", Severity::Fatal)]
    );
    assert!(findings[1..].iter().all(|finding| finding.remedy.is_some()));
    dumps.dump("orders-1", 1000, Span::days(3));
    let findings = gate(&dumps, Some(command(&["true"]))).check(now()).await;
    assert_eq!(findings[0].severity, Severity::Warning, "a run would make one");
}
