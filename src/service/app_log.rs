//! What a supervised application writes: `log/app.log`, and the one before, `log/app.log.1`.
//!
//! The application holds the file itself, so that no end of ours breaks its output. A log that grew
//! too large is therefore copied and emptied, not renamed; what is written in between is lost.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

use fs_err::os::unix::fs::OpenOptionsExt;

use crate::service::error::ServiceError;
use crate::service::state::blocking;

/// A log larger than this is moved aside; one older log is kept.
pub(crate) const APP_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How much of the log is searched for last words.
const LAST_WORDS_BYTES_MAX: usize = 16 * 1024;

/// How much of one of the last lines is told.
const LINE_CHARS_MAX: usize = 300;

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
        let text = blocking(move || {
            let mut bytes = vec![0; LAST_WORDS_BYTES_MAX];
            let read = File::open(file)?.read_at(&mut bytes, from)?;
            Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
        });
        let text = text.await.ok()?;
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    }

    /// The last `count` lines that say something, in one.
    pub(crate) async fn last_lines(&self, count: usize) -> Option<String> {
        let file = self.0.clone();
        let text = blocking(move || {
            let file = File::open(file)?;
            let mut bytes = vec![0; LAST_WORDS_BYTES_MAX];
            let from = file.metadata()?.len().saturating_sub(LAST_WORDS_BYTES_MAX as u64);
            let read = file.read_at(&mut bytes, from)?;
            Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
        });
        let text = text.await.ok()?;
        let said: Vec<&str> =
            text.lines().map(str::trim).filter(|line| line.chars().any(char::is_alphanumeric)).collect();
        let lines: Vec<String> = said[said.len().saturating_sub(count)..]
            .iter()
            .map(|line| line.chars().take(LINE_CHARS_MAX).collect())
            .collect();
        (!lines.is_empty()).then(|| lines.join(" / "))
    }
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
}
