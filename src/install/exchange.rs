//! Exchanges two directories: in one system call where the file system has it, else as a journalled pair of renames.
//!
//! ```text
//! intent written ──► install_dir → aside ──► staged → install_dir ──► aside → staged ──► intent removed
//!                 └──────── reverted ────────┘└──────────── completed ───────────┘
//! ```
//!
//! Invariants: what is exchanged is durable before; the exchange is durable when [`exchange`] returns.
//! After [`recover`], both places hold a whole tree again. Only who holds the lock moves anything.

use std::fs;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::CWD;
use rustix::fs::FlockOperation;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use serde::Deserialize;
use serde::Serialize;

use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::layout::Layout;
use crate::install::layout::parent;
use crate::install::place;

/// How directories are exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exchange {
    /// In one system call; as a journalled pair of renames where the file system cannot.
    #[default]
    Atomic,
    /// Always as a journalled pair of renames.
    Journalled,
}

/// What a journalled exchange is about to do.
#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    install_dir: PathBuf,
    staged: PathBuf,
}

/// Exchanges the installation and `staged`; says how it was done.
pub(super) fn exchange(layout: &Layout, staged: &Path, how: Exchange) -> Result<Exchange, InstallError> {
    let _lock = lock(layout)?;
    let home = place::home(layout)?;
    let install_dir = &home.entry();
    if how == Exchange::Atomic {
        // Both directories are held: one by its descriptor, the other because only root can change the way to it.
        match rustix::fs::renameat_with(CWD, install_dir, CWD, staged, RenameFlags::EXCHANGE) {
            Ok(()) => {
                sync_parents(install_dir, staged)?;
                return Ok(Exchange::Atomic);
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error).at("exchange", install_dir),
        }
    }
    pair(layout, install_dir, staged)?;
    Ok(Exchange::Journalled)
}

/// Completes or reverts what an interrupted exchange left.
pub(super) fn recover(layout: &Layout) -> Result<(), InstallError> {
    if !durable::exists(&layout.intent())? {
        return Ok(());
    }
    let _lock = lock(layout)?;
    let path = layout.intent();
    // Looked at again: whoever held the lock may have finished.
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if durable::is_absent(&error) => return Ok(()),
        Err(error) => return Err(error).at("read", &path),
    };
    let intent: Intent =
        serde_json::from_slice(&text).map_err(|source| InstallError::BadState { path: path.clone(), source })?;
    // What is moved is what we move, whatever the file says.
    if intent.install_dir != layout.install_dir || intent.staged.parent() != Some(&layout.staged_dir()) {
        let found = format!("{} speaks of other directories", path.display());
        return Err(InstallError::Tangled { install_dir: intent.install_dir, staged: intent.staged, found });
    }
    let (home, aside) = (place::home(layout)?, layout.aside());
    let install_dir = home.entry();
    let (installed, staged, set_aside) =
        (durable::exists(&install_dir)?, durable::exists(&intent.staged)?, durable::exists(&aside)?);
    match (installed, staged, set_aside) {
        // Not begun, or done.
        (true, true, false) => {}
        // Only the first rename happened.
        (false, true, true) => durable::rename_free(&aside, &install_dir)?,
        // The last one is missing.
        (true, false, true) => durable::rename_free(&aside, &intent.staged)?,
        _ => {
            let found =
                [(installed, "the installation"), (staged, "the staged tree"), (set_aside, "the tree set aside")];
            let found = found.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
            let found = if found.is_empty() { "nothing".to_owned() } else { found };
            return Err(InstallError::Tangled { install_dir: intent.install_dir, staged: intent.staged, found });
        }
    }
    sync_parents(&install_dir, &intent.staged)?;
    durable::remove_file_durably(&path)
}

fn pair(layout: &Layout, install_dir: &Path, staged: &Path) -> Result<(), InstallError> {
    let aside = layout.aside();
    for path in [install_dir, staged] {
        fs::symlink_metadata(path).at("look at", path)?;
    }
    // Nothing of ours is left there: recovery ran, and it lies in our own folder.
    durable::remove_any(&aside)?;
    let intent = Intent { install_dir: layout.install_dir.clone(), staged: staged.to_owned() };
    durable::write(&layout.intent(), serde_json::json!(intent).to_string().as_bytes())?;
    durable::rename_free(install_dir, &aside)?;
    if let Err(error) = durable::rename_free(staged, install_dir) {
        // The application must not be missing a moment longer than needed.
        durable::rename_free(&aside, install_dir)?;
        durable::remove_file_durably(&layout.intent())?;
        return Err(error);
    }
    durable::rename_free(&aside, staged)?;
    durable::remove_file_durably(&layout.intent())
}

fn sync_parents(a: &Path, b: &Path) -> Result<(), InstallError> {
    durable::fsync_dir(parent(a))?;
    durable::fsync_dir(parent(b))
}

fn lock(layout: &Layout) -> Result<File, InstallError> {
    durable::create_dir(&layout.staging_dir)?;
    let path = layout.lock();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .at("open", &path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(InstallError::Busy { path }),
        locked => locked.at("lock", &path).map(|()| file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> (tempfile::TempDir, Layout, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout { install_dir: root.path().join("app"), staging_dir: root.path().join(".app.afterhours") };
        let staged = layout.staged_dir().join("2+2");
        for (dir, text) in [(&layout.install_dir, "old"), (&staged, "new")] {
            fs::create_dir_all(dir).unwrap();
            fs::write(dir.join("what"), text).unwrap();
        }
        (root, layout, staged)
    }

    fn whole(layout: &Layout, staged: &Path) -> (String, String) {
        let read = |dir: &Path| fs::read_to_string(dir.join("what")).unwrap();
        assert!(!layout.intent().exists() && !layout.aside().exists());
        (read(&layout.install_dir), read(staged))
    }

    #[test]
    fn there_and_back_both_ways() {
        for how in [Exchange::Atomic, Exchange::Journalled] {
            let (_root, layout, staged) = scene();
            assert_eq!(exchange(&layout, &staged, how).unwrap(), how);
            assert_eq!(whole(&layout, &staged), ("new".into(), "old".into()));
            exchange(&layout, &staged, how).unwrap();
            assert_eq!(whole(&layout, &staged), ("old".into(), "new".into()));
        }
    }

    #[test]
    fn every_interruption_of_the_pair_is_recovered() {
        for (renames, expected) in [(0, "old"), (1, "old"), (2, "new"), (3, "new")] {
            let (_root, layout, staged) = scene();
            let intent = Intent { install_dir: layout.install_dir.clone(), staged: staged.clone() };
            durable::write(&layout.intent(), serde_json::json!(intent).to_string().as_bytes()).unwrap();
            let moves =
                [(&layout.install_dir, &layout.aside()), (&staged, &layout.install_dir), (&layout.aside(), &staged)];
            for (from, to) in &moves[..renames] {
                fs::rename(from, to).unwrap();
            }
            recover(&layout).unwrap();
            assert_eq!(whole(&layout, &staged).0, expected, "after {renames} renames");
            recover(&layout).unwrap();
        }
    }

    #[test]
    fn a_tangle_is_told_and_left_alone() {
        let (_root, layout, staged) = scene();
        let intent = Intent { install_dir: layout.install_dir.clone(), staged: staged.clone() };
        durable::write(&layout.intent(), serde_json::json!(intent).to_string().as_bytes()).unwrap();
        fs::create_dir(layout.aside()).unwrap();
        assert!(matches!(recover(&layout), Err(InstallError::Tangled { .. })));
        assert!(layout.intent().exists());
    }

    #[test]
    fn only_one_at_a_time() {
        let (_root, layout, staged) = scene();
        let held = lock(&layout).unwrap();
        assert!(matches!(exchange(&layout, &staged, Exchange::Atomic), Err(InstallError::Busy { .. })));
        drop(held);
        exchange(&layout, &staged, Exchange::Atomic).unwrap();
    }
}
