//! `afterhours man`: manual pages.

use std::path::PathBuf;

use clap::Args;
use clap::CommandFactory;

use crate::cli::Cli;
use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;

/// Write the manual pages of every command into a directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sudo afterhours man /usr/local/share/man/man1 && man afterhours-job-create")]
pub(crate) struct ManArgs {
    /// The directory; made when it is missing
    dir: PathBuf,
}

/// Does what the arguments say.
pub(crate) fn run(args: ManArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let dir = args.dir;
    let failed =
        |error: &dyn std::error::Error| CliError::failed(format!("write manual pages to {}", dir.display()), error);
    fs_err::create_dir_all(&dir).map_err(|error| failed(&error))?;
    // `help` subcommands would each get pages of their own.
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &dir).map_err(|error| failed(&error))?;
    context.ui.done(&serde_json::json!({ "dir": dir }), format!("Wrote manual pages to {}.", dir.display()))?;
    Ok(Ending::Good)
}
