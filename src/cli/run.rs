//! `afterhours run`: executions of jobs.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;
use tokio::io::AsyncWriteExt;

use crate::cli::context::Context;
use crate::cli::doer::Alone;
use crate::cli::doer::Doer;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::follow;
use crate::cli::follow::Lines;
use crate::cli::text;
use crate::daemon::alone;
use crate::daemon::alone::Word;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::run::RunId;
use crate::domain::run::Side;
use crate::wire::error::ErrorKind;
use crate::wire::run::LookView;
use crate::wire::run::ResolveRun;
use crate::wire::run::RunStateName;
use crate::wire::run::RunsQuery;

/// List, watch, stop and decide runs.
///
/// A run is one execution of a job. It goes through its steps in order; when one fails, everything is put back as it
/// was. A run that can go neither forward nor back is stuck, and waits for a person. Where no daemon runs, list, show
/// and bundle read its store, and retry and resolve see the run through.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct RunArgs {
    #[command(subcommand)]
    command: RunCommand,
}

#[derive(Debug, Subcommand)]
enum RunCommand {
    #[command(alias = "ls")]
    List(ListArgs),
    #[command(aliases = ["log", "logs"])]
    Show(ShowArgs),
    Watch(WatchArgs),
    Cancel(CancelArgs),
    Retry(RetryArgs),
    Resolve(ResolveArgs),
    Bundle(BundleArgs),
}

/// List runs, newest first.
#[derive(Debug, Args)]
struct ListArgs {
    /// Only of this application
    #[arg(long)]
    app: Option<AppName>,
    /// Only of this job
    #[arg(long)]
    job: Option<JobName>,
    /// How many at most [default: 100]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u32>,
}

/// Show one run: its steps, their durations, the downtime, and why it did not succeed.
#[derive(Debug, Args)]
struct ShowArgs {
    /// The run
    run: RunId,
}

/// Follow a run live until it is finished or stuck.
///
/// What has happened so far is shown first. Ctrl-C stops watching, not the run. Exits with 0 when it succeeded, 1 when
/// it failed before anything was touched, 5 when everything was put back, 6 when it is stuck.
#[derive(Debug, Args)]
struct WatchArgs {
    /// The run
    run: RunId,
}

/// Stop a run.
///
/// Before the new version is accepted, everything is put back as it was; after that, a run only goes forward. Answers at
/// once; `run watch` shows the way back.
#[derive(Debug, Args)]
struct CancelArgs {
    /// The run
    run: RunId,
}

/// Let a stuck run try again.
///
/// Remove the cause first; `run show` names it. The run goes on where it failed: it puts back what is not put back yet,
/// or, where the new version was accepted, does what is left to do; then it reports. With --wait, and without a daemon,
/// this command stays until it is over: 0 then, 6 when it is stuck again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours run show 7
  afterhours run retry 7 --wait")]
struct RetryArgs {
    /// The run
    run: RunId,
    /// Stay until it is over
    #[arg(long)]
    wait: bool,
}

/// Say which version of a stuck run is the good one.
///
/// Where the cause can be removed, `run retry` is the better way. Look at the application first: which version answers,
/// and are its data whole? This command looks, too, and says what it finds. The run takes your word, does what is left
/// to do, starts that version, opens the gate when it answers its health check, and reports. Without a daemon, this
/// command stays until it is over: 0 then, 6 when it is stuck again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours run show 7
  afterhours run resolve 7 --as old")]
struct ResolveArgs {
    /// The run
    run: RunId,
    /// The good version: the one before the run, or the one after it
    #[arg(long = "as", value_name = "SIDE", value_enum)]
    side: SideArg,
    /// Open the gate also if that version does not answer its health check
    #[arg(long)]
    open_gate: bool,
    /// Answer yes to every question
    #[arg(long)]
    yes: bool,
}

/// Save what support needs to know of a run; there are no secrets in it.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterhours run bundle 7 -o run-7.tar.zst")]
struct BundleArgs {
    /// The run
    run: RunId,
    /// Where to; replaced when it exists
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Which version is the good one.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SideArg {
    /// The version before the run
    Old,
    /// The version after it
    New,
}

impl From<SideArg> for Side {
    fn from(side: SideArg) -> Self {
        match side {
            SideArg::Old => Self::Old,
            SideArg::New => Self::New,
        }
    }
}

/// Does what the arguments say.
pub(crate) async fn run(args: RunArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let ui = context.ui;
    let times = context.times();
    match args.command {
        RunCommand::List(ListArgs { app, job, limit }) => {
            let runs = Doer::find(context).await?.runs(RunsQuery { app, job, limit }).await?;
            ui.answer(&runs, |runs| text::run::list(runs, &times))?;
        }
        RunCommand::Show(ShowArgs { run }) => {
            ui.answer(&Doer::find(context).await?.run(run).await?, |run| text::run::show(run, &times))?;
        }
        RunCommand::Watch(WatchArgs { run }) => {
            return follow::to_the_end(&context.client()?, run, Lines::AsData, context).await;
        }
        RunCommand::Cancel(CancelArgs { run }) => {
            let run = context.client()?.cancel_run(run).await?;
            ui.done(&run, text::run::cancelled(&run))?;
        }
        RunCommand::Retry(RetryArgs { run, wait }) => {
            return go_on(Doer::find(context).await?, run, Word::Retry, wait, context).await;
        }
        RunCommand::Resolve(args) => return resolve(args, context).await,
        RunCommand::Bundle(BundleArgs { run, output }) => {
            let bytes = save_bundle(&Doer::find(context).await?, run, &output).await?;
            let done = format!("Saved {} as {}.", text::bytes(bytes), output.display());
            ui.done(&serde_json::json!({ "run": run, "file": output, "size_bytes": bytes }), done)?;
        }
    }
    Ok(Ending::Good)
}

/// Says what is seen of the version that is in place, and asks.
async fn resolve(args: ResolveArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let ResolveArgs { run, side, open_gate, yes } = args;
    let doer = Doer::find(context).await?;
    let side = Side::from(side);
    let LookView { version, unwell } = doer.look_at_run(run, side).await?;
    let version = version.map(|version| format!(" {version}")).unwrap_or_default();
    let seen = match (&unwell, open_gate) {
        (None, _) => format!("the {} version{version} is in place and answers its health check", side.name()),
        (Some(failure), true) => format!(
            "the {} version{version} is in place, but does not answer its health check ({failure}); the gate is opened all the same",
            side.name()
        ),
        (Some(failure), false) => format!(
            "the {} version{version} is in place, but does not answer its health check ({failure}); it is started, and the gate stays closed until it answers",
            side.name()
        ),
    };
    if yes {
        context.ui.say(format!("Run {run}: {seen}."));
    }
    context.ui.confirm(&format!("Run {run}: {seen}. Is it the good one, with its data whole?"), yes)?;
    go_on(doer, run, Word::Resolve(ResolveRun { side, open_gate }), false, context).await
}

/// The daemon takes the word and goes on; where none runs, we see it through.
async fn go_on(doer: Doer, id: RunId, word: Word, wait: bool, context: &Context<'_>) -> Result<Ending, CliError> {
    let run = match doer {
        Doer::Daemon(client) => {
            let run = match word {
                Word::Retry => client.retry_run(id).await?,
                Word::Resolve(ask) => client.resolve_run(id, ask).await?,
            };
            if wait {
                follow::to_the_end(&client, id, Lines::AsTalk, context).await?;
                client.show_run(id).await?
            } else {
                let done = format!("Run {id} goes on; watch it with `afterhours run watch {id}`.");
                context.ui.done(&run, done)?;
                return Ok(Ending::Good);
            }
        }
        Doer::Ourselves(Alone { settings, .. }) => {
            let run = follow::here(|events| alone::go_on(*settings, id, word, events), context).await?;
            context.ui.answer(&run, text::run::ending)?;
            run
        }
    };
    // What was asked for is done, whichever version it was.
    Ok(if run.state == RunStateName::Stuck { Ending::Bad(ErrorKind::Stuck) } else { Ending::Good })
}

/// Under its name there is a whole bundle or none.
async fn save_bundle(doer: &Doer, run: RunId, output: &Path) -> Result<u64, CliError> {
    let failed = |error: &dyn std::error::Error| CliError::failed(format!("write {}", output.display()), error);
    let dir = match output.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let (file, path) = tempfile::NamedTempFile::new_in(dir).map_err(|error| failed(&error))?.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let bytes = match doer {
        Doer::Daemon(client) => client.run_bundle(run, &mut file).await?,
        Doer::Ourselves(alone) => {
            let bundle = alone.look().await?.bundle(run).await?;
            file.write_all(&bundle).await.map_err(|error| failed(&error))?;
            bundle.len() as u64
        }
    };
    file.sync_all().await.map_err(|error| failed(&error))?;
    path.persist(output).map_err(|error| failed(&error))?;
    Ok(bytes)
}
