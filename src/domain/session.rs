//! Who is logged in.

use std::fmt;

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::name::AppName;

/// The identity of a session, unique within its application; chosen by its provider.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub String);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a user answered to a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// "OK": close the application right there.
    Ok,
    /// "Not now": dismiss the warning.
    NotNow,
    /// "Restart afterwards": close now, start again when the update is done.
    RestartAfterwards,
}

/// One logged-in user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Unique within the application.
    pub id: SessionId,
    /// The application.
    pub app: AppName,
    /// The name of the user: of a workstation, the one the machine knows for who runs it; elsewhere, what the provider says.
    pub user: String,
    /// What the client calls its user, where that is another name. It is shown, and never believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// The number of the user on this machine, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The process of the program, where one is seen on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The workstation, where the provider knows it.
    #[serde(default)]
    pub workstation: Option<String>,
    /// Logged in since.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// Last sign of life from the user.
    #[serde(default)]
    pub last_activity: Option<DateTime<Utc>>,
    /// Whether there is unsaved work; `None` when the provider cannot tell.
    #[serde(default)]
    pub unsaved: Option<bool>,
    /// What the user answered to the current warning.
    #[serde(default)]
    pub answer: Option<Answer>,
}

impl Session {
    /// Who it is, for people: `anna`, or `bert (says anna)`.
    pub fn who(&self) -> String {
        match &self.said {
            None => self.user.clone(),
            Some(said) => format!("{} (says {said})", self.user),
        }
    }
}

/// Who is logged in, or why that cannot be known. Unknown never counts as empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Census {
    /// Everybody who is logged in.
    Known(Vec<Session>),
    /// It could not be found out, and why.
    Unknown(String),
}

impl Census {
    /// True only when it is known that nobody is logged in.
    pub fn is_known_empty(&self) -> bool {
        matches!(self, Self::Known(sessions) if sessions.is_empty())
    }

    /// Both together: known only when both are.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(mut all), Self::Known(more)) => {
                all.extend(more);
                Self::Known(all)
            }
            (Self::Unknown(reason), _) | (_, Self::Unknown(reason)) => Self::Unknown(reason),
        }
    }
}

/// What users are told before an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The title of the application.
    pub title: String,
    /// Why; one sentence for users.
    pub reason: String,
    /// When sessions that are still open are closed.
    pub ends_at: DateTime<Utc>,
    /// Until when the application is expected to be away, where that is known.
    #[serde(default)]
    pub back_at: Option<DateTime<Utc>>,
}
