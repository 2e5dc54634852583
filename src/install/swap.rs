//! Puts a new tree in place of the old one, and back.
//!
//! What a swap costs follows what is kept, not the size of the application: everything else was
//! done by [`prepare`](super::prepare).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::domain::release::ReleaseId;
use crate::install::carry;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::exchange;
use crate::install::exchange::Exchange;
use crate::install::keep::Keep;
use crate::install::layout::Layout;
use crate::install::layout::PREPARED;
use crate::install::layout::parent;
use crate::install::owner::Owner;
use crate::install::place;
use crate::install::place::Held;
use crate::install::prepare;

/// What a swap did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapReport {
    /// The release that is in place now.
    pub release: ReleaseId,
    /// How the directories were exchanged.
    pub exchange: Exchange,
    /// How many files were carried over.
    pub kept: u64,
    /// The bytes that had to be copied for that; 0 where the file system shares them.
    pub copied_bytes: u64,
    /// Kept paths beside which the vendor's version stands as `NAME.new`.
    pub conflicts: Vec<PathBuf>,
}

/// In a tree that was put in place at least once: what that swap did.
fn report_file(tree: &Path) -> PathBuf {
    tree.join(PREPARED).join("swap.json")
}

/// Does ahead, while people work, what can be done ahead. Quick when done, and nothing when `id` is in place.
pub(super) fn prepare(layout: &Layout, id: &ReleaseId, owner: Option<Owner>, keep: &Keep) -> Result<(), InstallError> {
    exchange::recover(layout)?;
    let (held, new) = (installation(layout)?, layout.staged(id));
    let old = &held.path();
    if prepare::marker(old)?.as_ref() == Some(id) {
        return Ok(());
    }
    close_off(&layout.staging_dir)?;
    prepare::prepare(old, &new, id, owner, keep)?;
    carry::ahead(old, &new, keep)
}

/// Puts the staged tree of `id` in place. Done already, it only tells.
pub(super) fn swap(
    layout: &Layout,
    id: &ReleaseId,
    owner: Option<Owner>,
    keep: &Keep,
    how: Exchange,
) -> Result<SwapReport, InstallError> {
    exchange::recover(layout)?;
    let (held, new) = (installation(layout)?, layout.staged(id));
    let old = &held.path();
    if prepare::marker(old)?.as_ref() == Some(id) {
        durable::fsync_dir(parent(&layout.install_dir))?;
        durable::fsync_dir(parent(&new))?;
        return told(old, id);
    }
    close_off(&layout.staging_dir)?;
    prepare::prepare(old, &new, id, owner, keep)?;
    let carried = carry::carry(old, &new, keep)?;
    let mut report = SwapReport {
        release: id.clone(),
        exchange: how,
        kept: carried.kept,
        copied_bytes: carried.copied_bytes,
        conflicts: carried.conflicts.into_iter().collect(),
    };
    durable::write(&report_file(&new), serde_json::json!(report).to_string().as_bytes())?;
    report.exchange = exchange::exchange(layout, &new, how)?;
    if tree_number(&new)? != held.number()? {
        // It was none of ours that went away; the application's own tree is elsewhere by now.
        exchange::exchange(layout, &new, how)?;
        return Err(InstallError::Replaced { path: layout.install_dir.clone() });
    }
    Ok(report)
}

/// Holds the tree in place.
fn installation(layout: &Layout) -> Result<Held, InstallError> {
    let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
    place::home(layout)?.tree()?.ok_or_else(gone).at("open the directory", &layout.install_dir)
}

fn tree_number(tree: &Path) -> Result<(u64, u64), InstallError> {
    let about = fs::symlink_metadata(tree).at("look at", tree)?;
    Ok((about.dev(), about.ino()))
}

fn told(tree: &Path, id: &ReleaseId) -> Result<SwapReport, InstallError> {
    let path = report_file(tree);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|source| InstallError::BadState { path, source }),
        Err(error) if durable::is_absent(&error) => Ok(SwapReport {
            release: id.clone(),
            exchange: Exchange::Atomic,
            kept: 0,
            copied_bytes: 0,
            conflicts: Vec::new(),
        }),
        Err(error) => Err(error).at("read", &path),
    }
}

/// Whether a tree was in place once: the application ran in it, so it is not as the vendor shipped it.
pub(super) fn was_in_place(tree: &Path) -> Result<bool, InstallError> {
    durable::exists(&report_file(tree))
}

/// Lets nobody else into the staging folder, whoever made it: trees in it belong to the application's user.
fn close_off(staging_dir: &Path) -> Result<(), InstallError> {
    durable::create_dir(staging_dir)?;
    let mode = fs::metadata(staging_dir).at("look at", staging_dir)?.permissions().mode() & 0o7777;
    if mode != 0o700 {
        fs::set_permissions(staging_dir, fs::Permissions::from_mode(0o700)).at("set the mode of", staging_dir)?;
    }
    Ok(())
}

/// Puts the tree of before the swap to `id` back in place; nothing when `id` is not in place.
pub(super) fn swap_back(layout: &Layout, id: &ReleaseId, how: Exchange) -> Result<(), InstallError> {
    exchange::recover(layout)?;
    let staged = layout.staged(id);
    if prepare::marker(&layout.install_dir)?.as_ref() != Some(id) {
        return Ok(());
    }
    if !staged.is_dir() {
        return Err(InstallError::NoWayBack { id: id.clone(), path: staged });
    }
    exchange::exchange(layout, &staged, how)?;
    Ok(())
}
