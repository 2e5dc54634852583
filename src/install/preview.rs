//! What a swap would do to the files, without touching anything.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde::Serialize;
use walkdir::WalkDir;

use crate::domain::release::ReleaseId;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::keep;
use crate::install::keep::Keep;
use crate::install::layout::Layout;
use crate::install::layout::dot_new;
use crate::install::prepare;
use crate::install::tree;

/// No list in a preview is longer.
pub const LISTED_MAX: usize = 1000;

/// Some paths, relative to the installation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// How many there are.
    pub count: u64,
    /// The first [`LISTED_MAX`] of them.
    pub paths: Vec<PathBuf>,
}

impl Listing {
    fn add(&mut self, path: &Path) {
        self.count += 1;
        if self.paths.len() < LISTED_MAX {
            self.paths.push(path.to_owned());
        }
    }
}

/// What a swap would do. Directories are not listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SwapPreview {
    /// In both trees, with another content.
    pub changed: Listing,
    /// Only in the new tree.
    pub added: Listing,
    /// Only in the old tree and not kept. They stay in the `_old` tree.
    pub removed: Listing,
    /// Carried over.
    pub kept: Listing,
    /// Kept, and the vendor's differs: it will stand beside as `NAME.new`.
    pub conflicts: Listing,
    /// What must be copied to carry over, unless the file system shares blocks.
    pub kept_bytes: u64,
    /// What is free on the file system of the installation.
    pub free_bytes: u64,
}

/// Compares the installation with the staged tree of `id`.
pub(super) fn preview(
    layout: &Layout,
    id: &ReleaseId,
    keep: &Keep,
    cancelled: &AtomicBool,
) -> Result<SwapPreview, InstallError> {
    let (old, new) = (&layout.install_dir, layout.staged(id));
    prepare::verify(&new, id)?;
    let mut preview = SwapPreview::default();
    let mut kept_paths = BTreeSet::new();
    for kept in keep.walk(old)?.into_iter().filter(|kept| !kept.about.is_dir()) {
        preview.kept.add(&kept.path);
        if kept.about.is_file() {
            preview.kept_bytes += kept.about.len();
        }
        kept_paths.insert(kept.path);
    }
    let vendors = Vendors::of(&new, keep)?;
    let ours = files(old)?;
    for (path, file) in vendors.plain.iter().chain(&vendors.at_kept) {
        if cancelled.load(Ordering::Relaxed) {
            return Err(InstallError::Cancelled);
        }
        if kept_paths.contains(path) {
            continue;
        }
        match ours.get(path) {
            None if keep.data_root(path).is_some() => {}
            None => preview.added.add(path),
            Some(present) if tree::same_content(present, file)? => {}
            Some(_) => preview.changed.add(path),
        }
    }
    let has = |path: &Path| vendors.plain.contains_key(path) || vendors.at_kept.contains_key(path);
    for path in ours.keys().filter(|path| !kept_paths.contains(*path) && !has(path)) {
        preview.removed.add(path);
    }
    let mut conflicts = BTreeSet::new();
    for (path, file) in &vendors.at_kept {
        conflicts.extend(conflict(old, path, file, keep)?);
    }
    // The vendor has a file where the way to a kept one needs a directory.
    let above = kept_paths.iter().flat_map(|path| path.ancestors().skip(1));
    conflicts.extend(above.filter(|dir| vendors.plain.contains_key(*dir)).map(Path::to_owned));
    conflicts.extend(prepare::cleared(&new)?);
    conflicts.iter().for_each(|path| preview.conflicts.add(path));
    let space = rustix::fs::statvfs(&new).at("ask for the free space of", &new)?;
    preview.free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    Ok(preview)
}

/// The kept path beside which the vendor's `file` would go.
fn conflict(old: &Path, path: &Path, file: &Path, keep: &Keep) -> Result<Option<PathBuf>, InstallError> {
    if let Some(root) = keep.data_root(path)
        && durable::exists(&old.join(root))?
    {
        return Ok(None);
    }
    let mut prefixes: Vec<&Path> = path.ancestors().filter(|prefix| !prefix.as_os_str().is_empty()).collect();
    prefixes.reverse();
    for prefix in prefixes {
        let Some(about) = tree::look(&old.join(prefix))? else { return Ok(None) };
        if prefix == path {
            return Ok((!tree::same_content(&old.join(path), file)?).then(|| path.to_owned()));
        }
        if !about.is_dir() {
            return Ok(Some(prefix.to_owned()));
        }
    }
    Ok(None)
}

/// The files of a staged tree as the vendor shipped them, by their path in the tree.
struct Vendors {
    plain: BTreeMap<PathBuf, PathBuf>,
    at_kept: BTreeMap<PathBuf, PathBuf>,
}

impl Vendors {
    fn of(tree: &Path, keep: &Keep) -> Result<Self, InstallError> {
        let mut plain = files(tree)?;
        let mut at_kept = BTreeMap::new();
        let prepared = prepare::done(tree)?.is_some();
        for kept in keep.walk(tree)?.into_iter().filter(|kept| !kept.about.is_dir()) {
            // In a prepared tree these are carried over; the vendor's were set aside.
            if let Some(file) = plain.remove(&kept.path)
                && !prepared
            {
                at_kept.insert(kept.path, file);
            }
        }
        for path in prepare::vendor_files(tree)? {
            let file = prepare::vendor(tree).join(&path);
            at_kept.insert(path, file);
        }
        // What an earlier pass put beside is not a file of its own.
        for path in prepare::cleared(tree)?.iter().chain(at_kept.keys()) {
            plain.remove(&dot_new(path));
        }
        Ok(Self { plain, at_kept })
    }
}

fn files(tree: &Path) -> Result<BTreeMap<PathBuf, PathBuf>, InstallError> {
    let mut files = BTreeMap::new();
    for entry in WalkDir::new(tree).min_depth(1) {
        let entry = entry.map_err(std::io::Error::from).at("list", tree)?;
        let Ok(path) = entry.path().strip_prefix(tree) else { continue };
        if !entry.file_type().is_dir() && !keep::is_ours(path) {
            files.insert(path.to_owned(), entry.path().to_owned());
        }
    }
    Ok(files)
}
