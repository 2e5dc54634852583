//! The history as a whole: its head, what an old anchor says of it, and all of its entries in order.

use chrono::DateTime;
use chrono::Utc;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::from_json;
use crate::domain::history::Anchor;
use crate::domain::history::AnchorState;
use crate::domain::history::Happened;
use crate::domain::history::HistoryEntry;
use crate::domain::run::RunId;

/// How much is read at once, give or take one entry.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

fn read_entry(row: &Row<'_>) -> Result<HistoryEntry, StoreError> {
    let number: i64 = row.get("link")?;
    let body: String = row.get("body")?;
    let body = from_json(|| format!("entry {number} of the history"), &body)?;
    let what = match row.get::<_, Option<i64>>("run")? {
        Some(run) => Happened::Event { run: RunId(run), seq: row.get("seq")?, name: row.get("name")?, body },
        None => Happened::Audit {
            who: row.get("who")?,
            via: row.get("via")?,
            action: row.get("name")?,
            object: row.get("object")?,
            body,
        },
    };
    Ok(HistoryEntry { number, hash: row.get("hash")?, at: row.get("at")?, what })
}

fn state_of(tx: &Transaction<'_>, anchor: &Anchor) -> Result<AnchorState, StoreError> {
    let kept: Option<String> = tx
        .prepare_cached("SELECT hash FROM run_events WHERE link = ?1 UNION ALL SELECT hash FROM audit WHERE link = ?1")?
        .query_row([anchor.number], |row| row.get("hash"))
        .optional()?;
    if let Some(hash) = kept {
        return Ok(if anchor.is_of(&hash) { AnchorState::Held } else { AnchorState::Differs });
    }
    let gap: Option<(i64, String)> = tx
        .prepare_cached("SELECT last, after FROM chain_gaps WHERE ?1 BETWEEN first AND last")?
        .query_row([anchor.number], |row| Ok((row.get("last")?, row.get("after")?)))
        .optional()?;
    Ok(match gap {
        None => AnchorState::Missing,
        // Of a gap's last entry the hash is kept.
        Some((last, after)) if last == anchor.number => match anchor.is_of(&after) {
            true => AnchorState::Held,
            false => AnchorState::Differs,
        },
        Some(_) => AnchorState::Removed,
    })
}

impl Store {
    /// The newest entry of the history.
    ///
    /// # Errors
    /// The store fails.
    pub async fn chain_head(&self) -> Result<Anchor, StoreError> {
        self.read(|tx| {
            let mut statement = tx.prepare_cached("SELECT link, hash FROM chain")?;
            Ok(statement.query_row([], |row| Ok(Anchor { number: row.get("link")?, hash: row.get("hash")? }))?)
        })
        .await
    }

    /// What has become of the entry that an anchor names.
    ///
    /// # Errors
    /// The store fails.
    pub async fn anchor_state(&self, anchor: Anchor) -> Result<AnchorState, StoreError> {
        self.read(move |tx| state_of(tx, &anchor)).await
    }

    /// The entry with a number, where it is kept and can be read.
    ///
    /// # Errors
    /// The store fails.
    pub async fn history_entry(&self, number: i64) -> Result<Option<HistoryEntry>, StoreError> {
        let found = self.history(number - 1, None, 1).await?;
        Ok(found.into_iter().find(|entry| entry.number == number))
    }

    /// Some entries, at most `max`, after the one with the number `after`, none from before `since`, ascending.
    ///
    /// # Errors
    /// The store fails, or an entry cannot be read.
    pub async fn history(
        &self,
        after: i64,
        since: Option<DateTime<Utc>>,
        max: u32,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        self.read(move |tx| {
            let mut statement = tx.prepare_cached(
                "SELECT link, hash, at, run, seq, name, body, NULL AS who, NULL AS via, NULL AS object FROM run_events
                 WHERE link > ?1 AND (?2 IS NULL OR at >= ?2)
                 UNION ALL
                 SELECT link, hash, at, NULL, NULL, action, body, who, via, object FROM audit
                 WHERE link > ?1 AND (?2 IS NULL OR at >= ?2)
                 ORDER BY link LIMIT ?3",
            )?;
            let mut rows = statement.query((after, since, max))?;
            let (mut entries, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                entries.push(read_entry(row)?);
                bytes += row.get_ref("body")?.as_str().map_or(0, str::len);
                if bytes > PAGE_BYTES_MAX {
                    break;
                }
            }
            Ok(entries)
        })
        .await
    }
}
