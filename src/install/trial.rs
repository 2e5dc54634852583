//! Does in small what the swap will do, before anybody is disturbed: writes, renames, and exchanges directories.
//!
//! Invariant: nothing of it is left, and no directory is made that was not there. What a check that was killed has left is
//! removed by the next.

use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::fs::FlockOperation;
use rustix::fs::RenameFlags;

use crate::domain::finding::Finding;
use crate::files::trusted::trusted_dir;
use crate::install::check::existing;
use crate::install::durable;
use crate::install::error::InstallError;
use crate::install::error::denied;
use crate::install::layout::Layout;
use crate::install::layout::parent;
use crate::install::tree;

/// What a test makes is called so, with something random after it.
const NAME: &str = ".afterhours-test-";

/// Does in small what the swap will do: writes, renames, and exchanges a directory beside the installation with one in the staging folder.
pub(super) fn check(layout: &Layout) -> Finding {
    const CHECK: &str = "exchange";
    let beside = parent(&layout.install_dir);
    // Where the staging folder will be made, when it is not there yet.
    let staging = existing(&layout.staging_dir);
    // Nothing of ours is made where others could exchange it under our hands.
    let is_ours = trusted_dir(beside).is_ok();
    if !is_ours && let Some(elsewhere) = other_file_system(beside, staging) {
        return elsewhere;
    }
    match trial(if is_ours { beside } else { staging }, staging) {
        Ok(true) => Finding::good(CHECK, "directories are exchanged in one system call"),
        Ok(false) => Finding::good(CHECK, "directories are exchanged as a journalled pair of renames"),
        Err(error) => refused(CHECK, beside, &error),
    }
}

/// What is wrong where the installation and the staging folder are on two file systems.
fn other_file_system(beside: &Path, staging_dir: &Path) -> Option<Finding> {
    let dev = |path: &Path| fs::metadata(path).map(|about| about.dev());
    match (dev(beside), dev(staging_dir)) {
        (Ok(beside), Ok(staging)) if beside == staging => None,
        (Err(error), _) | (_, Err(error)) => Some(refused("exchange", beside, &error)),
        _ => Some(refused("exchange", beside, &io::ErrorKind::CrossesDevices.into())),
    }
}

fn trial(beside: &Path, staging_dir: &Path) -> io::Result<bool> {
    let _alone = sweep(&[beside, staging_dir])?;
    let ours = tempfile::Builder::new().prefix(NAME).tempdir_in(beside)?;
    let staged = tempfile::Builder::new().prefix(NAME).tempdir_in(staging_dir)?;
    let (written, renamed) = (staged.path().join("written"), staged.path().join("renamed"));
    fs::write(&written, [0; 4096])?;
    fs::File::open(&written)?.sync_all()?;
    fs::rename(&written, &renamed)?;
    match rustix::fs::renameat_with(CWD, ours.path(), CWD, staged.path(), RenameFlags::EXCHANGE) {
        Ok(()) if ours.path().join("renamed").exists() => Ok(true),
        Ok(()) => Err(io::Error::other("an exchange was accepted but not done")),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            let moved = beside.join(format!("{}-moved", staged.path().file_name().unwrap_or_default().display()));
            fs::rename(staged.path(), &moved)?;
            fs::rename(&moved, staged.path())?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes what tests that were killed have left. As long as the answer lives, nobody else does.
fn sweep(dirs: &[&Path]) -> io::Result<Option<File>> {
    let held = File::open(dirs[0])?;
    if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_err() {
        // Somebody else is at the same test; what they make is not ours to remove.
        return Ok(None);
    }
    let us = rustix::process::geteuid().as_raw();
    for dir in dirs {
        for name in tree::names(dir).map_err(io_of)? {
            let path = dir.join(&name);
            let is_test = name.as_encoded_bytes().starts_with(NAME.as_bytes());
            if is_test && fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir() && about.uid() == us) {
                durable::remove_any(&path).map_err(io_of)?;
            }
        }
    }
    Ok(Some(held))
}

/// What the system said.
pub(super) fn io_of(error: InstallError) -> io::Error {
    match error {
        InstallError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

fn refused(check: &str, path: &Path, error: &io::Error) -> Finding {
    let shown = path.display();
    let remedy = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => format!("mount -o remount,rw the file system of {shown}"),
        io::ErrorKind::CrossesDevices => {
            format!(
                "the staging folder must be on the file system of {shown}: correct staging_dir, or remove the mount or link in between"
            )
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("make room on the file system of {shown}"),
        io::ErrorKind::PermissionDenied => denied(path, &format!("let its user write to {shown}")),
        _ => format!("see to it that directories beside {shown} can be written and renamed"),
    };
    Finding::fatal(check, format!("writing and renaming beside {shown} does not work: {error}"), remedy)
}
