//! Starts what is due: never early, never twice, and nothing is lost.
//!
//! ```text
//!            arm_due: one commit, seconds ahead           still_armed: a read, at the instant
//!  store ──────────────────────────▶ Armer ──▶ Firer ─────────────────────────▶ channel ──▶ engine
//!  due_at                            (looks)   (heap, alarm)                    of run numbers
//! ```
//!
//! Two loops run side by side, so that a commit never delays a start. The armer asks the store for the earliest start,
//! and some seconds before it has it *armed*: in one transaction the run is queued, its fence is raised, and the job's
//! `due_at` moves on. From then on the run exists whatever happens to this process. The firer sleeps to the exact
//! instant, asks once more which runs are still wanted (an edit may have withdrawn them), and hands their numbers on.
//!
//! If we die after arming, the store lists the runs; whoever recovers hands them back with [`Dispatcher::adopt`]. If
//! the engine is slow, the firer waits, then the armer: nothing is dropped. If the clock is set, both look again, and nothing is
//! armed or fired before the store has said whether it can be believed ([`DueStore::look`]).
//!
//! Absent on purpose: whether a late start still runs is decided by [`misfire`](super::misfire) where runs are
//! armed, and how many runs work at once is the engine's business.

mod armer;
mod firer;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::future::Future;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::clock::Moment;
use crate::domain::run::Fence;
use crate::domain::run::RunId;
use crate::scheduler::dispatcher::armer::Armer;
use crate::scheduler::dispatcher::firer::Firer;
use crate::scheduler::dispatcher::firer::Waiting;
use crate::scheduler::guard::Look;
use crate::scheduler::pace::BELIEVED_FOR;
use crate::scheduler::pace::STEP_NOTICED;
use crate::scheduler::timekeeper::Timekeeper;

/// A run that the store has queued for an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Armed {
    /// The run.
    pub run: RunId,
    /// When it starts.
    pub due_at: DateTime<Utc>,
    /// What its claim is worth.
    pub fence: Fence,
}

/// What the dispatcher needs of the store.
pub trait DueStore: Send + Sync + 'static {
    /// How it fails.
    type Error: Error + Send + Sync + 'static;

    /// Arms what is due at `horizon` or before, at most `max` runs, the earliest first.
    ///
    /// One short write transaction: every enabled job with `due_at <= horizon` becomes a queued run (unique by job and
    /// due instant), its fence is raised, and the job's `due_at` moves to its next occurrence. A start that was missed
    /// at `now` is armed, written down as skipped, or left for a person, as [`settle`] says; the job moves on in any
    /// case. A job that cannot be read is reported and passed over: it must not keep the others from being armed.
    ///
    /// [`settle`]: crate::scheduler::misfire::settle
    fn arm_due(
        &self,
        horizon: DateTime<Utc>,
        now: DateTime<Utc>,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Armed>, Self::Error>> + Send;

    /// The earliest `due_at` of all enabled jobs. A read.
    fn next_due_at(&self) -> impl Future<Output = Result<Option<DateTime<Utc>>, Self::Error>> + Send;

    /// Whether the clock can be believed that shows `now`. Asked at first, when it was set, and as long as it is doubted.
    fn look(&self, now: Moment) -> impl Future<Output = Result<Look, Self::Error>> + Send {
        let _ = now;
        async { Ok(Look::Believed) }
    }

    /// Which of these runs are still to be started: queued, and not withdrawn by an edit. A read, no commit.
    fn still_armed(&self, runs: &[RunId]) -> impl Future<Output = Result<Vec<RunId>, Self::Error>> + Send;
}

/// Arms and fires until it is told to stop.
#[derive(Debug)]
pub struct Dispatcher<S> {
    store: Arc<S>,
    time: Timekeeper,
    started: mpsc::Sender<RunId>,
    /// Kept, so that the receivers never find it gone.
    poke: Poke,
    adopted: Vec<Armed>,
}

/// Tells a dispatcher that something has changed.
#[derive(Debug, Clone)]
pub struct Poke(Arc<watch::Sender<()>>);

impl Poke {
    /// Jobs were changed, or the clock was: look again, now.
    pub fn poke(&self) {
        self.0.send_replace(());
    }
}

impl<S: DueStore> Dispatcher<S> {
    /// A dispatcher that hands the numbers of runs to `started` at their instants.
    pub fn new(store: Arc<S>, time: Timekeeper, started: mpsc::Sender<RunId>) -> (Self, Poke) {
        let poke = Poke(Arc::new(watch::Sender::new(())));
        (Self { store, time, started, poke: poke.clone(), adopted: Vec::new() }, poke)
    }

    /// Takes over runs that were armed by a process that is no more, and were not started by it.
    #[must_use]
    pub fn adopt(mut self, armed: Vec<Armed>) -> Self {
        self.adopted.extend(armed);
        self
    }

    /// Runs until `shutdown`, or until nobody receives any more. What has not fired by then stays in the store.
    pub async fn run(self, shutdown: CancellationToken) {
        // One batch under way: a firer that is full stops the armer.
        let (armed, incoming) = mpsc::channel(1);
        let watch = SharedWatch::default();
        let poked = self.poke.0.subscribe();
        let armer = Armer {
            store: self.store.clone(),
            time: self.time.clone(),
            watch: watch.clone(),
            poked: poked.clone(),
            armed,
        };
        let mut firer = Firer {
            store: self.store,
            time: self.time,
            watch,
            poked,
            incoming,
            started: self.started,
            waiting: Waiting::default(),
            failing: false,
        };
        firer.waiting.extend(self.adopted);
        tokio::join!(armer.run(&shutdown), firer.run(&shutdown));
    }
}

/// What both loops know of the clock.
#[derive(Debug, Clone, Default)]
struct SharedWatch(Arc<tokio::sync::Mutex<Watch>>);

#[derive(Debug, Default)]
struct Watch {
    /// When it was seen last, by either.
    seen: Option<Moment>,
    /// When the store has believed it; nothing while it does not.
    believed: Option<Moment>,
}

impl SharedWatch {
    /// Whether something may be started by a clock that shows `now`. The store is asked rarely: when the clock was set, and
    /// while it is doubted.
    async fn believes<S: DueStore>(&self, store: &S, now: Moment) -> Result<bool, S::Error> {
        let mut watch = self.0.lock().await;
        let goes_on = |before: Moment| now.set_since(before).is_none_or(|set| set.abs() <= STEP_NOTICED);
        let is_steady = watch.seen.replace(now).is_some_and(goes_on)
            && watch.believed.is_some_and(|believed| (now.at - believed.at).abs() < BELIEVED_FOR);
        if !is_steady {
            watch.believed = None;
            watch.believed = (store.look(now).await? != Look::Doubted).then_some(now);
        }
        Ok(watch.believed.is_some())
    }
}
