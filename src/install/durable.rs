//! The few operations that must survive a power cut: write, rename, remove, each with its fsync.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::RenameFlags;

use crate::install::anchor::Anchor;
use crate::install::anchor::held_path;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::layout::parent;
use crate::install::tree::Held;

/// More changes than this are made durable together with their file system.
const FSYNC_EACH_MAX: usize = 32;

/// Makes the names in `dir` durable.
pub(super) fn fsync_dir(dir: &Path) -> Result<(), InstallError> {
    File::open(dir).and_then(|dir| dir.sync_all()).at("fsync", dir)
}

/// Makes everything on the file system of `path` durable.
pub(super) fn sync_file_system(path: &Path) -> Result<(), InstallError> {
    let file = File::open(path).at("open", path)?;
    rustix::fs::syncfs(&file).at("sync the file system of", path)
}

/// Writes a whole file or none: beside it, fsynced, renamed, and the directory fsynced.
pub(super) fn write(path: &Path, text: &[u8]) -> Result<(), InstallError> {
    let temporary = path.with_extension("tmp");
    // A left-over of a crash must not lend us its mode or its links.
    remove_file(&temporary)?;
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).at("create", &temporary)?;
    file.write_all(text).at("write", &temporary)?;
    file.sync_all().at("fsync", &temporary)?;
    rename(&temporary, path)
}

/// Renames, over whatever file is there, and fsyncs both directories.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), InstallError> {
    fs::rename(from, to).at("rename", from)?;
    fsync_dir(parent(to))?;
    if parent(from) != parent(to) {
        fsync_dir(parent(from))?;
    }
    Ok(())
}

/// Renames to a name that must be free, and fsyncs both directories.
pub(super) fn rename_free(from: &Path, to: &Path) -> Result<(), InstallError> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        // Not every file system has the flag; the check is then our own.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !exists(to)? => {
            fs::rename(from, to).at("rename", from)?
        }
        Err(error) => return Err(error).at("rename", from),
    }
    fsync_dir(parent(to))?;
    if parent(from) != parent(to) {
        fsync_dir(parent(from))?;
    }
    Ok(())
}

/// Makes a directory only we can look into, with its parents, and makes it durable. It may exist.
pub(super) fn create_dir(dir: &Path) -> Result<(), InstallError> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = parent(dir);
    if above != dir && !above.is_dir() {
        create_dir(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.at("create", dir)?,
    }
    fsync_dir(above)
}

/// What changed and is to be made durable together, held open: by then a name may lead elsewhere.
#[derive(Debug, Default)]
pub(super) struct Touched {
    files: Vec<File>,
    /// By device and inode.
    dirs: BTreeMap<(u64, u64), File>,
    /// One of each file system, by device.
    systems: BTreeMap<u64, File>,
    too_many: bool,
}

impl Touched {
    /// Notes a file that was made, and the directory that names it.
    pub(super) fn made(&mut self, made: Held, dir: &Anchor) -> Result<(), InstallError> {
        // A link or a pipe is durable with the directory that names it, and so is that something is gone.
        if let Some(file) = made.into_file().filter(|_| !self.too_many) {
            self.files.push(file);
        }
        self.dir(dir)
    }

    /// Notes a directory of which a name or an attribute changed.
    pub(super) fn dir(&mut self, dir: &Anchor) -> Result<(), InstallError> {
        let about = dir.about()?;
        let held = || dir.file().try_clone().at("open", &dir.path());
        if let Entry::Vacant(place) = self.systems.entry(about.dev()) {
            place.insert(held()?);
        }
        if !self.too_many && !self.dirs.contains_key(&(about.dev(), about.ino())) {
            self.dirs.insert((about.dev(), about.ino()), held()?);
        }
        if self.files.len() > FSYNC_EACH_MAX || self.dirs.len() > FSYNC_EACH_MAX {
            self.too_many = true;
            self.files.clear();
            self.dirs.clear();
        }
        Ok(())
    }

    /// Makes all of it durable: one by one when they are few, because other programs may have much to write on the same file
    /// systems; else together with everything there.
    pub(super) fn sync(self) -> Result<(), InstallError> {
        if self.too_many {
            let system = |file: &File| rustix::fs::syncfs(file).at("sync the file system of", &held_path(file));
            return self.systems.values().try_for_each(system);
        }
        let mut all = self.files.iter().chain(self.dirs.values());
        all.try_for_each(|file| file.sync_all().at("fsync", &held_path(file)))
    }
}

/// Whether there is anything by this name, a dangling link included.
pub(super) fn exists(path: &Path) -> Result<bool, InstallError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error).at("look at", path),
    }
}

/// Whether an error says that there is nothing by a name.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Removes a file; it may be gone already.
pub(super) fn remove_file(path: &Path) -> Result<(), InstallError> {
    match fs::remove_file(path) {
        Err(error) if is_absent(&error) => Ok(()),
        removed => removed.at("remove", path),
    }
}

/// Removes a file and makes that durable; it may be gone already.
pub(super) fn remove_file_durably(path: &Path) -> Result<(), InstallError> {
    remove_file(path)?;
    if parent(path).is_dir() { fsync_dir(parent(path)) } else { Ok(()) }
}

/// Removes whatever is there, with everything below; it may be gone already.
pub(super) fn remove_any(path: &Path) -> Result<(), InstallError> {
    match fs::symlink_metadata(path) {
        Err(error) if is_absent(&error) => Ok(()),
        Err(error) => Err(error).at("look at", path),
        Ok(about) if about.is_dir() => match fs::remove_dir_all(path) {
            Err(error) if is_absent(&error) => Ok(()),
            removed => removed.at("remove", path),
        },
        Ok(_) => remove_file(path),
    }
}
