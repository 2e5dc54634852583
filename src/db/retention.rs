//! What retention removes: runs with their logs and mails, audit entries, passes that have run out.
//!
//! What is old enough is the caller's word; what must stay whatever its age is said here: a run that is not over, the
//! last one of a job and of an application, one whose mail is not sent yet, and one in which a release failed that is
//! still quarantined. Each call is one transaction of bounded size, with its checkpoint on the chain (`chain.rs`):
//! between two of them we may die, and the next ones go on. Where something is missing that nobody vouches for, nothing
//! more is removed.

use chrono::DateTime;
use chrono::Utc;
use rusqlite::OptionalExtension;
use rusqlite::Transaction;
use serde_json::json;

use crate::db::chain::Link;
use crate::db::chain::append_checkpoint;
use crate::db::chain::must_be_vouched_for;
use crate::db::chain::open_gap;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::name::AppName;
use crate::domain::run::RunId;

/// A run that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldRun {
    /// The run.
    pub run: RunId,
    /// Its application, as it was called then.
    pub app: String,
}

impl OldRun {
    /// The application, if that is still a name.
    pub fn app_name(&self) -> Option<AppName> {
        self.app.parse().ok()
    }
}

fn remove_runs(tx: &Transaction<'_>, runs: &[RunId], now: DateTime<Utc>) -> Result<(), StoreError> {
    must_be_vouched_for(tx)?;
    let mut links = Vec::new();
    for run in runs {
        let mut statement = tx.prepare_cached("SELECT link, hash FROM run_events WHERE run = ?1")?;
        let found =
            statement.query_map([run.0], |row| Ok(Link { number: row.get("link")?, hash: row.get("hash")? }))?;
        links.extend(found.collect::<Result<Vec<_>, _>>()?);
    }
    links.sort_unstable_by_key(|link| link.number);
    links.iter().try_for_each(|link| open_gap(tx, link))?;
    let mut mails = 0;
    for run in runs {
        tx.prepare_cached("DELETE FROM run_events WHERE run = ?1")?.execute([run.0])?;
        mails += tx.prepare_cached("DELETE FROM outbox WHERE run = ?1 AND state <> 'pending'")?.execute([run.0])?;
        // A mail that is pending, or a release in quarantine, refers to the row and keeps all of this from happening.
        let gone = tx.prepare_cached("DELETE FROM runs WHERE id = ?1 AND state = 'finished'")?.execute([run.0])?;
        if gone == 0 {
            return Err(StoreError::NoRun(*run));
        }
    }
    append_checkpoint(tx, now, json!({ "runs": runs, "mails": mails, "links": links.len() }))
}

fn remove_entries(
    tx: &Transaction<'_>,
    before: DateTime<Utc>,
    max: u32,
    now: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let links = {
        let mut statement = tx.prepare_cached("SELECT link, hash FROM audit WHERE at < ?1 ORDER BY link LIMIT ?2")?;
        let found =
            statement.query_map((before, max), |row| Ok(Link { number: row.get("link")?, hash: row.get("hash")? }))?;
        found.collect::<Result<Vec<_>, _>>()?
    };
    if links.is_empty() {
        return Ok(0);
    }
    must_be_vouched_for(tx)?;
    for link in &links {
        open_gap(tx, link)?;
        tx.prepare_cached("DELETE FROM audit WHERE link = ?1")?.execute([link.number])?;
    }
    append_checkpoint(tx, now, json!({ "entries": links.len() }))?;
    Ok(links.len())
}

impl Store {
    /// The instant of the newest link of the chain; the history is not older than that.
    ///
    /// # Errors
    /// The store fails.
    pub async fn newest_link_at(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.read(|tx| {
            Ok(tx
                .query_row(
                    "SELECT at FROM run_events WHERE link = (SELECT link FROM chain)
                     UNION ALL SELECT at FROM audit WHERE link = (SELECT link FROM chain)",
                    [],
                    |row| row.get("at"),
                )
                .optional()?)
        })
        .await
    }

    /// Runs that were over before `before` and may go, at most `max`, oldest first; only those after `after`.
    ///
    /// # Errors
    /// The store fails.
    pub async fn old_runs(&self, before: DateTime<Utc>, after: RunId, max: u32) -> Result<Vec<OldRun>, StoreError> {
        self.read(move |tx| {
            let mut statement = tx.prepare_cached(
                "SELECT id, app FROM runs WHERE state = 'finished' AND finished_at < ?1 AND id > ?2
                 AND EXISTS (SELECT 1 FROM runs AS newer
                             WHERE newer.state = 'finished' AND newer.app = runs.app AND newer.id > runs.id)
                 AND (job_id IS NULL OR EXISTS (SELECT 1 FROM runs AS newer
                             WHERE newer.state = 'finished' AND newer.job_id = runs.job_id AND newer.id > runs.id))
                 AND NOT EXISTS (SELECT 1 FROM outbox WHERE run = runs.id AND state = 'pending')
                 AND NOT EXISTS (SELECT 1 FROM quarantine WHERE run = runs.id)
                 ORDER BY id LIMIT ?3",
            )?;
            let rows = statement.query_map((before, after.0, max), |row| {
                Ok(OldRun { run: RunId(row.get("id")?), app: row.get("app")? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Removes runs that [`Store::old_runs`] has named, with their logs and mails.
    ///
    /// # Errors
    /// The store fails, or one of them may not go after all; none is removed then.
    pub async fn remove_runs(&self, runs: Vec<RunId>, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.write(move |tx| remove_runs(tx, &runs, now)).await
    }

    /// Removes the audit entries from before `before`, at most `max`, oldest first; says how many.
    ///
    /// # Errors
    /// The store fails; nothing is removed then.
    pub async fn remove_entries(
        &self,
        before: DateTime<Utc>,
        max: u32,
        now: DateTime<Utc>,
    ) -> Result<usize, StoreError> {
        self.write(move |tx| remove_entries(tx, before, max, now)).await
    }

    /// Removes the passes that have run out.
    ///
    /// # Errors
    /// The store fails.
    pub async fn remove_passes(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("DELETE FROM passes WHERE valid_until <= ?1", [now])?;
            Ok(())
        })
        .await
    }
}
