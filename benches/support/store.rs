//! A durable store behind the dispatcher: SQLite with a write-ahead log, synced at every commit, one thread that writes
//! and one that reads.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use afterhours::domain::job::JobSpec;
use afterhours::domain::job::JobType;
use afterhours::domain::job::MAX_RUNTIME_DEFAULT;
use afterhours::domain::job::MISFIRE_TOLERANCE_DEFAULT;
use afterhours::domain::job::MisfirePolicy;
use afterhours::domain::job::StartCondition;
use afterhours::domain::run::Fence;
use afterhours::domain::run::RunId;
use afterhours::scheduler::dispatcher::Armed;
use afterhours::scheduler::dispatcher::DueStore;
use afterhours::scheduler::resolve::next_start;
use chrono::DateTime;
use chrono::Utc;
use chrono_tz::Tz;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::OptionalExtension;
use rusqlite::TransactionBehavior;
use rusqlite::params;
use thiserror::Error;
use tokio::sync::oneshot;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS jobs (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, spec TEXT NOT NULL, enabled INTEGER NOT NULL, due_at INTEGER
    ) STRICT;
    CREATE INDEX IF NOT EXISTS jobs_due ON jobs (due_at) WHERE enabled AND due_at IS NOT NULL;
    CREATE TABLE IF NOT EXISTS runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL REFERENCES jobs (id), due_at INTEGER NOT NULL,
        state TEXT NOT NULL, fence INTEGER NOT NULL, job_order TEXT NOT NULL, UNIQUE (job, due_at)
    ) STRICT;";

/// How the store fails.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// A statement failed.
    #[error("ask the database")]
    Sql(#[from] rusqlite::Error),
    /// A thread has ended.
    #[error("reach the thread of the database")]
    Gone,
    /// A job cannot be read.
    #[error("read a stored job")]
    Json(#[from] serde_json::Error),
}

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// A thread with a connection.
#[derive(Debug)]
struct Worker(mpsc::Sender<Work>);

impl Worker {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.execute_batch(SCHEMA)?;
        let (work, todo) = mpsc::channel::<Work>();
        thread::spawn(move || todo.into_iter().for_each(|work| work(&mut connection)));
        Ok(Self(work))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0
            .send(Box::new(move |connection| drop(reply.send(question(connection)))))
            .map_err(|_| StoreError::Gone)?;
        answer.await.map_err(|_| StoreError::Gone)?
    }
}

/// The store.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    writer: Worker,
    reader: Worker,
}

impl SqliteStore {
    /// Opens or creates the database.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("bench.db");
        Ok(Self { writer: Worker::open(&path)?, reader: Worker::open(&path)? })
    }

    /// Adds jobs that start at these instants.
    pub(crate) async fn add_jobs(&self, due: Vec<DateTime<Utc>>) -> Result<(), StoreError> {
        self.writer
            .ask(move |connection| {
                let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let first: i64 = tx.query_row("SELECT coalesce(max(id), 0) + 1 FROM jobs", [], |row| row.get(0))?;
                for (id, due_at) in (first..).zip(due) {
                    let spec = spec(id, due_at);
                    tx.prepare_cached("INSERT INTO jobs (id, name, spec, enabled, due_at) VALUES (?1, ?2, ?3, 1, ?4)")?
                        .execute(params![
                            id,
                            spec.name.to_string(),
                            serde_json::to_string(&spec)?,
                            due_at.timestamp_micros()
                        ])?;
                }
                Ok(tx.commit()?)
            })
            .await
    }

    /// Every run there is: its number, its job, and when it is due.
    pub(crate) async fn runs(&self) -> Result<Vec<(RunId, i64, DateTime<Utc>)>, StoreError> {
        self.reader
            .ask(|connection| {
                let mut runs = connection.prepare("SELECT id, job, due_at FROM runs")?;
                let runs = runs.query_map([], |row| Ok((RunId(row.get(0)?), row.get(1)?, instant(row.get(2)?))))?;
                Ok(runs.collect::<Result<_, _>>()?)
            })
            .await
    }
}

fn instant(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).expect("written by us")
}

/// A job as an administrator would write it.
fn spec(id: i64, due_at: DateTime<Utc>) -> JobSpec {
    JobSpec {
        name: format!("update-{id}").parse().expect("a sound name"),
        title: "Update of the order desk".to_owned(),
        kind: JobType::SoftwareUpdate,
        app: "orders".parse().expect("a sound name"),
        remarks: "agreed with the head of the department".to_owned(),
        start: StartCondition::Time { local: due_at.naive_utc(), zone: Tz::UTC },
        grace: None,
        max_runtime: MAX_RUNTIME_DEFAULT,
        misfire: MisfirePolicy::Run,
        misfire_tolerance: MISFIRE_TOLERANCE_DEFAULT,
        to: None,
        on_failure: None,
        mail: vec!["it@example.com".to_owned()],
    }
}

impl DueStore for SqliteStore {
    type Error = StoreError;

    async fn arm_due(&self, horizon: DateTime<Utc>, _: DateTime<Utc>, max: usize) -> Result<Vec<Armed>, StoreError> {
        self.writer
            .ask(move |connection| {
                let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let due: Vec<(i64, String, i64)> = tx
                    .prepare_cached(
                        "SELECT id, spec, due_at FROM jobs WHERE enabled AND due_at <= ?1 ORDER BY due_at LIMIT ?2",
                    )?
                    .query_map(params![horizon.timestamp_micros(), max as i64], |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                    })?
                    .collect::<Result<_, _>>()?;
                let mut armed = Vec::with_capacity(due.len());
                for (job, spec, due_micros) in due {
                    let due_at = instant(due_micros);
                    let start = serde_json::from_str::<JobSpec>(&spec)?.start;
                    let next = next_start(&start, due_at).ok().flatten().map(|next| next.at.timestamp_micros());
                    tx.prepare_cached(
                        "INSERT INTO runs (job, due_at, state, fence, job_order) VALUES (?1, ?2, 'queued', 1, ?3)",
                    )?
                    .execute(params![job, due_micros, spec])?;
                    armed.push(Armed { run: RunId(tx.last_insert_rowid()), due_at, fence: Fence(1) });
                    tx.prepare_cached("UPDATE jobs SET due_at = ?2 WHERE id = ?1")?.execute(params![job, next])?;
                }
                tx.commit()?;
                Ok(armed)
            })
            .await
    }

    async fn next_due_at(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.reader
            .ask(|connection| {
                let sql = "SELECT due_at FROM jobs WHERE enabled AND due_at IS NOT NULL ORDER BY due_at LIMIT 1";
                let next: Option<i64> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
                Ok(next.map(instant))
            })
            .await
    }

    async fn still_armed(&self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
        let numbers = serde_json::to_string(runs)?;
        self.reader
            .ask(move |connection| {
                let sql = "SELECT id FROM runs WHERE state = 'queued' AND id IN (SELECT value FROM json_each(?1))";
                let mut runs = connection.prepare_cached(sql)?;
                let runs = runs.query_map([numbers], |row| row.get(0).map(RunId))?;
                Ok(runs.collect::<Result<_, _>>()?)
            })
            .await
    }
}
