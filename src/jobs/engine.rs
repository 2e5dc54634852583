//! All runs of this process: each has a task that drives it, and runs of one application take turns.
//!
//! A run is taken up by [`Engine::take_up`], which waits for the application's turn and lock, claims it in
//! the store (the fence rises, so that whoever held it before can write nothing more), and drives it. What was
//! left in the middle goes before what has not started. Recovery at start-up is the same call for everything
//! that is not over.
//!
//! Invariants: a run has at most one task; a task ends with the run, with a stuck run, or with the
//! daemon; there are at most as many tasks as unfinished runs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::broadcast;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::db::runs::RunRow;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::clock::Clock;
use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::domain::run::Cause;
use crate::domain::run::Fence;
use crate::domain::run::Idle;
use crate::domain::run::RunId;
use crate::domain::run::RunState;
use crate::domain::run::Trigger;
use crate::domain::step::At;
use crate::domain::step::Step;
use crate::jobs::driver::DriveError;
use crate::jobs::driver::Driven;
use crate::jobs::driver::Driver;
use crate::jobs::driver::Live;
use crate::jobs::driver::Request;
use crate::jobs::driver::Steps;
use crate::jobs::lock::AppLock;
use crate::jobs::lock::LockError;
use crate::jobs::machine::IllegalEvent;
use crate::jobs::machine::Machine;

/// How many requests may wait for one run.
const INBOX_MAX: usize = 8;
/// How long whoever asks something of a run waits for its task to answer. It answers between two things that it does,
/// and while it does most of them; only what a crash left running is ended first.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// How long a run that is not first steps back before it asks again.
const LET_OTHERS_FIRST: Duration = Duration::from_millis(500);
/// How many live messages a slow watcher may be behind.
pub const LIVE_MAX: usize = 1024;

/// A run could not be reached or changed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The store failed.
    #[error("read or write run {run}")]
    Store {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The log could not be driven on.
    #[error("take up run {run}")]
    Drive {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: DriveError,
    },
    /// The application's lock cannot be had.
    #[error("take up run {run}")]
    Lock {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: LockError,
    },
    /// It is busy.
    #[error("get an answer from run {run} within {ANSWER_WAIT:?}")]
    Busy {
        /// The run.
        run: RunId,
    },
    /// What was asked cannot follow where the run stands.
    #[error("change run {run}")]
    Illegal {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: IllegalEvent,
    },
}

/// All runs of this process.
pub struct Engine<S> {
    inner: Arc<Inner<S>>,
}

impl<S> Clone for Engine<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// A run's place among those that are held; given up when its task ends, however it ends.
struct Place<'a, S: Steps> {
    inner: &'a Inner<S>,
    run: RunId,
}

impl<S: Steps> Drop for Place<'_, S> {
    fn drop(&mut self) {
        self.inner.held().remove(&self.run);
    }
}

/// What waiting for the application's turn came to.
enum Turn {
    /// It is ours for as long as these live.
    Ours(Guards),
    /// The run touches nothing any more.
    NotNeeded,
    /// We are shutting down.
    Interrupted,
}

/// The application's lock and its turn in this process, given back in this order.
struct Guards {
    _lock: AppLock,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

struct Inner<S> {
    driver: Driver<Store, S>,
    store: Store,
    data_dir: PathBuf,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    live: broadcast::Sender<Live>,
    /// The inbox of every run that has a task.
    held: Mutex<HashMap<RunId, mpsc::Sender<Request>>>,
    /// Whose turn it is, by application; fair.
    turns: Mutex<HashMap<AppName, Arc<tokio::sync::Mutex<()>>>>,
}

impl<S: Steps> Engine<S> {
    /// An engine upon `store`, with `steps` as the effects.
    pub fn new(
        store: Store,
        steps: Arc<S>,
        clock: Arc<dyn Clock>,
        data_dir: PathBuf,
        live: broadcast::Sender<Live>,
        shutdown: CancellationToken,
    ) -> Self {
        let driver = Driver { log: store.clone(), steps, clock, live: live.clone() };
        Self {
            inner: Arc::new(Inner {
                driver,
                store,
                data_dir,
                tasks: TaskTracker::new(),
                shutdown,
                live,
                held: Mutex::default(),
                turns: Mutex::default(),
            }),
        }
    }

    /// What happens in all runs from now on.
    pub fn watch(&self) -> broadcast::Receiver<Live> {
        self.inner.live.subscribe()
    }

    /// Takes up a run that is queued or was left in the middle. Nothing happens when it has a task.
    pub fn take_up(&self, run: RunId) {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        {
            let mut held = self.inner.held();
            if self.inner.shutdown.is_cancelled() || held.contains_key(&run) {
                return;
            }
            held.insert(run, sender);
        }
        let engine = self.clone();
        let span = tracing::info_span!("run", run.id = run.0);
        self.inner.tasks.spawn(
            async move {
                let result = {
                    let _place = Place { inner: &engine.inner, run };
                    engine.inner.hold(run, inbox).await
                };
                match result {
                    Ok(Some(Driven::Halted(_))) => engine.take_up_queued().await,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "the run is left as it stands");
                    }
                }
            }
            .instrument(span),
        );
    }

    /// Takes up everything that is queued without a time, or follows a run that is over.
    async fn take_up_queued(&self) {
        match self.inner.store.unfinished_runs().await {
            Ok(runs) => {
                let due = runs.into_iter().filter(|run| run.state == "queued" && !is_ahead(run));
                due.for_each(|run| self.take_up(run.id));
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot look for queued runs"),
        }
    }

    /// Asks a run to stop.
    ///
    /// # Errors
    /// It is over, or past the point of no return, or the store fails.
    pub async fn cancel(&self, run: RunId, by: &str) -> Result<(), EngineError> {
        self.request(run, RunEvent::CancelRequested { by: by.to_owned() }).await
    }

    /// Ends a run that has not begun, for a reason that is no failure.
    ///
    /// # Errors
    /// It has begun, or the store fails.
    pub async fn skip(&self, run: RunId, reason: String, why: Idle) -> Result<(), EngineError> {
        self.request(run, RunEvent::UnwindStarted { cause: Cause::NothingToDo { reason, why } }).await?;
        self.take_up(run);
        Ok(())
    }

    /// Says what a person decided about a stuck run, or that it may try again, and drives it on.
    ///
    /// # Errors
    /// It is not stuck, or the store fails.
    pub async fn resolve(&self, run: RunId, event: RunEvent) -> Result<(), EngineError> {
        self.request(run, event).await?;
        self.take_up(run);
        Ok(())
    }

    /// The state of a run, folded from its log.
    ///
    /// # Errors
    /// The log cannot be read or understood.
    pub async fn machine(&self, run: RunId) -> Result<Machine, EngineError> {
        let store = &self.inner.store;
        let events = store.events(run, 0).await.map_err(|source| EngineError::Store { run, source })?;
        if events.is_empty() {
            let row = store.run(run).await.map_err(|source| EngineError::Store { run, source })?;
            return Ok(Machine::queued(row.order));
        }
        Machine::fold(&events).map_err(|source| EngineError::Drive { run, source: DriveError::Log { run, source } })
    }

    /// Why nothing can be done with an application.
    pub fn unfit(&self, app: &AppName) -> Option<&str> {
        self.inner.driver.steps.unfit(app)
    }

    /// The runs that have a task in this process.
    pub fn held(&self) -> Vec<RunId> {
        self.inner.held().keys().copied().collect()
    }

    /// Waits until every task has ended; ask for the shutdown first.
    pub async fn stopped(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    async fn request(&self, run: RunId, event: RunEvent) -> Result<(), EngineError> {
        let sender = self.inner.held().get(&run).cloned();
        if let Some(sender) = sender {
            let (reply, answer) = oneshot::channel();
            let asked = Request { event: event.clone(), reply };
            let told = async { if sender.send(asked).await.is_ok() { answer.await.ok() } else { None } };
            let told = tokio::time::timeout(ANSWER_WAIT, told).await.map_err(|_| EngineError::Busy { run })?;
            if let Some(answer) = told {
                return answer.map_err(|source| EngineError::Illegal { run, source });
            }
        }
        // It has no task, or its task has just ended: the log says whether the event can follow.
        let inner = &self.inner;
        let row = inner.store.run(run).await.map_err(|source| EngineError::Store { run, source })?;
        let fence = inner.store.claim_run(run).await.map_err(|source| EngineError::Store { run, source })?;
        match inner.driver.append_once(run, fence, &row.order, event).await {
            Ok(()) => Ok(()),
            Err(DriveError::Log { source, .. }) => Err(EngineError::Illegal { run, source }),
            Err(source) => Err(EngineError::Drive { run, source }),
        }
    }
}

/// Armed for an instant that the dispatcher waits for.
fn is_ahead(run: &RunRow) -> bool {
    run.due_at.is_some() && run.order.trigger == Trigger::Schedule
}

impl<S: Steps> Inner<S> {
    fn held(&self) -> MutexGuard<'_, HashMap<RunId, mpsc::Sender<Request>>> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn turn(&self, app: &AppName) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Arc::clone(turns.entry(app.clone()).or_default())
    }

    /// Holds a run from its place in the queue to its halt; nothing when it was not to be had.
    ///
    /// The lock comes before the claim: another process that works on the application is not fenced out.
    async fn hold(&self, run: RunId, mut inbox: mpsc::Receiver<Request>) -> Result<Option<Driven>, EngineError> {
        let row = self.store.run(run).await.map_err(|source| EngineError::Store { run, source })?;
        if row.outcome.is_some() {
            return Ok(None);
        }
        if !row.begun {
            // From now on it waits for its turn, and no restart takes that for a missed start.
            let fence = self.claim(run).await?;
            let begun = self.driver.begin(run, fence, &row.order, &self.shutdown).await;
            begun.map_err(|source| EngineError::Drive { run, source })?;
        }
        let mut pause = Duration::ZERO;
        let guards = loop {
            match self.wait_for_turn(&row, pause, &mut inbox).await? {
                Turn::NotNeeded => break None,
                Turn::Interrupted => return Ok(Some(Driven::Interrupted)),
                Turn::Ours(guards) if self.goes_first(&row).await? => break Some(guards),
                Turn::Ours(_) => pause = LET_OTHERS_FIRST,
            }
        };
        let fence = self.claim(run).await?;
        let driven = self.drive(&row, fence, &mut inbox).await?;
        drop(guards);
        Ok(Some(driven))
    }

    /// Waits for the application's turn and lock, and answers requests meanwhile.
    async fn wait_for_turn(
        &self,
        row: &RunRow,
        pause: Duration,
        inbox: &mut mpsc::Receiver<Request>,
    ) -> Result<Turn, EngineError> {
        let run = row.id;
        let turn = self.turn(&row.order.app);
        let in_turn = async {
            tokio::time::sleep(pause).await;
            let turn = turn.lock_owned().await;
            let lock = AppLock::take(&self.data_dir, &row.order.app).await?;
            Ok::<_, LockError>(Guards { _lock: lock, _turn: turn })
        };
        tokio::pin!(in_turn);
        loop {
            if self.needs_no_turn(run).await? {
                return Ok(Turn::NotNeeded);
            }
            tokio::select! {
                biased;
                guards = &mut in_turn => {
                    return guards.map(Turn::Ours).map_err(|source| EngineError::Lock { run, source });
                }
                () = self.shutdown.cancelled() => return Ok(Turn::Interrupted),
                Some(request) = inbox.recv() => {
                    let fence = self.claim(run).await?;
                    self.answer_in_queue(row, fence, request).await?;
                }
            }
        }
    }

    /// Whether no other run of the application was left in the middle: that one goes on first, also when it has only
    /// just been taken up, or is to be. One that is stuck waits for a person, and nobody waits for it.
    async fn goes_first(&self, row: &RunRow) -> Result<bool, EngineError> {
        if row.started_at.is_some() {
            return Ok(true);
        }
        let others = self.store.unfinished_runs().await.map_err(|source| EngineError::Store { run: row.id, source })?;
        let in_the_middle = |other: &RunRow| other.started_at.is_some() && other.state != "stuck";
        Ok(!others.iter().any(|other| other.id != row.id && other.order.app == row.order.app && in_the_middle(other)))
    }

    async fn claim(&self, run: RunId) -> Result<Fence, EngineError> {
        self.store.claim_run(run).await.map_err(|source| EngineError::Store { run, source })
    }

    async fn drive(
        &self,
        row: &RunRow,
        fence: Fence,
        inbox: &mut mpsc::Receiver<Request>,
    ) -> Result<Driven, EngineError> {
        let run = row.id;
        match self.driver.drive(run, fence, &row.order, inbox, &self.shutdown).await {
            Err(DriveError::Store { source: StoreError::AnotherRun { app }, .. }) => {
                let failure = Failure::new(format!("start: another run of {app} is stuck"))
                    .hint("see `afterhours run list`, then `afterhours run retry RUN` or `afterhours run resolve RUN --as old|new`");
                let cause = Cause::StepFailed { at: At::first(Step::Preflight), failure };
                let turn_round = RunEvent::UnwindStarted { cause };
                let drive_error = |source| EngineError::Drive { run, source };
                self.driver.append_once(run, fence, &row.order, turn_round).await.map_err(drive_error)?;
                self.driver.drive(run, fence, &row.order, inbox, &self.shutdown).await.map_err(drive_error)
            }
            other => other.map_err(|source| EngineError::Drive { run, source }),
        }
    }

    async fn answer_in_queue(&self, row: &RunRow, fence: Fence, request: Request) -> Result<(), EngineError> {
        let run = row.id;
        let answer = match self.driver.append_once(run, fence, &row.order, request.event).await {
            Ok(()) => Ok(()),
            Err(DriveError::Log { source, .. }) => Err(source),
            Err(source) => return Err(EngineError::Drive { run, source }),
        };
        // Whoever asked may have gone.
        let _ = request.reply.send(answer);
        Ok(())
    }

    /// A run that is cancelled or skipped before it has started touches nothing; it need not wait.
    async fn needs_no_turn(&self, run: RunId) -> Result<bool, EngineError> {
        let events = self.store.events(run, 0).await.map_err(|source| EngineError::Store { run, source })?;
        Ok(Machine::fold(&events).is_ok_and(|machine| {
            let cancelled = machine.cancelled_by().is_some() && *machine.state() == RunState::Queued;
            cancelled || (machine.known().started.is_none() && *machine.state() != RunState::Queued)
        }))
    }
}
