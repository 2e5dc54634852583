//! `release.toml`: what a release's folder says about itself. Pure text in, pure text out.
//!
//! ```toml
//! version = "2.4.1"
//! build = 24                      # ascends with every release, at least 1
//! date = 2026-11-20
//! notes = "Faster search."
//! min_version = "2.0"             # the lowest version that may be updated to this one directly
//! barrier = false                 # true: no update may jump over this release
//! migrate = ["bin/migrate", "--yes"]
//!
//! [[archive]]
//! file = "orders-2.4.1.tar.zst"
//! sha256 = "…64 hexadecimal digits…"
//! size_bytes = 1234567
//! unpacked_bytes = 7654321
//! ```
//!
//! An unknown key is an error: a key that a later version of this program obeys must not be
//! ignored by an earlier one.

use std::path::Path;

use chrono::NaiveDate;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::release::Archive;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::feed::error::FeedError;

/// The name of the description in a release's folder.
pub(in crate::feed) const DESCRIPTION: &str = "release.toml";
/// The largest description that is read.
pub(in crate::feed) const DESCRIPTION_BYTES_MAX: u64 = 1024 * 1024;
/// The most archives of one release.
const ARCHIVES_MAX: usize = 64;
/// The largest size that is believed: 64 TiB. More is a slip of the pen, and sums stay in range.
const SIZE_BYTES_MAX: u64 = 1 << 46;
/// Every key there is, for suggestions.
const KEYS: [&str; 12] = [
    "version",
    "build",
    "date",
    "notes",
    "min_version",
    "barrier",
    "migrate",
    "archive",
    "file",
    "sha256",
    "size_bytes",
    "unpacked_bytes",
];

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    version: Version,
    build: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    date: Option<Date>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    notes: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_version: Option<Version>,
    #[serde(default)]
    barrier: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    migrate: Option<Vec<String>>,
    #[serde(default)]
    archive: Vec<Archive>,
}

/// A day, as a TOML date or in quotes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "String")]
struct Date(NaiveDate);

impl TryFrom<toml::Value> for Date {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let text = match &value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Datetime(date) => date.to_string(),
            other => other.to_string(),
        };
        text.parse().map(Self).map_err(|_| format!("{text} is no day: write for example 2026-11-20"))
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.0.to_string()
    }
}

/// Reads a description; `folder` is where the release is kept.
///
/// # Errors
/// Names the file, and the key where there is one.
pub(in crate::feed) fn parse(text: &str, folder: &Path) -> Result<Release, FeedError> {
    let file = folder.join(DESCRIPTION);
    let not_toml =
        |source: toml::de::Error| FeedError::ParseDescription { file: file.clone(), source: Box::new(source) };
    let mut unknown = Vec::new();
    let input = toml::Deserializer::parse(text).map_err(not_toml)?;
    let description: Description =
        serde_ignored::deserialize(input, |path| unknown.push(path.to_string())).map_err(not_toml)?;
    if let Some(key) = unknown.into_iter().next() {
        let similar = similar_key(&key);
        return Err(FeedError::UnknownKey { file, key, similar });
    }
    let release = Release {
        id: ReleaseId { version: description.version, build: description.build },
        date: description.date.map(|date| date.0),
        notes: description.notes,
        min_version: description.min_version,
        barrier: description.barrier,
        migrate: description.migrate,
        archives: description.archive,
        location: folder.to_owned(),
    };
    match problem(&release) {
        Some((key, problem)) => Err(FeedError::BadValue { file, key, problem }),
        None => Ok(release),
    }
}

/// Writes a description that [`parse`] reads back.
///
/// # Errors
/// A number is too large for TOML.
pub(in crate::feed) fn write(release: &Release) -> Result<String, FeedError> {
    let description = Description {
        version: release.id.version.clone(),
        build: release.id.build,
        date: release.date.map(Date),
        notes: release.notes.clone(),
        min_version: release.min_version.clone(),
        barrier: release.barrier,
        migrate: release.migrate.clone(),
        archive: release.archives.clone(),
    };
    toml::to_string(&description)
        .map_err(|source| FeedError::Describe { file: release.location.join(DESCRIPTION), source })
}

/// The first value that cannot be: its key, and what is wrong with it.
pub(in crate::feed) fn problem(release: &Release) -> Option<(String, String)> {
    let bad = |key: &str, problem: &str| Some((key.to_owned(), problem.to_owned()));
    if release.id.build == 0 {
        return bad("build", "must be at least 1");
    }
    if release.migrate.as_ref().is_some_and(|argv| argv.first().is_none_or(String::is_empty)) {
        return bad("migrate", "must name a program");
    }
    if release.archives.is_empty() || release.archives.len() > ARCHIVES_MAX {
        return bad("archive", &format!("must be there 1 to {ARCHIVES_MAX} times"));
    }
    for (index, archive) in release.archives.iter().enumerate() {
        let key = |name: &str| format!("archive.{index}.{name}");
        if !is_plain_file_name(&archive.file) {
            return bad(&key("file"), "must be a file name without a directory, not hidden");
        }
        if release.archives[..index].iter().any(|other| other.file == archive.file) {
            return bad(&key("file"), "is there twice");
        }
        if archive.sha256.len() != 64 || !archive.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return bad(&key("sha256"), "must be 64 lower-case hexadecimal digits");
        }
        if archive.size_bytes > SIZE_BYTES_MAX {
            return bad(&key("size_bytes"), &format!("must be at most {SIZE_BYTES_MAX}"));
        }
        if archive.unpacked_bytes > SIZE_BYTES_MAX {
            return bad(&key("unpacked_bytes"), &format!("must be at most {SIZE_BYTES_MAX}"));
        }
    }
    None
}

fn is_plain_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.starts_with('.') && !name.contains(['/', '\0']) && name != DESCRIPTION
}

fn similar_key(path: &str) -> Option<String> {
    let key = path.rsplit('.').next().unwrap_or(path);
    let near = |known: &&&str| strsim::damerau_levenshtein(known, key);
    KEYS.iter().min_by_key(near).filter(|known| near(known) <= 3).map(|known| (*known).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version = "2.4.1"
build = 24
date = 2026-11-20
notes = "Faster."
min_version = "2.0"
barrier = true
migrate = ["bin/migrate"]
[[archive]]
file = "a.tar.zst"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
size_bytes = 10
unpacked_bytes = 20
"#;

    fn parse_here(text: &str) -> Result<Release, FeedError> {
        parse(text, Path::new("/feed/2.4.1"))
    }

    #[test]
    fn reads_all_keys_and_writes_them_again() {
        let release = parse_here(GOOD).unwrap();
        assert_eq!(release.id.to_string(), "2.4.1 (build 24)");
        assert_eq!(release.date, NaiveDate::from_ymd_opt(2026, 11, 20));
        assert!(release.barrier);
        assert_eq!(release.archives[0].unpacked_bytes, 20);
        assert_eq!(parse_here(&write(&release).unwrap()).unwrap(), release);
        assert_eq!(parse_here(&GOOD.replace("2026-11-20", "\"2026-11-20\"")).unwrap(), release);
    }

    #[test]
    fn little_is_needed() {
        let text: String = GOOD
            .lines()
            .filter(|line| !["date", "notes", "min_v", "barrier", "migrate"].iter().any(|key| line.starts_with(key)))
            .map(|line| format!("{line}\n"))
            .collect();
        let release = parse_here(&text).unwrap();
        assert_eq!((release.date, release.barrier, release.migrate.clone()), (None, false, None));
        assert_eq!(parse_here(&write(&release).unwrap()).unwrap(), release);
    }

    #[test]
    fn unknown_keys_are_named_with_their_path() {
        for (from, to, key, meant) in [
            ("barrier", "barier", "barier", Some("barrier")),
            ("sha256", "sha265 = \"\"\nsha256", "archive.0.sha265", Some("sha256")),
            ("notes", "something_else = 1\nnotes", "something_else", None),
        ] {
            match parse_here(&GOOD.replacen(from, to, 1)).unwrap_err() {
                FeedError::UnknownKey { key: found, similar, file } => {
                    assert_eq!((found.as_str(), similar.as_deref()), (key, meant));
                    assert_eq!(file, Path::new("/feed/2.4.1/release.toml"));
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn impossible_values_are_named() {
        let hash = "0".repeat(64);
        for (from, to, key) in [
            ("build = 24", "build = 0", "build"),
            ("[\"bin/migrate\"]", "[]", "migrate"),
            ("[\"bin/migrate\"]", "[\"\"]", "migrate"),
            ("a.tar.zst", "../a.tar.zst", "archive.0.file"),
            ("a.tar.zst", "..", "archive.0.file"),
            ("a.tar.zst", "release.toml", "archive.0.file"),
            (hash.as_str(), "00", "archive.0.sha256"),
            (hash.as_str(), &"A".repeat(64), "archive.0.sha256"),
            ("size_bytes = 10", "size_bytes = 9000000000000000000", "archive.0.size_bytes"),
            ("unpacked_bytes = 20", "unpacked_bytes = 9000000000000000000", "archive.0.unpacked_bytes"),
        ] {
            match parse_here(&GOOD.replacen(from, to, 1)).unwrap_err() {
                FeedError::BadValue { key: found, .. } => assert_eq!(found, key),
                other => panic!("{key}: {other:?}"),
            }
        }
        let none = GOOD.split("[[archive]]").next().unwrap();
        assert!(matches!(parse_here(none), Err(FeedError::BadValue { key, .. }) if key == "archive"));
        let twice = format!("{GOOD}[[archive]]{}", GOOD.split("[[archive]]").nth(1).unwrap());
        assert!(matches!(parse_here(&twice), Err(FeedError::BadValue { key, .. }) if key == "archive.1.file"));
    }

    #[test]
    fn what_is_no_description_is_an_error() {
        for (from, to) in [
            ("version = \"2.4.1\"", ""),
            ("build = 24", "build = -1"),
            ("2026-11-20", "\"yesterday\""),
            ("2026-11-20", "2026-11-20T10:00:00Z"),
            ("\"2.4.1\"", "\"../../etc\""),
            ("build = 24", "build ="),
        ] {
            let error = parse_here(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(matches!(error, FeedError::ParseDescription { .. }), "{to}: {error:?}");
            assert!(error.hint().is_some());
        }
    }
}
