//! `afterhours feed download`: the archives of one release, ahead of time.

use clap::Args;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::signed;
use crate::cli::out::Ui;
use crate::domain::name::AppName;
use crate::domain::progress::Progress;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// Fetch a release ahead of time, verified, and install nothing.
///
/// The archives wait beside the installation; a run takes them from there. An interrupted download goes on where it
/// stopped.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sudo afterhours feed download orders 2.4.1")]
pub(crate) struct DownloadArgs {
    /// The application
    app: AppName,
    /// The version
    version: Version,
}

/// What was fetched.
#[derive(Debug, Serialize)]
struct Downloaded {
    app: AppName,
    #[serde(flatten)]
    release: ReleaseId,
    size_bytes: u64,
}

/// Does what the arguments say.
pub(crate) async fn run(args: DownloadArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let DownloadArgs { app, version } = args;
    let feed = signed(&app, context)?;
    // Of several builds of one version, the newest.
    let release = feed
        .releases()
        .await?
        .into_iter()
        .rfind(|release| release.id.version == version && release.unreadable.is_none());
    let Some(release) = release else {
        let error = ErrorView::new(ErrorKind::NotFound, format!("the feed of {app} has no version {version}"));
        return Err(error.hint(format!("see `afterhours feed refresh {app}`")).into());
    };
    let bar = Bar::new(context.ui, release.size_bytes());
    if bar.0.is_none() {
        context.ui.say(format_args!("Fetching {}.", release.id));
    }
    feed.download(&release, std::sync::Arc::new(bar)).await?;
    let size_bytes = release.size_bytes();
    let downloaded = Downloaded { app, release: release.id, size_bytes };
    context.ui.done(&downloaded, format_args!("{} is here, {size_bytes} bytes.", downloaded.release))?;
    Ok(Ending::Good)
}

/// A bar on a terminal; nothing elsewhere.
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(crate) fn new(ui: &Ui, size_bytes: u64) -> Self {
        let bar = ui.can_draw().then(|| ProgressBar::new(size_bytes));
        if let Some(bar) = &bar {
            let style = ProgressStyle::with_template("{bar:24} {percent:>3} %  {bytes} of {total_bytes}  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn advance(&self, done: u64, total: Option<u64>, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_length(total.unwrap_or(done));
            bar.set_position(done);
            bar.set_message(what.to_owned());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
