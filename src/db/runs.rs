//! The table `runs`: one row a run, a cache of what its log says, and the claim of who works on it.

use chrono::DateTime;
use chrono::Utc;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::from_json;
use crate::db::store::readable;
use crate::db::store::to_json;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::run::Fence;
use crate::domain::run::Order;
use crate::domain::run::Outcome;
use crate::domain::run::RunId;
use crate::domain::run::Trigger;

/// A row of `runs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// The run.
    pub id: RunId,
    /// What it was told.
    pub order: Order,
    /// When it was due, for a run the schedule started.
    pub due_at: Option<DateTime<Utc>>,
    /// Whether anything is in its log: somebody has taken it up.
    pub begun: bool,
    /// The name of its state.
    pub state: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The application is stopped and neither version is accepted yet.
    pub away: bool,
    /// The claim.
    pub fence: Fence,
    /// When it was queued.
    pub queued_at: DateTime<Utc>,
    /// When it had its turn.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
}

/// The run that is under way at an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveRun {
    /// The run.
    pub id: RunId,
    /// The name of its state.
    pub state: String,
    /// The application is stopped and neither version is accepted yet.
    pub away: bool,
}

/// Which runs are listed.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only of this application.
    pub app: Option<AppName>,
    /// Only of this job.
    pub job: Option<JobName>,
    /// Only those that are not over.
    pub unfinished: bool,
    /// At most this many, the newest; 100 when absent.
    pub limit: Option<u32>,
}

const COLUMNS: &str = "id, due_at, body, state, outcome, away, fence, queued_at, started_at, finished_at,
    EXISTS (SELECT 1 FROM run_events WHERE run = runs.id) AS begun";
const LIMIT_DEFAULT: u32 = 100;

fn read_run(row: &Row<'_>) -> Result<RunRow, StoreError> {
    let id: i64 = row.get("id")?;
    let body: String = row.get("body")?;
    let outcome: Option<String> = row.get("outcome")?;
    Ok(RunRow {
        id: RunId(id),
        order: from_json(|| format!("run {id}"), &body)?,
        due_at: row.get("due_at")?,
        begun: row.get("begun")?,
        state: row.get("state")?,
        outcome: outcome.and_then(|name| Outcome::ALL.into_iter().find(|outcome| outcome.name() == name)),
        away: row.get("away")?,
        fence: Fence(row.get("fence")?),
        queued_at: row.get("queued_at")?,
        started_at: row.get("started_at")?,
        finished_at: row.get("finished_at")?,
    })
}

/// Queues a run; nothing when the same start of the same job is queued already.
pub(crate) fn insert_run(
    tx: &Transaction<'_>,
    job_id: Option<i64>,
    order: &Order,
    due_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Option<(RunId, Fence)>, StoreError> {
    Ok(tx
        .prepare_cached(
            "INSERT INTO runs (job_id, job, app, due_at, body, state, fence, queued_at)
             VALUES (?1, ?2, ?3, ?4, ?5, 'queued', 1, ?6)
             ON CONFLICT (job_id, due_at) WHERE job_id IS NOT NULL AND due_at IS NOT NULL DO NOTHING
             RETURNING id",
        )?
        .query_row(
            (
                job_id,
                order.job.as_ref().map(JobName::as_str),
                order.app.as_str(),
                due_at,
                to_json("a run", order)?,
                now,
            ),
            |row| row.get("id"),
        )
        .optional()?
        .map(|id| (RunId(id), Fence(1))))
}

fn list_runs(tx: &Transaction<'_>, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM runs
         WHERE (?1 IS NULL OR app = ?1) AND (?2 IS NULL OR job = ?2) AND (NOT ?3 OR state <> 'finished')
         ORDER BY id DESC LIMIT ?4"
    ))?;
    readable(statement.query_and_then(
        (
            filter.app.as_ref().map(AppName::as_str),
            filter.job.as_ref().map(JobName::as_str),
            filter.unfinished,
            filter.limit.unwrap_or(LIMIT_DEFAULT),
        ),
        read_run,
    )?)
}

impl Store {
    /// Queues a run that the schedule did not start. One that makes up for a missed start also answers its job's
    /// question about that start, in the same transaction: it is never asked again for nothing, and never forgotten.
    ///
    /// # Errors
    /// The store fails; nothing is queued and nothing answered then.
    pub async fn queue_run(&self, order: Order, now: DateTime<Utc>) -> Result<RunId, StoreError> {
        self.write(move |tx| {
            if let (Trigger::Misfire { missed_at }, Some(job)) = (&order.trigger, &order.job) {
                tx.execute(
                    "UPDATE jobs SET missed_at = NULL WHERE name = ?1 AND missed_at = ?2",
                    (job.as_str(), missed_at),
                )?;
            }
            let job_id: Option<i64> = match &order.job {
                Some(job) => tx
                    .query_row("SELECT id FROM jobs WHERE name = ?1", [job.as_str()], |row| row.get("id"))
                    .optional()?,
                None => None,
            };
            // Without a due instant nothing can be queued twice.
            insert_run(tx, job_id, &order, None, now)?
                .map(|(id, _)| id)
                .ok_or(StoreError::Sql(rusqlite::Error::QueryReturnedNoRows))
        })
        .await
    }

    /// Queues a run that follows `after`; nothing happens when it is queued already.
    ///
    /// # Errors
    /// The store fails.
    pub async fn queue_follower(&self, order: Order, after: RunId, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.write(move |tx| {
            // The instant at which the run before it was queued makes the start one of a kind.
            let due_at: DateTime<Utc> =
                tx.query_row("SELECT queued_at FROM runs WHERE id = ?1", [after.0], |row| row.get("queued_at"))?;
            let job_id: Option<i64> = match &order.job {
                Some(job) => tx
                    .query_row("SELECT id FROM jobs WHERE name = ?1", [job.as_str()], |row| row.get("id"))
                    .optional()?,
                None => None,
            };
            insert_run(tx, job_id, &order, Some(due_at), now).map(drop)
        })
        .await
    }

    /// Notes why a run that has not begun exists, when that has changed.
    ///
    /// # Errors
    /// [`StoreError::NoRun`], or the store fails.
    pub async fn set_trigger(&self, run: RunId, trigger: Trigger) -> Result<(), StoreError> {
        let mut order = self.run(run).await?.order;
        order.trigger = trigger;
        self.write(move |tx| {
            tx.execute(
                "UPDATE runs SET body = ?2 WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM run_events WHERE run = ?1)",
                (run.0, to_json("a run", &order)?),
            )?;
            Ok(())
        })
        .await
    }

    /// Takes a run over: whoever held it before can write nothing more to its log.
    ///
    /// # Errors
    /// [`StoreError::NoRun`], or the store fails.
    pub async fn claim_run(&self, run: RunId) -> Result<Fence, StoreError> {
        self.write_in_need(move |tx| {
            tx.query_row("UPDATE runs SET fence = fence + 1 WHERE id = ?1 RETURNING fence", [run.0], |row| {
                row.get("fence")
            })
            .optional()?
            .map(Fence)
            .ok_or(StoreError::NoRun(run))
        })
        .await
    }

    /// Finds a run.
    ///
    /// # Errors
    /// [`StoreError::NoRun`], or the store fails.
    pub async fn run(&self, run: RunId) -> Result<RunRow, StoreError> {
        self.read(move |tx| {
            tx.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE id = ?1"))?
                .query_row([run.0], |row| Ok(read_run(row)))
                .optional()?
                .ok_or(StoreError::NoRun(run))?
        })
        .await
    }

    /// Runs, the newest first.
    ///
    /// # Errors
    /// The store fails.
    pub async fn runs(&self, filter: RunFilter) -> Result<Vec<RunRow>, StoreError> {
        self.read(move |tx| list_runs(tx, &filter)).await
    }

    /// All runs that are not over, oldest first.
    ///
    /// # Errors
    /// The store fails.
    pub async fn unfinished_runs(&self) -> Result<Vec<RunRow>, StoreError> {
        let filter = RunFilter { unfinished: true, limit: Some(u32::MAX), ..RunFilter::default() };
        let mut runs = self.runs(filter).await?;
        runs.reverse();
        Ok(runs)
    }

    /// The run that is under way at an application, whether or not the rest of its row can be read; `away` where the
    /// application is stopped and neither version is accepted yet.
    ///
    /// # Errors
    /// The store fails.
    pub async fn active_run(&self, app: &AppName) -> Result<Option<ActiveRun>, StoreError> {
        let app = app.clone();
        self.read(move |tx| {
            // There is one at most: `runs_one_active`.
            Ok(tx
                .prepare_cached(
                    "SELECT id, state, away FROM runs WHERE app = ?1 AND started_at IS NOT NULL
                     AND state IN ('running', 'waiting', 'unwinding', 'stuck')",
                )?
                .query_row([app.as_str()], |row| {
                    Ok(ActiveRun { id: RunId(row.get("id")?), state: row.get("state")?, away: row.get("away")? })
                })
                .optional()?)
        })
        .await
    }

    /// Which of `runs` are still queued, in the same order.
    ///
    /// # Errors
    /// The store fails.
    pub async fn still_armed(&self, runs: Vec<RunId>) -> Result<Vec<RunId>, StoreError> {
        self.read(move |tx| {
            let mut statement = tx.prepare_cached("SELECT 1 FROM runs WHERE id = ?1 AND state = 'queued'")?;
            let mut armed = Vec::with_capacity(runs.len());
            for run in runs {
                if statement.exists([run.0])? {
                    armed.push(run);
                }
            }
            Ok(armed)
        })
        .await
    }
}
