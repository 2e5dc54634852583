//! Whether users may log in.

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::clock::Moment;
use crate::domain::clock::Term;
use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::domain::run::RunId;

/// Who closed a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosedBy {
    /// A run; the gate opens with it.
    Run(RunId),
    /// An operator; only an operator opens it, or time.
    Operator(String),
}

/// Whether users may log in to one application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "position", rename_all = "snake_case")]
pub enum Position {
    /// Users may log in.
    Open,
    /// Logging in is refused.
    Closed {
        /// Who closed it.
        by: ClosedBy,
        /// What users are told.
        message: String,
        /// Until when it is expected to be closed. A promise to users, not a timer, unless an operator set it.
        until: Option<DateTime<Utc>>,
        /// The lease: past this instant nobody keeps the gate closed any more, and it counts as open.
        /// Absent while a run is between stop and commit, or where an operator closed it without a time.
        lease_until: Option<DateTime<Utc>>,
        /// The lease of a run as a length, which no clock that is set changes: it counts, and `lease_until` is for people.
        /// An operator's own time is a time of day, and has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<Term>,
        /// Since when.
        since: DateTime<Utc>,
    },
}

/// The gate of one application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// The application.
    pub app: AppName,
    /// Where it stands.
    #[serde(flatten)]
    pub position: Position,
}

impl Gate {
    /// Since when it is closed, if it is.
    pub const fn closed_since(&self) -> Option<DateTime<Utc>> {
        match self.position {
            Position::Open => None,
            Position::Closed { since, .. } => Some(since),
        }
    }

    /// An open gate.
    pub fn open(app: AppName) -> Self {
        Self { app, position: Position::Open }
    }

    /// Whether users may log in at `now`: it is open, or the lease that closed it has run out.
    pub fn admits(&self, now: impl Into<Moment>) -> bool {
        let now = now.into();
        match &self.position {
            Position::Open => true,
            // Who has no other clock goes by the wall.
            Position::Closed { lease: Some(lease), .. } if now.up.is_some() => lease.is_over(now),
            Position::Closed { lease_until, .. } => lease_until.is_some_and(|until| until <= now.at),
        }
    }
}

/// The pause after the first failure to open a gate everywhere; it doubles up to [`OPENING_PAUSE_MAX`].
const OPENING_PAUSE: TimeDelta = TimeDelta::seconds(15);
/// The longest pause between two tries.
const OPENING_PAUSE_MAX: TimeDelta = TimeDelta::minutes(10);

/// A gate that is open, while what else closes with it (a file, commands) has not followed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Since when it is open.
    pub since: DateTime<Utc>,
    /// How often it failed.
    pub attempts: u32,
    /// When it is tried next.
    pub next_at: DateTime<Utc>,
    /// Why it failed the last time; absent while it is tried for the first time.
    pub failure: Option<Failure>,
}

impl Opening {
    /// One that begins now.
    pub fn begun(now: DateTime<Utc>) -> Self {
        Self { since: now, attempts: 0, next_at: now, failure: None }
    }

    /// After a try that failed.
    #[must_use]
    pub fn failed(self, failure: Failure, now: DateTime<Utc>) -> Self {
        let pause = OPENING_PAUSE * 2_i32.saturating_pow(self.attempts.min(20));
        let next_at = now + pause.min(OPENING_PAUSE_MAX);
        Self { attempts: self.attempts.saturating_add(1), next_at, failure: Some(failure), ..self }
    }
}

/// A one-time permission to log in through a closed gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// The application.
    pub app: AppName,
    /// Whom it admits; anybody when absent.
    pub user: Option<String>,
    /// The number of that user: whoever else has or takes the name is not meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Until when it can be used.
    pub valid_until: DateTime<Utc>,
    /// Who gave it.
    pub given_by: String,
}
