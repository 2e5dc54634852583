//! `afterhours feed tuf-client`: the client alone, for the public conformance suite.

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use url::Url;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::domain::failure::Failure;
use crate::feed::signed::tuf_client;
use crate::feed::signed::tuf_client::Targets;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// Be a TUF client without an application, as the public conformance suite asks.
///
/// The options come before the subcommand. Exits with 0 when all was well and with 1 when not. The metadata directory
/// holds only what is trusted: root.json, timestamp.json, snapshot.json, targets.json and one file for each delegated
/// role.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct TufClientArgs {
    /// Where trusted metadata are kept
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    /// Where the repository's metadata are
    #[arg(long, value_name = "URL")]
    metadata_url: Option<Url>,
    /// A target to download; may be given several times
    #[arg(long = "target-name", value_name = "NAME")]
    target_names: Vec<String>,
    /// Where downloaded targets go
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Where the repository's targets are
    #[arg(long, value_name = "URL")]
    target_base_url: Option<Url>,
    #[command(subcommand)]
    command: TufCommand,
}

#[derive(Debug, Subcommand)]
enum TufCommand {
    /// Trust a root
    Init {
        /// The root.json
        root: PathBuf,
    },
    /// Bring the metadata up to date
    Refresh,
    /// Bring the metadata up to date, then download the targets
    Download,
}

/// Does what the arguments say.
pub(crate) async fn run(args: TufClientArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let dir = &args.metadata_dir;
    let needed = |name: &str| CliError::usage(format!("{name} is missing"), "give it before the subcommand");
    let url = || args.metadata_url.as_ref().ok_or_else(|| needed("--metadata-url"));
    let done = match args.command {
        TufCommand::Init { root } => tuf_client::init(dir, &root),
        TufCommand::Refresh => tuf_client::refresh(dir, url()?, context.now()).await,
        TufCommand::Download => {
            if args.target_names.is_empty() {
                return Err(needed("--target-name"));
            }
            let url = url()?;
            let base = args.target_base_url.ok_or_else(|| needed("--target-base-url"))?;
            let into = args.target_dir.ok_or_else(|| needed("--target-dir"))?;
            let targets = Targets { names: args.target_names, base, dir: into };
            tuf_client::download(dir, url, &targets, context.now()).await
        }
    };
    // The suite knows one code for everything that is refused.
    done.map_err(|error| {
        let view = ErrorView::from_failure(ErrorKind::Failed, Failure::from_error(&error));
        CliError::from(ErrorView { hint: error.hint(), ..view })
    })?;
    Ok(Ending::Good)
}
