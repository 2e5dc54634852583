//! A copy of a release for a migration that must run as root.
//!
//! The tree in place belongs to the application, so what is in it is never run as root. Neither is what was carried over into
//! the staged tree: what is kept is the application's word, too, and a migration may read its settings as a program. So the
//! copy is made by the record of what was staged, and compared with it: it holds what the vendor shipped and nothing else.
//!
//! Invariant: a copy that has its name is whole and durable.

use std::collections::BTreeSet;
use std::fs;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::domain::release::ReleaseId;
use crate::files::staged;
use crate::files::staged::Kind;
use crate::install::anchor::Anchor;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::layout::Layout;
use crate::install::layout::dot_new;
use crate::install::prepare;
use crate::install::tree;
use crate::install::tree::Held;

/// Where the copy of `id` is.
pub(super) fn path(layout: &Layout, id: &ReleaseId) -> PathBuf {
    layout.for_root().join(format!("{}+{}", id.version, id.build))
}

/// Makes the copy of `id` anew, all of it root's.
pub(super) fn copy(layout: &Layout, id: &ReleaseId, cancelled: &AtomicBool) -> Result<(), InstallError> {
    let (tree, to) = (layout.staged(id), path(layout, id));
    let partial = layout.for_root().join("partial");
    prepare::verify(&tree, id)?;
    for stale in [&to, &partial] {
        durable::remove_any(stale)?;
    }
    durable::create_dir(&partial)?;
    if let Err(error) = fill(&tree, &partial, cancelled) {
        // It may be for want of room, which the application needs to run on.
        durable::remove_any(&partial)?;
        return Err(error);
    }
    durable::sync_file_system(&partial)?;
    durable::rename_free(&partial, &to)
}

/// Makes in the empty directory `to` what was staged as `tree`.
fn fill(tree: &Path, to: &Path, cancelled: &AtomicBool) -> Result<(), InstallError> {
    let places = Places { tree, cleared: prepare::cleared(tree)? };
    let entries = staged::entries(tree).at("read the record of", tree)?;
    for entry in &entries {
        if cancelled.load(Ordering::Relaxed) {
            return Err(InstallError::Cancelled);
        }
        let at = to.join(&entry.path);
        match &entry.kind {
            Kind::Dir => fs::create_dir(&at).at("create", &at)?,
            Kind::Link { target } => symlink(target, &at).at("create", &at)?,
            Kind::File { bytes } => {
                let Some((from, held)) = places.find(&entry.path, *bytes)? else {
                    return Err(prepare::altered(tree, entry.path.clone())?);
                };
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at).at("create", &at)?;
                held.copy_content(&from, &file, &at)?;
                let changed = held.about().modified().at("look at", &from)?;
                file.set_modified(changed).at("set the times of", &at)?;
                Held::made(file, true, &at)?.set_mode(&at, entry.mode)?;
            }
        }
    }
    // Last, and parents last: what is made in a directory needs it open.
    for dir in entries.iter().rev().filter(|entry| entry.kind == Kind::Dir) {
        let at = to.join(&dir.path);
        if let Some(held) = Anchor::open(&at)? {
            Held::dir(&held)?.set_mode(&at, dir.mode)?;
        }
    }
    match staged::difference(to, tree).at("compare", to)? {
        Some(what) => Err(prepare::altered(tree, what)?),
        None => Ok(()),
    }
}

/// Where the vendor's files of a prepared tree can be.
struct Places<'a> {
    tree: &'a Path,
    /// Paths whose vendor's version is beside, because something else is kept there.
    cleared: BTreeSet<PathBuf>,
}

impl Places<'_> {
    /// The vendor's file for `path`: where it was set aside, in its place, or beside. The comparison at the end proves it.
    fn find(&self, path: &Path, bytes: u64) -> Result<Option<(PathBuf, Held)>, InstallError> {
        let beside = self.cleared.iter().filter_map(|cleared| {
            let rest = path.strip_prefix(cleared).ok()?;
            let place = dot_new(cleared);
            Some((self.tree.to_owned(), if rest.as_os_str().is_empty() { place } else { place.join(rest) }))
        });
        let own = [prepare::vendor(self.tree), self.tree.to_owned()].map(|root| (root, path.to_owned()));
        for (root, path) in own.into_iter().chain(beside) {
            // No link on the way is followed: a kept one leads to where the application can change files.
            let Some((above, name)) = path.parent().zip(path.file_name()) else { continue };
            let Some(held) = Anchor::open(&root)? else { continue };
            let Some(dir) = held.below(above)? else { continue };
            let from = dir.entry(name);
            if let Some(about) = tree::look(&from)?.filter(|about| about.is_file() && about.len() == bytes) {
                let file = Held::open(&from, &about)?;
                return Ok(Some((root.join(path), file)));
            }
        }
        Ok(None)
    }
}
