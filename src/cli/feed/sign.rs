//! `afterhours feed sign`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::blocking;
use crate::cli::feed::or_none;
use crate::cli::feed::passphrase::KeyArgs;
use crate::cli::text::Times;
use crate::feed::vendor;
use crate::feed::vendor::ClosedKey;
use crate::feed::vendor::PendingRoot;
use crate::feed::vendor::Signed;

/// Renew the signatures of a feed.
///
/// The timestamp is signed anew every time, everything else when a third of its time is left. Run it every day by a timer,
/// and upload afterwards: sites refuse a feed whose signatures have run out. A root that waits for signatures gets those
/// whose keys are in DIR/keys or in --keys. A timer needs the passphrase of timestamp and snapshot only.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours feed sign /srv/feeds/orders --online-passphrase-file /etc/orders-feed.pw
  afterhours feed sign /srv/feeds/orders --keys /media/stick")]
pub(crate) struct SignArgs {
    /// The feed's folder
    dir: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Does what the arguments say.
pub(crate) async fn run(args: SignArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let SignArgs { dir, keys } = args;
    let place = keys.place_for_timer(dir, context.ui)?;
    let now = context.now();
    let signed = blocking(move || vendor::sign(place, now)).await?;
    let times = context.times();
    context.ui.answer(&signed, |signed| text(signed, &times))?;
    signed.closed.iter().for_each(|closed| context.ui.warn(lacks(closed)));
    if let Some(at) = signed.root_expires_at {
        context.ui.warn(format_args!(
            "the root expires {} and too few of its keys are here; name their folder with --keys",
            times.at_and_away(at)
        ));
    }
    if let Some(at) = signed.targets_expire_at {
        context.ui.warn(format_args!(
            "the list of releases expires {} and too few of its keys are here or can be opened; name their folder with --keys, \
             and their passphrase",
            times.at_and_away(at)
        ));
    }
    if let Some(pending) = &signed.pending {
        context.ui.warn(waits(pending));
    }
    Ok(Ending::Good)
}

fn text(signed: &Signed, times: &Times) -> String {
    format!("Signed {}. The feed holds until {}.", or_none(&signed.roles), times.at_and_away(signed.holds_until))
}

/// Whose signature is not there, and why.
pub(crate) fn lacks(closed: &ClosedKey) -> String {
    let ClosedKey { role, problem, hint } = closed;
    let hint = hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
    format!("{role} lacks a signature: failed to {problem}{hint}")
}

/// What a root lacks.
pub(crate) fn waits(pending: &PendingRoot) -> String {
    format!(
        "root {} waits for signatures: {} of the present root's keys, {} of its own; `afterhours feed sign DIR --keys KEYS` adds them",
        pending.version, pending.missing_old, pending.missing_new
    )
}
