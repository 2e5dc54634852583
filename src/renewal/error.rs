//! What can go wrong when Afterhours replaces itself.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use thiserror::Error;

use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::domain::span::Span;
use crate::exec::ExecError;
use crate::files::trusted::Untrusted;

/// One operation of the renewal that failed.
#[derive(Debug, Error)]
pub enum RenewalError {
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
    /// The root of trust for Afterhours itself that the configuration names is not root's alone.
    #[error("rely on self_update_root {}", .path.display())]
    UntrustedRoot {
        /// The file.
        path: PathBuf,
        /// Who could change it.
        #[source]
        source: Box<Untrusted>,
    },
    /// The record of the renewal cannot be understood.
    #[error("understand {}", .path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Another process is at the same renewal and does not come to an end.
    #[error("lock {}: another process held it for {waited}", .path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Span,
    },
    /// A renewal is under way, and this command must not open the store before it has ended.
    #[error("open the store: Afterhours is being updated to {to}")]
    UnderWay {
        /// The new one.
        to: ReleaseId,
    },
    /// The release does not hold a program where it must.
    #[error("find the program {}", .path.display())]
    NoProgram {
        /// Where it must be.
        path: PathBuf,
    },
    /// The new program could not do in a rehearsal what it will have to do.
    #[error("start {to} on a copy of the store")]
    Rehearsal {
        /// The new one.
        to: ReleaseId,
        /// How it ended.
        #[source]
        source: ExecError,
    },
    /// The new program ended well and did not say what Afterhours says.
    #[error("recognise {to} as Afterhours: after its rehearsal it said \"{said}\"")]
    Stranger {
        /// The new one.
        to: ReleaseId,
        /// The beginning of what it said.
        said: String,
    },
    /// The new program is not the version it was published as.
    #[error("recognise {to}: the program in it is Afterhours {is}")]
    OtherVersion {
        /// As what it was published.
        to: ReleaseId,
        /// What it says itself.
        is: Version,
    },
    /// A part of this program broke.
    #[error("work on the renewal: a task of this program broke")]
    Broken(#[source] tokio::task::JoinError),
}

impl RenewalError {
    /// Whether somebody who is not root could have had a hand in it.
    pub fn is_hostile(&self) -> bool {
        matches!(self, Self::UntrustedRoot { source, .. } if !matches!(**source, Untrusted::Look { .. }))
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, path, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some(format!("make room on the file system of {}", path.display()))
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Some(format!(
                    "let Afterhours write beside {}, or update it by hand and set `self_update = false` in [daemon]",
                    path.display()
                )),
                _ => None,
            },
            Self::BadRecord { path, .. } => {
                Some(format!("see which Afterhours is installed, then remove {}", path.display()))
            }
            Self::UntrustedRoot { source, .. } => Some(
                source.remedy().unwrap_or_else(|| "correct self_update_root in [daemon], or take it out".to_owned()),
            ),
            Self::Busy { .. } => Some("see what the other process waits for, then try again".to_owned()),
            Self::UnderWay { .. } => Some("try again in a minute; a daemon that is started ends it".to_owned()),
            Self::NoProgram { .. } | Self::Rehearsal { .. } | Self::Stranger { .. } | Self::OtherVersion { .. } => {
                Some("its vendor must know; until then the installed Afterhours goes on".to_owned())
            }
            Self::Broken(_) => None,
        }
    }
}

/// Names the operation and the path of an I/O error.
pub(super) trait At<T> {
    /// What was tried, as a verb, and on what.
    fn at(self, op: &'static str, path: &Path) -> Result<T, RenewalError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, RenewalError> {
        self.map_err(|source| RenewalError::Io { op, path: path.to_owned(), source })
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, RenewalError> {
        self.map_err(io::Error::from).at(op, path)
    }
}
