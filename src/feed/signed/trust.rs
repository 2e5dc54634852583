//! From a root that somebody vouched for to metadata that may be relied on now.
//!
//! ```text
//! root.json on disk, else the first root ─► next roots ─► timestamp ─► snapshot ─► targets
//!            each step verified by `sigstore-tuf`, stored, and only then the next
//! ```
//!
//! A refresh holds a lock on a file, so that two processes do not measure a rollback against each other's half.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use chrono::DateTime;
use chrono::Utc;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sigstore_tuf::Role;
use sigstore_tuf::TrustedMetadataSet;
use sigstore_tuf::Updater;

use crate::domain::span::Span;
use crate::feed::signed::error::TrustError;
use crate::feed::signed::error::from_jiff;
use crate::feed::signed::error::to_jiff;
use crate::feed::signed::remote::Remote;
use crate::feed::signed::store;
use crate::feed::signed::store::Metadata;

/// How long somebody else's refresh is waited for.
const LOCK_WAIT: Span = Span::mins(5);
/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A root as a person sees it who is asked to trust it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootCard {
    /// Its version.
    pub version: u64,
    /// When it runs out.
    pub expires_at: DateTime<Utc>,
    /// How many of the keys have to sign the next root.
    pub threshold: usize,
    /// The keys that may.
    pub key_ids: Vec<String>,
}

/// Reads a root that proves itself: signed by as many of its own keys as it demands.
///
/// # Errors
/// It is no root, or not signed.
pub(in crate::feed) fn root_card(bytes: &[u8]) -> Result<RootCard, TrustError> {
    let set = TrustedMetadataSet::from_root(bytes).map_err(|error| TrustError::from_tuf(error, None))?;
    let root = set.root();
    let keys = root.role("root");
    Ok(RootCard {
        version: root.version,
        expires_at: from_jiff(root.expires()),
        threshold: keys.map_or(0, |keys| keys.threshold),
        key_ids: keys.map(|keys| keys.keyids.clone()).unwrap_or_default(),
    })
}

/// Reads the root that a person names.
///
/// # Errors
/// It cannot be read, or proves nothing.
pub(in crate::feed) fn named_root(file: &Path) -> Result<Vec<u8>, TrustError> {
    let unread = |source| TrustError::ReadRoot { file: file.to_owned(), source };
    let absent = || unread(io::Error::new(io::ErrorKind::NotFound, "there is no such file"));
    let bytes = store::read(file).map_err(unread)?.ok_or_else(absent)?;
    match root_card(&bytes) {
        Ok(_) => Ok(bytes),
        Err(source) => Err(TrustError::BadRoot { file: file.to_owned(), source: Box::new(source) }),
    }
}

/// The root that is trusted now.
///
/// # Errors
/// It cannot be read, or is torn.
pub(in crate::feed) fn trusted_root(metadata_dir: &Path) -> Result<Option<Vec<u8>>, TrustError> {
    store::load(&metadata_dir.join(store::ROOT))
}

/// Brings the metadata in `dir` up to date and verifies all of them as of `now`; `root` is trusted already.
///
/// # Errors
/// Something is refused, cannot be fetched, or cannot be kept. What was verified before it is kept.
pub(in crate::feed) async fn refresh(
    root: &[u8],
    metadata: Metadata,
    remote: Remote,
    now: DateTime<Utc>,
) -> Result<(Updater, store::Trouble), TrustError> {
    let trouble = metadata.trouble();
    let updater = Updater::new(remote, root).map_err(|error| TrustError::from_tuf(error, None))?;
    let mut updater = updater.with_store(metadata);
    let refreshed = updater.refresh(to_jiff(now)).await;
    match trouble.take() {
        Some(error) => Err(error),
        None => refreshed.map(|()| (updater, trouble)).map_err(|error| TrustError::from_tuf(error, None)),
    }
}

/// Until when what was refreshed may be relied on.
pub(in crate::feed) fn good_until(trusted: &TrustedMetadataSet) -> DateTime<Utc> {
    let all = [
        Some(trusted.root().expires()),
        trusted.timestamp().map(Role::expires),
        trusted.snapshot().map(Role::expires),
        trusted.targets_role("targets").map(Role::expires),
    ];
    all.into_iter().map(|at| at.map_or(DateTime::<Utc>::MIN_UTC, from_jiff)).min().unwrap_or_default()
}

/// Waits for the lock on `path`; it ends when the file is dropped.
///
/// # Errors
/// It cannot be had in time.
pub(in crate::feed) async fn lock(path: &Path) -> Result<File, TrustError> {
    let failed = |source| TrustError::Keep { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    let deadline = tokio::time::Instant::now() + LOCK_WAIT.duration();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if tokio::time::Instant::now() >= deadline => {
                return Err(TrustError::Busy { path: path.to_owned(), waited: LOCK_WAIT });
            }
            Err(Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(error) => return Err(failed(error.into())),
        }
    }
}
