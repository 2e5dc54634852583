//! The dispatcher's view of the store: what is due, and when it is due next.

use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;

use crate::db::jobs::NextStart;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::run::RunId;
use crate::scheduler::dispatcher::Armed;
use crate::scheduler::dispatcher::DueStore;
use crate::scheduler::resolve::next_start;

impl DueStore for Store {
    type Error = StoreError;

    async fn arm_due(&self, horizon: DateTime<Utc>, now: DateTime<Utc>, max: usize) -> Result<Vec<Armed>, StoreError> {
        // An expression that could be read when the job was stored can be read now.
        let next: NextStart =
            Arc::new(|spec, after| next_start(&spec.start, after).ok().flatten().map(|resolved| resolved.at));
        let armed = Store::arm_due(self, horizon, now, max, next).await?;
        Ok(armed.into_iter().map(|armed| Armed { run: armed.run, due_at: armed.due_at, fence: armed.fence }).collect())
    }

    async fn next_due_at(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        Store::next_due_at(self).await
    }

    async fn still_armed(&self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
        Store::still_armed(self, runs.to_vec()).await
    }
}
