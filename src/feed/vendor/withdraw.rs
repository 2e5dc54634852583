//! A release is taken back: no list names it any more, and its files go.
//!
//! That it was there stands in the targets, signed like all the rest: neither its build nor its version is ever given to
//! something else, on whichever machine the feed is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;
use sigstore_tuf::Targets;

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
        let before = releases.range(..build).next_back().map(|(_, before)| &before.id);
        // Afterhours itself jumps, so it needs no way from one to the next.
        if let Some((_, next)) = releases.range(build..).next().filter(|_| !updater) {
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
