//! The history on the wire: its proof, and its entries.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::history::Anchor;
use crate::domain::history::AnchorState;
use crate::domain::history::HistoryEntry;

/// How many entries are answered at once.
pub const PAGE_MAX: u32 = 500;

/// An entry by its number and hash.
pub type AnchorView = Anchor;

/// An entry of the history.
pub type EntryView = HistoryEntry;

/// Asks for a proof, against an anchor where both are given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyQuery {
    /// The number of an entry.
    pub number: Option<i64>,
    /// Its hash, as it was told then.
    pub head: Option<String>,
}

/// Asks for entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntriesQuery {
    /// Only those after the one with this number.
    #[serde(default)]
    pub after: i64,
    /// None from before.
    pub since: Option<DateTime<Utc>>,
}

/// Whether the history is what it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProofView {
    /// Whether every entry follows from the one before, but for those that retention removed.
    pub whole: bool,
    /// The first entry that does not follow; absent where all do.
    pub broken_at: Option<i64>,
    /// The entry that stands there, where one does and can be read.
    pub broken: Option<EntryView>,
    /// How many of the entries retention has removed; absent where the chain is broken.
    pub removed: Option<i64>,
    /// The newest entry.
    pub head: AnchorView,
    /// The anchor that was asked about.
    pub anchor: Option<AnchorProof>,
}

/// An anchor, and what has become of its entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorProof {
    /// The number and the hash that were told.
    #[serde(flatten)]
    pub anchor: AnchorView,
    /// What has become of it.
    pub state: AnchorState,
}
