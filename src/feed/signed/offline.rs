//! A bundle is written where there is a network, and taken where there is none.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;

use crate::domain::progress::Progress;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::feed::error::FeedError;
use crate::feed::signed::SignedFeed;
use crate::feed::signed::bundle;
use crate::feed::signed::bundle::Bundle;
use crate::feed::signed::bundle::Content;
use crate::feed::signed::download::Bringing;
use crate::feed::signed::error::TrustError;
use crate::feed::signed::releases::Folder;
use crate::feed::signed::remote::Remote;
use crate::feed::signed::store;
use crate::feed::signed::trust;
use crate::feed::transport::Transport;

/// The most roots that one after the other were trusted.
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
}

impl SignedFeed {
    /// Writes a bundle with the archives of the releases in `path`, as of now; until when it may be used, and its size in bytes.
    ///
    /// # Errors
    /// The server cannot be reached or is refused, or the file cannot be written.
    pub async fn bundle(
        &self,
        path: &[Release],
        file: &Path,
        progress: &dyn Progress,
    ) -> Result<(DateTime<Utc>, u64), FeedError> {
        self.make_downloads_dir()?;
        let transport = Transport::new(&self.settings.transport)?;
        let (base, downloads, descriptions) =
            (&self.settings.url, &self.home.downloads_dir, self.descriptions(Folder::Releases));
        for release in path {
            let bringing = Bringing {
                transport: &transport,
                base,
                downloads,
                descriptions: &descriptions,
                deltas: self.home.deltas,
                release,
            };
            bringing.published(progress).await?;
        }
        let good_until = self.refresh().await?;
        // From here to the end nobody else changes what is trusted.
        let _lock = trust::lock(&self.home.state_dir.join("lock")).await?;
        let mut files = self.metadata_files(Remote::below(transport, base)).await?;
        for (name, bytes) in kept_files(&descriptions)? {
            let hash = name.split('.').next().unwrap_or(&name).to_owned();
            files.push((bundle::target_name(&hash), Content::Bytes(bytes)));
        }
        for archive in path.iter().flat_map(|release| &release.archives) {
            files.push((bundle::target_name(&archive.sha256), Content::File(downloads.join(&archive.sha256))));
        }
        let into = file.to_owned();
        let written = on_thread(file, move || bundle::write(&into, files)).await??;
        Ok((good_until, written))
    }

    /// The metadata that are trusted, under the names that a server has them by, and all roots.
    async fn metadata_files(&self, remote: Remote) -> Result<Vec<(String, Content)>, FeedError> {
        let mut files = Vec::new();
        for version in 1..=ROOTS_MAX {
            let name = format!("{version}.root.json");
            let got = remote.metadata(&name, ROOT_BYTES_MAX).await;
            match got.map_err(|source| TrustError::Fetch { source })? {
                Some(bytes) => files.push((format!("metadata/{name}"), Content::Bytes(bytes))),
                None => break,
            }
        }
        for (name, bytes) in kept_files(&self.metadata_dir())? {
            if name == trust::ROOT {
                continue;
            }
            let version = serde_json::from_slice::<serde_json::Value>(&bytes)
                .ok()
                .and_then(|metadata| metadata["signed"]["version"].as_u64());
            let Some(version) = version else { continue };
            // A feed with consistent snapshots is asked by the one name, any other by the other one.
            if name != "timestamp.json" {
                files.push((format!("metadata/{version}.{name}"), Content::Bytes(bytes.clone())));
            }
            files.push((format!("metadata/{name}"), Content::Bytes(bytes)));
        }
        Ok(files)
    }

    /// Takes a bundle in place of the server: the same checks, then the archives into the downloads folder.
    ///
    /// # Errors
    /// It cannot be read, or something in it is refused; no archive that is not as it was signed stays.
    pub async fn take_bundle(&self, file: &Path) -> Result<Taken, FeedError> {
        let mut known = self.known.lock().await;
        known.clear();
        let _lock = trust::lock(&self.home.state_dir.join("lock")).await?;
        let root = self.root()?;
        let path = file.to_owned();
        let bundle = Arc::new(on_thread(file, move || Bundle::open(&path)).await??);
        let now = self.home.clock.now();
        let listed = self.read_from(&root, Folder::Releases, Remote::bundle(Arc::clone(&bundle)), now).await?;
        self.make_downloads_dir()?;
        let (releases, downloads) = (listed.releases, self.home.downloads_dir.clone());
        let taken = on_thread(file, move || {
            let mut taken = Taken { good_until: listed.good_until, releases: Vec::new(), here: Vec::new() };
            for release in releases {
                let mut is_whole = true;
                for archive in &release.archives {
                    let target = format!("{}/{}", release.id.build, archive.file);
                    let into = downloads.join(&archive.sha256);
                    let is_there = into.metadata().is_ok_and(|meta| meta.len() == archive.size_bytes);
                    is_whole &= is_there || bundle.copy(&target, &archive.sha256, archive.size_bytes, &into)?;
                }
                if is_whole {
                    taken.here.push(release.id.clone());
                }
                taken.releases.push(release.id);
            }
            Ok::<_, TrustError>(taken)
        });
        Ok(taken.await??)
    }

    /// Makes the folder for archives, which only root may look into.
    pub(super) fn make_downloads_dir(&self) -> Result<(), FeedError> {
        let dir = &self.home.downloads_dir;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| FeedError::Make { path: dir.clone(), source })
    }
}

/// The files of a directory of ours, by their names.
fn kept_files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, TrustError> {
    let failed = |source| TrustError::Load { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
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

async fn on_thread<T: Send + 'static>(what: &Path, work: impl FnOnce() -> T + Send + 'static) -> Result<T, FeedError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| FeedError::Thread { what: what.display().to_string(), source })
}
