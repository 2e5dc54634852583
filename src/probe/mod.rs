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
//!   JSON text, or plain text. It must be there and be the expected one.
//! - Without, in the health body (the same forms) or in the last line of the command's output that
//!   is not empty. If that looks like a version (one word with a digit in it), it must be the expected one. If it does not
//!   ("OK", a page of HTML), the answer is good without one, and `before.rs` warns of it.
//! - A TCP port and no probe say nothing about a version.
//!
//! The expected one is what the release says that it answers ([`Answers`]): its version, where it says nothing. What the
//! running version answers before anybody is disturbed is [`before`]'s.
//!
//! Every question is a new connection, through no proxy where the target is this host, and asks caches to stay out
//! (`Cache-Control: no-cache`); an answer with an `Age` came from one nevertheless and does not count. Redirects are
//! not followed: a login page would look healthy.
//!
//! Invariants: a body is read up to [`BODY_BYTES_MAX`]; a question ends after [`ANSWER_WAIT_MAX`] (commands after
//! [`COMMAND_WAIT_MAX`]) and never past the settings' deadline.

mod answer;
pub mod before;
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
use crate::domain::answers::Answers;
use crate::domain::command::Command;
use crate::domain::failure::Failure;
use crate::domain::foreign;
use crate::domain::progress::Progress;
use crate::domain::span::Span;
use crate::exec::Exec;
pub use crate::probe::error::ProbeError;
use crate::probe::http::Page;

/// How much of a body is read.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long one answer over the network may take, at most.
pub const ANSWER_WAIT_MAX: Span = Span::secs(10);
/// How long one health or deep command may take, at most.
pub const COMMAND_WAIT_MAX: Span = Span::mins(2);
/// So many clear answers of another version in a row are not changed by waiting.
pub const WRONG_MAX: u32 = 3;

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
        let ca_file = settings.ca_file.as_deref();
        let shallow = match &settings.probe {
            HealthProbe::Http(url) => Shallow::Http(Page::new(url, ca_file)?),
            HealthProbe::Tcp(port) => Shallow::Tcp(*port),
            HealthProbe::Command(argv) => Shallow::Command(argv.clone()),
            HealthProbe::None => Shallow::None,
        };
        Ok(Self {
            shallow,
            version: settings.version.as_ref().map(|url| Page::new(url, ca_file)).transpose()?,
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
    pub async fn ask(&self, expected: Option<&Answers>, env: &BTreeMap<String, String>) -> Result<Answer, ProbeError> {
        self.ask_until(expected, env, Instant::now() + self.deadline.duration()).await
    }

    /// Asks until enough good answers came in a row. After a rollback, `expected` is the old version.
    ///
    /// # Errors
    /// They did not come within the deadline, or another version answered so often in a row that waiting does not
    /// change it; the source is the last bad answer.
    pub async fn wait_healthy(
        &self,
        expected: Option<&Answers>,
        env: &BTreeMap<String, String>,
        progress: &dyn Progress,
    ) -> Result<Healthy, ProbeError> {
        let begin = Instant::now();
        let until = begin + self.deadline.duration();
        let (mut asked, mut in_a_row, mut wrong, mut last_bad) = (0, 0, 0, None);
        if self.asks_nothing() {
            return Ok(Healthy { version: None, asked, took: Span::ZERO });
        }
        loop {
            let answer = self.ask_until(expected, env, until).await;
            asked += 1;
            match answer {
                Ok(Answer { version }) => {
                    in_a_row += 1;
                    wrong = 0;
                    progress.advance(in_a_row.into(), Some(self.times.into()), "good answers in a row");
                    if in_a_row >= self.times {
                        return Ok(Healthy { version, asked, took: whole_millis(begin.elapsed()) });
                    }
                }
                Err(bad) => {
                    in_a_row = 0;
                    progress.advance(0, Some(self.times.into()), &Failure::from_error(&bad).to_string());
                    wrong = if matches!(bad, ProbeError::WrongVersion { .. }) { wrong + 1 } else { 0 };
                    // A question that the deadline cut short tells less than the answer before it.
                    if last_bad.is_none() || !bad.was_cut_short() {
                        last_bad = Some(Box::new(bad));
                    }
                }
            }
            let settled = wrong >= WRONG_MAX;
            if settled || Instant::now() + self.every.duration() >= until {
                let (times, deadline) = (self.times, self.deadline);
                return Err(ProbeError::NotHealthy { times, deadline, asked, in_a_row, settled, source: last_bad });
            }
            tokio::time::sleep(self.every.duration()).await;
        }
    }

    fn asks_nothing(&self) -> bool {
        matches!(self.shallow, Shallow::None) && self.version.is_none() && self.deep.is_none()
    }

    async fn ask_until(
        &self,
        expected: Option<&Answers>,
        env: &BTreeMap<String, String>,
        until: Instant,
    ) -> Result<Answer, ProbeError> {
        let told = self.told(expected, env, until).await?;
        self.must_be(expected, &told)?;
        self.deep(env, until).await?;
        Ok(Answer { version: told.version })
    }

    /// What it tells, if it is there.
    async fn told(
        &self,
        expected: Option<&Answers>,
        env: &BTreeMap<String, String>,
        until: Instant,
    ) -> Result<Told, ProbeError> {
        let told = match &self.shallow {
            Shallow::Http(page) => read(page, expected, until).await?,
            Shallow::Tcp(port) => {
                let source = |source| ProbeError::Tcp { port: *port, source };
                let connect = async { TcpStream::connect(port).await.map(drop).map_err(source) };
                within(&port.to_string(), until, connect).await?;
                Told::default()
            }
            Shallow::Command(argv) => {
                let output = command("health", argv, env, until).await?;
                Told { version: answer::version_in_output(&output, expected), body: foreign::last_lines(&output) }
            }
            Shallow::None => Told::default(),
        };
        match &self.version {
            None => Ok(told),
            Some(page) => read(page, expected, until).await,
        }
    }

    fn must_be(&self, expected: Option<&Answers>, told: &Told) -> Result<(), ProbeError> {
        let Some(expected) = expected else { return Ok(()) };
        let (expected, body) = (expected.clone(), told.body.clone());
        match (&told.version, &self.version) {
            (Some(seen), _) if expected.fits(seen) => Ok(()),
            (Some(seen), _) => Err(ProbeError::WrongVersion { expected, seen: foreign::short(seen), body }),
            (None, Some(page)) => Err(ProbeError::NoVersion { expected, url: page.name().to_owned(), body }),
            (None, None) => Ok(()),
        }
    }

    async fn deep(&self, env: &BTreeMap<String, String>, until: Instant) -> Result<(), ProbeError> {
        let Some(deep) = &self.deep else { return Ok(()) };
        command("deep", deep, env, until).await.map(drop)
    }
}

/// What a page or an output says.
#[derive(Debug, Default)]
struct Told {
    version: Option<String>,
    /// Its first lines, for people.
    body: Vec<String>,
}

/// What a page tells, in time.
async fn read(page: &Page, expected: Option<&Answers>, until: Instant) -> Result<Told, ProbeError> {
    let body = within(page.name(), until, page.get()).await?;
    let version = answer::version_in_body(&body, expected);
    Ok(Told { version, body: foreign::first_lines(&String::from_utf8_lossy(&body)) })
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
