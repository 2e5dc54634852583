//! Where releases come from, and how one becomes a tree beside the installation.
//!
//! ```text
//! releases() ──► select::path() ──► stage(release, into)
//!  what there is    which, in order     verified, unpacked, on disk, named in one rename
//! ```
//!
//! [`Feed`] is a closed set: a directory ([`dir`]), or a vendor's web server with signed metadata ([`signed`]), which
//! brings its archives into files ([`transport`]) and then goes the same way through staging (`stage`) and
//! unpacking (`archive`). Callers see no difference: a [`Release`] carries the hashes, and its `location` means
//! something to its feed only.
//!
//! *Invariant:* nothing stands at the path a release is staged into, or the whole release does, with
//! its marker. Every byte that was unpacked was hashed on the same way, and the hash matched.
//!
//! A feed may carry releases of Afterhours itself: all of the signed feed of its makers, byte for byte, in the folder
//! [`signed::CARRIED`]. There are the same descriptions below the folder [`UPDATERS`], and one archive for each kind of machine.
//!
//! *Invariant:* nobody but the makers of Afterhours vouches for it: not the keys of an application's feed, and no directory.
//!
//! [`pack`] is the other direction, for vendors, the demo and tests.

mod ahead;
mod archive;
pub mod delta;
pub mod dir;
mod error;
mod hash;
mod manifest;
pub mod pack;
pub mod policy;
mod readable;
pub mod select;
pub mod signed;
mod stage;
pub mod transport;
pub mod untrusted;
pub mod vendor;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

pub use crate::feed::archive::error::ArchiveError;
pub use crate::feed::error::FeedError;

use crate::config::settings::FeedSettings;
use crate::domain::clock::Clock;
use crate::domain::finding::Finding;
use crate::domain::progress::Progress;
use crate::domain::release::Release;
use crate::feed::dir::DirFeed;
use crate::feed::signed::Carried;
use crate::feed::signed::SignedFeed;

/// Where a feed keeps the releases of Afterhours itself; no release of an application has this name.
pub(in crate::feed) const UPDATERS: &str = "updater";

/// A source of releases.
#[derive(Debug, Clone)]
pub enum Feed {
    /// A directory, one folder a release.
    Dir(DirFeed),
    /// A vendor's web server, with signed metadata.
    Signed(Box<SignedFeed>),
}

/// Where a feed keeps what it knows and what it fetched, and by which clock it judges.
#[derive(Debug, Clone)]
pub struct FeedHome {
    /// What is trusted: a few small files.
    pub state_dir: PathBuf,
    /// Archives, by their hash.
    pub downloads_dir: PathBuf,
    /// Decides what has expired.
    pub clock: Arc<dyn Clock>,
    /// Whether small downloads are taken.
    pub deltas: bool,
    /// Who vouches for an Afterhours that the feed carries; none is looked for where nobody does.
    pub updater_root: Option<Arc<[u8]>>,
}

impl FeedHome {
    /// That of an application whose state is in `state_dir` and whose trees are staged in `staging_dir`.
    pub fn new(state_dir: &Path, staging_dir: &Path, clock: Arc<dyn Clock>) -> Self {
        Self {
            state_dir: state_dir.join("feed"),
            downloads_dir: staging_dir.join("downloads"),
            clock,
            deltas: true,
            updater_root: None,
        }
    }
}

impl Feed {
    /// The feed that the settings describe. Nothing is looked at yet.
    pub fn new(settings: &FeedSettings, home: FeedHome) -> Self {
        match settings {
            FeedSettings::Dir(dir) => Self::Dir(DirFeed::new(dir).carrying(&home)),
            FeedSettings::Signed(settings) => Self::Signed(Box::new(SignedFeed::new(settings, home))),
        }
    }

    /// All releases, ascending by build.
    ///
    /// # Errors
    /// The feed cannot be read, or what it says cannot be relied on.
    pub async fn releases(&self) -> Result<Vec<Release>, FeedError> {
        match self {
            Self::Dir(feed) => feed.releases().await,
            Self::Signed(feed) => feed.releases().await,
        }
    }

    /// The releases of Afterhours itself that the feed carries and that its makers vouch for, ascending by build; none in most
    /// feeds. They are staged as the others are; [`crate::renewal`] knows which of their archives is for this machine.
    ///
    /// # Errors
    /// As [`Feed::releases`].
    pub async fn updaters(&self) -> Result<Vec<Release>, FeedError> {
        match self {
            Self::Dir(feed) => feed.updaters().await,
            Self::Signed(feed) => feed.updaters().await,
        }
    }

    /// Whether the feed offers an Afterhours by its own word alone. Nobody takes that one.
    pub async fn vouches_for_updaters(&self) -> bool {
        match self {
            Self::Dir(feed) => feed.offers_updaters(),
            Self::Signed(feed) => feed.vouches_for_updaters().await,
        }
    }

    /// What the feed carries of Afterhours itself.
    fn carried(&self) -> Option<&Carried> {
        match self {
            Self::Dir(feed) => feed.carried(),
            Self::Signed(feed) => feed.carried(),
        }
    }

    /// All releases as far as they are known here without asking a server; nothing where a directory cannot be read.
    pub async fn known_releases(&self) -> Vec<Release> {
        match self {
            Self::Dir(feed) => feed.releases().await.unwrap_or_default(),
            Self::Signed(feed) => feed.known_releases(),
        }
    }

    /// The same for Afterhours itself; none where nothing is kept of a feed.
    pub fn known_updaters(&self) -> Vec<Release> {
        self.carried().map(Carried::known).unwrap_or_default()
    }

    /// Whether the feed can be reached and read, and what is in it.
    pub async fn check(&self) -> Vec<Finding> {
        match self {
            Self::Dir(feed) => feed.check().await,
            Self::Signed(feed) => feed.check().await,
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
        match (self, self.carried()) {
            (_, Some(carried)) if Carried::has(release) => carried.stage(release, into, progress).await,
            (Self::Dir(feed), _) => feed.stage(release, into, progress).await,
            (Self::Signed(feed), _) => feed.stage(release, into, progress).await,
        }
    }

    /// Gives back the room of all that was fetched and that none of these releases needs, of the application and of
    /// Afterhours itself.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn retain(&self, keep: &[Release], updaters: &[Release]) -> Result<(), FeedError> {
        match self {
            // Of a directory's own archives nothing is downloaded.
            Self::Dir(_) => self.retain_updaters(updaters),
            Self::Signed(feed) => feed.retain(keep, updaters),
        }
    }

    /// The same for releases of Afterhours itself alone; what was fetched for the application stays.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn retain_updaters(&self, updaters: &[Release]) -> Result<(), FeedError> {
        self.carried().map_or(Ok(()), |carried| carried.retain(updaters))
    }
}
