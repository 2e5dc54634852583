//! The dispatcher's view of the store: what is due, and when it is due next.

use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;

use crate::db::jobs::Settle;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::clock::Moment;
use crate::domain::run::RunId;
use crate::exec::system;
use crate::scheduler::dispatcher::Armed;
use crate::scheduler::dispatcher::DueStore;
use crate::scheduler::guard;
use crate::scheduler::guard::Look;
use crate::scheduler::misfire::settle;

impl DueStore for Store {
    type Error = StoreError;

    async fn arm_due(&self, horizon: DateTime<Utc>, now: DateTime<Utc>, max: usize) -> Result<Vec<Armed>, StoreError> {
        let settle: Settle = Arc::new(|spec, due_at, now| {
            match settle(&spec.start, spec.misfire, spec.misfire_tolerance, due_at, now) {
                Ok(settled) => (settled.due_at, settled.next_due_at),
                // One job that cannot be read must not keep the others from starting.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(job = %spec.name, error, "the job has no next start");
                    (due_at, None)
                }
            }
        });
        let armed = Store::arm_due(self, horizon, now, max, settle).await?;
        Ok(armed.into_iter().map(|armed| Armed { run: armed.run, due_at: armed.due_at, fence: armed.fence }).collect())
    }

    async fn look(&self, now: Moment) -> Result<Look, StoreError> {
        guard::look(self, now, system::is_kept_by_a_time_service(now.at)).await
    }

    async fn next_due_at(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        Store::next_due_at(self).await
    }

    async fn still_armed(&self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
        Store::still_armed(self, runs.to_vec()).await
    }
}
