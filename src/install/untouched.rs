//! Whether the files of a prepared tree are still those that were compared: a look at each, without reading one.
//!
//! Hashes are compared before a tree is prepared ([`prepare`](super::prepare)), while people work. Between that and the swap
//! they are told, reminded and logged out, and nobody but root gets to the tree. So at the swap, where every moment is
//! downtime, it is enough to ask the file system: another content, another file or another name has another size, time or
//! number. It is asked beside the work that waits for the disk anyhow ([`carry`](super::carry)), by several threads.
//! What differs is read after all: a backup program that resets times has changed nothing.
//!
//! Deliberately absent: directories, which carrying over changes, and names that were not there. Who could add one is root.

use std::fs;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::thread::Builder;
use std::thread::ScopedJoinHandle;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use walkdir::WalkDir;

use crate::files::staged;
use crate::files::staged::state_dir;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::prepare;

/// More threads than this gain nothing.
const THREADS_MAX: usize = 4;
/// So few files are not worth a thread.
const FILES_EACH_MIN: usize = 256;

fn file(tree: &Path) -> PathBuf {
    state_dir(tree).join("stats")
}

/// Whether it is known what the files of `tree` looked like.
pub(super) fn is_recorded(tree: &Path) -> Result<bool, InstallError> {
    durable::exists(&file(tree))
}

/// Notes what every file of a prepared tree looks like.
pub(super) fn record(tree: &Path) -> Result<(), InstallError> {
    let root = open(tree)?;
    let mut text = Vec::new();
    for entry in WalkDir::new(tree).min_depth(1) {
        let entry = entry.map_err(std::io::Error::from).at("list", tree)?;
        if entry.file_type().is_dir() {
            continue;
        }
        let path = entry.path().strip_prefix(tree).unwrap_or(entry.path());
        let about = look(&root, path).at("look at", entry.path())?;
        text.extend_from_slice(told(&about).as_bytes());
        text.extend_from_slice(path.as_os_str().as_bytes());
        text.push(0);
    }
    durable::write(&file(tree), &text)
}

fn open(tree: &Path) -> Result<OwnedFd, InstallError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, tree, flags, Mode::empty()).at("open", tree)
}

fn look(root: &OwnedFd, path: &Path) -> rustix::io::Result<Stat> {
    rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW)
}

/// What changes with a file. It ends with a space, and the path follows.
fn told(about: &Stat) -> String {
    let Stat { st_ino, st_size, st_mtime, st_mtime_nsec, st_ctime, st_ctime_nsec, .. } = about;
    format!("{st_ino} {st_size} {st_mtime} {st_mtime_nsec} {st_ctime} {st_ctime_nsec} ")
}

/// [`moved`], beside `work`.
pub(super) fn moved_meanwhile<T>(tree: &Path, work: impl FnOnce() -> T) -> (Result<Vec<PathBuf>, InstallError>, T) {
    let look = || moved(tree);
    std::thread::scope(|scope| {
        let looks = Builder::new().spawn_scoped(scope, look);
        let done = work();
        // Where there is no thread to be had, it is done afterwards.
        (looks.map_or_else(|_| look(), answer), done)
    })
}

/// The files of `tree` that do not look any more as they did. Only looked at.
fn moved(tree: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let text = fs::read(file(tree)).at("read", &file(tree))?;
    let root = open(tree)?;
    let lines: Vec<&[u8]> = text.split(|byte| *byte == 0).filter(|line| !line.is_empty()).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    let each = lines.len().div_ceil(threads).max(FILES_EACH_MIN);
    Ok(std::thread::scope(|scope| {
        let root = &root;
        let look = |some| Builder::new().spawn_scoped(scope, move || differing(root, some)).map_err(|_| some);
        let looks: Vec<_> = lines.chunks(each).map(look).collect();
        looks.into_iter().flat_map(|look| look.map_or_else(|some| differing(root, some), answer)).collect()
    }))
}

fn answer<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn differing(root: &OwnedFd, lines: &[&[u8]]) -> Vec<PathBuf> {
    let is_same = |line: &&&[u8]| match path_in(line) {
        Some(path) => look(root, path).is_ok_and(|about| line.starts_with(told(&about).as_bytes())),
        None => false,
    };
    let lines = lines.iter().filter(|line| !is_same(line));
    lines.map(|line| path_in(line).unwrap_or(Path::new("")).to_owned()).collect()
}

/// The path at the end of a line.
fn path_in(line: &[u8]) -> Option<&Path> {
    let path = line.splitn(7, |byte| *byte == b' ').nth(6)?;
    Some(Path::new(std::ffi::OsStr::from_bytes(path)))
}

/// Refuses a tree of whose `moved` files one is not as it was staged. What was moved aside by us, because something else is
/// kept in its place, is not asked.
pub(super) fn judge(tree: &Path, moved: Vec<PathBuf>) -> Result<(), InstallError> {
    if moved.is_empty() {
        return Ok(());
    }
    let cleared = prepare::cleared(tree)?;
    let is_ours = |path: &PathBuf| cleared.iter().any(|kept| path.starts_with(kept));
    let moved: Vec<PathBuf> = moved.into_iter().filter(|path| !is_ours(path)).collect();
    match staged::first_altered(tree, tree, &moved).at("compare", tree)? {
        Some(what) => Err(prepare::altered(tree, what)?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::time::SystemTime;

    use super::*;
    use crate::domain::release::Marker;

    fn scene() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("2.0+20");
        fs_err::create_dir_all(tree.join("a b")).unwrap();
        for n in 0..600 {
            fs_err::write(tree.join(format!("a b/{n}")), format!("content {n}")).unwrap();
        }
        std::os::unix::fs::symlink("a b/7", tree.join("link")).unwrap();
        staged::seal(&tree, &tree, &Marker::from_text("{\"version\":\"2.0\",\"build\":20}").unwrap()).unwrap();
        record(&tree).unwrap();
        (dir, tree)
    }

    fn verify(tree: &Path) -> Result<(), InstallError> {
        judge(tree, moved(tree)?)
    }

    type Change = fn(&Path);

    #[test]
    fn a_file_that_is_another_now_is_found() {
        let changes: [(&str, Change); 4] = [
            // As long as before, and as old.
            ("a b/7", |tree| {
                let path = tree.join("a b/7");
                let before = fs_err::metadata(&path).unwrap().modified().unwrap();
                fs_err::write(&path, "CONTENT 7").unwrap();
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_times(FileTimes::new().set_modified(before)).unwrap();
            }),
            ("a b/599", |tree| fs_err::remove_file(tree.join("a b/599")).unwrap()),
            ("a b/8", |tree| {
                fs_err::write(tree.join("other"), "CONTENT 8").unwrap();
                fs_err::rename(tree.join("other"), tree.join("a b/8")).unwrap();
            }),
            ("link", |tree| {
                fs_err::remove_file(tree.join("link")).unwrap();
                std::os::unix::fs::symlink("a b/8", tree.join("link")).unwrap();
            }),
        ];
        for (what, change) in changes {
            let (_dir, tree) = scene();
            verify(&tree).unwrap();
            change(&tree);
            let error = verify(&tree).unwrap_err();
            assert!(matches!(&error, InstallError::Altered { what: found, .. } if found == Path::new(what)), "{error}");
            assert!(staged::is_spoilt(&tree).unwrap());
        }
    }

    #[test]
    fn times_that_somebody_has_set_change_nothing() {
        let (_dir, tree) = scene();
        let file = fs::File::options().write(true).open(tree.join("a b/7")).unwrap();
        file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
        assert_eq!(moved(&tree).unwrap(), [PathBuf::from("a b/7")]);
        verify(&tree).unwrap();
    }
}
