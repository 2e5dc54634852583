//! `afterhours backup`: the site's own backups, which a run demands before it begins.

use clap::Args;
use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::context::named_or_all;
use crate::cli::context::named_or_only;
use crate::cli::doer::Doer;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::text;
use crate::domain::name::AppName;
use crate::wire::app::BackupView;
use crate::wire::error::ErrorKind;

/// Look at the backups that a run demands before it begins.
///
/// A run starts only when the last backup is young enough, and tested: not only its date is looked at. This is the
/// site's own backup; the copy that a run takes for rollback is a snapshot, see `afterhours snapshot --help`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Find the newest backup and test it, as a run would
    ///
    /// Exits with 1 when a run would not accept it. With --json: one object for one application, a list of them without
    /// a name.
    Check(AppArgs),
    /// Make a backup with the configured command, and test it
    Make(AppArgs),
    /// List all backups that are found, newest first
    List(AppArgs),
}

/// Which application.
#[derive(Debug, Args)]
struct AppArgs {
    /// The application [default: all; the only one for `make` and `list`]
    app: Option<AppName>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: BackupArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let doer = Doer::find_for_disk(context).await?;
    let ui = context.ui;
    let times = context.times();
    let show = |backup: &BackupView| text::app::backup(backup, &times);
    let accepted = match args.command {
        BackupCommand::Check(AppArgs { app: Some(app) }) => {
            let backup = doer.check_backup(&app).await?;
            ui.answer(&backup, show)?;
            backup.accepted
        }
        BackupCommand::Check(AppArgs { app: None }) => {
            let mut backups = Vec::new();
            for app in named_or_all(None, doer.apps().await?) {
                backups.push(doer.check_backup(&app).await?);
            }
            ui.answer(&backups, |backups| backups.iter().map(show).collect::<Vec<_>>().join("\n\n"))?;
            backups.iter().all(|backup| backup.accepted)
        }
        BackupCommand::Make(AppArgs { app }) => {
            let app = only(app, &doer).await?;
            ui.say(format_args!("Making a backup of {app}; this may take a while."));
            let backup = doer.make_backup(&app).await?;
            ui.answer(&backup, show)?;
            backup.accepted
        }
        BackupCommand::List(AppArgs { app }) => {
            let backups = doer.backups(&only(app, &doer).await?).await?;
            ui.answer(&backups, |backups| text::app::backups(backups, &times))?;
            true
        }
    };
    Ok(if accepted { Ending::Good } else { Ending::Bad(ErrorKind::Failed) })
}

async fn only(named: Option<AppName>, doer: &Doer) -> Result<AppName, CliError> {
    match named {
        Some(app) => Ok(app),
        None => named_or_only(None, doer.apps().await?),
    }
}
