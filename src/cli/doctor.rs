//! `afterhours doctor`: everything a run will need, checked.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::context::named_or_all;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::text;
use crate::config::settings::Settings;
use crate::daemon;
use crate::domain::finding::Severity;
use crate::domain::name::AppName;
use crate::wire::app::DoctorView;
use crate::wire::error::ErrorKind;

/// Check everything a run will need; each finding comes with its remedy.
///
/// Disk space, a real write and rename beside the installation, owners, service control, the health page, the backup,
/// the feed. Needs no daemon and changes nothing. Exits with 1 when a run would not begin. With --json: one object for
/// one application, a list of them without a name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo afterhours doctor
  sudo afterhours doctor orders --json")]
pub(crate) struct DoctorArgs {
    /// The application [default: all]
    app: Option<AppName>,
}

/// The daemon knows who is connected to it; without one we look ourselves.
async fn check(settings: &Settings, app: &AppName, context: &Context<'_>) -> Result<DoctorView, CliError> {
    match context.client()?.doctor(app).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(daemon::doctor(settings.clone(), app).await?),
        answer => Ok(answer?),
    }
}

/// Does what the arguments say.
pub(crate) async fn run(args: DoctorArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let settings = context.settings()?;
    let is_one = args.app.is_some();
    let mut views: Vec<DoctorView> = Vec::new();
    for app in named_or_all(args.app, settings.apps.keys().cloned()) {
        views.push(check(&settings, &app, context).await?);
    }
    let worst = views.iter().map(DoctorView::worst).max().unwrap_or(Severity::Good);
    let all = |views: &[DoctorView]| views.iter().map(text::app::doctor).collect::<Vec<_>>().join("\n\n");
    match views.as_slice() {
        [view] if is_one => context.ui.answer(view, text::app::doctor)?,
        [] => {
            return Err(CliError::usage("no application is configured", "write one with `afterhours init --app NAME`"));
        }
        views => context.ui.answer(&views, |views| all(views))?,
    }
    Ok(if worst == Severity::Fatal { Ending::Bad(ErrorKind::Failed) } else { Ending::Good })
}
