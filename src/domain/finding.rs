//! What a check found, and what to do about it.

use serde::Deserialize;
use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Checked and in order.
    Good,
    /// A run would proceed; somebody should look.
    Warning,
    /// A run must not begin.
    Fatal,
}

/// One thing that `doctor` and the preflight step looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable `snake_case` name of the check, for scripts.
    pub check: String,
    /// How much it matters.
    pub severity: Severity,
    /// What was found; one sentence.
    pub text: String,
    /// What to do about it; absent only when all is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// Checked and in order.
    pub fn good(check: &str, text: impl Into<String>) -> Self {
        Self { check: check.to_owned(), severity: Severity::Good, text: text.into(), remedy: None }
    }

    /// Worth a look, with the remedy.
    pub fn warning(check: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check: check.to_owned(), severity: Severity::Warning, text: text.into(), remedy: Some(remedy.into()) }
    }

    /// A reason not to begin, with the remedy.
    pub fn fatal(check: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check: check.to_owned(), severity: Severity::Fatal, text: text.into(), remedy: Some(remedy.into()) }
    }
}
