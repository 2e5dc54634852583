//! What a feed carries of Afterhours itself: the whole signed feed of its makers, byte for byte, in a folder of its own.
//!
//! ```text
//! the application's feed   metadata/  targets/24/…                     vouched for by the application's vendor
//!                          afterhours/metadata/  afterhours/targets/updater/3/…      by the makers of Afterhours
//! ```
//!
//! The vendor of an application hands on what the makers have signed and can change no byte of it. What is believed is
//! decided by one root, which is compiled into this program or named by the administrator. The same client reads it, with
//! the same expiry and the same protection from what is older; what was seen is kept for each application and each root.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;
use sha2::Digest;
use sha2::Sha256;
use tokio::sync::Mutex;
use url::Url;

use crate::config::settings::SignedFeedSettings;
use crate::config::settings::TransportSettings;
use crate::domain::hex::hex;
use crate::domain::progress::Progress;
use crate::domain::release::Release;
use crate::feed::FeedHome;
use crate::feed::dir::open_file;
use crate::feed::error::FeedError;
use crate::feed::signed::Known;
use crate::feed::signed::SignedFeed;
use crate::feed::signed::bundle;
use crate::feed::signed::bundle::Bundle;
use crate::feed::signed::bundle::Content;
use crate::feed::signed::download;
use crate::feed::signed::download::Bringing;
use crate::feed::signed::download::on_thread;
use crate::feed::signed::error::TrustError;
use crate::feed::signed::releases::Folder;
use crate::feed::signed::remote::Remote;
use crate::feed::signed::remote::below;
use crate::feed::signed::remote::below_dir;
use crate::feed::signed::trust;
use crate::feed::transport::Transport;
use crate::feed::transport::TransportError;

/// The folder of a feed that carries Afterhours.
pub(in crate::feed) const CARRIED: &str = "afterhours";

/// How many digits of the root's hash name what is kept under it.
const ROOT_DIGITS: usize = 16;

/// The feed of Afterhours itself, as an application's feed carries it.
#[derive(Debug, Clone)]
pub(in crate::feed) struct Carried(SignedFeed);

impl Carried {
    /// Below the address of an application's feed; nothing where nobody may vouch.
    pub(super) fn on_the_web(
        settings: &SignedFeedSettings,
        home: &FeedHome,
        known: &Arc<Mutex<Known>>,
    ) -> Option<Self> {
        let url = below(&settings.url, &format!("{CARRIED}/"));
        let carried = Self::at(SignedFeedSettings { url, root: None, transport: settings.transport.clone() }, home)?;
        // It is the same server: who was away a moment ago is not waited for once more.
        Some(Self(SignedFeed { known: Arc::clone(known), ..carried.0 }))
    }

    /// In an application's directory; nothing where nobody may vouch.
    pub(in crate::feed) fn in_dir(dir: &Path, home: &FeedHome) -> Option<Self> {
        let url = Url::from_directory_path(std::path::absolute(dir.join(CARRIED)).ok()?).ok()?;
        Self::at(SignedFeedSettings { url, root: None, transport: TransportSettings::default() }, home)
    }

    fn at(settings: SignedFeedSettings, home: &FeedHome) -> Option<Self> {
        let root = home.updater_root.clone()?;
        // Another root is another trust: what was seen under the one says nothing under the other.
        let digits: String = hex(Sha256::digest(&root)).chars().take(ROOT_DIGITS).collect();
        let home =
            FeedHome { state_dir: home.state_dir.join(CARRIED).join(digits), updater_root: None, ..home.clone() };
        Some(Self(SignedFeed { anchor: Some(root), ..SignedFeed::new(&settings, home) }))
    }

    /// Whether a release is one of Afterhours itself.
    pub(in crate::feed) fn has(release: &Release) -> bool {
        Folder::of(release) == Folder::Updaters
    }

    /// The releases that the makers vouch for now; none where none is carried.
    pub(in crate::feed) async fn releases(&self) -> Result<Vec<Release>, FeedError> {
        // Where a directory carries nothing, looking makes nothing.
        if dir_of(&self.0.settings.url).is_some_and(|dir| !dir.exists()) {
            return Ok(Vec::new());
        }
        match self.0.listed(Folder::Updaters).await {
            Err(error) if is_absent(&error) || is_away(&error) && !self.was_seen() => Ok(Vec::new()),
            listed => Ok(listed.map_err(doubtful)?.releases),
        }
    }

    /// Whether the feed has ever carried it.
    fn was_seen(&self) -> bool {
        self.0.metadata_dir().join("timestamp.json").exists()
    }

    /// Those that were verified before.
    pub(in crate::feed) fn known(&self) -> Vec<Release> {
        self.0.kept(Folder::Updaters)
    }

    pub(in crate::feed) async fn stage(
        &self,
        release: &Release,
        into: &Path,
        progress: Arc<dyn Progress>,
    ) -> Result<(), FeedError> {
        self.0.stage(release, into, progress).await
    }

    /// Gives back the room of what was fetched and is none of these.
    pub(in crate::feed) fn retain(&self, updaters: &[Release]) -> Result<(), FeedError> {
        let (given_back, needed) = (download::names(&self.known()), download::names(updaters));
        download::sweep(&self.0.home.downloads_dir, |name| given_back.contains(name) && !needed.contains(name))
    }

    /// What goes into a bundle beside the archives of `updaters`, which are downloaded then: metadata, and descriptions by
    /// their hash; nothing where none is carried.
    pub(super) async fn bundled(
        &self,
        updaters: &[Release],
        progress: &dyn Progress,
    ) -> Result<(Vec<(String, Content)>, Vec<(String, Content)>), FeedError> {
        let feed = &self.0;
        let transport = Transport::new(&feed.settings.transport)?;
        for release in updaters {
            Bringing {
                transport: &transport,
                base: &feed.settings.url,
                downloads: &feed.home.downloads_dir,
                descriptions: &feed.descriptions(Folder::Updaters),
                deltas: feed.home.deltas,
                release,
            }
            .published(progress)
            .await?;
        }
        *feed.known.lock().await = Known::default();
        self.releases().await?;
        if !self.was_seen() {
            return Ok((Vec::new(), Vec::new()));
        }
        let _lock = trust::lock(&feed.home.state_dir.join("lock")).await?;
        let remote = Remote::below(transport, &feed.settings.url);
        let metadata = feed.metadata_files(remote, bundle::CARRIED_METADATA).await?;
        Ok((metadata, feed.described(Folder::Updaters)?.into_iter().collect()))
    }

    /// The releases that a bundle tells of and the makers vouch for; none where whoever wrote it left them out.
    pub(super) async fn take(&self, bundle: &Arc<Bundle>, now: DateTime<Utc>) -> Result<Vec<Release>, FeedError> {
        let feed = &self.0;
        let _lock = trust::lock(&feed.home.state_dir.join("lock")).await?;
        let remote = Remote::bundle(Arc::clone(bundle), bundle::CARRIED_METADATA);
        match feed.read_from(&feed.root()?, Folder::Updaters, remote, now).await {
            // What it has of the application is of use all the same.
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            read => Ok(read.map_err(doubtful)?.releases),
        }
    }
}

/// Whether nothing is carried at all.
fn is_absent(error: &FeedError) -> bool {
    match error {
        FeedError::Trust(TrustError::Fetch { source }) => match &**source {
            TransportError::Absent { .. } => true,
            // Some servers forbid what is not there.
            TransportError::Status { status, .. } => status.as_u16() == 403,
            _ => false,
        },
        _ => false,
    }
}

/// Whether the server may answer in a moment.
fn is_away(error: &FeedError) -> bool {
    matches!(error, FeedError::Trust(TrustError::Fetch { source }) if source.is_passing())
}

/// What is refused is told as what it is: an Afterhours that its makers do not vouch for.
fn doubtful(error: FeedError) -> FeedError {
    match error {
        FeedError::Trust(source) if source.is_refusal() => FeedError::NotVouchedFor { source: Box::new(source) },
        error => error,
    }
}

/// The directory that an address of ours stands for.
pub(super) fn dir_of(url: &Url) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten()
}

/// Copies the archives of a release from a directory that anybody may have written; each is what was signed, or is not there.
pub(super) async fn copy_archives(from: &Path, downloads: &Path, release: &Release) -> Result<(), FeedError> {
    for archive in release.archives.clone() {
        if download::opened(downloads, &archive).file.is_ok() {
            continue;
        }
        let folder = from.join("targets");
        let named = |name: String| below_dir(&folder, &format!("{}/{name}", release.location.display()));
        let (hashed, plain) = (named(format!("{}.{}", archive.sha256, archive.file)), named(archive.file.clone()));
        let path = if hashed.exists() { hashed } else { plain };
        let into = downloads.join(&archive.sha256);
        on_thread(&path.clone(), move || copy_archive(&path, &into, archive.size_bytes)).await??;
    }
    Ok(())
}

/// No more than was signed. The hash is looked at when it is unpacked, as with every download.
fn copy_archive(from: &Path, into: &Path, size_bytes: u64) -> Result<(), FeedError> {
    let unread = |source| FeedError::ReadArchive { file: from.to_owned(), source };
    let unmade = |source| FeedError::Make { path: into.to_owned(), source };
    let file = open_file(from).map_err(unread)?;
    if !file.metadata().map_err(unread)?.is_file() {
        return Err(unread(std::io::ErrorKind::InvalidInput.into()));
    }
    let part = into.with_extension("carried");
    let mut out = std::fs::File::create(&part).map_err(unmade)?;
    std::io::copy(&mut std::io::Read::take(file, size_bytes), &mut out).map_err(unmade)?;
    out.sync_all().map_err(unmade)?;
    std::fs::rename(&part, into).map_err(unmade)
}
