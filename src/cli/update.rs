//! `afterhours update`: newer versions, and installing them now.
//!
//! Both work with and without a daemon; where none runs, the same engine runs in this process.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use clap::Args;
use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::context::named_or_all;
use crate::cli::context::named_or_only;
use crate::cli::doer::Alone;
use crate::cli::doer::Doer;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::follow;
use crate::cli::follow::Lines;
use crate::cli::job::name_the_affected;
use crate::cli::text;
use crate::config::settings::Settings;
use crate::daemon::alone;
use crate::daemon::alone::Updated;
use crate::domain::command::Command;
use crate::domain::name::AppName;
use crate::domain::release::Version;
use crate::domain::run::RunId;
use crate::domain::span::Span;
use crate::exec::permit;
use crate::exec::permit::Refusal;
use crate::exec::system;
use crate::files::account::Account;
use crate::renewal::Renewal;
use crate::wire::app::UpdateNow;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// What a program needs of the environment to reach the screen.
const SCREEN: [&str; 3] = ["DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"];

/// Look for newer versions, or install them now.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct UpdateArgs {
    #[command(subcommand)]
    command: UpdateCommand,
}

#[derive(Debug, Subcommand)]
enum UpdateCommand {
    Check(CheckArgs),
    Notes(NotesArgs),
    Allow(AllowArgs),
    Now(NowArgs),
}

/// Show newer versions, with their notes. Nothing is changed.
///
/// Needs no daemon. A daemon looks by itself, too, as `updates` of the configuration says; `status` shows what came of it.
/// With --json: one object for one application, a list of them without a name.
#[derive(Debug, Args)]
struct CheckArgs {
    /// The application [default: all]
    app: Option<AppName>,
}

/// Show what is new in each newer version, in full and in order. Nothing is changed.
///
/// Needs no daemon. With --json: as `update check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterhours update notes orders --to 2.5")]
struct NotesArgs {
    /// The application [default: the only one]
    app: Option<AppName>,
    /// Nothing beyond this version [default: the newest]
    #[arg(long, value_name = "VERSION")]
    to: Option<Version>,
}

/// Update an application now.
///
/// For single-user installations: no job and no daemon is needed. It is the same run as at night, with the same backup
/// check, the same snapshot and the same way back; see `afterhours run --help`. Where a daemon is running, it does the
/// work, and this command follows it.
///
/// Exits with 0 when the new version runs or there is nothing newer, 1 when it failed before anything was touched, 4
/// when there is no way to the version of --to, 5 when everything was put back, 6 when it is stuck.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours update check
  afterhours update now
  afterhours update now orders --yes --restart")]
struct NowArgs {
    /// The application [default: the only one]
    app: Option<AppName>,
    /// Install nothing beyond this version [default: the newest]
    #[arg(long, value_name = "VERSION")]
    to: Option<Version>,
    /// How long users have to finish [default: the application's]
    #[arg(long, value_name = "SPAN")]
    grace: Option<Span>,
    /// Update also where the application is down or does not pass its health check: the update shall mend it
    #[arg(long)]
    repair: bool,
    /// Start the program again when it is done, without asking
    #[arg(long)]
    restart: bool,
    /// Answer yes to every question
    #[arg(long)]
    yes: bool,
    /// Go on with a run that the Afterhours of before has begun
    #[arg(long, value_name = "RUN", hide = true)]
    resume: Option<RunId>,
}

/// Let a version that failed here be tried again.
///
/// A version whose installation was rolled back is not tried again by itself: jobs stop before it. Naming it with --to,
/// or allowing it here, changes that. --list shows which versions these are, since when, and in which run they failed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours update allow --list
  afterhours update allow 4.0 --app orders
  afterhours update allow 1.4 --app afterhours     a newer Afterhours that was put back")]
struct AllowArgs {
    /// The version
    #[arg(required_unless_present = "list")]
    version: Option<Version>,
    /// The application [default: the only one; with --list all, and Afterhours itself]
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,
    /// Show what is held back because it failed here, and change nothing
    #[arg(long, conflicts_with = "version")]
    list: bool,
}

/// Does what the arguments say.
pub(crate) async fn run(args: UpdateArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let doer = Doer::find(context).await?;
    match args.command {
        UpdateCommand::Check(args) => check(args, &doer, context).await,
        UpdateCommand::Notes(args) => notes(args, &doer, context).await,
        UpdateCommand::Allow(args) => allow(args, &doer, context).await,
        UpdateCommand::Now(args) => now(args, doer, context).await,
    }
}

async fn check(args: CheckArgs, doer: &Doer, context: &Context<'_>) -> Result<Ending, CliError> {
    let times = context.times();
    if let Some(app) = args.app {
        context.ui.answer(&doer.updates(&app).await?, |updates| text::app::updates(updates, &times))?;
        return Ok(Ending::Good);
    }
    let mut views = Vec::new();
    for app in named_or_all(None, doer.apps().await?) {
        views.push(doer.updates(&app).await?);
    }
    context.ui.answer(&views, |views| {
        views.iter().map(|updates| text::app::updates(updates, &times)).collect::<Vec<_>>().join("\n\n")
    })?;
    Ok(Ending::Good)
}

async fn notes(args: NotesArgs, doer: &Doer, context: &Context<'_>) -> Result<Ending, CliError> {
    let NotesArgs { app, to } = args;
    let app = named_or_only(app, doer.apps().await?)?;
    let mut updates = doer.updates(&app).await?;
    if let Some(to) = &to {
        let Some(last) = updates.pending.iter().rposition(|release| release.version == *to) else {
            let error = ErrorView::new(ErrorKind::NotFound, format!("there is no newer version {to} of {app}"));
            return Err(error.hint(format!("see `afterhours update check {app}` for those there are")).into());
        };
        updates.pending.truncate(last + 1);
    }
    let times = context.times();
    context.ui.answer(&updates, |updates| text::app::notes(updates, &times))?;
    Ok(Ending::Good)
}

async fn allow(args: AllowArgs, doer: &Doer, context: &Context<'_>) -> Result<Ending, CliError> {
    let AllowArgs { version, app, list: _ } = args;
    let Some(version) = version else { return list_quarantined(app, doer, context).await };
    let app = named_or_only(app, doer.apps().await?)?;
    let allowed = doer.allow_release(&app, version).await?;
    context.ui.answer(&allowed, |allowed| match allowed.was_held_back {
        true => format!("{} {} is tried again.", allowed.app, allowed.version),
        false => format!("{} {} was not held back; nothing has changed.", allowed.app, allowed.version),
    })?;
    Ok(Ending::Good)
}

/// What failed here, of one application or of all, Afterhours included.
async fn list_quarantined(app: Option<AppName>, doer: &Doer, context: &Context<'_>) -> Result<Ending, CliError> {
    let apps = match app {
        Some(app) => vec![app],
        None => {
            let ours = Renewal::name().map_err(|error| CliError::failed("name Afterhours", &error))?;
            doer.apps().await?.into_iter().chain([ours]).collect()
        }
    };
    let mut held = Vec::new();
    for app in apps {
        held.extend(doer.quarantined(&app).await?);
    }
    context.ui.answer(&held, |held| text::app::quarantined(held, &context.times()))?;
    Ok(Ending::Good)
}

async fn now(args: NowArgs, doer: Doer, context: &Context<'_>) -> Result<Ending, CliError> {
    let NowArgs { app, to, grace, repair, restart, yes, resume } = args;
    let app = named_or_only(app, doer.apps().await?)?;
    // Who goes on with a run was asked when it began.
    if !yes && resume.is_none() {
        match doer.updates(&app).await {
            Ok(updates) => {
                context.ui.say(text::app::updates(&updates, &context.times()));
                // An order takes what is held back.
                let nothing = updates.pending.iter().all(|release| release.held.is_some()) && to.is_none();
                if nothing && context.ui.can_ask() {
                    context.ui.done(&updates, "There is nothing to do.")?;
                    return Ok(Ending::Good);
                }
            }
            // There may be a way to the version that was named, and none to the newest.
            Err(error) if to.is_some() && error.kind() == ErrorKind::Failed => context.ui.warn(&error.view().message),
            Err(error) => return Err(error),
        }
        if let Doer::Daemon(client) = &doer {
            name_the_affected(&app, client, context).await;
        }
        context.ui.confirm(&format!("Update {app} now?"), false)?;
    }
    match doer {
        Doer::Daemon(client) => {
            let run = match resume {
                Some(run) => run,
                None => client.update_now(&app, &UpdateNow { to, grace, repair }).await?.id,
            };
            context.ui.say(format_args!("Started run {run}. Ctrl-C stops watching, not the run."));
            let ending = follow::to_the_end(&client, run, Lines::AsTalk, context).await?;
            offer_restart(context.settings().ok().as_ref(), &app, ending, restart, context)?;
            Ok(ending)
        }
        Doer::Ourselves(Alone { settings, .. }) => {
            let (ask, origin) = (UpdateNow { to, grace, repair }, context.origin()?);
            let drive = |events| alone::update_now((*settings).clone(), origin, &app, ask, resume, events);
            let run = match follow::here(drive, context).await? {
                Updated::Run(run) => *run,
                Updated::GoesOver(relaunch) => return Err(CliError::renewal(&relaunch.in_our_place())),
            };
            context.ui.answer(&run, text::run::ending)?;
            let ending = Ending::of_run(&run);
            offer_restart(Some(&settings), &app, ending, restart, context)?;
            Ok(ending)
        }
    }
}

/// "Restart": starts the program that is no service again, when that is wished.
fn offer_restart(
    settings: Option<&Settings>,
    app: &AppName,
    ending: Ending,
    restart: bool,
    context: &Context<'_>,
) -> Result<(), CliError> {
    let restart_by = settings.and_then(|settings| settings.apps.get(app)).and_then(|app| app.restart.as_ref());
    let Some(restart_by) = restart_by else { return Ok(()) };
    let wished = restart || (context.ui.can_ask() && context.ui.confirm(&format!("Start {app} again?"), false).is_ok());
    if ending != Ending::Good || !wished {
        return Ok(());
    }
    // It lives on when we end: a session of its own, and nothing of our terminal.
    let program = restart_by.program();
    let mut command = restarting(restart_by)
        .map_err(|refusal| CliError::failed(format!("start {program}"), &refusal).hint(refusal.remedy()))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    system::leave_the_terminal(&mut command);
    command.spawn().map_err(|error| CliError::failed(format!("start {program}"), &error))?;
    context.ui.say(format_args!("Started {program}."));
    Ok(())
}

/// How the program is started again: in the environment of the person who asks; by root as the user it is for, with a
/// way to the screen and nothing else of root's.
fn restarting(by: &Command) -> Result<std::process::Command, Refusal> {
    let permit = permit::permit(by, Path::new("/"))?;
    let path = permit.program.map_or_else(|| by.program().into(), PathBuf::into_os_string);
    let mut command = std::process::Command::new(path);
    command.arg0(by.program()).args(by.argv.iter().skip(1)).envs(&by.env);
    if Account::own().is_root() {
        let screen = SCREEN.iter().filter_map(|key| std::env::var_os(key).map(|value| (*key, value)));
        command.env_clear().envs(permit.env).envs(screen).current_dir("/");
        system::become_user(&mut command, &permit.account);
    }
    Ok(command)
}
