//! What can go wrong with a delta.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A delta could not be made or applied.
#[derive(Debug, Error)]
pub enum DeltaError {
    /// An archive cannot be read as compressed tar.
    #[error("read the archive {}", .path.display())]
    ReadArchive {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A delta cannot be read.
    #[error("read the delta {}", .path.display())]
    ReadDelta {
        /// The delta.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A delta is not written as one.
    #[error("understand the delta {}: {problem}", .path.display())]
    Malformed {
        /// The delta.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A frame of the delta does not make what it says.
    #[error("apply the delta {} at byte {at} of the new archive", .path.display())]
    Apply {
        /// The delta.
        path: PathBuf,
        /// Where in the new archive.
        at: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was made is not the archive that was wanted.
    #[error("make the archive from {} and the delta {}: its sha256 is {found} instead of {wanted}", .base.display(), .delta.display())]
    WrongHash {
        /// The old archive.
        base: PathBuf,
        /// The delta.
        delta: PathBuf,
        /// As the release says.
        wanted: String,
        /// As it is.
        found: String,
    },
    /// A file of ours cannot be written.
    #[error("write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody waits for the result any more.
    #[error("go on with the delta {}: it was cancelled", .path.display())]
    Cancelled {
        /// The delta.
        path: PathBuf,
    },
}

impl DeltaError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Write { source, .. } => crate::feed::error::hint_for_write(source),
            Self::Cancelled { .. } => None,
            Self::ReadArchive { .. } | Self::ReadDelta { .. } => {
                Some("check the file system, or copy the file again".to_owned())
            }
            Self::Malformed { .. } | Self::Apply { .. } | Self::WrongHash { .. } => {
                Some("nothing has to be done: the full archive is taken instead".to_owned())
            }
        }
    }
}
