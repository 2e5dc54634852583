//! The marks that keep even root from changing an entry: append-only and immutable (`chattr +a`, `chattr +i`).
//!
//! No copy has them. Data that have one are refused before a run begins, since they could not be put back; so a mark that a restore
//! meets was set by the new version or its migration, and goes with the rest of what these did. In a program tree they hinder
//! no exchange; there, and in what is on its way out, they are left alone and named.

use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::IFlags;
use rustix::fs::Statx;
use rustix::fs::StatxAttributes;
use rustix::fs::StatxFlags;

use crate::install::anchor::Anchor;
use crate::install::scope::Scope;
use crate::install::tree;
use crate::install::walk::Met;
use crate::install::walk::Several;
use crate::install::walk::kind;
use crate::install::walk::walk;

/// Whether an entry has one of the marks, where the file system tells.
pub(super) fn has(about: &Statx) -> bool {
    about.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
}

/// The same by path; no link is followed.
pub(super) fn is_at(path: &Path) -> bool {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).is_ok_and(|about| has(&about))
}

/// What keeps `path` from being changed or removed, if a mark does: its own, or that of the directory it is in.
pub(super) fn in_the_way_of(path: &Path) -> Option<PathBuf> {
    path.ancestors().take(2).find(|path| is_at(path)).map(Path::to_owned)
}

/// What to type, so that these entries, all below `root`, can be changed.
pub(super) fn remedy(marked: &Several, root: &Path) -> String {
    match marked.all() {
        Some(all) => format!("chattr -i -a {}", all.iter().map(|path| word(path)).collect::<Vec<_>>().join(" ")),
        None => format!("chattr -R -i -a {}", word(root)),
    }
}

/// A path as one word for a shell.
pub(super) fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Takes the marks off what belongs to the data at `root`; how many there were. What has several names may be elsewhere, too, and
/// is left alone.
pub(super) fn take_off(root: &Path, scope: &Scope) -> u64 {
    let mut count = 0;
    if let Ok(Some(top)) = Anchor::open(root) {
        count += u64::from(is_at(root) && take_off_one(top.file()));
    } else if is_at(root)
        && let Ok(file) = tree::open_file(root)
    {
        count += u64::from(take_off_one(&file));
    }
    walk(root, scope, &mut |path, met| {
        let Met::Entry(dir, name, about) = met else { return };
        if !has(about) {
            return;
        }
        let done = match kind(about) {
            FileType::Directory => dir.child(name).ok().flatten().is_some_and(|dir| take_off_one(dir.file())),
            FileType::RegularFile if about.stx_nlink == 1 => {
                tree::open_file(&dir.entry(name)).is_ok_and(|file| take_off_one(&file))
            }
            _ => false,
        };
        if done {
            tracing::warn!(path = %path.display(), "a mark that keeps it from being put back was taken off");
        }
        count += u64::from(done);
    });
    count
}

fn take_off_one(file: &std::fs::File) -> bool {
    let Ok(flags) = rustix::fs::ioctl_getflags(file) else { return false };
    rustix::fs::ioctl_setflags(file, flags.difference(IFlags::APPEND | IFlags::IMMUTABLE)).is_ok()
}
