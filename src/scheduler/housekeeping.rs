//! The chores of the daemon: what they are and when they are done, in UTC.
//!
//! | chore | when | what |
//! |---|---|---|
//! | `leases` | every 30 s | keeps the gates of runs that live closed, opens those whose time is over |
//! | `gates` | every 15 s | opens again, with growing pauses, what has not opened with its gate |
//! | `post` | every 10 s | sends what the outbox owes |
//! | `reconcile` | every minute | takes up runs that are not over and that nobody holds |
//! | `trash` | every minute | removes what runs have moved out of the way |
//! | `prefetch` | every 15 min | fetches and stages what a job will need within a day |
//! | `feeds` | at the start, every minute | looks for newer releases where it is time |
//! | `evidence` | every night | tests the backups |
//! | `chain` | every night | checks the hash chain of the history |
//! | `head` | at the start, every day | says the head of the history in the log, for whoever keeps the log elsewhere |
//! | `refusals` (of the daemon) | every minute | writes down how often somebody was refused |
//! | `retention` | every 6 h | removes what is older than the history is kept |

use std::borrow::Cow;
use std::sync::Arc;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::db::chain::ChainState;
use crate::db::store::Store;
use crate::domain::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::domain::progress::Silent;
use crate::install::InstallError;
use crate::jobs::engine::Engine;
use crate::jobs::kit::Kit;
use crate::jobs::lock::AppLock;
use crate::jobs::select::Wish;
use crate::jobs::select::select;
use crate::jobs::steps::Night;
use crate::jobs::steps::failed;
use crate::scheduler::checks::Looks;
use crate::scheduler::chores::Chore;
use crate::scheduler::launcher::Launcher;
use crate::scheduler::post::PostOffice;
use crate::scheduler::retention::Keep;

/// The target of the lines that say the head of the history, with its fields `number` and `head`; others look for them.
const HISTORY_LOG: &str = "afterhours::history";
/// How long before its start a job's releases are fetched.
const PREFETCH_AHEAD: TimeDelta = TimeDelta::days(1);
/// For how many jobs at most it is fetched ahead in one go; the others have their turn later.
const PREFETCH_JOBS_MAX: u32 = 1_000;

/// What the chores work with.
pub struct Household {
    /// The store.
    pub store: Store,
    /// The runs.
    pub engine: Engine<Night>,
    /// The applications.
    pub night: Arc<Night>,
    /// The mails.
    pub post: Arc<PostOffice>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where the locks are.
    pub data_dir: std::path::PathBuf,
    /// How long the history is kept.
    pub keep: Keep,
    /// When newer releases were looked for in this process; nothing yet.
    pub looks: Looks,
    /// Since when there has been somebody to look for them.
    pub since: DateTime<Utc>,
    /// Tells that the daemon stops.
    pub stop: CancellationToken,
}

impl Household {
    /// The chores, to be started.
    pub fn chores(self: &Arc<Self>) -> Vec<Chore> {
        vec![
            self.chore("leases", "*/30 * * * * *", |house| async move { house.renew_leases().await }.boxed()),
            self.chore("gates", "*/15 * * * * *", |house| async move { house.retry_openings().await }.boxed()),
            self.chore("post", "*/10 * * * * *", |house| async move { Ok(house.post.deliver().await?) }.boxed()),
            self.chore("reconcile", "0 * * * * *", |house| {
                async move {
                    let (store, engine, clock) = (house.store.clone(), house.engine.clone(), Arc::clone(&house.clock));
                    Ok(Launcher { store, engine, clock }.reconcile().await?)
                }
                .boxed()
            }),
            self.chore("trash", "20 * * * * *", |house| async move { house.empty_trash().await }.boxed()),
            self.chore("prefetch", "0 */15 * * * *", |house| async move { house.prefetch().await }.boxed()),
            Chore {
                at_once: true,
                ..self.chore("feeds", self.checks_schedule(), |house| async move { house.check_feeds().await }.boxed())
            },
            self.chore("evidence", "0 30 3 * * *", |house| async move { house.test_evidence().await }.boxed()),
            self.chore("chain", "0 45 3 * * *", |house| async move { house.check_chain().await }.boxed()),
            Chore {
                at_once: true,
                ..self.chore("head", "0 0 12 * * *", |house| async move { house.tell_head().await }.boxed())
            },
            // Not once a night: a workstation is off then.
            self.chore("retention", "0 15 */6 * * *", |house| async move { house.prune().await }.boxed()),
        ]
    }

    fn chore(
        self: &Arc<Self>,
        name: &'static str,
        schedule: impl Into<Cow<'static, str>>,
        run: impl Fn(Arc<Self>) -> futures_util::future::BoxFuture<'static, Result<(), Failure>> + Send + Sync + 'static,
    ) -> Chore {
        let house = Arc::clone(self);
        let run = Arc::new(move || run(Arc::clone(&house)));
        Chore { name, schedule: schedule.into(), at_once: false, run }
    }

    pub(super) async fn renew_leases(&self) -> Result<(), Failure> {
        let held = self.engine.held();
        let mut troubles = Troubles::default();
        for run in self.store.unfinished_runs().await? {
            // A stuck run has no task, but its gate is its own until a person decides.
            if held.contains(&run.id) || run.state == "stuck" {
                let renewed = self.night.gatekeeper.renew(&run.order.app, run.id).await;
                troubles.note(&run.order.app, renewed.map_err(Failure::from));
            }
        }
        for (app, kit) in &self.night.kits {
            troubles.note(app, self.night.gatekeeper.expire(kit).await.map_err(Failure::from));
        }
        troubles.result()
    }

    pub(super) async fn retry_openings(&self) -> Result<(), Failure> {
        let mut troubles = Troubles::default();
        for (app, kit) in &self.night.kits {
            let opened = self.night.gatekeeper.retry_opening(kit).await;
            troubles.note(app, opened.map_err(|error| failed(&error, error.hint())));
        }
        troubles.result()
    }

    /// Where a run is under way, it needs the disk.
    pub(super) async fn empty_trash(&self) -> Result<(), Failure> {
        let mut troubles = Troubles::default();
        for (app, kit) in &self.night.kits {
            if self.store.active_run(app).await?.is_some() {
                continue;
            }
            tokio::select! {
                emptied = empty_trash(kit) => troubles.note(app, emptied),
                // The rest is removed by the next daemon.
                () = self.stop.cancelled() => break,
            }
        }
        troubles.result()
    }

    async fn prefetch(&self) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut troubles = Troubles::default();
        for job in self.store.next_jobs(Some(now + PREFETCH_AHEAD), PREFETCH_JOBS_MAX).await? {
            let Some(kit) = self.night.kits.get(&job.spec.app) else { continue };
            let stage = async {
                // A run that is under way stages for itself.
                let Some(_lock) = AppLock::try_take(&self.data_dir, &job.spec.app)? else { return Ok(()) };
                for release in select(kit, &self.store, &Wish::of_job(&job), now).await?.path {
                    self.stage(kit, &release).await?;
                }
                Ok(())
            };
            troubles.note(&job.spec.app, stage.await);
        }
        troubles.result()
    }

    async fn stage(&self, kit: &Kit, release: &crate::domain::release::Release) -> Result<(), Failure> {
        kit.installer.place().await.map_err(|error| failed(&error, error.hint()))?;
        let tree = kit.installer.staged_path(&release.id);
        if tree.is_dir() {
            return Ok(());
        }
        kit.feed.stage(release, &tree, Arc::new(Silent)).await.map_err(|error| failed(&error, error.hint()))?;
        tracing::info!(app = %kit.app.name, release = %release.id, "fetched ahead");
        Ok(())
    }

    async fn test_evidence(&self) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut troubles = Troubles::default();
        for (app, kit) in &self.night.kits {
            let Some(backup) = &kit.backup else { continue };
            let newest = backup.newest(now).await.map_err(|error| failed(&error, error.hint()));
            if let Ok(evidence) = &newest {
                tracing::info!(%app, source = evidence.source, made_at = %evidence.made_at, "the backup is good");
            }
            troubles.note(app, newest.map(drop));
        }
        troubles.result()
    }

    /// Where the log is kept by others, nobody here can rewrite the history without its showing there.
    async fn tell_head(&self) -> Result<(), Failure> {
        let head = self.store.chain_head().await?;
        tracing::info!(target: HISTORY_LOG, number = head.number, head = head.hash, "the head of the history");
        Ok(())
    }

    async fn check_chain(&self) -> Result<(), Failure> {
        match self.store.verify_chain().await? {
            ChainState::Whole { links, removed, head } => {
                tracing::info!(target: HISTORY_LOG, number = links, head, removed, "the history is whole");
                Ok(())
            }
            ChainState::Broken { link } => {
                Err(Failure::new(format!("prove the history: link {link} was changed or taken out"))
                    .hint("compare the store with its backup; somebody has written into it"))
            }
        }
    }
}

/// Removes what the runs of an application have moved out of the way.
///
/// # Errors
/// Something cannot be removed; everything else is.
pub async fn empty_trash(kit: &Kit) -> Result<(), Failure> {
    let left = match kit.installer.empty_trash().await {
        // Nothing of ours is there, which is said elsewhere.
        Err(InstallError::Untrusted { .. }) => return Ok(()),
        left => left.map_err(|error| failed(&error, error.hint()))?,
    };
    match left.because {
        None => Ok(()),
        Some(because) => {
            let cause = failed(&because, because.hint());
            Err(Failure { message: format!("remove what is left over: {}: {}", left.entries, cause.message), ..cause })
        }
    }
}

/// What went wrong at some applications; the others have had their turn all the same.
#[derive(Default)]
pub(super) struct Troubles(Vec<Failure>);

impl Troubles {
    pub(super) fn note(&mut self, app: &AppName, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.add(app.as_str(), failure);
        }
    }

    pub(super) fn add(&mut self, app: &str, failure: Failure) {
        self.0.push(Failure { message: format!("{app}: {}", failure.message), ..failure });
    }

    pub(super) fn result(mut self) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut first = self.0.remove(0);
        first.because.extend(self.0.iter().map(ToString::to_string));
        Err(first)
    }
}
