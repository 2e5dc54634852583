//! `afterhours gate`: whether users may log in.

use clap::Args;
use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::context::apps_of;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::text;
use crate::cli::when;
use crate::domain::name::AppName;
use crate::domain::span::Span;
use crate::wire::people::CloseGate;
use crate::wire::people::GateView;
use crate::wire::people::GivePass;
use crate::wire::people::PASS_VALID_DEFAULT;

/// Let users log in, or not.
///
/// A run closes the gate of its application and opens it again. A gate that you close stays closed until you open it, or
/// until the time you name.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct GateArgs {
    #[command(subcommand)]
    command: GateCommand,
}

#[derive(Debug, Subcommand)]
enum GateCommand {
    Show(ShowArgs),
    Close(CloseArgs),
    Open(OpenArgs),
    Pass(PassArgs),
}

/// Show whether users may log in.
///
/// With --json: one object for one application, a list of them without a name.
#[derive(Debug, Args)]
struct ShowArgs {
    /// The application [default: all]
    app: Option<AppName>,
}

/// Refuse logins. Who is logged in already stays so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours gate close orders --until 06:00 --message \"We are moving the server.\"
  afterhours gate close orders --until 2h")]
struct CloseArgs {
    /// The application
    app: AppName,
    /// Open by itself then: 2h, 06:00, or "2026-11-22 06:00" [default: never]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// What users are told
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
}

/// Let users log in again.
#[derive(Debug, Args)]
struct OpenArgs {
    /// The application
    app: AppName,
}

/// Let one login through a closed gate.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterhours gate pass orders --user anna --valid 30m")]
struct PassArgs {
    /// The application
    app: AppName,
    /// Only this user of the machine [default: whoever comes first]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// For how long
    #[arg(long, value_name = "SPAN", default_value_t = PASS_VALID_DEFAULT)]
    valid: Span,
}

/// Does what the arguments say.
pub(crate) async fn run(args: GateArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let client = context.client()?;
    let ui = context.ui;
    let times = context.times();
    let show = |gate: &GateView| text::app::gate(gate, &times);
    match args.command {
        GateCommand::Show(ShowArgs { app: Some(app) }) => ui.answer(&client.show_gate(&app).await?, show)?,
        GateCommand::Show(ShowArgs { app: None }) => {
            let mut gates = Vec::new();
            for app in apps_of(&client).await? {
                gates.push(client.show_gate(&app).await?);
            }
            ui.answer(&gates, |gates| gates.iter().map(show).collect::<Vec<_>>().join("\n"))?;
        }
        GateCommand::Close(CloseArgs { app, until, message }) => {
            let until = until.map(|text| when::instant(&text, context.now())).transpose();
            let until = until.map_err(|why| CliError::usage(why, "see `afterhours gate close --help`"))?;
            let gate = client.close_gate(&app, &CloseGate { until, message }).await?;
            if let Some(warning) = &gate.warning {
                ui.warn(warning);
            }
            ui.answer(&gate, show)?;
        }
        GateCommand::Open(OpenArgs { app }) => ui.answer(&client.open_gate(&app).await?, show)?,
        GateCommand::Pass(PassArgs { app, user, valid }) => {
            let pass = client.give_pass(&app, &GivePass { user, valid }).await?;
            let whom = pass.user.as_deref().unwrap_or("whoever comes first");
            let until = times.at_and_away(pass.valid_until);
            ui.done(&pass, format!("{whom} may log in to {app} once, until {until}."))?;
        }
    }
    Ok(Ending::Good)
}
