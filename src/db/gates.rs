//! The tables `gates`, `gate_openings` and `passes`: whether users may log in, what has not followed yet, and who may
//! log in all the same.

use chrono::DateTime;
use chrono::Utc;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;

use crate::db::audit::AuditEntry;
use crate::db::audit::append_entry;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::from_json;
use crate::db::store::to_json;
use crate::domain::gate::ClosedBy;
use crate::domain::gate::Gate;
use crate::domain::gate::Opening;
use crate::domain::gate::Pass;
use crate::domain::gate::Position;
use crate::domain::name::AppName;

fn find_gate(tx: &Transaction<'_>, app: &AppName) -> Result<Gate, StoreError> {
    let body: Option<String> = tx
        .prepare_cached("SELECT body FROM gates WHERE app = ?1")?
        .query_row([app.as_str()], |row| row.get("body"))
        .optional()?;
    let Some(body) = body else { return Ok(Gate::open(app.clone())) };
    match from_json(|| format!("the gate of {app}"), &body) {
        Err(StoreError::Corrupt { .. }) => Ok(closed_unread(app)),
        gate => gate,
    }
}

/// What a gate counts as that cannot be read: closed, as by an operator, until one opens it.
fn closed_unread(app: &AppName) -> Gate {
    let position = Position::Closed {
        by: ClosedBy::Operator("an entry in the store that cannot be read".to_owned()),
        message: "it cannot be found out whether you may log in".to_owned(),
        until: None,
        lease_until: None,
        lease: None,
        since: DateTime::UNIX_EPOCH,
    };
    Gate { app: app.clone(), position }
}

/// A gate that is closed has nothing left to open.
fn put_gate(tx: &Transaction<'_>, gate: &Gate) -> Result<(), StoreError> {
    let app = gate.app.as_str();
    tx.prepare_cached("INSERT INTO gates VALUES (?1, ?2) ON CONFLICT (app) DO UPDATE SET body = excluded.body")?
        .execute((app, to_json("a gate", gate)?))?;
    if gate.position != Position::Open {
        tx.prepare_cached("DELETE FROM gate_openings WHERE app = ?1")?.execute([app])?;
    }
    Ok(())
}

/// Whether a run that is not over has the application stopped.
fn is_away(tx: &Transaction<'_>, app: &AppName) -> Result<bool, StoreError> {
    Ok(tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM runs WHERE app = ?1 AND away) AS away")?
        .query_row([app.as_str()], |row| row.get("away"))?)
}

fn use_pass(
    tx: &Transaction<'_>,
    app: &AppName,
    holder: &Holder,
    now: DateTime<Utc>,
) -> Result<Option<Pass>, StoreError> {
    tx.execute("DELETE FROM passes WHERE valid_until <= ?1", [now])?;
    let used = tx
        .prepare_cached(
            "DELETE FROM passes WHERE id = (SELECT id FROM passes WHERE app = ?1
                 AND (user IS NULL OR uid = ?2 OR (user = ?3 AND (uid IS NULL OR ?4)))
                 ORDER BY user IS NULL, valid_until LIMIT 1)
             RETURNING user, uid, valid_until, given_by",
        )?
        .query_row((app.as_str(), holder.uid, &holder.user, holder.vouched), |row| pass(app, row));
    Ok(used.optional()?)
}

fn pass(app: &AppName, row: &Row<'_>) -> rusqlite::Result<Pass> {
    Ok(Pass {
        app: app.clone(),
        user: row.get("user")?,
        uid: row.get("uid")?,
        valid_until: row.get("valid_until")?,
        given_by: row.get("given_by")?,
    })
}

/// Who wants to use a pass.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The number of the user, as the kernel says.
    pub uid: Option<u32>,
    /// The user's name.
    pub user: String,
    /// Whether root says so: then the name is enough.
    pub vouched: bool,
}

impl Store {
    /// The gate of an application; open when it was never closed, closed when its entry cannot be read.
    ///
    /// # Errors
    /// The store fails.
    pub async fn gate(&self, app: &AppName) -> Result<Gate, StoreError> {
        let app = app.clone();
        self.read(move |tx| find_gate(tx, &app)).await
    }

    /// Changes a gate in one transaction; `None` leaves it as it is. Answers with what stands afterwards.
    ///
    /// `change` is told whether the application is away.
    ///
    /// # Errors
    /// The store fails.
    pub async fn change_gate<F>(&self, app: &AppName, change: F) -> Result<Gate, StoreError>
    where
        F: FnOnce(&Gate, bool) -> Option<Gate> + Send + 'static,
    {
        let app = app.clone();
        self.write(move |tx| {
            let before = find_gate(tx, &app)?;
            let Some(after) = change(&before, is_away(tx, &app)?) else { return Ok(before) };
            put_gate(tx, &after)?;
            Ok(after)
        })
        .await
    }

    /// Opens a gate if it `may`, and notes in the same transaction that what else closes with it is `owed` to follow.
    /// Answers with what stands afterwards.
    ///
    /// # Errors
    /// The store fails.
    pub async fn open_gate<F>(&self, app: &AppName, owed: Option<Opening>, may: F) -> Result<Gate, StoreError>
    where
        F: FnOnce(&Gate) -> bool + Send + 'static,
    {
        let app = app.clone();
        self.write(move |tx| {
            let before = find_gate(tx, &app)?;
            if !may(&before) {
                return Ok(before);
            }
            let after = Gate::open(app);
            put_gate(tx, &after)?;
            if let Some(opening) = owed {
                tx.prepare_cached(
                    "INSERT INTO gate_openings (app, since, attempts, next_at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (app) DO NOTHING",
                )?
                .execute((after.app.as_str(), opening.since, opening.attempts, opening.next_at))?;
            }
            Ok(after)
        })
        .await
    }

    /// What has not followed yet of a gate that is open.
    ///
    /// # Errors
    /// The store fails.
    pub async fn gate_opening(&self, app: &AppName) -> Result<Option<Opening>, StoreError> {
        let app = app.clone();
        self.read(move |tx| {
            let mut statement =
                tx.prepare_cached("SELECT since, attempts, next_at, failure FROM gate_openings WHERE app = ?1")?;
            let found = statement.query_row([app.as_str()], |row| {
                let failure: Option<String> = row.get("failure")?;
                Ok(Opening {
                    since: row.get("since")?,
                    attempts: row.get("attempts")?,
                    next_at: row.get("next_at")?,
                    failure: failure.and_then(|failure| serde_json::from_str(&failure).ok()),
                })
            });
            Ok(found.optional()?)
        })
        .await
    }

    /// Notes how opening went on: it is over, or to be tried again. Nothing happens when the gate was closed meanwhile.
    ///
    /// # Errors
    /// The store fails.
    pub async fn note_opening(&self, app: &AppName, left: Option<Opening>) -> Result<(), StoreError> {
        let app = app.clone();
        self.write(move |tx| {
            match left {
                None => tx.execute("DELETE FROM gate_openings WHERE app = ?1", [app.as_str()])?,
                Some(Opening { attempts, next_at, failure, .. }) => tx.execute(
                    "UPDATE gate_openings SET attempts = ?2, next_at = ?3, failure = ?4 WHERE app = ?1",
                    (app.as_str(), attempts, next_at, to_json("a failure", &failure)?),
                )?,
            };
            Ok(())
        })
        .await
    }

    /// Gives a pass for one login.
    ///
    /// # Errors
    /// The store fails.
    pub async fn give_pass(&self, pass: Pass) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO passes (app, user, valid_until, given_by, uid) VALUES (?1, ?2, ?3, ?4, ?5)",
                (pass.app.as_str(), pass.user, pass.valid_until, pass.given_by, pass.uid),
            )?;
            Ok(())
        })
        .await
    }

    /// The passes that can still be used.
    ///
    /// # Errors
    /// The store fails.
    pub async fn passes(&self, app: &AppName, now: DateTime<Utc>) -> Result<Vec<Pass>, StoreError> {
        let app = app.clone();
        self.read(move |tx| {
            let mut statement = tx.prepare_cached(
                "SELECT user, uid, valid_until, given_by FROM passes WHERE app = ?1 AND valid_until > ?2
                 ORDER BY valid_until",
            )?;
            let rows = statement.query_map((app.as_str(), now), |row| pass(&app, row))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Uses up a pass that admits `holder`, and notes that; answers with the pass, if there is one.
    ///
    /// # Errors
    /// The store fails.
    pub async fn use_pass<F>(
        &self,
        app: &AppName,
        holder: Holder,
        now: DateTime<Utc>,
        note: F,
    ) -> Result<bool, StoreError>
    where
        F: FnOnce(&Pass) -> AuditEntry + Send + 'static,
    {
        let app = app.clone();
        self.write(move |tx| {
            let Some(pass) = use_pass(tx, &app, &holder, now)? else { return Ok(false) };
            append_entry(tx, note(&pass))?;
            Ok(true)
        })
        .await
    }
}
