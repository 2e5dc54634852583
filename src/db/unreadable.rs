//! What of the store cannot be understood: written by another version of this program, or by hand.
//!
//! Such a row does not keep anything else from working. What it stood for is assumed to be the worst: a gate is closed,
//! a run is under way, a job does not start. Here they are listed for people, by name, with what to type.

use serde::de::DeserializeOwned;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::event::RunEvent;
use crate::domain::gate::Gate;
use crate::domain::job::JobSpec;
use crate::domain::run::Order;

/// How many are listed; more are counted.
const LISTED_MAX: usize = 100;

/// A row that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Which: `job nightly`, `the gate of orders`.
    pub what: String,
    /// Why.
    pub why: String,
    /// What it is taken for, and what a person can do.
    pub remedy: String,
}

fn why<T: DeserializeOwned>(body: &str) -> Option<String> {
    serde_json::from_str::<T>(body).err().map(|error| error.to_string())
}

impl Store {
    /// Everything that the daemon lives by and that cannot be understood, save sessions.
    ///
    /// # Errors
    /// The store fails.
    pub async fn unreadable(&self) -> Result<Vec<Unreadable>, StoreError> {
        self.read(|tx| {
            let (mut found, mut more) = (Vec::new(), 0_usize);
            let mut note = |what: String, why: Option<String>, remedy: String| match why {
                Some(why) if found.len() < LISTED_MAX => found.push(Unreadable { what, why, remedy }),
                Some(_) => more += 1,
                None => {}
            };
            let mut statement = tx.prepare_cached("SELECT name, spec FROM jobs ORDER BY name")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (name, spec): (String, String) = (row.get("name")?, row.get("spec")?);
                let remedy = format!("it does not start; `afterhours job delete {name}`, and create it again");
                note(format!("job {name}"), why::<JobSpec>(&spec), remedy);
            }
            let mut statement = tx.prepare_cached("SELECT app, body FROM gates ORDER BY app")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (app, body): (String, String) = (row.get("app")?, row.get("body")?);
                let remedy = format!("it counts as closed; `afterhours gate open {app}` when users may log in");
                note(format!("the gate of {app}"), why::<Gate>(&body), remedy);
            }
            let mut statement = tx.prepare_cached("SELECT id, app, body FROM runs WHERE state <> 'finished' ORDER BY id")?;
            let mut events = tx.prepare_cached("SELECT seq, body FROM run_events WHERE run = ?1 ORDER BY seq")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (id, app, body): (i64, String, String) = (row.get("id")?, row.get("app")?, row.get("body")?);
                let mut because = why::<Order>(&body);
                let mut log = events.query([id])?;
                while let Some(event) = log.next()? {
                    let (seq, body): (i64, String) = (event.get("seq")?, event.get("body")?);
                    because = because.or(why::<RunEvent>(&body).map(|why| format!("event {seq}: {why}")));
                }
                let remedy = format!(
                    "it stays where it is, and {app} with it; start the version of this program that wrote it, or put the store back from its backup"
                );
                note(format!("run {id}"), because, remedy);
            }
            if more > 0 {
                found.push(Unreadable {
                    what: format!("{more} more rows"),
                    why: "there are too many to list".to_owned(),
                    remedy: "start the version of this program that wrote them, or put the store back from its backup"
                        .to_owned(),
                });
            }
            Ok(found)
        })
        .await
    }
}
