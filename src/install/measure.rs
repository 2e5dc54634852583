//! How much there is of something.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use walkdir::WalkDir;

use crate::install::scope::Belongs;
use crate::install::scope::Scope;

/// An amount of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    /// Entries of any kind.
    pub(super) entries: u64,
    /// The sum of the files' sizes.
    pub(super) bytes: u64,
    /// What they take on the disk; less than their sizes when they have holes.
    pub(super) disk_bytes: u64,
    /// Entries that could not be looked at.
    pub(super) unreadable: u64,
}

/// Measures what belongs to the data at `root`, as far as it can be read.
pub(super) fn measure(root: &Path, scope: &Scope) -> Amount {
    let mut amount = Amount::default();
    let mut entries = WalkDir::new(root).into_iter();
    while let Some(entry) = entries.next() {
        let Ok(entry) = entry else {
            amount.unreadable += 1;
            continue;
        };
        let Ok(about) = entry.metadata() else {
            amount.unreadable += 1;
            continue;
        };
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        if !path.as_os_str().is_empty() && scope.of(path, &about) == Belongs::No {
            if about.is_dir() {
                entries.skip_current_dir();
            }
            continue;
        }
        amount.entries += 1;
        if about.is_file() {
            amount.bytes += about.size();
            amount.disk_bytes += about.blocks() * 512;
        }
    }
    amount
}
