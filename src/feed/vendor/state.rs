//! A vendor's feed as it lies on disk, and the one way in which its metadata change.
//!
//! ```text
//! DIR/feed.toml          name, scheme of new keys, for how long signatures hold
//! DIR/root.json          the newest root, byte for byte: what sites are given, and what we believe ourselves
//! DIR/pending.root.json  a root that waits for signatures
//! DIR/keys/              sealed keys; what is used no more in retired/
//! DIR/drafts/            a release in the making
//! DIR/published/         what is uploaded
//! ```
//!
//! A change is a list of files. A site reads the feed with them laid over it; only then are they written, the one that
//! makes the others count last. A file whose name has a version is written once: what a crash left has used up its
//! version, and the next try takes a higher one.
//!
//! *Invariant:* nothing is signed on top of metadata that do not follow from `root.json`: whoever can write into the
//! published folder cannot have their own files signed by us.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;
use sigstore_tuf::Metadata;
use sigstore_tuf::Root;
use sigstore_tuf::Snapshot;
use sigstore_tuf::Targets;
use sigstore_tuf::Timestamp;
use sigstore_tuf::UpdaterConfig;

use crate::domain::span::Span;
use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::keys::KeyRing;
use crate::feed::vendor::keys::Scheme;
use crate::feed::vendor::passphrases::Passphrases;
use crate::feed::vendor::role::Envelope;
use crate::feed::vendor::role::Role;
use crate::feed::vendor::site;

pub(in crate::feed::vendor) const SETTINGS: &str = "feed.toml";
pub(in crate::feed::vendor) const ROOT: &str = "root.json";
pub(in crate::feed::vendor) const PENDING: &str = "pending.root.json";
pub(in crate::feed::vendor) const KEYS: &str = "keys";
const LOCK: &str = "lock";
/// The largest metadata that are read; what a site accepts at most of any role.
pub(in crate::feed::vendor) const METADATA_BYTES_MAX: u64 = 5_000_000;
/// Earlier roots that a site may still trust and has to come from.
const ROOTS_BACK: u64 = 30;
/// How many superseded versions of snapshot and targets stay, for a site that is just reading them.
const VERSIONS_KEPT: u64 = 8;

/// `feed.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::feed::vendor) struct VendorSettings {
    /// The beginning of the archives' names.
    pub name: String,
    /// What new keys sign with.
    #[serde(default)]
    pub scheme: Scheme,
    /// Whether it holds releases of Afterhours itself, and no application.
    #[serde(default)]
    pub updater: bool,
    /// For how long signatures hold.
    pub hold: Hold,
}

/// For how long the signatures of each role hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// A year, if nothing else is said.
    pub root: Span,
    /// Ninety days.
    pub targets: Span,
    /// Thirty days.
    pub snapshot: Span,
    /// Three days: a site that is shown nothing newer notices after so long.
    pub timestamp: Span,
}

impl Default for Hold {
    fn default() -> Self {
        Self { root: Span::days(365), targets: Span::days(90), snapshot: Span::days(30), timestamp: Span::days(3) }
    }
}

impl Hold {
    /// For a role.
    pub const fn of(&self, role: Role) -> Span {
        match role {
            Role::Root => self.root,
            Role::Targets => self.targets,
            Role::Snapshot => self.snapshot,
            Role::Timestamp => self.timestamp,
        }
    }
}

/// What is published now, verified from `root.json` on.
#[derive(Debug)]
pub(in crate::feed::vendor) struct Current {
    pub(in crate::feed::vendor) root: Metadata<Root>,
    pub(in crate::feed::vendor) root_bytes: Vec<u8>,
    pub(in crate::feed::vendor) targets: Metadata<Targets>,
    pub(in crate::feed::vendor) targets_bytes: Vec<u8>,
    pub(in crate::feed::vendor) snapshot: Metadata<Snapshot>,
    pub(in crate::feed::vendor) snapshot_bytes: Vec<u8>,
    pub(in crate::feed::vendor) timestamp: Metadata<Timestamp>,
}

/// A vendor's feed, held against other commands.
#[derive(Debug)]
pub(in crate::feed::vendor) struct Workshop {
    pub(in crate::feed::vendor) dir: PathBuf,
    pub(in crate::feed::vendor) settings: VendorSettings,
    pub(in crate::feed::vendor) keys: KeyRing,
    _lock: File,
}

/// Where to find a feed and its keys.
#[derive(Debug, Clone)]
pub struct Place {
    /// The feed's folder.
    pub dir: PathBuf,
    /// Further folders with keys, besides `DIR/keys`.
    pub keys: Vec<PathBuf>,
    /// What opens the keys; nothing where none is opened.
    pub passphrases: Option<Passphrases>,
}

impl Workshop {
    /// Enters the feed and keeps others out.
    pub(in crate::feed::vendor) fn enter(place: Place) -> Result<Self, VendorError> {
        let Place { dir, keys, passphrases } = place;
        let file = dir.join(SETTINGS);
        let Some(text) = disk::read_if_there(&file, METADATA_BYTES_MAX)? else {
            return Err(VendorError::NoFeed { dir });
        };
        let settings = toml::from_str(&String::from_utf8_lossy(&text))
            .map_err(|source| VendorError::BadSettings { file, source: Box::new(source) })?;
        let lock = disk::lock(&dir.join(LOCK))?;
        let folders = [dir.join(KEYS)].into_iter().chain(keys).collect();
        Ok(Self { keys: KeyRing::new(folders, passphrases), dir, settings, _lock: lock })
    }

    pub(in crate::feed::vendor) fn published(&self) -> PathBuf {
        self.dir.join("published")
    }

    pub(in crate::feed::vendor) fn metadata(&self) -> PathBuf {
        self.published().join("metadata")
    }

    pub(in crate::feed::vendor) fn pending_file(&self) -> PathBuf {
        self.dir.join(PENDING)
    }

    /// What is published now. The pinned root moves on to what follows from it: a crash may have come in between.
    pub(in crate::feed::vendor) fn current(&self) -> Result<Current, VendorError> {
        let (root, root_bytes) = self.newest_root()?;
        // Signed for a root that is about to be published counts, too: a crash may have come just before it was.
        let pending = self.pending()?;
        let judges: Vec<&Root> =
            [Some(root.signed()), pending.as_ref().map(|(_, root)| root.signed())].into_iter().flatten().collect();
        let (timestamp, _): (Metadata<Timestamp>, _) = self.read("timestamp.json", Role::Timestamp, &judges)?;
        let no_version =
            |what: &str| VendorError::Spoilt { file: self.metadata().join(format!("the version of {what}")) };
        let version = timestamp.signed().snapshot_meta().ok_or_else(|| no_version("snapshot.json"))?.version;
        let (snapshot, snapshot_bytes): (Metadata<Snapshot>, _) =
            self.read(&format!("{version}.snapshot.json"), Role::Snapshot, &judges)?;
        let version = snapshot.signed().meta.get("targets.json").ok_or_else(|| no_version("targets.json"))?.version;
        let (targets, targets_bytes): (Metadata<Targets>, _) =
            self.read(&format!("{version}.targets.json"), Role::Targets, &judges)?;
        Ok(Current { root, root_bytes, targets, targets_bytes, snapshot, snapshot_bytes, timestamp })
    }

    fn newest_root(&self) -> Result<(Metadata<Root>, Vec<u8>), VendorError> {
        let pinned = self.dir.join(ROOT);
        let mut bytes = disk::read(&pinned, METADATA_BYTES_MAX)?;
        let mut root: Metadata<Root> = parse(&pinned, &bytes)?;
        let published = self.metadata().join(format!("{}.root.json", root.signed().version));
        if disk::read(&published, METADATA_BYTES_MAX)? != bytes {
            return Err(VendorError::OtherRoot { file: published, pinned });
        }
        loop {
            let file = self.metadata().join(format!("{}.root.json", root.signed().version + 1));
            let Some(next_bytes) = disk::read_if_there(&file, METADATA_BYTES_MAX)? else { break };
            let next: Metadata<Root> = parse(&file, &next_bytes)?;
            for judge in [root.signed(), next.signed()] {
                verify(&next, judge, Role::Root)
                    .map_err(|source| VendorError::Untrusted { file: file.clone(), source: Box::new(source) })?;
            }
            disk::write(&pinned, &next_bytes)?;
            (root, bytes) = (next, next_bytes);
        }
        Ok((root, bytes))
    }

    /// Metadata that enough keys have signed, as one of the `judges` says it.
    fn read<T: sigstore_tuf::Role>(
        &self,
        name: &str,
        role: Role,
        judges: &[&Root],
    ) -> Result<(Metadata<T>, Vec<u8>), VendorError> {
        let file = self.metadata().join(name);
        let bytes = disk::read(&file, METADATA_BYTES_MAX)?;
        let metadata = parse(&file, &bytes)?;
        let mut verdict = Err(sigstore_tuf::Error::NotRefreshed);
        for judge in judges {
            verdict = verdict.or_else(|_| verify(&metadata, judge, role));
        }
        verdict.map_err(|source| VendorError::Untrusted { file, source: Box::new(source) })?;
        Ok((metadata, bytes))
    }

    /// The root that waits for signatures, and its metadata. One that is published already waits no more.
    pub(in crate::feed::vendor) fn pending(&self) -> Result<Option<(Envelope, Metadata<Root>)>, VendorError> {
        let file = self.pending_file();
        let Some(bytes) = disk::read_if_there(&file, METADATA_BYTES_MAX)? else { return Ok(None) };
        let root: Metadata<Root> = parse(&file, &bytes)?;
        let envelope = Envelope::parse(&bytes).ok_or_else(|| VendorError::Spoilt { file: file.clone() })?;
        if self.metadata().join(format!("{}.root.json", root.signed().version)).exists() {
            disk::remove(&file)?;
            return Ok(None);
        }
        Ok(Some((envelope, root)))
    }

    /// The version that the next file of a role takes: above every one there is, also above what a crash left.
    pub(in crate::feed::vendor) fn next_version(&self, role: Role) -> Result<u64, VendorError> {
        Ok(self.versions(role)?.into_iter().max().unwrap_or(0) + 1)
    }

    fn versions(&self, role: Role) -> Result<Vec<u64>, VendorError> {
        let dir = self.metadata();
        let failed = |source| VendorError::Read { path: dir.clone(), source };
        let mut versions = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some((version, rest)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            if rest == format!("{role}.json") {
                versions.extend(version.parse::<u64>().ok());
            }
        }
        Ok(versions)
    }

    /// Asks a site, writes the files in their order, asks again.
    pub(in crate::feed::vendor) fn commit(
        &self,
        files: &[(String, Vec<u8>)],
        now: DateTime<Utc>,
    ) -> Result<Targets, VendorError> {
        let (root, bytes) = self.newest_root()?;
        let back = root.signed().version.saturating_sub(ROOTS_BACK).max(1);
        let first = disk::read_if_there(&self.metadata().join(format!("{back}.root.json")), METADATA_BYTES_MAX)?
            .unwrap_or(bytes);
        for (name, bytes) in files {
            self.must_be_read(name, bytes.len() as u64)?;
        }
        let believed = site::believes(&self.metadata(), files, &first, now)?;
        self.look_at_targets(&believed)?;
        for (name, bytes) in files {
            disk::write(&self.metadata().join(name), bytes)?;
        }
        let believed = site::believes(&self.metadata(), &[], &first, now)?;
        // Moves the pinned root on.
        self.newest_root()?;
        self.prune()?;
        Ok(believed)
    }

    /// Refuses a file that is larger than what sites read of its role.
    pub(in crate::feed::vendor) fn must_be_read(&self, name: &str, bytes: u64) -> Result<(), VendorError> {
        let limits = UpdaterConfig::default();
        let bytes_max = match name.trim_end_matches(".json").rsplit('.').next() {
            Some("root") => limits.root_max_length,
            Some("timestamp") => limits.timestamp_max_length,
            Some("snapshot") => limits.snapshot_max_length,
            _ => limits.targets_max_length,
        };
        match bytes > bytes_max {
            true => Err(VendorError::TooLargeForSites { file: self.metadata().join(name), bytes, bytes_max }),
            false => Ok(()),
        }
    }

    /// Every file that is named is there in its size. Its bytes were hashed when it came.
    fn look_at_targets(&self, targets: &Targets) -> Result<(), VendorError> {
        for (path, target) in &targets.targets {
            let file = self.target_file(path, target.hashes.get("sha256").map_or("", String::as_str));
            match std::fs::symlink_metadata(&file) {
                Ok(meta) if meta.is_file() && meta.len() == target.length => {}
                _ => return Err(VendorError::Spoilt { file }),
            }
        }
        Ok(())
    }

    /// Where a file lies: its name begins with its hash, so that a new one never takes an old one's place.
    pub(in crate::feed::vendor) fn target_file(&self, path: &str, sha256: &str) -> PathBuf {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.published().join("targets").join(folder).join(format!("{sha256}.{name}"))
    }

    /// Metadata that nobody reads any more would pile up with every renewal. Roots stay for ever.
    fn prune(&self) -> Result<(), VendorError> {
        let current = self.current()?;
        for (role, version) in
            [(Role::Snapshot, current.snapshot.signed().version), (Role::Targets, current.targets.signed().version)]
        {
            for old in self.versions(role)?.into_iter().filter(|old| old + VERSIONS_KEPT < version) {
                disk::remove(&self.metadata().join(format!("{old}.{role}.json")))?;
            }
        }
        Ok(())
    }
}

pub(in crate::feed::vendor) fn parse<T: sigstore_tuf::Role>(
    file: &Path,
    bytes: &[u8],
) -> Result<Metadata<T>, VendorError> {
    Metadata::from_slice(bytes)
        .map_err(|source| VendorError::Untrusted { file: file.to_owned(), source: Box::new(source) })
}

/// Whether enough of a role's keys have signed, as `root` says it.
pub(in crate::feed::vendor) fn verify<T: sigstore_tuf::Role>(
    metadata: &Metadata<T>,
    root: &Root,
    role: Role,
) -> Result<(), sigstore_tuf::Error> {
    let keys = root.role(role.name()).ok_or_else(|| sigstore_tuf::Error::UnknownRole(role.to_string()))?;
    metadata.verify_threshold(&root.keys, keys, role.name())
}
