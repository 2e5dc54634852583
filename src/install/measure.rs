//! How much there is of something, and what in it would be in the way.

use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Statx;
use rustix::fs::StatxFlags;
use rustix::io::Errno;

use crate::install::anchor;
use crate::install::marks;
use crate::install::scope::Scope;
use crate::install::walk::Met;
use crate::install::walk::Several;
use crate::install::walk::kind;
use crate::install::walk::walk;

/// An amount of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Amount {
    /// Entries of any kind.
    pub(super) entries: u64,
    /// The sum of the files' sizes.
    pub(super) bytes: u64,
    /// What they take on the disk; less than their sizes when they have holes.
    pub(super) disk_bytes: u64,
    /// What could not be looked at.
    pub(super) unreadable: Several,
    /// What not even root can change.
    pub(super) marked: Several,
    /// Directories so deep that they are not entered.
    pub(super) deep: Several,
}

/// Measures what belongs to the data at `root`, as far as it can be read.
pub(super) fn measure(root: &Path, scope: &Scope) -> Amount {
    let mut amount = Amount::default();
    let shown = anchor::shown(root);
    match rustix::fs::statx(CWD, root, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
        Ok(about) => amount.see(&about, || shown.clone()),
        Err(Errno::NOENT | Errno::NOTDIR) => return amount,
        Err(_) => {
            amount.unreadable.note(shown);
            return amount;
        }
    }
    walk(root, scope, &mut |path, met| {
        let whole = || if path.as_os_str().is_empty() { shown.clone() } else { shown.join(path) };
        match met {
            Met::Entry(_, _, about) => amount.see(about, whole),
            Met::Unreadable => amount.unreadable.note(whole()),
            Met::TooDeep => amount.deep.note(whole()),
        }
    });
    amount
}

impl Amount {
    fn see(&mut self, about: &Statx, path: impl FnOnce() -> std::path::PathBuf) {
        self.entries += 1;
        if kind(about) == FileType::RegularFile {
            self.bytes += about.stx_size;
            self.disk_bytes += about.stx_blocks * 512;
        }
        if marks::has(about) {
            self.marked.note(path());
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.entries += more.entries;
        self.bytes += more.bytes;
        self.disk_bytes += more.disk_bytes;
        self.unreadable.add(more.unreadable);
        self.marked.add(more.marked);
        self.deep.add(more.deep);
    }
}
