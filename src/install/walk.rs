//! Walks a tree by directories that are held open, so that no path is too long to be looked at.
//!
//! Deliberately absent: going deeper than [`DEPTH_MAX`]. Each level costs descriptors and stack, and whoever owns the tree says how
//! many there are.

use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Statx;
use rustix::fs::StatxFlags;
use rustix::io::Errno;

use crate::install::anchor::Anchor;
use crate::install::scope::Belongs;
use crate::install::scope::Scope;
use crate::install::tree;

/// No directory further below the root is entered.
pub(super) const DEPTH_MAX: usize = 256;

/// What a walk meets.
pub(super) enum Met<'a> {
    /// An entry: the directory that holds it, its name there, and what is known of it. A directory comes before its content.
    Entry(&'a Anchor, &'a OsStr, &'a Statx),
    /// Something that could not be looked at.
    Unreadable,
    /// A directory that is too deep to be entered.
    TooDeep,
}

/// Tells of everything below `root` that belongs to the data; paths are relative to it. What vanishes meanwhile is none.
pub(super) fn walk(root: &Path, scope: &Scope, met: &mut dyn FnMut(&Path, Met<'_>)) {
    match Anchor::open(root) {
        Ok(Some(dir)) => below(&dir, Path::new(""), scope, met),
        Ok(None) => {}
        Err(_) => met(Path::new(""), Met::Unreadable),
    }
}

fn below(dir: &Anchor, at: &Path, scope: &Scope, met: &mut dyn FnMut(&Path, Met<'_>)) {
    let Ok(names) = tree::names(&dir.path()) else { return met(at, Met::Unreadable) };
    for name in names {
        let path = at.join(&name);
        let about = match look(dir, &name) {
            Ok(about) => about,
            Err(Errno::NOENT) => continue,
            Err(_) => {
                met(&path, Met::Unreadable);
                continue;
            }
        };
        let kind = kind(&about);
        if scope.of_kind(&path, kind == FileType::Directory, kind == FileType::Socket) == Belongs::No {
            continue;
        }
        met(&path, Met::Entry(dir, &name, &about));
        if kind != FileType::Directory {
            continue;
        }
        if is_too_deep(&path) {
            met(&path, Met::TooDeep);
            continue;
        }
        match dir.child(&name) {
            Ok(Some(inner)) => below(&inner, &path, scope, met),
            // Another entry took its place.
            Ok(None) => {}
            Err(_) => met(&path, Met::Unreadable),
        }
    }
}

/// Whether a directory is further below the root than is followed.
pub(super) fn is_too_deep(path: &Path) -> bool {
    path.components().count() > DEPTH_MAX
}

/// What is known of the entry `name` of `dir`, with the marks that the plain calls do not tell.
pub(super) fn look(dir: &Anchor, name: &OsStr) -> Result<Statx, Errno> {
    rustix::fs::statx(dir.file(), name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
}

/// What an entry is.
pub(super) fn kind(about: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(about.stx_mode))
}

/// Entries that have something in common: how many there are, and the first few by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Several {
    pub(super) count: u64,
    first: Vec<PathBuf>,
}

impl Several {
    /// So many are named.
    const NAMED_MAX: usize = 3;
    /// A longer path is cut in text.
    const SHOWN_BYTES_MAX: usize = 300;

    pub(super) fn note(&mut self, path: PathBuf) {
        self.count += 1;
        if self.first.len() < Self::NAMED_MAX {
            self.first.push(path);
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        let named = more.first.len() as u64;
        more.first.into_iter().for_each(|path| self.note(path));
        self.count += more.count - named;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Those that are named, when they are all there are.
    pub(super) fn all(&self) -> Option<&[PathBuf]> {
        (self.first.len() as u64 == self.count).then_some(self.first.as_slice())
    }

    /// `/a, /b, /c and 4 more`.
    pub(super) fn told(&self) -> String {
        let named: Vec<String> = self.first.iter().map(|path| Self::shown(path)).collect();
        let named = named.join(", ");
        match self.count - self.first.len() as u64 {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }

    /// A path as people can read it: of a very long one the part that leads there.
    fn shown(path: &Path) -> String {
        let whole = path.display().to_string();
        if whole.len() <= Self::SHOWN_BYTES_MAX {
            return whole;
        }
        let short = path.ancestors().find(|above| above.as_os_str().len() <= Self::SHOWN_BYTES_MAX);
        format!("{}/… ({} bytes)", short.unwrap_or(path).display(), path.as_os_str().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_are_named_and_the_others_counted() {
        let mut several = Several::default();
        for name in ["/a", "/b"] {
            several.note(name.into());
        }
        assert_eq!((several.told().as_str(), several.all().map(<[_]>::len)), ("/a, /b", Some(2)));
        let mut more = Several::default();
        (0..5).for_each(|number| more.note(format!("/{number}").into()));
        several.add(more);
        assert_eq!((several.told().as_str(), several.count, several.all()), ("/a, /b, /0 and 4 more", 7, None));
        let long = PathBuf::from(format!("/data/{}/{}", "a".repeat(200), "b".repeat(200)));
        assert_eq!(Several::shown(&long), format!("/data/{}/… (407 bytes)", "a".repeat(200)));
    }
}
