//! Everything a run needs of one application: its settings and its adapters.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::backup::BackupGate;
use crate::config::settings::AppSettings;
use crate::domain::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::domain::release::Installed;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::domain::release::Word;
use crate::domain::run::RunId;
use crate::feed::Feed;
use crate::feed::FeedHome;
use crate::feed::select::place;
use crate::gate::GateDrivers;
use crate::install::InstallError;
use crate::install::Installer;
use crate::jobs::steps::failed;
use crate::probe::Probe;
use crate::probe::ProbeError;
use crate::renewal::Renewal;
use crate::renewal::RenewalError;
use crate::service::Service;
use crate::sessions::Sessions;
use crate::sessions::hub::Hub;

/// The adapters of one application.
#[derive(Debug)]
pub struct Kit {
    /// As the administrator describes it.
    pub app: AppSettings,
    /// Its releases.
    pub feed: Feed,
    /// Its program and data on disk.
    pub installer: Installer,
    /// Its processes.
    pub service: Service,
    /// Its health.
    pub probe: Probe,
    /// Its backups; none are demanded when absent.
    pub backup: Option<BackupGate>,
    /// Its users.
    pub sessions: Sessions,
    /// What closes with its gate.
    pub gate: GateDrivers,
    /// The way to the next Afterhours; one for all applications.
    pub renewal: Arc<Renewal>,
    /// The random number of this site, once one was drawn.
    pub site: Option<Arc<str>>,
    /// Where what must be known of it is kept.
    pub state_dir: PathBuf,
}

/// The adapters of an application cannot be put together.
#[derive(Debug, Error)]
pub enum KitError {
    /// The health settings cannot be used.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The root of trust for Afterhours itself cannot be relied on.
    #[error(transparent)]
    Root(#[from] RenewalError),
}

impl Kit {
    /// Puts the adapters of `app` together.
    ///
    /// # Errors
    /// The health settings cannot be used, or the root of trust for Afterhours itself cannot be relied on.
    pub fn new(
        app: &AppSettings,
        data_dir: &Path,
        site: Option<Arc<str>>,
        hub: &Arc<Hub>,
        clock: SharedClock,
        renewal: &Arc<Renewal>,
    ) -> Result<Self, KitError> {
        let state_dir = state_dir(data_dir, &app.name);
        // Where Afterhours does not update itself, nobody vouches for it.
        let updater_root = renewal.root_to_look_by()?;
        let home =
            FeedHome { deltas: app.updates.deltas, updater_root, ..FeedHome::new(&state_dir, &app.staging_dir, clock) };
        Ok(Self {
            feed: Feed::new(&app.feed, home),
            installer: Installer::new(app),
            service: Service::new(app, &state_dir),
            probe: Probe::new(&app.health)?,
            backup: app.backup.as_ref().map(|backup| BackupGate::new(&app.name, backup)),
            sessions: Sessions::new(app, Arc::clone(hub)),
            gate: GateDrivers::new(app),
            renewal: Arc::clone(renewal),
            site,
            app: app.clone(),
            state_dir,
        })
    }

    /// Where the store is.
    pub fn data_dir(&self) -> &Path {
        self.state_dir.ancestors().nth(2).unwrap_or(&self.state_dir)
    }

    /// What is installed: what the tree says, else what the administrator says, else what the running
    /// application answers.
    ///
    /// A tree that we did not put there does not know its build: it is found among `releases`, all that the feed has.
    ///
    /// # Errors
    /// The tree's own word cannot be read, or the version that was told has no place among the releases.
    pub async fn installed(&self, releases: &[Release]) -> Result<Option<Installed>, Failure> {
        let marked = self.installer.installed_by().await.map_err(|error| failed(&error, error.hint()))?;
        if marked.is_some() {
            return Ok(marked);
        }
        let Some((version, word)) = self.version_told().await else { return Ok(None) };
        let id = place(&version, releases).map_err(|error| failed(&error, error.hint()))?;
        Ok(Some(Installed { id, word }))
    }

    /// The same for somebody who only looks: an interrupted exchange is left as it is, and no server is asked, which may be
    /// away and take its time. A version that has no place among the releases that are known here has the build 0.
    ///
    /// # Errors
    /// The tree's own word cannot be read.
    pub async fn installed_as_it_stands(&self) -> Result<Option<Installed>, InstallError> {
        let marked = self.installer.marked().await?;
        if marked.is_some() {
            return Ok(marked);
        }
        let Some((version, word)) = self.version_told().await else { return Ok(None) };
        let placed = place(&version, &self.feed.known_releases().await);
        Ok(Some(Installed { id: placed.unwrap_or(ReleaseId { version, build: 0 }), word }))
    }

    async fn version_told(&self) -> Option<(Version, Word)> {
        if let Some(version) = &self.app.installed_version {
            return Some((version.clone(), Word::Administrator));
        }
        let answer = self.probe.ask(None, &BTreeMap::new()).await.ok()?;
        Some((answer.version?.parse().ok()?, Word::Application))
    }

    /// The variables for whoever asks the version that is installed, before a run and after a rollback.
    pub fn standing_env(&self, run: RunId, installed: Option<&ReleaseId>) -> BTreeMap<String, String> {
        self.hook_env(run, installed, installed)
    }

    /// The variables every hook sees.
    pub fn hook_env(&self, run: RunId, from: Option<&ReleaseId>, to: Option<&ReleaseId>) -> BTreeMap<String, String> {
        let version = |id: Option<&ReleaseId>| id.map(|id| id.version.to_string()).unwrap_or_default();
        BTreeMap::from([
            ("AFTERHOURS_APP".to_owned(), self.app.name.to_string()),
            ("AFTERHOURS_RUN".to_owned(), run.to_string()),
            ("AFTERHOURS_FROM".to_owned(), version(from)),
            ("AFTERHOURS_TO".to_owned(), version(to)),
            ("AFTERHOURS_INSTALL_DIR".to_owned(), self.app.install_dir.to_string_lossy().into_owned()),
        ])
    }
}

/// Where what must be known of an application's processes is kept.
pub fn state_dir(data_dir: &Path, app: &AppName) -> PathBuf {
    data_dir.join("apps").join(app.as_str())
}

/// The kits of all applications, and what they share.
pub type Kits = BTreeMap<AppName, Arc<Kit>>;

/// The clock everybody shares.
pub type SharedClock = Arc<dyn Clock>;
