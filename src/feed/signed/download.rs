//! The archives of a release, brought into the downloads folder: by a small download where its base is here, else whole.
//!
//! ```text
//! HASH there? ─► made here before? ─► delta + base ─► apply ─► TAR-HASH
//!                                        │ any trouble
//!                                        └─────────────► the whole archive ─► HASH
//! ```
//!
//! A published archive is named by its own hash, one that a delta has made by that of the tar archive in it. Staging
//! hashes either once more; what turns out to be damaged is removed and brought anew, whole.
//!
//! *Invariant:* nothing about a delta keeps a release from being brought: whatever is wrong with it or its base, the whole
//! archive is fetched as if there were none.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use crate::domain::failure::Failure;
use crate::domain::progress::Progress;
use crate::domain::release::Archive;
use crate::domain::release::Delta;
use crate::domain::release::Release;
use crate::feed::archive::Cancel;
use crate::feed::archive::decompressed;
use crate::feed::delta;
use crate::feed::delta::DeltaError;
use crate::feed::error::FeedError;
use crate::feed::hash::sha256_of;
use crate::feed::signed::releases::Folder;
use crate::feed::signed::releases::kept_releases;
use crate::feed::signed::remote::below;
use crate::feed::stage::CancelOnDrop;
use crate::feed::stage::Opened;
use crate::feed::stage::Proof;
use crate::feed::transport::Transport;
use crate::feed::transport::TransportError;
use crate::feed::transport::Wanted;

/// Brings archives.
pub(super) struct Bringing<'b> {
    /// What fetches them.
    pub(super) transport: &'b Transport,
    /// The feed's address.
    pub(super) base: &'b Url,
    /// Where they go.
    pub(super) downloads: &'b Path,
    /// What is known of earlier builds, whose archives are bases.
    pub(super) descriptions: &'b Path,
    /// Whether small downloads are taken.
    pub(super) deltas: bool,
    /// Their release.
    pub(super) release: &'b Release,
}

/// What a delta starts from.
struct Base {
    path: PathBuf,
    /// What is in it proves it, or it was published like this.
    proof: Proof,
    sha256: String,
}

impl Bringing<'_> {
    /// Brings every archive that is not there yet.
    ///
    /// # Errors
    /// One cannot be fetched.
    pub(super) async fn all(&self, progress: &Arc<dyn Progress>) -> Result<(), FeedError> {
        let mut before = 0;
        for archive in &self.release.archives {
            let told = Arc::new(Onward {
                progress: Arc::clone(progress),
                before,
                total: self.release.size_bytes(),
                file: archive.file.clone(),
            });
            self.one(archive, &told).await?;
            before += archive.size_bytes;
        }
        Ok(())
    }

    async fn one(&self, archive: &Archive, progress: &Arc<Onward>) -> Result<(), FeedError> {
        if opened(self.downloads, archive).file.is_ok() {
            return Ok(());
        }
        let deltas = if self.deltas { archive.deltas.as_slice() } else { &[] };
        for delta in smallest_first(deltas) {
            let Some(base) = self.base(delta) else { continue };
            match self.by_delta(archive, delta, &base, progress).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(
                        file = %delta.file,
                        error = %Failure::from_error(&error),
                        "a small download is of no use; the whole archive is fetched instead"
                    );
                    progress.say("the small download is of no use; fetching all of it");
                }
            }
        }
        let into = self.downloads.join(&archive.sha256);
        self.fetch(&archive.file, &archive.sha256, archive.size_bytes, &into, progress.as_ref()).await
    }

    /// Brings every archive as it was published.
    ///
    /// # Errors
    /// One cannot be fetched.
    pub(super) async fn published(&self, progress: &dyn Progress) -> Result<(), FeedError> {
        for archive in &self.release.archives {
            let into = self.downloads.join(&archive.sha256);
            self.fetch(&archive.file, &archive.sha256, archive.size_bytes, &into, progress).await?;
        }
        Ok(())
    }

    /// The archive that a delta starts from, if it is here.
    fn base(&self, delta: &Delta) -> Option<Base> {
        let made = self.downloads.join(&delta.from_tar_sha256);
        if made.is_file() {
            return Some(Base { path: made, proof: Proof::Tar, sha256: delta.from_tar_sha256.clone() });
        }
        let known = kept_releases(self.descriptions, Folder::of(self.release));
        let archives =
            known.iter().filter(|known| known.id.build == delta.from_build).flat_map(|known| &known.archives);
        let mut fitting = archives.filter(|old| old.tar_sha256.as_ref() == Some(&delta.from_tar_sha256));
        fitting.find_map(|old| {
            let path = self.downloads.join(&old.sha256);
            path.is_file().then(|| Base { path, proof: Proof::File, sha256: old.sha256.clone() })
        })
    }

    /// Makes the archive; a damaged base is removed on the way out, since it serves nobody.
    async fn by_delta(
        &self,
        archive: &Archive,
        delta: &Delta,
        base: &Base,
        progress: &Arc<Onward>,
    ) -> Result<(), FeedError> {
        let Some(tar_sha256) = archive.tar_sha256.clone() else {
            return Err(FeedError::NoHash { target: archive.file.clone() });
        };
        let small = self.downloads.join(&delta.sha256);
        let fetched = self.fetch(&delta.file, &delta.sha256, delta.size_bytes, &small, progress.as_ref()).await;
        if fetched.is_err() {
            // Nobody goes on with it: the whole archive comes instead.
            remove_if_there(&small.with_extension("part"))?;
        }
        fetched?;
        let into = self.downloads.join(&tar_sha256);
        let (from, with) = (base.path.clone(), small.clone());
        let told = Share { onward: Arc::clone(progress), from: delta.size_bytes, archive: archive.clone() };
        let cancel = Cancel::default();
        let _guard = CancelOnDrop(cancel.clone());
        let applied = on_thread(&small, move || delta::apply(&from, &with, &tar_sha256, &into, &told, &cancel)).await?;
        remove_if_there(&small)?;
        if let Err(source) = applied {
            if is_doubtful(&source) {
                drop_if_damaged(base).await?;
            }
            return Err(FeedError::Delta { source });
        }
        Ok(())
    }

    async fn fetch(
        &self,
        file: &str,
        sha256: &str,
        size_bytes: u64,
        into: &Path,
        progress: &dyn Progress,
    ) -> Result<(), FeedError> {
        let (folder, build) = (Folder::of(self.release).prefix(), self.release.id.build);
        let want = Wanted { sha256: sha256.to_owned(), size_bytes };
        let url = |name: String| below(self.base, &format!("targets/{folder}{build}/{name}"));
        match self.transport.fetch(&url(format!("{sha256}.{file}")), &want, into, progress).await {
            // A feed without consistent snapshots has plain names. The hash decides in any case.
            Err(TransportError::Absent { .. }) => {
                Ok(self.transport.fetch(&url(file.to_owned()), &want, into, progress).await?)
            }
            fetched => Ok(fetched?),
        }
    }
}

/// An archive as it is here: as it was published, else as a delta has made it.
pub(super) fn opened(downloads: &Path, archive: &Archive) -> Opened {
    let published = downloads.join(&archive.sha256);
    // It comes by rename, whole; another size is damage that staging need not find out.
    if published.metadata().is_ok_and(|meta| meta.len() == archive.size_bytes) {
        return Opened { file: File::open(&published), path: published, proof: Proof::File };
    }
    let made = archive.tar_sha256.as_ref().map(|sha256| downloads.join(sha256)).filter(|path| path.is_file());
    match made {
        Some(path) => Opened { file: File::open(&path), path, proof: Proof::Tar },
        None => Opened { file: Err(std::io::ErrorKind::NotFound.into()), path: published, proof: Proof::File },
    }
}

fn smallest_first(deltas: &[Delta]) -> Vec<&Delta> {
    let mut deltas: Vec<_> = deltas.iter().collect();
    deltas.sort_by_key(|delta| delta.size_bytes);
    deltas
}

/// Whether the base may be to blame.
const fn is_doubtful(error: &DeltaError) -> bool {
    matches!(error, DeltaError::ReadArchive { .. } | DeltaError::Apply { .. } | DeltaError::WrongHash { .. })
}

async fn drop_if_damaged(base: &Base) -> Result<(), FeedError> {
    let (path, is_published) = (base.path.clone(), matches!(base.proof, Proof::File));
    let found = on_thread(&base.path, move || {
        let file = File::open(&path)?;
        if is_published { sha256_of(file) } else { sha256_of(decompressed(file)?) }
    });
    if found.await?.is_ok_and(|found| found == base.sha256) {
        return Ok(());
    }
    tracing::warn!(path = %base.path.display(), "an archive that was kept for small downloads is damaged; it is removed");
    remove_if_there(&base.path)
}

/// What the downloads of these releases are called.
pub(super) fn names<'r>(releases: impl IntoIterator<Item = &'r Release>) -> BTreeSet<String> {
    let archives = releases.into_iter().flat_map(|release| &release.archives);
    archives.flat_map(|archive| archive.tar_sha256.iter().chain([&archive.sha256]).cloned()).collect()
}

/// Removes the downloads whose name is to go, whole or begun.
///
/// # Errors
/// One cannot be removed, or the folder not be read.
pub(super) fn sweep(downloads: &Path, goes: impl Fn(&str) -> bool) -> Result<(), FeedError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FeedError::Clear { path, source }
    };
    let entries = match std::fs::read_dir(downloads) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(downloads)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed(downloads))?;
        let name = entry.file_name();
        let hash = name.to_str().map(|name| name.split('.').next().unwrap_or(name));
        if hash.is_some_and(&goes) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), FeedError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(FeedError::Clear { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Does what blocks where it holds nobody up.
pub(super) async fn on_thread<T: Send + 'static>(
    what: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FeedError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| FeedError::Thread { what: what.display().to_string(), source })
}

/// The progress of one of several archives.
struct Onward {
    progress: Arc<dyn Progress>,
    before: u64,
    total: u64,
    file: String,
}

impl Onward {
    fn say(&self, what: &str) {
        self.progress.advance(self.before, Some(self.total), what);
    }
}

impl Progress for Onward {
    fn advance(&self, done: u64, _total: Option<u64>, _what: &str) {
        self.progress.advance(self.before + done, Some(self.total), &self.file);
    }
}

/// Progress through a tar archive, counted in bytes of the published file that the delta saves.
struct Share {
    onward: Arc<Onward>,
    from: u64,
    archive: Archive,
}

impl Progress for Share {
    fn advance(&self, done: u64, _total: Option<u64>, what: &str) {
        let saved = u128::from(self.archive.size_bytes.saturating_sub(self.from));
        let whole = u128::from(self.archive.unpacked_bytes.max(1));
        let share = u64::try_from(saved * u128::from(done).min(whole) / whole).unwrap_or_default();
        self.onward.advance(self.from + share, None, what);
    }
}
