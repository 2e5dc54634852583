//! `afterhours demo`: the whole night in half a minute.

use std::path::PathBuf;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::shim;

/// See the whole night in half a minute, on a sample application.
///
/// Three people are logged in, a job falls due, they are warned and logged out, the new versions are installed one after
/// the other; then a second night whose version fails its health check, and everything is put back. It needs no
/// configuration and touches nothing outside of a directory of its own.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Work here, and keep it [default: a directory that is removed]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: DemoArgs, _context: &Context<'_>) -> Result<Ending, CliError> {
    shim::demo(args.dir).await?;
    Ok(Ending::Good)
}
