//! `afterhours feed withdraw`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::blocking;
use crate::cli::feed::passphrase::KeyArgs;
use crate::feed::vendor;
use crate::feed::vendor::Place;
use crate::feed::vendor::VendorError;

/// Take a release back out of a feed.
///
/// No list names it any more and its files are removed; upload afterwards, and remove the folder of the build on the web
/// server as well. Sites that have not installed it go on without it. Sites that have keep it, and take the next release
/// from there: nothing is ever installed over a newer version's data. Its build is not given again, so publish what mends
/// it under a higher one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours feed withdraw /srv/feeds/orders 25
  afterhours feed withdraw /srv/feeds/orders 3 --updater --yes")]
pub(crate) struct WithdrawArgs {
    /// The feed's folder
    dir: PathBuf,
    /// Which build
    #[arg(value_name = "BUILD")]
    build: u64,
    /// A build of `afterhours` itself
    #[arg(long)]
    updater: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Does what the arguments say.
pub(crate) async fn run(args: WithdrawArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let WithdrawArgs { dir, build, updater, yes, keys } = args;
    let now = context.now();
    let look = Place { dir: dir.clone(), keys: Vec::new(), passphrases: None };
    let standing = blocking(move || vendor::standing(look)).await?;
    let (there, unreadable, gone) = match updater {
        true => (standing.updater, standing.unreadable_updater, standing.withdrawn_updater),
        false => (standing.releases, standing.unreadable, standing.withdrawn),
    };
    match there.iter().chain(unreadable.iter().map(|release| &release.id)).find(|id| id.build == build) {
        Some(id) => {
            let question = format!("Withdraw {id}? Sites that have it keep it, and it is never published again.");
            context.ui.confirm(&question, yes)?;
        }
        // A crash may have come before the files went.
        None if gone.iter().any(|id| id.build == build) => {}
        None => return Err(VendorError::NoSuchBuild { build }.into()),
    }
    let place = keys.place(dir, context.ui)?;
    let withdrawn = blocking(move || vendor::withdraw(place, build, updater, now)).await?;
    let until = context.times().at_and_away(withdrawn.holds_until);
    context.ui.done(&withdrawn, format_args!("Withdrew {}. The feed holds until {until}.", withdrawn.id))?;
    context.ui.say(format_args!(
        "Upload, then remove targets/{} on the web server. Sites that have it keep it until you publish a higher build.",
        withdrawn.location.display()
    ));
    Ok(Ending::Good)
}
