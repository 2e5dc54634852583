//! Who is logged in to an application, and how they are told, asked and logged out.
//!
//! [`Sessions`] is one application's view of its providers: the [`hub::Hub`] of workstations that
//! are connected to this daemon, and commands of the administrator's own. What one provider says
//! is combined with the others: the census is known only when all of them know.
//!
//! - `hub.rs`: the lock, the outside; `seating.rs`: admission and registration;
//!   `desk.rs`: one application's workstations; `station.rs`: one of them; `standing.rs`: what a lost link means (pure).
//! - `quota.rs`: how many and how often (pure); `notes.rs`: what is to be remembered, bounded, users in turn.
//! - `named.rs`: whose session it is; `cut.rs`: the end of all patience.
//! - `commands.rs`: commands that list, message and end.
//!
//! Invariant: whatever goes wrong while people are counted is [`Census::Unknown`], never empty.
//! Deliberately absent: any policy about when to warn or to end; the run decides that.

pub mod cut;
pub mod hub;
pub mod named;
pub mod notes;
pub mod quota;
pub mod standing;
pub mod station;

mod commands;
mod desk;
mod seating;

use std::sync::Arc;
use std::sync::Mutex;

use thiserror::Error;

use crate::config::settings::AppSettings;
use crate::config::settings::SessionsSettings;
use crate::domain::finding::Finding;
use crate::domain::name::AppName;
use crate::domain::release::Version;
use crate::domain::session::Census;
use crate::domain::session::Notice;
use crate::domain::session::Session;
use crate::domain::session::SessionId;
use crate::domain::span::Span;
use crate::exec::ExecError;
use crate::sessions::commands::Commands;
use crate::sessions::cut::Dropped;
use crate::sessions::cut::Which;
use crate::sessions::hub::Hub;
use crate::sessions::hub::HubError;

/// Users could not be told or logged out.
#[derive(Debug, Error)]
pub enum SessionsError {
    /// The hub of workstations.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A command of the administrator's own failed.
    #[error("{verb} sessions with the command {program}")]
    Command {
        /// What it was to do.
        verb: &'static str,
        /// The command.
        program: String,
        /// Why.
        #[source]
        source: Box<ExecError>,
    },
    /// No provider can show anything to this session.
    #[error("message session {session}: no workstation has it, and no sessions provider has a \"message\" command")]
    CannotTell {
        /// Which.
        session: SessionId,
    },
    /// No provider of this session can end it.
    #[error("end session {session}: none of the sessions providers has an \"end\" command")]
    CannotEnd {
        /// Which.
        session: SessionId,
    },
    /// Several providers failed.
    #[error("reach all sessions: {} providers failed: {}", .failures.len() + 1, .failures.iter().map(|f| format!("failed to {f}")).collect::<Vec<_>>().join("; "))]
    Several {
        /// The first one.
        #[source]
        first: Box<SessionsError>,
        /// The others.
        failures: Vec<SessionsError>,
    },
}

impl SessionsError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Hub(HubError::Unreachable { session }) => Some(format!(
                "if the program at that workstation is closed, end session {session} by force in a few seconds"
            )),
            Self::Hub(_) => None,
            Self::Command { program, .. } => Some(format!(
                "run {program} by hand as the user whom `afterhours doctor` names for it, and look at what it prints"
            )),
            Self::CannotTell { .. } => {
                Some("look at the list of sessions, or add message = [...] beside list = [...]".to_owned())
            }
            Self::CannotEnd { .. } => Some("add end = [...] beside list = [...] in the configuration".to_owned()),
            Self::Several { first, .. } => first.hint(),
        }
    }

    /// One error of many, or none.
    fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => {
                let first = Box::new(errors.remove(0));
                Err(Self::Several { first, failures: errors })
            }
        }
    }
}

/// How an update ended, for users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Whether the new version runs.
    pub success: bool,
    /// The version that runs now.
    pub version: Option<Version>,
    /// One sentence for users.
    pub message: String,
}

/// What users were told of an update.
#[derive(Debug)]
enum Said {
    /// That it comes.
    Warning(Notice),
    /// How it ended.
    End(Finished),
}

/// Everybody who can be logged in to one application.
#[derive(Debug)]
pub struct Sessions {
    app: AppName,
    polite_end: Span,
    providers: Vec<Provider>,
    /// What commands have shown last of an update; they are not told the same twice.
    said: Mutex<Option<Said>>,
}

/// One who knows about sessions.
#[derive(Debug)]
enum Provider {
    /// The workstations connected to this daemon.
    Workstations(Arc<Hub>),
    /// Commands of the administrator's own.
    Commands(Box<Commands>),
}

impl Sessions {
    /// The providers of an application, as configured.
    pub fn new(app: &AppSettings, hub: Arc<Hub>) -> Self {
        let provider = |settings: &SessionsSettings| match settings {
            SessionsSettings::Workstations => Provider::Workstations(Arc::clone(&hub)),
            SessionsSettings::Commands { list, message, end, deadline, ignore_users } => {
                let commands = Commands::new(&app.name, list, message.as_ref(), end.as_ref(), *deadline);
                Provider::Commands(Box::new(commands.ignoring(ignore_users)))
            }
        };
        Self {
            app: app.name.clone(),
            polite_end: app.polite_end,
            providers: app.sessions.iter().map(provider).collect(),
            said: Mutex::new(None),
        }
    }

    /// Who is logged in. Known and empty where no provider is configured.
    pub async fn census(&self) -> Census {
        self.count(false).await
    }

    /// The same while the application is verified down: a command that asks it and fails says that nobody is there.
    pub async fn census_of_what_is_down(&self) -> Census {
        self.count(true).await
    }

    async fn count(&self, is_down: bool) -> Census {
        let counts = self.providers.iter().map(|provider| async {
            match provider {
                Provider::Workstations(hub) => {
                    let (hub, app) = (Arc::clone(hub), self.app.clone());
                    tokio::task::spawn_blocking(move || hub.census(&app))
                        .await
                        .unwrap_or_else(|_| Census::Unknown("the workstations could not be counted".to_owned()))
                }
                Provider::Commands(commands) => match commands.census().await {
                    Census::Unknown(_) if is_down => Census::Known(Vec::new()),
                    census => census,
                },
            }
        });
        let counts = futures_util::future::join_all(counts).await;
        counts.into_iter().fold(Census::Known(Vec::new()), Census::and)
    }

    /// The sessions that are no people's, as far as they can be listed: see `ignore_users`.
    pub async fn ignored(&self) -> Vec<Session> {
        let mut ignored = Vec::new();
        for provider in &self.providers {
            if let Provider::Commands(commands) = provider {
                ignored.extend(commands.ignored().await);
            }
        }
        ignored
    }

    /// Warns everybody. The same notice again reaches only those who have not heard it.
    ///
    /// # Errors
    /// A provider could not pass it on; the others were told.
    pub async fn announce(&self, notice: &Notice) -> Result<(), SessionsError> {
        let heard = matches!(&*self.lock_said(), Some(Said::Warning(before)) if before == notice);
        let mut errors = Vec::new();
        for provider in &self.providers {
            match provider {
                Provider::Workstations(hub) => hub.announce(&self.app, notice),
                Provider::Commands(_) if heard => {}
                Provider::Commands(commands) => errors.extend(commands.message(&warning(notice), None).await.err()),
            }
        }
        if errors.is_empty() {
            *self.lock_said() = Some(Said::Warning(notice.clone()));
        }
        SessionsError::all(errors)
    }

    /// Reminds everybody that `left` is left.
    ///
    /// # Errors
    /// A provider could not pass it on; the others were told.
    pub async fn remind(&self, notice: &Notice, left: Span) -> Result<(), SessionsError> {
        let mut errors = Vec::new();
        for provider in &self.providers {
            match provider {
                Provider::Workstations(hub) => hub.remind(&self.app, notice, left),
                Provider::Commands(commands) => {
                    let text = format!(
                        "{}: {} Sessions that are still open in {left} are closed.",
                        notice.title, notice.reason
                    );
                    errors.extend(commands.message(&text, None).await.err());
                }
            }
        }
        SessionsError::all(errors)
    }

    /// Whether there is a way to tell a session something.
    pub fn can_tell(&self, session: &SessionId) -> bool {
        let by_command =
            |provider: &Provider| matches!(provider, Provider::Commands(commands) if commands.can_message());
        self.hub_of(session).is_some() || self.providers.iter().any(by_command)
    }

    /// A word to one session, or to all.
    ///
    /// # Errors
    /// A provider could not pass it on; the others were told.
    pub async fn message(&self, text: &str, session: Option<&SessionId>) -> Result<(), SessionsError> {
        let workstation = session.is_some_and(|session| self.hub_of(session).is_some());
        if let Some(session) = session
            && !self.can_tell(session)
        {
            return Err(SessionsError::CannotTell { session: session.clone() });
        }
        let mut errors = Vec::new();
        for provider in &self.providers {
            match provider {
                Provider::Workstations(hub) if session.is_none() || workstation => {
                    errors.extend(hub.message(&self.app, text, session).err().map(SessionsError::from));
                }
                Provider::Commands(commands) if !workstation => {
                    errors.extend(commands.message(text, session).await.err());
                }
                Provider::Workstations(_) | Provider::Commands(_) => {}
            }
        }
        SessionsError::all(errors)
    }

    /// Ends a session, politely or by force; it is gone only when the census says so. Ending one that is gone
    /// already is no error.
    ///
    /// # Errors
    /// It could not be asked to end, or nobody can end it.
    pub async fn end(&self, session: &SessionId, force: bool) -> Result<(), SessionsError> {
        if let Some(hub) = self.hub_of(session) {
            return Ok(hub.end(&self.app, session, force, self.polite_end)?);
        }
        let enders: Vec<_> = self.providers.iter().filter_map(Provider::ender).collect();
        let lists = self.providers.iter().any(|provider| matches!(provider, Provider::Commands(_)));
        if lists && enders.is_empty() {
            return Err(SessionsError::CannotEnd { session: session.clone() });
        }
        let mut errors = Vec::new();
        for commands in enders {
            errors.extend(commands.end(session, force).await.err());
        }
        SessionsError::all(errors)
    }

    /// Everybody is to be logged out: see [`Hub::seal`].
    pub fn seal(&self) {
        self.hubs().for_each(|hub| hub.seal(&self.app));
    }

    /// Whether it becomes known by itself, soon, who is at the workstations.
    pub fn is_settling(&self) -> bool {
        self.hubs().any(|hub| hub.is_settling(&self.app))
    }

    /// Kills what is still there long after force was used, and drops what is not: see [`Hub::cut_off`]. Answers with
    /// those who were dropped.
    pub async fn cut_off(&self, which: Which) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        for hub in self.hubs() {
            let (hub, app) = (Arc::clone(hub), self.app.clone());
            let cut = tokio::task::spawn_blocking(move || hub.cut_off(&app, which)).await;
            dropped.extend(cut.unwrap_or_default());
        }
        dropped
    }

    fn hubs(&self) -> impl Iterator<Item = &Arc<Hub>> {
        self.providers.iter().filter_map(|provider| match provider {
            Provider::Workstations(hub) => Some(hub),
            Provider::Commands(_) => None,
        })
    }

    /// Tells everybody that the update is over: a restart where it was asked for, "ready" elsewhere. Who was told the same
    /// before is not told again.
    ///
    /// # Errors
    /// A provider could not pass it on; the others were told.
    pub async fn finish(&self, news: &Finished) -> Result<(), SessionsError> {
        let heard = matches!(&*self.lock_said(), Some(Said::End(before)) if before == news);
        let mut errors = Vec::new();
        for provider in &self.providers {
            match provider {
                Provider::Workstations(hub) => hub.finish(&self.app, news),
                Provider::Commands(_) if heard => {}
                Provider::Commands(commands) => errors.extend(commands.message(&news.message, None).await.err()),
            }
        }
        *self.lock_said() = errors.is_empty().then(|| Said::End(news.clone()));
        SessionsError::all(errors)
    }

    /// The sessions that were noted before the daemon started and of which nothing more can be read.
    pub fn in_doubt(&self) -> Vec<SessionId> {
        self.hubs().flat_map(|hub| hub.in_doubt(&self.app)).collect()
    }

    /// Whether everybody can be counted, told and logged out.
    pub async fn check(&self, is_down: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.providers.is_empty() {
            findings.push(Finding::warning(
                "sessions",
                "nobody is asked who is logged in",
                "add sessions = [{ workstations = true }] or a list command, unless the application has no users",
            ));
        }
        findings.extend(self.in_doubt().into_iter().map(|session| {
            Finding::fatal(
                "sessions_unread",
                format!("what is noted of session {session} cannot be read, so it is not known who is logged in"),
                format!("look whether somebody works there, then `afterhours session end {} {session}`", self.app),
            )
        }));
        for provider in &self.providers {
            match provider {
                Provider::Workstations(hub) => {
                    let sessions = hub.status(&self.app, None).sessions;
                    findings
                        .push(Finding::good("sessions_workstations", format!("{sessions} workstations are connected")));
                }
                Provider::Commands(commands) => findings.extend(commands.check(is_down).await),
            }
        }
        findings
    }

    /// The hub, when the session is one of its own.
    fn hub_of(&self, session: &SessionId) -> Option<&Arc<Hub>> {
        self.providers.iter().find_map(|provider| match provider {
            Provider::Workstations(hub) if hub.knows(&self.app, session) => Some(hub),
            Provider::Workstations(_) | Provider::Commands(_) => None,
        })
    }

    fn lock_said(&self) -> std::sync::MutexGuard<'_, Option<Said>> {
        self.said.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Provider {
    fn ender(&self) -> Option<&Commands> {
        match self {
            Self::Commands(commands) if commands.can_end() => Some(commands),
            Self::Commands(_) | Self::Workstations(_) => None,
        }
    }
}

/// A warning as one line, for those who only take text.
fn warning(notice: &Notice) -> String {
    let at = notice.ends_at.with_timezone(&chrono::Local).format("%H:%M");
    format!(
        "{}: {} Please save your work; sessions that are still open at {at} are closed.",
        notice.title, notice.reason
    )
}
