//! What a site would say of a feed, before anybody sees it.
//!
//! The same client that sites use reads the folder, with the files that are about to be written laid over it: once as a
//! site that has trusted an earlier root and knows what is published now, so that nothing it has seen goes backwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;
use futures_util::FutureExt;
use sigstore_tuf::Error;
use sigstore_tuf::MemoryStore;
use sigstore_tuf::Repository;
use sigstore_tuf::Targets;
use sigstore_tuf::Updater;
use sigstore_tuf::transport::FetchFuture;

use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;

/// The published folder with files laid over it.
#[derive(Debug, Clone)]
struct Folder {
    metadata: PathBuf,
    over: BTreeMap<String, Vec<u8>>,
}

impl Repository for Folder {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        let found = match self.over.get(name) {
            Some(bytes) => Ok(Some(bytes.clone())),
            None => disk::read_if_there(&self.metadata.join(name), max_length)
                .map_err(|error| Error::Io { context: error.to_string(), source: std::io::Error::other(error) }),
        };
        Box::pin(std::future::ready(found))
    }

    /// Files are looked at by their size and hash, not fetched.
    fn fetch_target<'a>(&'a self, _: &'a str, _: u64) -> FetchFuture<'a> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// Lets a site that trusts `first`, the bytes of a root, read `metadata` as it is, then with `over` laid over it. Returns
/// what it then believes.
///
/// # Errors
/// In the site's words.
pub(in crate::feed::vendor) fn believes(
    metadata: &Path,
    over: &[(String, Vec<u8>)],
    first: &[u8],
    now: DateTime<Utc>,
) -> Result<Targets, VendorError> {
    let refused = |source| VendorError::Refused { source: Box::new(source) };
    let known = Arc::new(MemoryStore::new());
    let before = Folder { metadata: metadata.to_owned(), over: BTreeMap::new() };
    let after = Folder { over: over.iter().cloned().collect(), ..before.clone() };
    // A feed that has expired is no reason not to renew it.
    let _ = refreshed(before, first, &known, now);
    let site = refreshed(after, first, &known, now).map_err(refused)?;
    site.trusted().targets_role("targets").cloned().ok_or_else(|| refused(Error::NotRefreshed))
}

fn refreshed(folder: Folder, first: &[u8], known: &Arc<MemoryStore>, now: DateTime<Utc>) -> Result<Updater, Error> {
    let now = jiff::Timestamp::from_second(now.timestamp()).map_err(|error| Error::Malformed(error.to_string()))?;
    let mut site = Updater::new(folder, first)?.with_store(Arc::clone(known));
    // Every answer of a folder is there at once.
    site.refresh(now).now_or_never().unwrap_or(Err(Error::NotRefreshed))?;
    Ok(site)
}
