//! A feed of Afterhours itself is carried in an application's feed, byte for byte.
//!
//! No key is needed, since nothing is signed: sites believe the makers' signatures alone. What is new comes first, and the
//! timestamp, which makes it count, last. What is there already is never changed by another file of its name.

use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;
use walkdir::WalkDir;

use crate::feed::signed::CARRIED;
use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::state::Place;
use crate::feed::vendor::state::Workshop;

/// The file that makes the others count.
const TIMESTAMP: &str = "metadata/timestamp.json";
/// The largest file that is carried.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// What was carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CarriedFeed {
    /// Where it is in the feed now.
    pub into: PathBuf,
    /// How many files were copied.
    pub files: u64,
    /// Until when sites accept it: it has to be carried again before.
    pub holds_until: String,
}

/// Copies the published folder `from` of a feed of Afterhours into the feed at `place`. Blocking.
///
/// # Errors
/// There is no feed, or something cannot be read or written.
pub fn carry(place: Place, from: &Path) -> Result<CarriedFeed, VendorError> {
    let workshop = Workshop::enter(place)?;
    let into = workshop.published().join(CARRIED);
    let absent = || VendorError::NothingToCarry { dir: from.to_owned() };
    let timestamp = disk::read_if_there(&from.join(TIMESTAMP), FILE_BYTES_MAX)?.ok_or_else(absent)?;
    let signed: serde_json::Value = serde_json::from_slice(&timestamp).map_err(|_| absent())?;
    let holds_until = signed["signed"]["expires"].as_str().ok_or_else(absent)?.to_owned();
    let mut files = 0;
    for folder in ["targets", "metadata"] {
        for entry in WalkDir::new(from.join(folder)).sort_by_file_name() {
            let entry = entry.map_err(|error| VendorError::Read { path: from.to_owned(), source: error.into() })?;
            let Ok(inside) = entry.path().strip_prefix(from) else { continue };
            let to = into.join(inside);
            if entry.file_type().is_dir() {
                disk::make(&to)?;
            } else if entry.file_type().is_file() && inside != Path::new(TIMESTAMP) && !to.exists() {
                disk::write(&to, &disk::read(entry.path(), FILE_BYTES_MAX)?)?;
                files += 1;
            }
        }
    }
    disk::write(&into.join(TIMESTAMP), &timestamp)?;
    Ok(CarriedFeed { into, files: files + 1, holds_until })
}
