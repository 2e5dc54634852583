//! The random number of this site: it gives the site its place where a vendor lets a release spread.
//!
//! It is drawn once, kept in the data directory, and never sent anywhere. Whoever may write there draws it
//! ([`draw`]); who only looks reads it ([`read`]) and does without while there is none.

use std::io;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

/// Its file in the data directory.
const FILE: &str = "site-id";

/// Why there is no number.
#[derive(Debug, Error)]
pub enum SiteError {
    /// It cannot be read.
    #[error("read the number of this site in {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("understand the number of this site in {}; remove the file, and another one is drawn", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: uuid::Error,
    },
    /// It cannot be kept.
    #[error("write the number of this site to {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The number; nothing where none was drawn yet.
///
/// # Errors
/// It cannot be read, or is no number of ours.
pub fn read(data_dir: &Path) -> Result<Option<Arc<str>>, SiteError> {
    let path = data_dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|source| SiteError::Read { path: path.clone(), source })?,
    };
    let number: Uuid = text.trim().parse().map_err(|source| SiteError::Parse { path, source })?;
    Ok(Some(number.to_string().into()))
}

/// Draws the number where there is none yet. Of two that do so at once, one's stays.
///
/// # Errors
/// It cannot be written durably.
pub fn draw(data_dir: &Path) -> Result<(), SiteError> {
    let path = data_dir.join(FILE);
    if path.exists() {
        return Ok(());
    }
    let write = || -> io::Result<()> {
        // Whoever may look at the store may know it, too.
        let readable = std::fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(data_dir)?;
        writeln!(file, "{}", Uuid::new_v4())?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(&path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => return Err(error.error),
            _ => {}
        }
        std::fs::File::open(data_dir)?.sync_all()
    };
    write().map_err(|source| SiteError::Write { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_drawn_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        draw(dir.path()).unwrap();
        let meta = std::fs::metadata(dir.path().join(FILE)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o644, "whoever may look at the store may know it");
        let number = read(dir.path()).unwrap().unwrap();
        draw(dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(number));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_no_number_is_refused_and_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, "here").unwrap();
        draw(dir.path()).unwrap();
        assert!(matches!(read(dir.path()), Err(SiteError::Parse { .. })));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "here");
        let nowhere = dir.path().join("nowhere");
        assert_eq!(read(&nowhere).unwrap(), None);
        assert!(matches!(draw(&nowhere), Err(SiteError::Write { .. })));
    }
}
