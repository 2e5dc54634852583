//! `afterhours status`: everything on one page.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::text;

/// Show the daemon, the applications, their gates, the next jobs and the runs under way.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {}

/// Does what the arguments say.
pub(crate) async fn run(_args: StatusArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let status = context.client()?.status().await?;
    context.ui.answer(&status, |status| text::app::status(status, &context.times()))?;
    Ok(Ending::Good)
}
