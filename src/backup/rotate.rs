//! Removes the oldest dumps, so that a number of them is left.
//!
//! Invariants: the newest stays, and so does one that passed its test, whatever its age; dumps that
//! are still being written, links, and files of other names are not touched. The files that
//! accompany a dump go before it, so a crash leaves a dump without its checksum, which the next
//! rotation removes. A directory is first renamed to a hidden name, so that half of it can never
//! pass for a backup. Everything is removed beneath the directory that was looked at, and only what was
//! seen there.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use rustix::fs::AtFlags;
use rustix::fs::Dir;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::task::spawn_blocking;

use crate::backup::error::BackupError;
use crate::backup::files::Dump;
use crate::backup::files::Files;
use crate::backup::files::SIDE_FILES;
use crate::backup::files::Shape;
use crate::backup::judge::EARLIER_MAX;
use crate::files::trusted::reach;

/// Begins the name of a directory that is about to vanish.
const REMOVING: &str = ".afterhours-removing-";

/// The directory of the dumps, held open: what runs between a look and a removal may put another by its name.
#[derive(Debug)]
pub(super) struct Place {
    dir: OwnedFd,
    path: PathBuf,
}

impl Place {
    /// Holds the directory of `files`; nothing where there is none.
    pub(super) async fn hold(files: Files<'_>) -> Result<Option<Self>, BackupError> {
        let path = files.dir()?;
        let place = path.display().to_string();
        let work = move || match reach(&path) {
            Ok(found) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = rustix::fs::openat(&found.fd, ".", flags, Mode::empty());
                let failed =
                    |error: Errno| BackupError::Io { action: "read", path: path.clone(), source: error.into() };
                opened.map_err(failed).map(|dir| Some(Self { dir, path }))
            }
            Err(error) if error.is_absent() => Ok(None),
            Err(source) => Err(BackupError::LeadsElsewhere { dir: path, source }),
        };
        spawn_blocking(work).await.map_err(|_| BackupError::Interrupted { place })?
    }

    /// A path of an entry that leads there whatever becomes of the directory's name.
    fn entry(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.dir.as_raw_fd().to_string()).join(name)
    }

    /// Whether a name still is what was looked at.
    fn is_still(&self, name: &OsStr, dump: &Dump) -> bool {
        rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == dump.entry)
    }

    fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        gone(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()).map_err(io::Error::from))
    }
}

/// Finds a dump that passes its test, newest first, and keeps it beside the newest `keep_last`.
///
/// # Errors
/// No dump passes: then nothing is removed, and the error is that of the newest.
pub(super) async fn keep_newest(
    files: Files<'_>,
    keep_last: u32,
    now: DateTime<Utc>,
) -> Result<Vec<String>, BackupError> {
    // Held before the look, and so before its test.
    let Some(dir) = Place::hold(files).await? else { return Ok(Vec::new()) };
    let finished = files.survey(now).await?.finished;
    let mut refusal = None;
    for (place, dump) in finished.iter().enumerate() {
        let earlier: Vec<u64> = finished[place + 1..].iter().take(EARLIER_MAX).map(|dump| dump.size_bytes).collect();
        match files.test(dump, &earlier).await {
            Ok(_) => return remove_all_but(dir, finished.clone(), keep_last, dump.path.clone()).await,
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    refusal.map_or(Ok(Vec::new()), Err)
}

/// Keeps the newest `keep_last` and the one that was just `tested`, in `dir`, which was held before that.
pub(super) async fn keep_tested(
    files: Files<'_>,
    dir: Place,
    keep_last: u32,
    tested: PathBuf,
) -> Result<Vec<String>, BackupError> {
    // One look is enough: what is still being written is among the newest, and they stay.
    remove_all_but(dir, files.look().await?, keep_last, tested).await
}

async fn remove_all_but(
    dir: Place,
    dumps: Vec<Dump>,
    keep_last: u32,
    tested: PathBuf,
) -> Result<Vec<String>, BackupError> {
    let keep_last = usize::try_from(keep_last.max(1)).unwrap_or(usize::MAX);
    let place = tested.display().to_string();
    let work = move || {
        clear_away(&dir)?;
        let mut own: Vec<_> = dumps.into_iter().filter(|dump| dump.shape != Shape::Link).skip(keep_last).collect();
        own.retain(|dump| dump.path != tested && !is_same(&dump.path, &tested));
        // The oldest first: if we are stopped, what is left is what matters most.
        let removed = |dump: Dump| remove(&dir, &dump).map(|removed| removed.then(|| dump.name())).transpose();
        own.into_iter().rev().filter_map(removed).collect()
    };
    spawn_blocking(work).await.map_err(|_| BackupError::Interrupted { place })?
}

/// Finishes what an interrupted rotation left beside the dumps.
fn clear_away(dir: &Place) -> Result<(), BackupError> {
    let failed = |source| BackupError::Io { action: "clear away directories in", path: dir.path.clone(), source };
    for entry in Dir::read_from(&dir.dir).map_err(|error| failed(error.into()))? {
        let entry = entry.map_err(|error| failed(error.into()))?;
        if entry.file_name().to_bytes().starts_with(REMOVING.as_bytes()) {
            let path = dir.entry(OsStr::from_bytes(entry.file_name().to_bytes()));
            gone(fs_err::remove_dir_all(path)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Whether a tested link leads to this dump.
fn is_same(dump: &Path, tested: &Path) -> bool {
    fs_err::canonicalize(dump).ok().zip(fs_err::canonicalize(tested).ok()).is_some_and(|(a, b)| a == b)
}

/// Removes a dump, unless its name is another's by now.
fn remove(dir: &Place, dump: &Dump) -> Result<bool, BackupError> {
    let failed = |source| BackupError::Io { action: "remove", path: dump.path.clone(), source };
    let Some(name) = dump.path.file_name() else { return Ok(false) };
    if !dir.is_still(name, dump) {
        return Ok(false);
    }
    for ending in SIDE_FILES {
        let mut beside = name.to_owned();
        beside.push(ending);
        dir.remove_file(&beside).map_err(failed)?;
    }
    if dump.shape == Shape::File {
        return dir.remove_file(name).map(|()| true).map_err(failed);
    }
    let mut hidden = OsString::from(REMOVING);
    hidden.push(name);
    rustix::fs::renameat(&dir.dir, name, &dir.dir, &hidden).map_err(|error| failed(error.into()))?;
    gone(fs_err::remove_dir_all(dir.entry(&hidden))).map(|()| true).map_err(failed)
}

/// Removing what is not there is done already.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
