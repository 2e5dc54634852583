//! `afterhours feed rotate`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::blocking;
use crate::cli::feed::passphrase::KeyArgs;
use crate::cli::feed::passphrase::read;
use crate::cli::feed::sign::lacks;
use crate::cli::feed::sign::waits;
use crate::cli::text::Times;
use crate::cli::text::count;
use crate::feed::vendor;
use crate::feed::vendor::Place;
use crate::feed::vendor::Replacement;
use crate::feed::vendor::Role;
use crate::feed::vendor::RoleStanding;
use crate::feed::vendor::Rotated;

/// Give a role of a feed another key.
///
/// A new root says so; sites follow it by themselves. It has to be signed with as many of the root's keys as the root
/// demands, and of the new ones when it is the root's that are replaced. Where some are elsewhere, the new root waits until
/// `feed sign` has added theirs. Old keys are put aside, into `retired`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours feed rotate /srv/feeds/orders timestamp --keys /media/stick
  afterhours feed rotate /srv/feeds/orders root --only 3f9a --keys /media/stick --new-keys /media/stick
  afterhours feed rotate /srv/feeds/orders targets --signer token.toml --keys /media/stick")]
pub(crate) struct RotateArgs {
    /// The feed's folder
    dir: PathBuf,
    /// root, targets, snapshot or timestamp
    role: Role,
    /// Replace only the key whose ID begins like this [default: all keys of the role]
    #[arg(long, value_name = "ID")]
    only: Option<String>,
    /// Where new keys are put [default: DIR/keys]
    #[arg(long, value_name = "DIR")]
    new_keys: Option<PathBuf>,
    /// What describes a command that signs with the new key, in place of a key file; once for each key that is replaced
    #[arg(long, value_name = "FILE")]
    signer: Vec<PathBuf>,
    /// A file whose first line seals the new keys [default: what opens the old ones]
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Replace all keys of a root that several have to sign, without asking
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Does what the arguments say.
pub(crate) async fn run(args: RotateArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let RotateArgs { dir, role, only, new_keys, signer, new_passphrase_file, yes, keys } = args;
    if role == Role::Root && only.is_none() {
        let look = Place { dir: dir.clone(), keys: Vec::new(), passphrases: None };
        let standing = blocking(move || vendor::standing(look)).await?;
        let shared = standing.roles.iter().find(|root| root.role == Role::Root && root.threshold > 1);
        if let Some(RoleStanding { threshold, keys, .. }) = shared {
            let question = format!(
                "Replace all {} keys of the root, and put the new ones into one folder? {threshold} of them have to sign, so \
                 they may belong to several people; --only replaces one.",
                keys.len()
            );
            context.ui.confirm(&question, yes)?;
        }
    }
    let mut place = keys.place(dir, context.ui)?;
    let new = new_passphrase_file.as_deref().map(read).transpose()?;
    place.passphrases = place.passphrases.map(|passphrases| passphrases.with_new(new));
    let replacement = Replacement { only, folder: new_keys, signers: signer };
    let now = context.now();
    let rotated = blocking(move || vendor::rotate(place, role, replacement, now)).await?;
    let times = context.times();
    context.ui.answer(&rotated, |rotated| text(rotated, &times))?;
    rotated.closed.iter().for_each(|closed| context.ui.warn(lacks(closed)));
    if let Some(pending) = &rotated.pending {
        context.ui.warn(waits(pending));
    }
    Ok(Ending::Good)
}

fn text(rotated: &Rotated, times: &Times) -> String {
    let made = format!("Replaced {} of {}.", count(rotated.new.len(), "key"), rotated.role);
    match rotated.pending {
        Some(_) => format!("{made} Nothing was published yet."),
        None => {
            format!(
                "{made} Root {} says so. The feed holds until {}.",
                rotated.root,
                times.at_and_away(rotated.holds_until)
            )
        }
    }
}
