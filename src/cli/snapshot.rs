//! `afterhours snapshot`: copies kept for rollback.

use clap::Args;
use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::context::named_or_all;
use crate::cli::doer::Doer;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::text;
use crate::domain::name::AppName;

/// Look at the copies of program and data that are kept for rollback.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// List the snapshots, newest first; needs no daemon
    #[command(alias = "ls")]
    List(ListArgs),
}

/// Which application.
#[derive(Debug, Args)]
struct ListArgs {
    /// The application [default: all]
    app: Option<AppName>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: SnapshotArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let doer = Doer::find(context).await?;
    let SnapshotCommand::List(ListArgs { app }) = args.command;
    let all = if app.is_none() { doer.apps().await? } else { Vec::new() };
    let mut snapshots = Vec::new();
    for app in named_or_all(app, all) {
        snapshots.extend(doer.snapshots(&app).await?);
    }
    context.ui.answer(&snapshots, |snapshots| text::app::snapshots(snapshots, &context.times()))?;
    Ok(Ending::Good)
}
