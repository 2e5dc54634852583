//! `afterhours serve`: the daemon.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::daemon;

/// Be the daemon, until told to stop.
///
/// Keeps the jobs, starts them when they fall due, and answers at its socket. Runs that a crash has interrupted are
/// taken up first. SIGTERM stops it in order: a run before its stop of the service is put off, one beyond it is
/// finished by the next start.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours serve --config ./afterhours.toml
  AFTERHOURS_LOG=afterhours=debug afterhours serve")]
pub(crate) struct ServeArgs {}

/// Does what the arguments say.
pub(crate) async fn run(_args: ServeArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    daemon::serve(context.settings()?).await?;
    Ok(Ending::Good)
}
