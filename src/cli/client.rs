//! `afterhours client`: on a workstation.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::io::IsTerminal;
use std::io::Stderr;

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

use crate::cli::context::Context;
use crate::cli::context::apps_of;
use crate::cli::context::named_or_only;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::text;
use crate::client::terminal::Terminal;
use crate::client::terminal::typed;
use crate::client::workstation;
use crate::client::workstation::Outcome;
use crate::client::workstation::RunOptions;
use crate::client::workstation::WorkstationError;
use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::domain::session::Answer;
use crate::files::account::user_name;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// Run a workstation program under the gate.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct ClientArgs {
    #[command(subcommand)]
    command: ClientCommand,
}

#[derive(Debug, Subcommand)]
enum ClientCommand {
    Run(RunArgs),
    Status(StatusArgs),
}

/// Start a program as a session of an application.
///
/// While the gate is closed, the program is not started, and you are told until when. When an update is announced, a
/// countdown is shown, and you answer with one key: "OK" closes the program, "not now" goes on until the time is over,
/// "restart" closes it and starts it again when the update is done. When the time is over, the program is ended. Exits
/// with the program's own code.
///
/// A program may use the terminal. What you are told stands in a frame between what it shows; while the whole screen is
/// the program's, there is a bell, and the title says it. As soon as you type for the program, press Ctrl-] before an
/// answer.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterhours client run --app orders -- /opt/orders/bin/desk --user anna")]
struct RunArgs {
    /// The application [default: the only one]
    #[arg(long)]
    app: Option<AppName>,
    /// What the user is called; believed of root only [default: your name]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Answer every warning at once, where nobody sits at a terminal
    #[arg(long, value_enum, value_name = "ANSWER")]
    answer: Option<AnswerArg>,
    /// Start the program also when no daemon can be reached
    #[arg(long)]
    without_daemon: bool,
    /// The program and its arguments, after `--`
    #[arg(value_name = "PROGRAM", last = true, required = true, num_args = 1..)]
    argv: Vec<String>,
}

/// Show your programs under the gate, whether it is open, and what is announced.
///
/// Everybody may ask. Without --app, operators see all applications, and others those where they have a program.
#[derive(Debug, Args)]
struct StatusArgs {
    /// The application
    #[arg(long)]
    app: Option<AppName>,
}

/// An answer, as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum AnswerArg {
    /// Close the program
    Ok,
    /// Go on until the time is over
    NotNow,
    /// Close the program and start it again afterwards
    Restart,
}

impl From<AnswerArg> for Answer {
    fn from(answer: AnswerArg) -> Self {
        match answer {
            AnswerArg::Ok => Self::Ok,
            AnswerArg::NotNow => Self::NotNow,
            AnswerArg::Restart => Self::RestartAfterwards,
        }
    }
}

/// Does what the arguments say.
pub(crate) async fn run(args: ClientArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    match args.command {
        ClientCommand::Run(args) => work(args, context).await,
        ClientCommand::Status(args) => status(args, context).await,
    }
}

async fn status(args: StatusArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let socket = context.workstation_socket()?;
    let apps = match args.app {
        Some(app) => Some(vec![app]),
        // Which applications there are is told to operators only.
        None => apps_of(&context.client()?).await.ok(),
    };
    let stands = match apps {
        None => workstation::statuses(&socket).await.map_err(unable)?,
        Some(apps) => {
            let mut stands = BTreeMap::new();
            for app in apps {
                let status = workstation::status(&socket, &app).await.map_err(unable)?;
                stands.insert(app, status);
            }
            stands
        }
    };
    context.ui.answer(&stands, |stands| text::client::status(stands, &context.times()))?;
    Ok(Ending::Good)
}

async fn work(args: RunArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let app = match args.app {
        Some(app) => app,
        None => the_only_app(context).await?,
    };
    let at_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let interactive = args.answer.is_none() && at_terminal;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let options = RunOptions {
        socket: context.workstation_socket()?,
        app,
        program: args.argv,
        user: args.user.unwrap_or_else(|| user_name(rustix::process::getuid().as_raw())),
        workstation: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        interactive,
        answer: args.answer.map(Answer::from),
        without_daemon: args.without_daemon,
        stop,
    };
    let mut terminal = terminal(&options, at_terminal);
    match workstation::run(&options, &mut terminal).await.map_err(unable)? {
        Outcome::Exited { code } => Ok(Ending::Program(code)),
        Outcome::Closed => Ok(Ending::Good),
        Outcome::Refused { message, until } => {
            let hint = match until {
                Some(until) => format!("try again after {}", context.times().at(until)),
                None => "try again in a while, or ask your administrator".to_owned(),
            };
            Err(CliError::refused(message, hint))
        }
    }
}

/// Where the person is spoken to. A terminal that can be read key by key is shared with the program; at one that cannot,
/// lines are read, and the program gets none.
fn terminal(options: &RunOptions, at_terminal: bool) -> Terminal<Stderr> {
    let is_plain = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if at_terminal && !is_plain {
        match Terminal::shared(std::io::stderr(), std::io::stdin(), options.app.as_str(), options.interactive) {
            Ok(terminal) => return terminal,
            Err(error) => tracing::debug!(%error, "the terminal is read line by line"),
        }
    }
    let lines = options.interactive.then(|| typed(BufReader::new(std::io::stdin())));
    Terminal::new(std::io::stderr(), lines, options.interactive)
}

/// The only application there is, where this user may ask which there are.
async fn the_only_app(context: &Context<'_>) -> Result<AppName, CliError> {
    match apps_of(&context.client()?).await {
        Ok(apps) => named_or_only(None, apps),
        Err(error) if error.kind() == ErrorKind::NotPermitted => {
            Err(CliError::usage("which applications there are is told to operators only", "name yours with --app"))
        }
        Err(error) => Err(error),
    }
}

/// TERM, INT, QUIT and HUP end the program politely before they end us, and the terminal gets its settings back.
fn stop_on_signal(stop: CancellationToken) -> Result<(), CliError> {
    let listen = |kind| signal(kind).map_err(|error| CliError::failed("listen for signals", &error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (mut quit, mut hang_up) = (listen(SignalKind::quit())?, listen(SignalKind::hangup())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            _ = hang_up.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

fn unable(error: WorkstationError) -> CliError {
    let kind = match &error {
        WorkstationError::Unreachable { .. } if error.is_permission() => ErrorKind::NotPermitted,
        WorkstationError::Unreachable { .. } => ErrorKind::Unavailable,
        WorkstationError::Rejected { status: 429, .. } => ErrorKind::Refused,
        WorkstationError::Rejected { status: 403, .. } => ErrorKind::NotPermitted,
        WorkstationError::Rejected { status: 404, .. } => ErrorKind::NotFound,
        _ => ErrorKind::Failed,
    };
    let hint = error.hint();
    ErrorView { hint, ..ErrorView::from_failure(kind, Failure::from_error(&error)) }.into()
}
