//! What is next in a renewal: pure functions of what is remembered and what is found.

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
    let not_later = || releases.iter().filter(|r| r.id.version <= own.version).map(|r| r.id.build).max().unwrap_or(0);
    let build = own.build.unwrap_or_else(not_later);
    let mut newer: Vec<&Release> = releases.iter().filter(|release| release.id.build > build).collect();
    newer.sort_by_key(|release| release.id.build);
    if let Some(barrier) = newer.iter().position(|release| release.barrier) {
        newer.truncate(barrier + 1);
    }
    let Some(newest) = newer.last() else { return Offer::Nothing };
    let follows = |release: &Release| release.min_version.as_ref().is_none_or(|min| *min <= own.version);
    let fit: Vec<Release> = newer.iter().filter(|r| follows(r)).filter_map(|r| for_machine(r, machine)).collect();
    match fit.iter().rev().find(|release| !failed.contains(&release.id.build)) {
        Some(release) => Offer::Newer(Box::new(release.clone())),
        None => fit.last().map_or_else(|| Offer::Unfit(newest.id.clone()), |held| Offer::HeldBack(held.id.clone())),
    }
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
