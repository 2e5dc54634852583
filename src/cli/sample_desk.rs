//! `afterhours sample-desk`: the sample application that the demo updates. Not in the help.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::domain::clock::SystemClock;
use crate::sample::Login;
use crate::sample::care;
use crate::sample::desk::Person;
use crate::sample::desk::Till;
use crate::sample::error::SampleError;
use crate::sample::migrate::migrate;
use crate::sample::server;
use crate::sample::tree::Program;

/// Order desk: the sample application that the demo updates.
#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    #[command(subcommand)]
    command: SampleCommand,
}

#[derive(Debug, Subcommand)]
enum SampleCommand {
    /// Serve the pages until told to stop
    Serve(Tree),
    /// Bring the data to the schema of this version
    Migrate(Tree),
    /// Log in and enter orders until told to stop
    Desk(DeskArgs),
    /// Log in once and look at the orders
    Probe(ProbeArgs),
    /// Write the data as a file into a directory
    Backup(IntoArgs),
    /// Write one text for every bit of the data into a file
    Fingerprint(IntoArgs),
}

/// Which version.
#[derive(Debug, Args)]
struct Tree {
    /// The tree of the program
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
}

/// Who logs in, to which version.
#[derive(Debug, Args)]
struct ProbeArgs {
    #[command(flatten)]
    tree: Tree,
    /// Who logs in
    #[arg(long, value_name = "NAME")]
    user: String,
    /// A file with the password
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
}

/// Who works, and where it is noted.
#[derive(Debug, Args)]
struct DeskArgs {
    #[command(flatten)]
    who: ProbeArgs,
    /// Where confirmed orders are noted
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// Where it is said how the work stands
    #[arg(long, value_name = "FILE", env = "AFTERHOURS_STATUS_FILE")]
    status: Option<PathBuf>,
}

/// From the data of a version to somewhere.
#[derive(Debug, Args)]
struct IntoArgs {
    #[command(flatten)]
    tree: Tree,
    /// Where to
    #[arg(long, value_name = "PATH")]
    into: PathBuf,
}

/// Does what the arguments say.
pub(crate) async fn run(args: SampleArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    match act(args.command, context).await {
        Ok(Some(line)) => context.ui.data(line)?,
        Ok(None) => {}
        Err(error) => return Err(CliError::failed("run Order desk", &error)),
    }
    Ok(Ending::Good)
}

async fn act(command: SampleCommand, context: &Context<'_>) -> Result<Option<String>, SampleError> {
    Ok(match command {
        SampleCommand::Serve(Tree { root }) => {
            server::serve(&root).await?;
            None
        }
        SampleCommand::Migrate(Tree { root }) => {
            let Program { app, settings } = Program::load(&root)?;
            let done = migrate(&settings.data, app.schema)?;
            Some(format!("{} orders migrated from schema {} to {}", done.orders, done.from, done.to))
        }
        SampleCommand::Desk(DeskArgs { who, ledger, status }) => {
            let (mut till, program) = till(&who)?;
            let stop = stop_on_signal()?;
            let person = Person { program: program.app.version, ledger, status, clock: &SystemClock, stop };
            person.work(&mut till).await?;
            None
        }
        SampleCommand::Probe(who) => {
            let (mut till, _) = till(&who)?;
            till.log_in().await?;
            let orders = till.orders().await?.len();
            till.log_out().await;
            Some(format!("{} is logged in and sees {orders} orders", who.user))
        }
        SampleCommand::Backup(IntoArgs { tree, into }) => {
            let data = Program::load(&tree.root)?.settings.data;
            Some(care::backup(&data, &into, context.now())?.display().to_string())
        }
        SampleCommand::Fingerprint(IntoArgs { tree, into }) => {
            let print = care::fingerprint(&Program::load(&tree.root)?.settings.data)?;
            fs_err::write(&into, &print).map_err(SampleError::file("write", &into))?;
            Some(print)
        }
    })
}

fn till(who: &ProbeArgs) -> Result<(Till, Program), SampleError> {
    let program = Program::load(&who.tree.root)?;
    let login = Login { name: who.user.clone(), password: password(&who.password_file)? };
    Ok((Till::new(program.settings.listen, login)?, program))
}

fn password(file: &Path) -> Result<String, SampleError> {
    let text = fs_err::read_to_string(file).map_err(SampleError::file("read", file))?;
    Ok(text.trim_end().to_owned())
}

fn stop_on_signal() -> Result<CancellationToken, SampleError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(SampleError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SampleError::Signals)?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}
