//! An error as a script and a person read it.

use std::error::Error;
use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::domain::failure::Failure;
use crate::domain::failure::FailureCode;

/// What kind of error it is. Decides the HTTP status and the exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Wrong use: an unknown field, a bad value, a bad configuration.
    Usage,
    /// There is no such job, run, application or session.
    NotFound,
    /// The state of things does not allow it: a name that is taken, a disabled job, a closed gate, another run.
    Refused,
    /// The run failed and everything was put back.
    RolledBack,
    /// A person is needed.
    Stuck,
    /// The daemon does not run, or a server cannot be reached.
    Unavailable,
    /// The caller may not do that.
    NotPermitted,
    /// An error of ours or of the environment.
    Failed,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Usage,
        Self::NotFound,
        Self::Refused,
        Self::RolledBack,
        Self::Stuck,
        Self::Unavailable,
        Self::NotPermitted,
        Self::Failed,
    ];

    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::RolledBack => "rolled_back",
            Self::Stuck => "stuck",
            Self::Unavailable => "unavailable",
            Self::NotPermitted => "not_permitted",
            Self::Failed => "failed",
        }
    }

    /// The HTTP status that carries it. Readers go by the kind in the body, not by this.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Usage => 400,
            Self::NotPermitted => 403,
            Self::NotFound => 404,
            Self::Refused => 409,
            Self::RolledBack | Self::Stuck | Self::Failed => 500,
            Self::Unavailable => 503,
        }
    }
}

impl From<FailureCode> for ErrorKind {
    fn from(code: FailureCode) -> Self {
        match code {
            FailureCode::LicenceUnknown
            | FailureCode::LicenceExpired
            | FailureCode::SiteNotRegistered
            | FailureCode::LicenceRequired => Self::Refused,
            FailureCode::ServerUnreachable => Self::Unavailable,
        }
    }
}

/// The document that stands for a failed request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorView,
}

/// What went wrong, because of what, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// For scripts.
    pub kind: ErrorKind,
    /// What is wrong, so that it reads alone: `job "x" does not exist`, `failed to open the store`.
    pub message: String,
    /// The chain of causes, outermost first.
    #[serde(default)]
    pub because: Vec<String>,
    /// What a person can do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// Which of the vendor's refusals it is, or that the server cannot be reached; nothing for all other errors.
    #[serde(default)]
    pub code: Option<FailureCode>,
}

impl ErrorView {
    /// An error without a cause below it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), because: Vec::new(), hint: None, code: None }
    }

    /// The same error with a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure, whose message is a fragment, as an error of this kind.
    pub fn from_failure(kind: ErrorKind, failure: Failure) -> Self {
        let Failure { message, because, hint, code, .. } = failure;
        Self { kind, message: format!("failed to {message}"), because, hint, code }
    }
}

impl fmt::Display for ErrorView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ErrorView {}

impl From<ErrorView> for ErrorBody {
    fn from(error: ErrorView) -> Self {
        Self { error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_spelt_the_same_everywhere() {
        for kind in ErrorKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert!((400..600).contains(&kind.http_status()));
        }
    }

    #[test]
    fn the_document_has_all_keys() {
        let body = ErrorBody::from(ErrorView::new(ErrorKind::NotFound, "no job \"x\""));
        assert_eq!(
            serde_json::to_value(body).unwrap(),
            serde_json::json!({"error": {"kind": "not_found", "message": "no job \"x\"", "because": [], "hint": null, "code": null}})
        );
    }
}
