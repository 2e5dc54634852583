//! Proof that a backup exists.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

/// A backup that was looked at, not only dated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Where it was found: a file, a repository and snapshot, a manifest entry.
    pub source: String,
    /// When the backup was finished.
    pub made_at: DateTime<Utc>,
    /// Its size in bytes, where the source tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// What was tested beyond the date, in words: "sha256 matches", "restic check, 5 % read".
    #[serde(default)]
    pub tested: Vec<String>,
}
