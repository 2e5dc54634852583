//! `afterhours status`: everything on one page.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::doer::Doer;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::text;
use crate::wire::error::ErrorKind;

/// Show the daemon, applications, gates, newer releases, next jobs and runs under way.
///
/// Where no daemon runs, it shows what its store says, and exits with 7.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {}

/// Does what the arguments say.
pub(crate) async fn run(_args: StatusArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let status = Doer::find(context).await?.status().await?;
    context.ui.answer(&status, |status| text::app::status(status, &context.times()))?;
    Ok(if status.daemon.is_some() { Ending::Good } else { Ending::Bad(ErrorKind::Unavailable) })
}
