//! What a supervised application writes: `log/app.log`, and the one before, `log/app.log.1`.
//!
//! The application holds the file itself, so that no end of ours breaks its output. A log that grew
//! too large is therefore copied and emptied, not renamed; what is written in between is lost.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

use fs_err::os::unix::fs::OpenOptionsExt;

use crate::domain::failure::Exhibit;
use crate::domain::foreign;
use crate::service::error::ServiceError;
use crate::service::state::blocking;

/// A log larger than this is moved aside; one older log is kept.
pub(crate) const APP_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How much of the log is searched for last words.
const LAST_WORDS_BYTES_MAX: usize = 16 * 1024;

/// The log of one application.
#[derive(Debug)]
pub(crate) struct AppLog(PathBuf);

impl AppLog {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("log").join("app.log"))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The log, open for appending, and where it ends now.
    pub(crate) async fn open(&self) -> Result<(File, u64), ServiceError> {
        self.trim().await?;
        let file = self.0.clone();
        let opened = blocking(move || {
            file.parent().map_or(Ok(()), fs_err::create_dir_all)?;
            let file = fs_err::OpenOptions::new().create(true).append(true).mode(0o640).open(file)?;
            let from = file.metadata()?.len();
            Ok((file.into_parts().0, from))
        });
        opened.await.map_err(|source| ServiceError::File { call: "open", path: self.0.clone(), source })
    }

    /// Copies a log that grew too large aside and empties it; whoever writes to it goes on at its beginning.
    pub(crate) async fn trim(&self) -> Result<(), ServiceError> {
        let file = self.0.clone();
        let trimmed = blocking(move || {
            if std::fs::metadata(&file).map_or(0, |meta| meta.len()) > APP_LOG_BYTES_MAX {
                fs_err::copy(&file, file.with_extension("log.1"))?;
                fs_err::OpenOptions::new().write(true).open(&file)?.set_len(0)?;
            }
            Ok(())
        });
        trimmed.await.map_err(|source| ServiceError::File { call: "move aside", path: self.0.clone(), source })
    }

    /// The last line that was written since `from`.
    pub(crate) async fn last_line(&self, from: u64) -> Option<String> {
        let file = self.0.clone();
        let text = blocking(move || tail(&file, from)).await.ok()?;
        foreign::last_line(&text)
    }

    /// What was written last, for whoever looks for a cause.
    pub(crate) async fn exhibit(&self) -> Option<Exhibit> {
        exhibit(&self.0).await
    }

    /// The last `count` lines that say something, in one.
    pub(crate) async fn last_lines(&self, count: usize) -> Option<String> {
        let file = self.0.clone();
        let text = blocking(move || tail(&file, 0)).await.ok()?;
        let text = foreign::masked(&text);
        let said: Vec<&str> =
            text.lines().map(str::trim).filter(|line| line.chars().any(char::is_alphanumeric)).collect();
        let lines: Vec<String> =
            said[said.len().saturating_sub(count)..].iter().map(|line| foreign::short(line)).collect();
        (!lines.is_empty()).then(|| lines.join(" / "))
    }
}

/// What was written last to a log, for whoever looks for a cause.
pub(crate) async fn exhibit(file: &Path) -> Option<Exhibit> {
    let path = file.to_owned();
    let lines = foreign::journal(&blocking(move || tail(&path, 0)).await.ok()?);
    (!lines.is_empty()).then(|| Exhibit { from: file.display().to_string(), lines })
}

/// The last bytes that were written since `from`; a line that they begin in the middle of is left out, because
/// what was before it may say that it is a secret.
fn tail(file: &Path, from: u64) -> io::Result<String> {
    let file = File::open(file)?;
    let begin = from.max(file.metadata()?.len().saturating_sub(LAST_WORDS_BYTES_MAX as u64));
    let mut bytes = vec![0; LAST_WORDS_BYTES_MAX];
    let read = file.read_at(&mut bytes, begin)?;
    let text = String::from_utf8_lossy(&bytes[..read]);
    let whole = if begin > from { text.split_once('\n').map_or("", |(_, whole)| whole) } else { &text };
    Ok(whole.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_log_is_bounded_while_it_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let log = AppLog::new(dir.path());
        let (mut writer, from) = log.open().await.unwrap();
        assert_eq!(from, 0);
        writer.write_all(b"first\n").unwrap();
        log.trim().await.unwrap();
        assert_eq!(fs_err::read_to_string(log.path()).unwrap(), "first\n", "it is small");

        writer.set_len(APP_LOG_BYTES_MAX + 1).unwrap();
        log.trim().await.unwrap();
        writer.write_all(b"second\n").unwrap();
        assert_eq!(fs_err::read_to_string(log.path()).unwrap(), "second\n");
        let older = fs_err::metadata(dir.path().join("log/app.log.1")).unwrap();
        assert_eq!(older.len(), APP_LOG_BYTES_MAX + 1);
        assert_eq!(log.last_line(0).await.as_deref(), Some("second"));
        assert_eq!(log.open().await.unwrap().1, 7, "the next start appends");
    }

    #[tokio::test]
    async fn last_words_are_few_and_tell_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let log = AppLog::new(dir.path());
        let (mut writer, from) = log.open().await.unwrap();
        // The password stands so that the part that is read begins within it.
        let filler = "x".repeat(LAST_WORDS_BYTES_MAX - 60);
        let lines = format!("password={filler}\none\n---\ntwo {}\ntoken=hunter2", "y".repeat(400));
        writer.write_all(lines.as_bytes()).unwrap();
        let said = log.last_lines(3).await.unwrap();
        assert!(said.starts_with("one / two yyy") && said.ends_with("… / token=***"), "{said}");
        assert_eq!(log.last_line(from).await.as_deref(), Some("token=***"));
    }
}
