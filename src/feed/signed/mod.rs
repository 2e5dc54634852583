//! Releases from a vendor's web server that nobody has to trust: The Update Framework (TUF 1.0).
//!
//! ```text
//!            root.json  by a way a person trusts (`trust`)
//!                │
//! releases() ──► refresh ──► which releases, with the hash of every file
//! stage()    ──► files by their hash into downloads/ ──► the same staging as for a directory
//! ```
//!
//! - `trust` verifies, with the crate `sigstore-tuf`; `store` keeps what is trusted; `remote` fetches.
//! - `releases` makes releases of it; `download` brings their archives. `error` says what was refused.
//! - `carried` is what a feed carries of Afterhours itself: the same, with a root that its vendor has no key of.
//! - `offline` writes and takes a feed in one file (`bundle`), for sites without a network.
//! - [`tuf_client`] is the same client without an application, as the public conformance suite asks for it.
//!
//! *Invariant:* nothing is used that the metadata did not vouch for at the time it was asked; what was refused leaves
//! no trace beside what was verified before it.

mod bundle;
mod carried;
mod download;
mod error;
mod offline;
mod releases;
mod remote;
mod store;
mod trust;
pub mod tuf_client;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use tokio::sync::Mutex;

pub use crate::feed::signed::error::TrustError;
pub use crate::feed::signed::offline::Taken;
pub use crate::feed::signed::trust::RootCard;

pub(in crate::feed) use crate::feed::signed::carried::CARRIED;
pub(in crate::feed) use crate::feed::signed::carried::Carried;
pub(in crate::feed) use crate::feed::signed::error::to_jiff;
pub(in crate::feed) use crate::feed::signed::releases::RELEASES_MAX;
pub(in crate::feed) use crate::feed::signed::releases::listed;
pub(in crate::feed) use crate::feed::signed::trust::root_card;

use crate::config::settings::SignedFeedSettings;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::progress::Progress;
use crate::domain::release::Archive;
use crate::domain::release::Release;
use crate::domain::span::Span;
use crate::feed::FeedHome;
use crate::feed::UPDATERS;
use crate::feed::dir;
use crate::feed::error::FeedError;
use crate::feed::signed::download::Bringing;
use crate::feed::signed::releases::Folder;
use crate::feed::signed::releases::Listed;
use crate::feed::signed::releases::Reader;
use crate::feed::signed::releases::kept_releases;
use crate::feed::signed::remote::Remote;
use crate::feed::signed::store::Metadata;
use crate::feed::stage;
use crate::feed::transport::Limits;
use crate::feed::transport::Transport;
use crate::feed::transport::TransportError;

/// What was verified so recently is not asked for again: one preflight asks several times.
const FRESH: TimeDelta = TimeDelta::seconds(30);
/// How long before the metadata run out somebody should look. A vendor whose timestamp holds for a day signs it anew when a third
/// of that is left.
const SOON: TimeDelta = TimeDelta::hours(6);

/// How long one question may take as a whole, however little the server gives at a time. Less than others wait for the lock.
const ASK_MAX: Span = Span::mins(4);

/// What is known without asking: for [`FRESH`] after the server answered, or did not.
#[derive(Debug, Default)]
struct Known {
    listed: BTreeMap<Folder, (DateTime<Utc>, Listed)>,
    away: Option<(DateTime<Utc>, Arc<TransportError>)>,
}

impl Known {
    fn forget_what_is_stale(&mut self, now: DateTime<Utc>) {
        let is_fresh = |at: DateTime<Utc>| (at..at + FRESH).contains(&now);
        self.listed.retain(|_, (at, listed)| is_fresh(*at) && now <= listed.good_until);
        self.away = self.away.take().filter(|(at, _)| is_fresh(*at));
    }
}

/// A signed feed and what is kept of it.
#[derive(Debug, Clone)]
pub struct SignedFeed {
    settings: SignedFeedSettings,
    home: FeedHome,
    /// The first root to trust, where it is none of the settings'.
    anchor: Option<Arc<[u8]>>,
    /// What it carries of Afterhours itself: a feed of its own, with a root of its own.
    carried: Option<Box<Carried>>,
    /// What the last refreshes came to.
    known: Arc<Mutex<Known>>,
}

impl SignedFeed {
    /// The feed that the settings describe. Nothing is looked at yet.
    pub fn new(settings: &SignedFeedSettings, home: FeedHome) -> Self {
        let known = Arc::default();
        let carried = Carried::on_the_web(settings, &home, &known).map(Box::new);
        Self { settings: settings.clone(), home, anchor: None, carried, known }
    }

    /// All releases, ascending by build, as the metadata vouch for them now.
    ///
    /// # Errors
    /// The server cannot be reached, or what it says is refused.
    pub async fn releases(&self) -> Result<Vec<Release>, FeedError> {
        Ok(self.listed(Folder::Releases).await?.releases)
    }

    /// What it carries of Afterhours itself.
    pub(in crate::feed) fn carried(&self) -> Option<&Carried> {
        self.carried.as_deref()
    }

    /// See [`crate::feed::Feed::updaters`].
    ///
    /// # Errors
    /// As for [`SignedFeed::releases`].
    pub async fn updaters(&self) -> Result<Vec<Release>, FeedError> {
        match &self.carried {
            Some(carried) => carried.releases().await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether the feed's own keys vouch for an Afterhours, which they cannot.
    pub(in crate::feed) async fn vouches_for_updaters(&self) -> bool {
        self.listed(Folder::Releases).await.is_ok_and(|listed| listed.names_updaters)
    }

    /// Asks the server in any case; until when the answer holds.
    ///
    /// # Errors
    /// As for [`SignedFeed::releases`].
    pub async fn refresh(&self) -> Result<DateTime<Utc>, FeedError> {
        *self.known.lock().await = Known::default();
        let listed = self.listed(Folder::Releases).await?;
        match listed.away {
            Some(away) => Err(TrustError::Away { feed: self.settings.url.to_string(), source: away }.into()),
            None => Ok(listed.good_until),
        }
    }

    async fn listed(&self, folder: Folder) -> Result<Listed, FeedError> {
        // Whoever comes meanwhile waits here and then finds it known.
        let mut known = self.known.lock().await;
        known.forget_what_is_stale(self.home.clock.now());
        if let Some((_, listed)) = known.listed.get(&folder) {
            return Ok(listed.clone());
        }
        let _lock = trust::lock(&self.home.state_dir.join("lock")).await?;
        let (root, now) = (self.root()?, self.home.clock.now());
        // Who was away a moment ago is not waited for once more, whichever folder is looked into.
        if let Some((_, away)) = &known.away {
            return self.listed_without(&root, folder, away, now).await;
        }
        match self.ask(&root, folder, now).await {
            Err(FeedError::Trust(TrustError::Fetch { source })) if source.is_passing() => {
                // From now on: waiting for it may have taken longer than what is known is fresh.
                known.away = Some((self.home.clock.now(), Arc::clone(&source)));
                self.listed_without(&root, folder, &source, now).await
            }
            asked => {
                let listed = asked?;
                known.listed.insert(folder, (self.home.clock.now(), listed.clone()));
                Ok(listed)
            }
        }
    }

    /// What the server says; the lock is held.
    async fn ask(&self, root: &[u8], folder: Folder, now: DateTime<Utc>) -> Result<Listed, FeedError> {
        let remote = match carried::dir_of(&self.settings.url) {
            Some(dir) => Remote::dir(dir),
            None => {
                let transport = Transport::with_limits(&self.settings.transport, Limits::QUESTION)?;
                Remote::below(transport, &self.settings.url)
            }
        };
        let asked = tokio::time::timeout(ASK_MAX.duration(), self.read_from(root, folder, remote, now)).await;
        asked.unwrap_or_else(|_| {
            let (url, stage) = (self.settings.url.to_string(), "get all metadata");
            Err(TrustError::from_transport(TransportError::Silent { url, stage, waited: ASK_MAX }).into())
        })
    }

    /// What was verified before holds until it runs out; the server may be away so long and no longer.
    async fn listed_without(
        &self,
        root: &[u8],
        folder: Folder,
        away: &Arc<TransportError>,
        now: DateTime<Utc>,
    ) -> Result<Listed, FeedError> {
        match self.read_from(root, folder, Remote::kept(self.metadata_dir()), now).await {
            Ok(listed) => Ok(Listed { away: Some(Arc::clone(away)), ..listed }),
            Err(_) => Err(TrustError::Fetch { source: Arc::clone(away) }.into()),
        }
    }

    /// Verifies what a source says, and keeps it; the lock is held.
    async fn read_from(
        &self,
        root: &[u8],
        folder: Folder,
        remote: Remote,
        now: DateTime<Utc>,
    ) -> Result<Listed, FeedError> {
        let metadata = Metadata::new(&self.metadata_dir(), true);
        let (updater, trouble) = trust::refresh(root, metadata, remote.clone(), now).await?;
        let good_until = trust::good_until(updater.trusted());
        let dir = self.descriptions(folder);
        let read = Reader { updater, remote: &remote, folder, dir: &dir, now }.read(good_until).await;
        match trouble.take() {
            Some(error) => Err(error.into()),
            None => read,
        }
    }

    fn descriptions(&self, folder: Folder) -> PathBuf {
        self.home.state_dir.join(match folder {
            Folder::Releases => "descriptions",
            Folder::Updaters => UPDATERS,
        })
    }

    /// The trusted root, else the first one that the settings name.
    fn root(&self) -> Result<Vec<u8>, TrustError> {
        let anchor = self.anchor.as_ref();
        match (trust::trusted_root(&self.metadata_dir())?, &self.settings.root) {
            (Some(trusted), _) => Ok(trusted),
            (None, Some(file)) => trust::named_root(file),
            (None, None) => anchor
                .map(|anchor| anchor.to_vec())
                .ok_or_else(|| TrustError::NoRoot { feed: self.settings.url.to_string() }),
        }
    }

    /// The root that is trusted now, if any is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn trusted(&self) -> Result<Option<RootCard>, FeedError> {
        let root = trust::trusted_root(&self.metadata_dir())?;
        Ok(root.map(|bytes| trust::root_card(&bytes)).transpose()?)
    }

    /// What the root in a file says of itself.
    ///
    /// # Errors
    /// It cannot be read, or does not prove itself.
    pub fn look_at_root(file: &Path) -> Result<RootCard, FeedError> {
        Ok(trust::root_card(&trust::named_root(file)?)?)
    }

    /// Trusts the root in a file from now on, whatever was trusted before.
    ///
    /// # Errors
    /// It cannot be read, does not prove itself, or cannot be kept.
    pub async fn trust(&self, file: &Path) -> Result<(), FeedError> {
        let bytes = trust::named_root(file)?;
        *self.known.lock().await = Known::default();
        let _lock = trust::lock(&self.home.state_dir.join("lock")).await?;
        let path = self.metadata_dir().join(store::ROOT);
        store::keep(&path, &bytes).map_err(|source| TrustError::Keep { path, source })?;
        Ok(())
    }

    /// Whether there is a root, the server can be reached and is believed, and what is in the feed.
    pub async fn check(&self) -> Vec<Finding> {
        let listed = match self.listed(Folder::Releases).await {
            Ok(listed) => listed,
            Err(error) => {
                let check = match &error {
                    FeedError::Trust(TrustError::NoRoot { .. } | TrustError::BadRoot { .. }) => "feed_root",
                    FeedError::Trust(TrustError::Load { .. } | TrustError::Torn { .. }) => "feed_trusted",
                    FeedError::Trust(refused) if refused.is_refusal() => "feed_trusted",
                    FeedError::Trust(_) | FeedError::Transport(_) => "feed_reachable",
                    _ => "feed_releases",
                };
                let remedy = error.hint().unwrap_or_else(|| "look into the feed".to_owned());
                return vec![Finding::fatal(check, format!("failed to {}", Failure::from_error(&error)), remedy)];
            }
        };
        let url = &self.settings.url;
        let until = listed.good_until.format("%Y-%m-%d %H:%M UTC");
        let mut findings = vec![match &listed.away {
            None => Finding::good("feed_reachable", format!("the feed {url} can be reached and is trusted")),
            Some(_) => Finding::warning(
                "feed_reachable",
                format!("the feed {url} cannot be reached; what was verified before is used, it holds until {until}"),
                "check the network, or bring a bundle: `afterhours feed refresh APP --bundle FILE`",
            ),
        }];
        findings.push(if listed.good_until - self.home.clock.now() < SOON {
            let remedy = "ask the vendor whether it is signed anew in time; a run after that would be refused";
            Finding::warning("feed_fresh", format!("the feed's signatures hold only until {until}"), remedy)
        } else {
            Finding::good("feed_fresh", format!("the feed's signatures hold until {until}"))
        });
        let mut readable = listed.releases.iter().filter(|release| release.unreadable.is_none());
        let count = readable.clone().count();
        findings.push(match readable.next_back() {
            None => Finding::warning(
                "feed_releases",
                format!("the feed {url} has no release"),
                "ask the vendor, or correct feed.url",
            ),
            Some(newest) => {
                let noun = if count == 1 { "release" } else { "releases" };
                Finding::good("feed_releases", format!("the feed has {count} {noun}; the newest is {}", newest.id))
            }
        });
        findings.extend(dir::unreadable(&listed.releases));
        findings
    }

    /// See [`crate::feed::Feed::stage`]. What is downloaded already needs no network. An archive that turns out to be damaged
    /// is brought once more.
    ///
    /// # Errors
    /// As there, or an archive cannot be fetched.
    pub async fn stage(&self, release: &Release, into: &Path, progress: Arc<dyn Progress>) -> Result<(), FeedError> {
        let damaged = match self.try_stage(release, into, &progress).await {
            Err(FeedError::WrongHash { file, .. } | FeedError::WrongSize { file, .. }) => file,
            staged => return staged,
        };
        tracing::warn!(path = %damaged.display(), "what was downloaded is damaged; it is fetched anew");
        // Somebody else may have come to the same conclusion.
        download::remove_if_there(&damaged)?;
        self.try_stage(release, into, &progress).await
    }

    async fn try_stage(&self, release: &Release, into: &Path, progress: &Arc<dyn Progress>) -> Result<(), FeedError> {
        self.download(release, Arc::clone(progress)).await?;
        let downloads = self.home.downloads_dir.clone();
        let open = move |archive: &Archive| download::opened(&downloads, archive);
        stage::stage(release.clone(), into.to_owned(), Arc::clone(progress), Arc::new(open)).await
    }

    /// Brings every archive of a release that is not there yet: by a small download where that goes, else whole.
    ///
    /// # Errors
    /// The server cannot be reached or does not behave, or there is no room.
    pub async fn download(&self, release: &Release, progress: Arc<dyn Progress>) -> Result<(), FeedError> {
        let dir = &self.home.downloads_dir;
        self.make_downloads_dir()?;
        if let Some(from) = carried::dir_of(&self.settings.url) {
            return carried::copy_archives(&from, dir, release).await;
        }
        let (transport, base) = (Transport::new(&self.settings.transport)?, &self.settings.url);
        let descriptions = self.descriptions(Folder::of(release));
        Bringing {
            transport: &transport,
            base,
            downloads: dir,
            descriptions: &descriptions,
            deltas: self.home.deltas,
            release,
        }
        .all(&progress)
        .await
    }

    /// See [`crate::feed::Feed::known_releases`].
    pub fn known_releases(&self) -> Vec<Release> {
        self.kept(Folder::Releases)
    }

    /// See [`crate::feed::Feed::known_updaters`].
    pub fn known_updaters(&self) -> Vec<Release> {
        self.carried.as_ref().map(|carried| carried.known()).unwrap_or_default()
    }

    /// Gives back the room of all downloads that neither these releases need nor newer ones of the application that are known.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn retain(&self, keep: &[Release], updaters: &[Release]) -> Result<(), FeedError> {
        // What is newer waits for its turn, perhaps from a bundle, and could not be fetched again.
        let newest = keep.iter().map(|release| release.id.build).max();
        let mut waiting = self.known_releases();
        waiting.retain(|release| newest.is_some_and(|newest| release.id.build > newest));
        let needed = download::names(keep.iter().chain(&waiting).chain(updaters));
        download::sweep(&self.home.downloads_dir, |name| !needed.contains(name))
    }

    /// See [`crate::feed::Feed::retain_updaters`].
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn retain_updaters(&self, updaters: &[Release]) -> Result<(), FeedError> {
        let known = self.known_updaters();
        let (given_back, needed) = (download::names(&known), download::names(updaters));
        download::sweep(&self.home.downloads_dir, |name| given_back.contains(name) && !needed.contains(name))
    }

    fn kept(&self, folder: Folder) -> Vec<Release> {
        kept_releases(&self.descriptions(folder), folder)
    }

    fn metadata_dir(&self) -> PathBuf {
        self.home.state_dir.join("metadata")
    }
}
