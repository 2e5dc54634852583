//! What comes from outside, each kind with the one function that lets it in or refuses it.
//!
//! | kind | comes from | behind it |
//! |---|---|---|
//! | [`metadata`], [`listing`] | anybody on the way to the vendor | `signed` |
//! | [`description`] | a vendor, or who holds its keys | `manifest` |
//! | [`archive`] | the same | `archive` |
//! | [`delta`] | the same | [`crate::feed::delta`] |
//!
//! Feeds call what is behind these functions themselves. Here it stands apart from servers, folders and keys, so that
//! it can be tried with anything at all: `fuzz/` does that for as long as one likes, and the tests for a moment.
//!
//! *Invariant:* whatever the bytes are, the answer is a value or a named error, in bounded time and memory.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use sigstore_tuf::Metadata;
use sigstore_tuf::TrustedMetadataSet;

use crate::domain::progress::Silent;
use crate::domain::release::Release;
use crate::feed::archive::Cancel;
use crate::feed::archive::Limits;
use crate::feed::archive::error::ArchiveError;
use crate::feed::archive::tree::Tree;
use crate::feed::archive::unpack;
use crate::feed::archive::unpack_tar;
use crate::feed::delta::DeltaError;
use crate::feed::delta::apply;
use crate::feed::error::FeedError;
use crate::feed::manifest;
use crate::feed::signed::TrustError;
use crate::feed::signed::listed;
use crate::feed::signed::root_card;
use crate::feed::signed::to_jiff;

/// How every compressed archive begins.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The metadata of one refresh, in the order in which they are verified.
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    /// The one that is trusted.
    pub root: &'a [u8],
    /// Those that follow it.
    pub next_roots: Vec<&'a [u8]>,
    /// `timestamp.json`.
    pub timestamp: &'a [u8],
    /// `snapshot.json`.
    pub snapshot: &'a [u8],
    /// `targets.json`.
    pub targets: &'a [u8],
}

/// Verifies metadata as of `now`; the builds whose descriptions they vouch for.
///
/// # Errors
/// One of them is not what the one before it vouched for.
pub fn metadata(chain: &Chain<'_>, now: DateTime<Utc>) -> Result<BTreeSet<u64>, FeedError> {
    let refused = |error| TrustError::from_tuf(error, None);
    root_card(chain.root)?;
    let mut set = TrustedMetadataSet::from_root(chain.root).map_err(refused)?;
    for root in &chain.next_roots {
        set.update_root(root).map_err(refused)?;
    }
    let now = to_jiff(now);
    set.check_root_expired(now).map_err(refused)?;
    set.update_timestamp(chain.timestamp, now).map_err(refused)?;
    set.update_snapshot(chain.snapshot, now).map_err(refused)?;
    let targets = set.update_targets(chain.targets, now).map_err(refused)?;
    listed(targets).map(|(builds, _)| builds)
}

/// What `targets.json` would say if somebody had signed it: the builds whose descriptions it vouches for.
///
/// # Errors
/// It cannot be read, or names a description without its hash.
pub fn listing(bytes: &[u8]) -> Result<BTreeSet<u64>, FeedError> {
    let targets = Metadata::from_slice(bytes).map_err(|error| TrustError::from_tuf(error, None))?;
    listed(targets.signed()).map(|(builds, _)| builds)
}

/// Reads a `release.toml`.
///
/// # Errors
/// As for a release of a feed.
pub fn description(text: &str) -> Result<Release, FeedError> {
    manifest::parse(text, Path::new("release"))
}

/// Writes one that [`description`] reads back.
///
/// # Errors
/// A number is too large for TOML.
pub fn describe(release: &Release) -> Result<String, FeedError> {
    manifest::write(release)
}

/// Unpacks an archive, compressed or, as a delta makes it, plain, into the empty directory `into`.
///
/// # Errors
/// It is broken, is refused, or cannot be written; then what is in `into` is of no use.
pub fn archive(bytes: &[u8], unpacked_bytes: u64, into: &Path) -> Result<(), FeedError> {
    let file = PathBuf::from("archive");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(into, flags, Mode::empty())
        .map_err(|error| FeedError::Make { path: into.to_owned(), source: error.into() })?;
    let (limits, cancel) = (Limits::DEFAULT, Cancel::default());
    let mut tree = Tree::new(root, limits.names_bytes_max);
    let unpacked: Result<(), ArchiveError> = if bytes.starts_with(&ZSTD) {
        unpack(bytes, unpacked_bytes, &mut tree, &limits, &cancel)
    } else {
        unpack_tar(bytes, unpacked_bytes, &mut tree, &limits, &cancel)
    };
    unpacked.and_then(|()| tree.finish().map(drop)).map_err(|source| FeedError::Unpack { file, source })
}

/// Makes the archive `into` out of the one in `base` and a delta, if the tar archive in it has `tar_sha256`.
///
/// # Errors
/// Something is not what it should be; then `into` is not there, and nothing is left of it.
pub fn delta(base: &Path, delta: &Path, tar_sha256: &str, into: &Path) -> Result<(), DeltaError> {
    apply(base, delta, tar_sha256, into, &Silent, &Cancel::default())
}
