//! From "it is time" to a run that is under way; and what becomes of a start that was missed.
//!
//! The dispatcher hands over numbers of runs that are due. One in time is taken up by the engine. One
//! that nobody was there to start is judged by its job's policy, and which it was is written down: in the
//! run's order (it runs late), in its log (it is skipped), or at the job (a person is asked).
//!
//! At start-up the same judgement meets everything that was armed before we died: nothing is lost and
//! nothing runs twice, because a run is one row of the store.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::db::runs::RunRow;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::clock::Clock;
use crate::domain::job::MisfirePolicy;
use crate::domain::run::Idle;
use crate::domain::run::RunId;
use crate::domain::run::Trigger;
use crate::domain::span::Span;
use crate::jobs::driver::Steps;
use crate::jobs::engine::Engine;
use crate::jobs::engine::EngineError;
use crate::scheduler::dispatcher::Armed;
use crate::scheduler::guard;
use crate::scheduler::misfire::MisfireDecision;
use crate::scheduler::misfire::decide;

/// How long after its instant a run may be on its way from the dispatcher to the engine.
const RECONCILE_AFTER: Span = Span::secs(30);

/// Starts runs.
pub struct Launcher<S> {
    /// The store.
    pub store: Store,
    /// The runs.
    pub engine: Engine<S>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl<S: Steps> Launcher<S> {
    /// Takes up what was left in the middle, and answers with what is armed for an instant to come.
    ///
    /// # Errors
    /// The store fails.
    pub async fn recover(&self) -> Result<Vec<Armed>, StoreError> {
        let now = self.clock.now();
        // By a clock that nobody believes nothing is late: the dispatcher waits until it is believed.
        let doubted = guard::is_doubted(&self.store).await?;
        let mut ahead = Vec::new();
        for run in self.store.unfinished_runs().await? {
            match run.due_at {
                Some(due_at) if run.is_armed() && (due_at > now || doubted) => {
                    ahead.push(Armed { run: run.id, due_at, fence: run.fence });
                }
                Some(_) if run.is_armed() => self.launch(run.id).await,
                _ => {
                    tracing::info!(run.id = run.id.0, state = run.state, "taking up a run that was left unfinished");
                    self.engine.take_up(run.id);
                }
            }
        }
        Ok(ahead)
    }

    /// Starts what the dispatcher hands over, until it hands over no more.
    pub async fn work(&self, mut due: mpsc::Receiver<RunId>) {
        while let Some(run) = due.recv().await {
            self.launch(run).await;
        }
    }

    /// Takes up what nobody holds: a run whose task ended by an error, as when the disk was full, or a due one
    /// that could not be started. A stuck run waits for a person.
    ///
    /// # Errors
    /// The store fails.
    pub async fn reconcile(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let held = self.engine.held();
        let doubted = guard::is_doubted(&self.store).await?;
        for run in self.store.unfinished_runs().await? {
            if held.contains(&run.id) || run.state == "stuck" {
                continue;
            }
            match run.due_at {
                // The dispatcher has it, or has just handed it over.
                Some(due_at) if run.is_armed() && (due_at + RECONCILE_AFTER.delta() > now || doubted) => {}
                _ => self.launch(run.id).await,
            }
        }
        Ok(())
    }

    async fn launch(&self, run: RunId) {
        if let Err(error) = self.try_launch(run).await {
            tracing::error!(run.id = run.0, error = &error as &dyn std::error::Error, "a due run could not be started");
        }
    }

    async fn try_launch(&self, run: RunId) -> Result<(), EngineError> {
        let store_error = |source| EngineError::Store { run, source };
        let row = self.store.run(run).await.map_err(store_error)?;
        let Some(due_at) = row.due_at.filter(|_| row.is_armed()) else {
            self.engine.take_up(run);
            return Ok(());
        };
        if let Some(why) = self.engine.unfit(&row.order.app) {
            let app = &row.order.app;
            tracing::error!(run.id = run.0, %app, why, "the start is missed: nothing is done with the application");
            let reason = format!("the start of {due_at} was missed: nothing is done with {app}: {why}");
            return self.engine.skip(run, reason, Idle::Missed { missed_at: due_at }).await;
        }
        // A job that is gone cannot say what it wants; its run is not made up for.
        let job = match &row.order.job {
            Some(name) => self.store.job(name).await.ok(),
            None => None,
        };
        let (policy, tolerance) = job
            .as_ref()
            .map_or((MisfirePolicy::Skip, Default::default()), |job| (job.spec.misfire, job.spec.misfire_tolerance));
        match decide(policy, tolerance, due_at, self.clock.now()) {
            MisfireDecision::NotMissed => self.engine.take_up(run),
            MisfireDecision::RunNow { missed_at } => {
                tracing::warn!(run.id = run.0, %missed_at, "a missed start is made up for");
                let trigger = Trigger::Misfire { missed_at };
                self.store.set_trigger(run, trigger).await.map_err(store_error)?;
                self.engine.take_up(run);
            }
            MisfireDecision::Skip { reason, .. } => {
                tracing::warn!(run.id = run.0, %reason, "a missed start is not made up for");
                self.engine.skip(run, reason.to_string(), Idle::Missed { missed_at: due_at }).await?;
            }
            MisfireDecision::Ask { missed_at } => {
                tracing::warn!(run.id = run.0, %missed_at, "a start was missed, and its job wants to be asked");
                if let Some(job) = job {
                    self.store.set_missed(&job.spec.name, missed_at).await.map_err(store_error)?;
                }
                let reason = format!("the start of {missed_at} was missed; waiting for a person");
                self.engine.skip(run, reason, Idle::Asks { missed_at }).await?;
            }
        }
        Ok(())
    }
}

impl RunRow {
    /// Queued by the schedule and not begun: the policy for missed starts applies to it.
    fn is_armed(&self) -> bool {
        !self.begun && self.state == "queued" && self.due_at.is_some() && self.order.trigger == Trigger::Schedule
    }
}
