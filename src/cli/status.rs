//! `afterhours status`: everything on one page.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::doer::Doer;
use crate::cli::doer::works_with_another;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::text;
use crate::cli::text::check::Check;
use crate::cli::text::check::check;
use crate::domain::name::AppName;
use crate::wire::error::ErrorKind;
use crate::wire::status::StatusView;

/// Show the daemon, applications, gates, newer releases, next jobs and runs under way.
///
/// Where no daemon runs, it shows what its store says, and exits with 7.
///
/// With --check: one line, and the exit code of a monitoring plugin. 0: all is well. 1: somebody should look (the last run failed
/// or was put back, a gate is closed, something could not be sent or looked for). 2: a run is stuck, or no daemon runs.
/// 3: it cannot be found out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours status
  afterhours status --check
  afterhours status --check orders")]
pub(crate) struct StatusArgs {
    /// One line and the exit code of a monitoring plugin, for one application or for all
    #[arg(long, value_name = "APP", num_args = 0..=1)]
    check: Option<Option<AppName>>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: StatusArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    if let Some(app) = args.check {
        let found = match find(context).await {
            Ok(status) => check(&status, app.as_ref(), &context.times()),
            Err(error) => {
                let view = error.view();
                let why = std::iter::once(&view.message).chain(&view.because).map(String::as_str);
                Check::unknown(why.collect::<Vec<_>>().join(": "))
            }
        };
        context.ui.answer(&found, Check::line)?;
        return Ok(Ending::Plugin(found.level as u8));
    }
    let mut status = find(context).await?;
    if works_with_another(&status, context) {
        let path = context.config_path().display();
        status
            .notices
            .push(format!("the daemon works with another configuration than {path}: `systemctl reload afterhours`"));
    }
    context.ui.answer(&status, |status| text::app::status(status, &context.times()))?;
    Ok(if status.daemon.is_some() { Ending::Good } else { Ending::Bad(ErrorKind::Unavailable) })
}

async fn find(context: &Context<'_>) -> Result<StatusView, CliError> {
    Doer::find(context).await?.status().await
}
