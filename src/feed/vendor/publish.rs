//! A tree becomes a release: packed, described, signed.
//!
//! The archives, what makes them from earlier ones (`deltas`), and the description come first, in a folder of their own build; then the targets that name them, the
//! snapshot that names these, and last the timestamp. Before that last rename no site knows of the release.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::domain::progress::Progress;
use crate::domain::progress::Silent;
use crate::domain::release::Archive;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::UPDATER_PROGRAM;
use crate::domain::release::updater_archive;
use crate::feed::UPDATERS;
use crate::feed::error::FeedError;
use crate::feed::manifest;
use crate::feed::manifest::DESCRIPTION;
use crate::feed::pack;
use crate::feed::pack::PackMeta;
use crate::feed::readable;
use crate::feed::signed::RELEASES_MAX;
use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::refuse::check_is_newer;
use crate::feed::vendor::refuse::check_migration;
use crate::feed::vendor::refuse::check_tree;
use crate::feed::vendor::renew::Renewal;
use crate::feed::vendor::renew::expires_at;
use crate::feed::vendor::renew::own;
use crate::feed::vendor::role::Role;
use crate::feed::vendor::role::describe;
use crate::feed::vendor::state::Current;
use crate::feed::vendor::state::Place;
use crate::feed::vendor::state::Workshop;
use crate::feed::vendor::withdraw::location;
use crate::feed::vendor::withdraw::withdrawn;

/// What a file takes in the targets beside its name: hash, size, and how they are written.
const TARGET_BYTES_MAX: usize = 256;
/// The longest name of a platform.
const TRIPLE_BYTES_MAX: usize = 100;

/// What is published.
#[derive(Debug, Clone)]
pub enum Content {
    /// The application, as a tree.
    Tree(PathBuf),
    /// The updater itself: a program for each platform, named by its target triple.
    Updater(Vec<(String, PathBuf)>),
}

/// What came of publishing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Which release.
    #[serde(flatten)]
    pub id: ReleaseId,
    /// Where it is, below the published folder's `targets`.
    pub location: PathBuf,
    /// Its archives.
    pub archives: Vec<Archive>,
    /// Why no small download was made, where some were wished for and the release is too large for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_deltas: Option<String>,
    /// Until when sites accept the feed without another signature.
    pub holds_until: DateTime<Utc>,
}

/// Publishes `content` as the release that `meta` describes, with small downloads from at most `deltas` builds before it.
/// Blocking. The updater's own programs are fetched whole: they are small, and seldom new.
///
/// # Errors
/// The build is not above all others, no site could come to it, the tree is one that sites would refuse, a program is none, a
/// key is missing, or something cannot be written. What is published is then as it was.
pub fn publish(
    place: Place,
    meta: &PackMeta,
    content: &Content,
    deltas: usize,
    now: DateTime<Utc>,
) -> Result<Published, VendorError> {
    publish_watched(place, meta, content, deltas, now, &Silent)
}

/// The same; progress counts the bytes of the tree, once for each small download.
///
/// # Errors
/// As for [`publish`].
pub fn publish_watched(
    place: Place,
    meta: &PackMeta,
    content: &Content,
    deltas: usize,
    now: DateTime<Utc>,
    progress: &dyn Progress,
) -> Result<Published, VendorError> {
    if let Content::Updater(programs) = content {
        check_programs(programs)?;
    }
    let workshop = Workshop::enter(place)?;
    if workshop.settings.updater != matches!(content, Content::Updater(_)) {
        return Err(VendorError::WrongContent { is_updater: workshop.settings.updater });
    }
    let current = workshop.current()?;
    // A root that waits for signatures changes nothing: the present one counts until then.
    workshop.check_root(&current, now)?;
    let folder = match content {
        Content::Tree(_) => None,
        Content::Updater(_) => Some(UPDATERS),
    };
    let before = workshop.releases(current.targets.signed(), folder)?;
    let mut known = withdrawn(current.targets.signed(), folder);
    known.extend(before.iter().map(|(build, release)| (*build, release.id.clone())));
    check_is_newer(&known, &meta.id)?;
    if let Content::Tree(tree) = content {
        check_tree(tree, &workshop.dir, workshop.keys.folders())?;
        check_migration(tree, meta.migrate.as_deref().unwrap_or_default())?;
    }
    let files = workshop.archive_names(meta, content);
    workshop.check_sizes(meta, &files, folder, deltas, before.len(), &current)?;
    // Whether the keys can be opened is known before hours are spent on packing.
    let root = current.root.signed();
    for role in [Role::Targets, Role::Snapshot, Role::Timestamp] {
        workshop.signers(role, &[root])?;
    }

    let mut release = workshop.make(meta, content, files, folder)?;
    let without_deltas = match content {
        Content::Tree(_) => workshop.make_deltas(&mut release, &before, deltas, &workshop.drafts(), progress)?,
        Content::Updater(_) => None,
    };
    let targets = workshop.place_files(&release, &current)?;
    let files = Renewal { targets: Some(targets), snapshot: true }.files(&workshop, &current, &[root], now)?;
    workshop.commit(&files, now)?;
    disk::remove_folder(&workshop.drafts())?;
    let current = workshop.current()?;
    let Release { id, location, archives, .. } = release;
    Ok(Published { id, location, archives, without_deltas, holds_until: current.holds_until() })
}

/// Whether each program can be one, for a kind of machine that can be one; the names become parts of paths.
fn check_programs(programs: &[(String, PathBuf)]) -> Result<(), VendorError> {
    for (index, (triple, program)) in programs.iter().enumerate() {
        if !is_triple(triple) {
            return Err(VendorError::BadTriple { triple: triple.clone() });
        }
        if programs[..index].iter().any(|(other, _)| other == triple) {
            return Err(VendorError::TripleTwice { triple: triple.clone() });
        }
        let about = std::fs::metadata(program);
        let about = about.map_err(|source| VendorError::Read { path: program.clone(), source })?;
        if !about.is_file() || about.len() == 0 {
            return Err(VendorError::NotAProgram { path: program.clone() });
        }
    }
    Ok(())
}

/// Whether this may be the name of a platform: `x86_64-unknown-linux-gnu`.
fn is_triple(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
    };
    name.len() <= TRIPLE_BYTES_MAX && (3..=5).contains(&name.split('-').count()) && name.split('-').all(is_part)
}

impl Current {
    /// Until when sites accept what is published without another signature.
    pub(in crate::feed::vendor) fn holds_until(&self) -> DateTime<Utc> {
        let (root, targets) = (self.root.signed().expires, self.targets.signed().expires);
        let (snapshot, timestamp) = (self.snapshot.signed().expires, self.timestamp.signed().expires);
        expires_at(root.min(targets).min(snapshot).min(timestamp))
    }
}

impl Workshop {
    fn drafts(&self) -> PathBuf {
        self.dir.join("drafts")
    }

    /// Below an expired root nothing else is accepted.
    pub(in crate::feed::vendor) fn check_root(&self, current: &Current, now: DateTime<Utc>) -> Result<(), VendorError> {
        let expired_at = expires_at(current.root.signed().expires);
        if expired_at <= now {
            return Err(VendorError::RootExpired { expired_at: expired_at.to_rfc3339() });
        }
        Ok(())
    }

    /// What the archives are called.
    fn archive_names(&self, meta: &PackMeta, content: &Content) -> Vec<String> {
        match content {
            Content::Tree(_) => vec![format!("{}-{}.tar.zst", self.settings.name, meta.id.version)],
            Content::Updater(programs) => programs.iter().map(|(triple, _)| updater_archive(triple)).collect(),
        }
    }

    /// Refuses what sites would not read: nothing is packed, and nothing written.
    fn check_sizes(
        &self,
        meta: &PackMeta,
        files: &[String],
        folder: Option<&str>,
        deltas: usize,
        before: usize,
        current: &Current,
    ) -> Result<(), VendorError> {
        let failed = |source: FeedError| VendorError::Release { id: meta.id.clone(), source: Box::new(source) };
        if before >= RELEASES_MAX {
            return Err(failed(FeedError::TooManyReleases { dir: self.published(), max: RELEASES_MAX }));
        }
        let deltas = if folder.is_none() { deltas.min(before) } else { 0 };
        let release = pack::release(meta, Vec::new(), location(folder, meta.id.build));
        readable::check(&release, files, deltas).map_err(failed)?;
        let named = files.len() * (1 + deltas) + 1;
        let names = named * (release.location.as_os_str().len() + files.iter().map(String::len).max().unwrap_or(0));
        let targets = current.targets_bytes.len() + names + named * TARGET_BYTES_MAX;
        self.must_be_read("targets.json", targets as u64)
    }

    /// Packs into the drafts, which no site looks into.
    fn make(
        &self,
        meta: &PackMeta,
        content: &Content,
        files: Vec<String>,
        folder: Option<&str>,
    ) -> Result<Release, VendorError> {
        let failed = |source: FeedError| VendorError::Release { id: meta.id.clone(), source: Box::new(source) };
        let drafts = self.drafts();
        disk::remove_folder(&drafts)?;
        disk::make(&drafts)?;
        let mut archives = Vec::new();
        let trees: Vec<PathBuf> = match content {
            Content::Tree(tree) => vec![tree.clone()],
            Content::Updater(programs) => {
                let tree = |(triple, program): &(String, PathBuf)| updater_tree(&drafts, triple, program);
                programs.iter().map(tree).collect::<Result<_, _>>()?
            }
        };
        for (file, tree) in files.into_iter().zip(trees) {
            archives.push(pack::write_archive(&tree, &drafts.join(&file), file).map_err(failed)?);
        }
        let release = pack::release(meta, archives, location(folder, meta.id.build));
        match manifest::problem(&release) {
            Some((key, problem)) => {
                Err(failed(FeedError::BadValue { file: release.location.join(DESCRIPTION), key, problem }))
            }
            None => Ok(release),
        }
    }

    /// Puts a release's files where they are served from, and says how targets with them look.
    fn place_files(&self, release: &Release, current: &Current) -> Result<Value, VendorError> {
        let failed = |source: FeedError| VendorError::Release { id: release.id.clone(), source: Box::new(source) };
        let text = manifest::write(release).map_err(failed)?;
        let location = release.location.to_string_lossy();
        let folder = self.published().join("targets").join(&release.location);
        // Of a try that came to nothing; no metadata that count name them.
        disk::remove_folder(&folder)?;
        disk::make(&folder)?;
        let mut targets = own(&current.targets_bytes);
        for archive in &release.archives {
            let path = format!("{location}/{}", archive.file);
            disk::rename(&self.drafts().join(&archive.file), &self.target_file(&path, &archive.sha256))?;
            targets["targets"][path] = json!({ "length": archive.size_bytes, "hashes": { "sha256": archive.sha256 } });
            for delta in &archive.deltas {
                let path = format!("{location}/{}", delta.file);
                disk::rename(&self.drafts().join(&delta.file), &self.target_file(&path, &delta.sha256))?;
                targets["targets"][path] = json!({ "length": delta.size_bytes, "hashes": { "sha256": delta.sha256 } });
            }
        }
        let path = format!("{location}/{DESCRIPTION}");
        let described = describe(text.as_bytes());
        let sha256 = described["hashes"]["sha256"].as_str().unwrap_or_default().to_owned();
        disk::write(&self.target_file(&path, &sha256), text.as_bytes())?;
        targets["targets"][path] = described;
        disk::sync_up(&folder, &self.published())?;
        Ok(targets)
    }
}

/// A folder with nothing but the program. Its time stays, so that the same program gives the same bytes.
fn updater_tree(drafts: &Path, triple: &str, program: &Path) -> Result<PathBuf, VendorError> {
    let tree = drafts.join(triple);
    disk::make(&tree)?;
    let inside = tree.join(UPDATER_PROGRAM);
    let unread = |source| VendorError::Read { path: program.to_owned(), source };
    let mut from = File::open(program).map_err(unread)?;
    let changed = from.metadata().and_then(|meta| meta.modified()).map_err(unread)?;
    let mut to = disk::create_program(&inside)?;
    std::io::copy(&mut from, &mut to).map_err(|source| VendorError::Write { path: inside.clone(), source })?;
    to.set_modified(changed).map_err(|source| VendorError::Write { path: inside.clone(), source })?;
    File::open(&tree)
        .and_then(|tree| tree.set_modified(changed))
        .map_err(|source| VendorError::Write { path: tree.clone(), source })?;
    Ok(tree)
}
