//! `afterhours serve`: the daemon.

use std::path::PathBuf;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::daemon;

/// Be the daemon, until told to stop.
///
/// Keeps the jobs, starts them when they fall due, and answers at its socket. Runs that a crash has interrupted are
/// taken up first. SIGTERM stops it in order: a run before its stop of the service is put off, one beyond it is
/// finished by the next start. SIGHUP lets it take up a changed configuration between runs; one that cannot be used is
/// refused whole, and `status` says so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours serve --config ./afterhours.toml
  AFTERHOURS_LOG=afterhours=debug afterhours serve")]
pub(crate) struct ServeArgs {
    /// Do all that a start does, on the copy of the store in this directory, and say so
    #[arg(long, value_name = "DIR", hide = true)]
    rehearse: Option<PathBuf>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: ServeArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    if let Some(dir) = args.rehearse {
        let rehearsed = daemon::rehearse(context.settings()?, context.origin()?, &dir).await?;
        context.ui.answer(&rehearsed, |rehearsed| serde_json::json!(rehearsed).to_string())?;
        return Ok(Ending::Good);
    }
    daemon::heed_hangups()?;
    match daemon::serve(context.settings()?, &|| context.whole_settings(), context.origin()?).await? {
        None => Ok(Ending::Good),
        Some(relaunch) => Err(CliError::renewal(&relaunch.in_our_place())),
    }
}
