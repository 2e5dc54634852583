//! SHA-256 of files, streamed, and the files that hold them: `X.sha256`, `X.sha256sum` and
//! `SHA256SUMS`, in the forms of coreutils and of BSD.
//!
//! Reading happens on a thread of its own and stops when its caller is gone or out of time.

use std::io;
use std::io::Read;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use sha2::Digest;
use sha2::Sha256;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::backup::error::BackupError;
use crate::domain::hex::hex;
use crate::domain::span::Span;
use crate::files::small::open_regular;
use crate::files::small::read_small_linked;

/// The largest checksum file or manifest that is read.
pub(super) const SIDE_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How much is read at once.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Checksums of several files.
const SUMS: &str = "SHA256SUMS";

/// A file and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// The file.
    pub(super) path: PathBuf,
    /// Its SHA-256, in lower-case hexadecimal digits.
    pub(super) sha256: String,
    /// Its size, where that is known.
    pub(super) size_bytes: Option<u64>,
}

/// Verifies a dump against the checksum file beside it, or within it when it is a directory. The
/// answer is the checksum file; there need not be one.
pub(super) async fn verify_dump(path: &Path, is_dir: bool, deadline: Span) -> Result<Option<PathBuf>, BackupError> {
    let dump = path.to_owned();
    let found = spawn_blocking(move || if is_dir { expected_within(&dump) } else { expected_beside(&dump) })
        .await
        .map_err(|_| BackupError::Interrupted { place: path.display().to_string() })??;
    let Some((against, files)) = found else { return Ok(None) };
    verify(files, &against, deadline).await?;
    Ok(Some(against))
}

/// Verifies every file; the first that is not what it must be is the error.
pub(super) async fn verify(files: Vec<Expected>, against: &Path, deadline: Span) -> Result<(), BackupError> {
    let overdue = || BackupError::TestOverdue { backup: against.display().to_string(), deadline };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    // A blocking thread cannot be ended from outside; it looks at this token.
    let _guard = stop.drop_guard();
    let sums = against.to_owned();
    let work = spawn_blocking(move || files.iter().try_for_each(|file| verify_one(file, &sums, &stopped)));
    match timeout(deadline.duration(), work).await {
        Err(_) => Err(overdue()),
        Ok(Err(_)) => Err(BackupError::Interrupted { place: against.display().to_string() }),
        Ok(Ok(result)) => result,
    }
}

fn verify_one(file: &Expected, against: &Path, stopped: &CancellationToken) -> Result<(), BackupError> {
    let unreadable = |source| BackupError::Io { action: "read", path: file.path.clone(), source };
    let mismatch =
        || BackupError::ChecksumMismatch { backup: file.path.display().to_string(), against: against.to_owned() };
    let mut opened = match open_regular(&file.path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BackupError::FileMissing { file: file.path.clone(), against: against.to_owned() });
        }
        Err(error) => return Err(unreadable(error)),
    };
    let size_bytes = opened.metadata().map_err(unreadable)?.len();
    if file.size_bytes.is_some_and(|expected| expected != size_bytes) {
        return Err(mismatch());
    }
    let sha256 = digest(&mut opened, stopped).map_err(unreadable)?;
    if sha256 == file.sha256 { Ok(()) } else { Err(mismatch()) }
}

fn digest(reader: &mut impl Read, stopped: &CancellationToken) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if stopped.is_cancelled() {
            return Err(io::Error::other("stopped"));
        }
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(hex(hasher.finalize())),
            Ok(read) => hasher.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

type Sums = Option<(PathBuf, Vec<Expected>)>;

/// What the checksum files beside a dump say about it.
fn expected_beside(dump: &Path) -> Result<Sums, BackupError> {
    let Some(name) = dump.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    for ending in [".sha256", ".sha256sum"] {
        let against = dump.with_file_name(format!("{name}{ending}"));
        if let Some(text) = read_side_file(&against)? {
            // A file of its own that says nothing about its dump is a broken backup job, not a missing test.
            let sha256 = own_sum(&text, name).unwrap_or_default();
            return Ok(Some((against, vec![Expected { path: dump.to_owned(), sha256, size_bytes: None }])));
        }
    }
    let against = dump.with_file_name(SUMS);
    let Some(text) = read_side_file(&against)? else { return Ok(None) };
    let sum = lines(&text).find(|(_, file)| Path::new(file).file_name() == dump.file_name());
    Ok(sum.map(|(sha256, _)| (against, vec![Expected { path: dump.to_owned(), sha256, size_bytes: None }])))
}

/// What `SHA256SUMS` in a directory says about the files in it.
fn expected_within(dump: &Path) -> Result<Sums, BackupError> {
    let against = dump.join(SUMS);
    let Some(text) = read_side_file(&against)? else { return Ok(None) };
    let files: Vec<_> = lines(&text)
        .filter(|(_, file)| Path::new(file).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)))
        .map(|(sha256, file)| Expected { path: dump.join(file), sha256, size_bytes: None })
        .collect();
    if files.is_empty() {
        return Err(BackupError::EmptyManifest { manifest: against });
    }
    Ok(Some((against, files)))
}

/// Reads a small file, if it is there.
fn read_side_file(path: &Path) -> Result<Option<String>, BackupError> {
    let unread = |source| BackupError::Io { action: "read", path: path.to_owned(), source };
    let bytes = read_small_linked(path, SIDE_FILE_BYTES_MAX).map_err(|error| unread(error.into()))?;
    // What is no text names no sum.
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The checksum in a file that belongs to one dump: the line that names it, or the only sum there is.
fn own_sum(text: &str, name: &str) -> Option<String> {
    lines(text)
        .find(|(_, file)| Path::new(file).file_name().is_some_and(|file| file == name))
        .map(|(sha256, _)| sha256)
        .or_else(|| digits(text.trim()))
}

/// The lines `SUM  FILE`, `SUM *FILE` and `SHA256 (FILE) = SUM`.
fn lines(text: &str) -> impl Iterator<Item = (String, &str)> {
    text.lines().filter_map(|line| {
        let line = line.trim_end();
        if let Some((file, sum)) = line.strip_prefix("SHA256 (").and_then(|rest| rest.rsplit_once(") = ")) {
            return Some((digits(sum)?, file));
        }
        let (sum, file) = line.split_once(' ')?;
        let file = file.strip_prefix([' ', '*']).unwrap_or(file);
        Some((digits(sum)?, file))
    })
}

/// A SHA-256 in hexadecimal digits, as we write it.
pub(super) fn digits(text: &str) -> Option<String> {
    (text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_digest_is_sha256() {
        let go = CancellationToken::new();
        assert_eq!(digest(&mut &b"abc"[..], &go).unwrap(), SUM);
        go.cancel();
        assert!(digest(&mut &b"abc"[..], &go).is_err());
    }

    #[test]
    fn the_forms_of_checksum_files() {
        let upper = SUM.to_uppercase();
        for text in [
            format!("{SUM}  a.dump\n"),
            format!("{upper} *a.dump\r\n"),
            format!("{SUM}  /srv/backup/a.dump\n"),
            format!("SHA256 (a.dump) = {SUM}\n"),
            format!("{SUM}\n"),
            format!("{}  b.dump\n{SUM}  a.dump\n", "0".repeat(64)),
        ] {
            assert_eq!(own_sum(&text, "a.dump").as_deref(), Some(SUM), "{text}");
        }
        for text in ["", "no sum here", "abc  a.dump", &format!("{SUM}  other.dump\n")] {
            assert_eq!(own_sum(text, "a.dump"), None, "{text}");
        }
    }

    #[test]
    fn names_may_hold_blanks() {
        let text = format!("{SUM}  my orders.dump\n");
        assert_eq!(lines(&text).collect::<Vec<_>>(), [(SUM.to_owned(), "my orders.dump")]);
    }
}
