//! What is on its way out: trees in the folder `trash`, and snapshots that were given up.
//!
//! Within a run everything is only moved out of the way, by a rename or a word in a file of ours, so that nobody waits for
//! the removal of a hundred thousand files. [`empty`] removes it, when no run is there to wait. It may be interrupted, and done by two at once.
//!
//! Invariant: nothing is in use that is in the trash.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::domain::finding::Finding;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::layout::Layout;
use crate::install::marks;
use crate::install::measure;
use crate::install::measure::Amount;
use crate::install::remove::Stays;
use crate::install::remove::remove;
use crate::install::scope::Scope;
use crate::install::scope::ScopeTexts;
use crate::install::state;
use crate::install::tree;

/// No run begins where more trees than this wait to be removed.
const TREES_MAX: usize = 16;
/// What is younger will be removed by whoever put it there.
const YOUNG_SECS: i64 = 60 * 60;
/// No more copies are named.
const NAMED_MAX: usize = 3;
/// So many names are tried for a tree.
const TRIES: usize = 1000;

/// Takes a tree out of everybody's sight; what is not there needs nothing.
pub(super) fn put(layout: &Layout, tree: &Path) -> Result<(), InstallError> {
    if !durable::exists(tree)? {
        return Ok(());
    }
    let trash = layout.trash();
    durable::create_dir(&trash)?;
    let first = tree::names(&trash)?.len();
    for number in first..first + TRIES {
        match durable::rename_free(tree, &trash.join(number.to_string())) {
            Err(InstallError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            moved => return moved,
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists)).at("rename", tree)
}

/// Removes it all, but for what cannot be removed: that is the answer.
pub(super) fn empty(layout: &Layout, cancelled: &AtomicBool) -> Result<Stays, InstallError> {
    let mut stays = Stays::default();
    for tree in trees(layout)? {
        remove(&tree, &mut stays, cancelled)?;
    }
    for run in state::given_up(layout)? {
        state::clear(layout, run, &mut stays, cancelled)?;
    }
    Ok(stays)
}

fn trees(layout: &Layout) -> Result<Vec<PathBuf>, InstallError> {
    Ok(tree::names(&layout.trash())?.into_iter().map(|name| layout.trash().join(name)).collect())
}

/// What `doctor` says of it; nothing where nothing waits.
pub(super) fn check(layout: &Layout) -> Option<Finding> {
    const CHECK: &str = "trash";
    let trees = trees(layout).ok()?;
    let given_up = state::given_up(layout).ok()?;
    let copies: Vec<PathBuf> = given_up.iter().flat_map(|run| state::places(layout, *run)).collect();
    let scope = Scope::new(&ScopeTexts::default()).ok()?;
    let mut amount = Amount::default();
    trees.iter().chain(&copies).for_each(|path| amount.add(measure::measure(path, &scope)));
    if amount.entries == 0 {
        return None;
    }
    let trash = layout.trash();
    let what = match (trees.len(), given_up.len()) {
        (trees, 0) => counted(trees, "old tree"),
        (0, copies) => counted(copies, "old copy of data"),
        (trees, copies) => format!("{} and {}", counted(trees, "old tree"), counted(copies, "old copy of data")),
    };
    let mib = amount.disk_bytes.div_ceil(1024 * 1024);
    let text = format!("{what} to be removed: {} entries, {mib} MiB, in {}", amount.entries, trash.display());
    // A tree that is renamed changes only in that.
    let records = given_up.iter().map(|run| state::file(layout, *run));
    let since = trees.iter().cloned().chain(records).filter_map(|path| Some(fs::symlink_metadata(path).ok()?.ctime()));
    // By the clock of the file system, which they were dated with.
    let now = tempfile::tempfile_in(&layout.staging_dir).and_then(|file| file.metadata()).map(|about| about.ctime());
    let is_young = since.min().is_none_or(|at| now.is_ok_and(|now| now - at < YOUNG_SECS));
    // Beside a copy that was given up stands one that is in use.
    let places: Vec<&Path> = match trees.is_empty() {
        true => copies.iter().map(PathBuf::as_path).take(NAMED_MAX).collect(),
        false => vec![&trash],
    };
    let (text, remedy) = match () {
        () if !amount.marked.is_empty() => {
            let root = places.first().copied().unwrap_or(&trash);
            let text = format!("{text}; append-only or immutable there: {}", amount.marked.told());
            (text, format!("{}; then they are removed", marks::remedy(&amount.marked, root)))
        }
        () if is_young && trees.len() <= TREES_MAX => {
            return Some(Finding::good(CHECK, format!("{text}; the daemon, or the next update, removes them")));
        }
        () => {
            let places: Vec<String> = places.into_iter().map(marks::word).collect();
            (text, format!("look why they are still there, then rm -rf {}", places.join(" ")))
        }
    };
    Some(match trees.len() <= TREES_MAX {
        true => Finding::warning(CHECK, text, remedy),
        false => Finding::fatal(CHECK, format!("{text}; no update begins with more than {TREES_MAX} trees"), remedy),
    })
}

fn counted(number: usize, noun: &str) -> String {
    match (number, noun) {
        (1, _) => format!("1 {noun} waits"),
        (_, "old copy of data") => format!("{number} old copies of data wait"),
        _ => format!("{number} {noun}s wait"),
    }
}
