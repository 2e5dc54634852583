//! `afterhours feed refresh`: what is there, verified.

use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use clap::Args;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::signed;
use crate::domain::name::AppName;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::feed::signed::Taken;

/// Ask the vendor's server now, verify what it says, and list the releases.
///
/// Without a network, --bundle takes a file that was written where there is one: it is checked in the same way, and its
/// archives wait where a run takes them from.
///
/// Exits with 4 when what it says is refused, with 7 when it cannot be reached. Nothing is installed or downloaded.
#[derive(Debug, Args)]
pub(crate) struct RefreshArgs {
    /// The application
    app: AppName,
    /// Take what `afterhours feed bundle` wrote, instead of asking the server
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// What the feed says.
#[derive(Debug, Serialize)]
struct Refreshed {
    app: AppName,
    good_until: DateTime<Utc>,
    releases: Vec<ReleaseId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    downloaded: Vec<ReleaseId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    updaters: Vec<ReleaseId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    updaters_downloaded: Vec<ReleaseId>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: RefreshArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let feed = signed(&args.app, context)?;
    let taken = match &args.bundle {
        Some(file) => feed.take_bundle(file).await?,
        None => {
            let good_until = feed.refresh().await?;
            let ids = |releases: Vec<Release>| releases.into_iter().map(|release| release.id).collect();
            let (releases, updaters) = (ids(feed.releases().await?), ids(feed.updaters().await?));
            Taken { good_until, releases, here: Vec::new(), updaters, updaters_here: Vec::new() }
        }
    };
    let refreshed = Refreshed {
        app: args.app,
        good_until: taken.good_until,
        releases: taken.releases,
        downloaded: taken.here,
        updaters: taken.updaters,
        updaters_downloaded: taken.updaters_here,
    };
    context.ui.answer(&refreshed, |refreshed| {
        let until = refreshed.good_until.format("%Y-%m-%d %H:%M UTC");
        let mut text = format!("{}: signatures hold until {until}", refreshed.app);
        let here = |downloaded: &[ReleaseId], id| if downloaded.contains(id) { ", downloaded" } else { "" };
        for release in &refreshed.releases {
            text += &format!("\n  {release}{}", here(&refreshed.downloaded, release));
        }
        for updater in &refreshed.updaters {
            text += &format!("\n  Afterhours {updater}{}", here(&refreshed.updaters_downloaded, updater));
        }
        if refreshed.releases.is_empty() {
            text += "\n  no release";
        }
        text
    })?;
    Ok(Ending::Good)
}
