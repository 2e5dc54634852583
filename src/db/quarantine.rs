//! The table `quarantine`: releases that failed here and are not tried again by themselves.

use chrono::DateTime;
use chrono::Utc;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::name::AppName;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::domain::run::RunId;

/// A release that failed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Its build.
    pub build: u64,
    /// Its version, as text.
    pub version: String,
    /// The run in which it failed.
    pub run: RunId,
    /// When, the last time.
    pub at: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

impl Store {
    /// Notes that a release failed; the last time counts.
    ///
    /// # Errors
    /// The store fails.
    pub async fn quarantine(
        &self,
        app: &AppName,
        release: &ReleaseId,
        run: RunId,
        at: DateTime<Utc>,
        reason: String,
    ) -> Result<(), StoreError> {
        let (app, release) = (app.clone(), release.clone());
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO quarantine (app, build, version, run, at, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (app, build) DO UPDATE SET run = excluded.run, at = excluded.at, reason = excluded.reason",
                (app.as_str(), release.build.cast_signed(), release.version.as_str(), run.0, at, reason),
            )?;
            Ok(())
        })
        .await
    }

    /// The releases of an application that failed here.
    ///
    /// # Errors
    /// The store fails.
    pub async fn quarantined(&self, app: &AppName) -> Result<Vec<Quarantined>, StoreError> {
        let app = app.clone();
        self.read(move |tx| {
            let mut statement = tx.prepare_cached(
                "SELECT build, version, run, at, reason FROM quarantine WHERE app = ?1 ORDER BY build",
            )?;
            let rows = statement.query_map([app.as_str()], |row| {
                Ok(Quarantined {
                    build: row.get::<_, i64>("build")?.cast_unsigned(),
                    version: row.get("version")?,
                    run: RunId(row.get("run")?),
                    at: row.get("at")?,
                    reason: row.get("reason")?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Takes back what a run has noted of a build.
    ///
    /// # Errors
    /// The store fails.
    pub async fn allow_build(&self, app: &AppName, build: u64, run: RunId) -> Result<(), StoreError> {
        let app = app.clone();
        self.write(move |tx| {
            let by_run = (app.as_str(), build.cast_signed(), run.0);
            tx.execute("DELETE FROM quarantine WHERE app = ?1 AND build = ?2 AND run = ?3", by_run)?;
            Ok(())
        })
        .await
    }

    /// Lets a release be tried again; false when it was not quarantined.
    ///
    /// # Errors
    /// The store fails.
    pub async fn allow_release(&self, app: &AppName, version: &Version) -> Result<bool, StoreError> {
        let (app, version) = (app.clone(), version.clone());
        self.write(move |tx| {
            let removed =
                tx.execute("DELETE FROM quarantine WHERE app = ?1 AND version = ?2", (app.as_str(), version.as_str()))?;
            Ok(removed > 0)
        })
        .await
    }
}
