//! The command line: parse, do one thing, exit with a code that means something.
//!
//! One file for each group of subcommands; the doc comments of its `Args` are the help. Below them:
//!
//! - `context`: what every command needs: the configuration, the daemon, the clock, the terminal;
//! - `doer`: who does it: the daemon, or this process where none runs;
//! - `out`: the only place that writes; stdout is data, stderr is talk;
//! - `text`: how things read, as pure functions;
//! - `follow`: a run, watched live;
//! - `exit`: every error's kind, its exit code, its hint.
//!
//! *Invariant:* with `--json` exactly one document is written to stdout, also when a command fails.

mod audit;
mod backup;
mod caretaker;
mod client;
mod completions;
mod context;
mod demo;
mod doctor;
mod doer;
mod exit;
mod feed;
mod follow;
mod gate;
mod init;
mod job;
mod job_args;
mod log;
mod mail;
mod man;
mod out;
mod run;
mod sample_desk;
mod serve;
mod session;
mod snapshot;
mod status;
mod text;
mod update;
mod when;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgAction;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap::error::ContextKind;
use clap::error::ContextValue;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::out::Ui;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// Updates self-hosted applications while nobody works.
///
/// Afterhours keeps named jobs. When a job falls due, it proves that a fresh backup exists, warns the people who are
/// logged in, logs out whoever is left when their time is over, installs the new version, checks that it works, and
/// puts everything back as it was if it does not. In the morning there is one mail that says what happened.
#[derive(Debug, Parser)]
#[command(
    name = "afterhours",
    bin_name = "afterhours",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_long_help = "\
First steps:
  sudo afterhours init --app orders          write a configuration and fill it in
  sudo afterhours doctor orders              check everything a run will need
  sudo systemctl start afterhours            or: afterhours serve
  afterhours job create nightly --app orders --at \"2026-11-22 02:30\" --enabled
  afterhours job plan nightly                see what will happen, and nothing is changed

Exit codes:
  0  done
  1  failed: an error of ours or of the environment
  2  wrong use: unknown flag, bad value, bad configuration
  3  not found: job, run, application, session
  4  refused: name taken, job disabled, gate closed, another run is under way
  5  the run failed and everything was put back as it was
  6  the run is stuck; a person is needed
  7  not available: the daemon is not running, or a server cannot be reached
  8  not permitted"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// The configuration [default: /etc/afterhours/afterhours.toml, else the built-in one]
    #[arg(long, global = true, value_name = "FILE", env = "AFTERHOURS_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// The daemon's socket [default: as configured]
    #[arg(long, global = true, value_name = "PATH", env = "AFTERHOURS_SOCKET", hide_env_values = true)]
    socket: Option<PathBuf>,
    /// Write one JSON document to stdout, also for an error
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing beside the answer and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more; twice for much more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto, hide_possible_values = true)]
    color: Color,
    /// What is logged, as a filter of `tracing`: `afterhours=debug,warn`
    #[arg(long = "log", global = true, value_name = "FILTER", env = "AFTERHOURS_LOG", hide = true)]
    log_filter: Option<String>,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal.
    Auto,
    /// Even into a file.
    Always,
    /// Not at all.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Doctor(doctor::DoctorArgs),
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Status(status::StatusArgs),
    Job(job::JobArgs),
    Run(run::RunArgs),
    Update(update::UpdateArgs),
    Session(session::SessionArgs),
    Gate(gate::GateArgs),
    Backup(backup::BackupArgs),
    Snapshot(snapshot::SnapshotArgs),
    Mail(mail::MailArgs),
    Audit(audit::AuditArgs),
    Feed(Box<feed::FeedArgs>),
    Client(client::ClientArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    #[command(hide = true)]
    Caretaker(caretaker::CaretakerArgs),
    #[command(hide = true)]
    SampleDesk(sample_desk::SampleArgs),
}

/// How a command line is understood, for the test that keeps documents from rotting.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Understood {
    /// It could be run.
    Whole,
    /// So far so good, but something that is needed is left out.
    Part,
    /// It is not understood; why, in the parser's words.
    Not(String),
}

/// Parses `args`, the program's name first, and does nothing.
#[doc(hidden)]
pub fn understand(args: &[String]) -> Understood {
    let Err(error) = Cli::try_parse_from(args) else { return Understood::Whole };
    match error.kind() {
        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => Understood::Whole,
        clap::error::ErrorKind::MissingRequiredArgument
        | clap::error::ErrorKind::MissingSubcommand
        | clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Understood::Part,
        _ => Understood::Not(error.to_string()),
    }
}

/// Parses `args`, the program's name first, does what they say, and returns the code to exit with.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let Cli { global, command } = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return unparsed(&error, &args),
    };
    let ui = Ui::new(global.json, global.quiet, global.color);
    log::set_up(global.log_filter.as_deref(), global.verbose, matches!(command, Command::Serve(_)));
    let ended = start(command, &ui, global);
    match ended {
        Ok(ending) => ending.code(),
        Err(error) => {
            ui.error(&error);
            error.code()
        }
    }
}

fn start(command: Command, ui: &Ui, global: Global) -> Result<Ending, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("start the runtime", &error))?;
    let context = Context::new(ui, global.config, global.socket);
    let ended = runtime.block_on(dispatch(command, &context));
    // A blocking call that hangs must not keep a command from ending.
    runtime.shutdown_background();
    ended
}

async fn dispatch(command: Command, context: &Context<'_>) -> Result<Ending, CliError> {
    match command {
        Command::Init(args) => init::run(args, context),
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Serve(args) => serve::run(args, context).await,
        Command::Demo(args) => demo::run(args, context).await,
        Command::Status(args) => status::run(args, context).await,
        Command::Job(args) => job::run(args, context).await,
        Command::Run(args) => run::run(args, context).await,
        Command::Update(args) => update::run(args, context).await,
        Command::Session(args) => session::run(args, context).await,
        Command::Gate(args) => gate::run(args, context).await,
        Command::Backup(args) => backup::run(args, context).await,
        Command::Snapshot(args) => snapshot::run(args, context).await,
        Command::Mail(args) => mail::run(args, context).await,
        Command::Audit(args) => audit::run(args, context).await,
        Command::Feed(args) => feed::run(*args, context).await,
        Command::Client(args) => client::run(args, context).await,
        Command::Completions(args) => completions::run(args, context),
        Command::Man(args) => man::run(args, context),
        Command::Caretaker(args) => caretaker::run(args).await,
        Command::SampleDesk(args) => sample_desk::run(args, context).await,
    }
}

/// Help and version are answers; everything else that cannot be parsed is wrong use.
fn unparsed(error: &clap::Error, args: &[OsString]) -> ExitCode {
    // The help of somebody who has gone away need not be written.
    let _ = match meant(error) {
        Some(meant) => writeln!(std::io::stderr(), "{}\n\n  {meant}", first_line(error)),
        None => error.print(),
    };
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    if json {
        let message = first_line(error).trim_start_matches("error: ").to_owned();
        let hint = meant(error).unwrap_or("see `afterhours --help`");
        let error = ErrorView::new(ErrorKind::Usage, message).hint(hint);
        Ui::new(true, true, Color::Never).error_document(&CliError::from(error));
    }
    exit::code(ErrorKind::Usage)
}

fn first_line(error: &clap::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// What somebody means who guesses a command that other programs have.
fn meant(error: &clap::Error) -> Option<&'static str> {
    let guess = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(guess)) => guess.as_str(),
        _ => return None,
    };
    Some(match guess {
        "list" | "ls" | "jobs" => "Did you mean `afterhours job list` or `afterhours run list`?",
        "runs" | "history" => "Did you mean `afterhours run list`?",
        "log" | "logs" | "journal" => {
            "Did you mean `afterhours run show RUN`, or the daemon's log: `journalctl -u afterhours`?"
        }
        "config" | "check" | "test" => {
            "Did you mean `afterhours doctor`? It checks the configuration and all a run will need."
        }
        "version" => "Did you mean `afterhours --version`?",
        "start" => "Did you mean `afterhours job run NAME` or `afterhours update now`?",
        "stop" => "Did you mean `afterhours run cancel RUN`?",
        "upgrade" => "Did you mean `afterhours update now`?",
        "rollback" => "Did you mean `afterhours run cancel RUN` or `afterhours run resolve RUN --as old`?",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_guess_is_answered_with_what_there_is() {
        let asked = |line: &str| meant(&Cli::try_parse_from(line.split(' ')).unwrap_err());
        for guess in ["logs", "version", "config check", "list", "check", "start"] {
            let meant = asked(&format!("afterhours {guess}")).unwrap();
            assert!(meant.starts_with("Did you mean"), "{guess}: {meant}");
        }
        assert_eq!(asked("afterhours gibberish"), None);
        for line in ["job ls", "job rm nightly", "job start nightly", "run ls", "run log 7", "session ls"] {
            let args: Vec<String> = format!("afterhours {line}").split(' ').map(str::to_owned).collect();
            assert_eq!(understand(&args), Understood::Whole, "{line}");
        }
    }
}
