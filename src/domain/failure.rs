//! What went wrong, in the three parts a person needs, and what the program that failed said itself.

use std::error::Error;
use std::fmt;

use serde::Deserialize;
use serde::Serialize;

/// What keeps a site from its vendor's server, for scripts: the names stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The vendor does not know the licence number.
    LicenceUnknown,
    /// The licence was valid once.
    LicenceExpired,
    /// The licence is valid, but not for this site.
    SiteNotRegistered,
    /// The vendor asks for a licence number, and none was sent.
    LicenceRequired,
    /// The server cannot be reached, or not for as long as it takes.
    ServerUnreachable,
}

impl FailureCode {
    /// Every code.
    pub const ALL: [Self; 5] = [
        Self::LicenceUnknown,
        Self::LicenceExpired,
        Self::SiteNotRegistered,
        Self::LicenceRequired,
        Self::ServerUnreachable,
    ];

    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LicenceUnknown => "licence_unknown",
            Self::LicenceExpired => "licence_expired",
            Self::SiteNotRegistered => "site_not_registered",
            Self::LicenceRequired => "licence_required",
            Self::ServerUnreachable => "server_unreachable",
        }
    }
}

/// What failed, because of what, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed; a lower-case fragment that fits after "failed to".
    pub message: String,
    /// The chain of causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// The last lines of the program that failed, as [`crate::domain::foreign`] lets them through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<String>,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Which of the failures that scripts tell apart it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<FailureCode>,
}

impl Failure {
    /// A failure without a cause below it.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), because: Vec::new(), said: Vec::new(), hint: None, code: None }
    }

    /// Takes an error and its chain of sources apart.
    pub fn from_error(error: &dyn Error) -> Self {
        let because = std::iter::successors(error.source(), |e| (*e).source()).map(ToString::to_string).collect();
        Self { message: error.to_string(), because, said: Vec::new(), hint: None, code: None }
    }

    /// The same failure with a cause below it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.because.push(cause.into());
        self
    }

    /// The same failure with a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::from_error(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.because {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelt_the_same_everywhere() {
        for code in FailureCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }
}
