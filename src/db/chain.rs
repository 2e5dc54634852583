//! The hash chain over run events and audit entries.
//!
//! Each link's hash covers the hash before it and its own content, so that a line that was changed
//! or taken out later shows. It proves order and integrity within the store; it does not protect
//! against somebody who rewrites everything. Against that the head (number and hash of the newest link) stands outside, where
//! they do not reach: in every report, in the journal once a day, in `status`. `audit verify` is given one of those.
//!
//! ```text
//!  1 ── 2 ── 3 ── [ gap: 4 to 9, the hash before, the hash after ] ── 10 ── 11 ── checkpoint: digest of all gaps
//! ```
//!
//! Retention may take links out. It leaves a *gap*, which says which numbers are missing and from which hash the chain
//! goes on, and in the same transaction a *checkpoint*: an audit entry with the digest of all gaps, a link like any
//! other. Thus what is missing without a gap shows, and so does a gap that retention has not made. Gaps that touch
//! become one, so there are never more of them than pieces that are kept.

use chrono::DateTime;
use chrono::Utc;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;
use serde_json::Value;
use sha2::Digest;
use sha2::Sha256;

use crate::db::audit::AuditEntry;
use crate::db::audit::append_entry;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::hex::hex;

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
    hex(digest.finalize())
}

/// The audit entry that vouches for the gaps. Nobody else writes one of this name.
const CHECKPOINT: &str = "history.prune";

/// What retention took out: the links from `first` to `last`.
struct Gap {
    first: i64,
    last: i64,
    /// The hash of the link before `first`; empty before the first of all.
    before: String,
    /// The hash of the link `last`.
    after: String,
}

fn read_gap(row: &Row<'_>) -> rusqlite::Result<Gap> {
    Ok(Gap { first: row.get("first")?, last: row.get("last")?, before: row.get("before")?, after: row.get("after")? })
}

fn load_gaps(tx: &Transaction<'_>) -> Result<Vec<Gap>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT first, last, before, after FROM chain_gaps ORDER BY first")?;
    let gaps = statement.query_map([], read_gap)?;
    Ok(gaps.collect::<Result<_, _>>()?)
}

fn digest_of(gaps: &[Gap]) -> String {
    let mut digest = Sha256::new();
    for gap in gaps {
        digest.update(format!("{} {} {} {}\n", gap.first, gap.last, gap.before, gap.after));
    }
    hex(digest.finalize())
}

/// Whether the gaps are those that the newest checkpoint vouches for.
///
/// # Errors
/// They are not: somebody else has taken something out, and the next checkpoint must not vouch for that.
pub(crate) fn must_be_vouched_for(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let gaps = load_gaps(tx)?;
    let newest: Option<String> = tx
        .prepare_cached("SELECT body FROM audit WHERE action = ?1 ORDER BY link DESC LIMIT 1")?
        .query_row([CHECKPOINT], |row| row.get("body"))
        .optional()?;
    let vouched = newest.and_then(|body| vouched_by(CHECKPOINT, &body));
    match gaps.first() {
        Some(gap) if vouched != Some(digest_of(&gaps)) => Err(StoreError::Unaccounted { link: gap.first }),
        _ => Ok(()),
    }
}

/// Notes that a link goes, whose row the caller removes afterwards. Several are noted in ascending order, and a
/// checkpoint follows in the same transaction.
pub(crate) fn open_gap(tx: &Transaction<'_>, link: &Link) -> Result<(), StoreError> {
    let number = link.number;
    let left = tx
        .prepare_cached("SELECT first, last, before, after FROM chain_gaps WHERE last = ?1 - 1")?
        .query_row([number], read_gap)
        .optional()?;
    let right = tx
        .prepare_cached("SELECT first, last, before, after FROM chain_gaps WHERE first = ?1 + 1")?
        .query_row([number], read_gap)
        .optional()?;
    let (first, before) = match left {
        Some(gap) => (gap.first, gap.before),
        None => (number, hash_before(tx, number)?),
    };
    let (last, after) = match right {
        Some(gap) => (gap.last, gap.after),
        None => (number, link.hash.clone()),
    };
    tx.prepare_cached("DELETE FROM chain_gaps WHERE first BETWEEN ?1 AND ?2")?.execute((first, number + 1))?;
    tx.prepare_cached("INSERT INTO chain_gaps (first, last, before, after) VALUES (?1, ?2, ?3, ?4)")?
        .execute((first, last, before, after))?;
    Ok(())
}

/// The hash of the link before `number`; a chain that lacks it was broken before, and stays so.
fn hash_before(tx: &Transaction<'_>, number: i64) -> Result<String, StoreError> {
    let found = tx
        .prepare_cached(
            "SELECT hash FROM run_events WHERE link = ?1 - 1 UNION ALL SELECT hash FROM audit WHERE link = ?1 - 1",
        )?
        .query_row([number], |row| row.get("hash"))
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Vouches for the gaps as they are now; `removed` says to people what went.
pub(crate) fn append_checkpoint(tx: &Transaction<'_>, at: DateTime<Utc>, removed: Value) -> Result<(), StoreError> {
    let gaps = digest_of(&load_gaps(tx)?);
    let entry = AuditEntry {
        at,
        who: "afterhours".to_owned(),
        via: "retention".to_owned(),
        action: CHECKPOINT.to_owned(),
        object: "history".to_owned(),
        body: serde_json::json!({ "removed": removed, "gaps": gaps }),
    };
    append_entry(tx, entry)
}

/// The digest that an entry vouches for, if it is a checkpoint.
fn vouched_by(name: &str, body: &str) -> Option<String> {
    let is_checkpoint = name == CHECKPOINT;
    let body: Value = serde_json::from_str(body).ok().filter(|_| is_checkpoint)?;
    Some(body.get("gaps")?.as_str()?.to_owned())
}

/// Whether the chain is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainState {
    /// Every link follows from the one before, but for those that retention removed; the head is this hash.
    Whole {
        /// How many links there ever were.
        links: i64,
        /// How many of them retention has removed.
        removed: i64,
        /// The last hash.
        head: String,
    },
    /// The link with this number does not follow from the one before, or is missing and retention has not removed it.
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
    let gaps = load_gaps(tx)?;
    let removed = gaps.iter().map(|gap| gap.last - gap.first + 1).sum();
    let mut gaps_ahead = gaps.iter().peekable();
    let mut rows = statement.query([])?;
    let (mut expected, mut head, mut vouched) = (1, String::new(), None);
    while let Some(row) = rows.next()? {
        if let Some(gap) = gaps_ahead.next_if(|gap| gap.first == expected) {
            if gap.before != head {
                return Ok(ChainState::Broken { link: gap.first });
            }
            (expected, head) = (gap.last + 1, gap.after.clone());
        }
        let text = |name: &str| row.get::<_, String>(name);
        let (a, b, c, d, e) = (text("a")?, text("b")?, text("c")?, text("d")?, text("e")?);
        let at: DateTime<Utc> = row.get("at")?;
        let number: i64 = row.get("link")?;
        let stored = text("hash")?;
        if number != expected || stored != hash(&head, number, at, &[&a, &b, &c, &d, &e]) {
            return Ok(ChainState::Broken { link: expected });
        }
        vouched = vouched_by(&b, &c).or(vouched);
        (expected, head) = (number + 1, stored);
    }
    let (last, stored): (i64, String) =
        tx.query_row("SELECT link, hash FROM chain", [], |row| Ok((row.get("link")?, row.get("hash")?)))?;
    if last + 1 != expected || stored != head {
        return Ok(ChainState::Broken { link: expected });
    }
    // Whoever takes something out by hand can write a gap, but not without a checkpoint that everybody sees.
    match gaps.first() {
        Some(gap) if vouched != Some(digest_of(&gaps)) => Ok(ChainState::Broken { link: gap.first }),
        _ => Ok(ChainState::Whole { links: last, removed, head }),
    }
}
