//! Why an answer of an application is not good.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::domain::release::Version;
use crate::domain::span::Span;
use crate::exec::ExecError;

/// An application did not prove that it works.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The HTTP client cannot be made.
    #[error("prepare for asking {url}")]
    Client {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nobody answers over HTTP.
    #[error("get an answer from {url}")]
    Http {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The page answers that it is not well.
    #[error("get a good answer from {url}: it answered {status}")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: reqwest::StatusCode,
    },
    /// The answer is an old one.
    #[error("get a fresh answer from {url}: a cache answered with one {age} s old")]
    Cached {
        /// The address.
        url: String,
        /// Its age as the cache says.
        age: u64,
    },
    /// The answer takes too long.
    #[error("get an answer from {from} within {wait}")]
    Slow {
        /// Who was asked.
        from: String,
        /// The limit.
        wait: Span,
    },
    /// Nobody accepts on the port.
    #[error("connect to {port}")]
    Tcp {
        /// The port.
        port: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command does not end well.
    #[error("run the {which} command")]
    Command {
        /// Health or deep.
        which: &'static str,
        /// How.
        #[source]
        source: ExecError,
    },
    /// Another version answers.
    #[error("see version {expected}: version {seen} answers")]
    WrongVersion {
        /// The one that should.
        expected: Version,
        /// The one that does.
        seen: String,
    },
    /// The page that should tell the version does not.
    #[error("see version {expected}: {url} does not tell a version")]
    NoVersion {
        /// The one that should answer.
        expected: Version,
        /// The page.
        url: String,
    },
    /// There were not enough good answers in a row in time. The source is the last bad answer.
    #[error("see {times} good answers in a row within {deadline}: {asked} asked, the last {in_a_row} were good")]
    NotHealthy {
        /// How many were needed.
        times: u32,
        /// The limit.
        deadline: Span,
        /// How many were asked.
        asked: u32,
        /// How many at the end were good.
        in_a_row: u32,
        /// The last bad answer.
        #[source]
        source: Option<Box<ProbeError>>,
    },
}

impl ProbeError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Client { .. } => Some("install the system's certificates (Debian: ca-certificates)".to_owned()),
            Self::Http { url, .. } => Some(format!("is the application running? try: curl -v {url}")),
            Self::Status { url, status } if status.is_redirection() => {
                Some(format!("redirects are not followed: name the page that {url} leads to"))
            }
            Self::Status { url, .. } => Some(format!("see what it says: curl -v {url}")),
            Self::Cached { .. } => {
                Some("name the application's own address instead of the proxy's in front of it".to_owned())
            }
            Self::Slow { .. } => Some("see the application's log for what it waits for".to_owned()),
            Self::Tcp { port, .. } => {
                Some(format!("is the application running? see who listens: ss -ltnp 'sport = :{}'", port.port()))
            }
            Self::Command { which, .. } => {
                Some(format!("run the {which} command by hand as the user whom `afterhours doctor` names for it"))
            }
            Self::WrongVersion { .. } => Some(
                "either an old process still answers, or the release says another version than the program".to_owned(),
            ),
            Self::NoVersion { url, .. } => {
                Some(format!("{url} must answer with the version alone, or with JSON {{\"version\": \"…\"}}"))
            }
            Self::NotHealthy { source, .. } => source
                .as_ref()
                .and_then(|last| last.hint())
                .or_else(|| Some("raise `health.deadline`, or ask more often with `health.every`".to_owned())),
        }
    }
}
