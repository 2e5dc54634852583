//! Why a use case says no.

use std::path::PathBuf;

use thiserror::Error;

use crate::config::places::Unfit;
use crate::db::store::StoreError;
use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::ReleaseId;
use crate::domain::run::RunId;
use crate::domain::span::Span;
use crate::jobs::engine::EngineError;
use crate::jobs::gatekeeper::GatekeeperError;
use crate::jobs::machine::IllegalEvent;
use crate::scheduler::calendar::CalendarError;
use crate::sessions::SessionsError;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// A request that is not carried out; nothing has changed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The caller's role does not allow it.
    #[error("{who} may not do this")]
    NotPermitted {
        /// Who.
        who: String,
    },
    /// There is no such application.
    #[error("there is no application {app}")]
    NoApp {
        /// Which.
        app: AppName,
        /// Those there are.
        known: Vec<String>,
    },
    /// What is written of the application cannot be used.
    #[error("nothing is done with {app}: {}", .unfit.why)]
    Unfit {
        /// Which.
        app: AppName,
        /// Why.
        unfit: Unfit,
    },
    /// There is no such user on this machine.
    #[error("this machine knows no user {user}")]
    NoUser {
        /// Who.
        user: String,
    },
    /// There is no such session.
    #[error("{app} has no session {session}")]
    NoSession {
        /// The application.
        app: AppName,
        /// The session.
        session: String,
    },
    /// A calendar expression cannot be used.
    #[error(transparent)]
    Calendar(Box<CalendarError>),
    /// What is told of an old entry names none.
    #[error("entry \"{number}\" with the hash \"{head}\" cannot be looked for")]
    BadAnchor {
        /// The number as written.
        number: String,
        /// The hash as written.
        head: String,
    },
    /// A local time cannot be read.
    #[error("\"{text}\" is no date and time")]
    BadTime {
        /// As written.
        text: String,
    },
    /// A zone is not known.
    #[error("there is no time zone \"{zone}\"")]
    BadZone {
        /// As written.
        zone: String,
        /// Something close, if there is.
        near: Option<String>,
    },
    /// The start lies in the past.
    #[error("{at} is past")]
    Past {
        /// The instant.
        at: String,
    },
    /// Users would be given longer than the run may take.
    #[error("a grace of {grace} does not fit into a maximum runtime of {max_runtime}")]
    GraceTooLong {
        /// The grace.
        grace: Span,
        /// The limit.
        max_runtime: Span,
    },
    /// Jobs would start each other for ever.
    #[error("these jobs would start each other for ever: {}", .0.join(" → "))]
    Cycle(Vec<String>),
    /// Another job needs this one.
    #[error("{job} cannot be removed: {} needs it", .needed_by.join(", "))]
    Needed {
        /// The job.
        job: JobName,
        /// Who needs it.
        needed_by: Vec<String>,
    },
    /// A disabled job is not started, also not by hand.
    #[error("job {job} is disabled")]
    Disabled {
        /// The job.
        job: JobName,
    },
    /// The job has a run that is not over.
    #[error("run {run} of {object} is under way")]
    UnderWay {
        /// The job or application.
        object: String,
        /// The run.
        run: RunId,
    },
    /// What a person says of a stuck run is not what is there.
    #[error("run {run} cannot be resolved so: {} is in {}", in_place(.marked.as_ref()), .install_dir.display())]
    NotInPlace {
        /// The run.
        run: RunId,
        /// What is in place; absent for the tree of before, which bears no mark of ours.
        marked: Option<ReleaseId>,
        /// Where.
        install_dir: PathBuf,
    },
    /// A mail address cannot be used.
    #[error("\"{0}\" is no mail address")]
    BadMail(String),
    /// No mail server is described.
    #[error("mail is not configured")]
    NoMail,
    /// A server that we need cannot be reached.
    #[error("{0}")]
    NoServer(Failure),
    /// An application has no backup settings.
    #[error("{app} has no backup described in the configuration")]
    NoBackup {
        /// The application.
        app: AppName,
    },
    /// What was asked cannot follow where the run stands.
    #[error("run {run} cannot be {verb}: it is {}", .source.state)]
    RunState {
        /// The run.
        run: RunId,
        /// What was asked.
        verb: &'static str,
        /// Why.
        source: IllegalEvent,
    },
    /// The store said no or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A run could not be reached.
    #[error(transparent)]
    Engine(Box<EngineError>),
    /// A gate could not be moved.
    #[error(transparent)]
    Gate(Box<GatekeeperError>),
    /// Sessions could not be reached.
    #[error(transparent)]
    Sessions(Box<SessionsError>),
    /// There is no way to the version that is ordered, or it is not open to this site.
    #[error("{0}")]
    NoWay(Failure),
    /// Something below failed and says so itself.
    #[error("{0}")]
    Failed(Failure),
}

/// The larger errors are boxed, so that a result stays small.
macro_rules! boxed {
    ($($variant:ident($error:ty))+) => {
        $(impl From<$error> for ControlError {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })+
    };
}

boxed! {
    Calendar(CalendarError)
    Engine(EngineError)
    Gate(GatekeeperError)
    Sessions(SessionsError)
}

fn in_place(marked: Option<&ReleaseId>) -> String {
    marked.map_or_else(|| "the version of before".to_owned(), ToString::to_string)
}

impl ControlError {
    /// What kind of no it is; the command line makes its exit code of it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotPermitted { .. } => ErrorKind::NotPermitted,
            Self::NoApp { .. }
            | Self::NoUser { .. }
            | Self::NoSession { .. }
            | Self::Store(StoreError::NoJob(_) | StoreError::NoRun(_)) => ErrorKind::NotFound,
            Self::Engine(error) => match **error {
                EngineError::Store { source: StoreError::NoRun(_), .. } => ErrorKind::NotFound,
                EngineError::Illegal { .. } => ErrorKind::Refused,
                _ => ErrorKind::Failed,
            },
            Self::Calendar(_)
            | Self::BadAnchor { .. }
            | Self::BadTime { .. }
            | Self::BadZone { .. }
            | Self::Past { .. }
            | Self::GraceTooLong { .. }
            | Self::BadMail(_)
            | Self::NoMail
            | Self::Cycle(_) => ErrorKind::Usage,
            Self::Needed { .. }
            | Self::Disabled { .. }
            | Self::UnderWay { .. }
            | Self::NoBackup { .. }
            | Self::NotInPlace { .. }
            | Self::NoWay(_)
            | Self::Unfit { .. }
            | Self::RunState { .. }
            | Self::Store(StoreError::NameTaken(_) | StoreError::AnotherRun { .. }) => ErrorKind::Refused,
            Self::Store(StoreError::Absent { .. } | StoreError::TooOld { .. } | StoreError::TooNew { .. }) => {
                ErrorKind::Unavailable
            }
            Self::NoServer(_) => ErrorKind::Unavailable,
            Self::Store(StoreError::Forbidden { .. }) => ErrorKind::NotPermitted,
            Self::Failed(failure) => failure.code.map_or(ErrorKind::Failed, ErrorKind::from),
            Self::Store(_) | Self::Gate(_) | Self::Sessions(_) => ErrorKind::Failed,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotPermitted { .. } => "ask root, or become a member of the operators' group".to_owned(),
            Self::NoApp { known, .. } if known.is_empty() => "describe one in the configuration: [app.NAME]".to_owned(),
            Self::NoApp { known, .. } => format!(
                "the configuration knows {}; a daemon takes a changed one up by `systemctl reload afterhours`",
                known.join(", ")
            ),
            Self::Unfit { unfit, .. } => return unfit.hint.clone(),
            Self::NoUser { user } => format!(
                "see `getent passwd {user}`; a pass is for a user of this machine, or, without --user, for whoever comes first"
            ),
            Self::NoSession { app, .. } => format!("see `afterhours session list {app}`"),
            Self::Calendar(error) => return error.hint(),
            Self::BadAnchor { .. } => {
                "give the number and the hash of one entry, as a mail says them: at least 16 digits of the hash"
                    .to_owned()
            }
            Self::BadTime { .. } => "write it as \"2026-11-22 02:30\", 02:30, \"tomorrow 02:30\" or 2h".to_owned(),
            Self::BadZone { near: Some(near), .. } => format!("did you mean {near}?"),
            Self::BadZone { .. } => "write it as Europe/Berlin or UTC".to_owned(),
            Self::Past { .. } => "choose a time to come, or --start immediate".to_owned(),
            Self::GraceTooLong { .. } => "shorten --grace or raise --max-runtime".to_owned(),
            Self::Cycle(_) => "break the circle in --after or --on-failure".to_owned(),
            Self::Needed { needed_by, .. } => {
                format!("edit or delete {} first", needed_by.first().cloned().unwrap_or_default())
            }
            Self::Disabled { job } => format!("afterhours job enable {job}"),
            Self::UnderWay { run, .. } => format!("watch it with `afterhours run watch {run}`, or cancel it first"),
            Self::NotInPlace { run, install_dir, .. } => format!(
                "let the run put everything back with `afterhours run retry {run}`; or put the version you mean at {} with its \
                 own data first, or say the other one",
                install_dir.display()
            ),
            Self::NoBackup { app } => {
                format!("describe where its backups are: [app.{app}] backup = {{ evidence = … }}")
            }
            Self::RunState { run, .. } => format!("see `afterhours run show {run}`"),
            Self::Store(StoreError::NameTaken(name)) => {
                format!("choose another name, or change it with `afterhours job edit {name}`")
            }
            Self::Store(StoreError::NoJob(_)) => "see `afterhours job list`".to_owned(),
            Self::Store(StoreError::NoRun(_)) => "see `afterhours run list`".to_owned(),
            Self::Store(StoreError::Absent { .. }) => {
                "start the daemon with `afterhours serve`, or `systemctl start afterhours`; \
                 `afterhours update now` needs none"
                    .to_owned()
            }
            Self::Store(StoreError::Forbidden { .. }) => {
                "use sudo, or start the daemon, which answers operators".to_owned()
            }
            Self::Store(StoreError::TooOld { .. }) => {
                "start the daemon once, or `afterhours update check`; they bring the store up to date".to_owned()
            }
            Self::Store(StoreError::TooNew { .. }) => "a newer Afterhours has worked here; use that one".to_owned(),
            Self::Store(StoreError::Open { path, .. }) => format!(
                "see whether {} is whole and its folder can be written; put it back from a backup if it is damaged",
                path.display()
            ),
            Self::Engine(error) => match **error {
                EngineError::Busy { run } => {
                    format!("it may have been heard all the same: `afterhours run show {run}`")
                }
                _ => return None,
            },
            Self::Gate(error) => return error.hint(),
            Self::Sessions(error) => return error.hint(),
            Self::NoMail => {
                "describe the server: [daemon] mail = { smtp = \"smtp://HOST:587\", from = \"ADDRESS\" }".to_owned()
            }
            Self::NoWay(failure) | Self::NoServer(failure) | Self::Failed(failure) => return failure.hint.clone(),
            _ => return None,
        })
    }

    /// As it travels.
    pub fn view(&self) -> ErrorView {
        let failure = match self {
            Self::NoWay(failure) | Self::NoServer(failure) | Self::Failed(failure) => failure.clone(),
            error => Failure::from_error(error),
        };
        // What comes from below is a fragment; what we say ourselves reads alone.
        let below = matches!(self, Self::Calendar(_) | Self::NoWay(_) | Self::NoServer(_) | Self::Failed(_));
        let fragment = self.kind() == ErrorKind::Failed || below;
        let message = if fragment { format!("failed to {}", failure.message) } else { failure.message };
        ErrorView { kind: self.kind(), message, because: failure.because, hint: self.hint(), code: failure.code }
    }
}
