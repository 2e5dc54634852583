//! From verified metadata to releases.
//!
//! A release is a target `BUILD/release.toml`, in the top-level role or in one that it delegates to, whose archives
//! are targets beside it. Which role may speak for a name is decided by the TUF search, every time; the walk over
//! the roles only collects names. The releases of Afterhours itself are the same below `updater/`.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;
use sha2::Digest;
use sha2::Sha256;
use sigstore_tuf::DelegatedRole;
use sigstore_tuf::Role;
use sigstore_tuf::TargetFile;
use sigstore_tuf::Targets;
use sigstore_tuf::Updater;
use sigstore_tuf::UpdaterConfig;

use crate::domain::hex::hex;
use crate::domain::release::Release;
use crate::feed::UPDATERS;
use crate::feed::error::FeedError;
use crate::feed::manifest;
use crate::feed::manifest::DESCRIPTION;
use crate::feed::manifest::DESCRIPTION_BYTES_MAX;
use crate::feed::readable;
use crate::feed::signed::error::TrustError;
use crate::feed::signed::error::from_jiff;
use crate::feed::signed::error::to_jiff;
use crate::feed::signed::remote::Remote;
use crate::feed::signed::store;
use crate::feed::transport::TransportError;

/// The most releases of a feed.
pub(in crate::feed) const RELEASES_MAX: usize = 10_000;
/// The most roles that are looked through, as many as the search for one target visits.
const ROLES_MAX: usize = 32;

/// What a feed says, and until when that holds.
#[derive(Debug, Clone)]
pub(in crate::feed) struct Listed {
    /// Ascending by build.
    pub(in crate::feed) releases: Vec<Release>,
    /// When the first of the metadata behind it runs out.
    pub(in crate::feed) good_until: DateTime<Utc>,
    /// Whether the same keys sign for an Afterhours, too; nobody believes them that.
    pub(in crate::feed) names_updaters: bool,
    /// Why the server was not asked, if it was not: all of it was verified before.
    pub(in crate::feed) away: Option<Arc<TransportError>>,
}

/// What is looked for among the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::feed) enum Folder {
    /// `BUILD/…`: releases of the application.
    Releases,
    /// `updater/BUILD/…`: releases of Afterhours itself.
    Updaters,
}

impl Folder {
    /// Where a release of this feed is.
    pub(in crate::feed) fn of(release: &Release) -> Self {
        if release.location.starts_with(UPDATERS) { Self::Updaters } else { Self::Releases }
    }

    /// What stands before the build.
    pub(in crate::feed) fn prefix(self) -> String {
        match self {
            Self::Releases => String::new(),
            Self::Updaters => format!("{UPDATERS}/"),
        }
    }

    /// Where the release of a build is.
    fn location(self, build: u64) -> PathBuf {
        PathBuf::from(format!("{}{build}", self.prefix()))
    }

    /// The build whose description a target is.
    fn build_of(self, name: &str) -> Option<u64> {
        let folder = name.strip_prefix(&self.prefix())?.strip_suffix(DESCRIPTION)?.strip_suffix('/')?;
        let build = folder.parse::<u64>().ok()?;
        (build.to_string() == folder).then_some(build)
    }

    /// A star does not cross a slash, so a pattern of another depth cannot match a description.
    fn may_be_in(self, role: &DelegatedRole) -> bool {
        let reserved = ["root", "timestamp", "snapshot", "targets"].contains(&role.name.as_str());
        let depth = self.prefix().split('/').count() + 1;
        let by_path = role.paths.iter().flatten().any(|pattern| pattern.split('/').count() == depth);
        !reserved && (role.path_hash_prefixes.is_some() || by_path)
    }
}

/// Reads releases with what was verified; descriptions that were fetched before are taken from `dir`.
pub(in crate::feed) struct Reader<'r> {
    /// Refreshed.
    pub(in crate::feed) updater: Updater,
    /// Where delegated roles are.
    pub(in crate::feed) remote: &'r Remote,
    /// Which releases.
    pub(in crate::feed) folder: Folder,
    /// Where their descriptions are kept, and nothing else.
    pub(in crate::feed) dir: &'r Path,
    /// The instant of the refresh.
    pub(in crate::feed) now: DateTime<Utc>,
}

impl Reader<'_> {
    /// All releases.
    ///
    /// # Errors
    /// One of them cannot be relied on: then none is, since the one that is left out could be a barrier. One whose
    /// description is what was signed, and of no use, stands in its place as unreadable.
    pub(in crate::feed) async fn read(mut self, good_until: DateTime<Utc>) -> Result<Listed, FeedError> {
        let (names, good_until) = self.names(good_until).await?;
        let names_updaters = self.names_updaters();
        if names.len() > RELEASES_MAX {
            return Err(FeedError::TooManyReleases { dir: PathBuf::from("targets"), max: RELEASES_MAX });
        }
        let mut releases = Vec::new();
        let mut kept = BTreeSet::new();
        for name in names {
            let Some(target) = self.target(&name).await? else { continue };
            let Some(build) = self.folder.build_of(&name) else { continue };
            let location = self.folder.location(build);
            if target.length > DESCRIPTION_BYTES_MAX {
                let error = FeedError::DescriptionTooLarge { file: name.into(), max: DESCRIPTION_BYTES_MAX };
                releases.push(readable::unreadable(&error, &[], &location, Some(build)));
                continue;
            }
            let (bytes, file) = self.description(&name, &target).await?;
            kept.insert(file);
            let release = readable::read(&bytes, &location, Some(build));
            if release.id.build != build {
                return Err(FeedError::ForeignBuild { target: name, build: release.id.build });
            }
            self.compare(&release).await?;
            releases.push(release);
        }
        releases.sort_by_key(|release| release.id.build);
        forget(self.dir, &kept);
        Ok(Listed { releases, good_until, names_updaters, away: None })
    }

    fn names_updaters(&self) -> bool {
        let targets = self.updater.trusted().targets_role("targets");
        targets.is_some_and(|targets| targets.targets.keys().any(|name| Folder::Updaters.build_of(name).is_some()))
    }

    /// What the role that may speak for a target says of it.
    async fn target(&mut self, name: &str) -> Result<Option<TargetFile>, TrustError> {
        let found = self.updater.get_target_info(name, to_jiff(self.now)).await;
        found.map_err(|error| TrustError::from_tuf(error, Some(name)))
    }

    /// The names of all descriptions, by whatever role.
    async fn names(&self, until: DateTime<Utc>) -> Result<(BTreeSet<String>, DateTime<Utc>), TrustError> {
        let refused = |error| TrustError::from_tuf(error, None);
        let (mut set, mut until, mut names) = (self.updater.trusted().clone(), until, BTreeSet::new());
        let mut seen = BTreeSet::from(["targets".to_owned()]);
        let mut queue = VecDeque::from(["targets".to_owned()]);
        while let Some(role) = queue.pop_front() {
            let Some(targets) = set.targets_role(&role) else { continue };
            names.extend(targets.targets.keys().filter(|name| self.folder.build_of(name).is_some()).cloned());
            until = until.min(from_jiff(targets.expires()));
            for child in delegated(targets, self.folder) {
                if !seen.insert(child.clone()) {
                    continue;
                }
                if seen.len() > ROLES_MAX {
                    return Err(TrustError::TooManyRoles { max: ROLES_MAX });
                }
                let pinned = set.snapshot().and_then(|snapshot| snapshot.meta.get(&format!("{child}.json")));
                let Some(version) = pinned.map(|pin| pin.version) else { continue };
                let file = if set.root().consistent_snapshot {
                    format!("{version}.{}.json", encoded(&child))
                } else {
                    format!("{}.json", encoded(&child))
                };
                let bytes_max = UpdaterConfig::default().targets_max_length;
                let bytes = self.remote.look_through(&file, bytes_max).await.map_err(refused)?;
                set.update_delegated_targets(&bytes, &child, &role, to_jiff(self.now)).map_err(refused)?;
                queue.push_back(child);
            }
        }
        Ok((names, until))
    }

    /// A description and the file that keeps it.
    async fn description(&self, name: &str, target: &TargetFile) -> Result<(Vec<u8>, PathBuf), FeedError> {
        let hash = sha256_of(name, target)?;
        let file = self.dir.join(format!("{hash}.{DESCRIPTION}"));
        let kept = store::read(&file).ok().flatten().filter(|bytes| hex(Sha256::digest(bytes)) == hash);
        let bytes = match kept {
            Some(bytes) => bytes,
            None => {
                let fetched = self.updater.download_target(target, name).await;
                let bytes = fetched.map_err(|error| TrustError::from_tuf(error, Some(name)))?;
                store::keep(&file, &bytes).map_err(|source| TrustError::Keep { path: file.clone(), source })?;
                bytes
            }
        };
        Ok((bytes, file))
    }

    /// Whether everything that a description names was signed for, and as it says.
    async fn compare(&mut self, release: &Release) -> Result<(), FeedError> {
        let mut files = Vec::new();
        for archive in &release.archives {
            files.push((&archive.file, &archive.sha256, archive.size_bytes));
            files.extend(archive.deltas.iter().map(|delta| (&delta.file, &delta.sha256, delta.size_bytes)));
        }
        for (file, sha256, size_bytes) in files {
            let name = format!("{}/{file}", release.location.display());
            let Some(target) = self.target(&name).await? else {
                return Err(TrustError::Unsigned { target: name }.into());
            };
            if sha256_of(&name, &target)? != *sha256 || target.length != size_bytes {
                let described = format!("{sha256}, {size_bytes} bytes");
                let signed = format!("{}, {} bytes", sha256_of(&name, &target)?, target.length);
                return Err(FeedError::Disagreement { target: name, described, signed });
            }
        }
        Ok(())
    }
}

/// The builds that one role describes itself, each with a hash, and the files of the roles that it delegates to.
///
/// # Errors
/// A description has no hash that can be relied on.
pub(in crate::feed) fn listed(targets: &Targets) -> Result<(BTreeSet<u64>, Vec<String>), FeedError> {
    let mut builds = BTreeSet::new();
    for (name, target) in &targets.targets {
        if let Some(build) = Folder::Releases.build_of(name) {
            sha256_of(name, target)?;
            builds.insert(build);
        }
    }
    Ok((builds, delegated(targets, Folder::Releases).iter().map(|role| encoded(role)).collect()))
}

/// The roles that may have descriptions, in order.
fn delegated(targets: &Targets, folder: Folder) -> Vec<String> {
    let roles = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
    roles.filter(|role| folder.may_be_in(role)).map(|role| role.name.clone()).collect()
}

/// The sha256 that was signed.
fn sha256_of(name: &str, target: &TargetFile) -> Result<String, FeedError> {
    let found = target.hashes.get("sha256").map(|hash| hash.to_ascii_lowercase());
    let is_one = |hash: &String| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    found.filter(is_one).ok_or_else(|| FeedError::NoHash { target: name.to_owned() })
}

/// A role's name in the name of its file, as every client writes it.
fn encoded(role: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    role.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The releases whose descriptions were kept. They were verified when they came; who uses them now verifies what comes of it.
pub(in crate::feed) fn kept_releases(dir: &Path, folder: Folder) -> Vec<Release> {
    let mut releases = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().take(RELEASES_MAX) {
        let text = store::read(&entry.path()).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(release) = text.and_then(|text| manifest::parse_for_a_site(&text, dir).ok()) else { continue };
        releases.push(Release { location: folder.location(release.id.build), ..release });
    }
    releases
}

/// Removes descriptions of releases that are no longer in the feed.
fn forget(dir: &Path, kept: &BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !kept.contains(&path)
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "an old description could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_that_are_builds_are_releases() {
        assert_eq!(Folder::Releases.build_of("24/release.toml"), Some(24));
        assert_eq!(Folder::Updaters.build_of("updater/3/release.toml"), Some(3));
        assert_eq!(Folder::Updaters.build_of("3/release.toml"), None);
        for other in
            ["release.toml", "updater/3/release.toml", "024/release.toml", "24/x", "+1/release.toml", "/release.toml"]
        {
            assert_eq!(Folder::Releases.build_of(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_roles_are_written_as_everybody_does() {
        assert_eq!(encoded("a/b c?~"), "a%2Fb%20c%3F~");
    }
}
