//! What a vendor publishes.

use std::cmp::Ordering;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use chrono::DateTime;
use chrono::NaiveDate;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use crate::domain::answers::Answers;

/// A version as the vendor writes it: `2.4.1`, `17.0-20260301`. Compared piece by piece, numbers as numbers.
///
/// Only builds decide which release is newer; versions are compared for minimum versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

/// A text that cannot be a version.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "\"{text}\" cannot be a version: use 1 to 64 letters, digits, '.', '-', '+' or '_', beginning with a letter or digit"
)]
pub struct BadVersion {
    text: String,
}

impl Version {
    /// What stands for a version that cannot be told.
    pub fn unknown() -> Self {
        Self("unknown".to_owned())
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this one comes before another, where numbers tell: `2.0` comes before `2.1`, and before `2.0.1`. Nothing is
    /// said where words differ, or where one of them only says more than the other: `17.0` may be any `17.0-20260301`.
    pub fn is_before(&self, other: &Self) -> Option<bool> {
        let Some((ours, theirs)) = self.pieces().zip(other.pieces()).find(|(ours, theirs)| ours != theirs) else {
            return match (other.is_mended(self), self.is_mended(other)) {
                (false, false) => None,
                (is_before, _) => Some(is_before),
            };
        };
        let (ours, theirs) = (ours.parse::<u64>().ok()?, theirs.parse::<u64>().ok()?);
        (ours != theirs).then_some(ours < theirs)
    }

    /// Whether this one is another with more numbers behind it, of which one is not zero: `2.0.1` of `2.0`.
    fn is_mended(&self, other: &Self) -> bool {
        let more = self.0.strip_prefix(&other.0).and_then(|more| more.strip_prefix('.'));
        let mut numbers = more.into_iter().flat_map(|more| more.split('.')).map(str::parse::<u64>);
        numbers.find(|number| *number != Ok(0)).is_some_and(|number| number.is_ok())
    }

    fn pieces(&self) -> impl Iterator<Item = &str> {
        self.0.split(['.', '-', '+', '_'])
    }
}

impl FromStr for Version {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let good = (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_'));
        if good { Ok(Self(text.to_owned())) } else { Err(BadVersion { text: text.to_owned() }) }
    }
}

impl TryFrom<String> for Version {
    type Error = BadVersion;

    fn try_from(text: String) -> Result<Self, BadVersion> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let mut ours = self.pieces();
        let mut theirs = other.pieces();
        loop {
            let order = match (ours.next(), theirs.next()) {
                (None, None) => return self.0.cmp(&other.0),
                (None, Some(_)) => Ordering::Less,
                (Some(_), None) => Ordering::Greater,
                (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                    (Ok(a), Ok(b)) => a.cmp(&b),
                    _ => a.cmp(b),
                },
            };
            if order != Ordering::Equal {
                return order;
            }
        }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Which release: its version for people, its build for ordering. Builds ascend without exception.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReleaseId {
    /// For people, and what the running application must answer.
    pub version: Version,
    /// For ordering.
    pub build: u64,
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (build {})", self.version, self.build)
    }
}

/// What is installed, and whose word that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Which release.
    pub id: ReleaseId,
    /// Whose word.
    pub word: Word,
}

/// Who says which release is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Our own record: we have put it there.
    Ours,
    /// The administrator, in the configuration.
    Administrator,
    /// The tree itself, in its [`MARKER`]. Whoever owns it may say anything.
    Tree,
    /// The application, when it is asked.
    Application,
}

impl Word {
    /// Whether it is only what the application, or its user, says.
    pub fn is_unverified(self) -> bool {
        matches!(self, Self::Tree | Self::Application)
    }
}

/// What the program is called in a release of Afterhours itself; nothing else is in it.
pub const UPDATER_PROGRAM: &str = "afterhours";

/// The archive for one kind of machine, a target triple, in a release of Afterhours itself.
pub fn updater_archive(triple: &str) -> String {
    format!("{UPDATER_PROGRAM}-{triple}.tar.zst")
}

/// The file in the root of a program tree that says which release the tree is: one [`Marker`] as JSON.
pub const MARKER: &str = ".afterhours-release.json";

/// A marker that does not say which release a tree is.
#[derive(Debug, Error)]
#[error("read {MARKER} as a version and a build")]
pub struct BadMarker {
    #[source]
    source: serde_json::Error,
}

/// What the [`MARKER`] file of a tree says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Which release the tree is.
    #[serde(flatten)]
    pub id: ReleaseId,
    /// SHA-256 of each archive that it was unpacked from, in their order. Empty where an Afterhours of before wrote it.
    #[serde(default)]
    pub archives: Vec<String>,
}

impl Marker {
    /// The one of a tree that this release is unpacked into.
    pub fn of(release: &Release) -> Self {
        let archives = release.archives.iter().map(|archive| archive.sha256.clone()).collect();
        Self { id: release.id.clone(), archives }
    }

    /// What is written into the file.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::json!(self).to_string();
        text.push('\n');
        text
    }

    /// What the file says. Other keys are left to later versions.
    ///
    /// # Errors
    /// The text is not JSON, or names no version and build.
    pub fn from_text(text: &str) -> Result<Self, BadMarker> {
        serde_json::from_str(text).map_err(|source| BadMarker { source })
    }
}

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Its name inside the release's folder; no directory part.
    pub file: String,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The sum of the sizes of all files in it, in bytes; unpacking stops beyond.
    pub unpacked_bytes: u64,
    /// SHA-256 of the tar archive inside the compressed file. Needed where there are deltas: they make the tar archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tar_sha256: Option<String>,
    /// Smaller downloads that make the same tar archive out of an earlier build's.
    #[serde(default, rename = "delta", skip_serializing_if = "Vec::is_empty")]
    pub deltas: Vec<Delta>,
}

/// What turns the tar archive of an earlier build into the one it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The build whose tar archive it starts from.
    pub from_build: u64,
    /// SHA-256 of that tar archive.
    pub from_tar_sha256: String,
    /// Its name inside the release's folder; no directory part.
    pub file: String,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// How a release spreads over the sites: each site finds its own place between `start` and the end, without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// When the first sites take it.
    pub start: DateTime<Utc>,
    /// How many hours later the last ones do.
    pub hours: u32,
}

/// A published version and all that is known of it before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Version and build.
    #[serde(flatten)]
    pub id: ReleaseId,
    /// The day it was published.
    #[serde(default)]
    pub date: Option<NaiveDate>,
    /// The instant it was published; a site's cool-down counts from here.
    #[serde(default)]
    pub published_at: Option<DateTime<Utc>>,
    /// Mends a hole that others may use: exempt from cool-down and rollout.
    #[serde(default)]
    pub security: bool,
    /// How it spreads over the sites; at once when absent.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// The classes of licences it is for; all when empty.
    #[serde(default)]
    pub licences: Vec<String>,
    /// What is new, in Markdown.
    #[serde(default)]
    pub notes: String,
    /// The lowest version that may be updated to this one directly.
    #[serde(default)]
    pub min_version: Option<Version>,
    /// The lowest version of Afterhours that can install it.
    #[serde(default)]
    pub min_afterhours: Option<Version>,
    /// The first key of its description that this Afterhours does not know, and so must not install it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_key: Option<String>,
    /// Why its description is of no use. Such a release is not offered, and nothing goes past it: it could be a barrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Every path of versions must stop here, even when a newer build exists.
    #[serde(default)]
    pub barrier: bool,
    /// Migrates the data; an argument list, run in the new tree. A relative program is looked up in it.
    #[serde(default)]
    pub migrate: Option<Vec<String>>,
    /// Whether that must run as root. It runs as the owner of the tree otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub migrate_as_root: bool,
    /// What it answers when it is asked for its version, where that is not the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
    /// The archives that make the tree, unpacked in order.
    pub archives: Vec<Archive>,
    /// Where the feed keeps it; meaning depends on the feed.
    pub location: PathBuf,
}

impl Release {
    /// A release of which no more is known than what it is and where.
    pub fn new(id: ReleaseId, archives: Vec<Archive>, location: impl Into<PathBuf>) -> Self {
        Self {
            id,
            date: None,
            published_at: None,
            security: false,
            rollout: None,
            licences: Vec::new(),
            notes: String::new(),
            min_version: None,
            min_afterhours: None,
            unknown_key: None,
            unreadable: None,
            barrier: false,
            migrate: None,
            migrate_as_root: false,
            answers: None,
            archives,
            location: location.into(),
        }
    }

    /// What it must answer.
    pub fn answers(&self) -> Answers {
        self.answers.clone().unwrap_or_else(|| Answers::from(&self.id.version))
    }

    /// The bytes to fetch.
    pub fn size_bytes(&self) -> u64 {
        self.archives.iter().map(|archive| archive.size_bytes).sum()
    }

    /// The bytes of the unpacked tree.
    pub fn unpacked_bytes(&self) -> u64 {
        self.archives.iter().map(|archive| archive.unpacked_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_people_do() {
        let sorted = ["1", "1.2", "1.2.9", "1.2.10", "2", "2.0", "10.0"];
        for pair in sorted.windows(2) {
            let (a, b): (Version, Version) = (pair[0].parse().unwrap(), pair[1].parse().unwrap());
            assert!(a < b, "{a} < {b}");
        }
    }

    #[test]
    fn only_numbers_tell_what_comes_before() {
        let is_before = |a: &str, b: &str| a.parse::<Version>().unwrap().is_before(&b.parse().unwrap());
        for (before, after) in [
            ("2", "10"),
            ("1.9", "2.0"),
            ("2.0", "2.0.1"),
            ("2", "2.0.0.3"),
            ("17.0-20260215", "17.0-20260301"),
            ("2-rc1", "3-rc1"),
        ] {
            assert_eq!((is_before(before, after), is_before(after, before)), (Some(true), Some(false)));
        }
        for (one, other) in [
            ("2.0", "2.0.0"),
            ("17.0", "17.0-1"),
            ("17.0", "17.0.rc1"),
            ("winter", "spring"),
            ("v2", "2"),
            ("2.0", "2.00"),
        ] {
            assert_eq!((is_before(one, other), is_before(other, one)), (None, None), "{one} {other}");
        }
    }

    #[test]
    fn a_marker_reads_as_it_was_written() {
        let id = ReleaseId { version: "2.4.1-rc+1".parse().unwrap(), build: 24 };
        let marker = Marker { id: id.clone(), archives: vec!["0".repeat(64), "1".repeat(64)] };
        assert_eq!(Marker::from_text(&marker.to_text()).unwrap(), marker);
        let before = Marker { id, archives: Vec::new() };
        assert_eq!(Marker::from_text("{\"version\":\"2.4.1-rc+1\",\"build\":24,\"later\":{}}").unwrap(), before);
        for bad in ["", "{}", "{\"version\":\"2\"}", "{\"version\":\"../2\",\"build\":1}", "2.4.1"] {
            assert!(Marker::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_are_safe_in_a_path() {
        for bad in ["", "../1", "1/2", ".1", "1 2"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
