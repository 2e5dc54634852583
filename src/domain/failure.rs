//! What went wrong, in the three parts a person needs, and what the program that failed said itself.

use std::error::Error;
use std::fmt;
use std::io;

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

/// What the machine has too little of, or does not let us do, for a while perhaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scarce {
    /// Open files, of this process or of the machine.
    Descriptors,
    /// Memory.
    Memory,
    /// Processes.
    Processes,
    /// Room on a disk, or of a quota.
    Room,
    /// A file system that takes what is written.
    Writable,
    /// Somebody else has it just now.
    Free,
}

impl Scarce {
    /// What is scarce where one of these errors is the system saying so.
    fn find<'e>(mut errors: impl Iterator<Item = &'e (dyn Error + 'static)>) -> Option<Self> {
        errors.find_map(|error| error.downcast_ref::<io::Error>().and_then(Self::of))
    }

    /// What is scarce where the system says so in this error.
    pub fn of(error: &io::Error) -> Option<Self> {
        // An error that wraps another may keep its kind alone, and what hides below it is no source of its own.
        let below = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()).and_then(Self::of);
        below.or(match (error.raw_os_error(), error.kind()) {
            (Some(EMFILE | ENFILE), _) => Some(Self::Descriptors),
            (Some(EAGAIN), _) => Some(Self::Processes),
            (Some(EROFS), _) => Some(Self::Writable),
            (Some(EBUSY | ETXTBSY), _) => Some(Self::Free),
            (_, io::ErrorKind::OutOfMemory) => Some(Self::Memory),
            (_, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Some(Self::Room),
            _ => None,
        })
    }
}

impl fmt::Display for Scarce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "too many files are open",
            Self::Memory => "there is too little memory",
            Self::Processes => "there are too many processes",
            Self::Room => "there is no room left on the disk",
            Self::Writable => "the file system is read-only",
            Self::Free => "it is in use",
        })
    }
}

const EAGAIN: i32 = 11;
const EBUSY: i32 = 16;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ETXTBSY: i32 = 26;
const EROFS: i32 = 30;

/// What somebody else said about a failure, kept because it is gone when the old version runs again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exhibit {
    /// Who said it.
    pub from: String,
    /// The lines, as [`crate::domain::foreign`] lets them through.
    pub lines: Vec<String>,
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
    /// What others said at that moment: an answer, the service, its journal.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub exhibits: Box<[Exhibit]>,
    /// Whether the release has failed by itself: only then is it held back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_release: bool,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Which of the failures that scripts tell apart it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<FailureCode>,
    /// What there was too little of, where it failed for that: doing it again later may help. Not kept.
    #[serde(skip)]
    pub scarce: Option<Scarce>,
}

impl Failure {
    /// A failure without a cause below it.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            because: Vec::new(),
            said: Vec::new(),
            exhibits: Box::default(),
            of_release: false,
            hint: None,
            code: None,
            scarce: None,
        }
    }

    /// Takes an error and its chain of sources apart.
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self { scarce: Scarce::find(std::iter::successors(Some(error), |e| (*e).source())), ..Self::told(error) }
    }

    /// The words of an error and of its causes alone.
    pub fn told(error: &dyn Error) -> Self {
        let because = std::iter::successors(error.source(), |e| (*e).source()).map(ToString::to_string).collect();
        Self { because, ..Self::new(error.to_string()) }
    }

    /// The same failure with a cause below it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.because.push(cause.into());
        self
    }

    /// The same failure as one of the release itself.
    #[must_use]
    pub fn of_release(self, of_release: bool) -> Self {
        Self { of_release, ..self }
    }

    /// The same failure with a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<E: Error + 'static> From<E> for Failure {
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
    fn only_what_comes_back_by_itself_is_scarce() {
        #[derive(Debug, thiserror::Error)]
        #[error("copy a file")]
        struct Copy(#[source] io::Error);
        let scarce = |error| Failure::from_error(&Copy(error)).scarce;
        for (number, expected) in [
            (24, Scarce::Descriptors),
            (23, Scarce::Descriptors),
            (12, Scarce::Memory),
            (11, Scarce::Processes),
            (28, Scarce::Room),
            (122, Scarce::Room),
            (30, Scarce::Writable),
            (16, Scarce::Free),
            (26, Scarce::Free),
        ] {
            assert_eq!(scarce(io::Error::from_raw_os_error(number)), Some(expected), "{number}");
            // As `fs_err` wraps it: the number is one level deeper.
            let wrapped = io::Error::other(io::Error::from_raw_os_error(number));
            assert_eq!(scarce(wrapped), Some(expected), "{number}");
        }
        assert_eq!(scarce(io::ErrorKind::StorageFull.into()), Some(Scarce::Room));
        for number in [1, 2, 5, 13] {
            assert_eq!(scarce(io::Error::from_raw_os_error(number)), None, "{number}");
        }
        assert_eq!(Failure::new("anything else").scarce, None);
    }

    #[test]
    fn codes_are_spelt_the_same_everywhere() {
        for code in FailureCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }
}
