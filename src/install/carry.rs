//! Carries what is kept from the old tree into a prepared new one. The old tree is only read, so
//! it can take its place again at any time.
//!
//! Done twice, as the snapshot is: ahead while people work, and after the stop only what changed since, so that data
//! inside the installation do not keep anybody waiting. Where the vendor's new tree has something else at a kept path,
//! that goes beside it as `NAME.new`, every time anew from what [`prepare`](super::prepare) set aside.
//!
//! Invariant: the index of what was copied ahead is gone before the new tree is in place; the new version may change its copies.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use crate::install::anchor::Anchor;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::index::Index;
use crate::install::index::Trust;
use crate::install::keep::Keep;
use crate::install::keep::Kept;
use crate::install::layout::dot_new;
use crate::install::layout::parent;
use crate::install::prepare;
use crate::install::tree;
use crate::install::tree::Links;

/// More files than this are made durable together with their file system.
const FSYNC_EACH_MAX: usize = 32;

/// What was carried over.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) kept: u64,
    pub(super) copied_bytes: u64,
    /// Kept paths beside which the vendor's version stands.
    pub(super) conflicts: BTreeSet<PathBuf>,
}

/// Where the vendor's file for a kept path goes.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Where the vendor meant it: nothing is kept there.
    Itself,
    /// Nowhere: the kept file is the same, or the place is the application's data.
    Nowhere,
    /// Beside the kept path.
    Beside { kept: PathBuf, file: PathBuf },
}

struct Carry<'a> {
    old: &'a Path,
    new: &'a Path,
    done: Carried,
    /// Directories whose attributes follow at the end, parents first.
    dirs: Vec<PathBuf>,
    touched: BTreeSet<PathBuf>,
    links: Links,
    /// What was copied before.
    index: Index,
    noted: Index,
    trust: Trust,
    live: bool,
}

/// Carries over while people work, for [`carry`] to find most of it done. Quick when done.
pub(super) fn ahead(old: &Path, new: &Path, keep: &Keep) -> Result<(), InstallError> {
    if durable::exists(&prepare::index_file(new))? {
        return Ok(());
    }
    let trust = Trust::begin(old, new)?;
    let noted = cleaning_up(new, keep, pass(old, new, keep, Index::default(), trust, true))?.1;
    durable::sync_file_system(new)?;
    noted.write(&prepare::index_file(new))
}

/// Carries over what `keep` says and makes it durable.
pub(super) fn carry(old: &Path, new: &Path, keep: &Keep) -> Result<Carried, InstallError> {
    let index = Index::read(&prepare::index_file(new))?.unwrap_or_default();
    let carried = cleaning_up(new, keep, pass(old, new, keep, index, Trust::NONE, false))?.0;
    durable::remove_file_durably(&prepare::index_file(new))?;
    Ok(carried)
}

/// After running out of room: the application needs it to run on.
fn cleaning_up<T>(new: &Path, keep: &Keep, done: Result<T, InstallError>) -> Result<T, InstallError> {
    if done.as_ref().is_err_and(InstallError::is_full) {
        durable::remove_file_durably(&prepare::index_file(new))?;
        prepare::wipe(new, keep)?;
    }
    done
}

fn pass(
    old: &Path,
    new: &Path,
    keep: &Keep,
    index: Index,
    trust: Trust,
    live: bool,
) -> Result<(Carried, Index), InstallError> {
    let mut carry = Carry {
        old,
        new,
        done: Carried { conflicts: prepare::cleared(new)?, ..Carried::default() },
        dirs: Vec::new(),
        touched: BTreeSet::new(),
        links: Links::new(),
        index,
        noted: Index::default(),
        trust,
        live,
    };
    let wanted = keep.walk(old)?;
    carry.remove_others(&wanted, keep)?;
    for kept in &wanted {
        carry.put(kept).or_else(|error| if carry.vanished(kept) { Ok(()) } else { Err(error) })?;
    }
    for path in prepare::vendor_files(new)? {
        carry.place_vendors(&path, keep)?;
    }
    for dir in carry.dirs.iter().rev() {
        let from = old.join(dir);
        match tree::look(&from)? {
            None if live => {}
            about => {
                let gone = || io::Error::from(io::ErrorKind::NotFound);
                tree::copy_attributes(&from, &about.ok_or_else(gone).at("look at", &from)?, &new.join(dir))?;
            }
        }
    }
    if !live {
        carry.make_durable()?;
    }
    Ok((carry.done, carry.noted))
}

/// The directory of a path within a tree.
fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Carry<'_> {
    /// Removes what was carried over or placed before and is not in the old tree.
    fn remove_others(&mut self, wanted: &[Kept], keep: &Keep) -> Result<(), InstallError> {
        let wanted: HashSet<&Path> = wanted.iter().map(|kept| kept.path.as_path()).collect();
        for kept in keep.walk(self.new)? {
            if !kept.about.is_dir() && !wanted.contains(kept.path.as_path()) {
                let path = self.new.join(&kept.path);
                durable::remove_file(&path)?;
                self.touched.insert(parent(&path).to_owned());
            }
        }
        Ok(())
    }

    /// Puts one kept entry in its place in the new tree.
    fn put(&mut self, kept: &Kept) -> Result<(), InstallError> {
        self.make_parents(&kept.path)?;
        let to = self.new.join(&kept.path);
        let present = tree::look(&to)?;
        if present.as_ref().is_some_and(|about| about.is_dir() != kept.about.is_dir()) {
            self.put_beside(&kept.path)?;
        }
        if kept.about.is_dir() {
            tree::make_dir(&to)?;
            self.dirs.push(kept.path.clone());
            return Ok(());
        }
        self.done.kept += 1;
        let same_kind = present.is_some_and(|about| about.file_type() == kept.about.file_type());
        let stamp = self.index.get(&kept.path).filter(|stamp| stamp.still(&kept.about));
        if stamp.is_some() && same_kind && kept.about.nlink() < 2 {
            return Ok(());
        }
        // The old tree may belong to somebody who is still at work in it; the new one is out of reach.
        let held = kept.path.file_name().zip(Anchor::below(self.old, parent_of(&kept.path))?);
        let from = held.as_ref().map_or_else(|| self.old.join(&kept.path), |(name, dir)| dir.entry(name));
        self.done.copied_bytes += tree::copy_entry(&from, &kept.about, &to, &to, &mut self.links)?;
        self.noted.insert(kept.path.clone(), self.trust.stamp(&kept.about));
        self.touched.insert(to);
        Ok(())
    }

    /// Whether a kept entry is gone or another by now, while people work.
    fn vanished(&self, kept: &Kept) -> bool {
        let now = tree::look(&self.old.join(&kept.path));
        self.live && now.is_ok_and(|now| now.is_none_or(|now| now.ino() != kept.about.ino()))
    }

    /// Makes the directories above a kept path as they are in the old tree.
    fn make_parents(&mut self, path: &Path) -> Result<(), InstallError> {
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).collect();
        for dir in above.into_iter().rev() {
            match tree::look(&self.new.join(dir))? {
                Some(about) if about.is_dir() => continue,
                Some(_) => self.put_beside(dir)?,
                None => {}
            }
            tree::make_dir(&self.new.join(dir))?;
            self.dirs.push(dir.to_owned());
            self.touched.insert(self.new.join(dir));
        }
        Ok(())
    }

    /// Moves what the vendor has at `path` out of the way.
    fn put_beside(&mut self, path: &Path) -> Result<(), InstallError> {
        let from = self.new.join(path);
        let to = dot_new(&from);
        self.done.conflicts.insert(path.to_owned());
        let mut cleared = prepare::cleared(self.new)?;
        cleared.insert(path.to_owned());
        durable::write(&prepare::cleared_file(self.new), serde_json::json!(cleared).to_string().as_bytes())?;
        durable::remove_any(&to)?;
        fs::rename(&from, &to).at("rename", &from)
    }

    fn place_vendors(&mut self, path: &Path, keep: &Keep) -> Result<(), InstallError> {
        let from = prepare::vendor(self.new).join(path);
        let to = match place(&from, self.old, self.new, path, keep)? {
            Place::Nowhere => return Ok(()),
            Place::Itself => self.new.join(path),
            Place::Beside { kept, file } => {
                self.done.conflicts.insert(kept);
                self.new.join(file)
            }
        };
        fs::create_dir_all(parent(&to)).at("create", parent(&to))?;
        let about = fs::symlink_metadata(&from).at("look at", &from)?;
        tree::copy_entry(&from, &about, &to, &to, &mut Links::new())?;
        self.touched.insert(to);
        Ok(())
    }

    fn make_durable(&self) -> Result<(), InstallError> {
        if self.touched.len() > FSYNC_EACH_MAX {
            return durable::sync_file_system(self.new);
        }
        let mut dirs = BTreeSet::from([self.new]);
        for path in &self.touched {
            dirs.insert(parent(path));
            match tree::look(path)? {
                Some(about) if about.is_file() || about.is_dir() => {
                    tree::open_file(path)?.sync_all().at("fsync", path)?
                }
                // A link or a pipe is durable with the directory that names it.
                _ => {}
            }
        }
        dirs.into_iter().try_for_each(durable::fsync_dir)
    }
}

/// Decides where the vendor's file `from`, meant for the kept path `path`, goes in a tree that holds what is kept already.
fn place(from: &Path, old: &Path, new: &Path, path: &Path, keep: &Keep) -> Result<Place, InstallError> {
    if let Some(root) = keep.data_root(path)
        && durable::exists(&old.join(root))?
    {
        return Ok(Place::Nowhere);
    }
    let mut prefixes: Vec<&Path> = path.ancestors().filter(|prefix| !prefix.as_os_str().is_empty()).collect();
    prefixes.reverse();
    for prefix in prefixes {
        let Some(about) = tree::look(&new.join(prefix))? else { return Ok(Place::Itself) };
        if prefix == path {
            if tree::same_content(from, &new.join(path))? {
                return Ok(Place::Nowhere);
            }
            return Ok(Place::Beside { kept: path.to_owned(), file: dot_new(path) });
        }
        if !about.is_dir() {
            // A kept link or file where the vendor has a directory; never write through a link.
            let rest = path.strip_prefix(prefix).unwrap_or(path);
            return Ok(Place::Beside { kept: prefix.to_owned(), file: dot_new(prefix).join(rest) });
        }
    }
    Ok(Place::Itself)
}
