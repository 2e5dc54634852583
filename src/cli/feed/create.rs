//! `afterhours feed create`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::blocking;
use crate::cli::feed::passphrase::PassphraseArgs;
use crate::cli::feed::passphrase::Sealed;
use crate::cli::feed::passphrase::Shown;
use crate::cli::feed::passphrase::Written;
use crate::cli::feed::show;
use crate::cli::text::Times;
use crate::domain::name::AppName;
use crate::domain::span::Span;
use crate::feed::vendor;
use crate::feed::vendor::FeedStanding;
use crate::feed::vendor::Hold;
use crate::feed::vendor::NewFeed;
use crate::feed::vendor::Quorum;
use crate::feed::vendor::Role;
use crate::feed::vendor::Scheme;

/// Create a feed with its keys.
///
/// DIR/published is what is uploaded; DIR/root.json is what sites are given once, on a way that they trust; DIR/keys are
/// the keys, sealed with a passphrase. The keys of the root are needed once a year and when a key is replaced: put them on
/// a stick with --keys, several of them with --root-keys, and keep it in a safe; or say --together. Keys of targets may be carried away as
/// well; `feed publish --keys` finds them where they are. --root-signer and --targets-signer leave keys in a smart card or an HSM: a
/// command of yours signs there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours feed create /srv/feeds/orders --keys /media/stick
  afterhours feed create /srv/feeds/orders --keys /media/stick --root-keys 3 --root-threshold 2
  afterhours feed create /srv/feeds/orders --root-signer card.toml --targets-signer token.toml
  afterhours feed create /srv/feeds/orders --together --passphrase-file ~/orders.pw --online-passphrase-file /etc/orders-feed.pw")]
pub(crate) struct CreateArgs {
    /// A folder that does not exist, or is empty
    dir: PathBuf,
    /// How archives are called before their version [default: the name of DIR]
    #[arg(long)]
    name: Option<AppName>,
    /// Where the keys of the root are put, apart from the others, such as a stick
    #[arg(long, value_name = "DIR", conflicts_with = "together")]
    keys: Option<PathBuf>,
    /// Put the keys of the root into DIR/keys, with the others
    #[arg(long)]
    together: bool,
    /// For releases of Afterhours itself, which other feeds carry: `feed publish DIR --updater --from DIR/published`
    #[arg(long)]
    updater: bool,
    /// How many keys the root has [default: 1, or one for each --root-signer]
    #[arg(long, value_name = "N")]
    root_keys: Option<usize>,
    /// How many of them have to sign
    #[arg(long, value_name = "N", default_value_t = 1)]
    root_threshold: usize,
    /// What describes a command that signs for the root, in place of a key file; may be repeated
    #[arg(long, value_name = "FILE")]
    root_signer: Vec<PathBuf>,
    /// How many keys vouch for releases [default: 1, or one for each --targets-signer]
    #[arg(long, value_name = "N")]
    targets_keys: Option<usize>,
    /// How many of them have to sign a release
    #[arg(long, value_name = "N", default_value_t = 1)]
    targets_threshold: usize,
    /// What describes a command that vouches for releases, in place of a key file; may be repeated
    #[arg(long, value_name = "FILE")]
    targets_signer: Vec<PathBuf>,
    /// What keys sign with: ed25519 or ecdsa-p256
    #[arg(long, default_value = "ed25519")]
    scheme: Scheme,
    #[command(flatten)]
    hold: HoldArgs,
    /// Make the passphrases: written into the files that are named, else shown once
    #[arg(long)]
    generate_passphrases: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Created {
    #[serde(flatten)]
    standing: FeedStanding,
    passphrases: Shown,
}

fn text(created: &Created, times: &Times) -> String {
    let Shown { keys, root, online } = &created.passphrases;
    let mut text = show::text(&created.standing, times);
    for (whose, secret) in [("targets", keys), ("the root", root), ("timestamp and snapshot", online)] {
        if let Some(secret) = secret {
            text += "\nPassphrase of ";
            text += whose;
            text += ", shown only now: ";
            text += secret;
        }
    }
    text
}

/// For how long signatures hold.
#[derive(Debug, Args)]
struct HoldArgs {
    /// How long the root's signatures hold
    #[arg(long, value_name = "SPAN", default_value = "365d")]
    root_holds: Span,
    /// How long the list of files holds
    #[arg(long, value_name = "SPAN", default_value = "90d")]
    targets_holds: Span,
    /// How long the list of metadata holds
    #[arg(long, value_name = "SPAN", default_value = "30d")]
    snapshot_holds: Span,
    /// How long a site believes that there is nothing newer
    #[arg(long, value_name = "SPAN", default_value = "3d")]
    timestamp_holds: Span,
}

/// Does what the arguments say.
pub(crate) async fn run(args: CreateArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let CreateArgs { dir, name, keys, scheme, hold, passphrase, .. } = args;
    let quorum = |keys: Option<usize>, signers: &[PathBuf], threshold| {
        let quorum = Quorum { keys: keys.unwrap_or_else(|| signers.len().max(1)), threshold };
        (quorum, quorum.keys > signers.len())
    };
    let (root, is_root_sealed) = quorum(args.root_keys, &args.root_signer, args.root_threshold);
    let (targets, are_targets_sealed) = quorum(args.targets_keys, &args.targets_signer, args.targets_threshold);
    let dir = std::path::absolute(&dir).map_err(|error| CliError::failed(format!("find {}", dir.display()), &error))?;
    let name = match name {
        Some(name) => name,
        None => dir.file_name().unwrap_or_default().to_string_lossy().parse().map_err(|_| {
            CliError::usage(format!("{} gives no name for archives", dir.display()), "say one with --name")
        })?,
    };
    if keys.is_none() && !args.together && is_root_sealed {
        return Err(CliError::usage(
            "nobody said where the keys of the root are put: whoever has them can replace every other key, and sites follow",
            "--keys DIR puts them apart, on a stick that is locked away: a stolen machine is then no stolen feed. --together puts \
             them into the feed's folder, with the others: simpler, and whoever steals that has everything",
        ));
    }
    let sealed = Sealed { root: is_root_sealed, targets: are_targets_sealed };
    let (passphrases, shown, written) = match args.generate_passphrases {
        true => passphrase.make(sealed)?,
        false => (passphrase.new_passphrases(sealed, context.ui)?, Shown::default(), Written::default()),
    };
    let signers = |role: Role, files: Vec<PathBuf>| files.into_iter().map(move |file| (role, file));
    let signers = signers(Role::Root, args.root_signer).chain(signers(Role::Targets, args.targets_signer)).collect();
    let HoldArgs { root_holds, targets_holds, snapshot_holds, timestamp_holds } = hold;
    let hold = Hold { root: root_holds, targets: targets_holds, snapshot: snapshot_holds, timestamp: timestamp_holds };
    let wish = NewFeed {
        name: name.to_string(),
        scheme,
        updater: args.updater,
        root,
        targets,
        hold,
        root_folder: keys,
        signers,
    };
    let now = context.now();
    let standing = blocking(move || vendor::create(&dir, &wish, &passphrases, now)).await?;
    written.stay();
    let created = Created { standing, passphrases: shown };
    context.ui.answer(&created, |created| text(created, &context.times()))?;
    let Created { standing, .. } = created;
    context.ui.say(format_args!(
        "Give {} to the sites, and upload {} after each change.",
        standing.root.display(),
        standing.published.display()
    ));
    Ok(Ending::Good)
}
