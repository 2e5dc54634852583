//! A release is taken back: no list names it any more, and its files go.
//!
//! That it was there stands in the targets, signed like all the rest: its build is never given to something else, on whichever
//! machine the feed is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;
use sigstore_tuf::Targets;

use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::feed::UPDATERS;
use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::refuse::check_way;
use crate::feed::vendor::renew::Renewal;
use crate::feed::vendor::renew::own;
use crate::feed::vendor::state::Place;
use crate::feed::vendor::state::Workshop;

/// What the targets call the releases that were taken back: their folders with their versions. Other clients of The Update
/// Framework leave alone what they do not know.
const WITHDRAWN: &str = "x-afterhours-withdrawn";

/// What came of withdrawing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Withdrawn {
    /// Which release.
    #[serde(flatten)]
    pub id: ReleaseId,
    /// Where it was, below the published folder's `targets`.
    pub location: PathBuf,
    /// Until when sites accept the feed without another signature.
    pub holds_until: DateTime<Utc>,
}

/// Takes back a build of the application, or of `updater` itself. Blocking. Done where it was taken back before.
///
/// # Errors
/// There is no such build, a later one cannot be reached without it, a key is missing, or something cannot be written.
pub fn withdraw(place: Place, build: u64, updater: bool, now: DateTime<Utc>) -> Result<Withdrawn, VendorError> {
    let workshop = Workshop::enter(place)?;
    let mut current = workshop.current()?;
    let folder = updater.then_some(UPDATERS);
    let location = location(folder, build);
    let mut id = withdrawn(current.targets.signed(), folder).remove(&build);
    if id.is_none() {
        workshop.check_root(&current, now)?;
        let mut releases = workshop.releases(current.targets.signed(), folder)?;
        let release = releases.remove(&build).ok_or(VendorError::NoSuchBuild { build })?;
        let is_readable = |(_, release): &(&u64, &Release)| release.unreadable.is_none();
        let before = releases.range(..build).rfind(is_readable).map(|(_, before)| &before.id);
        // Afterhours itself jumps, so it needs no way from one to the next. Nobody came past what cannot be read.
        let is_passed = !updater && release.unreadable.is_none();
        if let Some((_, next)) = releases.range(build..).find(is_readable).filter(|_| is_passed) {
            check_way(before, &next.id, next.min_version.as_ref())
                .map_err(|_| VendorError::Needed { id: release.id.clone(), by: next.id.clone() })?;
        }
        let mut own = own(&current.targets_bytes);
        let inside = format!("{}/", location.display());
        if let Some(targets) = own["targets"].as_object_mut() {
            targets.retain(|path, _| !path.starts_with(&inside));
        }
        own[WITHDRAWN][location.to_string_lossy().as_ref()] = release.id.version.to_string().into();
        let renewal = Renewal { targets: Some(own), snapshot: true };
        let files = renewal.files(&workshop, &current, &[current.root.signed()], now)?;
        workshop.commit(&files, now)?;
        current = workshop.current()?;
        id = Some(release.id);
    }
    // Only now does nobody look for them. After a crash here the same command comes to this line again.
    disk::remove_folder(&workshop.published().join("targets").join(&location))?;
    let id = id.ok_or(VendorError::NoSuchBuild { build })?;
    Ok(Withdrawn { id, location, holds_until: current.holds_until() })
}

/// Where a build lies, below `targets`.
pub(in crate::feed::vendor) fn location(folder: Option<&str>, build: u64) -> PathBuf {
    folder.into_iter().map(str::to_owned).chain([build.to_string()]).collect()
}

/// The releases below `folder` that were taken back, by build.
pub(in crate::feed::vendor) fn withdrawn(targets: &Targets, folder: Option<&str>) -> BTreeMap<u64, ReleaseId> {
    let all = targets.extra.get(WITHDRAWN).and_then(|all| all.as_object());
    let read = |(place, version): (&String, &serde_json::Value)| {
        let place = PathBuf::from(place);
        let build = place.file_name()?.to_str()?.parse().ok()?;
        let version = version.as_str()?.parse().ok()?;
        (place == location(folder, build)).then_some((build, ReleaseId { version, build }))
    };
    all.into_iter().flatten().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::feed::pack::PackMeta;
    use crate::feed::vendor::Content;
    use crate::feed::vendor::Hold;
    use crate::feed::vendor::NewFeed;
    use crate::feed::vendor::Passphrases;
    use crate::feed::vendor::Quorum;
    use crate::feed::vendor::Scheme;
    use crate::feed::vendor::VendorFailure;
    use crate::feed::vendor::create;
    use crate::feed::vendor::publish;
    use crate::feed::vendor::role::describe;
    use crate::feed::vendor::standing;

    fn now() -> DateTime<Utc> {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    fn id(version: &str, build: u64) -> ReleaseId {
        ReleaseId { version: version.parse().unwrap(), build }
    }

    /// A feed in `orders` of the directory and a tree in `tree`.
    fn feed(dir: &Path) -> Place {
        let wish = NewFeed {
            name: "orders".to_owned(),
            scheme: Scheme::default(),
            updater: false,
            root: Quorum::ONE,
            targets: Quorum::ONE,
            hold: Hold::default(),
            root_folder: None,
            signers: Vec::new(),
        };
        let passphrases = Passphrases::new("correct horse battery".to_owned().into(), None);
        let place = Place { dir: dir.join("orders"), keys: Vec::new(), passphrases: Some(passphrases.clone()) };
        create(&place.dir, &wish, &passphrases, now()).unwrap();
        std::fs::create_dir(dir.join("tree")).unwrap();
        std::fs::write(dir.join("tree/orders"), "orders").unwrap();
        place
    }

    /// As a program did that did not measure it.
    fn add_unreadable(place: &Place, build: u64, text: &[u8]) {
        let workshop = Workshop::enter(place.clone()).unwrap();
        let current = workshop.current().unwrap();
        let (mut targets, described) = (own(&current.targets_bytes), describe(text));
        let path = format!("{build}/release.toml");
        let file = workshop.target_file(&path, described["hashes"]["sha256"].as_str().unwrap());
        disk::make(file.parent().unwrap()).unwrap();
        disk::write(&file, text).unwrap();
        targets["targets"][path] = described;
        let renewal = Renewal { targets: Some(targets), snapshot: true };
        let files = renewal.files(&workshop, &current, &[current.root.signed()], now()).unwrap();
        workshop.commit(&files, now()).unwrap();
    }

    #[test]
    fn what_no_site_can_read_is_named_and_withdrawn() {
        let dir = tempfile::tempdir().unwrap();
        let place = feed(dir.path());
        let content = Content::Tree(dir.path().join("tree"));
        let publish = |meta: &PackMeta| publish(place.clone(), meta, &content, 3, now());
        publish(&PackMeta::new(id("1.0", 1))).unwrap();
        add_unreadable(&place, 2, &[b'#'; 1_100_000]);
        add_unreadable(&place, 3, b"version = \"3.0\"\nbuild = \"three\"\n");
        publish(&PackMeta { min_version: Some("1.0".parse().unwrap()), ..PackMeta::new(id("4.0", 4)) }).unwrap();
        let shown = standing(place.clone()).unwrap();
        assert_eq!(shown.releases, [id("1.0", 1), id("4.0", 4)]);
        let unreadable: Vec<_> = shown.unreadable.iter().map(|release| release.id.to_string()).collect();
        assert_eq!(unreadable, ["unknown (build 2)", "3.0 (build 3)"]);
        assert!(shown.unreadable[0].because.contains("larger than"), "{shown:?}");
        for build in [2, 3] {
            assert_eq!(withdraw(place.clone(), build, false, now()).unwrap().id.build, build);
        }
        let shown = standing(place.clone()).unwrap();
        assert_eq!((shown.unreadable, shown.withdrawn.len()), (Vec::new(), 2));
    }

    #[test]
    fn what_sites_would_not_read_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let place = feed(dir.path());
        let files = || walkdir::WalkDir::new(&place.dir).into_iter().count();
        let before = files();
        let content = Content::Tree(dir.path().join("tree"));
        let meta = PackMeta { notes: "y".repeat(1_060_000), ..PackMeta::new(id("2.0", 2)) };
        let refused = publish(place.clone(), &meta, &content, 3, now()).unwrap_err();
        assert_eq!(refused.failure(), VendorFailure::Refused);
        assert_eq!(refused.hint().unwrap(), "shorten the notes; nothing was packed");
        assert_eq!(files(), before);
        let workshop = Workshop::enter(place.clone()).unwrap();
        for (name, bytes_max) in [
            ("2.root.json", 512_000),
            ("timestamp.json", 16_384),
            ("7.snapshot.json", 2_000_000),
            ("7.targets.json", 5_000_000),
        ] {
            workshop.must_be_read(name, bytes_max).unwrap();
            let refused = workshop.must_be_read(name, bytes_max + 1).unwrap_err();
            assert!(refused.to_string().contains("sites read"), "{refused}");
        }
    }

    #[test]
    fn the_same_version_is_packed_again_under_a_higher_build() {
        let dir = tempfile::tempdir().unwrap();
        let place = feed(dir.path());
        let content = Content::Tree(dir.path().join("tree"));
        let publish = |build| publish(place.clone(), &PackMeta::new(id("5.4.6", build)), &content, 3, now());
        publish(5).unwrap();
        std::fs::write(dir.path().join("tree/orders"), "mended").unwrap();
        let mended = publish(6).unwrap();
        assert_eq!(mended.location, Path::new("6"));
        assert!(publish(6).is_err());
        // Each build is taken back for itself, and the other stays.
        withdraw(place.clone(), 5, false, now()).unwrap();
        assert_eq!(standing(place.clone()).unwrap().releases, [id("5.4.6", 6)]);
        assert!(place.dir.join("published/targets/6").exists() && !place.dir.join("published/targets/5").exists());
        publish(7).unwrap();
    }
}
