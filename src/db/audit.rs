//! The table `audit`: who changed what, from where, with what before and after.

use chrono::DateTime;
use chrono::Utc;
use rusqlite::Transaction;
use serde::Serialize;
use serde_json::Value;

use crate::db::chain::append_link;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::from_json;
use crate::db::store::to_json;

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEntry {
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub who: String,
    /// From where: `socket`, `command line`.
    pub via: String,
    /// What was done, as `job.create`.
    pub action: String,
    /// To what.
    pub object: String,
    /// Before and after, as far as they matter.
    pub body: Value,
}

pub(crate) fn append_entry(tx: &Transaction<'_>, entry: AuditEntry) -> Result<(), StoreError> {
    let body = to_json("an audit entry", &entry.body)?;
    let link = append_link(tx, entry.at, &[&entry.who, &entry.action, &body, &entry.object, &entry.via])?;
    tx.prepare_cached(
        "INSERT INTO audit (link, at, who, via, action, object, body, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((link.number, entry.at, entry.who, entry.via, entry.action, entry.object, body, link.hash))?;
    Ok(())
}

impl Store {
    /// Notes a change.
    ///
    /// # Errors
    /// The store fails.
    pub async fn audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.write(move |tx| append_entry(tx, entry)).await
    }

    /// The newest changes, newest first.
    ///
    /// # Errors
    /// The store fails.
    pub async fn audit_entries(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(move |tx| {
            let mut statement =
                tx.prepare_cached("SELECT at, who, via, action, object, body FROM audit ORDER BY link DESC LIMIT ?1")?;
            let mut rows = statement.query([limit])?;
            let mut entries = Vec::new();
            while let Some(row) = rows.next()? {
                let body: String = row.get("body")?;
                entries.push(AuditEntry {
                    at: row.get("at")?,
                    who: row.get("who")?,
                    via: row.get("via")?,
                    action: row.get("action")?,
                    object: row.get("object")?,
                    body: from_json(|| "an audit entry".to_owned(), &body)?,
                });
            }
            Ok(entries)
        })
        .await
    }
}
