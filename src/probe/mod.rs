//! Asks an application whether it works, and which version it is.
//!
//! One question has up to three parts, each asked only when the one before was answered well:
//!
//! | part | good when |
//! |---|---|
//! | the probe | HTTP: status 2xx, not from a cache. TCP: accepted. Command: ends with 0. |
//! | the version, when one is expected | see below |
//! | the deep command | ends with 0 |
//!
//! **Where the version is seen** (`answer.rs` reads it):
//! - With a `version` address, in its body, whatever the probe is: JSON with a text `version` at its top level, a
//!   JSON text, or plain text. It must be there and be equal to the expected one.
//! - Without, in the health body (the same forms) or in the last line of the command's output that
//!   is not empty. If that looks like a version (one word with a digit in it), it must be equal. If it does not
//!   ("OK", a page of HTML), the answer is good without one, and [`Probe::check`] warns of it.
//! - A TCP port and no probe say nothing about a version.
//!
//! Every question is a new connection, through no proxy where the target is this host, and asks caches to stay out
//! (`Cache-Control: no-cache`); an answer with an `Age` came from one nevertheless and does not count. Redirects are
//! not followed: a login page would look healthy.
//!
//! Invariants: a body is read up to [`BODY_BYTES_MAX`]; a question ends after [`ANSWER_WAIT_MAX`] (commands after
//! [`COMMAND_WAIT_MAX`]) and never past the settings' deadline.

mod answer;
pub mod error;
mod http;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::config::settings::HealthProbe;
use crate::config::settings::HealthSettings;
use crate::domain::command::Command;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::progress::Progress;
use crate::domain::release::Version;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::ExecError;
pub use crate::probe::error::ProbeError;
use crate::probe::http::Page;

/// How much of a body is read.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long one answer over the network may take, at most.
pub const ANSWER_WAIT_MAX: Span = Span::secs(10);
/// How long one health or deep command may take, at most.
pub const COMMAND_WAIT_MAX: Span = Span::mins(2);

/// One good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The version that answered, where it says so.
    pub version: Option<String>,
}

/// Enough good answers in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthy {
    /// The version that answered last, where it says so.
    pub version: Option<String>,
    /// How many questions it took.
    pub asked: u32,
    /// How long it took.
    pub took: Span,
}

/// Asks one application.
#[derive(Debug)]
pub struct Probe {
    shallow: Shallow,
    version: Option<Page>,
    deep: Option<Command>,
    times: u32,
    every: Span,
    deadline: Span,
}

/// The first part of a question.
#[derive(Debug)]
enum Shallow {
    Http(Page),
    Tcp(SocketAddr),
    Command(Command),
    None,
}

impl Probe {
    /// The probe that the settings ask for.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(settings: &HealthSettings) -> Result<Self, ProbeError> {
        let shallow = match &settings.probe {
            HealthProbe::Http(url) => Shallow::Http(Page::new(url)?),
            HealthProbe::Tcp(port) => Shallow::Tcp(*port),
            HealthProbe::Command(argv) => Shallow::Command(argv.clone()),
            HealthProbe::None => Shallow::None,
        };
        Ok(Self {
            shallow,
            version: settings.version.as_ref().map(Page::new).transpose()?,
            deep: settings.deep.clone(),
            times: settings.times.max(1),
            every: settings.every,
            deadline: settings.deadline,
        })
    }

    /// Asks once.
    ///
    /// # Errors
    /// The answer is not good, or another version than `expected` answers.
    pub async fn ask(&self, expected: Option<&Version>, env: &BTreeMap<String, String>) -> Result<Answer, ProbeError> {
        self.ask_until(expected, env, Instant::now() + self.deadline.duration()).await
    }

    /// Asks until enough good answers came in a row. After a rollback, `expected` is the old version.
    ///
    /// # Errors
    /// They did not come within the deadline; the source is the last bad answer.
    pub async fn wait_healthy(
        &self,
        expected: Option<&Version>,
        env: &BTreeMap<String, String>,
        progress: &dyn Progress,
    ) -> Result<Healthy, ProbeError> {
        let begin = Instant::now();
        let until = begin + self.deadline.duration();
        let (mut asked, mut in_a_row, mut last_bad) = (0, 0, None);
        if self.asks_nothing() {
            return Ok(Healthy { version: None, asked, took: Span::ZERO });
        }
        loop {
            let answer = self.ask_until(expected, env, until).await;
            asked += 1;
            match answer {
                Ok(Answer { version }) => {
                    in_a_row += 1;
                    progress.advance(in_a_row.into(), Some(self.times.into()), "good answers in a row");
                    if in_a_row >= self.times {
                        return Ok(Healthy { version, asked, took: whole_millis(begin.elapsed()) });
                    }
                }
                Err(bad) => {
                    in_a_row = 0;
                    progress.advance(0, Some(self.times.into()), &Failure::from_error(&bad).to_string());
                    // A question that the deadline cut short tells less than the answer before it.
                    if last_bad.is_none() || Instant::now() < until {
                        last_bad = Some(Box::new(bad));
                    }
                }
            }
            if Instant::now() + self.every.duration() >= until {
                let (times, deadline) = (self.times, self.deadline);
                return Err(ProbeError::NotHealthy { times, deadline, asked, in_a_row, source: last_bad });
            }
            tokio::time::sleep(self.every.duration()).await;
        }
    }

    /// Looks whether it could be asked right now. A stopped application is a warning, a missing command fatal.
    pub async fn check(&self) -> Vec<Finding> {
        if self.asks_nothing() {
            return vec![Finding::warning(
                "health",
                "nothing is asked after an update, so a broken version would not be noticed",
                "give the application a `health` entry",
            )];
        }
        match self.ask(None, &BTreeMap::new()).await {
            Ok(Answer { version: Some(version) }) => {
                vec![Finding::good("health", format!("the application answers as version {version}"))]
            }
            Ok(Answer { version: None }) => vec![
                Finding::good("health", "the application answers"),
                Finding::warning(
                    "health_version",
                    "the answer does not tell a version, so an old process would pass for the new one",
                    "set `health.version` to a page that tells it, or let the health command print it last",
                ),
            ],
            Err(error) => {
                let text = format!("failed to {}", Failure::from_error(&error));
                let remedy = error.hint().unwrap_or_else(|| "start the application and check again".to_owned());
                vec![match error {
                    ProbeError::Command { source: ExecError::Spawn { .. } | ExecError::Refused { .. }, .. } => {
                        Finding::fatal("health", text, remedy)
                    }
                    _ => Finding::warning("health", text, remedy),
                }]
            }
        }
    }

    fn asks_nothing(&self) -> bool {
        matches!(self.shallow, Shallow::None) && self.version.is_none() && self.deep.is_none()
    }

    async fn ask_until(
        &self,
        expected: Option<&Version>,
        env: &BTreeMap<String, String>,
        until: Instant,
    ) -> Result<Answer, ProbeError> {
        let said = match &self.shallow {
            Shallow::Http(page) => answer::version_in_body(&within(page.name(), until, page.get()).await?, expected),
            Shallow::Tcp(port) => {
                let source = |source| ProbeError::Tcp { port: *port, source };
                let connect = async { TcpStream::connect(port).await.map(drop).map_err(source) };
                within(&port.to_string(), until, connect).await?;
                None
            }
            Shallow::Command(argv) => answer::version_in_output(&command("health", argv, env, until).await?, expected),
            Shallow::None => None,
        };
        let version = match &self.version {
            None => said,
            Some(page) => {
                let seen = answer::version_in_body(&within(page.name(), until, page.get()).await?, expected);
                if let (None, Some(expected)) = (&seen, expected) {
                    return Err(ProbeError::NoVersion { expected: expected.clone(), url: page.name().to_owned() });
                }
                seen
            }
        };
        if let (Some(seen), Some(expected)) = (&version, expected)
            && seen != expected.as_str()
        {
            return Err(ProbeError::WrongVersion { expected: expected.clone(), seen: seen.clone() });
        }
        if let Some(deep) = &self.deep {
            command("deep", deep, env, until).await?;
        }
        Ok(Answer { version })
    }
}

/// How long an answer may still take.
fn wait(max: Span, until: Instant) -> Span {
    let left = until.saturating_duration_since(Instant::now());
    // Whole milliseconds, for messages.
    max.min(Span::from(Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))))
}

/// An answer over the network, in time.
async fn within<T>(
    from: &str,
    until: Instant,
    answer: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    let wait = wait(ANSWER_WAIT_MAX, until);
    match timeout(wait.duration(), answer).await {
        Ok(answer) => answer,
        Err(_) => Err(ProbeError::Slow { from: from.to_owned(), wait }),
    }
}

/// What a command prints when it ends well.
async fn command(
    which: &'static str,
    argv: &Command,
    env: &BTreeMap<String, String>,
    until: Instant,
) -> Result<String, ProbeError> {
    let ended = Exec::of(argv, wait(COMMAND_WAIT_MAX, until)).envs(env).run().await;
    ended.map(|output| output.stdout).map_err(|source| ProbeError::Command { which, source })
}
/// What is smaller interests nobody who reads how long it took.
fn whole_millis(length: Duration) -> Span {
    Span::from(Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
}
