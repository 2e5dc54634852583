//! The entries of the history, and the anchors by which somebody outside proves that nothing of it was rewritten.
//!
//! Run events and audit entries hang on one hash chain. Whoever owns the store can rewrite the whole chain; what they cannot
//! rewrite is the number and the hash of an entry that stand in a mail or a journal elsewhere.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::domain::run::RunId;

/// How many digits of a hash are shown to people.
const SHOWN_DIGITS: usize = 16;
/// How many digits of a hash at least name an entry: fewer could be found by trying.
pub const HEAD_DIGITS_MIN: usize = 16;

/// One entry of the history, by its number and hash. The newest one is the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Its number; 0 while there is none.
    pub number: i64,
    /// Its hash, which vouches for everything before; empty while there is none.
    pub hash: String,
}

impl Anchor {
    /// The first digits of the hash, for people.
    pub fn short(&self) -> &str {
        self.hash.get(..SHOWN_DIGITS).unwrap_or(&self.hash)
    }

    /// Whether `hash` is the whole hash, or its beginning with no fewer than [`HEAD_DIGITS_MIN`] digits.
    pub fn is_of(&self, hash: &str) -> bool {
        self.hash.len() >= HEAD_DIGITS_MIN && hash.starts_with(&self.hash)
    }
}

/// What has become of the entry that an old anchor names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorState {
    /// It is there, with that hash: everything up to it is what it was then.
    Held,
    /// An entry with that number is there, with another hash: the history was rewritten.
    Differs,
    /// There is none with that number, and retention has not removed it: the end was cut off, or a piece taken out.
    Missing,
    /// Retention has removed it, so it proves nothing any more.
    Removed,
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its number.
    pub number: i64,
    /// Its hash.
    pub hash: String,
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    #[serde(flatten)]
    pub what: Happened,
}

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Happened {
    /// Something happened in a run.
    Event {
        /// Which run.
        run: RunId,
        /// Its place in the log of the run.
        seq: i64,
        /// What, in one word.
        name: String,
        /// All of it.
        body: Value,
    },
    /// Somebody changed something, or was refused.
    Audit {
        /// Who.
        who: String,
        /// From where.
        via: String,
        /// What was done, as `job.create`.
        action: String,
        /// To what.
        object: String,
        /// Before and after, as far as they matter.
        body: Value,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_beginning_names_no_entry() {
        let hash = "0123456789abcdef0123456789abcdef";
        let anchor = |hash: &str| Anchor { number: 1, hash: hash.to_owned() };
        assert!(anchor(hash).is_of(hash) && anchor(&hash[..16]).is_of(hash));
        assert!(!anchor(&hash[..15]).is_of(hash) && !anchor("").is_of(hash) && !anchor("f123456789abcdef").is_of(hash));
    }
}
