//! The directory that a dump of the data is written to: in the staging folder, and yet within reach of the user who writes
//! it.
//!
//! While the command runs, the directory is that user's; afterwards it is ours again, so that nobody puts another dump in
//! its place. While a command writes or reads the dump, the folders above let everybody through and nobody look, and whatever
//! else is in them is closed; otherwise only root gets into the staging folder.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::process::Uid;

use crate::domain::run::RunId;
use crate::files::account::Account;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::layout::Layout;
use crate::install::tree;

/// The directory in the folder of a snapshot.
const DIR: &str = "dumped";
/// Only we can look, everybody can go through to what they know.
const LET_THROUGH: u32 = 0o711;
const CLOSED: u32 = 0o700;

/// Where the dump of a run is.
pub(super) fn path(layout: &Layout, run: RunId) -> PathBuf {
    dir(layout, run).join("dump")
}

fn dir(layout: &Layout, run: RunId) -> PathBuf {
    layout.snapshot(run).join(DIR)
}

/// Makes an empty directory for `account`, which it can reach.
pub(super) fn open_for(layout: &Layout, run: RunId, account: &Account) -> Result<(), InstallError> {
    let dir = dir(layout, run);
    durable::remove_any(&dir)?;
    durable::create_dir(&dir)?;
    let_through(layout, run, account)?;
    give(&dir, account.uid)
}

/// Lets `account` through to the dump.
pub(super) fn let_through(layout: &Layout, run: RunId, account: &Account) -> Result<(), InstallError> {
    let dir = dir(layout, run);
    if account.uid == Account::own().uid || !dir.is_dir() {
        return Ok(());
    }
    for (folder, on_the_way) in [
        (layout.staging_dir.clone(), layout.snapshots()),
        (layout.snapshots(), layout.snapshot(run)),
        (layout.snapshot(run), dir.clone()),
    ] {
        close_all_but(&folder, &on_the_way)?;
        set_mode(&folder, LET_THROUGH)?;
    }
    Ok(())
}

/// Nobody but us gets into the staging folder any more.
pub(super) fn close(layout: &Layout) -> Result<(), InstallError> {
    set_mode(&layout.staging_dir, CLOSED)
}

/// Takes the directory back once the dump is written; whoever wrote the dump can still read it.
pub(super) fn seal(layout: &Layout, run: RunId) -> Result<(), InstallError> {
    let dir = dir(layout, run);
    give(&dir, Account::own().uid)?;
    set_mode(&dir, LET_THROUGH)?;
    close(layout)
}

/// Closes the directories in `folder` that do not lead to `on_the_way`.
fn close_all_but(folder: &Path, on_the_way: &Path) -> Result<(), InstallError> {
    for name in tree::names(folder)? {
        let entry = folder.join(name);
        if entry != on_the_way && tree::look(&entry)?.is_some_and(|about| about.is_dir()) {
            set_mode(&entry, CLOSED)?;
        }
    }
    Ok(())
}

fn open(dir: &Path) -> Result<File, InstallError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).map(File::from).at("open", dir)
}

fn set_mode(dir: &Path, mode: u32) -> Result<(), InstallError> {
    let file = open(dir)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode)).at("change the mode of", dir)
}

fn give(dir: &Path, uid: u32) -> Result<(), InstallError> {
    rustix::fs::fchown(open(dir)?, Some(Uid::from_raw(uid)), None).at("change the owner of", dir)
}
