//! The table `run_events`: the log of every run.

use chrono::DateTime;
use chrono::Utc;
use rusqlite::ErrorCode;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;
use serde::Deserialize;
use serde::Serialize;

use crate::db::chain::append_link;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::from_json;
use crate::db::store::to_json;
use crate::domain::clock::Uptime;
use crate::domain::event::LoggedEvent;
use crate::domain::event::RunEvent;
use crate::domain::run::Fence;
use crate::domain::run::RunId;
use crate::domain::run::RunState;

/// What the row of a run says after an event; the caller has folded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHead {
    /// Where the run stands.
    pub state: RunState,
    /// The application is stopped and neither version is accepted yet.
    pub away: bool,
}

/// What of an event has no column of its own.
#[derive(Serialize, Deserialize)]
struct Body<E> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    up: Option<Uptime>,
    #[serde(flatten)]
    event: E,
}

fn read_event(row: &Row<'_>) -> Result<LoggedEvent, StoreError> {
    let run = RunId(row.get("run")?);
    let seq: i64 = row.get("seq")?;
    let body: String = row.get("body")?;
    let Body { up, event } = from_json(|| format!("event {seq} of run {run}"), &body)?;
    Ok(LoggedEvent { run, seq, at: row.get("at")?, up, event })
}

fn append_event(tx: &Transaction<'_>, fence: Fence, logged: &LoggedEvent, head: &RunHead) -> Result<(), StoreError> {
    let run = logged.run;
    let held: Option<i64> = tx
        .prepare_cached("SELECT fence FROM runs WHERE id = ?1")?
        .query_row([run.0], |row| row.get("fence"))
        .optional()?;
    match held {
        None => return Err(StoreError::NoRun(run)),
        Some(held) if held != fence.0 => return Err(StoreError::FenceLost(run)),
        Some(_) => {}
    }
    let body = to_json("an event", &Body { up: logged.up, event: &logged.event })?;
    let name = logged.event.name();
    let link = append_link(tx, logged.at, &[&run.to_string(), name, &body, &logged.seq.to_string(), ""])?;
    // The primary key refuses a second event at the same place: two writers cannot both believe to be next.
    tx.prepare_cached(
        "INSERT INTO run_events (run, seq, at, name, body, link, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((run.0, logged.seq, logged.at, name, &body, link.number, &link.hash))?;
    let started = matches!(logged.event, RunEvent::Started).then_some(logged.at);
    let finished = head.state.outcome().map(|_| logged.at);
    let updated = tx
        .prepare_cached(
            "UPDATE runs SET state = ?2, outcome = ?3, away = ?4, started_at = coalesce(?5, started_at), finished_at = ?6
             WHERE id = ?1",
        )?
        .execute((
            run.0,
            head.state.name(),
            head.state.outcome().map(|outcome| outcome.name()),
            head.away,
            started,
            finished,
        ));
    match updated {
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.code == ErrorCode::ConstraintViolation && started.is_some() =>
        {
            let app = tx.query_row("SELECT app FROM runs WHERE id = ?1", [run.0], |row| row.get("app"))?;
            Err(StoreError::AnotherRun { app })
        }
        other => Ok(other.map(drop)?),
    }
}

fn load_events(tx: &Transaction<'_>, run: RunId, after: i64) -> Result<Vec<LoggedEvent>, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT run, seq, at, body FROM run_events WHERE run = ?1 AND seq > ?2 ORDER BY seq")?;
    let rows = statement.query_and_then((run.0, after), read_event)?;
    rows.collect()
}

impl Store {
    /// Appends one event and brings the run's row up to it. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::FenceLost`] when somebody else has claimed the run, [`StoreError::AnotherRun`] when it
    /// would be the second active run of its application, or the store fails. Nothing is written then.
    pub async fn append_event(&self, fence: Fence, logged: LoggedEvent, head: RunHead) -> Result<(), StoreError> {
        self.write_in_need(move |tx| append_event(tx, fence, &logged, &head)).await
    }

    /// The log of a run, or what of it comes after `after` (0 for all).
    ///
    /// # Errors
    /// The store fails or the log cannot be understood.
    pub async fn events(&self, run: RunId, after: i64) -> Result<Vec<LoggedEvent>, StoreError> {
        self.read(move |tx| load_events(tx, run, after)).await
    }

    /// The instant of the last event of any run; the earliest a sane clock can show.
    ///
    /// # Errors
    /// The store fails.
    pub async fn last_event_at(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.read(|tx| {
            Ok(tx.query_row("SELECT at FROM run_events ORDER BY link DESC LIMIT 1", [], |row| row.get(0)).optional()?)
        })
        .await
    }
}
