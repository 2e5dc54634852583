//! A file that exists while the gate is closed, as `/run/nologin` does; it holds what users are told.
//!
//! It is there whole or not at all, also after a power cut: written beside its place, synced,
//! renamed, and the directory synced.

use std::io;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chrono::DateTime;
use chrono::Local;
use chrono::Utc;
use fs_err::File;

/// Everybody may read it: login programs run as whoever logs in.
const MODE: u32 = 0o644;

/// What users read.
pub(super) fn content(message: &str, until: Option<DateTime<Utc>>) -> String {
    match until {
        Some(until) => format!("{message}\nUntil {}.\n", until.with_timezone(&Local).format("%Y-%m-%d %H:%M %:z")),
        None => format!("{message}\n"),
    }
}

/// Puts the file in place of whatever is there.
pub(super) fn put(path: &Path, text: &str) -> io::Result<()> {
    let dir = parent(path)?;
    let mut file = tempfile::Builder::new().prefix(".gate-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(MODE))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// Removes it; one that is not there is removed already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    match parent(path).and_then(File::open) {
        Ok(dir) => dir.sync_all(),
        // Without its directory it is not there either.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a file beside it that vanishes again.
pub(super) fn try_put(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    tempfile::Builder::new().prefix(".gate-").tempfile_in(parent(path)?)?.write_all(b"\n")
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
