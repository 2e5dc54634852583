//! The fixed housekeeping of the daemon, by the clock of UTC: renew leases, look at feeds, test backups, tidy up.
//!
//! The only file that names `tokio_cron_scheduler`. It is right for chores: they are few, known when the daemon starts,
//! speak UTC, may be half a second late, and nothing is lost when one is left out. It is not right for jobs: it keeps
//! zone offsets fixed over daylight saving, fires up to a second early, loses starts when hundreds fall due at once,
//! has no rule for missed starts, and restores nothing.
//!
//! *Invariants:* a chore that still runs is not started again. After [`Chores::stop`] none runs any more, or its
//! deadline has passed.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio_cron_scheduler::Job;
use tokio_cron_scheduler::JobScheduler;
use tokio_cron_scheduler::JobSchedulerError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::failure::Failure;
use crate::domain::span::Span;

/// What a chore does each time.
pub type ChoreFn = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// One thing that is done again and again.
#[derive(Clone)]
pub struct Chore {
    /// For the log.
    pub name: &'static str,
    /// Six cron fields, seconds first, in UTC: `0 */5 * * * *`.
    pub schedule: Cow<'static, str>,
    /// Whether it is done when the chores begin, too.
    pub at_once: bool,
    /// What is done.
    pub run: ChoreFn,
}

impl fmt::Debug for Chore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chore").field("name", &self.name).field("schedule", &self.schedule).finish_non_exhaustive()
    }
}

/// Why the chores could not be begun.
#[derive(Debug, Error)]
pub enum ChoresError {
    /// A schedule is no cron expression.
    #[error("schedule the chore \"{name}\" by \"{schedule}\"")]
    Schedule {
        /// Which chore.
        name: &'static str,
        /// Its schedule.
        schedule: Cow<'static, str>,
        /// Why.
        source: JobSchedulerError,
    },
    /// The scheduler did not start.
    #[error("start the scheduler of chores")]
    Start(#[source] JobSchedulerError),
}

/// The chores at work.
pub struct Chores {
    scheduler: JobScheduler,
    running: TaskTracker,
    stopping: CancellationToken,
}

impl fmt::Debug for Chores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chores").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

impl Chores {
    /// Begins them.
    pub async fn start(list: Vec<Chore>) -> Result<Self, ChoresError> {
        let scheduler = JobScheduler::new().await.map_err(ChoresError::Start)?;
        let chores = Self { scheduler, running: TaskTracker::new(), stopping: CancellationToken::new() };
        let turns: Vec<Arc<Turn>> = list.into_iter().map(Turn::new).collect();
        for turn in &turns {
            let Chore { name, schedule, .. } = &turn.chore;
            let bad = |source| ChoresError::Schedule { name, schedule: schedule.clone(), source };
            chores.scheduler.add(chores.job(turn).map_err(bad)?).await.map_err(bad)?;
        }
        chores.scheduler.start().await.map_err(ChoresError::Start)?;
        for turn in turns.into_iter().filter(|turn| turn.chore.at_once) {
            chores.running.spawn(async move { turn.take().await });
        }
        Ok(chores)
    }

    /// Starts no chore any more and waits for those that run, at most `deadline`; false when some still run then.
    pub async fn stop(mut self, deadline: Span) -> bool {
        self.stopping.cancel();
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!(%error, "failed to stop the scheduler of chores");
        }
        self.running.close();
        tokio::time::timeout(deadline.duration(), self.running.wait()).await.is_ok()
    }

    fn job(&self, turn: &Arc<Turn>) -> Result<Job, JobSchedulerError> {
        let (running, stopping, turn) = (self.running.clone(), self.stopping.clone(), Arc::clone(turn));
        Job::new_async(turn.chore.schedule.to_string(), move |_, _| {
            let turn = turn.clone();
            if stopping.is_cancelled() {
                return Box::pin(std::future::ready(()));
            }
            Box::pin(running.track_future(async move { turn.take().await }))
        })
    }
}

/// A chore and what is known of it between two times.
struct Turn {
    chore: Chore,
    /// Held while it runs; given back even when it panics.
    one: Arc<tokio::sync::Mutex<()>>,
    /// What went wrong the last time.
    complaint: Mutex<Option<Failure>>,
}

impl Turn {
    fn new(chore: Chore) -> Arc<Self> {
        Arc::new(Self { chore, one: Arc::default(), complaint: Mutex::default() })
    }

    async fn take(&self) {
        let Ok(_held) = self.one.clone().try_lock_owned() else {
            tracing::debug!(chore = self.chore.name, "still running, left out once");
            return;
        };
        let failure = (self.chore.run)().await.err();
        // A failure that lasts is logged when it begins and when it ends, not every time.
        let mut before = self.complaint.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &failure {
            Some(failure) if before.as_ref() != Some(failure) => {
                tracing::warn!(chore = self.chore.name, %failure, hint = failure.hint, "chore failed");
            }
            None if before.is_some() => tracing::info!(chore = self.chore.name, "chore works again"),
            _ => {}
        }
        *before = failure;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    const EVERY_SECOND: &str = "* * * * * *";

    fn chore(
        schedule: &'static str,
        run: impl Fn() -> BoxFuture<'static, Result<(), Failure>> + Send + Sync + 'static,
    ) -> Chore {
        Chore { name: "test", schedule: schedule.into(), at_once: false, run: Arc::new(run) }
    }

    #[tokio::test]
    async fn a_chore_that_still_runs_is_not_started_again_and_stopping_waits_for_it() {
        let (begun, ticks, done, go_on) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(Notify::new()),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(Notify::new()),
        );
        let slow = {
            let (begun, done, go_on) = (begun.clone(), done.clone(), go_on.clone());
            chore(EVERY_SECOND, move || {
                let (begun, done, go_on) = (begun.clone(), done.clone(), go_on.clone());
                async move {
                    begun.fetch_add(1, Ordering::SeqCst);
                    go_on.notified().await;
                    done.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }
                .boxed()
            })
        };
        let quick = {
            let ticks = ticks.clone();
            chore(EVERY_SECOND, move || {
                ticks.notify_one();
                async { Err(Failure::new("do what is never done")) }.boxed()
            })
        };
        let chores = Chores::start(vec![slow, quick]).await.unwrap();
        for _ in 0..3 {
            timeout(Duration::from_secs(5), ticks.notified()).await.expect("a chore that fails runs again");
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        let end = async {
            tokio::task::yield_now().await;
            go_on.notify_one();
        };
        let (stopped, ()) = tokio::join!(chores.stop(Span::secs(5)), end);
        assert!(stopped);
        assert_eq!((begun.load(Ordering::SeqCst), done.load(Ordering::SeqCst)), (1, 1));
    }

    #[tokio::test]
    async fn stopping_does_not_wait_for_ever() {
        let begun = Arc::new(Notify::new());
        let hanging = {
            let begun = begun.clone();
            chore(EVERY_SECOND, move || {
                begun.notify_one();
                std::future::pending().boxed()
            })
        };
        let chores = Chores::start(vec![hanging]).await.unwrap();
        timeout(Duration::from_secs(5), begun.notified()).await.expect("it runs");
        assert!(!chores.stop(Span::ZERO).await);
    }

    #[tokio::test]
    async fn some_are_done_when_they_begin() {
        let begun = Arc::new(Notify::new());
        let yearly = {
            let begun = begun.clone();
            chore("0 0 0 1 1 *", move || {
                begun.notify_one();
                async { Ok(()) }.boxed()
            })
        };
        let chores = Chores::start(vec![Chore { at_once: true, ..yearly }]).await.unwrap();
        timeout(Duration::from_secs(5), begun.notified()).await.expect("it is done at once");
        assert!(chores.stop(Span::secs(5)).await);
    }

    #[tokio::test]
    async fn a_bad_schedule_is_refused_by_name() {
        let error = Chores::start(vec![chore("whenever", || async { Ok(()) }.boxed())]).await.unwrap_err();
        assert_eq!(error.to_string(), "schedule the chore \"test\" by \"whenever\"");
    }
}
