//! `afterhours feed pack`.

use std::path::PathBuf;

use chrono::NaiveDate;
use chrono::SubsecRound;
use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::blocking;
use crate::cli::feed::publish::read_notes;
use crate::cli::text;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::feed::pack::PackMeta;
use crate::feed::vendor;

/// Make a release in a feed that is a directory.
///
/// The tree is packed and described, with hashes and sizes, in the folder DIR/VERSION-BUILD; the same tree gives the same
/// archive. No site sees the folder before it is whole, and what a site would refuse is refused here. Nothing is signed:
/// whoever can write the directory decides what sites install, so as root it must be root's. For a web server, see
/// `afterhours feed publish`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours feed pack --dir /srv/releases/orders --version 2.4.1 --build 24 --tree build/orders --notes NEWS.md
  afterhours feed pack --dir /srv/releases/orders --version 3.0 --build 25 --tree build/orders --barrier
      --min-version 2.4 --migrate bin/migrate --migrate --yes")]
pub(crate) struct PackArgs {
    /// The directory that sites name as their feed
    #[arg(long)]
    dir: PathBuf,
    /// For people, and what the running application must answer
    #[arg(long)]
    version: Version,
    /// For ordering; no other release of the directory has it
    #[arg(long, value_name = "N")]
    build: u64,
    /// What is packed
    #[arg(long, value_name = "PATH")]
    tree: PathBuf,
    /// What is new, in Markdown
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// The lowest version that may be updated to this one directly
    #[arg(long, value_name = "V")]
    min_version: Option<Version>,
    /// The lowest version of Afterhours that can install it
    #[arg(long, value_name = "V")]
    min_afterhours: Option<Version>,
    /// No update may jump over this release
    #[arg(long)]
    barrier: bool,
    /// The program that migrates the data, then each of its arguments by a --migrate of its own
    #[arg(long, value_name = "CMD", allow_hyphen_values = true)]
    migrate: Vec<String>,
    /// The migration must run as root, which every site has to allow; it runs as the owner of the tree otherwise
    #[arg(long, requires = "migrate")]
    migrate_as_root: bool,
    /// It mends a hole that others may use: no cool-down
    #[arg(long)]
    security: bool,
    /// The day that people are told [default: today]
    #[arg(long, value_name = "DAY")]
    date: Option<NaiveDate>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: PackArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    // Nobody reads fractions of a second.
    let now = context.now().trunc_subsecs(0);
    let meta = PackMeta {
        date: Some(args.date.unwrap_or_else(|| now.date_naive())),
        notes: read_notes(args.notes.as_deref())?,
        min_version: args.min_version,
        min_afterhours: args.min_afterhours,
        barrier: args.barrier,
        migrate: (!args.migrate.is_empty()).then_some(args.migrate),
        migrate_as_root: args.migrate_as_root,
        published_at: Some(now),
        security: args.security,
        ..PackMeta::new(ReleaseId { version: args.version, build: args.build })
    };
    let (dir, tree) = (args.dir, args.tree);
    context.ui.say(format_args!("Packing {}; a large tree takes a while.", meta.id));
    let packed = blocking(move || vendor::pack_into(&dir, &meta, &tree)).await?;
    context.ui.answer(&packed, shown)?;
    Ok(Ending::Good)
}

fn shown(packed: &Release) -> String {
    format!("Packed {} into {}, {}.", packed.id, packed.location.display(), text::bytes(packed.size_bytes()))
}
