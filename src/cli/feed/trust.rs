//! `afterhours feed trust`: whose signatures count.

use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use clap::Args;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::signed;
use crate::domain::name::AppName;
use crate::feed::signed::RootCard;
use crate::feed::signed::SignedFeed;

/// Say whose signatures count: trust the vendor's root.json.
///
/// Once is enough: later roots follow by themselves, each signed by the keys of the one before it. Take the file from
/// the vendor by a way that is not the feed's server, and compare the ids of its keys with what the vendor tells you.
/// A root that is not signed by as many of its own keys as it demands is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sudo afterhours feed trust orders root.json")]
pub(crate) struct TrustArgs {
    /// The application
    app: AppName,
    /// The vendor's root.json
    #[arg(value_name = "ROOT.json")]
    root: PathBuf,
    /// Replace another root that is trusted already, without asking
    #[arg(long)]
    yes: bool,
}

/// What is trusted now.
#[derive(Debug, Serialize)]
struct Trusted {
    app: AppName,
    version: u64,
    expires_at: DateTime<Utc>,
    threshold: usize,
    key_ids: Vec<String>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: TrustArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let TrustArgs { app, root, yes } = args;
    let feed = signed(&app, context)?;
    let card = SignedFeed::look_at_root(&root)?;
    let before = feed.trusted();
    context.ui.say(shown(&card));
    match before {
        Ok(None) => {}
        Ok(Some(before)) if before == card => {}
        Ok(Some(before)) => {
            let question = format!("Trust this root for {app} instead of version {}?", before.version);
            context.ui.confirm(&question, yes)?;
        }
        // What is there cannot be used; it is replaced with open eyes.
        Err(error) => {
            context.ui.warn(format_args!("the root that was trusted cannot be used: failed to {error}"));
            context.ui.confirm(&format!("Trust this root for {app} instead?"), yes)?;
        }
    }
    feed.trust(&root).await?;
    let RootCard { version, expires_at, threshold, key_ids } = card;
    let trusted = Trusted { app, version, expires_at, threshold, key_ids };
    context.ui.done(&trusted, format_args!("{} trusts version {} from now on.", trusted.app, trusted.version))?;
    Ok(Ending::Good)
}

fn shown(card: &RootCard) -> String {
    let until = card.expires_at.format("%Y-%m-%d %H:%M UTC");
    let mut text =
        format!("root version {}, good until {until}; {} of these keys sign the next:", card.version, card.threshold);
    for key in &card.key_ids {
        text += &format!("\n  {key}");
    }
    text
}
