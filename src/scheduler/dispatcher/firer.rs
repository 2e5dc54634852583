//! Waits for the instants of armed runs and hands the runs on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::run::RunId;
use crate::scheduler::dispatcher::Armed;
use crate::scheduler::dispatcher::DueStore;
use crate::scheduler::dispatcher::SharedWatch;
use crate::scheduler::pace::ARMED_MAX;
use crate::scheduler::pace::FIRE_BATCH_MAX;
use crate::scheduler::pace::RETRY_AFTER;
use crate::scheduler::timekeeper::Timekeeper;

#[derive(Debug)]
pub(super) struct Firer<S> {
    pub(super) store: Arc<S>,
    pub(super) time: Timekeeper,
    pub(super) watch: SharedWatch,
    pub(super) poked: watch::Receiver<()>,
    pub(super) incoming: mpsc::Receiver<Vec<Armed>>,
    pub(super) started: mpsc::Sender<RunId>,
    pub(super) waiting: Waiting,
    pub(super) failing: bool,
}

/// Armed runs, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Waiting(BinaryHeap<Reverse<(DateTime<Utc>, RunId)>>);

impl Waiting {
    pub(super) fn extend(&mut self, armed: Vec<Armed>) {
        self.0.extend(armed.into_iter().map(|armed| Reverse((armed.due_at, armed.run))));
    }

    fn first_due_at(&self) -> Option<DateTime<Utc>> {
        self.0.peek().map(|Reverse((due_at, _))| *due_at)
    }

    /// The earliest run, if it is due at `now`; it stays until it is removed.
    fn due(&self, now: DateTime<Utc>) -> Option<RunId> {
        self.0.peek().and_then(|Reverse((due_at, run))| (*due_at <= now).then_some(*run))
    }

    /// Takes out what is due at `now`, at most `max` runs.
    fn take_due(&mut self, now: DateTime<Utc>, max: usize) -> Vec<(DateTime<Utc>, RunId)> {
        let mut due = Vec::new();
        while due.len() < max && self.due(now).is_some() {
            due.extend(self.0.pop().map(|Reverse(run)| run));
        }
        due
    }

    fn put_back(&mut self, runs: Vec<(DateTime<Utc>, RunId)>) {
        self.0.extend(runs.into_iter().map(Reverse));
    }
}

/// The engine does not receive any more.
struct NobodyReceives;

impl<S: DueStore> Firer<S> {
    pub(super) async fn run(mut self, shutdown: &CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            NobodyReceives = self.fire_for_ever() => {
                tracing::error!("nobody takes the runs that are due; the dispatcher ends");
            }
        }
    }

    async fn fire_for_ever(&mut self) -> NobodyReceives {
        let alarm = self.time.alarm();
        loop {
            let wake_at = self.waiting.first_due_at();
            let wait = async {
                match wake_at {
                    Some(at) => drop(alarm.wait_until(at).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // Each branch leads to a new look at the clock; only when that shows an instant is it fired.
                () = wait => {}
                Some(armed) = self.incoming.recv(), if self.waiting.0.len() < ARMED_MAX => {
                    self.waiting.extend(armed);
                    continue;
                }
                _ = self.poked.changed() => continue,
            }
            let now = self.time.moment();
            if self.waiting.due(now.at).is_none() {
                continue;
            }
            if !matches!(self.watch.believes(self.store.as_ref(), now).await, Ok(true)) {
                // What is due stays so; once the clock is set there may be nothing due.
                tokio::time::sleep(RETRY_AFTER).await;
            } else if let Err(nobody) = self.fire_due(now.at).await {
                return nobody;
            }
        }
    }

    /// Hands on what is due at `now` and still wanted.
    async fn fire_due(&mut self, now: DateTime<Utc>) -> Result<(), NobodyReceives> {
        let due = self.waiting.take_due(now, FIRE_BATCH_MAX);
        let runs: Vec<RunId> = due.iter().map(|(_, run)| *run).collect();
        if runs.is_empty() {
            return Ok(());
        }
        let wanted: HashSet<RunId> = match self.store.still_armed(&runs).await {
            Ok(wanted) => {
                self.failing = false;
                wanted.into_iter().collect()
            }
            Err(error) => {
                // No claim, no run: rather late than unvalidated.
                if !std::mem::replace(&mut self.failing, true) {
                    let (error, runs) = (&error as &dyn Error, runs.len());
                    tracing::error!(error, runs, "failed to validate runs that are due; trying again every second");
                }
                self.waiting.put_back(due);
                tokio::time::sleep(RETRY_AFTER).await;
                return Ok(());
            }
        };
        for run in runs {
            if !wanted.contains(&run) {
                tracing::debug!(run.id = %run, "withdrawn before it was due");
            } else if self.started.send(run).await.is_err() {
                return Err(NobodyReceives);
            }
        }
        Ok(())
    }
}
