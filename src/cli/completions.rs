//! `afterhours completions`: for shells.

use clap::Args;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;

/// Print the completions of a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterhours completions bash | sudo tee /etc/bash_completion.d/afterhours")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Does what the arguments say.
pub(crate) fn run(args: CompletionsArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "afterhours", &mut script);
    context.ui.raw(&script)?;
    Ok(Ending::Good)
}
