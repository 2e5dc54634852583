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
    /// Notes a session, or what changed of it. What is noted is the sessions' provider's affair.
    ///
    /// # Errors
    /// The store fails.
    pub async fn put_session(&self, app: &AppName, id: &SessionId, body: Value) -> Result<(), StoreError> {
        let (app, id) = (app.clone(), id.clone());
        self.write(move |tx| {
            tx.prepare_cached(
                "INSERT INTO sessions VALUES (?1, ?2, ?3) ON CONFLICT (app, id) DO UPDATE SET body = excluded.body",
            )?
            .execute((app.as_str(), &id.0, to_json("a session", &body)?))?;
            Ok(())
        })
        .await
    }

    /// Forgets a session.
    ///
    /// # Errors
    /// The store fails.
    pub async fn remove_session(&self, app: &AppName, id: &SessionId) -> Result<(), StoreError> {
        let (app, id) = (app.clone(), id.clone());
        self.write(move |tx| {
            tx.execute("DELETE FROM sessions WHERE app = ?1 AND id = ?2", (app.as_str(), &id.0))?;
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
