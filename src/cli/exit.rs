//! How a command ends: every error's kind, its exit code, and its hint.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use crate::client::api::ApiError;
use crate::config::ConfigError;
use crate::control::error::ControlError;
use crate::domain::failure::Failure;
use crate::domain::run::Outcome;
use crate::renewal::RenewalError;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;
use crate::wire::run::RunStateName;
use crate::wire::run::RunView;

/// The exit code of each kind of error. The table stands in the README and in `afterhours --help`.
const fn number(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Failed => 1,
        ErrorKind::Usage => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Refused => 4,
        ErrorKind::RolledBack => 5,
        ErrorKind::Stuck => 6,
        ErrorKind::Unavailable => 7,
        ErrorKind::NotPermitted => 8,
    }
}

/// The exit code of a kind of error.
pub(crate) fn code(kind: ErrorKind) -> ExitCode {
    ExitCode::from(number(kind))
}

/// How a command ended that could say what it had to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All is well.
    Good,
    /// The answer itself is bad news: a run that was rolled back, a finding.
    Bad(ErrorKind),
    /// Another program ran in our place; this is its code.
    Program(u8),
    /// We were asked as a plugin of a monitoring system, whose codes are not ours.
    Plugin(u8),
}

impl Ending {
    /// The code to exit with.
    pub(crate) fn code(self) -> ExitCode {
        match self {
            Self::Good => ExitCode::SUCCESS,
            Self::Bad(kind) => code(kind),
            Self::Program(code) | Self::Plugin(code) => ExitCode::from(code),
        }
    }

    /// How watching a run to its end ends.
    pub(crate) const fn of_run(run: &RunView) -> Self {
        match (run.state, run.outcome) {
            (RunStateName::Stuck, _) => Self::Bad(ErrorKind::Stuck),
            (_, Some(Outcome::Succeeded | Outcome::Skipped)) => Self::Good,
            (_, Some(Outcome::RolledBack)) => Self::Bad(ErrorKind::RolledBack),
            (_, Some(Outcome::Failed | Outcome::Cancelled) | None) => Self::Bad(ErrorKind::Failed),
        }
    }
}

/// What is shown when a command cannot do what it was told.
#[derive(Debug, Clone)]
pub(crate) struct CliError(ErrorView);

impl CliError {
    /// Wrong use that the parser cannot see.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(ErrorView::new(ErrorKind::Usage, message).hint(hint))
    }

    /// We will not do that.
    pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(ErrorView::new(ErrorKind::Refused, message).hint(hint))
    }

    /// `what` failed; a fragment that fits after "failed to".
    pub(crate) fn failed(what: impl Into<String>, error: &dyn Error) -> Self {
        let mut failure = Failure::told(error);
        let cause = std::mem::replace(&mut failure.message, what.into());
        failure.because.insert(0, cause);
        Self(ErrorView::from_failure(ErrorKind::Failed, failure))
    }

    /// Afterhours could not go on under another program.
    pub(crate) fn renewal(error: &RenewalError) -> Self {
        Self(ErrorView::from_failure(ErrorKind::Failed, Failure { hint: error.hint(), ..Failure::from_error(error) }))
    }

    /// The same error with a remedy.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self(self.0.hint(hint))
    }

    /// What is shown.
    pub(crate) const fn view(&self) -> &ErrorView {
        &self.0
    }

    /// What kind of error it is.
    pub(crate) const fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The code to exit with.
    pub(crate) fn code(&self) -> ExitCode {
        code(self.kind())
    }
}

impl From<ErrorView> for CliError {
    fn from(view: ErrorView) -> Self {
        Self(view)
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let hint = error.hint();
        let is_refused = error.source.as_ref().is_some_and(|source| source.kind() == io::ErrorKind::PermissionDenied);
        let kind = if is_refused { ErrorKind::NotPermitted } else { ErrorKind::Usage };
        let because = error.source.iter().map(ToString::to_string).collect();
        Self(ErrorView { hint, because, ..ErrorView::new(kind, error.to_string()) })
    }
}

impl From<ControlError> for CliError {
    fn from(error: ControlError) -> Self {
        Self(error.view())
    }
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        Self(error.view())
    }
}

/// What comes from below without a kind of its own is a failure. An [`ErrorView`] or an
/// [`ApiError`] anywhere in the chain keeps its kind and its hint.
impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        for cause in error.chain() {
            if let Some(view) = cause.downcast_ref::<ErrorView>() {
                return Self(view.clone());
            }
            if let Some(error) = cause.downcast_ref::<ApiError>() {
                return Self(error.view());
            }
        }
        let mut chain = error.chain().map(ToString::to_string);
        let message = chain.next().unwrap_or_default();
        Self(ErrorView::from_failure(ErrorKind::Failed, Failure { because: chain.collect(), ..Failure::new(message) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_code() {
        let mut numbers: Vec<u8> = ErrorKind::ALL.into_iter().map(number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn every_code_is_documented() {
        let readme = include_str!("../../README.md");
        let names =
            ["failed", "wrong use", "not found", "refused", "put back", "stuck", "not available", "not permitted"];
        for (name, code) in names.into_iter().zip(1..) {
            let row = readme.lines().find(|line| line.starts_with(&format!("| {code} |")));
            assert!(row.is_some_and(|row| row.contains(name)), "{code} {name}");
        }
    }

    #[test]
    fn a_kind_survives_its_wrapping() {
        let view = ErrorView::new(ErrorKind::Refused, "another run is under way").hint("wait");
        let error = anyhow::Error::new(view).context("update orders");
        let error = CliError::from(error);
        assert_eq!((error.kind(), error.view().message.as_str()), (ErrorKind::Refused, "another run is under way"));
        assert_eq!(error.view().hint.as_deref(), Some("wait"));
    }

    #[test]
    fn what_has_no_kind_has_failed() {
        let error = CliError::from(anyhow::anyhow!("no space").context("write the store"));
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert_eq!(error.view().message, "failed to write the store");
        assert_eq!(error.view().because, ["no space"]);
    }
}
