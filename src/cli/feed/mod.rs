//! `afterhours feed`: signed releases, on the vendor's side and on the site's. No daemon is needed.

mod bundle;
mod create;
mod download;
mod pack;
mod passphrase;
mod publish;
mod refresh;
mod rotate;
mod show;
mod sign;
mod trust;
mod tuf_client;
mod withdraw;

use std::fmt::Display;

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
use crate::feed::vendor::VendorError;
use crate::feed::vendor::VendorFailure;
use crate::jobs::kit::state_dir;
use crate::renewal::Renewal;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// Publish and fetch signed releases.
///
/// A signed feed is a folder of plain files for any web server. It follows The Update Framework 1.0: whoever owns the server, the
/// network or one key cannot make a site install anything, go back to an old version, or stay on one unnoticed.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
A release in a directory, where nothing is signed:
  afterhours feed pack --dir /srv/releases/orders --version 2.4.1 --build 24 --tree build/orders

A vendor's first release:
  afterhours feed create /srv/feeds/orders --keys /media/stick
  afterhours feed publish /srv/feeds/orders --version 2.4.1 --build 24 --tree build/orders --notes NEWS.md
  rsync the folder /srv/feeds/orders/published to the web server
  afterhours feed sign /srv/feeds/orders     every day, by a timer; then rsync again

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
    Create(create::CreateArgs),
    Pack(pack::PackArgs),
    Publish(publish::PublishArgs),
    Withdraw(withdraw::WithdrawArgs),
    Sign(sign::SignArgs),
    Rotate(rotate::RotateArgs),
    Show(show::ShowArgs),
    Trust(trust::TrustArgs),
    Refresh(refresh::RefreshArgs),
    Download(download::DownloadArgs),
    Bundle(bundle::BundleArgs),
    TufClient(Box<tuf_client::TufClientArgs>),
}

/// Does what the arguments say.
pub(crate) async fn run(args: FeedArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    match args.command {
        FeedCommand::Create(args) => create::run(args, context).await,
        FeedCommand::Pack(args) => pack::run(args, context).await,
        FeedCommand::Publish(args) => publish::run(args, context).await,
        FeedCommand::Withdraw(args) => withdraw::run(args, context).await,
        FeedCommand::Sign(args) => sign::run(args, context).await,
        FeedCommand::Rotate(args) => rotate::run(args, context).await,
        FeedCommand::Show(args) => show::run(args, context).await,
        FeedCommand::Trust(args) => trust::run(args, context).await,
        FeedCommand::Refresh(args) => refresh::run(args, context).await,
        FeedCommand::Download(args) => download::run(args, context).await,
        FeedCommand::Bundle(args) => bundle::run(args, context).await,
        FeedCommand::TufClient(args) => tuf_client::run(*args, context).await,
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
    let renewal = Renewal::new(&settings.daemon, context.origin()?);
    let updater_root =
        if renewal.is_on() { Some(renewal.root().map_err(|error| CliError::renewal(&error))?) } else { None };
    Ok(SignedFeed::new(
        feed,
        FeedHome {
            deltas: found.updates.deltas,
            updater_root,
            ..FeedHome::new(&state_dir, &found.staging_dir, std::sync::Arc::new(SystemClock))
        },
    ))
}

impl From<FeedError> for CliError {
    fn from(error: FeedError) -> Self {
        let kind = match &error {
            FeedError::Transport(source) => source.kind(),
            FeedError::Trust(TrustError::Fetch { source } | TrustError::Away { source, .. }) => source.kind(),
            FeedError::Trust(refused) if refused.is_refusal() => ErrorKind::Refused,
            FeedError::NotVouchedFor { .. }
            | FeedError::ForeignBuild { .. }
            | FeedError::Disagreement { .. }
            | FeedError::NoHash { .. } => ErrorKind::Refused,
            _ => ErrorKind::Failed,
        };
        let (hint, code) = (error.hint(), error.code());
        Self::from(ErrorView { hint, code, ..ErrorView::from_failure(kind, Failure::from_error(&error)) })
    }
}

/// Runs what reads, packs and signs files where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VendorError> + Send + 'static,
) -> Result<T, CliError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(CliError::from),
        Err(error) => Err(CliError::failed("finish the work on the feed", &error)),
    }
}

impl From<VendorError> for CliError {
    fn from(error: VendorError) -> Self {
        let kind = match error.failure() {
            VendorFailure::Usage => ErrorKind::Usage,
            VendorFailure::NotFound => ErrorKind::NotFound,
            VendorFailure::Refused => ErrorKind::Refused,
            VendorFailure::NotPermitted => ErrorKind::NotPermitted,
            VendorFailure::Failed => ErrorKind::Failed,
        };
        let hint = error.hint();
        Self::from(ErrorView { hint, ..ErrorView::from_failure(kind, Failure::from_error(&error)) })
    }
}

/// Lines of a list that is empty now and then.
fn or_none(lines: impl IntoIterator<Item = impl Display>) -> String {
    let lines: Vec<String> = lines.into_iter().map(|line| line.to_string()).collect();
    if lines.is_empty() { "none".to_owned() } else { lines.join(", ") }
}
