//! Puts a new program tree in place and back, and keeps a copy of the data for that way back.
//!
//! ```text
//! while people work            after the stop                              failure
//! ─────────────────            ──────────────                              ───────
//! prepare   owner, fsync       snapshot  what changed since                restore    data as they were
//! snapshot_ahead  copy data    swap      carry kept files, exchange        swap_back  exchange again
//!                              … commit: retire                            … then: discard
//! ```
//!
//! Invariants: every function may be interrupted at any point, by a kill or a power cut, and is then simply
//! called again. The old tree and the copies are only read until retention removes them. At every moment
//! `install_dir` is a whole tree, or [`Installer`] makes it one at its next call. Work that nobody waits for
//! any more ends soon, and the next call waits for that.
//!
//! `layout.rs` says where everything lies. Deliberately absent: starting and stopping, downloading, and
//! any decision about when.

mod anchor;
mod carry;
mod check;
mod claim;
mod dumped;
mod durable;
mod error;
mod exchange;
mod for_root;
mod hold;
mod index;
mod keep;
mod layout;
mod marks;
mod measure;
mod mirror;
mod openers;
mod owner;
mod place;
mod prepare;
mod preview;
mod quota;
mod remove;
mod restore;
mod retire;
mod scope;
mod snapshot;
mod state;
mod swap;
mod trash;
mod tree;
mod trees;
mod trial;
mod untouched;
mod walk;
mod work;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::settings::AppSettings;
use crate::config::settings::DataSettings;
use crate::domain::command::Command;
use crate::domain::finding::Finding;
use crate::domain::progress::Progress;
use crate::domain::release::Installed;
use crate::domain::release::MARKER;
use crate::domain::release::ReleaseId;
use crate::domain::run::RunId;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::ExecError;
use crate::exec::permit;
use crate::exec::permit::Refusal;
use crate::files::trusted::trusted_file;
use crate::install::keep::Keep;
use crate::install::layout::Layout;
use crate::install::owner::Owner;
use crate::install::remove::Stays;
use crate::install::snapshot::Pass;

pub use crate::install::check::SpaceNeed;
pub use crate::install::claim::Claim;
pub use crate::install::claim::Claimed;
pub use crate::install::claim::Holder;
pub use crate::install::claim::held_by_others;
pub use crate::install::error::InstallError;
pub use crate::install::exchange::Exchange;
pub use crate::install::layout::hold_path;
pub use crate::install::preview::LISTED_MAX;
pub use crate::install::preview::Listing;
pub use crate::install::preview::SwapPreview;
pub use crate::install::restore::RestoreReport;
pub use crate::install::snapshot::SnapshotReport;
pub use crate::install::state::SnapshotInfo;
pub use crate::install::state::SnapshotPhase;
pub use crate::install::swap::SwapReport;

/// How long we wait for another process that exchanges the same directories.
const BUSY_WAIT: Duration = Duration::from_secs(30);
/// How often we look whether it is done.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// Everything that is done to the files of one application.
#[derive(Debug, Clone)]
pub struct Installer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    app: AppSettings,
    layout: Layout,
    exchange: Exchange,
    env: BTreeMap<String, String>,
    /// Held by whatever changes something.
    serial: Mutex<()>,
}

/// What stays although it should not.
#[derive(Debug)]
pub struct Left {
    /// Which entries, in words; empty where nothing stays.
    pub entries: String,
    /// Why the first of them stays.
    pub because: Option<InstallError>,
}

impl Left {
    fn of(stays: Stays) -> Self {
        Self { entries: stays.entries.told(), because: stays.because }
    }
}

fn refused(what: &'static str, command: &Command, source: Refusal) -> InstallError {
    let source = ExecError::Refused { program: command.program().to_owned(), source: Box::new(source) };
    InstallError::Command { what, source }
}

/// Tells work that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Installer {
    /// The installation of one application. Share it by cloning: calls of clones wait for each other.
    pub fn new(app: &AppSettings) -> Self {
        Self::with(app, Exchange::default(), BTreeMap::new())
    }

    /// The same, with the way directories are exchanged, and with variables that the data commands see.
    pub fn with(app: &AppSettings, exchange: Exchange, env: BTreeMap<String, String>) -> Self {
        Self(Arc::new(Inner { layout: Layout::new(app), app: app.clone(), exchange, env, serial: Mutex::new(()) }))
    }

    /// Where the tree of a release is unpacked; after the swap, where the tree of before is.
    pub fn staged_path(&self, id: &ReleaseId) -> PathBuf {
        self.0.layout.staged(id)
    }

    /// Where the snapshot of a run is; the commands that dump and restore are given a path below it.
    pub fn snapshot_path(&self, run: RunId) -> PathBuf {
        self.0.layout.snapshot(run)
    }

    /// Which release is in place, by our own record; of a tree that we have not put there, what it says of itself.
    ///
    /// # Errors
    /// The tree cannot be read, or an interrupted exchange cannot be finished.
    pub async fn installed(&self) -> Result<Option<ReleaseId>, InstallError> {
        Ok(self.installed_by().await?.map(|installed| installed.id))
    }

    /// The same, and whose word it is.
    ///
    /// # Errors
    /// As for [`installed`](Self::installed).
    pub async fn installed_by(&self) -> Result<Option<Installed>, InstallError> {
        self.work(|inner, _| trees::installed(&inner.layout)).await
    }

    /// Why what the tree in place says of itself may be somebody's invention; nothing where only root can change it.
    pub async fn marker_flaw(&self) -> Option<String> {
        let looked = self.block(|inner, _| Ok(trusted_file(&inner.layout.install_dir.join(MARKER)).err()));
        looked.await.ok().flatten().map(|error| error.to_string())
    }

    /// Which release the tree in place says it is. Other than [`installed`](Self::installed), it changes nothing: an
    /// interrupted exchange is left as it is, and then there may be no tree.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub async fn marked(&self) -> Result<Option<Installed>, InstallError> {
        self.block(|inner, _| match place::open(&inner.layout, &inner.app.name) {
            Ok(()) => match trees::installed(&inner.layout) {
                // Our own folder is open to root only.
                Err(InstallError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    trees::claimed(&inner.layout.install_dir)
                }
                answer => answer,
            },
            // What stands there may be anybody's word; so is the tree's own.
            Err(_) => trees::claimed(&inner.layout.install_dir),
        })
        .await
    }

    /// Whether `id` is in place.
    ///
    /// # Errors
    /// As for [`installed`](Self::installed).
    pub async fn is_swapped(&self, id: &ReleaseId) -> Result<bool, InstallError> {
        // Only our own record counts: a tree that calls itself the new release must not spare itself the swap.
        let known = self.work(|inner, _| trees::known(&inner.layout)).await?;
        Ok(known.as_ref() == Some(id))
    }

    /// Does the expensive part of [`swap`](Self::swap) while people work: owner, a first copy of what is kept, everything
    /// new made durable. Quick when done.
    ///
    /// # Errors
    /// There is no such staged tree, or it cannot be changed.
    pub async fn prepare(&self, id: &ReleaseId) -> Result<(), InstallError> {
        let (id, owner) = (id.clone(), self.owner()?);
        self.change(move |inner, _| swap::prepare(&inner.layout, &id, owner, &Keep::of(&inner.app)?)).await
    }

    /// Makes a copy of what the vendor shipped as `id` that is root's, for a migration that must run as root.
    ///
    /// # Errors
    /// The release is not staged, or the copy cannot be made.
    pub async fn copy_for_root(&self, id: &ReleaseId) -> Result<(), InstallError> {
        let id = id.clone();
        self.change(move |inner, cancelled| for_root::copy(&inner.layout, &id, cancelled)).await
    }

    /// Where that copy is.
    pub fn path_for_root(&self, id: &ReleaseId) -> PathBuf {
        for_root::path(&self.0.layout, id)
    }

    /// Carries over what is kept and puts the staged tree of `id` in place. Done already, it only tells.
    ///
    /// # Errors
    /// There is no such staged tree, or it cannot be put in place; then the old one is.
    pub async fn swap(&self, id: &ReleaseId) -> Result<SwapReport, InstallError> {
        let (id, owner) = (id.clone(), self.owner()?);
        self.change(move |inner, _| swap::swap(&inner.layout, &id, owner, &Keep::of(&inner.app)?, inner.exchange)).await
    }

    /// Puts the tree of before the swap to `id` in place again; nothing when `id` is not in place.
    ///
    /// # Errors
    /// The old tree is gone, or cannot be put in place.
    pub async fn swap_back(&self, id: &ReleaseId) -> Result<(), InstallError> {
        let id = id.clone();
        self.change(move |inner, _| swap::swap_back(&inner.layout, &id, inner.exchange)).await
    }

    /// What [`swap`](Self::swap) would do to the files. Changes nothing.
    ///
    /// # Errors
    /// There is no such staged tree, or one of the trees cannot be read.
    pub async fn preview(&self, id: &ReleaseId) -> Result<SwapPreview, InstallError> {
        let id = id.clone();
        self.work(move |inner, cancelled| preview::preview(&inner.layout, &id, &Keep::of(&inner.app)?, cancelled)).await
    }

    /// First pass of the snapshot, while people work. Nothing to do for data that a command dumps.
    ///
    /// # Errors
    /// Data cannot be read or copied; a full disk leaves nothing behind.
    pub async fn snapshot_ahead(
        &self,
        run: RunId,
        progress: Arc<dyn Progress>,
    ) -> Result<SnapshotReport, InstallError> {
        match &self.0.app.data {
            DataSettings::Dump { .. } => Ok(SnapshotReport::default()),
            DataSettings::Paths { .. } => self.pass(run, Pass::Ahead, progress).await,
        }
    }

    /// Second pass, after the stop: only what changed since the first. When it returns, the snapshot is complete and durable.
    ///
    /// # Errors
    /// Data cannot be read, copied, dumped or verified, or a restore from this snapshot is unfinished.
    pub async fn snapshot(&self, run: RunId, progress: Arc<dyn Progress>) -> Result<SnapshotReport, InstallError> {
        match &self.0.app.data {
            DataSettings::Paths { .. } => self.pass(run, Pass::Final, progress).await,
            DataSettings::Dump { dump, verify, deadline, .. } => self.dump(run, dump, verify.as_ref(), *deadline).await,
        }
    }

    async fn pass(&self, run: RunId, pass: Pass, progress: Arc<dyn Progress>) -> Result<SnapshotReport, InstallError> {
        self.change(move |inner, cancelled| {
            snapshot::pass(&inner.layout, &inner.app, run, pass, progress.as_ref(), cancelled)
        })
        .await
    }

    async fn dump(
        &self,
        run: RunId,
        dump: &Command,
        verify: Option<&Command>,
        deadline: Span,
    ) -> Result<SnapshotReport, InstallError> {
        let by = dump.clone();
        let begun = self.change(move |inner, _| {
            let account = permit::account_of(&by).map_err(|source| refused("dump", &by, source))?;
            snapshot::begin_dump(&inner.layout, run, &account)
        });
        let path = begun.await?;
        self.command("dump", dump, &path, deadline).await?;
        if let Some(verify) = verify {
            self.command("verify", verify, &path, deadline).await?;
        }
        self.change(move |inner, _| snapshot::end_dump(&inner.layout, run, &path)).await
    }

    /// Puts the data back as they were at the snapshot. Can be done again, also after an interruption.
    ///
    /// # Errors
    /// There is no complete snapshot, or the data cannot be written; then it must be done again.
    pub async fn restore(&self, run: RunId) -> Result<RestoreReport, InstallError> {
        let state = self.work(move |inner, _| restore::usable(&inner.layout, run)).await?;
        match (&self.0.app.data, state.dump) {
            (DataSettings::Dump { restore, deadline, .. }, Some(path)) => {
                let by = restore.clone();
                let begun = self.change(move |inner, _| {
                    let account = permit::account_of(&by).map_err(|source| refused("restore", &by, source))?;
                    restore::begin_dump(&inner.layout, run, &account)
                });
                begun.await?;
                self.command("restore", restore, &path, *deadline).await?;
                self.change(move |inner, _| restore::end_dump(&inner.layout, run)).await
            }
            (DataSettings::Paths { .. }, Some(_)) => Err(InstallError::NoSnapshot { run }),
            (_, None) => {
                self.change(move |inner, cancelled| {
                    restore::restore(&inner.layout, run, &crate::domain::progress::Silent, cancelled)
                })
                .await
            }
        }
    }

    /// After a success along `path`: the tree of before the run becomes `<install_dir>_old`; what retention does not keep
    /// goes out of the way, for [`empty_trash`](Self::empty_trash). The answer is what does not.
    ///
    /// # Errors
    /// The last release of `path` is not in place, or the tree of before cannot be kept.
    pub async fn retire(&self, run: RunId, path: &[ReleaseId]) -> Result<Left, InstallError> {
        let path = path.to_vec();
        self.change(move |inner, _| retire::retire(&inner.layout, inner.app.keep_old, run, &path)).await.map(Left::of)
    }

    /// After a rollback: the trees that were in place for a while and the run's snapshot go out of the way, for
    /// [`empty_trash`](Self::empty_trash). The answer is what does not.
    ///
    /// # Errors
    /// The staging folder cannot be looked through.
    pub async fn discard(&self, run: RunId) -> Result<Left, InstallError> {
        self.change(move |inner, _| retire::discard(&inner.layout, run)).await.map(Left::of)
    }

    /// Removes what went out of the way, and tells what cannot be removed. Takes as long as it takes; drop the future to
    /// leave the rest for later. A run may begin meanwhile.
    ///
    /// # Errors
    /// The staging folder cannot be looked through.
    pub async fn empty_trash(&self) -> Result<Left, InstallError> {
        self.placed(|inner, cancelled| trash::empty(&inner.layout, cancelled)).await.map(Left::of)
    }

    /// Gives up what is left of the snapshot of a run that was over long ago, unless it was being restored.
    ///
    /// # Errors
    /// That cannot be written down.
    pub async fn forget(&self, run: RunId) -> Result<(), InstallError> {
        self.change(move |inner, _| retire::forget(&inner.layout, run)).await
    }

    /// All snapshots there are. Changes nothing.
    ///
    /// # Errors
    /// The staging folder cannot be read.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>, InstallError> {
        self.placed(|inner, _| state::infos(&inner.layout)).await
    }

    /// Makes sure that the staging folder is root's alone; whoever puts something there by itself asks before.
    ///
    /// # Errors
    /// It is not.
    pub async fn place(&self) -> Result<(), InstallError> {
        self.placed(|_, _| Ok(())).await
    }

    /// Places of ours that others than root can change. What [`check`](Self::check) finds counts only where there are none.
    pub async fn check_places(&self) -> Vec<Finding> {
        self.block(|inner, _| Ok(place::check(&inner.layout, &inner.app))).await.unwrap_or_default()
    }

    /// Looks for what would make a run fail.
    pub async fn check(&self, need: SpaceNeed) -> Vec<Finding> {
        let configured = self.0.app.owner.as_ref();
        let owner = configured.map(|text| owner::resolve(text).map_err(|error| error.to_string()));
        let looked = self.work(move |inner, _| Ok(check::check(&inner.layout, &inner.app, need, owner))).await;
        looked.unwrap_or_else(|error| {
            if let InstallError::Untrusted { .. } = error {
                // Told by `check_places`.
                return Vec::new();
            }
            let remedy = error.hint().unwrap_or_else(|| "see the log".to_owned());
            vec![Finding::fatal("install_dir", format!("failed to {error}"), remedy)]
        })
    }

    /// Keeps a reboot from starting the application, durably.
    ///
    /// # Errors
    /// The hold file cannot be written.
    pub async fn hold(&self) -> Result<(), InstallError> {
        self.placed(|inner, _| hold::hold(&inner.layout)).await
    }

    /// Lets the application be started again.
    ///
    /// # Errors
    /// The hold file cannot be removed.
    pub async fn lift_hold(&self) -> Result<(), InstallError> {
        self.placed(|inner, _| hold::lift_hold(&inner.layout)).await
    }

    /// Whether the application is kept from starting.
    ///
    /// # Errors
    /// The staging folder cannot be looked at.
    pub async fn is_held(&self) -> Result<bool, InstallError> {
        self.placed(|inner, _| hold::is_held(&inner.layout)).await
    }

    fn owner(&self) -> Result<Option<Owner>, InstallError> {
        match &self.0.app.owner {
            Some(text) => owner::resolve(text).map(Some),
            None => Ok(None),
        }
    }

    async fn command(
        &self,
        what: &'static str,
        argv: &Command,
        path: &Path,
        deadline: Span,
    ) -> Result<(), InstallError> {
        let exec = Exec::of(argv, deadline).envs(&self.0.env).env("AFTERHOURS_SNAPSHOT", path.to_string_lossy());
        exec.run().await.map(|_| ()).map_err(|source| InstallError::Command { what, source })
    }

    /// Runs `act` alone among the calls that change something.
    async fn change<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner, &AtomicBool) -> Result<T, InstallError> + Send + 'static,
    ) -> Result<T, InstallError> {
        self.work(move |inner, cancelled| {
            // A poisoned lock protects nothing in memory: all state is on disk.
            let _alone = inner.serial.lock().unwrap_or_else(PoisonError::into_inner);
            if cancelled.load(Ordering::Relaxed) { Err(InstallError::Cancelled) } else { act(inner, cancelled) }
        })
        .await
    }

    /// Runs `act` where it may block, after an interrupted exchange is finished.
    async fn work<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner, &AtomicBool) -> Result<T, InstallError> + Send + 'static,
    ) -> Result<T, InstallError> {
        self.recover().await?;
        self.block(act).await
    }

    async fn recover(&self) -> Result<(), InstallError> {
        let recovered = async {
            loop {
                match self.placed(|inner, _| exchange::recover(&inner.layout)).await {
                    Err(InstallError::Busy { .. }) => tokio::time::sleep(BUSY_POLL).await,
                    done => return done,
                }
            }
        };
        match tokio::time::timeout(BUSY_WAIT, recovered).await {
            Ok(done) => done,
            Err(_) => Err(InstallError::Busy { path: self.0.layout.lock() }),
        }
    }

    /// Runs `act` where it may block, once it is known that our own folder is ours alone.
    async fn placed<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner, &AtomicBool) -> Result<T, InstallError> + Send + 'static,
    ) -> Result<T, InstallError> {
        self.block(move |inner, cancelled| {
            place::open(&inner.layout, &inner.app.name)?;
            act(inner, cancelled)
        })
        .await
    }

    async fn block<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner, &AtomicBool) -> Result<T, InstallError> + Send + 'static,
    ) -> Result<T, InstallError> {
        let inner = Arc::clone(&self.0);
        let cancelled = Arc::new(AtomicBool::new(false));
        let guard = CancelOnDrop(Arc::clone(&cancelled));
        let done = tokio::task::spawn_blocking(move || act(&inner, &cancelled)).await;
        drop(guard);
        done.map_err(InstallError::Broken)?
    }
}
