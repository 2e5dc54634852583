//! Why an answer of an application is not good.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::domain::answers::Answers;
use crate::domain::failure::Exhibit;
use crate::domain::span::Span;
use crate::exec::ExecError;
use crate::probe::ANSWER_WAIT_MAX;
use crate::probe::COMMAND_WAIT_MAX;
use crate::probe::WRONG_MAX;

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
    /// The certificates of `health.ca_file` cannot be used.
    #[error("trust the certificates in {file}")]
    Authority {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
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
        /// The first lines of its answer, masked and bounded as in [`crate::domain::foreign`].
        body: Vec<String>,
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
        expected: Answers,
        /// The one that does.
        seen: String,
        /// The first lines of what it said.
        body: Vec<String>,
    },
    /// The page that should tell the version does not.
    #[error("see version {expected}: {url} does not tell a version")]
    NoVersion {
        /// The one that should answer.
        expected: Answers,
        /// The page.
        url: String,
        /// The first lines of what it said.
        body: Vec<String>,
    },
    /// There were not enough good answers in a row in time. The source is the last bad answer.
    #[error("see {times} good answers in a row within {deadline}: {asked} asked, {}", ended(*in_a_row, *settled))]
    NotHealthy {
        /// How many were needed.
        times: u32,
        /// The limit.
        deadline: Span,
        /// How many were asked.
        asked: u32,
        /// How many at the end were good.
        in_a_row: u32,
        /// Whether it was given up because another version answered again and again.
        settled: bool,
        /// The last bad answer.
        #[source]
        source: Option<Box<ProbeError>>,
    },
}

/// Whether the server's certificate is what is wrong. Such an error hides in others, and is no source of theirs.
fn is_untrusted(error: &reqwest::Error) -> bool {
    let mut causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.any(|cause| cause.is::<rustls::Error>() || cause.downcast_ref::<io::Error>().is_some_and(hides_certificate))
}

fn hides_certificate(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| {
        inner.is::<rustls::Error>() || inner.downcast_ref::<io::Error>().is_some_and(hides_certificate)
    })
}

fn ended(in_a_row: u32, settled: bool) -> String {
    match settled {
        true => format!("the last {WRONG_MAX} by another version, which waiting does not change"),
        false => format!("the last {in_a_row} were good"),
    }
}

impl ProbeError {
    /// Whether it is the deadline's end that ended the question, and not how long an answer may take at most.
    pub(crate) fn was_cut_short(&self) -> bool {
        match self {
            Self::Slow { wait, .. } => *wait < ANSWER_WAIT_MAX,
            Self::Command { source: ExecError::Overdue { deadline, .. }, .. } => *deadline < COMMAND_WAIT_MAX,
            _ => false,
        }
    }

    /// Whether nothing was asked of the application, because we could not.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            Self::Client { .. } | Self::Authority { .. } => true,
            Self::Command { source, .. } => !matches!(source, ExecError::Failed { .. } | ExecError::Overdue { .. }),
            Self::NotHealthy { source: Some(last), .. } => last.is_ours(),
            _ => false,
        }
    }

    /// What the last bad answer said, for whoever looks for the cause.
    pub fn exhibit(&self) -> Option<Exhibit> {
        match self {
            Self::Status { url, body, .. } | Self::NoVersion { url, body, .. } if !body.is_empty() => {
                Some(Exhibit { from: url.clone(), lines: body.clone() })
            }
            Self::WrongVersion { body, .. } if !body.is_empty() => {
                Some(Exhibit { from: "health".to_owned(), lines: body.clone() })
            }
            Self::NotHealthy { source: Some(last), .. } => last.exhibit(),
            _ => None,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Client { .. } => Some("install the system's certificates (Debian: ca-certificates)".to_owned()),
            Self::Authority { file, .. } => {
                Some(format!("put the server's certificate there as PEM, or correct health.ca_file: {file}"))
            }
            Self::Http { source, .. } if is_untrusted(source) => Some(
                "for a certificate of your own, name its PEM file: health.ca_file; it must name the server as the address does"
                    .to_owned(),
            ),
            Self::Http { url, .. } => Some(format!("is the application running? try: curl -v {url}")),
            Self::Status { url, status, .. } if status.is_redirection() => {
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
                "either an old process still answers, or the program tells its version in another way than the release; its \
                 vendor can declare what it answers: `answers` in release.toml, or feed publish --answers"
                    .to_owned(),
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
