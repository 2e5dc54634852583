//! The table `clock`: when the clock was believed the last time; and what is put right in the other tables after it was
//! wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;
use rusqlite::OptionalExtension;
use rusqlite::Transaction;
use serde::Serialize;

use crate::db::audit::AuditEntry;
use crate::db::audit::append_entry;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::from_json;
use crate::db::store::to_json;
use crate::domain::doubt::BEHIND;
use crate::domain::doubt::Seen;
use crate::domain::job::JobSpec;

/// When a job starts after an instant that a wrong clock wanted to start at another one. It is policy, so the caller brings
/// it.
pub type Again = Arc<dyn Fn(&JobSpec, Option<DateTime<Utc>>, DateTime<Utc>) -> Option<DateTime<Utc>> + Send + Sync>;
/// How many starts of one job that were made already are passed over.
const TAKEN_MAX: u32 = 1_000;

/// A start that was computed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The job.
    pub job: String,
    /// When it was to start by the wrong clock; nothing where that had used it up.
    pub before: Option<DateTime<Utc>>,
    /// When it starts.
    pub after: Option<DateTime<Utc>>,
}

fn seen(tx: &Transaction<'_>) -> Result<Option<Seen>, StoreError> {
    let body: Option<String> =
        tx.prepare_cached("SELECT body FROM clock")?.query_row([], |row| row.get("body")).optional()?;
    // One that cannot be read is as good as none: what was written down says how late it is at least.
    Ok(body.and_then(|body| from_json(|| "what is remembered of the clock".to_owned(), &body).ok()))
}

fn note(tx: &Transaction<'_>, seen: &Seen) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO clock VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET body = excluded.body")?
        .execute([to_json("the clock", seen)?])?;
    Ok(())
}

/// Takes back what the schedule did at an instant that is still to come: starts that were armed for then, and such as were
/// given up without having had their turn. Answers with their starts, by job.
fn take_back(tx: &Transaction<'_>, now: DateTime<Utc>) -> Result<BTreeMap<i64, DateTime<Utc>>, StoreError> {
    let later = now + BEHIND;
    let mut lost: BTreeMap<i64, DateTime<Utc>> = BTreeMap::new();
    let mut statement = tx.prepare_cached(
        "SELECT job_id, due_at FROM runs WHERE job_id IS NOT NULL AND due_at IS NOT NULL AND
         ((outcome = 'skipped' AND started_at IS NULL AND finished_at > ?1)
          OR (state = 'queued' AND due_at > ?1 AND queued_at > ?1
              AND NOT EXISTS (SELECT 1 FROM run_events WHERE run = runs.id)))",
    )?;
    let mut rows = statement.query([later])?;
    while let Some(row) = rows.next()? {
        let due_at: DateTime<Utc> = row.get("due_at")?;
        // Of several the earliest.
        lost.entry(row.get("job_id")?).and_modify(|first| *first = due_at.min(*first)).or_insert(due_at);
    }
    tx.prepare_cached(
        "DELETE FROM runs WHERE job_id IS NOT NULL AND state = 'queued' AND due_at > ?1 AND queued_at > ?1
         AND NOT EXISTS (SELECT 1 FROM run_events WHERE run = runs.id)",
    )?
    .execute([later])?;
    // Their starts are free again; what became of these runs stays in their logs.
    tx.prepare_cached(
        "UPDATE runs SET due_at = NULL WHERE outcome = 'skipped' AND started_at IS NULL AND finished_at > ?1
         AND job_id IS NOT NULL AND due_at IS NOT NULL",
    )?
    .execute([later])?;
    Ok(lost)
}

fn compute_again(tx: &Transaction<'_>, now: DateTime<Utc>, again: &Again) -> Result<Vec<Moved>, StoreError> {
    let mut lost = take_back(tx, now)?;
    let mut moved = Vec::new();
    let mut move_to = tx.prepare_cached("UPDATE jobs SET due_at = ?2, missed_at = ?3 WHERE id = ?1")?;
    let mut taken = tx.prepare_cached("SELECT 1 FROM runs WHERE job_id = ?1 AND due_at = ?2")?;
    let mut jobs = tx
        .prepare_cached("SELECT id, name, spec, due_at, missed_at FROM jobs WHERE enabled AND start_kind <> 'after'")?;
    let mut rows = jobs.query([])?;
    while let Some(row) = rows.next()? {
        let (id, name, spec): (i64, String, String) = (row.get("id")?, row.get("name")?, row.get("spec")?);
        let (due_at, missed_at): (Option<DateTime<Utc>>, Option<DateTime<Utc>>) =
            (row.get("due_at")?, row.get("missed_at")?);
        // One that cannot be read is reported elsewhere, and does not start.
        let Ok(spec) = from_json::<JobSpec>(|| format!("job {id}"), &spec) else { continue };
        let given_up = lost.remove(&id);
        let mut next = again(&spec, due_at, now);
        for _ in 0..TAKEN_MAX {
            match next {
                Some(at) if given_up != Some(at) && taken.exists((id, at))? => next = again(&spec, due_at, at),
                _ => break,
            }
        }
        let starts_at = given_up.into_iter().chain(next).min();
        let missed_at = missed_at.filter(|missed_at| given_up != Some(*missed_at) && *missed_at <= now);
        if starts_at != due_at {
            move_to.execute((id, starts_at, missed_at))?;
            moved.push(Moved { job: name, before: due_at, after: starts_at });
        }
    }
    Ok(moved)
}

impl Store {
    /// What is remembered of the clock; nothing in a store that no daemon has worked with yet.
    ///
    /// # Errors
    /// The store fails.
    pub async fn clock_seen(&self) -> Result<Option<Seen>, StoreError> {
        self.read(seen).await
    }

    /// Remembers the clock.
    ///
    /// # Errors
    /// The store fails.
    pub async fn note_clock(&self, seen: Seen) -> Result<(), StoreError> {
        self.write(move |tx| note(tx, &seen)).await
    }

    /// The clock was ahead and is right now: whatever was computed from it is computed again, in one transaction with
    /// the entry that `told` makes of it, and with what is remembered of the clock.
    ///
    /// # Errors
    /// The store fails; nothing has changed then.
    pub async fn compute_again<F>(&self, now: DateTime<Utc>, again: Again, told: F) -> Result<Vec<Moved>, StoreError>
    where
        F: FnOnce(&[Moved]) -> (AuditEntry, Seen) + Send + 'static,
    {
        self.write(move |tx| {
            let moved = compute_again(tx, now, &again)?;
            // Whatever waits to be tried again is tried now.
            tx.execute("UPDATE outbox SET next_at = ?1 WHERE state = 'pending' AND next_at > ?1", [now])?;
            tx.execute("UPDATE gate_openings SET next_at = ?1 WHERE next_at > ?1", [now])?;
            let (entry, seen) = told(&moved);
            append_entry(tx, entry)?;
            note(tx, &seen)?;
            Ok(moved)
        })
        .await
    }
}
