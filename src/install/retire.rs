//! What stays of a run: after a success the old tree under its `_old` name, after a rollback nothing that is in the way.
//!
//! Whatever is to be removed is renamed into the staging folder's [`trash`], so nobody ever meets half a tree, and removed from there
//! when nobody waits. What cannot be moved keeps nothing else from it, and is named.
//! Invariant: a tree beside the installation that we did not put there is never touched. That is known by the
//! directory (`trees.rs`), never by what is in it.

use std::collections::BTreeSet;
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
use crate::install::remove::Stays;
use crate::install::state;
use crate::install::state::SnapshotPhase;
use crate::install::state::State;
use crate::install::swap;
use crate::install::trash;
use crate::install::tree;
use crate::install::trees;
use crate::install::trees::Placed;
use crate::install::trees::Retired;
use crate::install::trees::Trees;
use crate::install::trees::identity;

/// After a success along `path`: keeps the tree of before the run, removes what is older than retention allows.
pub(super) fn retire(layout: &Layout, keep_old: u32, run: RunId, path: &[ReleaseId]) -> Result<Stays, InstallError> {
    exchange::recover(layout)?;
    let mut stays = Stays::default();
    let (Some(first), Some(last)) = (path.first(), path.last()) else { return Ok(stays) };
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
        put_staged(layout, &layout.staged(id), &mut stays);
    }
    remove_superseded(layout, last, &mut stays)?;
    remove_old(layout, keep_old, &mut stays)?;
    for older in state::runs(layout)?.into_iter().filter(|other| *other < run) {
        noted(state::give_up(layout, older), &layout.snapshot(older), &mut stays);
    }
    put(layout, &layout.for_root(), &mut stays);
    Ok(stays)
}

/// Puts a tree into the trash, or notes that it stays.
fn put(layout: &Layout, tree: &Path, stays: &mut Stays) {
    noted(trash::put(layout, tree), tree, stays);
}

/// The same for a staged tree, and then for what is known of it.
fn put_staged(layout: &Layout, tree: &Path, stays: &mut Stays) {
    match trash::put(layout, tree) {
        Ok(()) => put(layout, &state_dir(tree), stays),
        // Known as long as it is there.
        stayed => noted(stayed, tree, stays),
    }
}

fn noted(done: Result<(), InstallError>, path: &Path, stays: &mut Stays) {
    if let Err(error) = done {
        stays.note(path.to_owned(), error);
    }
}

/// After a rollback: removes trees that were in place for a while, and what can no longer be used of snapshots.
pub(super) fn discard(layout: &Layout, run: RunId) -> Result<Stays, InstallError> {
    exchange::recover(layout)?;
    let mut stays = Stays::default();
    for name in tree::names(&layout.staged_dir())?.iter().filter(|name| staged::is_tree(name)) {
        let tree = layout.staged_dir().join(name);
        // Never the one tree that could be an installation's way back: that is not the one of the record.
        if is_itself(&tree)?.is_some() && staged::is_spoilt(&tree).at("look at the record of", &tree)? {
            put_staged(layout, &tree, &mut stays);
        }
    }
    for other in state::runs(layout)?.into_iter().filter(|other| *other <= run) {
        noted(forget(layout, other), &layout.snapshot(other), &mut stays);
    }
    put(layout, &layout.for_root(), &mut stays);
    Ok(stays)
}

/// Removes what there is of a run's snapshot, unless somebody may still need it to finish restoring.
pub(super) fn forget(layout: &Layout, run: RunId) -> Result<(), InstallError> {
    let unfinished = State::read(layout, run)?.is_some_and(|state| state.phase == SnapshotPhase::Restoring);
    if unfinished { Ok(()) } else { state::give_up(layout, run) }
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
            trash::put(layout, last)?;
            places.len() - 1
        }
    };
    for place in (0..gap).rev() {
        durable::rename_free(&places[place], &places[place + 1])?;
    }
    Ok(first.clone())
}

/// Removes our own old trees that are beyond retention.
fn remove_old(layout: &Layout, keep_old: u32, stays: &mut Stays) -> Result<(), InstallError> {
    let stay: BTreeSet<PathBuf> = places(layout, keep_old)?.into_iter().collect();
    let Some(first) = layout.old(1).file_name().map(|name| name.to_string_lossy().into_owned()) else { return Ok(()) };
    let (old_dir, mut still) = (layout.old_dir(), Vec::new());
    for name in tree::names(old_dir)? {
        let path = old_dir.join(&name);
        let name = name.to_string_lossy();
        let number = name.strip_prefix(first.as_str()).map(|tail| tail.strip_prefix('.').unwrap_or(tail));
        let is_place = number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        if is_place && !stay.contains(&path) && is_ours(layout, &path)? {
            put(layout, &path, stays);
            still.push(path);
        }
    }
    let mut trees = Trees::read(layout)?;
    let known = stay.iter().chain(&still).map(|path| identity(path)).collect::<Result<Vec<_>, _>>()?;
    trees.retired.retain(|retired| known.contains(&Some(retired.root)));
    trees.write(layout)
}

/// Removes staged trees that are not newer than what is installed.
fn remove_superseded(layout: &Layout, installed: &ReleaseId, stays: &mut Stays) -> Result<(), InstallError> {
    for name in tree::names(&layout.staged_dir())?.iter().filter(|name| staged::is_tree(name)) {
        let tree = layout.staged_dir().join(name);
        if is_itself(&tree)?.is_some_and(|id| id.build <= installed.build) {
            put_staged(layout, &tree, stays);
        }
    }
    Ok(())
}
