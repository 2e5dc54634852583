//! The expensive part of a swap, done while people still work.
//!
//! The new tree gets its owner, the mode and attributes of the old tree's root, and is made durable
//! as a whole. The vendor's own files at kept paths are moved into `vendor` in the folder beside the tree,
//! so that [`carry`](super::carry) can be done any number of times and always starts from the same place.
//!
//! Before anything is changed, every file is compared with what was staged; afterwards it is noted what each looks like, for
//! the swap ([`untouched`](super::untouched)).
//!
//! Invariant: `done.json` exists only beside a tree that is prepared and durable.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use walkdir::WalkDir;

use crate::domain::release::ReleaseId;
use crate::files::staged;
use crate::files::staged::state_dir;
use crate::install::anchor::Anchor;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::keep::Keep;
use crate::install::layout::dot_new;
use crate::install::layout::parent;
use crate::install::owner::Owner;
use crate::install::tree;
use crate::install::tree::Held;
use crate::install::trees::identity;
use crate::install::untouched;

/// With what a tree was prepared; with anything else it is prepared anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    uid: u32,
    gid: u32,
    mode: u32,
    pub(super) keep: Vec<String>,
    pub(super) data: Vec<PathBuf>,
}

/// Where the vendor's own files at kept paths are.
pub(super) fn vendor(tree: &Path) -> PathBuf {
    state_dir(tree).join("vendor")
}

fn done_file(tree: &Path) -> PathBuf {
    state_dir(tree).join("done.json")
}

/// Beside a tree whose files were found as they were staged; after that they are changed by us.
fn checked_file(tree: &Path) -> PathBuf {
    state_dir(tree).join("checked")
}

/// Whether `tree` is, by our own record, the release `id`, and may be put in place.
pub(super) fn verify(tree: &Path, id: &ReleaseId) -> Result<(), InstallError> {
    let Some(root) = identity(tree)? else {
        return Err(InstallError::NotStaged { id: id.clone(), path: tree.to_owned() });
    };
    let record = staged::sealed(tree).at("read the record of", tree)?.filter(|record| record.root == root);
    match record {
        Some(record) if record.marker.id == *id => {}
        found => {
            let found = found.map(|record| record.marker.id);
            return Err(InstallError::WrongTree { id: id.clone(), path: tree.to_owned(), found });
        }
    }
    if staged::is_spoilt(tree).at("look at the record of", tree)? {
        return Err(InstallError::Spoilt { id: id.clone(), path: tree.to_owned() });
    }
    Ok(())
}

/// Compares every file with what was staged, before the first of them is changed by us.
fn compare(tree: &Path) -> Result<(), InstallError> {
    if durable::exists(&checked_file(tree))? {
        return Ok(());
    }
    if let Some(what) = staged::difference(tree, tree).at("compare", tree)? {
        return Err(altered(tree, what)?);
    }
    durable::write(&checked_file(tree), b"")
}

/// Lets the next download not take `tree` for its release any more, for the sake of `what`.
pub(super) fn altered(tree: &Path, what: PathBuf) -> Result<InstallError, InstallError> {
    staged::spoil(tree).at("mark", tree)?;
    Ok(InstallError::Altered { tree: tree.to_owned(), what })
}

/// How a tree is prepared, if it is.
pub(super) fn done(tree: &Path) -> Result<Option<Done>, InstallError> {
    let path = done_file(tree);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| InstallError::BadState { path, source }),
        Err(error) if durable::is_absent(&error) => Ok(None),
        Err(error) => Err(error).at("read", &path),
    }
}

/// Makes the staged tree of `id` ready to be put in place of `old`. Quick when it is already.
pub(super) fn prepare(
    old: &Path,
    new: &Path,
    id: &ReleaseId,
    owner: Option<Owner>,
    keep: &Keep,
) -> Result<(), InstallError> {
    verify(new, id)?;
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let model = Held::dir(&Anchor::follow(old)?.ok_or_else(gone).at("look at", old)?)?;
    let about = model.about();
    let owner = owner.unwrap_or(Owner { uid: about.uid(), gid: about.gid() });
    let wanted = Done {
        uid: owner.uid,
        gid: owner.gid,
        mode: about.mode() & 0o7777,
        keep: keep.texts().to_vec(),
        data: keep.data().to_vec(),
    };
    match done(new)? {
        Some(present) if present == wanted && untouched::is_recorded(new)? => return Ok(()),
        Some(present) => {
            undo_carry(new, &Keep::new(&present.keep, present.data)?)?;
            durable::remove_file_durably(&done_file(new))?;
        }
        None => {}
    }
    compare(new)?;
    bring_back(new)?;
    set_aside(new, keep)?;
    let root = Anchor::open(new)?.ok_or_else(gone).at("open", new)?;
    give(&root, owner)?;
    // The folder beside is ours and stays ours; the vendor's files in it are handed on.
    if let Some(vendors) = Anchor::open(&vendor(new))? {
        give(&vendors, owner)?;
    }
    let held = Held::dir(&root)?;
    held.give_to(new, owner.uid, owner.gid)?;
    held.set_mode(new, wanted.mode)?;
    held.take_attributes(new, &model, old)?;
    durable::sync_file_system(new)?;
    untouched::record(new)?;
    let text = serde_json::json!(wanted).to_string();
    durable::write(&done_file(new), text.as_bytes())
}

/// Where it is noted what was carried over ahead.
pub(super) fn index_file(tree: &Path) -> PathBuf {
    state_dir(tree).join("carried")
}

/// Where it is noted which kept paths had to be cleared of something the vendor has there; later passes find them clear.
pub(super) fn cleared_file(tree: &Path) -> PathBuf {
    state_dir(tree).join("cleared.json")
}

/// Kept paths whose vendor's version was moved to `NAME.new`.
pub(super) fn cleared(tree: &Path) -> Result<BTreeSet<PathBuf>, InstallError> {
    let path = cleared_file(tree);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|source| InstallError::BadState { path, source }),
        Err(error) if durable::is_absent(&error) => Ok(BTreeSet::new()),
        Err(error) => Err(error).at("read", &path),
    }
}

/// Makes a tree what it was before anything was carried over into it, but for the vendor's files that are set aside.
fn undo_carry(tree: &Path, keep: &Keep) -> Result<(), InstallError> {
    durable::remove_file(&index_file(tree))?;
    wipe(tree, keep)?;
    for path in cleared(tree)?.into_iter().rev() {
        let (ours, vendors) = (tree.join(&path), dot_new(&tree.join(&path)));
        if durable::exists(&vendors)? {
            durable::remove_any(&ours)?;
            fs::rename(&vendors, &ours).at("rename", &vendors)?;
        }
    }
    durable::remove_file(&cleared_file(tree))
}

/// Removes from a prepared tree what was carried over into it; the vendor's files are elsewhere.
pub(super) fn wipe(tree: &Path, keep: &Keep) -> Result<(), InstallError> {
    for kept in keep.walk(tree)?.iter().filter(|kept| !kept.about.is_dir()) {
        durable::remove_file(&tree.join(&kept.path))?;
    }
    Ok(())
}

/// The vendor's files at kept paths, relative to the tree.
pub(super) fn vendor_files(tree: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let root = vendor(tree);
    let mut files = Vec::new();
    if !root.is_dir() {
        return Ok(files);
    }
    for entry in WalkDir::new(&root).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(std::io::Error::from).at("list", &root)?;
        if !entry.file_type().is_dir()
            && let Ok(path) = entry.path().strip_prefix(&root)
        {
            files.push(path.to_owned());
        }
    }
    Ok(files)
}

fn bring_back(tree: &Path) -> Result<(), InstallError> {
    let root = vendor(tree);
    for path in vendor_files(tree)? {
        let (from, to) = (root.join(&path), tree.join(&path));
        fs::create_dir_all(parent(&to)).at("create", parent(&to))?;
        fs::rename(&from, &to).at("rename", &from)?;
    }
    durable::remove_any(&root)
}

fn set_aside(tree: &Path, keep: &Keep) -> Result<(), InstallError> {
    let root = vendor(tree);
    for kept in keep.walk(tree)?.iter().filter(|kept| !kept.about.is_dir()) {
        let (from, to) = (tree.join(&kept.path), root.join(&kept.path));
        fs::create_dir_all(parent(&to)).at("create", parent(&to))?;
        fs::rename(&from, &to).at("rename", &from)?;
    }
    Ok(())
}

/// Gives what is in a directory its owner, each entry on its descriptor: the application may have run in it, and know its
/// way around.
fn give(dir: &Anchor, owner: Owner) -> Result<(), InstallError> {
    for name in tree::names(&dir.path())? {
        let entry = dir.entry(&name);
        let Some(about) = tree::look(&entry)? else { continue };
        if !about.is_dir() {
            Held::open(&entry, &about)?.give_to(&entry, owner.uid, owner.gid)?;
        } else if let Some(below) = dir.child(&name)? {
            give(&below, owner)?;
            Held::dir(&below)?.give_to(&entry, owner.uid, owner.gid)?;
        }
    }
    Ok(())
}
