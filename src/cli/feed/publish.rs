//! `afterhours feed publish`.

use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::NaiveDate;
use chrono::SubsecRound;
use chrono::Utc;
use clap::ArgGroup;
use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::blocking;
use crate::cli::feed::download::Bar;
use crate::cli::feed::passphrase::KeyArgs;
use crate::cli::text;
use crate::cli::text::Times;
use crate::domain::answers::Answers;
use crate::domain::release::ReleaseId;
use crate::domain::release::Rollout;
use crate::domain::release::Version;
use crate::feed::pack::PackMeta;
use crate::feed::vendor;
use crate::feed::vendor::Content;
use crate::feed::vendor::Place;
use crate::feed::vendor::Published;

/// Publish a release into a feed.
///
/// The tree is packed, described and signed; the same tree gives the same archive. What a site would refuse is refused
/// here. A site sees the release only when everything of it is in DIR/published and has been uploaded.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("content").args(["tree", "updater"]).required(true),
    after_help = "\
Examples:
  afterhours feed publish /srv/feeds/orders --version 2.4.1 --build 24 --tree build/orders --notes NEWS.md
  afterhours feed publish /srv/feeds/orders --version 3.0 --build 25 --tree build/orders --barrier
      --min-version 2.4 --migrate bin/migrate --migrate --yes
  afterhours feed publish /srv/feeds/orders --version 2.4.2 --build 26 --tree build/orders --security
  afterhours feed publish /srv/feeds/afterhours --updater --version 1.1.0 --build 3
      --triple x86_64-unknown-linux-gnu --binary target/dist/afterhours
  afterhours feed publish /srv/feeds/orders --updater --from /srv/feeds/afterhours/published"
)]
pub(crate) struct PublishArgs {
    /// The feed's folder
    dir: PathBuf,
    /// For people, and what the running application must answer
    #[arg(long, required_unless_present = "from")]
    version: Option<Version>,
    /// For ordering; above that of every release before
    #[arg(long, value_name = "N", required_unless_present = "from")]
    build: Option<u64>,
    /// What is packed
    #[arg(long, value_name = "PATH")]
    tree: Option<PathBuf>,
    /// What is new, in Markdown
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// The lowest version that may be updated to this one directly
    #[arg(long, value_name = "V")]
    min_version: Option<Version>,
    /// The lowest version of Afterhours that can install it; sites update Afterhours first where the feed has one
    #[arg(long, value_name = "V", conflicts_with = "updater")]
    min_afterhours: Option<Version>,
    /// No update may jump over this release
    #[arg(long)]
    barrier: bool,
    /// The program that migrates the data, then each of its arguments by a --migrate of its own
    #[arg(long, value_name = "CMD", allow_hyphen_values = true, conflicts_with = "updater")]
    migrate: Vec<String>,
    /// The migration must run as root, which every site has to allow; it runs as the owner of the tree otherwise
    #[arg(long, requires = "migrate")]
    migrate_as_root: bool,
    /// What it answers when it is asked for its version; a * at the end stands for whatever follows [default: the version]
    #[arg(long, value_name = "TEXT", conflicts_with = "updater")]
    answers: Option<Answers>,
    /// It mends a hole that others may use: no cool-down, no rollout
    #[arg(long)]
    security: bool,
    /// Spread it over the sites within so many hours
    #[arg(long, value_name = "N")]
    rollout_hours: Option<u32>,
    /// When the first sites take it [default: now]
    #[arg(long, value_name = "INSTANT", requires = "rollout_hours")]
    rollout_start: Option<DateTime<Utc>>,
    /// A class of licences it is for [default: all]
    #[arg(long, value_name = "CLASS")]
    licence: Vec<String>,
    /// The day that people are told [default: today]
    #[arg(long, value_name = "DAY")]
    date: Option<NaiveDate>,
    /// From how many builds before it small downloads are made; 0 for none
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(..=16))]
    #[arg(conflicts_with = "updater")]
    deltas: u64,
    /// Publish `afterhours` itself, which sites take before any release, into a feed made with `feed create --updater`
    #[arg(long)]
    updater: bool,
    /// Carry the published folder of such a feed in this one, as it is; needs no key, and sites believe its makers alone
    #[arg(long, value_name = "PUBLISHED", requires = "updater")]
    #[arg(conflicts_with_all = ["version", "build", "triple", "binary", "notes"])]
    from: Option<PathBuf>,
    /// The platform of the --binary that follows; both may be repeated
    #[arg(long, value_name = "T", requires = "updater")]
    triple: Vec<String>,
    /// The program for that platform
    #[arg(long, value_name = "PATH", requires = "updater", required_unless_present_any = ["from", "tree"])]
    binary: Vec<PathBuf>,
    /// Publish it also where the release before is below --min-version, without asking
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Does what the arguments say.
pub(crate) async fn run(args: PublishArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    // Nobody reads fractions of a second.
    let now = context.now().trunc_subsecs(0);
    if let Some(from) = args.from {
        let place = Place { dir: args.dir, keys: Vec::new(), passphrases: None };
        let carried = blocking(move || vendor::carry(place, &from)).await?;
        context.ui.answer(&carried, |carried| {
            format!(
                "{} carries Afterhours now. Carry it again before its signatures run out: {}.",
                carried.into.display(),
                carried.holds_until
            )
        })?;
        return Ok(Ending::Good);
    }
    let content = content(&args)?;
    let (Some(version), Some(build)) = (args.version.clone(), args.build) else {
        return Err(CliError::usage("neither version nor build is named", "name both: --version V --build N"));
    };
    let notes = read_notes(args.notes.as_deref())?;
    if let Some(needs) = args.min_version.clone().filter(|_| args.tree.is_some()) {
        let look = Place { dir: args.dir.clone(), keys: Vec::new(), passphrases: None };
        let standing = blocking(move || vendor::standing(look)).await?;
        // Only sites that were brought to that version by hand could take it.
        if let Some(before) = standing.releases.last().filter(|before| needs > before.version) {
            let question = format!(
                "Publish it for no site? It needs at least version {needs}, and the release before it is {before}."
            );
            context.ui.confirm(&question, args.yes)?;
        }
    }
    let meta = PackMeta {
        date: Some(args.date.unwrap_or_else(|| now.date_naive())),
        notes,
        min_version: args.min_version,
        min_afterhours: args.min_afterhours,
        barrier: args.barrier,
        migrate: (!args.migrate.is_empty()).then_some(args.migrate),
        migrate_as_root: args.migrate_as_root,
        answers: args.answers,
        published_at: Some(now),
        security: args.security,
        rollout: args.rollout_hours.map(|hours| Rollout { start: args.rollout_start.unwrap_or(now), hours }),
        licences: args.licence,
        ..PackMeta::new(ReleaseId { version, build })
    };
    let place = args.keys.place(args.dir, context.ui)?;
    context.ui.say(format_args!("Packing {}; a large tree takes a while.", meta.id));
    let deltas = usize::try_from(args.deltas).unwrap_or(usize::MAX);
    let bar = Bar::new(context.ui, 0);
    let published = blocking(move || vendor::publish_watched(place, &meta, &content, deltas, now, &bar)).await?;
    if let Some(because) = &published.without_deltas {
        context.ui.warn(format!("There are no small downloads: {because}."));
    }
    context.ui.answer(&published, |published| shown(published, &context.times()))?;
    Ok(Ending::Good)
}

/// What is new; nothing where no file is named.
pub(crate) fn read_notes(file: Option<&Path>) -> Result<String, CliError> {
    let Some(file) = file else { return Ok(String::new()) };
    fs_err::read_to_string(file).map_err(|error| {
        CliError::failed("read the notes", &error).hint("name a file in UTF-8 with what is new: --notes FILE")
    })
}

fn content(args: &PublishArgs) -> Result<Content, CliError> {
    let Some(tree) = &args.tree else {
        if args.triple.len() != args.binary.len() {
            return Err(CliError::usage(
                format!("{} platforms and {} programs are named", args.triple.len(), args.binary.len()),
                "name a --triple for each --binary",
            ));
        }
        return Ok(Content::Updater(args.triple.iter().cloned().zip(args.binary.iter().cloned()).collect()));
    };
    Ok(Content::Tree(tree.clone()))
}

fn shown(published: &Published, times: &Times) -> String {
    let size: u64 = published.archives.iter().map(|archive| archive.size_bytes).sum();
    let deltas = published.archives.iter().flat_map(|archive| &archive.deltas);
    let small: Vec<String> =
        deltas.map(|delta| format!("{} from build {}", text::bytes(delta.size_bytes), delta.from_build)).collect();
    let small = if small.is_empty() { String::new() } else { format!(" ({})", small.join(", ")) };
    format!(
        "Published {}, {}{small}. The feed holds until {}.",
        published.id,
        text::bytes(size),
        times.at_and_away(published.holds_until)
    )
}
