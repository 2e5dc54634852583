//! Keeps the history from growing for ever: what is older than `keep_history` and `keep_audit` goes. So do old copies of the
//! store from before its upgrades.
//!
//! In small transactions, so that nobody who writes meanwhile waits long: first the files of some runs, then their
//! rows, then the next ones. Wherever we die, what is left is removed the next time.
//!
//! Deliberately absent: VACUUM. It would hold up every start while it copies the whole store; pages that become free
//! are used again, so the file stops growing instead.

use chrono::DateTime;
use chrono::Utc;

use crate::db::copy::remove_old_copies;
use crate::db::retention::OldRun;
use crate::domain::failure::Failure;
use crate::domain::run::RunId;
use crate::domain::span::Span;
use crate::jobs::lock::AppLock;
use crate::scheduler::guard;
use crate::scheduler::housekeeping::Household;
use crate::scheduler::housekeeping::Troubles;

/// How many runs go in one transaction; each has some fifty events.
const RUNS_MAX: u32 = 10;
/// How many audit entries go in one transaction.
const ENTRIES_MAX: u32 = 500;

/// How long the history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Runs, their logs and their mails.
    pub history: Span,
    /// Who changed what; not shorter.
    pub audit: Span,
}

impl Household {
    /// Removes what is too old, and what is known of applications that are not configured any more.
    pub(super) async fn prune(&self) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut troubles = Troubles::default();
        if let Err(failure) = self.remove_copies().await {
            troubles.add("the store", failure);
        }
        self.store.keep_update_checks(self.night.kits.keys().cloned().collect()).await?;
        // What is old by a clock that nobody believes is not old.
        if guard::is_doubted(&self.store).await? {
            return troubles.result();
        }
        self.store.remove_passes(now).await?;
        // A clock that is years ahead, on a machine where nothing has happened since, must not empty the history.
        let Some(newest) = self.store.newest_link_at().await? else { return troubles.result() };
        let age_from = now.min(newest);
        if let Some(before) = age_from.checked_sub_signed(self.keep.history.delta()) {
            self.prune_runs(before, now, &mut troubles).await?;
        }
        if let Some(before) = age_from.checked_sub_signed(self.keep.audit.delta()) {
            let mut removed = 0;
            loop {
                let entries = self.store.remove_entries(before, ENTRIES_MAX, now).await?;
                removed += entries;
                if entries < ENTRIES_MAX as usize {
                    break;
                }
            }
            if removed > 0 {
                tracing::info!(entries = removed, %before, "old audit entries were removed");
            }
        }
        troubles.result()
    }

    /// Of the copies from before an upgrade of the schema only the newest are of use.
    async fn remove_copies(&self) -> Result<(), Failure> {
        let store = self.store.path().to_owned();
        let removed = tokio::task::spawn_blocking(move || remove_old_copies(&store)).await;
        let removed = removed.map_err(|error| Failure::from_error(&error))??;
        if removed > 0 {
            tracing::info!(copies = removed, "old copies of the store, from before its upgrades, were removed");
        }
        Ok(())
    }

    async fn prune_runs(
        &self,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
        troubles: &mut Troubles,
    ) -> Result<(), Failure> {
        let (mut after, mut removed) = (RunId(0), 0);
        loop {
            let old = self.store.old_runs(before, after, RUNS_MAX).await?;
            let Some(last) = old.last() else { break };
            after = last.run;
            let mut runs = Vec::with_capacity(old.len());
            for old in &old {
                match self.remove_files(old).await {
                    Ok(true) => runs.push(old.run),
                    Ok(false) => {}
                    // Its rows still say whose files these are.
                    Err(failure) => troubles.add(&old.app, failure),
                }
            }
            if !runs.is_empty() {
                removed += runs.len();
                self.store.remove_runs(runs, now).await?;
            }
        }
        if removed > 0 {
            tracing::info!(runs = removed, %before, "old runs were removed");
        }
        Ok(())
    }

    /// Removes what a run has left on disk; false when somebody works on its application just now.
    async fn remove_files(&self, old: &OldRun) -> Result<bool, Failure> {
        // Where an application that is not configured any more kept its files, nobody knows.
        let Some(kit) = old.app_name().and_then(|app| self.night.kits.get(&app)) else { return Ok(true) };
        let Some(_lock) = AppLock::try_take(&self.data_dir, &kit.app.name)? else { return Ok(false) };
        kit.installer.forget(old.run).await.map_err(|error| crate::jobs::steps::failed(&error, error.hint()))?;
        Ok(true)
    }
}
