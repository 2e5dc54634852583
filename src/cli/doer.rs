//! Who does what a command asks: the daemon where one listens, this process where none does.
//!
//! A daemon always comes first, because it keeps the history and the gate, and knows who is connected to it.
//! *Invariant:* whoever listens at the socket counts as a daemon, also one that does not answer or sends us
//! away: we never work beside it.

use std::io;

use tokio::net::UnixStream;

use crate::cli::context::Context;
use crate::cli::context::apps_of;
use crate::cli::exit::CliError;
use crate::client::api::Client;
use crate::config::settings::Settings;
use crate::daemon::alone;
use crate::domain::name::AppName;
use crate::domain::release::Version;
use crate::wire::app::AllowRelease;
use crate::wire::app::AllowedView;
use crate::wire::app::DoctorView;
use crate::wire::app::UpdatesView;

/// Who does the work.
pub(crate) enum Doer {
    /// The daemon.
    Daemon(Client),
    /// Nobody listens: we do.
    Ourselves(Box<Settings>),
}

impl Doer {
    /// The daemon where one listens.
    pub(crate) async fn find(context: &Context<'_>) -> Result<Self, CliError> {
        match UnixStream::connect(context.socket()?).await {
            Err(error) if is_nobody(&error) => Ok(Self::Ourselves(Box::new(context.settings()?))),
            // What else is wrong with the socket, the first request says better.
            _ => Ok(Self::Daemon(context.client()?)),
        }
    }

    /// All applications.
    pub(crate) async fn apps(&self) -> Result<Vec<AppName>, CliError> {
        match self {
            Self::Daemon(client) => apps_of(client).await,
            Self::Ourselves(settings) => Ok(settings.apps.keys().cloned().collect()),
        }
    }

    /// Everything a run will need, checked.
    pub(crate) async fn doctor(&self, app: &AppName) -> Result<DoctorView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.doctor(app).await?),
            Self::Ourselves(settings) => Ok(alone::doctor((**settings).clone(), app).await?),
        }
    }

    /// Newer releases.
    pub(crate) async fn updates(&self, app: &AppName) -> Result<UpdatesView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.check_updates(app).await?),
            Self::Ourselves(settings) => Ok(alone::check_updates((**settings).clone(), app).await?),
        }
    }

    /// Lets a release that failed here be tried again.
    pub(crate) async fn allow_release(&self, app: &AppName, version: Version) -> Result<AllowedView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.allow_release(app, &AllowRelease { version }).await?),
            Self::Ourselves(settings) => Ok(alone::allow_release((**settings).clone(), app, version).await?),
        }
    }
}

/// No daemon runs, as opposed to one that cannot be reached.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
