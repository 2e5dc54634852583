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
use crate::feed::vendor::Role;

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
    for (name, ids) in
        [("withdrawn", &standing.withdrawn), ("updater", &standing.updater), ("withdrawn", &standing.withdrawn_updater)]
    {
        if !ids.is_empty() {
            let _ = writeln!(text, "  {name:<9}  {}", or_none(ids));
        }
    }
    for release in standing.unreadable.iter().chain(&standing.unreadable_updater) {
        let _ = writeln!(
            text,
            "  UNREADABLE {}: sites take neither it nor what is behind it\n             {}\n             withdraw it: \
             `afterhours feed withdraw DIR {}`",
            release.id, release.because, release.id.build
        );
    }
    let until = times.at_and_away(standing.holds_until);
    let _ = match times.is_past(standing.holds_until) {
        false => writeln!(text, "  holds      until {until}\n"),
        true => writeln!(
            text,
            "  holds      no more, since {until}: sites refuse it\n             {}\n",
            renewal(standing, times)
        ),
    };
    for role in &standing.roles {
        let _ = writeln!(
            text,
            "  {:<9}  version {}, {} of {} keys sign, {} {}",
            role.role,
            role.version,
            role.threshold,
            role.keys.len(),
            if times.is_past(role.expires_at) { "expired" } else { "until" },
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
            "\n  Root {} waits for signatures: {} of the present root's keys, {} of its own. Until then the present one counts.\n  \
             To drop it, remove {}.",
            pending.version,
            pending.missing_old,
            pending.missing_new,
            pending.file.display()
        );
    }
    text
}

/// What makes sites accept an expired feed again.
fn renewal(standing: &FeedStanding, times: &Times) -> &'static str {
    let root = standing.roles.iter().find(|role| role.role == Role::Root);
    if root.is_some_and(|root| times.is_past(root.expires_at)) {
        "renew it with the keys of the root: `afterhours feed sign DIR --keys KEYS`"
    } else {
        "renew it: `afterhours feed sign DIR`"
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use chrono::TimeDelta;
    use chrono::Utc;
    use chrono_tz::Tz;

    use super::*;
    use crate::feed::vendor::RoleStanding;

    fn expires_at() -> DateTime<Utc> {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    /// A feed whose root and timestamp run out then.
    fn shown(root: TimeDelta, timestamp: TimeDelta, seen: TimeDelta) -> String {
        let role = |role, version, after| RoleStanding {
            role,
            version,
            expires_at: expires_at() + after,
            threshold: 1,
            keys: Vec::new(),
        };
        let standing = FeedStanding {
            name: "orders".to_owned(),
            published: "/srv/feeds/orders/published".into(),
            root: "/srv/feeds/orders/root.json".into(),
            holds_until: expires_at() + root.min(timestamp),
            roles: vec![role(Role::Root, 2, root), role(Role::Timestamp, 31, timestamp)],
            pending: None,
            releases: Vec::new(),
            updater: Vec::new(),
            unreadable: Vec::new(),
            unreadable_updater: Vec::new(),
            withdrawn: Vec::new(),
            withdrawn_updater: Vec::new(),
        };
        text(&standing, &Times::in_zone(expires_at() + seen, Tz::UTC))
    }

    #[test]
    fn what_has_run_out_is_said_with_its_remedy() {
        let (day, year) = (TimeDelta::days(1), TimeDelta::days(365));
        insta::assert_snapshot!("expired_root", shown(TimeDelta::zero(), year, day));
        let timestamp = shown(year, TimeDelta::zero(), day);
        assert!(
            timestamp.contains("(1d ago): sites refuse it\n             renew it: `afterhours feed sign DIR`\n"),
            "{timestamp}"
        );
        assert!(timestamp.contains("timestamp  version 31, 1 of 0 keys sign, expired Fri"), "{timestamp}");
        let fresh = shown(year, day, TimeDelta::zero());
        assert!(fresh.contains("holds      until ") && !fresh.contains("expired"), "{fresh}");
    }
}
