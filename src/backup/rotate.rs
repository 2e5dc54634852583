//! Removes the oldest dumps, so that a number of them is left.
//!
//! Invariants: the newest stays, and so does one that passed its test, whatever its age; dumps that
//! are still being written, links, and files of other names are not touched. The files that
//! accompany a dump go before it, so a crash leaves a dump without its checksum, which the next
//! rotation removes. A directory is first renamed to a hidden name, so that half of it can never
//! pass for a backup.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use tokio::task::spawn_blocking;

use crate::backup::error::BackupError;
use crate::backup::files::Dump;
use crate::backup::files::Files;
use crate::backup::files::SIDE_FILES;
use crate::backup::files::Shape;
use crate::backup::judge::EARLIER_MAX;

/// Begins the name of a directory that is about to vanish.
const REMOVING: &str = ".afterhours-removing-";

/// Finds a dump that passes its test, newest first, and keeps it beside the newest `keep_last`.
///
/// # Errors
/// No dump passes: then nothing is removed, and the error is that of the newest.
pub(super) async fn keep_newest(
    files: Files<'_>,
    keep_last: u32,
    now: DateTime<Utc>,
) -> Result<Vec<String>, BackupError> {
    let finished = files.survey(now).await?.finished;
    let mut refusal = None;
    for (place, dump) in finished.iter().enumerate() {
        let earlier: Vec<u64> = finished[place + 1..].iter().take(EARLIER_MAX).map(|dump| dump.size_bytes).collect();
        match files.test(dump, &earlier).await {
            Ok(_) => return remove_all_but(finished.clone(), keep_last, dump.path.clone()).await,
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    refusal.map_or(Ok(Vec::new()), Err)
}

/// Keeps the newest `keep_last` and the one that was just `tested`.
pub(super) async fn keep_tested(files: Files<'_>, keep_last: u32, tested: PathBuf) -> Result<Vec<String>, BackupError> {
    // One look is enough: what is still being written is among the newest, and they stay.
    remove_all_but(files.look().await?, keep_last, tested).await
}

async fn remove_all_but(dumps: Vec<Dump>, keep_last: u32, tested: PathBuf) -> Result<Vec<String>, BackupError> {
    let keep_last = usize::try_from(keep_last.max(1)).unwrap_or(usize::MAX);
    let place = tested.display().to_string();
    let work = move || {
        clear_away(&tested)?;
        let mut own: Vec<_> = dumps.into_iter().filter(|dump| dump.shape != Shape::Link).skip(keep_last).collect();
        own.retain(|dump| dump.path != tested && !is_same(&dump.path, &tested));
        // The oldest first: if we are stopped, what is left is what matters most.
        own.into_iter().rev().map(|dump| remove(&dump).map(|()| dump.name())).collect()
    };
    spawn_blocking(work).await.map_err(|_| BackupError::Interrupted { place })?
}

/// Finishes what an interrupted rotation left beside the dumps.
fn clear_away(beside: &Path) -> Result<(), BackupError> {
    let Some(dir) = beside.parent() else { return Ok(()) };
    let failed = |source| BackupError::Io { action: "clear away directories in", path: dir.to_owned(), source };
    for entry in fs_err::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(REMOVING.as_bytes()) {
            gone(fs_err::remove_dir_all(entry.path())).map_err(failed)?;
        }
    }
    Ok(())
}

/// Whether a tested link leads to this dump.
fn is_same(dump: &Path, tested: &Path) -> bool {
    fs_err::canonicalize(dump).ok().zip(fs_err::canonicalize(tested).ok()).is_some_and(|(a, b)| a == b)
}

fn remove(dump: &Dump) -> Result<(), BackupError> {
    let path = &dump.path;
    let failed = |source| BackupError::Io { action: "remove", path: path.clone(), source };
    let Some((dir, name)) = path.parent().zip(path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    for ending in SIDE_FILES {
        gone(fs_err::remove_file(dir.join(format!("{name}{ending}")))).map_err(failed)?;
    }
    if dump.shape == Shape::File {
        return gone(fs_err::remove_file(path)).map_err(failed);
    }
    let hidden = dir.join(format!("{REMOVING}{name}"));
    fs_err::rename(path, &hidden).map_err(failed)?;
    gone(fs_err::remove_dir_all(&hidden)).map_err(failed)
}

/// Removing what is not there is done already.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
