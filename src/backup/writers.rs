//! Who has a dump open for writing on this machine: until that process is done, it is no backup, however long it pauses.

use std::collections::HashMap;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::StatxFlags;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::exec::openers;

/// Looking takes no longer, or it is not known.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// Who writes to some files.
#[derive(Debug, Default)]
pub(super) struct Writers {
    by: HashMap<FileId, String>,
    /// Whether every process of this machine was seen.
    pub(super) is_known: bool,
}

impl Writers {
    /// Who writes to one of `files`.
    pub(super) async fn of(files: HashSet<FileId>) -> Self {
        if files.is_empty() {
            return Self { is_known: true, ..Self::default() };
        }
        match timeout(LOOK_MAX, spawn_blocking(move || look(&files))).await {
            Ok(Ok(looked)) => looked,
            Ok(Err(_)) | Err(_) => Self::default(),
        }
    }

    /// Who writes to one of these, in words.
    pub(super) fn to(&self, files: &[FileId]) -> Option<&str> {
        files.iter().find_map(|file| self.by.get(file)).map(String::as_str)
    }
}

fn look(files: &HashSet<FileId>) -> Writers {
    let pids = openers::processes();
    let mut writers = Writers { is_known: !pids.is_empty(), ..Writers::default() };
    let mut files_left = openers::FILES_MAX;
    for pid in pids {
        let mut met = Vec::new();
        let written = openers::written_by(pid, &mut files_left, |path, itself| {
            // What has no path is a pipe or a socket.
            let id = if path.is_absolute() { id(itself) } else { None };
            id.filter(|id| files.contains(id)).is_some_and(|id| {
                met.push(id);
                true
            })
        });
        match written {
            // Of several that it has open it may only read some; then it is at work on them all the same.
            Ok(written) if !written.is_empty() => {
                let by = format!("{} (process {pid})", openers::name(pid));
                writers.by.extend(met.into_iter().map(|id| (id, by.clone())));
            }
            Ok(_) => {}
            Err(_) => writers.is_known = false,
        }
    }
    writers.is_known &= files_left > 0;
    writers
}

/// What an open file is. No server of a network file system is asked, which may be away.
fn id(open: &Path) -> Option<FileId> {
    let about = rustix::fs::statx(CWD, open, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    Some((rustix::fs::makedev(about.stx_dev_major, about.stx_dev_minor), about.stx_ino))
}
