//! `afterhours session`: who is logged in.

use clap::Args;
use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::context::apps_of;
use crate::cli::context::named_or_all;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::job::name_the_affected;
use crate::cli::text;
use crate::cli::text::count;
use crate::client::api::Client;
use crate::domain::foreign;
use crate::domain::name::AppName;
use crate::domain::session::SessionId;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;
use crate::wire::people::EndSessions;
use crate::wire::people::MessageSessions;
use crate::wire::people::SessionView;

/// See who is logged in, tell them something, log them out.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    #[command(alias = "ls")]
    List(ListArgs),
    Message(MessageArgs),
    End(EndArgs),
}

/// List who is logged in.
///
/// When that cannot be known, this is an error (exit code 7), not an empty list.
#[derive(Debug, Args)]
struct ListArgs {
    /// The application [default: all]
    app: Option<AppName>,
    /// Also sessions that are no people's (`ignore_users`), after the others
    #[arg(long)]
    all: bool,
}

/// Show a text on the workstations of everybody who is logged in.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterhours session message orders \"The update begins at half past two.\"")]
struct MessageArgs {
    /// The application
    app: AppName,
    /// The text
    text: String,
    /// Only to this session; may be repeated
    #[arg(long = "to", value_name = "SESSION")]
    sessions: Vec<String>,
}

/// Log people out: first politely, then by force.
///
/// Unsaved work is lost. You are asked first; --yes answers for scripts. Exits with 1 when somebody is still there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours session end orders             everybody
  afterhours session end orders 41 42 --yes")]
struct EndArgs {
    /// The application
    app: AppName,
    /// The sessions [default: all]
    #[arg(value_name = "SESSION")]
    sessions: Vec<String>,
    /// Answer yes to every question
    #[arg(long)]
    yes: bool,
}

/// Does what the arguments say.
pub(crate) async fn run(args: SessionArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let client = context.client()?;
    match args.command {
        SessionCommand::List(args) => list(args, &client, context).await,
        SessionCommand::Message(args) => message(args, &client, context).await,
        SessionCommand::End(args) => end(args, &client, context).await,
    }
}

async fn list(args: ListArgs, client: &Client, context: &Context<'_>) -> Result<Ending, CliError> {
    let all = if args.app.is_none() { apps_of(client).await? } else { Vec::new() };
    let mut known: Vec<SessionView> = Vec::new();
    let mut ignored: Vec<SessionView> = Vec::new();
    let mut unknown: Option<ErrorView> = None;
    for app in named_or_all(args.app, all) {
        let view = client.list_sessions(&app).await?;
        known.extend(view.sessions);
        ignored.extend(view.ignored);
        if !view.known {
            let message = format!("who is logged in to {app} cannot be known now");
            let mut error = ErrorView::new(ErrorKind::Unavailable, message);
            error.because.extend(view.reason);
            unknown.get_or_insert(error.hint(format!("see `afterhours doctor {app}`")));
        }
    }
    if args.all {
        known.extend(ignored);
    } else if !ignored.is_empty() {
        context.ui.say(format!("{} of no people are left out; --all shows them.", count(ignored.len(), "session")));
    }
    let show = |sessions: &Vec<SessionView>| text::app::sessions(sessions, &context.times());
    match unknown {
        None => context.ui.answer(&known, show)?,
        Some(error) => {
            if !known.is_empty() {
                context.ui.data(show(&known))?;
            }
            return Err(error.into());
        }
    }
    Ok(Ending::Good)
}

async fn message(args: MessageArgs, client: &Client, context: &Context<'_>) -> Result<Ending, CliError> {
    let MessageArgs { app, text, sessions } = args;
    let message = MessageSessions { text, sessions: sessions.into_iter().map(SessionId).collect() };
    let told = client.message_sessions(&app, &message).await?;
    context.ui.done(&told, format!("Told {}.", count(told.told.len(), "session")))?;
    Ok(Ending::Good)
}

async fn end(args: EndArgs, client: &Client, context: &Context<'_>) -> Result<Ending, CliError> {
    let EndArgs { app, sessions, yes } = args;
    if !yes {
        name_the_affected(&app, client, context).await;
        let whom = if sessions.is_empty() { "everybody".to_owned() } else { sessions.join(", ") };
        context.ui.confirm(&format!("Log out {whom}? Unsaved work is lost."), false)?;
    }
    let end = EndSessions { sessions: sessions.into_iter().map(SessionId).collect() };
    let ended = client.end_sessions(&app, &end).await?;
    context.ui.done(&ended, format!("Ended {}.", count(ended.ended.len(), "session")))?;
    if ended.left.is_empty() {
        return Ok(Ending::Good);
    }
    let left: Vec<&str> = ended.left.iter().map(|session| session.0.as_str()).collect();
    context.ui.warn(format_args!("still there: {}", foreign::names(left)));
    Ok(Ending::Bad(ErrorKind::Failed))
}
