//! Which releases a run installs: a pure function of what is installed and what is published.
//!
//! All pending builds are in the path, ascending, each with its own migration and health check.
//! So a barrier is never jumped over, and a minimum version counts at the point of the path where
//! its release stands: the version that is installed just before it.
//!
//! What is installed may be unknown: a tree that was put there by hand carries no marker. Then the
//! path is the newest release alone. Every older one is either what stands there already or older
//! than it, and installing those one after the other would run their migrations on data that have
//! been migrated long ago. But a minimum version or a barrier cannot be kept without knowing where
//! the path begins; then there is no path, and the remedy is to configure `installed_version`.
//!
//! A release whose description cannot be read stands in the path where its build is, and the policy lets nothing past it. Where
//! its build cannot be told either, it stands before all that is newer. Where it is not known what is installed, it is a barrier.
//!
//! Or a version was told, and its build is looked for among the releases. Where none has that version,
//! its numbers must tell which of them are newer; where they do not, there is no path either.

use thiserror::Error;

use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;

/// There is no path to the version that is wanted.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SelectError {
    /// The feed has no such version.
    #[error("find a release {wanted} in the feed{}", .newest.as_ref().map(|id| format!("; the newest is {id}")).unwrap_or_default())]
    UnknownVersion {
        /// What is wanted.
        wanted: Version,
        /// The newest release there is.
        newest: Option<ReleaseId>,
    },
    /// The wanted version is older than the installed one.
    #[error("go back from {installed} to {wanted}")]
    Older {
        /// What is wanted.
        wanted: ReleaseId,
        /// What is installed.
        installed: ReleaseId,
    },
    /// A release needs a version that the path does not reach before it.
    #[error(
        "update to {release}: it needs at least version {needs}, and there is no release between {at} and it that has that"
    )]
    MinVersion {
        /// The release.
        release: ReleaseId,
        /// The lowest version it may follow.
        needs: Version,
        /// What is installed at that point of the path.
        at: ReleaseId,
    },
    /// A release needs a minimum version, and it is not known what is installed.
    #[error("update to {release}: it needs at least version {needs}, and it is not known which version is installed")]
    MinVersionUnknown {
        /// The release.
        release: ReleaseId,
        /// The lowest version it may follow.
        needs: Version,
    },
    /// A barrier may have to be passed, and it is not known what is installed.
    #[error("update to {release}: every update must pass {barrier}, and it is not known which version is installed")]
    BarrierUnknown {
        /// The release.
        release: ReleaseId,
        /// The barrier before it.
        barrier: ReleaseId,
    },
    /// No release has the version that is installed, and its numbers do not say between which ones it stands.
    #[error("find out whether {release} is newer than what is installed: no release has the version {told}")]
    NoPlace {
        /// A release that may be older or newer.
        release: ReleaseId,
        /// What is installed.
        told: Version,
    },
}

impl SelectError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownVersion { .. } => "name a version that the feed has, or none for the newest".to_owned(),
            Self::Older { .. } => {
                "an older version cannot be installed over a newer one's data; restore a backup".to_owned()
            }
            Self::MinVersion { needs, .. } => {
                format!(
                    "name an earlier version with --to, or ask for a release with version {needs} or later in the feed"
                )
            }
            Self::MinVersionUnknown { .. } | Self::BarrierUnknown { .. } => {
                "set installed_version of the application".to_owned()
            }
            Self::NoPlace { .. } => {
                "set installed_version of the application to what is installed, as the feed writes its versions"
                    .to_owned()
            }
        })
    }
}

/// The build that a version which was told has: the newest one that is of this version or an earlier one.
///
/// # Errors
/// No release has this version, and it cannot be told of each whether it is newer.
pub fn place(told: &Version, releases: &[Release]) -> Result<ReleaseId, SelectError> {
    let is_before = |release: &Release| release.id.version.is_before(told);
    let is_known = releases.iter().any(|release| release.id.version == *told);
    let reached = releases.iter().filter(|r| r.id.version == *told || is_before(r) == Some(true));
    let build = reached.map(|release| release.id.build).max().unwrap_or(0);
    // What is of a later version must have a later build as well.
    let is_clear = |r: &Release| is_before(r).is_some_and(|is_before| is_before || r.id.build > build);
    let mut readable = releases.iter().filter(|release| release.unreadable.is_none());
    match readable.find(|release| !is_known && !is_clear(release)) {
        Some(unclear) => Err(SelectError::NoPlace { release: unclear.id.clone(), told: told.clone() }),
        None => Ok(ReleaseId { version: told.clone(), build }),
    }
}

/// The releases to install, in this order; empty when there is nothing newer.
///
/// `to` is the version to stop at; where several builds have it, the last of them.
///
/// # Errors
/// `to` is unknown or older than what is installed, or a minimum version or barrier cannot be kept.
pub fn path(
    installed: Option<&ReleaseId>,
    releases: &[Release],
    to: Option<&Version>,
) -> Result<Vec<Release>, SelectError> {
    let mut ascending: Vec<&Release> = releases.iter().collect();
    ascending.sort_by_key(|release| release.id.build);
    let target = match to {
        None => ascending.last().copied(),
        Some(wanted) => {
            let newest = || ascending.last().map(|release| release.id.clone());
            let unknown = || SelectError::UnknownVersion { wanted: wanted.clone(), newest: newest() };
            let found = ascending.iter().rev().copied().find(|release| release.id.version == *wanted);
            Some(found.ok_or_else(unknown)?)
        }
    };
    let Some(target) = target else { return Ok(Vec::new()) };
    let Some(installed) = installed else { return alone(target, &ascending) };
    if to.is_some() && target.id.build < installed.build {
        return Err(SelectError::Older { wanted: target.id.clone(), installed: installed.clone() });
    }
    let pending = installed.build.saturating_add(1)..=target.id.build;
    let is_pending = |r: &&Release| pending.contains(&r.id.build) || has_no_place(r);
    let path: Vec<Release> = ascending.into_iter().filter(is_pending).cloned().collect();
    let mut at = installed;
    for release in path.iter().take_while(|release| release.unreadable.is_none()) {
        if let Some(needs) = release.min_version.as_ref().filter(|needs| **needs > at.version) {
            return Err(SelectError::MinVersion { release: release.id.clone(), needs: needs.clone(), at: at.clone() });
        }
        at = &release.id;
    }
    Ok(path)
}

/// Whether nobody can tell between which releases it stands.
fn has_no_place(release: &Release) -> bool {
    release.unreadable.is_some() && release.id.build == 0
}

/// The path when it is not known what is installed.
fn alone(target: &Release, ascending: &[&Release]) -> Result<Vec<Release>, SelectError> {
    let walls = ascending.iter().rev().skip_while(|release| release.id.build > target.id.build);
    let walls: Vec<&Release> = walls.copied().take_while(|release| release.unreadable.is_some()).collect();
    let good = ascending.iter().rev().find(|r| r.id.build <= target.id.build && r.unreadable.is_none());
    if let (Some(good), false) = (good, walls.is_empty()) {
        // What is behind the newest that can be read is shown, and not taken.
        let rest = walls.into_iter().rev().filter(|wall| !has_no_place(wall)).cloned();
        return alone(good, ascending).map(|path| path.into_iter().chain(rest).collect());
    }
    if let Some(needs) = &target.min_version {
        return Err(SelectError::MinVersionUnknown { release: target.id.clone(), needs: needs.clone() });
    }
    let before = ascending.iter().take_while(|release| release.id.build < target.id.build);
    if let Some(barrier) = before.filter(|release| release.barrier || release.unreadable.is_some()).last() {
        return Err(SelectError::BarrierUnknown { release: target.id.clone(), barrier: barrier.id.clone() });
    }
    Ok(vec![target.clone()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn release(version: &str, build: u64) -> Release {
        Release::new(id(version, build), Vec::new(), "/feed")
    }

    fn id(version: &str, build: u64) -> ReleaseId {
        ReleaseId { version: version.parse().unwrap(), build }
    }

    fn builds(path: &[Release]) -> Vec<u64> {
        path.iter().map(|release| release.id.build).collect()
    }

    fn v(version: &str) -> Version {
        version.parse().unwrap()
    }

    #[test]
    fn all_pending_builds_ascending() {
        let releases = [release("3", 30), release("1", 10), release("2.1", 21), release("2", 20)];
        assert_eq!(builds(&path(Some(&id("1", 10)), &releases, None).unwrap()), [20, 21, 30]);
        assert_eq!(builds(&path(Some(&id("1", 10)), &releases, Some(&v("2.1"))).unwrap()), [20, 21]);
        assert_eq!(builds(&path(Some(&id("3", 30)), &releases, None).unwrap()), [0; 0]);
        assert_eq!(builds(&path(Some(&id("3", 30)), &releases, Some(&v("3"))).unwrap()), [0; 0]);
        assert_eq!(builds(&path(Some(&id("4", 40)), &releases, None).unwrap()), [0; 0]);
        assert_eq!(builds(&path(None, &[], None).unwrap()), [0; 0]);
    }

    #[test]
    fn a_wanted_version_must_exist_and_not_be_older() {
        let releases = [release("1", 10), release("2", 20)];
        let error = path(Some(&id("1", 10)), &releases, Some(&v("9"))).unwrap_err();
        assert_eq!(error.to_string(), "find a release 9 in the feed; the newest is 2 (build 20)");
        let error = path(Some(&id("2", 20)), &releases, Some(&v("1"))).unwrap_err();
        assert_eq!(error.to_string(), "go back from 2 (build 20) to 1 (build 10)");
        assert!(error.hint().is_some());
    }

    #[test]
    fn of_several_builds_of_a_version_the_last_is_meant() {
        let releases = [release("2", 20), release("2", 22), release("3", 30)];
        assert_eq!(builds(&path(Some(&id("1", 10)), &releases, Some(&v("2"))).unwrap()), [20, 22]);
    }

    #[test]
    fn a_minimum_version_counts_where_its_release_stands() {
        let mut releases = [release("1", 10), release("2", 20), release("3", 30)];
        releases[2].min_version = Some(v("2"));
        assert_eq!(builds(&path(Some(&id("1", 10)), &releases, None).unwrap()), [20, 30]);
        releases[2].min_version = Some(v("2.5"));
        let error = path(Some(&id("1", 10)), &releases, None).unwrap_err();
        let (needs, at) = (v("2.5"), id("2", 20));
        assert_eq!(error, SelectError::MinVersion { release: id("3", 30), needs, at });
        assert_eq!(
            error.hint().unwrap(),
            "name an earlier version with --to, or ask for a release with version 2.5 or later in the feed"
        );
        assert_eq!(builds(&path(Some(&id("1", 10)), &releases, Some(&v("2"))).unwrap()), [20]);
    }

    #[test]
    fn when_nothing_is_known_only_the_target_is_installed() {
        let mut releases = [release("1", 10), release("2", 20), release("3", 30)];
        assert_eq!(builds(&path(None, &releases, None).unwrap()), [30]);
        assert_eq!(builds(&path(None, &releases, Some(&v("2"))).unwrap()), [20]);
        releases[1].barrier = true;
        assert!(matches!(path(None, &releases, None), Err(SelectError::BarrierUnknown { .. })));
        assert_eq!(builds(&path(None, &releases, Some(&v("2"))).unwrap()), [20]);
        releases[1].barrier = false;
        releases[1].unreadable = Some("no sense".to_owned());
        assert!(matches!(path(None, &releases, None), Err(SelectError::BarrierUnknown { .. })));
        assert_eq!(builds(&path(None, &releases[..2], None).unwrap()), [10, 20]);
        releases[1].unreadable = None;
        releases[2].min_version = Some(v("0.1"));
        assert!(matches!(path(None, &releases, None), Err(SelectError::MinVersionUnknown { .. })));
    }

    #[test]
    fn what_cannot_be_read_stands_in_the_path_and_hides_nothing_before_it() {
        let bad = |build| Release { unreadable: Some("no sense".to_owned()), ..release("unknown", build) };
        let mut releases = vec![release("1", 10), release("2", 20), bad(25), release("3", 30)];
        releases[3].min_version = Some(v("2.5"));
        assert_eq!(builds(&path(Some(&id("1", 10)), &releases, None).unwrap()), [20, 25, 30]);
        assert_eq!(builds(&path(Some(&id("3", 30)), &releases, None).unwrap()), [0; 0]);
        assert_eq!(place(&v("2.2"), &releases).unwrap().build, 20);
        // Where nobody can tell its place, it is before everything that is newer.
        releases[2] = bad(0);
        releases[3].min_version = None;
        assert_eq!(builds(&path(Some(&id("2", 20)), &releases, None).unwrap()), [0, 30]);
        assert!(matches!(path(None, &releases, None), Err(SelectError::BarrierUnknown { .. })));
    }

    #[test]
    fn a_version_that_was_told_has_the_build_of_its_release() {
        let build = |told: &str, releases: &[Release]| place(&v(told), releases).map(|id| id.build);
        let releases = [release("1.0", 10), release("2.0", 20), release("2.0", 22), release("3.0", 30)];
        assert_eq!(build("2.0", &releases), Ok(22));
        assert_eq!(build("2.0", &[]), Ok(0));
        let ported_back = [release("2.0", 20), release("1.9", 25), release("3.0", 30)];
        assert_eq!(build("2.0", &ported_back), Ok(25), "nothing older is installed over it");
        let seasons = [release("winter", 10), release("spring", 20), release("summer", 30)];
        assert_eq!(build("spring", &seasons), Ok(20));
    }

    #[test]
    fn a_version_that_no_release_has_stands_where_its_numbers_say() {
        let build = |told: &str, releases: &[Release]| place(&v(told), releases).map(|id| id.build);
        let releases = [release("1.0", 10), release("2.0", 20), release("3.0", 30)];
        assert_eq!(build("2.5", &releases), Ok(20));
        assert_eq!(build("0.9", &releases), Ok(0), "all of them are newer");
        assert_eq!(build("3.1", &releases), Ok(30));
        let unclear = |told: &str, releases: &[Release]| match place(&v(told), releases) {
            Err(SelectError::NoPlace { release, .. }) => release.build,
            other => panic!("{told}: {other:?}"),
        };
        assert_eq!(unclear("v2.0", &releases), 10);
        assert_eq!(unclear("2.0.0", &releases), 20);
        assert_eq!(unclear("2", &releases), 20);
        assert_eq!(unclear("autumn", &[release("winter", 10), release("spring", 20)]), 10);
        assert_eq!(unclear("1.5", &[release("2.0", 10), release("1.0", 20)]), 10, "its builds do not ascend");
        let error = place(&v("v2.0"), &releases).unwrap_err();
        assert_eq!(
            error.to_string(),
            "find out whether 1.0 (build 10) is newer than what is installed: no release has the version v2.0"
        );
        assert!(error.hint().unwrap().contains("installed_version"));
    }

    fn any_releases() -> impl Strategy<Value = Vec<Release>> {
        let one = (1_u64..60, 0_u8..6, 0_u8..3, proptest::option::weighted(0.2, 0_u8..8), any::<bool>());
        proptest::collection::vec(one, 0..12).prop_map(|rows| {
            let mut seen = std::collections::HashSet::new();
            rows.into_iter()
                .filter(|row| seen.insert(row.0))
                .map(|(build, major, minor, min, barrier)| Release {
                    min_version: min.map(|min| v(&format!("{min}.0"))),
                    barrier,
                    ..release(&format!("{major}.{minor}"), build)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_path_holds_what_it_promises(
            releases in any_releases(),
            build in 0_u64..60,
            major in 0_u8..6,
            pick in proptest::option::of(any::<proptest::sample::Index>()),
        ) {
            let installed = id(&format!("{major}.0"), build);
            let to = pick.filter(|_| !releases.is_empty()).map(|pick| pick.get(&releases).id.version.clone());
            let last = |r: &&Release| to.as_ref().is_none_or(|to| r.id.version == *to);
            let target = releases.iter().filter(last).map(|r| r.id.build).max().unwrap_or(0);
            match path(Some(&installed), &releases, to.as_ref()) {
                Ok(path) => {
                    // Exactly the pending ones: nothing installed again, nothing and no barrier jumped over.
                    let mut pending: Vec<u64> =
                        releases.iter().map(|r| r.id.build).filter(|b| *b > build && *b <= target).collect();
                    pending.sort_unstable();
                    prop_assert_eq!(builds(&path), pending);
                    let mut at = &installed;
                    for release in &path {
                        prop_assert!(release.min_version.as_ref().is_none_or(|needs| *needs <= at.version));
                        at = &release.id;
                    }
                }
                Err(SelectError::Older { wanted, .. }) => prop_assert!(wanted.build < build),
                Err(SelectError::MinVersion { release, needs, at }) => {
                    prop_assert!(release.build > at.build && release.build <= target);
                    prop_assert!(needs > at.version);
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }

        #[test]
        fn without_knowledge_there_is_one_release_or_a_reason(releases in any_releases()) {
            match path(None, &releases, None) {
                Ok(path) => {
                    prop_assert_eq!(path.len(), usize::from(!releases.is_empty()));
                    let newest = releases.iter().map(|r| r.id.build).max();
                    prop_assert_eq!(path.first().map(|r| r.id.build), newest);
                    prop_assert!(path.iter().all(|r| r.min_version.is_none()));
                    prop_assert!(releases.iter().all(|r| !r.barrier || Some(r.id.build) == newest));
                }
                Err(SelectError::MinVersionUnknown { release, .. } | SelectError::BarrierUnknown { release, .. }) => {
                    prop_assert_eq!(Some(release.build), releases.iter().map(|r| r.id.build).max());
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
