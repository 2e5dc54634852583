//! Everything that can be known to go wrong before anybody is disturbed. `doctor` shows the same.

use std::io;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use crate::config::settings::AppSettings;
use crate::config::settings::DataSettings;
use crate::config::settings::Secret;
use crate::db::store::Store;
use crate::domain::answers::Before;
use crate::domain::doubt::REMEDY;
use crate::domain::doubt::judge;
use crate::domain::finding::Finding;
use crate::domain::held::HeldBack;
use crate::domain::held::HeldBy;
use crate::domain::release::Release;
use crate::domain::run::RunId;
use crate::exec::system;
use crate::files::trusted::read_by_others;
use crate::install::Holder;
use crate::install::SpaceNeed;
use crate::install::held_by_others;
use crate::jobs::commands;
use crate::jobs::installed;
use crate::jobs::kit::Kit;
use crate::jobs::select::Selection;
use crate::jobs::select::Wish;
use crate::jobs::select::select;
use crate::jobs::self_update;
use crate::probe::before::Asking;
use crate::probe::before::Leave;
use crate::probe::before::Standing;

/// How far the clock may lie behind the last thing that was written down.
const CLOCK_BEHIND_MAX: TimeDelta = TimeDelta::minutes(5);

/// What to do where two work on one installation.
pub const ONE_STORE: &str =
    "let one Afterhours with one data_dir describe it, under one name; stop the other one or take it out there";

/// Who else works on the installation of an application.
pub fn claimed_by(app: &AppSettings, holder: &Holder) -> String {
    format!(
        "the Afterhours with the data_dir {} works on {}, or on what it stands in, as its application {}",
        holder.data_dir.display(),
        app.install_dir.display(),
        holder.app
    )
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// Good and bad.
    pub findings: Vec<Finding>,
    /// What the running version answered; absent where nothing is asked.
    pub before: Option<Before>,
    /// Whether there is anything to install.
    pub pending: bool,
}

/// Checks one application.
pub async fn findings(kit: &Kit, store: &Store, now: DateTime<Utc>, wish: &Wish) -> Vec<Finding> {
    look(kit, store, now, wish, Asking::Once).await.findings
}

/// The same for a run, or whoever else needs to know what the running version answered.
pub async fn look(kit: &Kit, store: &Store, now: DateTime<Utc>, wish: &Wish, asking: Asking) -> Found {
    // Nothing else counts where somebody else can change what we believe.
    let mut findings = kit.installer.check_places().await;
    findings.extend(claim(kit).await);
    findings.extend(secrets(kit));
    findings.push(clock(store, now).await);
    findings.extend(kit.feed.check().await);
    let mut need = SpaceNeed { backup_bytes: backup_size(kit, now).await, ..SpaceNeed::default() };
    let (mut path, mut from, mut expected) = (Vec::new(), None, None);
    match select(kit, store, wish, now).await {
        Ok(selection) => {
            need.download_bytes = selection.path.iter().map(Release::size_bytes).sum();
            need.unpacked_bytes = selection.path.iter().map(Release::unpacked_bytes).sum();
            findings.extend(installed::finding(kit, &selection).await);
            findings.push(releases(&selection));
            expected = selection.expected();
            (path, from) = (selection.path, selection.from);
        }
        Err(failure) => findings.push(Finding::fatal(
            "releases",
            format!("failed to {failure}"),
            failure.hint.unwrap_or_else(|| "mend the feed, then look again with `afterhours update check`".to_owned()),
        )),
    }
    findings.extend(self_update::findings(kit, store, &path, now).await);
    findings.extend(commands::findings(&kit.app, &path).await);
    findings.extend(kit.installer.check(need).await);
    findings.extend(kit.service.check().await);
    // What may be down need not be waited for.
    let unborn = kit.service.waits_for_us().await;
    let repair = wish.repair || unborn;
    let asking = if repair { Asking::Once } else { asking };
    let env = kit.standing_env(RunId(0), from.as_ref());
    let standing = kit.probe.standing(expected.as_ref(), &env, asking).await;
    let declared = !path.is_empty() && path.iter().all(|release| release.answers.is_some());
    findings.extend(standing.findings(&kit.app.name, Leave { repair, declared }));
    let down = repair && standing.ill.is_some() && kit.service.is_down().await;
    if let Some(backup) = &kit.backup {
        findings.extend(backup.check(now).await);
    } else {
        findings.push(Finding::warning(
            "backup",
            "no backup is demanded for this application",
            format!("describe where its backups are: [app.{}] backup = {{ evidence = … }}", kit.app.name),
        ));
    }
    findings.extend(kit.sessions.check(down).await);
    findings.extend(kit.gate.check().await);
    Found { findings, before: if unborn { None } else { before(kit, standing).await }, pending: !path.is_empty() }
}

/// What is installed by a run, as a finding.
fn releases(selection: &Selection) -> Finding {
    let text = match selection.path.last() {
        Some(last) => {
            let pending = format!("{} pending, up to {}", selection.path.len(), last.id);
            [vec![pending], selection.remarks()].concat().join("; ")
        }
        None => selection.nothing_because(),
    };
    // After Afterhours has updated itself, it is selected again.
    let is_beyond_us = |held: &HeldBack| matches!(held.why, HeldBy::NewerAfterhours { .. });
    let is_unreadable = |held: &HeldBack| matches!(held.why, HeldBy::Unreadable { .. });
    match selection.held.first() {
        Some(held) if is_beyond_us(held) => {
            Finding::warning("releases", text, "update Afterhours, or have the key corrected in the feed")
        }
        Some(held) if is_unreadable(held) => {
            Finding::warning("releases", text, "have the release withdrawn or corrected in the feed")
        }
        _ => Finding::good("releases", text),
    }
}

/// What is kept of it for the way back.
async fn before(kit: &Kit, standing: Standing) -> Option<Before> {
    match standing {
        Standing { asks_nothing: true, .. } => None,
        Standing { ill: None, version, .. } => Some(Before::Well { version }),
        Standing { .. } if kit.service.is_down().await => Some(Before::Down),
        Standing { .. } => Some(Before::Ill),
    }
}

/// Another store, or another application, that works on the same installation.
async fn claim(kit: &Kit) -> Option<Finding> {
    let (app, data_dir) = (kit.app.clone(), kit.data_dir().to_owned());
    let looked = tokio::task::spawn_blocking(move || held_by_others(&app, &data_dir)).await;
    let holder = looked.ok().flatten()?;
    Some(Finding::fatal("install_dir", claimed_by(&kit.app, &holder), ONE_STORE))
}

/// Files with secrets that a run of this application needs and that others can read.
fn secrets(kit: &Kit) -> Vec<Finding> {
    let told = |secret: &Secret| {
        let (key, file) = (&secret.key, secret.path.display());
        let (text, remedy) = match read_by_others(&secret.path) {
            Ok(false) => return None,
            Ok(true) => {
                (format!("{file} ({key}) holds a secret, and others can read it"), format!("chmod go-r {file}"))
            }
            // Whoever needs it says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => (
                format!("{file} ({key}) holds a secret, and it is not known whether others can read it: {error}"),
                format!("ls -l {file}"),
            ),
        };
        Some(Finding::warning("secrets", text, remedy))
    };
    kit.app.secrets.iter().filter_map(told).collect()
}

/// How large the newest backup is, where that says how large a dump will be.
async fn backup_size(kit: &Kit, now: DateTime<Utc>) -> Option<u64> {
    let (Some(backup), DataSettings::Dump { .. }) = (&kit.backup, &kit.app.data) else { return None };
    // Backups that cannot be listed are a finding of their own.
    let listed = backup.list(now).await.ok()?;
    listed.first()?.size_bytes
}

async fn clock(store: &Store, now: DateTime<Utc>) -> Finding {
    // What is remembered of it is compared with this very look: the doubt may be from before it was set.
    let seen = store.clock_seen().await.ok().flatten();
    let vouched = system::is_kept_by_a_time_service(now);
    if let Some(doubt) = seen.and_then(|seen| judge(now.into(), &seen, None, vouched).doubt(now.into())) {
        return Finding::fatal("clock", doubt, REMEDY);
    }
    match store.last_event_at().await {
        Ok(Some(last)) if now < last - CLOCK_BEHIND_MAX => Finding::fatal(
            "clock",
            format!("the clock shows {now}, but {last} has been already"),
            "set the clock of this machine (timedatectl), then try again",
        ),
        Ok(_) => Finding::good("clock", "the clock is not before the last entry of the history"),
        Err(error) => Finding::fatal(
            "clock",
            format!("the store cannot be read: {error}"),
            "look after the store in the data directory; `afterhours doctor` shows where it is",
        ),
    }
}
