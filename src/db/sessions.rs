//! The table `sessions`: the workstations that were connected, for a daemon that starts again.

use serde_json::Value;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::from_json;
use crate::db::store::to_json;
use crate::domain::name::AppName;
use crate::domain::session::SessionId;

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

    /// All sessions that were noted.
    ///
    /// # Errors
    /// The store fails.
    pub async fn stored_sessions(&self) -> Result<Vec<Value>, StoreError> {
        self.read(|tx| {
            let mut statement = tx.prepare("SELECT body FROM sessions ORDER BY app, id")?;
            let mut rows = statement.query([])?;
            let mut sessions = Vec::new();
            while let Some(row) = rows.next()? {
                let body: String = row.get("body")?;
                sessions.push(from_json(|| "a session".to_owned(), &body)?);
            }
            Ok(sessions)
        })
        .await
    }
}
