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

use crate::files::dirs::make_public;
use crate::install::anchor::Anchor;
use crate::install::durable;
use crate::install::durable::Touched;
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
    touched: Touched,
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
    let trust = Trust::begin(old, new, true)?;
    let noted = cleaning_up(new, keep, pass(old, new, keep, Index::default(), trust, true))?.1;
    noted.write(&prepare::index_file(new))
}

/// Carries over what `keep` says and makes it durable.
pub(super) fn carry(old: &Path, new: &Path, keep: &Keep) -> Result<Carried, InstallError> {
    let index = Index::read(&prepare::index_file(new))?.unwrap_or_default();
    let carried = cleaning_up(new, keep, pass(old, new, keep, index, Trust::NONE, false))?.0;
    // Durable with the report of the swap, which is written into the same folder next.
    durable::remove_file(&prepare::index_file(new))?;
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
        touched: Touched::default(),
        links: Links::new(),
        index,
        noted: Index::default(),
        trust,
        live,
    };
    let wanted = keep.walk(old)?;
    let files: HashSet<&Path> =
        wanted.iter().filter(|kept| !kept.about.is_dir()).map(|kept| kept.path.as_path()).collect();
    let vendors = prepare::vendor_files(new)?;
    carry.remove_others(&files, &vendors, keep)?;
    for kept in &wanted {
        carry.put(kept).or_else(|error| if carry.vanished(kept) { Ok(()) } else { Err(error) })?;
    }
    for path in &vendors {
        carry.place_vendors(path, &files, keep)?;
    }
    for dir in carry.dirs.iter().rev() {
        let from = old.join(dir);
        match tree::look(&from)? {
            None if live => {}
            about => {
                let gone = || io::Error::from(io::ErrorKind::NotFound);
                let about = about.ok_or_else(gone).at("look at", &from)?;
                if tree::match_attributes(&from, &about, &new.join(dir))? {
                    carry.touched.add(&new.join(dir));
                }
            }
        }
    }
    carry.touched.sync(new)?;
    Ok((carry.done, carry.noted))
}

/// The directory of a path within a tree.
fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Carry<'_> {
    /// Removes what was carried over before and is not in the old tree. The vendor's places are looked at later.
    fn remove_others(&mut self, files: &HashSet<&Path>, vendors: &[PathBuf], keep: &Keep) -> Result<(), InstallError> {
        let places: HashSet<PathBuf> = vendors.iter().flat_map(|path| [path.clone(), dot_new(path)]).collect();
        for kept in keep.walk(self.new)? {
            let stays = files.contains(kept.path.as_path()) || places.contains(&kept.path);
            if !kept.about.is_dir() && !stays {
                let path = self.new.join(&kept.path);
                durable::remove_file(&path)?;
                self.touched.add(&path);
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
            if tree::make_dir(&to)? {
                self.touched.add(&to);
            }
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
        self.touched.add(&to);
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
            self.touched.add(&self.new.join(dir));
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

    /// Puts the vendor's version of a kept path where it belongs, and nowhere else.
    fn place_vendors(&mut self, path: &Path, files: &HashSet<&Path>, keep: &Keep) -> Result<(), InstallError> {
        let from = prepare::vendor(self.new).join(path);
        let place = place(&from, self.old, self.new, path, files, keep)?;
        // Below a kept link the names are somebody else's.
        let is_ours = !path.ancestors().skip(1).any(|above| files.contains(above));
        for stale in [path.to_owned(), dot_new(path)].into_iter().filter(|_| is_ours) {
            let is_place = match &place {
                Place::Nowhere => false,
                Place::Itself => stale == path,
                Place::Beside { file, .. } => stale == *file,
            };
            // Of an earlier pass, when the old tree was another.
            let at = self.new.join(&stale);
            if !is_place && !files.contains(stale.as_path()) && tree::look(&at)?.is_some_and(|about| !about.is_dir()) {
                durable::remove_file(&at)?;
                self.touched.add(&at);
            }
        }
        let to = match place {
            Place::Nowhere => return Ok(()),
            Place::Itself => self.new.join(path),
            Place::Beside { kept, file } => {
                self.done.conflicts.insert(kept);
                self.new.join(file)
            }
        };
        if durable::exists(&to)? && tree::same_content(&from, &to)? {
            return Ok(());
        }
        make_public(parent(&to)).at("create", parent(&to))?;
        let about = fs::symlink_metadata(&from).at("look at", &from)?;
        tree::copy_entry(&from, &about, &to, &to, &mut Links::new())?;
        self.touched.add(&to);
        Ok(())
    }
}

/// Decides where the vendor's file `from`, meant for the kept path `path`, goes in a tree that holds the kept `files` already.
fn place(
    from: &Path,
    old: &Path,
    new: &Path,
    path: &Path,
    files: &HashSet<&Path>,
    keep: &Keep,
) -> Result<Place, InstallError> {
    if let Some(root) = keep.data_root(path)
        && durable::exists(&old.join(root))?
    {
        return Ok(Place::Nowhere);
    }
    let mut prefixes: Vec<&Path> = path.ancestors().filter(|prefix| !prefix.as_os_str().is_empty()).collect();
    prefixes.reverse();
    for prefix in prefixes {
        let is_path = prefix == path;
        if files.contains(prefix) && !is_path {
            // A kept link or file where the vendor has a directory; never write through a link.
            let rest = path.strip_prefix(prefix).unwrap_or(path);
            return Ok(Place::Beside { kept: prefix.to_owned(), file: dot_new(prefix).join(rest) });
        }
        if files.contains(prefix) && tree::same_content(from, &new.join(path))? {
            return Ok(Place::Nowhere);
        }
        let is_dir = || Ok::<_, InstallError>(tree::look(&new.join(path))?.is_some_and(|about| about.is_dir()));
        if is_path && (files.contains(prefix) || is_dir()?) {
            return Ok(Place::Beside { kept: path.to_owned(), file: dot_new(path) });
        }
    }
    Ok(Place::Itself)
}
