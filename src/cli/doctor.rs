//! `afterhours doctor`: everything a run will need, checked.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::context::named_or_all;
use crate::cli::doer::Doer;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::text;
use crate::domain::finding::Severity;
use crate::domain::name::AppName;
use crate::wire::app::DoctorView;
use crate::wire::error::ErrorKind;

/// Check everything a run will need; each finding comes with its remedy.
///
/// Disk space and quota, a real write and rename beside the installation, owners, service control, the health page, the backup,
/// the feed. It is about the configuration on disk, and says where the daemon still works with another one. Needs no daemon
/// and changes nothing. Exits with 1 when a run would not begin. With --json: one object for
/// one application, a list of them without a name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo afterhours doctor
  sudo afterhours doctor orders --json")]
pub(crate) struct DoctorArgs {
    /// The application [default: all]
    app: Option<AppName>,
    /// Say that the clock of this machine is right, after you have looked at it
    #[arg(long)]
    accept_clock: bool,
}

/// Does what the arguments say.
pub(crate) async fn run(args: DoctorArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    if args.accept_clock {
        context.client()?.accept_clock().await?;
        context.ui.say(format!("The clock is right: {}. Jobs start by it.", context.times().at(context.now())));
    }
    let doer = Doer::find_for_disk(context).await?;
    let is_one = args.app.is_some();
    let mut views: Vec<DoctorView> = Vec::new();
    let all = if is_one { Vec::new() } else { doer.apps().await? };
    for app in named_or_all(args.app, all) {
        views.push(doer.doctor(&app).await?);
    }
    let worst = views.iter().map(DoctorView::worst).max().unwrap_or(Severity::Good);
    let together = |views: &[DoctorView]| views.iter().map(text::app::doctor).collect::<Vec<_>>().join("\n\n");
    match views.as_slice() {
        [view] if is_one => context.ui.answer(view, text::app::doctor)?,
        [] => {
            return Err(CliError::usage("no application is configured", "write one with `afterhours init --app NAME`"));
        }
        views => context.ui.answer(&views, |views| together(views))?,
    }
    Ok(if worst == Severity::Fatal { Ending::Bad(ErrorKind::Failed) } else { Ending::Good })
}
