//! `afterhours mail`: whether the reports reach somebody.

use clap::Args;
use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::doer::Doer;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;

/// See whether the reports of runs reach somebody.
///
/// Which mails are not sent yet, and why, stands in `afterhours status`. `afterhours doctor` asks the mail server without
/// sending anything.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct MailArgs {
    #[command(subcommand)]
    command: MailCommand,
}

#[derive(Debug, Subcommand)]
enum MailCommand {
    /// Send a mail that says nothing but that it came, and show what the server answered
    ///
    /// By the server of `daemon.mail`, with and without a daemon. When it is taken, a daemon soon tries again what it has not
    /// been able to send. Exits with 1 where the server does not take the mail, with 7 where it cannot be reached.
    #[command(after_help = "\
Examples:
  sudo afterhours mail test it@example.com
  sudo afterhours mail test it@example.com --json")]
    Test(TestArgs),
}

#[derive(Debug, Args)]
struct TestArgs {
    /// Whom to send it to
    address: String,
}

/// Does what the arguments say.
pub(crate) async fn run(args: MailArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let MailCommand::Test(TestArgs { address }) = args.command;
    let mailed = Doer::find(context).await?.test_mail(address).await?;
    context.ui.answer(&mailed, |mailed| {
        format!("The mail server {} took the mail for {}: it answered {}.", mailed.server, mailed.to, mailed.answer)
    })?;
    Ok(Ending::Good)
}
