//! `afterhours feed`: signed releases, on the vendor's side and on the site's. No daemon is needed.

mod download;
mod refresh;
mod trust;
mod tuf_client;

use clap::Args;
use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::config::settings::FeedSettings;
use crate::domain::clock::SystemClock;
use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::feed::FeedError;
use crate::feed::FeedHome;
use crate::feed::signed::SignedFeed;
use crate::feed::signed::TrustError;
use crate::jobs::kit::state_dir;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// Fetch signed releases.
///
/// A feed is a folder of plain files for any web server. It follows The Update Framework 1.0: whoever owns the server, the
/// network or one key cannot make a site install anything, go back to an old version, or stay on one unnoticed.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
A site's first release:
  afterhours feed trust orders root.json     the vendor's root.json, by a way you trust
  afterhours feed refresh orders             see what is there
  afterhours feed download orders 2.4.1      fetch it ahead"
)]
pub(crate) struct FeedArgs {
    #[command(subcommand)]
    command: FeedCommand,
}

#[derive(Debug, Subcommand)]
enum FeedCommand {
    Trust(trust::TrustArgs),
    Refresh(refresh::RefreshArgs),
    Download(download::DownloadArgs),
    TufClient(tuf_client::TufClientArgs),
}

/// Does what the arguments say.
pub(crate) async fn run(args: FeedArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    match args.command {
        FeedCommand::Trust(args) => trust::run(args, context).await,
        FeedCommand::Refresh(args) => refresh::run(args, context).await,
        FeedCommand::Download(args) => download::run(args, context).await,
        FeedCommand::TufClient(args) => tuf_client::run(args, context).await,
    }
}

/// The signed feed of an application.
fn signed(app: &AppName, context: &Context<'_>) -> Result<SignedFeed, CliError> {
    let settings = context.settings()?;
    let Some(found) = settings.apps.get(app) else {
        let error = ErrorView::new(ErrorKind::NotFound, format!("there is no application {app}"));
        return Err(error.hint("see the configuration for the applications there are").into());
    };
    let FeedSettings::Signed(feed) = &found.feed else {
        return Err(CliError::refused(
            format!("the feed of {app} is a directory, where nothing is signed"),
            "give it a signed one: feed = { url = \"https://…\" }",
        ));
    };
    let state_dir = state_dir(&settings.daemon.data_dir, app);
    Ok(SignedFeed::new(feed, FeedHome::new(&state_dir, &found.staging_dir, std::sync::Arc::new(SystemClock))))
}

impl From<FeedError> for CliError {
    fn from(error: FeedError) -> Self {
        let kind = match &error {
            FeedError::Trust(TrustError::Fetch { source }) | FeedError::Transport(source) => source.kind(),
            FeedError::Trust(refused) if refused.is_refusal() => ErrorKind::Refused,
            FeedError::ForeignBuild { .. } | FeedError::Disagreement { .. } | FeedError::NoHash { .. } => {
                ErrorKind::Refused
            }
            _ => ErrorKind::Failed,
        };
        let hint = error.hint();
        Self::from(ErrorView { hint, ..ErrorView::from_failure(kind, Failure::from_error(&error)) })
    }
}
