//! A file that exists while the gate is closed, as `/run/nologin` does; it holds what users are told.
//!
//! It is there whole or not at all, also after a power cut: written beside its place, synced,
//! renamed, and the directory synced.

use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Local;
use chrono::Utc;
use fs_err::File;

use crate::files::trusted::Reached;
use crate::files::trusted::Untrusted;
use crate::files::trusted::reach;

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
    let place = Place::of(path)?;
    let mut file = tempfile::Builder::new().prefix(".gate-").tempfile_in(place.dir())?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(MODE))?;
    file.as_file().sync_all()?;
    file.persist(place.file()).map_err(|error| error.error)?;
    place.sync()
}

/// Removes it; one that is not there is removed already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let place = match Place::of(path) {
        // Without its directory it is not there either.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        place => place?,
    };
    match std::fs::remove_file(place.file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => place.sync(),
    }
}

/// Writes a file beside it that has no name, so that nothing is left of it, whatever happens.
pub(super) fn try_put(path: &Path) -> io::Result<()> {
    let place = Place::of(path)?;
    if place.file().is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    tempfile::tempfile_in(place.dir())?.write_all(b"\n")
}

/// A file in a directory that is held: whoever owns the directory cannot have us write elsewhere.
struct Place {
    held: Reached,
    name: OsString,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let name = path.file_name().ok_or_else(invalid)?.to_owned();
        let held = reach(path.parent().ok_or_else(invalid)?).map_err(|error| match error {
            Untrusted::Look { source, .. } => source,
            other => io::Error::other(other),
        })?;
        Ok(Self { held, name })
    }

    fn dir(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.held.fd.as_raw_fd().to_string())
    }

    fn file(&self) -> PathBuf {
        self.dir().join(&self.name)
    }

    fn sync(&self) -> io::Result<()> {
        // What is held can be looked through, not synced.
        File::open(self.dir().join("."))?.sync_all()
    }
}
