//! A directory of dumps: the newest file or directory that matches a pattern and holds still.
//!
//! A dump that was touched within the last [`QUIET`] is looked at twice; if its size and date
//! moved, it is still being written and not yet a backup. Neither is one that a process of this machine has open for writing
//! ([`writers`](super::writers)). Names of unfinished files (`.part`,
//! `.tmp`, hidden ones) and of files that only accompany a dump never count. A dump may be a
//! directory: its size is that of all files in it, its date that of the newest. A link to another
//! dump of the same pattern (`latest.dump`) is not a second one.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;
use chrono::Utc;
use globset::Glob;
use globset::GlobMatcher;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use walkdir::WalkDir;

use crate::backup::checksum;
use crate::backup::error::BackupError;
use crate::backup::judge::judge_size;
use crate::backup::writers::FileId;
use crate::backup::writers::Writers;
use crate::domain::command::Command;
use crate::domain::name::AppName;
use crate::domain::span::Span;
use crate::exec::Exec;

/// How long a dump must hold still to count as finished.
pub(super) const QUIET: Duration = Duration::from_secs(2);
/// Of a dump that is a directory, so many files are looked for among the open ones.
const FILES_MAX: usize = 100_000;
/// Endings of files that are not finished.
const UNFINISHED: &[&str] = &[".part", ".partial", ".tmp", ".temp", ".incomplete", ".filepart"];
/// Endings of files that accompany a dump.
pub(super) const SIDE_FILES: &[&str] = &[".sha256", ".sha256sum", ".sha512", ".sha1", ".md5", ".sig", ".asc"];

/// One dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dump {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its size.
    pub(super) size_bytes: u64,
    /// When it was written last.
    pub(super) modified_at: DateTime<Utc>,
    /// What it is.
    pub(super) shape: Shape,
    /// Device and inode of what goes by that name, a link's own.
    pub(super) entry: FileId,
    /// The files that it consists of; of very many only some.
    pub(super) files: Vec<FileId>,
}

/// What a dump is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A link to one of these.
    Link,
}

impl Dump {
    /// How it is called in messages.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Whether it was touched so recently that it may still be written to.
    pub(super) fn is_young(&self, now: DateTime<Utc>) -> bool {
        self.modified_at > now - QUIET
    }
}

/// What a directory of dumps holds, newest first.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Those that hold still.
    pub(super) finished: Vec<Dump>,
    /// Those that do not, or that somebody has open for writing.
    pub(super) growing: Vec<Dump>,
    /// Who has one open.
    pub(super) writers: Writers,
}

impl Survey {
    async fn of(finished: Vec<Dump>, mut growing: Vec<Dump>) -> Self {
        let all = finished.iter().chain(&growing).flat_map(|dump| dump.files.iter().copied());
        let writers = Writers::of(all.collect()).await;
        let (open, finished): (Vec<_>, Vec<_>) =
            finished.into_iter().partition(|dump| writers.to(&dump.files).is_some());
        growing.extend(open);
        growing.sort_by_key(|dump| std::cmp::Reverse(dump.modified_at));
        Self { finished, growing, writers }
    }

    /// Who writes to a dump, if somebody was seen to.
    pub(super) fn writer(&self, dump: &Dump) -> Option<String> {
        self.writers.to(&dump.files).map(str::to_owned)
    }
}

/// A directory of dumps, as configured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a> {
    pub(super) app: &'a AppName,
    pub(super) glob: &'a str,
    pub(super) min_size_bytes: u64,
    pub(super) max_shrink_percent: u32,
    pub(super) test: Option<&'a Command>,
    pub(super) deadline: Span,
}

impl Files<'_> {
    /// Looks once, or twice where something was touched a moment ago.
    pub(super) async fn survey(self, now: DateTime<Utc>) -> Result<Survey, BackupError> {
        let first = self.look().await?;
        if !first.iter().any(|dump| dump.is_young(now)) {
            let survey = Survey::of(first, Vec::new()).await;
            if !survey.growing.is_empty() {
                // Whoever looks again has waited, as below.
                sleep(QUIET).await;
            }
            return Ok(survey);
        }
        sleep(QUIET).await;
        let second = self.look().await?;
        let (finished, growing) = second.into_iter().partition(|dump| !dump.is_young(now) || first.contains(dump));
        Ok(Survey::of(finished, growing).await)
    }

    /// Looks once. Newest first.
    pub(super) async fn look(self) -> Result<Vec<Dump>, BackupError> {
        let (dir, pattern) = self.split()?;
        spawn_blocking(move || {
            read(&dir, &pattern).map_err(|source| BackupError::Io { action: "read", path: dir, source })
        })
        .await
        .map_err(|_| BackupError::Interrupted { place: self.glob.to_owned() })?
    }

    /// The directory of the dumps.
    pub(super) fn dir(self) -> Result<PathBuf, BackupError> {
        self.split().map(|(dir, _)| dir)
    }

    fn split(self) -> Result<(PathBuf, GlobMatcher), BackupError> {
        let bad = || BackupError::BadGlob { glob: self.glob.to_owned() };
        let (dir, last) = self.glob.rsplit_once('/').ok_or_else(bad)?;
        if !self.glob.starts_with('/') || last.is_empty() || dir.contains(['*', '?', '[', '{']) {
            return Err(bad());
        }
        let dir = if dir.is_empty() { "/" } else { dir };
        Ok((PathBuf::from(dir), Glob::new(last).map_err(|_| bad())?.compile_matcher()))
    }

    /// Tests a dump in every way that is configured; `earlier` are the sizes of those before it.
    /// The answer is what was tested, in words.
    pub(super) async fn test(self, dump: &Dump, earlier: &[u64]) -> Result<Vec<String>, BackupError> {
        let name = dump.name();
        judge_size(&name, dump.size_bytes, self.min_size_bytes, earlier, self.max_shrink_percent)?;
        let mut tested = vec![match earlier.len() {
            0 => "size".to_owned(),
            count => format!("size, compared with {count} before"),
        }];
        let is_dir = dump.path.is_dir();
        if let Some(against) = checksum::verify_dump(&dump.path, is_dir, self.deadline).await? {
            tested.push(format!("sha256 matches {}", against.display()));
        }
        if let Some(test) = self.test {
            self.run_test(test, dump).await?;
            tested.push(format!("read by {}", test.program()));
        }
        Ok(tested)
    }

    async fn run_test(self, test: &Command, dump: &Dump) -> Result<(), BackupError> {
        let path = dump.name();
        Exec::of(test, self.deadline)
            .fill(&path)
            .env("AFTERHOURS_APP", self.app.as_str())
            .env("AFTERHOURS_BACKUP", &path)
            .run()
            .await
            .map(drop)
            .map_err(|source| BackupError::TestFailed { backup: path, source })
    }
}

/// Every dump in `dir`, newest first. A directory that does not exist holds none.
fn read(dir: &Path, pattern: &GlobMatcher) -> io::Result<Vec<Dump>> {
    let entries = match fs_err::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut dumps = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| counts(name.as_bytes()) && pattern.is_match(name)) {
            // It may be gone by now; then it is none.
            dumps.extend(measure(&path).ok().flatten());
        }
    }
    drop_links_to_each_other(&mut dumps);
    dumps.sort_by(|a, b| (b.modified_at, &b.path).cmp(&(a.modified_at, &a.path)));
    Ok(dumps)
}

/// Whether a file of this name can be a finished dump. Names that are not UTF-8 cannot: they could
/// not be given to a test command unchanged.
fn counts(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let lower = name.to_ascii_lowercase();
    !lower.starts_with('.')
        && lower != "sha256sums"
        && !UNFINISHED.iter().chain(SIDE_FILES).any(|ending| lower.ends_with(ending))
}

fn measure(path: &Path) -> io::Result<Option<Dump>> {
    let itself = fs_err::symlink_metadata(path)?;
    let is_link = itself.is_symlink();
    let meta = fs_err::metadata(path)?;
    let mut files = Vec::new();
    let (size_bytes, modified, shape) = if meta.is_file() {
        files.push((meta.dev(), meta.ino()));
        (meta.len(), meta.modified()?, Shape::File)
    } else if meta.is_dir() {
        let mut sum = (0, meta.modified()?);
        for entry in WalkDir::new(path).min_depth(1) {
            let meta = entry?.metadata()?;
            let size = if meta.is_file() { meta.len() } else { 0 };
            if meta.is_file() && files.len() < FILES_MAX {
                files.push((meta.dev(), meta.ino()));
            }
            sum = (sum.0 + size, sum.1.max(meta.modified()?));
        }
        (sum.0, sum.1, Shape::Directory)
    } else {
        return Ok(None);
    };
    let shape = if is_link { Shape::Link } else { shape };
    Ok(Some(Dump {
        path: path.to_owned(),
        size_bytes,
        modified_at: modified.into(),
        shape,
        entry: (itself.dev(), itself.ino()),
        files,
    }))
}

fn drop_links_to_each_other(dumps: &mut Vec<Dump>) {
    let real: Vec<PathBuf> = dumps
        .iter()
        .filter(|dump| dump.shape != Shape::Link)
        .filter_map(|dump| fs_err::canonicalize(&dump.path).ok())
        .collect();
    dumps.retain(|dump| {
        dump.shape != Shape::Link || !fs_err::canonicalize(&dump.path).is_ok_and(|target| real.contains(&target))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_and_accompanying_files_do_not_count() {
        for name in ["a.dump.part", "a.TMP", ".a.dump.Xy12", "a.dump.sha256", "SHA256SUMS", "a.sha256sum", "a.asc"] {
            assert!(!counts(name.as_bytes()), "{name}");
        }
        assert!(!counts(b"a\xff.dump"));
        for name in ["a.dump", "a.sql.zst", "template", "a.tmpl", "part.1"] {
            assert!(counts(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn only_the_last_part_of_an_absolute_path_is_a_pattern() {
        let app = "orders".parse().unwrap();
        let split = |glob| {
            Files { app: &app, glob, min_size_bytes: 0, max_shrink_percent: 0, test: None, deadline: Span::secs(1) }
                .split()
                .map(|(dir, pattern)| (dir, pattern.is_match("orders-1.dump")))
        };
        assert_eq!(split("/srv/backup/orders-*.dump").unwrap(), (PathBuf::from("/srv/backup"), true));
        assert_eq!(split("/*.{dump,sql}").unwrap(), (PathBuf::from("/"), true));
        for bad in ["orders-*", "/srv/*/orders", "/srv/backup/", "./x", "/srv/[", ""] {
            assert!(matches!(split(bad), Err(BackupError::BadGlob { .. })), "{bad}");
        }
    }
}
