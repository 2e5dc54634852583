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
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use crate::files::dirs::make_public;
use crate::files::staged::state_dir;
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
use crate::install::tree::Held;
use crate::install::work::Maker;
use crate::install::work::Spot;

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
    old: &'a Anchor,
    new: &'a Path,
    new_root: &'a Anchor,
    maker: Maker,
    /// The directory that was used last, in both trees.
    held: Option<(PathBuf, Anchor, Anchor)>,
    done: Carried,
    /// Directories whose attributes follow at the end, parents first.
    dirs: Vec<PathBuf>,
    touched: Touched,
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
    let (old_root, new_root) = (hold(old)?, hold(new)?);
    // What is ours of this swap lies beside the tree, on the same file system, where root alone can change it.
    let side = hold(&state_dir(new))?;
    let mut maker = Maker::new(side);
    maker.set_root(&new_root)?;
    let mut carry = Carry {
        old: &old_root,
        new,
        new_root: &new_root,
        maker,
        held: None,
        done: Carried { conflicts: prepare::cleared(new)?, ..Carried::default() },
        dirs: Vec::new(),
        touched: Touched::default(),
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
        carry.place_vendors(old, path, &files, keep)?;
    }
    let dirs = std::mem::take(&mut carry.dirs);
    for dir in dirs.iter().rev() {
        carry.match_dir(dir)?;
    }
    carry.touched.sync()?;
    Ok((carry.done, carry.noted))
}

fn gone() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn hold(tree: &Path) -> Result<Anchor, InstallError> {
    Anchor::follow(tree)?.ok_or_else(gone).at("open", tree)
}

/// The directory of a path within a tree.
fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Carry<'_> {
    /// The directory of a path, in the old tree and in the new one. Neither is reached over a link.
    fn dir_of(&mut self, path: &Path) -> Result<&(PathBuf, Anchor, Anchor), InstallError> {
        let dir = parent_of(path);
        let held = match self.held.take() {
            Some(held) if held.0 == dir => held,
            _ => {
                let old = self.old.below(dir)?.ok_or_else(gone).at("open", &self.old.entry(dir.as_os_str()))?;
                (dir.to_owned(), old, self.new_dir(dir)?)
            }
        };
        Ok(self.held.insert(held))
    }

    fn new_dir(&self, dir: &Path) -> Result<Anchor, InstallError> {
        self.new_root.below(dir)?.ok_or_else(gone).at("open", &self.new.join(dir))
    }

    /// Makes a copy of what `about` says is at `from`, at a path of the new tree.
    fn copy(&mut self, from: &Path, about: &Metadata, path: &Path, dir: &Anchor) -> Result<(), InstallError> {
        let spot = Spot { dir, name: path.file_name().unwrap_or_default(), path };
        let made = self.maker.copy(from, about, spot)?;
        self.done.copied_bytes += made.bytes;
        self.touched.made(made.held, dir)
    }

    /// Notes that a name in a directory of the new tree changed.
    fn touch(&mut self, path: &Path) -> Result<(), InstallError> {
        match self.new_root.below(parent_of(path))? {
            Some(dir) => self.touched.dir(&dir),
            None => Ok(()),
        }
    }

    /// Gives a directory of the new tree the attributes it has in the old one.
    fn match_dir(&mut self, dir: &Path) -> Result<(), InstallError> {
        let Some(from) = self.old.below(dir)? else {
            let path = self.old.entry(dir.as_os_str());
            return if self.live { Ok(()) } else { Err(gone()).at("look at", &path) };
        };
        let to = self.new_dir(dir)?;
        if Held::dir(&from)?.match_attributes(&from.path(), &Held::dir(&to)?, &to.path())? {
            self.touched.dir(&to)?;
        }
        Ok(())
    }

    /// Makes a directory of the new tree unless there is one.
    fn make_dir(&mut self, path: &Path) -> Result<(), InstallError> {
        let at = self.new.join(path);
        match tree::look(&at)? {
            Some(about) if about.is_dir() => return Ok(()),
            Some(_) => durable::remove_any(&at)?,
            None => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&at).at("create", &at)?;
        self.touch(path)
    }

    /// Removes what was carried over before and is not in the old tree. The vendor's places are looked at later.
    fn remove_others(&mut self, files: &HashSet<&Path>, vendors: &[PathBuf], keep: &Keep) -> Result<(), InstallError> {
        let places: HashSet<PathBuf> = vendors.iter().flat_map(|path| [path.clone(), dot_new(path)]).collect();
        for kept in keep.walk(self.new)? {
            let stays = files.contains(kept.path.as_path()) || places.contains(&kept.path);
            if !kept.about.is_dir() && !stays {
                let path = self.new.join(&kept.path);
                durable::remove_file(&path)?;
                self.touch(&kept.path)?;
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
            self.make_dir(&kept.path)?;
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
        let name = kept.path.file_name().unwrap_or_default();
        let from = self.dir_of(&kept.path)?.1.entry(name);
        let held = self.held.take();
        if let Some((_, _, dir)) = &held {
            self.copy(&from, &kept.about, &kept.path, dir)?;
        }
        self.held = held;
        self.noted.insert(kept.path.clone(), self.trust.stamp(&kept.about));
        Ok(())
    }

    /// Whether a kept entry is gone or another by now, while people work.
    fn vanished(&self, kept: &Kept) -> bool {
        let now = || {
            let dir = self.old.below(parent_of(&kept.path))?;
            let look = |dir: Anchor| tree::look(&dir.entry(kept.path.file_name().unwrap_or_default()));
            Ok::<_, InstallError>(dir.map(look).transpose()?.flatten())
        };
        self.live && now().is_ok_and(|now| now.is_none_or(|now| now.ino() != kept.about.ino()))
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
            self.make_dir(dir)?;
            self.dirs.push(dir.to_owned());
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
    fn place_vendors(
        &mut self,
        old: &Path,
        path: &Path,
        files: &HashSet<&Path>,
        keep: &Keep,
    ) -> Result<(), InstallError> {
        let from = prepare::vendor(self.new).join(path);
        let place = place(&from, old, self.new, path, files, keep)?;
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
                self.touch(&stale)?;
            }
        }
        let to = match place {
            Place::Nowhere => return Ok(()),
            Place::Itself => path.to_owned(),
            Place::Beside { kept, file } => {
                self.done.conflicts.insert(kept);
                file
            }
        };
        let at = self.new.join(&to);
        if durable::exists(&at)? && tree::same_content(&from, &at)? {
            return Ok(());
        }
        make_public(parent(&at)).at("create", parent(&at))?;
        let about = fs::symlink_metadata(&from).at("look at", &from)?;
        let (dir, bytes) = (self.new_dir(parent_of(&to))?, self.done.copied_bytes);
        self.copy(&from, &about, &to, &dir)?;
        // What is the vendor's was not carried over.
        self.done.copied_bytes = bytes;
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
