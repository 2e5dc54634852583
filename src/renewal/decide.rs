//! What is next in a renewal: pure functions of what is remembered and what is found.

use std::collections::BTreeSet;

use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::domain::release::updater_archive;
use crate::renewal::record::Pending;

/// How often the new program may begin before it must have come up; a power cut may end it once.
const STARTS_MAX: u32 = 2;

/// The Afterhours that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its version.
    pub version: Version,
    /// Its build, where this program put it there itself.
    pub build: Option<u64>,
}

impl std::fmt::Display for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.build {
            Some(build) => write!(f, "{} (build {build})", self.version),
            None => self.version.fmt(f),
        }
    }
}

/// What the feed has for Afterhours itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Nothing newer.
    Nothing,
    /// A newer one that failed here before.
    HeldBack(ReleaseId),
    /// A newer one, none of which can be installed on this one or this machine.
    Unfit(ReleaseId),
    /// A newer one.
    Newer(Box<Release>),
}

/// Chooses the newest build that may follow the one that runs.
///
/// An Afterhours that was installed by hand does not know its build: it is the newest of the feed that is not of a later
/// version. Unlike an application's, its builds are not installed one after the other, since each upgrades every older
/// store; but none jumps over a barrier.
pub fn choose(own: &Own, releases: &[Release], failed: &[u64], machine: &str) -> Offer {
    let pending = pending(own, releases);
    let Some(newest) = pending.last() else { return Offer::Nothing };
    let fit: Vec<Release> =
        pending.iter().filter(|release| follows(release, own)).filter_map(|r| for_machine(r, machine)).collect();
    match fit.iter().rev().find(|release| !failed.contains(&release.id.build)) {
        Some(release) => Offer::Newer(Box::new(release.clone())),
        None => fit.last().map_or_else(|| Offer::Unfit(newest.id.clone()), |held| Offer::HeldBack(held.id.clone())),
    }
}

/// The newer builds that come into question: as far as the next barrier, ascending.
pub fn offered(own: &Own, releases: &[Release]) -> Vec<Release> {
    pending(own, releases).into_iter().cloned().collect()
}

/// The builds that may be fetched or used later: newer than the one that runs, for this kind of machine, and none that
/// failed here.
pub fn awaited(own: &Own, releases: &[Release], failed: &[u64], machine: &str) -> Vec<Release> {
    let newer = newer(own, releases).into_iter().filter(|release| !failed.contains(&release.id.build));
    newer.filter_map(|release| for_machine(release, machine)).collect()
}

/// The builds that a site may take next, whichever Afterhours it has on whichever kind of machine; ascending.
pub fn next_anywhere(releases: &[Release]) -> Vec<Release> {
    let machines: BTreeSet<&str> =
        releases.iter().flat_map(|release| &release.archives).map(|archive| archive.file.as_str()).collect();
    // Whoever has one that is older than all of them may fulfil a low minimum version, or none.
    let oldest = releases.iter().map(|release| &release.id.version).min();
    let mut builds = BTreeSet::new();
    for machine in machines {
        let fits = |release: &&Release| release.archives.iter().any(|archive| archive.file == machine);
        for release in releases {
            let own = Own { version: release.id.version.clone(), build: Some(release.id.build) };
            let next = pending(&own, releases).into_iter().filter(fits).rfind(|release| follows(release, &own));
            builds.extend(next.map(|release| release.id.build));
        }
        let first: Vec<&Release> = until_barrier(ascending(releases.iter())).into_iter().filter(fits).collect();
        let low = first.iter().rfind(|release| release.min_version.as_ref().is_none_or(|min| Some(min) < oldest));
        let none = first.iter().rfind(|release| release.min_version.is_none());
        builds.extend(low.into_iter().chain(none).map(|release| release.id.build));
    }
    ascending(releases.iter().filter(|release| builds.contains(&release.id.build))).into_iter().cloned().collect()
}

/// The newer builds, ascending.
fn newer<'r>(own: &Own, releases: &'r [Release]) -> Vec<&'r Release> {
    let not_later = || releases.iter().filter(|r| r.id.version <= own.version).map(|r| r.id.build).max().unwrap_or(0);
    let build = own.build.unwrap_or_else(not_later);
    ascending(releases.iter().filter(|release| release.id.build > build))
}

/// The newer builds as far as the next barrier, ascending.
fn pending<'r>(own: &Own, releases: &'r [Release]) -> Vec<&'r Release> {
    until_barrier(newer(own, releases))
}

fn until_barrier(mut ascending: Vec<&Release>) -> Vec<&Release> {
    if let Some(barrier) = ascending.iter().position(|release| release.barrier) {
        ascending.truncate(barrier + 1);
    }
    ascending
}

fn ascending<'r>(releases: impl Iterator<Item = &'r Release>) -> Vec<&'r Release> {
    let mut releases: Vec<&Release> = releases.collect();
    releases.sort_by_key(|release| release.id.build);
    releases
}

/// Whether a release may come directly after the one that runs.
fn follows(release: &Release, own: &Own) -> bool {
    release.min_version.as_ref().is_none_or(|min| *min <= own.version)
}

/// The release with nothing but the archive for a kind of machine.
fn for_machine(release: &Release, machine: &str) -> Option<Release> {
    let file = updater_archive(machine);
    let archive = release.archives.iter().find(|archive| archive.file == file)?.clone();
    Some(Release { archives: vec![archive], ..release.clone() })
}

/// Which program stands in the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InPlace {
    /// The one that is to come.
    New,
    /// The one of before, or one that the administrator has put there.
    Old,
}

/// What a process that begins has to do about a renewal that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// It did not come to it.
    Forget,
    /// This is the new one: it must come up.
    Prove,
    /// The old one must be put back.
    GoBack(String),
    /// The old one is back: its store, too.
    PutStoreBack(String),
}

pub(super) fn next(pending: &Pending, in_place: InPlace) -> Next {
    match (&pending.going_back, in_place) {
        (Some(reason), InPlace::New) => Next::GoBack(reason.clone()),
        (Some(reason), InPlace::Old) => Next::PutStoreBack(reason.clone()),
        (None, InPlace::Old) => Next::Forget,
        (None, InPlace::New) if pending.starts < STARTS_MAX => Next::Prove,
        (None, InPlace::New) => Next::GoBack(format!("it began {} times and never came up", pending.starts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::release::Archive;

    const HERE: &str = "x86_64-unknown-linux-gnu";

    fn release(version: &str, build: u64, machine: &str) -> Release {
        let archive = Archive {
            file: format!("afterhours-{machine}.tar.zst"),
            sha256: "0".repeat(64),
            size_bytes: 1,
            unpacked_bytes: 1,
            tar_sha256: None,
            deltas: Vec::new(),
        };
        Release::new(ReleaseId { version: version.parse().unwrap(), build }, vec![archive], "updater")
    }

    fn own(version: &str, build: Option<u64>) -> Own {
        Own { version: version.parse().unwrap(), build }
    }

    fn chosen(offer: Offer) -> String {
        match offer {
            Offer::Nothing => "nothing".to_owned(),
            Offer::HeldBack(id) => format!("held back {}", id.build),
            Offer::Unfit(id) => format!("unfit {}", id.build),
            Offer::Newer(release) => release.id.build.to_string(),
        }
    }

    #[test]
    fn the_newest_that_may_follow_is_chosen() {
        let mut releases = vec![release("1.0", 1, HERE), release("1.1", 2, HERE), release("1.2", 3, HERE)];
        let choose = |own: &Own, releases: &[Release], failed: &[u64]| chosen(choose(own, releases, failed, HERE));
        assert_eq!(choose(&own("1.0", None), &[], &[]), "nothing");
        assert_eq!(choose(&own("1.0", None), &releases, &[]), "3");
        assert_eq!(choose(&own("1.0", Some(3)), &releases, &[]), "nothing", "its build counts, not its version");
        assert_eq!(choose(&own("1.2", None), &releases, &[]), "nothing");
        assert_eq!(choose(&own("1.1.5", None), &releases, &[]), "3");
        assert_eq!(choose(&own("0.9", None), &releases[..1], &[]), "1");
        assert_eq!(choose(&own("1.0", Some(1)), &releases, &[3]), "2");
        assert_eq!(choose(&own("1.0", Some(1)), &releases, &[2, 3]), "held back 3");
        releases[1].barrier = true;
        assert_eq!(choose(&own("1.0", Some(1)), &releases, &[]), "2", "a barrier is not jumped over");
        assert_eq!(choose(&own("1.0", Some(1)), &releases, &[2]), "held back 2");
        releases[2].min_version = Some("1.1".parse().unwrap());
        releases[1].barrier = false;
        assert_eq!(choose(&own("1.0", Some(1)), &releases, &[]), "2", "it needs 1.1 before");
        let elsewhere = [release("2.0", 9, "riscv64gc-unknown-linux-gnu")];
        assert_eq!(choose(&own("1.0", Some(1)), &elsewhere, &[]), "unfit 9");
    }

    #[test]
    fn only_what_may_still_be_taken_is_kept() {
        let releases =
            [release("1.0", 1, HERE), release("1.1", 2, HERE), release("1.2", 3, HERE), release("1.3", 4, "z")];
        let builds = |own: &Own, failed: &[u64]| {
            awaited(own, &releases, failed, HERE).iter().map(|release| release.id.build).collect::<Vec<_>>()
        };
        assert_eq!(builds(&own("1.0", None), &[]), [2, 3]);
        assert_eq!(builds(&own("1.0", Some(2)), &[]), [3]);
        assert_eq!(builds(&own("1.0", Some(1)), &[3]), [2]);
        assert_eq!(builds(&own("1.2", Some(3)), &[]), [0; 0]);
    }

    #[test]
    fn a_bundle_has_what_any_site_takes_next() {
        let mut releases: Vec<_> = (1..=6).map(|build| release(&format!("1.{build}"), build, HERE)).collect();
        let builds =
            |releases: &[Release]| next_anywhere(releases).iter().map(|release| release.id.build).collect::<Vec<_>>();
        assert_eq!(builds(&[]), [0; 0]);
        assert_eq!(builds(&releases), [6]);
        releases[2].barrier = true;
        assert_eq!(builds(&releases), [3, 6]);
        releases[5].min_version = Some("1.5".parse().unwrap());
        assert_eq!(builds(&releases), [3, 5, 6], "from the barrier over 1.5 to the newest");
        releases[2].barrier = false;
        releases[4].min_version = Some("1.2".parse().unwrap());
        assert_eq!(builds(&releases), [4, 5, 6]);
        releases.reverse();
        assert_eq!(builds(&releases), [4, 5, 6]);
        releases.push(release("0.9", 0, "elsewhere"));
        assert_eq!(builds(&releases), [0, 4, 5, 6], "an older one for another kind of machine");
    }

    #[test]
    fn whoever_begins_knows_what_to_do() {
        let id = ReleaseId { version: "2".parse().unwrap(), build: 2 };
        let mut pending = Pending {
            run: crate::domain::run::RunId(1),
            from: "1".to_owned(),
            to: crate::renewal::record::Build { id, sha256: String::new() },
            program: "/bin/afterhours".into(),
            kept: "/bin/kept".into(),
            args: Vec::new(),
            alone: false,
            deadline: crate::domain::span::Span::secs(1),
            starts: 0,
            prover: None,
            unwatched: false,
            going_back: None,
        };
        assert_eq!(next(&pending, InPlace::Old), Next::Forget);
        assert_eq!(next(&pending, InPlace::New), Next::Prove);
        pending.starts = STARTS_MAX;
        assert!(matches!(next(&pending, InPlace::New), Next::GoBack(_)));
        pending.going_back = Some("sick".to_owned());
        assert_eq!(next(&pending, InPlace::New), Next::GoBack("sick".to_owned()));
        assert_eq!(next(&pending, InPlace::Old), Next::PutStoreBack("sick".to_owned()));
    }
}
