//! What the running version answers before anybody is disturbed.
//!
//! It is asked everything that the new version will be asked. A check that the running version does not pass will not be
//! passed by the new one, nor by the old one after a rollback: such a run must not begin.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::domain::answers::Answers;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::name::AppName;
use crate::domain::span::Span;
use crate::exec::ExecError;
use crate::probe::Probe;
use crate::probe::ProbeError;
use crate::probe::WRONG_MAX;

/// How long an application that does not answer yet is waited for, at most: it may just be starting with the machine.
const PATIENCE: Span = Span::secs(30);

/// How often the running version is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// Once.
    Once,
    /// Until it answers, or it is clear that it will not.
    Patiently,
}

/// Why a run may go on although the running version does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leave {
    /// The update shall mend an application that is down or ill now.
    pub repair: bool,
    /// Everything that will be installed says itself what it answers.
    pub declared: bool,
}

/// What the running version answers.
#[derive(Debug, Default)]
pub struct Standing {
    /// Whether nothing is asked at all.
    pub asks_nothing: bool,
    /// The version that it tells, where it tells one.
    pub version: Option<String>,
    /// Why it is not well, whatever version it is.
    pub ill: Option<ProbeError>,
    /// Why it is not what is installed.
    pub other: Option<ProbeError>,
}

impl Probe {
    /// Asks the running version everything that the new one will be asked; `expected` is what is installed, where that
    /// is known.
    pub async fn standing(
        &self,
        expected: Option<&Answers>,
        env: &BTreeMap<String, String>,
        asking: Asking,
    ) -> Standing {
        if self.asks_nothing() {
            return Standing { asks_nothing: true, ..Standing::default() };
        }
        let until = Instant::now() + self.deadline.min(PATIENCE).duration();
        let mut clear = 0;
        loop {
            let standing = self.stands(expected, env).await;
            clear = if standing.is_clear() { clear + 1 } else { 0 };
            let over = clear >= WRONG_MAX || Instant::now() + self.every.duration() >= until;
            if standing.is_good() || over || asking == Asking::Once {
                return standing;
            }
            tokio::time::sleep(self.every.duration()).await;
        }
    }

    /// Every part is asked, also after a wrong version: each is a cause of its own.
    async fn stands(&self, expected: Option<&Answers>, env: &BTreeMap<String, String>) -> Standing {
        let until = Instant::now() + self.deadline.duration();
        match self.told(expected, env, until).await {
            Err(error) => Standing { ill: Some(error), ..Standing::default() },
            Ok(told) => {
                let other = self.must_be(expected, &told).err();
                Standing { asks_nothing: false, version: told.version, ill: self.deep(env, until).await.err(), other }
            }
        }
    }
}

impl Standing {
    /// Whether it passes its check.
    pub fn is_good(&self) -> bool {
        self.ill.is_none() && self.other.is_none()
    }

    /// Whether waiting will hardly change it.
    fn is_clear(&self) -> bool {
        self.other.is_some()
            || self.ill.as_ref().is_some_and(|ill| match ill {
                ProbeError::Status { status, .. } => status.is_redirection() || status.is_client_error(),
                ProbeError::Command { .. } => true,
                _ => ill.is_ours(),
            })
    }

    /// What a run has to know of it.
    pub fn findings(&self, app: &AppName, leave: Leave) -> Vec<Finding> {
        if self.asks_nothing {
            return vec![Finding::warning(
                "health",
                "nothing is asked after an update, so a broken version would not be noticed",
                "give the application a `health` entry",
            )];
        }
        let ill = self.ill.as_ref().map(|error| ill(error, app, leave));
        let other = self.other.as_ref().map(|error| other(error, leave));
        let bad: Vec<Finding> = ill.into_iter().chain(other).collect();
        if !bad.is_empty() {
            return bad;
        }
        match &self.version {
            Some(version) => vec![Finding::good("health", format!("the application answers as version {version}"))],
            None => vec![
                Finding::good("health", "the application answers"),
                Finding::warning(
                    "health_version",
                    "the answer does not tell a version, so an old process would pass for the new one",
                    "set `health.version` to a page that tells it, or let the health command print it last",
                ),
            ],
        }
    }
}

fn ill(error: &ProbeError, app: &AppName, leave: Leave) -> Finding {
    let text =
        format!("the application does not pass its own health check now: failed to {}", Failure::from_error(error));
    let remedy = error.hint().unwrap_or_else(|| "start the application and check again".to_owned());
    // What cannot be run at all will not be passed by any version.
    let hopeless = matches!(
        error,
        ProbeError::Command { source: ExecError::Spawn { .. } | ExecError::Refused { .. }, .. }
            | ProbeError::Client { .. }
            | ProbeError::Authority { .. }
    );
    match (leave.repair, hopeless) {
        (true, false) => Finding::warning("health", text, remedy),
        (_, true) => Finding::fatal("health", text, remedy),
        (false, false) => Finding::fatal(
            "health",
            text,
            format!("{remedy}; where the update shall mend it: afterhours update now {app} --repair"),
        ),
    }
}

fn other(error: &ProbeError, leave: Leave) -> Finding {
    let text = format!("the running version does not tell what is installed: failed to {}", Failure::from_error(error));
    let remedy = error.hint().unwrap_or_default();
    match leave.repair || leave.declared {
        true => Finding::warning("health_version", text, remedy),
        false => Finding::fatal("health_version", text, remedy),
    }
}
