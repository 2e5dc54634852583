//! The hash chain over run events and audit entries.
//!
//! Each link's hash covers the hash before it and its own content, so that a line that was changed
//! or taken out later shows. It proves order and integrity within the store; it does not protect
//! against somebody who rewrites everything, for which the head is printed in every report.

use chrono::DateTime;
use chrono::Utc;
use rusqlite::Transaction;
use sha2::Digest;
use sha2::Sha256;

use crate::db::store::Store;
use crate::db::store::StoreError;

/// The place of an entry on the chain.
pub(crate) struct Link {
    pub(crate) number: i64,
    pub(crate) hash: String,
}

/// Adds one link for `content` at `at`.
pub(crate) fn append_link(tx: &Transaction<'_>, at: DateTime<Utc>, content: &[&str; 5]) -> Result<Link, StoreError> {
    let (number, head): (i64, String) = tx
        .prepare_cached("SELECT link, hash FROM chain")?
        .query_row([], |row| Ok((row.get("link")?, row.get("hash")?)))?;
    let link = Link { number: number + 1, hash: hash(&head, number + 1, at, content) };
    tx.prepare_cached("UPDATE chain SET link = ?1, hash = ?2")?.execute((link.number, &link.hash))?;
    Ok(link)
}

fn hash(head: &str, number: i64, at: DateTime<Utc>, content: &[&str; 5]) -> String {
    let mut digest = Sha256::new();
    digest.update(head);
    digest.update(number.to_be_bytes());
    digest.update(at.timestamp_micros().to_be_bytes());
    for part in content {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the chain is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainState {
    /// Every link follows from the one before; the head is this hash.
    Whole {
        /// How many links.
        links: i64,
        /// The last hash.
        head: String,
    },
    /// The link with this number does not follow from the one before, or is missing.
    Broken {
        /// Its number.
        link: i64,
    },
}

impl Store {
    /// Checks every link.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn verify_chain(&self) -> Result<ChainState, StoreError> {
        self.read(verify_chain).await
    }
}

fn verify_chain(tx: &Transaction<'_>) -> Result<ChainState, StoreError> {
    let mut statement = tx.prepare(
        "SELECT link, at, hash, CAST(run AS TEXT) AS a, name AS b, body AS c, CAST(seq AS TEXT) AS d, '' AS e
         FROM run_events
         UNION ALL
         SELECT link, at, hash, who, action, body, object, via FROM audit
         ORDER BY link",
    )?;
    let mut rows = statement.query([])?;
    let (mut expected, mut head) = (0, String::new());
    while let Some(row) = rows.next()? {
        expected += 1;
        let text = |name: &str| row.get::<_, String>(name);
        let (a, b, c, d, e) = (text("a")?, text("b")?, text("c")?, text("d")?, text("e")?);
        let at: DateTime<Utc> = row.get("at")?;
        let number: i64 = row.get("link")?;
        let stored = text("hash")?;
        if number != expected || stored != hash(&head, number, at, &[&a, &b, &c, &d, &e]) {
            return Ok(ChainState::Broken { link: expected });
        }
        head = stored;
    }
    let (last, stored): (i64, String) =
        tx.query_row("SELECT link, hash FROM chain", [], |row| Ok((row.get("link")?, row.get("hash")?)))?;
    if last == expected && stored == head {
        Ok(ChainState::Whole { links: last, head })
    } else {
        Ok(ChainState::Broken { link: expected + 1 })
    }
}
