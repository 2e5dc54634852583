//! `afterhours feed show`, and how a vendor's feed reads.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::feed::blocking;
use crate::cli::feed::or_none;
use crate::cli::text::Times;
use crate::feed::vendor;
use crate::feed::vendor::FeedStanding;
use crate::feed::vendor::Place;

/// Show a feed: its keys, its releases, and until when its signatures hold.
///
/// Nothing is changed and no passphrase is asked for. What is published is checked on the way.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The feed's folder
    dir: PathBuf,
    /// A further folder with keys
    #[arg(long, value_name = "DIR")]
    keys: Vec<PathBuf>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: ShowArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let ShowArgs { dir, keys } = args;
    let standing = blocking(move || vendor::standing(Place { dir, keys, passphrases: None })).await?;
    context.ui.answer(&standing, |standing| text(standing, &context.times()))?;
    Ok(Ending::Good)
}

/// How a feed reads.
pub(crate) fn text(standing: &FeedStanding, times: &Times) -> String {
    let mut text = format!(
        "{}\n  published  {}\n  root       {}\n  releases   {}\n",
        standing.name,
        standing.published.display(),
        standing.root.display(),
        or_none(&standing.releases)
    );
    if !standing.updater.is_empty() {
        let _ = writeln!(text, "  updater    {}", or_none(&standing.updater));
    }
    let _ = writeln!(text, "  holds      until {}\n", times.at_and_away(standing.holds_until));
    for role in &standing.roles {
        let _ = writeln!(
            text,
            "  {:<9}  version {}, {} of {} keys sign, until {}",
            role.role,
            role.version,
            role.threshold,
            role.keys.len(),
            times.at(role.expires_at)
        );
        for key in &role.keys {
            let place = key.file.as_ref().map_or_else(|| "not here".to_owned(), |file| file.display().to_string());
            let _ = writeln!(text, "             {}  {place}", key.id.get(..16).unwrap_or(&key.id));
        }
    }
    if let Some(pending) = &standing.pending {
        let _ = writeln!(
            text,
            "\n  Root {} waits for signatures: {} of the present root's keys, {} of its own.",
            pending.version, pending.missing_old, pending.missing_new
        );
    }
    text
}
