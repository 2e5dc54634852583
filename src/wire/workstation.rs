//! What a workstation program and the daemon say to each other.
//!
//! ```text
//! client                                                daemon
//!   POST   /v1/apps/{app}/workstations   Register   →
//!   ←  200, one JSON object a line: Welcome | GateClosed, then Announce, Remind, … Ping
//!   POST   /v1/workstations/{session}/state  ClientState  →  204, 404 (register again)
//!   POST   /v1/workstations/{session}/answer Answered     →  204, 404, 409 (that warning is over)
//!   DELETE /v1/workstations/{session}                     →  204
//!   GET    /v1/apps/{app}/workstations/status             →  StationStatus
//!   GET    /v1/workstations                               →  StationStatus of each application where the caller has a session
//! ```
//!
//! The stream is the session's link: when it ends, the client connects again and tells everything
//! it knows, so neither side depends on the other having kept anything. Lengths of time travel
//! beside instants, because the clock of a workstation may be wrong.
//!
//! Invariant: every text is bounded and free of control characters ([`Register::flaw`]); it is
//! shown on terminals.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::plain::is_hidden;
use crate::domain::release::Version;
use crate::domain::session::Answer;
use crate::domain::session::Notice;
use crate::domain::session::SessionId;
use crate::domain::span::Span;

/// The longest name of a user, a workstation or a session, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// The longest program name, in bytes.
pub const PROGRAM_BYTES_MAX: usize = 4096;
/// The largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest line of the stream, in bytes.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// How often the daemon gives a sign of life.
pub const PING_EVERY: Span = Span::secs(5);

/// A process that can be told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// What the program at a workstation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "program", rename_all = "snake_case")]
pub enum Program {
    /// It was not started yet; the client asks whether it may be.
    NotStarted,
    /// It runs.
    Running {
        /// Its first process.
        #[serde(flatten)]
        process: Process,
    },
    /// It has ended, and the client waits until it may be started again.
    Ended,
}

/// All that a client tells about its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientState {
    /// What it does.
    #[serde(flatten)]
    pub program: Program,
    /// Whether there is unsaved work; absent when the client cannot tell.
    #[serde(default)]
    pub unsaved: Option<bool>,
    /// Last sign of life from the user.
    #[serde(default)]
    pub last_activity: Option<DateTime<Utc>>,
}

/// An answer and the warning it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The warning.
    pub notice: Notice,
    /// What the user said.
    pub answer: Answer,
}

/// The first word of a client, and of one that comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The name of the user.
    pub user: String,
    /// The name of the workstation.
    pub workstation: String,
    /// The program that is started, for people.
    pub program_name: String,
    /// The client's own process.
    pub client: Process,
    /// The session to go on with, after a lost link.
    #[serde(default)]
    pub session: Option<SessionId>,
    /// What the program does.
    pub state: ClientState,
    /// The last answer, for a daemon that has forgotten it.
    #[serde(default)]
    pub answered: Option<Answered>,
}

impl Register {
    /// What is wrong with the texts in it, if anything.
    pub fn flaw(&self) -> Option<&'static str> {
        let fits = |text: &str, max: usize| (1..=max).contains(&text.len()) && !text.chars().any(is_hidden);
        if !fits(&self.user, TEXT_BYTES_MAX) {
            Some("the user's name is empty, too long, or holds characters that are not seen")
        } else if !fits(&self.workstation, TEXT_BYTES_MAX) {
            Some("the workstation's name is empty, too long, or holds characters that are not seen")
        } else if !fits(&self.program_name, PROGRAM_BYTES_MAX) {
            Some("the program's name is empty, too long, or holds characters that are not seen")
        } else if self.session.as_ref().is_some_and(|session| !is_session_id(&session.0)) {
            Some("the session's name is not one of ours")
        } else {
            None
        }
    }
}

/// Whether a text can be a session's name: short and safe in a URL.
fn is_session_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// What the daemon tells a client, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum ServerMessage {
    /// Registered; a program that was not started may be.
    Welcome {
        /// The session, for the other requests.
        session: SessionId,
    },
    /// The program may not be started; the stream ends here.
    GateClosed {
        /// Why.
        text: String,
        /// Until when.
        until: Option<DateTime<Utc>>,
    },
    /// An update is going to happen.
    Announce {
        /// What users are told.
        notice: Notice,
        /// How long until open sessions are closed.
        left: Span,
    },
    /// It comes nearer.
    Remind {
        /// What users are told.
        notice: Notice,
        /// How long until open sessions are closed.
        left: Span,
    },
    /// A word from the operator.
    Message {
        /// The word.
        text: String,
    },
    /// The update will not happen now. A daemon of today says [`ServerMessage::Ready`] instead, with how it ended.
    Withdrawn,
    /// End the program: politely at first, by force after `force_after`.
    EndNow {
        /// How long the program is given; nothing means force at once.
        force_after: Span,
    },
    /// The program may be started again, and the user asked for it.
    Start {
        /// The version that runs now.
        version: Option<Version>,
        /// For the user.
        text: String,
    },
    /// The application is there again; the user did not ask for a restart.
    Ready {
        /// Whether the update was a success.
        success: bool,
        /// The version that runs now.
        version: Option<Version>,
        /// For the user.
        text: String,
    },
    /// A sign of life.
    Ping,
    /// Something a newer daemon says.
    #[serde(other)]
    Unknown,
}

/// How it stands at one application, for `client status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationStatus {
    /// Why programs may not be started, if so.
    pub closed: Option<ClosedText>,
    /// The warning that holds now.
    pub notice: Option<Notice>,
    /// How many sessions are open.
    pub sessions: u64,
    /// Those of who asks; nobody is told of other people's.
    #[serde(default)]
    pub own: Vec<OwnSession>,
}

/// A session, as its own user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnSession {
    /// Its name.
    pub session: SessionId,
    /// Where the program runs.
    pub workstation: Option<String>,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// What was answered to the warning that holds.
    pub answer: Option<Answer>,
    /// Whether the program waits for the end of an update.
    pub waits: bool,
}

/// Why programs may not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedText {
    /// Why.
    pub text: String,
    /// Until when.
    pub until: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register() -> Register {
        Register {
            user: "anna".into(),
            workstation: "pc-3".into(),
            program_name: "orders".into(),
            client: Process { pid: 7, start_ticks: 1 },
            session: None,
            state: ClientState { program: Program::NotStarted, unsaved: None, last_activity: None },
            answered: None,
        }
    }

    #[test]
    fn texts_for_terminals_are_checked() {
        assert_eq!(register().flaw(), None);
        for bad in ["", "a\u{1b}[2J", "a\nb", &"x".repeat(TEXT_BYTES_MAX + 1)] {
            assert!(Register { user: bad.into(), ..register() }.flaw().is_some(), "{bad:?}");
        }
        assert!(Register { session: Some(SessionId("../x".into())), ..register() }.flaw().is_some());
    }

    #[test]
    fn the_wire_is_flat_and_forgiving() {
        let running = ClientState {
            program: Program::Running { process: Process { pid: 7, start_ticks: 9 } },
            unsaved: Some(true),
            last_activity: None,
        };
        let json = serde_json::to_value(running).unwrap();
        assert_eq!(json["program"], "running");
        assert_eq!(json["pid"], 7);
        assert_eq!(serde_json::from_value::<ClientState>(json).unwrap(), running);
        let newer: ServerMessage = serde_json::from_str(r#"{"message":"sing","song":"la"}"#).unwrap();
        assert_eq!(newer, ServerMessage::Unknown);
    }
}
