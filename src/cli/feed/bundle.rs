//! `afterhours feed bundle`: a feed in one file, for sites without a network.

use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use clap::Args;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::download::Bar;
use crate::cli::feed::signed;
use crate::cli::text;
use crate::domain::name::AppName;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::feed::select;
use crate::renewal::next_anywhere;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// Write everything that a site without a network needs for an update into one file.
///
/// There is the vendor's signed metadata in it and the archives of every release from build --from up to the version; where the
/// feed has a newer Afterhours, that as well. The site takes it with `afterhours feed refresh APP --bundle FILE` and checks
/// it as it would check the server. `afterhours status` there says which build it has. The signatures run out as they do
/// on the server: carry the file soon.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterhours feed bundle orders 2.4.1 --from 22 -o /media/stick/orders.bundle")]
pub(crate) struct BundleArgs {
    /// The application
    app: AppName,
    /// The version that the site shall have
    version: Version,
    /// The build that the site has [default: none, only the archives of the version]
    #[arg(long, value_name = "BUILD")]
    from: Option<u64>,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Bundled {
    app: AppName,
    file: PathBuf,
    size_bytes: u64,
    good_until: DateTime<Utc>,
    releases: Vec<ReleaseId>,
    updaters: Vec<ReleaseId>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: BundleArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let BundleArgs { app, version, from, output } = args;
    let feed = signed(&app, context)?;
    let releases = feed.releases().await?;
    let from = match from {
        None => None,
        Some(build) => match releases.iter().find(|release| release.id.build == build) {
            Some(release) => Some(release.id.clone()),
            None => {
                let error = ErrorView::new(ErrorKind::NotFound, format!("the feed of {app} has no build {build}"));
                return Err(error.hint(format!("see `afterhours feed refresh {app}`")).into());
            }
        },
    };
    let path = match &from {
        Some(_) => select::path(from.as_ref(), &releases, Some(&version)),
        None => Ok(releases
            .iter()
            .rfind(|release| release.id.version == version && release.unreadable.is_none())
            .cloned()
            .into_iter()
            .collect()),
    };
    let path = path.map_err(|error| {
        let hint = error.hint().unwrap_or_else(|| "name another version".to_owned());
        CliError::refused(format!("failed to {error}"), hint)
    })?;
    if let Some((release, because)) = path.iter().find_map(|release| Some((&release.id, release.unreadable.as_ref()?)))
    {
        return Err(CliError::refused(
            format!("no site can go past {release}: {because}"),
            "name an earlier version, or ask the vendor to withdraw it",
        ));
    }
    if path.is_empty() {
        let error = ErrorView::new(ErrorKind::NotFound, format!("there is nothing to carry up to version {version}"));
        return Err(error.hint(format!("see `afterhours feed refresh {app}`")).into());
    }
    let is_alone = from.is_none() && releases.first().is_some_and(|first| first.id != path[0].id);
    // Which Afterhours the site has is not known here.
    let updaters = next_anywhere(&feed.updaters().await?);
    let (good_until, size_bytes) = feed.bundle(&path, &updaters, &output, &Bar::new(context.ui, 0)).await?;
    let ids = |releases: Vec<Release>| releases.into_iter().map(|release| release.id).collect();
    let bundled = Bundled { app, file: output, size_bytes, good_until, releases: ids(path), updaters: ids(updaters) };
    context.ui.answer(&bundled, |bundled| {
        let until = bundled.good_until.format("%Y-%m-%d %H:%M UTC");
        let mut text =
            format!("{}, {}; it can be taken until {until}", bundled.file.display(), text::bytes(bundled.size_bytes));
        for release in &bundled.releases {
            text += &format!("\n  {release}");
        }
        for updater in &bundled.updaters {
            text += &format!("\n  Afterhours {updater}");
        }
        if is_alone {
            text += "\nIt helps a site that has all releases before. For one that has not, name its build with --from.";
        }
        text
    })?;
    Ok(Ending::Good)
}
