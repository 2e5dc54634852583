//! A bundle is written where there is a network, and taken where there is none.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;

use crate::domain::progress::Progress;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::feed::error::FeedError;
use crate::feed::signed::Known;
use crate::feed::signed::SignedFeed;
use crate::feed::signed::bundle;
use crate::feed::signed::bundle::Bundle;
use crate::feed::signed::bundle::Content;
use crate::feed::signed::download::Bringing;
use crate::feed::signed::download::on_thread;
use crate::feed::signed::error::TrustError;
use crate::feed::signed::releases::Folder;
use crate::feed::signed::remote::Remote;
use crate::feed::signed::store;
use crate::feed::signed::trust;
use crate::feed::transport::Transport;
use crate::files::trusted::trusted_way;

/// The most roots before the trusted one that are carried.
const ROOTS_MAX: u64 = 1024;
/// The longest root; as long as the client accepts one.
const ROOT_BYTES_MAX: u64 = 512 * 1024;

/// What came of taking a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Until when it may be used.
    pub good_until: DateTime<Utc>,
    /// Every release that it tells of.
    pub releases: Vec<ReleaseId>,
    /// Those whose archives are here now.
    pub here: Vec<ReleaseId>,
    /// Every release of Afterhours itself that it tells of.
    pub updaters: Vec<ReleaseId>,
    /// Those whose archives are here now.
    pub updaters_here: Vec<ReleaseId>,
}

impl SignedFeed {
    /// Writes a bundle with the archives of the releases in `path`, and of those of Afterhours itself in `updaters`, as of now;
    /// until when it may be used, and its size in bytes.
    ///
    /// # Errors
    /// The server cannot be reached or is refused, or the file cannot be written.
    pub async fn bundle(
        &self,
        path: &[Release],
        updaters: &[Release],
        file: &Path,
        progress: &dyn Progress,
    ) -> Result<(DateTime<Utc>, u64), FeedError> {
        self.make_downloads_dir()?;
        let transport = Transport::new(&self.settings.transport)?;
        let (base, downloads) = (&self.settings.url, &self.home.downloads_dir);
        for release in path {
            let descriptions = &self.descriptions(Folder::of(release));
            let (transport, deltas) = (&transport, self.home.deltas);
            Bringing { transport, base, downloads, descriptions, deltas, release }.published(progress).await?;
        }
        let (mut files, mut targets) = (Vec::new(), BTreeMap::new());
        if let Some(carried) = &self.carried {
            let (metadata, descriptions) = carried.bundled(updaters, progress).await?;
            files.extend(metadata);
            targets.extend(descriptions);
        }
        *self.known.lock().await = Known::default();
        let good_until = self.refresh().await?;
        // From here to the end nobody else changes what is trusted.
        let _lock = trust::lock(&self.home.state_dir.join("lock")).await?;
        files.extend(self.metadata_files(Remote::below(transport, base), bundle::METADATA).await?);
        targets.extend(self.described(Folder::Releases)?);
        // Two releases may have the same archive.
        for archive in path.iter().chain(updaters).flat_map(|release| &release.archives) {
            targets.insert(archive.sha256.clone(), Content::File(downloads.join(&archive.sha256)));
        }
        files.extend(targets.into_iter().map(|(hash, content)| (bundle::target_name(&hash), content)));
        let into = file.to_owned();
        let written = on_thread(file, move || bundle::write(&into, files)).await??;
        Ok((good_until, written))
    }

    /// The descriptions that are kept, by their hash.
    pub(super) fn described(&self, folder: Folder) -> Result<BTreeMap<String, Content>, TrustError> {
        let kept = kept_files(&self.descriptions(folder))?.into_iter();
        Ok(kept
            .map(|(name, bytes)| (name.split('.').next().unwrap_or(&name).to_owned(), Content::Bytes(bytes)))
            .collect())
    }

    /// The metadata that are trusted, under the names that a server has them by and below `at`, and all roots.
    pub(super) async fn metadata_files(&self, remote: Remote, at: &str) -> Result<Vec<(String, Content)>, FeedError> {
        let mut files = self.roots(&remote, at).await?;
        for (name, bytes) in kept_files(&self.metadata_dir())? {
            if name == store::ROOT {
                continue;
            }
            let version = serde_json::from_slice::<serde_json::Value>(&bytes)
                .ok()
                .and_then(|metadata| metadata["signed"]["version"].as_u64());
            let Some(version) = version else { continue };
            // A feed with consistent snapshots is asked by the one name, any other by the other one.
            if name != "timestamp.json" {
                files.push((format!("{at}{version}.{name}"), Content::Bytes(bytes.clone())));
            }
            files.push((format!("{at}{name}"), Content::Bytes(bytes)));
        }
        Ok(files)
    }

    /// The roots down from the trusted one, as far as there are any: a site goes on from the one that it trusts.
    async fn roots(&self, remote: &Remote, at: &str) -> Result<Vec<(String, Content)>, FeedError> {
        let dir = self.metadata_dir();
        let newest = trust::trusted_root(&dir)?;
        let newest = newest.ok_or_else(|| TrustError::NoRoot { feed: self.settings.url.to_string() })?;
        let version = trust::root_card(&newest)?.version;
        let entry = |version: u64, bytes| (format!("{at}{version}.root.json"), Content::Bytes(bytes));
        let mut roots = vec![entry(version, newest)];
        for version in (version.saturating_sub(ROOTS_MAX).max(1)..version).rev() {
            let name = format!("{version}.root.json");
            let root = match remote.root(&name, ROOT_BYTES_MAX).await.map_err(TrustError::from_transport)? {
                // A vendor may have cleared old ones away; those that were trusted here are kept.
                None => store::load(&dir.join(format!("{}{name}", store::HISTORY)))?,
                root => root,
            };
            let Some(root) = root else { break };
            roots.push(entry(version, root));
        }
        roots.reverse();
        Ok(roots)
    }

    /// Takes a bundle in place of the server: the same checks, then the archives into the downloads folder.
    ///
    /// # Errors
    /// It cannot be read, or something in it is refused; no archive that is not as it was signed stays.
    pub async fn take_bundle(&self, file: &Path) -> Result<Taken, FeedError> {
        let mut known = self.known.lock().await;
        *known = Known::default();
        let _lock = trust::lock(&self.home.state_dir.join("lock")).await?;
        let path = file.to_owned();
        let bundle = Arc::new(on_thread(file, move || Bundle::open(&path)).await??);
        let now = self.home.clock.now();
        let remote = Remote::bundle(Arc::clone(&bundle), bundle::METADATA);
        let listed = self.read_from(&self.root()?, Folder::Releases, remote, now).await?;
        let updaters = match &self.carried {
            Some(carried) => carried.take(&bundle, now).await?,
            None => Vec::new(),
        };
        self.make_downloads_dir()?;
        let (good_until, downloads) = (listed.good_until, self.home.downloads_dir.clone());
        let taken = on_thread(file, move || {
            let (releases, here) = unload(&bundle, listed.releases, &downloads)?;
            let (updaters, updaters_here) = unload(&bundle, updaters, &downloads)?;
            Ok::<_, TrustError>(Taken { good_until, releases, here, updaters, updaters_here })
        });
        Ok(taken.await??)
    }

    /// Makes the folder for archives, which only root may look into.
    pub(super) fn make_downloads_dir(&self) -> Result<(), FeedError> {
        let dir = &self.home.downloads_dir;
        trusted_way(dir).map_err(|source| FeedError::Untrusted { path: dir.clone(), source })?;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| FeedError::Make { path: dir.clone(), source })
    }
}

/// Copies the archives of these releases as far as the bundle has them; all releases, and those whose archives are here then.
/// Blocking.
fn unload(
    bundle: &Bundle,
    releases: Vec<Release>,
    downloads: &Path,
) -> Result<(Vec<ReleaseId>, Vec<ReleaseId>), TrustError> {
    let (mut all, mut here) = (Vec::new(), Vec::new());
    for release in releases {
        let mut is_whole = release.unreadable.is_none();
        for archive in &release.archives {
            let target = release.location.join(&archive.file).display().to_string();
            let into = downloads.join(&archive.sha256);
            let is_there = into.metadata().is_ok_and(|meta| meta.len() == archive.size_bytes);
            is_whole &= is_there || bundle.copy(&target, &archive.sha256, archive.size_bytes, &into)?;
        }
        if is_whole {
            here.push(release.id.clone());
        }
        all.push(release.id);
    }
    Ok((all, here))
}

/// The files of a directory of ours, by their names; none where there is no such directory.
fn kept_files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, TrustError> {
    let failed = |source| TrustError::Load { path: dir.to_owned(), source };
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.')
            && entry.file_type().map_err(failed)?.is_file()
            && let Some(bytes) = store::read(&entry.path()).map_err(failed)?
        {
            files.push((name, bytes));
        }
    }
    files.sort();
    Ok(files)
}
