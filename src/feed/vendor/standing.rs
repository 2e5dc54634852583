//! How a feed stands: which keys it has, until when its signatures hold, what is in it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;
use sigstore_tuf::Root;
use sigstore_tuf::Targets;

use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::feed::UPDATERS;
use crate::feed::error::FeedError;
use crate::feed::manifest;
use crate::feed::manifest::DESCRIPTION;
use crate::feed::readable;
use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::renew::expires_at;
use crate::feed::vendor::role::Envelope;
use crate::feed::vendor::role::Role;
use crate::feed::vendor::role::keys_of;
use crate::feed::vendor::role::sha256;
use crate::feed::vendor::state::Current;
use crate::feed::vendor::state::Place;
use crate::feed::vendor::state::ROOT;
use crate::feed::vendor::state::Workshop;
use crate::feed::vendor::withdraw::withdrawn;

/// How a feed stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeedStanding {
    /// The beginning of the archives' names.
    pub name: String,
    /// What is uploaded.
    pub published: PathBuf,
    /// What sites are given: the trust begins with it.
    pub root: PathBuf,
    /// Until when sites accept the feed without another signature.
    pub holds_until: DateTime<Utc>,
    /// The root first.
    pub roles: Vec<RoleStanding>,
    /// A root that waits for signatures.
    pub pending: Option<PendingRoot>,
    /// The application's releases, ascending.
    pub releases: Vec<ReleaseId>,
    /// The updater's own releases, ascending.
    pub updater: Vec<ReleaseId>,
    /// The application's releases whose descriptions sites cannot read, ascending.
    pub unreadable: Vec<UnreadableRelease>,
    /// The updater's own of that kind, ascending.
    pub unreadable_updater: Vec<UnreadableRelease>,
    /// The application's releases that were taken back, ascending.
    pub withdrawn: Vec<ReleaseId>,
    /// The updater's own that were taken back, ascending.
    pub withdrawn_updater: Vec<ReleaseId>,
}

/// A release that sites cannot read: they take neither it nor what is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadableRelease {
    /// Which, as far as it can be told.
    #[serde(flatten)]
    pub id: ReleaseId,
    /// Why.
    pub because: String,
}

/// How a role stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleStanding {
    /// Which.
    pub role: Role,
    /// Of its newest metadata.
    pub version: u64,
    /// When they expire.
    pub expires_at: DateTime<Utc>,
    /// How many of its keys have to sign.
    pub threshold: usize,
    /// Its keys.
    pub keys: Vec<KeyStanding>,
}

/// A key of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyStanding {
    /// Its ID.
    pub id: String,
    /// Where it is, when it is here.
    pub file: Option<PathBuf>,
}

/// A root that waits for signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PendingRoot {
    /// Its version.
    pub version: u64,
    /// Where it waits. Without this file it never was.
    pub file: PathBuf,
    /// The keys that have not signed yet. Not all of them may be needed.
    pub unsigned: Vec<String>,
    /// How many more of the present root's keys have to sign.
    pub missing_old: usize,
    /// How many more of its own keys have to sign.
    pub missing_new: usize,
}

/// How the feed in `place` stands. Nothing is changed and no key is opened. Blocking.
///
/// # Errors
/// There is no feed, or what is in it is not what was signed.
pub fn standing(place: Place) -> Result<FeedStanding, VendorError> {
    let workshop = Workshop::enter(place)?;
    let current = workshop.current()?;
    workshop.standing(&current)
}

impl Workshop {
    pub(in crate::feed::vendor) fn standing(&self, current: &Current) -> Result<FeedStanding, VendorError> {
        let root = current.root.signed();
        let role = |role: Role, version: u64, expires: jiff::Timestamp| {
            let (ids, threshold) = keys_of(root, role);
            let keys = ids.iter().map(|id| KeyStanding { id: id.clone(), file: self.keys.find(role, id) }).collect();
            RoleStanding { role, version, expires_at: expires_at(expires), threshold, keys }
        };
        let (targets, snapshot) = (current.targets.signed(), current.snapshot.signed());
        let timestamp = current.timestamp.signed();
        let roles = vec![
            role(Role::Root, root.version, root.expires),
            role(Role::Targets, targets.version, targets.expires),
            role(Role::Snapshot, snapshot.version, snapshot.expires),
            role(Role::Timestamp, timestamp.version, timestamp.expires),
        ];
        let (releases, unreadable) = parted(self.releases(targets, None)?);
        let (updater, unreadable_updater) = parted(self.releases(targets, Some(UPDATERS))?);
        Ok(FeedStanding {
            name: self.settings.name.clone(),
            published: self.published(),
            root: self.dir.join(ROOT),
            holds_until: roles.iter().map(|role| role.expires_at).min().unwrap_or_default(),
            pending: self.waiting(current)?,
            releases,
            updater,
            unreadable,
            unreadable_updater,
            withdrawn: withdrawn(targets, None).into_values().collect(),
            withdrawn_updater: withdrawn(targets, Some(UPDATERS)).into_values().collect(),
            roles,
        })
    }

    /// The releases that the targets name, by build, below `folder`; those that no site can read as such.
    pub(in crate::feed::vendor) fn releases(
        &self,
        targets: &Targets,
        folder: Option<&str>,
    ) -> Result<BTreeMap<u64, Release>, VendorError> {
        let mut releases = BTreeMap::new();
        for (path, target) in &targets.targets {
            let inside = match folder {
                Some(folder) => path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')),
                None => Some(path.as_str()),
            };
            let Some((build, DESCRIPTION)) = inside.and_then(|inside| inside.split_once('/')) else { continue };
            let Ok(build) = build.parse::<u64>() else { continue };
            let hash = target.hashes.get("sha256").map_or("", String::as_str);
            let file = self.target_file(path, hash);
            let location = PathBuf::from(path.trim_end_matches(&format!("/{DESCRIPTION}")));
            if target.length > manifest::DESCRIPTION_BYTES_MAX {
                let error = FeedError::DescriptionTooLarge { file, max: manifest::DESCRIPTION_BYTES_MAX };
                releases.insert(build, readable::unreadable(&error, &[], &location, Some(build)));
                continue;
            }
            let bytes = disk::read(&file, manifest::DESCRIPTION_BYTES_MAX)?;
            if sha256(&bytes) != hash {
                return Err(VendorError::Spoilt { file });
            }
            releases.insert(build, readable::read(&bytes, &location, Some(build)));
        }
        Ok(releases)
    }
}

/// Those that can be read, and those that cannot.
fn parted(releases: BTreeMap<u64, Release>) -> (Vec<ReleaseId>, Vec<UnreadableRelease>) {
    let (mut good, mut unreadable) = (Vec::new(), Vec::new());
    for Release { id, unreadable: because, .. } in releases.into_values() {
        match because {
            Some(because) => unreadable.push(UnreadableRelease { id, because }),
            None => good.push(id),
        }
    }
    (good, unreadable)
}

/// What a root still lacks, seen from the one it replaces.
pub(in crate::feed::vendor) fn pending_root(file: PathBuf, envelope: &Envelope, old: &Root, new: &Root) -> PendingRoot {
    let missing = |root: &Root| {
        let (ids, threshold) = keys_of(root, Role::Root);
        threshold.saturating_sub(ids.iter().filter(|id| envelope.is_signed_by(id)).count())
    };
    let both = keys_of(old, Role::Root).0.iter().chain(keys_of(new, Role::Root).0);
    let unsigned: BTreeSet<String> = both.filter(|id| !envelope.is_signed_by(id)).cloned().collect();
    PendingRoot {
        version: new.version,
        file,
        unsigned: unsigned.into_iter().collect(),
        missing_old: missing(old),
        missing_new: missing(new),
    }
}
