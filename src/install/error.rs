//! What can go wrong with program trees and snapshots.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use thiserror::Error;

use crate::domain::release::ReleaseId;
use crate::domain::run::RunId;
use crate::exec::ExecError;
use crate::files::trusted::Untrusted;
use crate::install::anchor;
use crate::install::marks;
use crate::install::tree;
use crate::install::walk;
use crate::install::walk::DEPTH_MAX;

/// One operation on a program tree or a snapshot that failed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The operating system refused one operation on one path.
    #[error("{op} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no tree to put in place.
    #[error("find release {id} at {}", .path.display())]
    NotStaged {
        /// The release.
        id: ReleaseId,
        /// Where it should be.
        path: PathBuf,
    },
    /// A tree says that it is another release than the one its place is for, or does not say what it is.
    #[error("find release {id} at {}: {}", .path.display(), .found.as_ref().map_or_else(|| "the tree does not say what it is".to_owned(), |found| format!("it holds {found}")))]
    WrongTree {
        /// The release that was looked for.
        id: ReleaseId,
        /// Where.
        path: PathBuf,
        /// What is there.
        found: Option<ReleaseId>,
    },
    /// A tree was in place before, or was found changed, so it is no release any more.
    #[error("take the tree at {} for release {id}: it was in place, or is not as it was staged", .path.display())]
    Spoilt {
        /// The release.
        id: ReleaseId,
        /// Where.
        path: PathBuf,
    },
    /// A staged tree is not as it was staged.
    #[error("find {} as it was staged in {}", .what.display(), .tree.display())]
    Altered {
        /// The tree.
        tree: PathBuf,
        /// What was changed, is missing, or is new.
        what: PathBuf,
    },
    /// The file in a tree that says which release it is is no file that can be read.
    #[error("read {}", .path.display())]
    UnreadMarker {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file in a tree that says which release it is cannot be understood.
    #[error("understand {}", .path.display())]
    BadMarker {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: crate::domain::release::BadMarker,
    },
    /// A file of our own cannot be understood.
    #[error("understand {}", .path.display())]
    BadState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The tree of before the swap is not where it was put.
    #[error("swap back to the version before {id}: {} is gone", .path.display())]
    NoWayBack {
        /// The release in place.
        id: ReleaseId,
        /// Where the old tree should be.
        path: PathBuf,
    },
    /// An interrupted exchange left things as no exchange leaves them.
    #[error("finish the interrupted exchange of {} and {}: found {found}", .install_dir.display(), .staged.display())]
    Tangled {
        /// One of the two.
        install_dir: PathBuf,
        /// The other.
        staged: PathBuf,
        /// Which of the three places hold something.
        found: String,
    },
    /// Another process exchanges the same directories right now.
    #[error("lock {}: another process works on this installation", .path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// Somebody but root can change what we would have to believe.
    #[error("work in {}: others than root can change it", .path.display())]
    Untrusted {
        /// The place.
        path: PathBuf,
        /// What to type.
        remedy: String,
        /// Who can, and where.
        #[source]
        source: Untrusted,
    },
    /// A data path leads over a link that is not root's, so whoever made it chooses whose data are copied and put back.
    #[error("follow {} to the data: only links of root's are followed", .path.display())]
    LeadsElsewhere {
        /// The data path.
        path: PathBuf,
        /// The link and its owner, or why it cannot be known.
        #[source]
        source: Untrusted,
    },
    /// While an exchange was done, another tree came to stand in the installation's place; it was put back.
    #[error("exchange {}: somebody put another tree in its place meanwhile", .path.display())]
    Replaced {
        /// The installation.
        path: PathBuf,
    },
    /// Nothing was copied for this run.
    #[error("find the snapshot of run {run}")]
    NoSnapshot {
        /// The run.
        run: RunId,
    },
    /// The copy was never finished, so nothing may be restored from it.
    #[error("use the snapshot of run {run}: it is not complete")]
    SnapshotIncomplete {
        /// The run.
        run: RunId,
    },
    /// A restore from this snapshot was interrupted, so the data are neither old nor new.
    #[error("take the snapshot of run {run} again: a restore from it was interrupted")]
    RestoreUnfinished {
        /// The run.
        run: RunId,
    },
    /// A part of a snapshot is gone.
    #[error("find {}, the copy of {}", .copy.display(), .data.display())]
    PartMissing {
        /// The copy.
        copy: PathBuf,
        /// What it is a copy of.
        data: PathBuf,
    },
    /// A command of the administrator's own failed.
    #[error("{what} the data with the command of the configuration")]
    Command {
        /// What the command is for, as a verb.
        what: &'static str,
        /// How it failed.
        #[source]
        source: ExecError,
    },
    /// The command that dumps the data ended well but left no dump.
    #[error("find the dump at {}", .path.display())]
    NoDump {
        /// Where `AFTERHOURS_SNAPSHOT` said it should be.
        path: PathBuf,
    },
    /// `owner` names nobody.
    #[error("find the user and group \"{owner}\"")]
    UnknownOwner {
        /// As written.
        owner: String,
    },
    /// A pattern cannot be compiled any more.
    #[error("compile the pattern \"{pattern}\"")]
    BadPattern {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
    /// So many directories are in one another that nobody follows.
    #[error("go into {}: more than {} directories in one another", .path.display(), DEPTH_MAX)]
    TooDeep {
        /// The first that is too deep, within its tree.
        path: PathBuf,
    },
    /// The caller does not wait for it any more.
    #[error("go on: nobody waits for the result any more")]
    Cancelled,
    /// A part of this program broke.
    #[error("work on the installation: a task of this program broke")]
    Broken(#[source] tokio::task::JoinError),
}

impl InstallError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, path, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some(format!("make room on the file system of {}", path.display()))
                }
                io::ErrorKind::PermissionDenied => Some(denied(path, "as the owner of the installation")),
                io::ErrorKind::InvalidFilename => Some("give it a shorter path, or leave it out".to_owned()),
                io::ErrorKind::ReadOnlyFilesystem => {
                    Some(format!("mount the file system of {} read-write", path.display()))
                }
                io::ErrorKind::CrossesDevices => Some(
                    "install_dir and its staging folder must be on one file system, and install_dir no mount point"
                        .to_owned(),
                ),
                io::ErrorKind::ResourceBusy => {
                    Some(format!("something is mounted at {}; mount it one level higher or lower", path.display()))
                }
                _ => None,
            },
            Self::Altered { .. } => {
                Some("find out who changed it; the next run stages the release anew, from its archive".to_owned())
            }
            Self::NotStaged { .. } | Self::WrongTree { .. } | Self::Spoilt { .. } => {
                Some("download the release again".to_owned())
            }
            Self::UnreadMarker { path, .. } => Some(format!(
                "look what {} is (ls -l), and remove it: it is no regular file that can be read",
                path.display()
            )),
            Self::BadMarker { path, .. } => Some(format!("correct or remove {}", path.display())),
            Self::NoWayBack { .. } => {
                Some("put the old tree back by hand, then run `afterhours run resolve`".to_owned())
            }
            Self::Tangled { install_dir, .. } => Some(format!(
                "put the right tree at {} by hand, then run `afterhours run resolve`",
                install_dir.display()
            )),
            Self::Untrusted { remedy, .. } => Some(remedy.clone()),
            Self::LeadsElsewhere { path, .. } => Some(format!(
                "see where {} leads; if that is right, name in the data paths where it leads, without the link",
                path.display()
            )),
            Self::Replaced { path } => {
                Some(format!("see that nobody else works on {} while it is updated, then try again", path.display()))
            }
            Self::Busy { .. } => Some("wait until the other process is done".to_owned()),
            Self::NoSnapshot { .. } | Self::SnapshotIncomplete { .. } | Self::PartMissing { .. } => {
                Some("restore the data from the backup if they are damaged".to_owned())
            }
            Self::RestoreUnfinished { run } => {
                Some(format!("run `afterhours run resolve {run}`; the restore must be finished first"))
            }
            Self::NoDump { .. } => Some("let the `dump` command write to the path in AFTERHOURS_SNAPSHOT".to_owned()),
            Self::UnknownOwner { .. } => Some("create the user and group, or correct `owner`".to_owned()),
            Self::TooDeep { .. } => {
                Some("move that elsewhere, or let no pattern of `keep` and no data path hold it".to_owned())
            }
            Self::BadState { .. }
            | Self::Command { .. }
            | Self::BadPattern { .. }
            | Self::Cancelled
            | Self::Broken(_) => None,
        }
    }

    /// Whether we lack the right to do it.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether a file system is full.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// What to do where something was refused to us; as root there is nobody else to do it as.
pub(super) fn denied(path: &Path, or: &str) -> String {
    match marks::in_the_way_of(path) {
        Some(marked) => format!("chattr -i -a {}", marks::word(&marked)),
        None if tree::is_root() => format!(
            "see why that is refused to root at {}: a security policy (SELinux, AppArmor), or the server of a network file system",
            path.display()
        ),
        None => format!("run Afterhours as root, or {or}"),
    }
}

/// Refuses to go into a directory that is so deep in its tree that each level more could be the one too many.
pub(super) fn must_be_near(path: &Path) -> Result<(), InstallError> {
    if walk::is_too_deep(path) { Err(InstallError::TooDeep { path: path.to_owned() }) } else { Ok(()) }
}

/// Names the operation and the path of an I/O error.
pub(super) trait At<T> {
    /// What was tried, as a verb, and on what.
    fn at(self, op: &'static str, path: &Path) -> Result<T, InstallError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, InstallError> {
        self.map_err(|source| InstallError::Io { op, path: anchor::shown(path), source })
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, InstallError> {
        self.map_err(io::Error::from).at(op, path)
    }
}
