//! What stays of a run: after a success the old tree under its `_old` name, after a rollback nothing that is in the way.
//!
//! Whatever is removed is first renamed into the staging folder's trash, so nobody ever meets half a tree.
//! Invariant: a tree beside the installation that we did not put there is never touched. That is known by the
//! directory (`trees.rs`), never by what is in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::domain::release::ReleaseId;
use crate::domain::run::RunId;
use crate::files::staged;
use crate::files::staged::state_dir;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::exchange;
use crate::install::layout::Layout;
use crate::install::layout::parent;
use crate::install::state;
use crate::install::state::SnapshotPhase;
use crate::install::state::State;
use crate::install::swap;
use crate::install::tree;
use crate::install::trees;
use crate::install::trees::Placed;
use crate::install::trees::Retired;
use crate::install::trees::Trees;
use crate::install::trees::identity;

/// After a success along `path`: keeps the tree of before the run, removes what is older than retention allows.
pub(super) fn retire(layout: &Layout, keep_old: u32, run: RunId, path: &[ReleaseId]) -> Result<(), InstallError> {
    exchange::recover(layout)?;
    let (Some(first), Some(last)) = (path.first(), path.last()) else { return Ok(()) };
    match trees::known(layout)? {
        Some(found) if found == *last => {}
        found => return Err(InstallError::WrongTree { id: last.clone(), path: layout.install_dir.clone(), found }),
    }
    let mut trees = Trees::read(layout)?;
    let before = layout.staged(first);
    let was = swap::swapped(&before)?.map(|swapped| swapped.old);
    if let Some(root) = was.filter(|_| keep_old > 0)
        && identity(&before)? == Some(root)
    {
        // Ours to remove one day; known before it is there.
        trees.retired.push(Retired { run, root });
        trees.write(layout)?;
        let place = make_place(layout, keep_old)?;
        durable::rename_free(&before, &place)?;
    }
    if let Some(root) = identity(&layout.install_dir)? {
        trees.installed = Some(Placed { release: last.clone(), root });
        trees.write(layout)?;
    }
    for id in path {
        trash(layout, &layout.staged(id))?;
        trash(layout, &state_dir(&layout.staged(id)))?;
    }
    remove_superseded(layout, last)?;
    remove_old(layout, keep_old)?;
    for older in state::runs(layout)?.into_iter().filter(|other| *other < run) {
        state::remove(layout, older)?;
    }
    trash(layout, &layout.for_root())?;
    empty_trash(layout)
}

/// After a rollback: removes trees that were in place for a while, and what can no longer be used of snapshots.
pub(super) fn discard(layout: &Layout, run: RunId) -> Result<(), InstallError> {
    exchange::recover(layout)?;
    for name in tree::names(&layout.staged_dir())?.iter().filter(|name| staged::is_tree(name)) {
        let tree = layout.staged_dir().join(name);
        // Never the one tree that could be an installation's way back: that is not the one of the record.
        if is_itself(&tree)?.is_some() && staged::is_spoilt(&tree).at("look at the record of", &tree)? {
            trash(layout, &tree)?;
            trash(layout, &state_dir(&tree))?;
        }
    }
    for other in state::runs(layout)?.into_iter().filter(|other| *other <= run) {
        forget(layout, other)?;
    }
    trash(layout, &layout.for_root())?;
    empty_trash(layout)
}

/// Removes what there is of a run's snapshot, unless somebody may still need it to finish restoring.
pub(super) fn forget(layout: &Layout, run: RunId) -> Result<(), InstallError> {
    let unfinished = State::read(layout, run)?.is_some_and(|state| state.phase == SnapshotPhase::Restoring);
    if unfinished { Ok(()) } else { state::remove(layout, run) }
}

/// The places of our own old trees, newest first; places that others took are passed over.
fn places(layout: &Layout, keep_old: u32) -> Result<Vec<PathBuf>, InstallError> {
    let mut places = Vec::new();
    for place in 1..=keep_old.saturating_add(1000) {
        let path = layout.old(place);
        if places.len() < keep_old as usize && (!durable::exists(&path)? || is_ours(layout, &path)?) {
            places.push(path);
        }
    }
    Ok(places)
}

fn is_ours(layout: &Layout, tree: &Path) -> Result<bool, InstallError> {
    let Some(root) = identity(tree)? else { return Ok(false) };
    Ok(Trees::read(layout)?.retired.iter().any(|retired| retired.root == root))
}

/// The release that a staged tree is by the record beside it; nothing where another tree stands there.
fn is_itself(tree: &Path) -> Result<Option<ReleaseId>, InstallError> {
    let record = staged::sealed(tree).at("read the record of", tree)?;
    let root = identity(tree)?;
    Ok(record.filter(|record| Some(record.root) == root).map(|record| record.marker.id))
}

/// Frees the first place by moving the others on. An interruption leaves a gap, and the next time goes on from there.
fn make_place(layout: &Layout, keep_old: u32) -> Result<PathBuf, InstallError> {
    let places = places(layout, keep_old)?;
    let Some((first, last)) = places.first().zip(places.last()) else { return Ok(layout.old(1)) };
    let mut gap = None;
    for (place, path) in places.iter().enumerate() {
        if !durable::exists(path)? {
            gap = Some(place);
            break;
        }
    }
    let gap = match gap {
        Some(gap) => gap,
        None => {
            trash(layout, last)?;
            places.len() - 1
        }
    };
    for place in (0..gap).rev() {
        durable::rename_free(&places[place], &places[place + 1])?;
    }
    Ok(first.clone())
}

/// Removes our own old trees that are beyond retention.
fn remove_old(layout: &Layout, keep_old: u32) -> Result<(), InstallError> {
    let stay: BTreeSet<PathBuf> = places(layout, keep_old)?.into_iter().collect();
    let Some(first) = layout.old(1).file_name().map(|name| name.to_string_lossy().into_owned()) else { return Ok(()) };
    let old_dir = layout.old_dir();
    for name in tree::names(old_dir)? {
        let path = old_dir.join(&name);
        let name = name.to_string_lossy();
        let number = name.strip_prefix(first.as_str()).map(|tail| tail.strip_prefix('.').unwrap_or(tail));
        let is_place = number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        if is_place && !stay.contains(&path) && is_ours(layout, &path)? {
            trash(layout, &path)?;
        }
    }
    let mut trees = Trees::read(layout)?;
    let known = stay.iter().map(|path| identity(path)).collect::<Result<Vec<_>, _>>()?;
    trees.retired.retain(|retired| known.contains(&Some(retired.root)));
    trees.write(layout)
}

/// Removes staged trees that are not newer than what is installed.
fn remove_superseded(layout: &Layout, installed: &ReleaseId) -> Result<(), InstallError> {
    for name in tree::names(&layout.staged_dir())?.iter().filter(|name| staged::is_tree(name)) {
        let tree = layout.staged_dir().join(name);
        if is_itself(&tree)?.is_some_and(|id| id.build <= installed.build) {
            trash(layout, &tree)?;
            trash(layout, &state_dir(&tree))?;
        }
    }
    Ok(())
}

/// Takes a tree out of everybody's sight; what is not there needs nothing.
fn trash(layout: &Layout, tree: &Path) -> Result<(), InstallError> {
    if !durable::exists(tree)? {
        return Ok(());
    }
    durable::create_dir(&layout.trash())?;
    let bin =
        tempfile::Builder::new().prefix("tree").tempdir_in(layout.trash()).at("create a folder in", &layout.trash())?;
    // It is emptied with the rest; were it removed here, half a tree could be left under its own name.
    let to = bin.keep().join("tree");
    fs::rename(tree, &to).at("rename", tree)?;
    durable::fsync_dir(parent(tree))
}

fn empty_trash(layout: &Layout) -> Result<(), InstallError> {
    durable::remove_any(&layout.trash())
}
