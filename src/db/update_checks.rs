//! The table `update_checks`: what came of looking for newer releases, the last time.

use rusqlite::OptionalExtension;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::to_json;
use crate::domain::name::AppName;
use crate::domain::update_check::UpdateCheck;

impl Store {
    /// What came of looking for newer releases of an application; nothing where nobody has looked yet. What cannot be
    /// understood counts as absent: the next look replaces it.
    ///
    /// # Errors
    /// The store fails.
    pub async fn update_check(&self, app: &AppName) -> Result<Option<UpdateCheck>, StoreError> {
        let app = app.clone();
        self.read(move |tx| {
            let mut statement =
                tx.prepare_cached("SELECT checked_at, offer, failure FROM update_checks WHERE app = ?1")?;
            let found = statement.query_row([app.as_str()], |row| {
                let (offer, failure): (Option<String>, Option<String>) = (row.get("offer")?, row.get("failure")?);
                Ok(UpdateCheck {
                    at: row.get("checked_at")?,
                    offer: offer.and_then(|offer| serde_json::from_str(&offer).ok()),
                    failure: failure.and_then(|failure| serde_json::from_str(&failure).ok()),
                })
            });
            Ok(found.optional()?.filter(|check| check.offer.is_some() || check.failure.is_some()))
        })
        .await
    }

    /// Notes what came of looking; where it failed, what was offered before stays.
    ///
    /// Nothing is noted while the application is away: neither version is accepted then, so nobody can say what is newer.
    ///
    /// # Errors
    /// The store fails.
    pub async fn note_update_check(&self, app: &AppName, check: UpdateCheck) -> Result<(), StoreError> {
        let app = app.clone();
        self.write(move |tx| {
            let offer = check.offer.map(|offer| to_json("an offer", &offer)).transpose()?;
            let failure = check.failure.map(|failure| to_json("a failure", &failure)).transpose()?;
            tx.execute(
                "INSERT INTO update_checks (app, checked_at, offer, failure)
                 SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM runs WHERE app = ?1 AND away)
                 ON CONFLICT (app) DO UPDATE SET checked_at = excluded.checked_at,
                 offer = coalesce(excluded.offer, offer), failure = excluded.failure",
                (app.as_str(), check.at, offer, failure),
            )?;
            Ok(())
        })
        .await
    }

    /// Forgets what is known of all applications but these.
    ///
    /// # Errors
    /// The store fails.
    pub async fn keep_update_checks(&self, apps: Vec<AppName>) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "DELETE FROM update_checks WHERE app NOT IN (SELECT value FROM json_each(?1))",
                [to_json("names", &apps)?],
            )?;
            Ok(())
        })
        .await
    }
}
