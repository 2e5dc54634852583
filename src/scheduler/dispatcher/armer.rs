//! Looks at the store and has it arm what is due soon.

use std::error::Error;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::scheduler::dispatcher::Armed;
use crate::scheduler::dispatcher::DueStore;
use crate::scheduler::dispatcher::SharedWatch;
use crate::scheduler::pace::ARM_AHEAD;
use crate::scheduler::pace::ARM_BATCH_MAX;
use crate::scheduler::pace::RETRY_AFTER;
use crate::scheduler::pace::next_look_at;
use crate::scheduler::timekeeper::Timekeeper;

#[derive(Debug)]
pub(super) struct Armer<S> {
    pub(super) store: Arc<S>,
    pub(super) time: Timekeeper,
    pub(super) watch: SharedWatch,
    pub(super) poked: watch::Receiver<()>,
    pub(super) armed: mpsc::Sender<Vec<Armed>>,
}

/// When the armer looks again.
enum Next {
    /// At this time of the clock.
    At(DateTime<Utc>),
    /// After a pause: the store failed, or has something due that it does not arm.
    Retry,
}

impl<S: DueStore> Armer<S> {
    pub(super) async fn run(mut self, shutdown: &CancellationToken) {
        let alarm = self.time.alarm();
        let mut failing = false;
        loop {
            // Before the look, so that a change during it leads to another one.
            self.poked.mark_unchanged();
            let looked = tokio::select! {
                () = shutdown.cancelled() => return,
                looked = self.look() => looked,
            };
            failing = tell(&looked, failing);
            let wait = async {
                match looked.unwrap_or(Next::Retry) {
                    Next::At(at) => drop(alarm.wait_until(at).await),
                    Next::Retry => tokio::time::sleep(RETRY_AFTER).await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.armed.closed() => return,
                _ = self.poked.changed() => {}
                () = wait => {}
            }
        }
    }

    /// Arms what is due soon, and says when to look again.
    async fn look(&self) -> Result<Next, S::Error> {
        let mut stuck_at = None;
        loop {
            let now = self.time.now();
            if !self.watch.believes(self.store.as_ref(), self.time.moment()).await? {
                return Ok(Next::At(next_look_at(None, now)));
            }
            let next_due_at = self.store.next_due_at().await?;
            let look_at = next_look_at(next_due_at, now);
            if look_at > now {
                return Ok(Next::At(look_at));
            }
            if stuck_at == next_due_at {
                return Ok(Next::Retry);
            }
            let armed = self.store.arm_due(now + ARM_AHEAD, now, ARM_BATCH_MAX).await?;
            stuck_at = if armed.is_empty() { next_due_at } else { None };
            if !armed.is_empty() && self.armed.send(armed).await.is_err() {
                // The firer has ended, and so does the loop around this one. The runs stay in the store.
                return Ok(Next::Retry);
            }
        }
    }
}

/// Says once that the store fails, and once that it works again; returns whether it fails now.
fn tell<E: Error + 'static>(looked: &Result<Next, E>, failing: bool) -> bool {
    match looked {
        Err(error) if !failing => {
            tracing::error!(error = error as &dyn Error, "failed to arm what is due; trying again every second");
        }
        Ok(_) if failing => tracing::info!("what is due can be armed again"),
        _ => {}
    }
    looked.is_err()
}
