//! Sessions of an application that does not run at our workstations, by commands of the administrator's own.
//!
//! `list` prints a JSON array: `[{"id": 7, "user": "anna", "workstation": "pc-3", "since": "…",
//! "last_activity": "…", "unsaved": false}]`; `id` is a text or a whole number, only `id` and `user` are needed.
//! `message` sees `AFTERHOURS_MESSAGE` and `AFTERHOURS_SESSION` (empty for all), `end` sees
//! `AFTERHOURS_SESSION` and `AFTERHOURS_FORCE` (0 or 1); all see `AFTERHOURS_APP`.

use std::error::Error;

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;

use crate::domain::command::Command;
use crate::domain::finding::Finding;
use crate::domain::foreign;
use crate::domain::name::AppName;
use crate::domain::session::Census;
use crate::domain::session::Session;
use crate::domain::session::SessionId;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::ExecError;
use crate::exec::OUTPUT_BYTES_MAX;
use crate::sessions::SessionsError;
use crate::sessions::seating::is_workstations;

/// The commands of one provider.
#[derive(Debug)]
pub(super) struct Commands {
    app: AppName,
    list: Command,
    message: Option<Command>,
    end: Option<Command>,
    deadline: Span,
    ignore_users: Vec<String>,
}

/// A session as `list` prints it.
#[derive(Debug, Deserialize)]
struct Listed {
    id: ListedId,
    user: String,
    #[serde(default)]
    workstation: Option<String>,
    #[serde(default)]
    since: Option<DateTime<Utc>>,
    #[serde(default)]
    last_activity: Option<DateTime<Utc>>,
    #[serde(default)]
    unsaved: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ListedId {
    Text(String),
    Number(i64),
}

impl Commands {
    pub(super) fn new(
        app: &AppName,
        list: &Command,
        message: Option<&Command>,
        end: Option<&Command>,
        deadline: Span,
    ) -> Self {
        let (message, end) = (message.cloned(), end.cloned());
        Self { app: app.clone(), list: list.clone(), message, end, deadline, ignore_users: Vec::new() }
    }

    /// The same, but sessions of these users are nobody's.
    pub(super) fn ignoring(self, users: &[String]) -> Self {
        Self { ignore_users: users.to_vec(), ..self }
    }

    fn ignores(&self, session: &Session) -> bool {
        self.ignore_users.contains(&session.user)
    }

    /// The sessions that are no people's; nothing where they cannot be listed.
    pub(super) async fn ignored(&self) -> Vec<Session> {
        match self.listed().await {
            Census::Known(sessions) => sessions.into_iter().filter(|session| self.ignores(session)).collect(),
            Census::Unknown(_) => Vec::new(),
        }
    }

    pub(super) fn can_message(&self) -> bool {
        self.message.is_some()
    }

    pub(super) fn can_end(&self) -> bool {
        self.end.is_some()
    }

    fn exec(&self, argv: &Command) -> Exec {
        Exec::of(argv, self.deadline).env("AFTERHOURS_APP", self.app.as_str())
    }

    /// Who is logged in, as `list` says, without those who are no people.
    pub(super) async fn census(&self) -> Census {
        match self.listed().await {
            Census::Known(sessions) => {
                Census::Known(sessions.into_iter().filter(|session| !self.ignores(session)).collect())
            }
            unknown => unknown,
        }
    }

    async fn listed(&self) -> Census {
        let program = name(&self.list);
        match self.exec(&self.list).run().await {
            Ok(output) if output.stdout.len() >= OUTPUT_BYTES_MAX => {
                Census::Unknown(format!("{program} printed more than {OUTPUT_BYTES_MAX} bytes"))
            }
            Ok(output) => match read(&self.app, &output.stdout) {
                Ok(sessions) => Census::Known(sessions),
                Err(error) => Census::Unknown(format!("{program} did not print a JSON array of sessions: {error}")),
            },
            Err(error) => {
                let because = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                Census::Unknown(format!("failed to list sessions: {error}{because}"))
            }
        }
    }

    /// Shows a text to one session or to all; nothing happens where no command can.
    pub(super) async fn message(&self, text: &str, session: Option<&SessionId>) -> Result<(), SessionsError> {
        let Some(argv) = &self.message else { return Ok(()) };
        let exec = self
            .exec(argv)
            .env("AFTERHOURS_MESSAGE", text)
            .env("AFTERHOURS_SESSION", session.map(|session| session.0.as_str()).unwrap_or_default());
        let failed =
            |source: ExecError| SessionsError::Command { verb: "message", program: name(argv), source: source.into() };
        exec.run().await.map(drop).map_err(failed)
    }

    /// Ends a session.
    pub(super) async fn end(&self, session: &SessionId, force: bool) -> Result<(), SessionsError> {
        let Some(argv) = &self.end else { return Ok(()) };
        let exec = self
            .exec(argv)
            .env("AFTERHOURS_SESSION", session.0.as_str())
            .env("AFTERHOURS_FORCE", if force { "1" } else { "0" });
        let failed =
            |source: ExecError| SessionsError::Command { verb: "end", program: name(argv), source: source.into() };
        exec.run().await.map(drop).map_err(failed)
    }

    /// Whether people can be counted and logged out.
    pub(super) async fn check(&self, is_down: bool) -> Vec<Finding> {
        let counted = match self.census().await {
            Census::Known(sessions) => {
                Finding::good("sessions_list", format!("{} lists {} sessions", name(&self.list), sessions.len()))
            }
            Census::Unknown(reason) if is_down => Finding::warning(
                "sessions_list",
                format!("{reason}; the service is verified down, so nobody is logged in"),
                format!("look at {} again when the application runs", name(&self.list)),
            ),
            Census::Unknown(reason) => Finding::fatal(
                "sessions_list",
                reason,
                format!("run {} by hand: it must end with 0 and print a JSON array", name(&self.list)),
            ),
        };
        let ended = self.end.is_none().then(|| {
            Finding::warning(
                "sessions_end",
                format!("sessions that {} lists cannot be ended", name(&self.list)),
                "add end = [...] beside list = [...]; without it a run waits for these users, and gives up",
            )
        });
        let told = self.message.is_none().then(|| {
            Finding::warning(
                "sessions_message",
                format!("sessions that {} lists are ended without a word", name(&self.list)),
                "add message = [...] beside list = [...], or warn these users in another way",
            )
        });
        std::iter::once(counted).chain(told).chain(ended).collect()
    }
}

fn name(command: &Command) -> String {
    command.program().to_owned()
}

/// Reads what `list` printed. Two sessions of one name are an error: they could not be told apart when ended.
fn read(app: &AppName, text: &str) -> Result<Vec<Session>, String> {
    let listed: Vec<Listed> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut seen = std::collections::BTreeSet::new();
    listed
        .into_iter()
        .map(|listed| {
            let id = match listed.id {
                ListedId::Text(text) => text,
                ListedId::Number(number) => number.to_string(),
            };
            if id.is_empty() {
                return Err("a session has an empty id".to_owned());
            }
            // It is shown, typed and handed to a command: it has to be what it looks like.
            if foreign::name(&id) != id {
                return Err(format!("the id {} is too long, or has characters that are not shown", foreign::name(&id)));
            }
            if is_workstations(&id) {
                return Err(format!("the id {id} is one of a workstation's"));
            }
            if !seen.insert(id.clone()) {
                return Err(format!("session {id} is listed twice"));
            }
            Ok(Session {
                id: SessionId(id),
                app: app.clone(),
                user: foreign::name(&listed.user),
                said: None,
                uid: None,
                pid: None,
                workstation: listed.workstation.as_deref().map(foreign::name),
                since: listed.since,
                last_activity: listed.last_activity,
                unsaved: listed.unsaved,
                answer: None,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_needs_ids_and_users_only() {
        let app: AppName = "orders".parse().unwrap();
        let text = r#"[{"id": 7, "user": "anna"}, {"id": "b", "user": "bo", "unsaved": true, "more": 1}]"#;
        let sessions = read(&app, text).unwrap();
        assert_eq!(sessions[0].id, SessionId("7".into()));
        assert_eq!(sessions[1].unsaved, Some(true));
        assert_eq!(read(&app, "[]").unwrap(), []);
    }

    #[test]
    fn whatever_is_no_list_is_an_error() {
        let app: AppName = "orders".parse().unwrap();
        let bad = [
            "",
            "{}",
            "null",
            "[] []",
            r#"[{"id": ""  , "user": "a"}]"#,
            r#"[{"id":1,"user":"a"},{"id":"1","user":"b"}]"#,
            r#"[{"id":"ws-0123abcd","user":"a"}]"#,
            r#"[{"id":"1\u202e","user":"a"}]"#,
        ];
        for text in bad {
            assert!(read(&app, text).is_err(), "{text}");
        }
    }
}
