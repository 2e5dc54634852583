//! `afterhours caretaker`, hidden: sees to it that a daemon runs while Afterhours replaces itself.
//!
//! Started by the program that is about to be replaced, from a copy of that program; see `crate::renewal`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::daemon;

/// Watch a newer Afterhours come up, and put this one back when it does not.
#[derive(Debug, Args)]
pub(crate) struct CaretakerArgs {
    /// The data directory
    data_dir: PathBuf,
    /// Watch; without it, a process that does is started and left alone
    #[arg(long)]
    watch: bool,
}

/// Does what the arguments say.
pub(crate) async fn run(args: CaretakerArgs) -> Result<Ending, CliError> {
    if !args.watch {
        daemon::detach_caretaker(&args.data_dir)?;
        return Ok(Ending::Good);
    }
    match daemon::watch(&args.data_dir).await? {
        None => Ok(Ending::Good),
        Some(relaunch) => Err(CliError::renewal(&relaunch.in_our_place())),
    }
}
