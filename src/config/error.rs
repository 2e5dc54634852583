//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;

use thiserror::Error;

/// A configuration cannot be used: the file, the line, the key, what is wrong, and what to do.
///
/// Reads `FILE:LINE: KEY: MESSAGE`, as compilers do, so that an editor can jump to it.
#[derive(Debug, Error)]
pub struct ConfigError {
    /// The file, or where else the text came from.
    pub origin: String,
    /// Counted from 1; absent when it is about the whole file.
    pub line: Option<usize>,
    /// The dotted path of the key; absent when there is none.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// What the system said.
    #[source]
    pub source: Option<io::Error>,
}

impl ConfigError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What is said of a file that is not root's alone.
pub(super) const OTHERS: &str = "can be changed by others than root";

/// What is wrong at one key, before its line has been looked up.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) key: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) source: Option<io::Error>,
}

impl Problem {
    /// Adds what a person can do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what the system said.
    pub(super) fn because(mut self, source: io::Error) -> Self {
        self.source = Some(source);
        self
    }
}

/// The dotted path of a key: `app.orders.sessions[1].list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(String);

impl Place {
    /// One key deeper.
    pub(super) fn key(&self, key: &str) -> Self {
        let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let key = if bare { key.to_owned() } else { format!("{key:?}") };
        Self(if self.0.is_empty() { key } else { format!("{}.{key}", self.0) })
    }

    /// One element deeper, counted from 0.
    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// As text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Says that what stands here is wrong.
    pub(super) fn wrong(&self, message: impl Into<String>) -> Problem {
        Problem { key: self.0.clone(), message: message.into(), hint: None, source: None }
    }

    /// Says that nothing stands here, and something must.
    pub(super) fn missing(&self, hint: impl Into<String>) -> Problem {
        self.wrong("is missing").hint(hint)
    }
}
