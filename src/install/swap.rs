//! Puts a new tree in place of the old one, and back.
//!
//! What a swap costs follows what is kept, not the size of the application: everything else was
//! done by [`prepare`](super::prepare).

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::domain::release::ReleaseId;
use crate::files::small::read_small;
use crate::files::staged;
use crate::files::staged::Identity;
use crate::files::staged::state_dir;
use crate::install::anchor::Anchor;
use crate::install::carry;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::exchange;
use crate::install::exchange::Exchange;
use crate::install::keep::Keep;
use crate::install::layout::Layout;
use crate::install::layout::parent;
use crate::install::owner::Owner;
use crate::install::place;
use crate::install::place::Held;
use crate::install::prepare;
use crate::install::tree;
use crate::install::trees;
use crate::install::trees::identity;
use crate::install::untouched;

/// No record of a swap is longer; it lists conflicts.
const RECORD_BYTES_MAX: u64 = 64 * 1024 * 1024;

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

/// What a swap was about to do and did; written before, beside the staged tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Swapped {
    report: SwapReport,
    /// The tree that was in place before.
    pub(super) old: Identity,
}

/// What is known of the swap to the tree that was staged at `tree`; nothing where there was none.
pub(super) fn swapped(tree: &Path) -> Result<Option<Swapped>, InstallError> {
    let path = report_file(tree);
    let text = read_small(&path, RECORD_BYTES_MAX).map_err(std::io::Error::from).at("read", &path)?;
    text.map(|text| serde_json::from_slice(&text)).transpose().map_err(|source| InstallError::BadState { path, source })
}

fn report_file(tree: &Path) -> PathBuf {
    state_dir(tree).join("swap.json")
}

/// Does ahead, while people work, what can be done ahead. Quick when done, and nothing when `id` is in place.
pub(super) fn prepare(layout: &Layout, id: &ReleaseId, owner: Option<Owner>, keep: &Keep) -> Result<(), InstallError> {
    exchange::recover(layout)?;
    let (held, new) = (installation(layout)?, layout.staged(id));
    let old = &held.path();
    if trees::known(layout)?.as_ref() == Some(id) {
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
    if trees::known(layout)?.as_ref() == Some(id) {
        durable::fsync_dir(parent(&layout.install_dir))?;
        durable::fsync_dir(parent(&new))?;
        return told(&new, id);
    }
    close_off(&layout.staging_dir)?;
    prepare::prepare(old, &new, id, owner, keep)?;
    // Beside what waits for the disk, so that it costs no downtime of its own.
    let (moved, carried) = untouched::moved_meanwhile(&new, || carry::carry(old, &new, keep));
    let carried = carried?;
    untouched::judge(&new, moved?)?;
    let mut report = SwapReport {
        release: id.clone(),
        exchange: how,
        kept: carried.kept,
        copied_bytes: carried.copied_bytes,
        conflicts: carried.conflicts.into_iter().collect(),
    };
    let root = identity(old)?.ok_or_else(gone).at("look at", &layout.install_dir)?;
    let record = Swapped { report: report.clone(), old: root };
    durable::write(&report_file(&new), serde_json::json!(record).to_string().as_bytes())?;
    report.exchange = exchange::exchange(layout, &new, how)?;
    if identity(&new)? != Some(root) {
        // It was none of ours that went away; the application's own tree is elsewhere by now.
        staged::spoil(&new).at("mark", &new)?;
        exchange::exchange(layout, &new, how)?;
        return Err(InstallError::Replaced { path: layout.install_dir.clone() });
    }
    Ok(report)
}

/// Holds the tree in place.
fn installation(layout: &Layout) -> Result<Held, InstallError> {
    place::home(layout)?.tree()?.ok_or_else(gone).at("open the directory", &layout.install_dir)
}

fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// What the swap to the tree that was staged at `tree` did.
fn told(tree: &Path, id: &ReleaseId) -> Result<SwapReport, InstallError> {
    let nothing = || SwapReport {
        release: id.clone(),
        exchange: Exchange::Atomic,
        kept: 0,
        copied_bytes: 0,
        conflicts: Vec::new(),
    };
    Ok(swapped(tree)?.map_or_else(nothing, |swapped| swapped.report))
}

/// Lets nobody else into the staging folder, whoever made it: trees in it belong to the application's user.
fn close_off(staging_dir: &Path) -> Result<(), InstallError> {
    durable::create_dir(staging_dir)?;
    let held = tree::Held::dir(&Anchor::follow(staging_dir)?.ok_or_else(gone).at("open", staging_dir)?)?;
    if held.about().mode() & 0o7777 == 0o700 { Ok(()) } else { held.set_mode(staging_dir, 0o700) }
}

/// Puts the tree of before the swap to `id` back in place; nothing when `id` is not in place.
pub(super) fn swap_back(layout: &Layout, id: &ReleaseId, how: Exchange) -> Result<(), InstallError> {
    exchange::recover(layout)?;
    let staged = layout.staged(id);
    let no_way_back = || InstallError::NoWayBack { id: id.clone(), path: staged.clone() };
    let Some(swapped) = swapped(&staged)? else {
        return if trees::known(layout)?.as_ref() == Some(id) { Err(no_way_back()) } else { Ok(()) };
    };
    if identity(&layout.install_dir)? == Some(swapped.old) {
        return Ok(());
    }
    if identity(&staged)? != Some(swapped.old) {
        return Err(no_way_back());
    }
    // The application ran in what comes back: it is never a release again.
    staged::spoil(&staged).at("mark", &staged)?;
    exchange::exchange(layout, &staged, how)?;
    Ok(())
}
