//! The table `sessions`: the workstations that were connected, for a daemon that starts again.

use serde_json::Value;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::to_json;
use crate::domain::name::AppName;
use crate::domain::session::SessionId;

/// A session that was noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// Its application.
    pub app: String,
    /// Which it is.
    pub id: SessionId,
    /// What is noted of it.
    pub body: Option<Value>,
}

impl Store {
    /// Notes sessions, or what changed of them, all or none; one without a body is forgotten. What is noted is the
    /// sessions' provider's affair.
    ///
    /// # Errors
    /// The store fails.
    pub async fn note_sessions(&self, changes: Vec<(AppName, SessionId, Option<Value>)>) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut put = tx.prepare_cached(
                "INSERT INTO sessions VALUES (?1, ?2, ?3) ON CONFLICT (app, id) DO UPDATE SET body = excluded.body",
            )?;
            let mut forget = tx.prepare_cached("DELETE FROM sessions WHERE app = ?1 AND id = ?2")?;
            for (app, id, body) in &changes {
                match body {
                    Some(body) => put.execute((app.as_str(), &id.0, to_json("a session", body)?))?,
                    None => forget.execute((app.as_str(), &id.0))?,
                };
            }
            Ok(())
        })
        .await
    }

    /// All sessions that were noted. What is noted of one is absent where it cannot be read.
    ///
    /// # Errors
    /// The store fails.
    pub async fn stored_sessions(&self) -> Result<Vec<StoredSession>, StoreError> {
        self.read(|tx| {
            let mut statement = tx.prepare_cached("SELECT app, id, body FROM sessions ORDER BY app, id")?;
            let rows = statement.query_map([], |row| {
                let body: String = row.get("body")?;
                Ok(StoredSession {
                    app: row.get("app")?,
                    id: SessionId(row.get("id")?),
                    body: serde_json::from_str(&body).ok(),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
