//! The table `jobs`: definitions and their next start.

use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;

use crate::db::runs::insert_run;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::from_json;
use crate::db::store::readable;
use crate::db::store::to_json;
use crate::domain::job::Job;
use crate::domain::job::JobSpec;
use crate::domain::job::StartCondition;
use crate::domain::name::JobName;
use crate::domain::run::Fence;
use crate::domain::run::Order;
use crate::domain::run::RunId;
use crate::domain::run::Trigger;

const COLUMNS: &str = "id, spec, enabled, due_at, missed_at, created_by, created_at, updated_at";

/// Says of a due job which start counts (a later one, when several were missed) and which comes after it. It is
/// policy, so the caller brings it.
pub type Settle =
    Arc<dyn Fn(&JobSpec, DateTime<Utc>, DateTime<Utc>) -> (DateTime<Utc>, Option<DateTime<Utc>>) + Send + Sync>;

/// A run that was queued ahead of its instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmedRun {
    /// The run.
    pub run: RunId,
    /// Its instant.
    pub due_at: DateTime<Utc>,
    /// The claim.
    pub fence: Fence,
}

fn read_job(row: &Row<'_>) -> Result<(i64, Job), StoreError> {
    let spec: String = row.get("spec")?;
    let id: i64 = row.get("id")?;
    let job = Job {
        spec: from_json(|| format!("job {id}"), &spec)?,
        enabled: row.get("enabled")?,
        due_at: row.get("due_at")?,
        missed_at: row.get("missed_at")?,
        created_by: row.get("created_by")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    };
    Ok((id, job))
}

fn after_job(spec: &JobSpec) -> Option<&str> {
    match &spec.start {
        StartCondition::After { job } => Some(job.as_str()),
        _ => None,
    }
}

fn insert_job(tx: &Transaction<'_>, job: &Job) -> Result<(), StoreError> {
    let spec = &job.spec;
    let changed = tx
        .prepare_cached(
            "INSERT INTO jobs (name, app, start_kind, after_job, on_failure, spec, enabled, due_at, missed_at,
                               created_by, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT (name) DO NOTHING",
        )?
        .execute(rusqlite::params![
            spec.name.as_str(),
            spec.app.as_str(),
            spec.start.kind(),
            after_job(spec),
            spec.on_failure.as_ref().map(JobName::as_str),
            to_json("a job", spec)?,
            job.enabled,
            job.due_at,
            job.missed_at,
            job.created_by,
            job.created_at,
            job.updated_at,
        ])?;
    if changed == 0 { Err(StoreError::NameTaken(spec.name.clone())) } else { Ok(()) }
}

fn find_job(tx: &Transaction<'_>, name: &JobName) -> Result<Option<(i64, Job)>, StoreError> {
    tx.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE name = ?1"))?
        .query_row([name.as_str()], |row| Ok(read_job(row)))
        .optional()?
        .transpose()
}

/// Takes back what was queued ahead. A start whose instant has come is not taken back any more.
fn withdraw_armed(tx: &Transaction<'_>, job_id: i64, now: DateTime<Utc>) -> Result<(), StoreError> {
    tx.prepare_cached(
        "DELETE FROM runs WHERE job_id = ?1 AND state = 'queued' AND due_at > ?2
         AND NOT EXISTS (SELECT 1 FROM run_events WHERE run = runs.id)",
    )?
    .execute((job_id, now))?;
    Ok(())
}

fn update_job(tx: &Transaction<'_>, name: &JobName, job: &Job) -> Result<(), StoreError> {
    let Some((id, _)) = find_job(tx, name)? else { return Err(StoreError::NoJob(name.clone())) };
    let spec = &job.spec;
    if spec.name != *name && find_job(tx, &spec.name)?.is_some() {
        return Err(StoreError::NameTaken(spec.name.clone()));
    }
    withdraw_armed(tx, id, job.updated_at)?;
    tx.prepare_cached(
        "UPDATE jobs SET name = ?2, app = ?3, start_kind = ?4, after_job = ?5, on_failure = ?6, spec = ?7,
                         enabled = ?8, due_at = ?9, missed_at = ?10, updated_at = ?11 WHERE id = ?1",
    )?
    .execute(rusqlite::params![
        id,
        spec.name.as_str(),
        spec.app.as_str(),
        spec.start.kind(),
        after_job(spec),
        spec.on_failure.as_ref().map(JobName::as_str),
        to_json("a job", spec)?,
        job.enabled,
        job.due_at,
        job.missed_at,
        job.updated_at,
    ])?;
    Ok(())
}

fn arm_due(
    tx: &Transaction<'_>,
    horizon: DateTime<Utc>,
    now: DateTime<Utc>,
    max: usize,
    settle: &Settle,
) -> Result<Vec<ArmedRun>, StoreError> {
    let due: Vec<(i64, Result<Job, StoreError>)> = {
        let mut statement = tx.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM jobs WHERE due_at IS NOT NULL AND due_at <= ?1 ORDER BY due_at LIMIT ?2"
        ))?;
        let rows = statement.query_and_then((horizon, i64::try_from(max).unwrap_or(i64::MAX)), |row| {
            Ok::<_, StoreError>((row.get("id")?, read_job(row).map(|(_, job)| job)))
        })?;
        rows.collect::<Result<_, _>>()?
    };
    let mut move_on = tx.prepare_cached("UPDATE jobs SET due_at = ?2 WHERE id = ?1")?;
    let mut armed = Vec::with_capacity(due.len());
    for (id, job) in due {
        let job = match job {
            Ok(job) => job,
            // What it wants is not known, so it is not started; its start counts as missed, and the others have their turn.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a job that is due cannot be started");
                tx.prepare_cached("UPDATE jobs SET due_at = NULL, missed_at = due_at WHERE id = ?1")?.execute([id])?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(due_at) = job.due_at else { continue };
        let (due_at, next) = settle(&job.spec, due_at, now);
        let order = Order::of_job(&job.spec, Trigger::Schedule, &job.created_by);
        if let Some((run, fence)) = insert_run(tx, Some(id), &order, Some(due_at), now)? {
            armed.push(ArmedRun { run, due_at, fence });
        }
        move_on.execute((id, next))?;
    }
    Ok(armed)
}

impl Store {
    /// Stores a new job.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], or the store fails.
    pub async fn create_job(&self, job: Job) -> Result<(), StoreError> {
        self.write(move |tx| insert_job(tx, &job)).await
    }

    /// Stores many jobs in one transaction.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], or the store fails; none is stored then.
    pub async fn create_jobs(&self, jobs: Vec<Job>) -> Result<(), StoreError> {
        self.write(move |tx| jobs.iter().try_for_each(|job| insert_job(tx, job))).await
    }

    /// Finds a job.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], or the store fails.
    pub async fn job(&self, name: &JobName) -> Result<Job, StoreError> {
        let name = name.clone();
        self.read(move |tx| find_job(tx, &name)?.map(|(_, job)| job).ok_or(StoreError::NoJob(name))).await
    }

    /// All jobs, by name.
    ///
    /// # Errors
    /// The store fails.
    pub async fn jobs(&self) -> Result<Vec<Job>, StoreError> {
        self.read(|tx| {
            let mut statement = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs ORDER BY name"))?;
            let rows = statement.query_and_then([], read_job)?;
            readable(rows.map(|row| row.map(|(_, job)| job)))
        })
        .await
    }

    /// How many jobs there are.
    ///
    /// # Errors
    /// The store fails.
    pub async fn count_jobs(&self) -> Result<u32, StoreError> {
        self.read(|tx| Ok(tx.prepare_cached("SELECT count(*) FROM jobs")?.query_row([], |row| row.get(0))?)).await
    }

    /// The jobs that start next, at most `limit`, and only those that start before `before`.
    ///
    /// # Errors
    /// The store fails.
    pub async fn next_jobs(&self, before: Option<DateTime<Utc>>, limit: u32) -> Result<Vec<Job>, StoreError> {
        self.read(move |tx| {
            let mut statement = tx.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM jobs WHERE due_at IS NOT NULL AND (?1 IS NULL OR due_at < ?1)
                 ORDER BY due_at LIMIT ?2"
            ))?;
            let rows = statement.query_and_then((before, limit), read_job)?;
            readable(rows.map(|row| row.map(|(_, job)| job)))
        })
        .await
    }

    /// The jobs whose start was missed and that want to be asked.
    ///
    /// # Errors
    /// The store fails.
    pub async fn missed_jobs(&self) -> Result<Vec<Job>, StoreError> {
        self.read(|tx| {
            let mut statement =
                tx.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE missed_at IS NOT NULL ORDER BY name"))?;
            let rows = statement.query_and_then([], read_job)?;
            readable(rows.map(|row| row.map(|(_, job)| job)))
        })
        .await
    }

    /// The names of the jobs that name this one, to follow it or to be followed by it.
    ///
    /// # Errors
    /// The store fails.
    pub async fn jobs_naming(&self, name: &JobName) -> Result<Vec<String>, StoreError> {
        let name = name.clone();
        self.read(move |tx| {
            let mut statement =
                tx.prepare_cached("SELECT name FROM jobs WHERE after_job = ?1 OR on_failure = ?1 ORDER BY name")?;
            let rows = statement.query_map([name.as_str()], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The enabled jobs that follow `name`.
    ///
    /// # Errors
    /// The store fails.
    pub async fn jobs_after(&self, name: &JobName) -> Result<Vec<Job>, StoreError> {
        let name = name.clone();
        self.read(move |tx| {
            let mut statement = tx.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM jobs WHERE after_job = ?1 AND enabled ORDER BY name"
            ))?;
            let rows = statement.query_and_then([name.as_str()], read_job)?;
            readable(rows.map(|row| row.map(|(_, job)| job)))
        })
        .await
    }

    /// The jobs that would follow `name`, but are disabled.
    ///
    /// # Errors
    /// The store fails.
    pub async fn disabled_after(&self, name: &JobName) -> Result<Vec<JobName>, StoreError> {
        let name = name.clone();
        self.read(move |tx| {
            let mut statement = tx.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM jobs WHERE after_job = ?1 AND NOT enabled ORDER BY name"
            ))?;
            let rows = statement.query_and_then([name.as_str()], read_job)?;
            readable(rows.map(|row| row.map(|(_, job)| job.spec.name)))
        })
        .await
    }

    /// Replaces a job, also its name, and takes back a start of it that was queued ahead.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], [`StoreError::NameTaken`], or the store fails.
    pub async fn replace_job(&self, name: &JobName, job: Job) -> Result<(), StoreError> {
        let name = name.clone();
        self.write(move |tx| update_job(tx, &name, &job)).await
    }

    /// Removes a job; its finished runs stay.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], or the store fails.
    pub async fn delete_job(&self, name: &JobName, now: DateTime<Utc>) -> Result<(), StoreError> {
        let name = name.clone();
        self.write(move |tx| {
            // Also one whose definition cannot be read: to delete it is the remedy.
            let id: Option<i64> =
                tx.query_row("SELECT id FROM jobs WHERE name = ?1", [name.as_str()], |row| row.get("id")).optional()?;
            let Some(id) = id else { return Err(StoreError::NoJob(name)) };
            withdraw_armed(tx, id, now)?;
            tx.execute("DELETE FROM jobs WHERE id = ?1", [id])?;
            Ok(())
        })
        .await
    }

    /// Queues a run for every job that is due at `horizon` or before, at most `max`, earliest first, and
    /// moves these jobs on to their next start.
    ///
    /// # Errors
    /// The store fails; nothing is queued then.
    pub async fn arm_due(
        &self,
        horizon: DateTime<Utc>,
        now: DateTime<Utc>,
        max: usize,
        settle: Settle,
    ) -> Result<Vec<ArmedRun>, StoreError> {
        self.write(move |tx| arm_due(tx, horizon, now, max, &settle)).await
    }

    /// The earliest start that is not queued yet.
    ///
    /// # Errors
    /// The store fails.
    pub async fn next_due_at(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.read(|tx| {
            Ok(tx
                .prepare_cached("SELECT due_at FROM jobs WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1")?
                .query_row([], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// Notes that a start was missed and that somebody must say what to do about it.
    ///
    /// # Errors
    /// The store fails.
    pub async fn set_missed(&self, name: &JobName, missed_at: DateTime<Utc>) -> Result<(), StoreError> {
        let name = name.clone();
        self.write(move |tx| {
            tx.execute("UPDATE jobs SET missed_at = ?2 WHERE name = ?1", (name.as_str(), missed_at))?;
            Ok(())
        })
        .await
    }
}
