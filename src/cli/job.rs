//! `afterhours job`: what administrators define.

use clap::Args;
use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::doer::Doer;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::follow;
use crate::cli::follow::Lines;
use crate::cli::job_args::CreateArgs;
use crate::cli::job_args::EditArgs;
use crate::cli::text;
use crate::client::api::Client;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::span::Span;
use crate::wire::job::JobChanged;
use crate::wire::job::RunJob;
use crate::wire::job::StartKind;
use crate::wire::job::StartRequest;

/// Create, show, change and start update jobs.
///
/// A job says which application is updated and when. Each time it starts, that is a run; see `afterhours run --help`.
/// Where no daemon runs, nothing starts; list, show and history then read its store.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct JobArgs {
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    Create(Box<CreateArgs>),
    /// List all jobs
    #[command(alias = "ls")]
    List,
    /// Show one job
    Show(NameArgs),
    Edit(Box<EditArgs>),
    Enable(EnableArgs),
    Disable(DisableArgs),
    #[command(aliases = ["rm", "remove"])]
    Delete(DeleteArgs),
    #[command(alias = "start")]
    Run(RunJobArgs),
    Plan(PlanArgs),
    #[command(alias = "log")]
    History(HistoryArgs),
}

/// Which job.
#[derive(Debug, Args)]
struct NameArgs {
    /// The job
    name: JobName,
}

/// Let a job start by itself.
///
/// A job that starts immediately starts at once: you are warned who is logged in.
#[derive(Debug, Args)]
struct EnableArgs {
    /// The job
    name: JobName,
    /// Answer yes to every question
    #[arg(long)]
    yes: bool,
}

/// Keep a job from starting by itself.
///
/// A run that is under way goes on; stop it with `afterhours run cancel`.
#[derive(Debug, Args)]
struct DisableArgs {
    /// The job
    name: JobName,
}

/// Delete a job; its runs stay in the history.
#[derive(Debug, Args)]
struct DeleteArgs {
    /// The job
    name: JobName,
    /// Answer yes to every question
    #[arg(long)]
    yes: bool,
}

/// Start a job now, whenever it is due.
///
/// Who is logged in is named, and you are asked, because they are logged out when the grace period is over. With --wait
/// the run is followed to its end: 0 it succeeded, 1 it failed before anything was touched, 5 everything was put back,
/// 6 it is stuck.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours job run nightly
  afterhours job run nightly --yes --wait && echo \"the new version runs\"")]
struct RunJobArgs {
    /// The job
    name: JobName,
    /// How long users have this time [default: the job's]
    #[arg(long, value_name = "SPAN")]
    grace: Option<Span>,
    /// Follow the run to its end
    #[arg(long)]
    wait: bool,
    /// Answer yes to every question
    #[arg(long)]
    yes: bool,
}

/// Show what a run would do, in order; nothing is changed.
///
/// The version path, the files, the disk space, the expected downtime, who is affected, who gets a mail, and what would
/// keep the run from beginning.
#[derive(Debug, Args)]
struct PlanArgs {
    /// The job
    name: JobName,
}

/// Show the runs of a job, newest first.
#[derive(Debug, Args)]
struct HistoryArgs {
    /// The job
    name: JobName,
    /// How many at most
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u32>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: JobArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let client = context.client()?;
    let ui = context.ui;
    let times = context.times();
    match args.command {
        JobCommand::Create(args) => create(*args, &client, context).await?,
        JobCommand::List => {
            ui.answer(&Doer::find(context).await?.jobs().await?, |jobs| text::job::list(jobs, &times))?;
        }
        JobCommand::Show(NameArgs { name }) => {
            ui.answer(&Doer::find(context).await?.job(&name).await?, |job| text::job::show(job, &times))?;
        }
        JobCommand::Edit(args) => edit(*args, &client, context).await?,
        JobCommand::Enable(args) => enable(&args, &client, context).await?,
        JobCommand::Disable(DisableArgs { name }) => {
            say_changed("Disabled", &client.disable_job(&name).await?, context)?;
        }
        JobCommand::Delete(DeleteArgs { name, yes }) => {
            ui.confirm(&format!("Delete the job {name}?"), yes)?;
            client.delete_job(&name).await?;
            ui.done(
                &serde_json::json!({ "deleted": name }),
                format!("Deleted job {name}; its runs stay in the history."),
            )?;
        }
        JobCommand::Run(args) => return run_now(args, &client, context).await,
        JobCommand::Plan(PlanArgs { name }) => {
            ui.answer(&Doer::find_for_disk(context).await?.plan(&name).await?, |plan| text::plan::show(plan, &times))?;
        }
        JobCommand::History(HistoryArgs { name, limit }) => {
            let runs = Doer::find(context).await?.job_history(&name, limit).await?;
            ui.answer(&runs, |runs| text::run::list(runs, &times))?;
        }
    }
    Ok(Ending::Good)
}

async fn create(args: CreateArgs, client: &Client, context: &Context<'_>) -> Result<(), CliError> {
    let yes = args.yes;
    let job = args.request()?;
    if job.start == StartRequest::Immediate {
        name_the_affected(&job.app, client, context).await;
        context
            .ui
            .confirm("It logs out everybody as soon as it is enabled and the grace period is over. Create it?", yes)?;
    }
    say_changed("Created", &client.create_job(&job).await?, context)
}

async fn edit(args: EditArgs, client: &Client, context: &Context<'_>) -> Result<(), CliError> {
    let (name, yes) = (args.name.clone(), args.yes);
    let edit = args.request()?;
    if edit.start == Some(StartRequest::Immediate) {
        let app = match &edit.app {
            Some(app) => app.clone(),
            None => client.show_job(&name).await?.app,
        };
        name_the_affected(&app, client, context).await;
        context
            .ui
            .confirm("It logs out everybody as soon as it is enabled and the grace period is over. Change it?", yes)?;
    }
    say_changed("Changed", &client.edit_job(&name, &edit).await?, context)
}

async fn enable(args: &EnableArgs, client: &Client, context: &Context<'_>) -> Result<(), CliError> {
    let job = client.show_job(&args.name).await?;
    if job.start.kind == StartKind::Immediate && !job.enabled {
        name_the_affected(&job.app, client, context).await;
        // Whoever created it has agreed already; a script is not asked twice.
        if context.ui.can_ask() {
            context.ui.confirm(
                "It starts at once and logs out everybody when the grace period is over. Enable it?",
                args.yes,
            )?;
        }
    }
    say_changed("Enabled", &client.enable_job(&args.name).await?, context)
}

async fn run_now(args: RunJobArgs, client: &Client, context: &Context<'_>) -> Result<Ending, CliError> {
    let RunJobArgs { name, grace, wait, yes } = args;
    let app = client.show_job(&name).await?.app;
    if !yes && name_the_affected(&app, client, context).await {
        context.ui.confirm("They are logged out when the grace period is over. Start it now?", false)?;
    }
    let run = client.run_job(&name, &RunJob { grace }).await?;
    if !wait {
        let id = run.id;
        context
            .ui
            .done(&run, format!("Started run {id} of job {name}. Follow it with `afterhours run watch {id}`."))?;
        return Ok(Ending::Good);
    }
    context.ui.say(format_args!("Started run {} of job {name}. Ctrl-C stops watching, not the run.", run.id));
    follow::to_the_end(client, run.id, Lines::AsTalk, context).await
}

/// Says who is logged in, and whether anybody is or may be.
pub(crate) async fn name_the_affected(app: &AppName, client: &Client, context: &Context<'_>) -> bool {
    let unknown = |reason: &str| {
        context.ui.warn(format_args!("who is logged in to {app} cannot be known now: {reason}"));
        true
    };
    match client.list_sessions(app).await {
        Err(error) => unknown(&error.view().message),
        Ok(view) if !view.known => unknown(view.reason.as_deref().unwrap_or("no reason is given")),
        Ok(view) if view.sessions.is_empty() => {
            context.ui.say(format_args!("Nobody is logged in to {app} now."));
            false
        }
        Ok(view) => {
            context.ui.warn(format_args!("{} of {app}:", text::count(view.sessions.len(), "session")));
            context.ui.say(text::indented(&text::app::sessions(&view.sessions, &context.times())));
            true
        }
    }
}

fn say_changed(verb: &str, changed: &JobChanged, context: &Context<'_>) -> Result<(), CliError> {
    context.ui.answer(changed, |changed| text::job::changed(verb, changed, &context.times()))?;
    for warning in &changed.warnings {
        context.ui.warn(warning);
    }
    Ok(())
}
