//! Where releases come from, and how one becomes a tree beside the installation.
//!
//! ```text
//! releases() ──► select::path() ──► stage(release, into)
//!  what there is    which, in order     verified, unpacked, on disk, named in one rename
//! ```
//!
//! [`Feed`] is a closed set. Today there is one variant, a directory ([`dir`]); a signed feed over
//! HTTPS becomes a second one that brings its archives into files and then goes the same way
//! through staging (`stage`) and unpacking (`archive`). Callers see no difference: a
//! [`Release`] carries the hashes, and its `location` means something to its feed only.
//!
//! *Invariant:* nothing stands at the path a release is staged into, or the whole release does, with
//! its marker. Every byte that was unpacked was hashed on the same way, and the hash matched.
//!
//! [`pack`] is the other direction, for vendors, the demo and tests.

mod archive;
pub mod dir;
mod error;
mod manifest;
pub mod pack;
pub mod select;
mod stage;
pub mod transport;

use std::path::Path;
use std::sync::Arc;

pub use crate::feed::archive::error::ArchiveError;
pub use crate::feed::error::FeedError;

use crate::config::settings::FeedSettings;
use crate::domain::finding::Finding;
use crate::domain::progress::Progress;
use crate::domain::release::Release;
use crate::feed::dir::DirFeed;

/// A source of releases.
#[derive(Debug, Clone)]
pub enum Feed {
    /// A directory, one folder a release.
    Dir(DirFeed),
}

impl Feed {
    /// The feed that the settings describe. Nothing is looked at yet.
    pub fn new(settings: &FeedSettings) -> Self {
        match settings {
            FeedSettings::Dir(dir) => Self::Dir(DirFeed::new(dir)),
        }
    }

    /// All releases, ascending by build.
    ///
    /// # Errors
    /// The feed cannot be read, or what it says cannot be relied on.
    pub async fn releases(&self) -> Result<Vec<Release>, FeedError> {
        match self {
            Self::Dir(feed) => feed.releases().await,
        }
    }

    /// Whether the feed can be reached and read, and what is in it.
    pub async fn check(&self) -> Vec<Finding> {
        match self {
            Self::Dir(feed) => feed.check().await,
        }
    }

    /// Makes the whole tree of a release at `into`, or nothing. Done at once when it is there.
    ///
    /// Progress counts the bytes of the archives. Dropping the future ends the work soon after and removes
    /// what there is of it; a second call waits for that.
    ///
    /// # Errors
    /// The release is not what it says, is refused, or cannot be written; or something else is at `into`.
    pub async fn stage(&self, release: &Release, into: &Path, progress: Arc<dyn Progress>) -> Result<(), FeedError> {
        match self {
            Self::Dir(feed) => feed.stage(release, into, progress).await,
        }
    }
}
