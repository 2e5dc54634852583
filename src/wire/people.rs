//! Sessions and the gate on the wire.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::clock::Moment;
use crate::domain::gate::Gate;
use crate::domain::gate::Opening;
use crate::domain::gate::Pass;
use crate::domain::name::AppName;
use crate::domain::session::Census;
use crate::domain::session::Session;
use crate::domain::session::SessionId;
use crate::domain::span::Span;

/// One logged-in user.
pub type SessionView = Session;

/// A one-time permission to log in through a closed gate.
pub type PassView = Pass;

/// How long a pass is valid where nobody says.
pub const PASS_VALID_DEFAULT: Span = Span::mins(10);

/// Who is logged in, or why that cannot be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsView {
    /// The application.
    pub app: AppName,
    /// Whether everybody who is logged in is known. If not, `sessions` is empty and means nothing.
    pub known: bool,
    /// Why it is not known.
    pub reason: Option<String>,
    /// Everybody who is logged in.
    pub sessions: Vec<SessionView>,
    /// Sessions that are no people's, such as a probe's: not counted, told or logged out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<SessionView>,
}

impl SessionsView {
    /// A census as it is shown.
    pub fn new(app: AppName, census: Census) -> Self {
        match census {
            Census::Known(sessions) => Self { app, known: true, reason: None, sessions, ignored: Vec::new() },
            Census::Unknown(reason) => {
                Self { app, known: false, reason: Some(reason), sessions: Vec::new(), ignored: Vec::new() }
            }
        }
    }

    /// With the sessions that are no people's.
    #[must_use]
    pub fn with_ignored(self, ignored: Vec<SessionView>) -> Self {
        Self { ignored, ..self }
    }
}

/// Tells something to who is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageSessions {
    /// What.
    pub text: String,
    /// Only to these; to everybody when empty.
    #[serde(default)]
    pub sessions: Vec<SessionId>,
}

/// Who was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagedView {
    /// Everybody the message was handed to.
    pub told: Vec<SessionId>,
}

/// Logs somebody out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndSessions {
    /// Only these; everybody when empty.
    #[serde(default)]
    pub sessions: Vec<SessionId>,
}

/// Who was logged out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedView {
    /// Closed politely or by force.
    pub ended: Vec<SessionId>,
    /// Still there.
    pub left: Vec<SessionId>,
}

/// Whether users may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateView {
    /// Where it stands.
    #[serde(flatten)]
    pub gate: Gate,
    /// Whether users may log in right now: it is open, or the lease that closed it has run out.
    pub admits: bool,
    /// Passes that were given and not used yet.
    #[serde(default)]
    pub passes: Vec<PassView>,
    /// What to know before relying on it: that nothing keeps users out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// What else closes with it and has failed to open; absent when all is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<Opening>,
}

impl GateView {
    /// A gate as it is shown at `now`.
    pub fn new(gate: Gate, passes: Vec<PassView>, now: impl Into<Moment>) -> Self {
        Self { admits: gate.admits(now), gate, passes, warning: None, opening: None }
    }

    /// With a warning, where there is one.
    #[must_use]
    pub fn with_warning(self, warning: Option<String>) -> Self {
        Self { warning, ..self }
    }

    /// With what has not opened yet, where that has failed.
    #[must_use]
    pub fn with_opening(self, opening: Option<Opening>) -> Self {
        Self { opening: opening.filter(|opening| opening.failure.is_some()), ..self }
    }
}

/// Refuses logins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseGate {
    /// When it opens by itself; never when absent.
    #[serde(default)]
    pub until: Option<DateTime<Utc>>,
    /// What users are told; a sentence of ours when absent.
    #[serde(default)]
    pub message: Option<String>,
}

/// Admits one login through a closed gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivePass {
    /// Whom; anybody when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// For how long.
    #[serde(default = "pass_valid_default")]
    pub valid: Span,
}

const fn pass_valid_default() -> Span {
    PASS_VALID_DEFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::domain::gate::ClosedBy;
    use crate::domain::gate::Position;
    use crate::domain::run::RunId;

    #[test]
    fn a_gate_survives_the_wire() {
        let app: AppName = "orders".parse().unwrap();
        let now = DateTime::UNIX_EPOCH;
        let position = Position::Closed {
            by: ClosedBy::Run(RunId(3)),
            message: "back soon".to_owned(),
            until: Some(now),
            lease_until: None,
            lease: None,
            since: now,
        };
        for gate in [Gate::open(app.clone()), Gate { app, position }] {
            let view = GateView::new(gate, Vec::new(), now);
            let json = serde_json::to_value(&view).unwrap();
            assert_eq!(json["admits"], json["position"] == "open");
            assert_eq!(serde_json::from_value::<GateView>(json).unwrap(), view);
        }
    }

    #[test]
    fn unknown_is_not_empty() {
        let view = SessionsView::new("orders".parse().unwrap(), Census::Unknown("no answer".to_owned()));
        assert!(!view.known);
        assert_eq!(view.reason.as_deref(), Some("no answer"));
    }
}
