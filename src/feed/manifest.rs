//! `release.toml`: what a release's folder says about itself. Pure text in, pure text out.
//!
//! ```toml
//! version = "2.4.1"
//! build = 24                      # ascends with every release, at least 1
//! date = 2026-11-20
//! notes = "Faster search."
//! min_version = "2.0"             # the lowest version that may be updated to this one directly
//! min_afterhours = "1.4"          # the lowest version of Afterhours that can install it
//! barrier = false                 # true: no update may jump over this release
//! migrate = ["bin/migrate", "--yes"]
//! answers = "2.4.1+*"             # what it answers when it is asked for its version; absent: the version. A * at the end: whatever follows
//! migrate_as_root = false         # true: the migration must run as root, which each site has to allow
//! published_at = 2026-11-20T08:00:00Z
//! security = false                # true: exempt from cool-down and rollout
//! licences = ["standard", "pro"]  # the classes of licences it is for; absent: all
//! rollout = { start = 2026-11-20T08:00:00Z, hours = 72 }
//!
//! [[archive]]
//! file = "orders-2.4.1.tar.zst"
//! sha256 = "…64 hexadecimal digits…"
//! size_bytes = 1234567
//! unpacked_bytes = 7654321
//! tar_sha256 = "…64 hexadecimal digits…"   # of what is inside; needed where there are deltas
//!
//! [[archive.delta]]               # makes the same tar archive out of an earlier build's
//! from_build = 23
//! from_tar_sha256 = "…64 hexadecimal digits…"
//! file = "orders-2.4.1.from-23.delta"
//! sha256 = "…64 hexadecimal digits…"
//! size_bytes = 12345
//! ```
//!
//! An unknown key is an error where a release is made; where one is read, it is a release that waits for a newer
//! Afterhours: a key that a later version of this program obeys must not be ignored by an earlier one.

use std::path::Path;

use chrono::DateTime;
use chrono::NaiveDate;
use chrono::SecondsFormat;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::answers::Answers;
use crate::domain::release::Archive;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Rollout;
use crate::domain::release::Version;
use crate::feed::error::FeedError;

/// The name of the description in a release's folder.
pub(in crate::feed) const DESCRIPTION: &str = "release.toml";
/// The largest description that is read.
pub(in crate::feed) const DESCRIPTION_BYTES_MAX: u64 = 1024 * 1024;
/// The most archives of one release.
const ARCHIVES_MAX: usize = 64;
/// The largest size that is believed: 64 TiB. More is a slip of the pen, and sums stay in range.
pub(in crate::feed) const SIZE_BYTES_MAX: u64 = 1 << 46;
/// Every key there is, for suggestions.
const KEYS: [&str; 24] = [
    "version",
    "build",
    "date",
    "notes",
    "min_version",
    "min_afterhours",
    "barrier",
    "migrate",
    "migrate_as_root",
    "answers",
    "archive",
    "file",
    "sha256",
    "size_bytes",
    "unpacked_bytes",
    "published_at",
    "security",
    "licences",
    "rollout",
    "start",
    "hours",
    "tar_sha256",
    "from_build",
    "from_tar_sha256",
];
/// The most deltas of one archive.
const DELTAS_MAX: usize = 16;
/// The longest rollout: a year.
const ROLLOUT_HOURS_MAX: u32 = 366 * 24;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_afterhours: Option<Version>,
    #[serde(default)]
    barrier: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    migrate: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    migrate_as_root: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answers: Option<Answers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published_at: Option<Instant>,
    #[serde(default)]
    security: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    licences: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollout: Option<Spread>,
    #[serde(default)]
    archive: Vec<Archive>,
}

/// `rollout`.
#[derive(Debug, Serialize, Deserialize)]
struct Spread {
    start: Instant,
    hours: u32,
}

/// An instant, as a TOML date-time with an offset or in quotes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "toml::Value")]
struct Instant(DateTime<Utc>);

impl TryFrom<toml::Value> for Instant {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let text = as_text(&value);
        let bad = |_| format!("{text} is no instant: write for example 2026-11-20T08:00:00Z");
        DateTime::parse_from_rfc3339(&text).map(|at| Self(at.to_utc())).map_err(bad)
    }
}

impl From<Instant> for toml::Value {
    fn from(at: Instant) -> Self {
        Self::String(at.0.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

fn as_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A day, as a TOML date or in quotes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "String")]
struct Date(NaiveDate);

impl TryFrom<toml::Value> for Date {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let text = as_text(&value);
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
    let release = parse_for_a_site(text, folder)?;
    match &release.unknown_key {
        Some(key) => {
            Err(FeedError::UnknownKey { file: folder.join(DESCRIPTION), key: key.clone(), similar: similar_key(key) })
        }
        None => Ok(release),
    }
}

/// The same for a site. A key that a later Afterhours obeys makes the release one that this Afterhours must not install;
/// were it an error, it would keep this one from updating itself to the one that knows it.
///
/// # Errors
/// As for [`parse`].
pub(in crate::feed) fn parse_for_a_site(text: &str, folder: &Path) -> Result<Release, FeedError> {
    let file = folder.join(DESCRIPTION);
    let not_toml =
        |source: toml::de::Error| FeedError::ParseDescription { file: file.clone(), source: Box::new(source) };
    let mut unknown = Vec::new();
    let input = toml::Deserializer::parse(text).map_err(not_toml)?;
    let description: Description =
        serde_ignored::deserialize(input, |path| unknown.push(path.to_string())).map_err(not_toml)?;
    let release = Release {
        id: ReleaseId { version: description.version, build: description.build },
        date: description.date.map(|date| date.0),
        notes: description.notes,
        min_version: description.min_version,
        min_afterhours: description.min_afterhours,
        unknown_key: unknown.into_iter().next(),
        unreadable: None,
        barrier: description.barrier,
        migrate: description.migrate,
        migrate_as_root: description.migrate_as_root,
        answers: description.answers,
        published_at: description.published_at.map(|at| at.0),
        security: description.security,
        licences: description.licences,
        rollout: description.rollout.map(|spread| Rollout { start: spread.start.0, hours: spread.hours }),
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
        min_afterhours: release.min_afterhours.clone(),
        barrier: release.barrier,
        migrate: release.migrate.clone(),
        migrate_as_root: release.migrate_as_root,
        answers: release.answers.clone(),
        published_at: release.published_at.map(Instant),
        security: release.security,
        licences: release.licences.clone(),
        rollout: release.rollout.as_ref().map(|r| Spread { start: Instant(r.start), hours: r.hours }),
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
    if release.migrate_as_root && release.migrate.is_none() {
        return bad("migrate_as_root", "has a meaning only beside migrate");
    }
    if release.rollout.as_ref().is_some_and(|rollout| rollout.hours > ROLLOUT_HOURS_MAX) {
        return bad("rollout.hours", &format!("must be at most {ROLLOUT_HOURS_MAX}"));
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
        if !is_sha256(&archive.sha256) {
            return bad(&key("sha256"), NO_SHA256);
        }
        if archive.tar_sha256.as_ref().is_some_and(|sha256| !is_sha256(sha256)) {
            return bad(&key("tar_sha256"), NO_SHA256);
        }
        if archive.size_bytes > SIZE_BYTES_MAX {
            return bad(&key("size_bytes"), &format!("must be at most {SIZE_BYTES_MAX}"));
        }
        if archive.unpacked_bytes > SIZE_BYTES_MAX {
            return bad(&key("unpacked_bytes"), &format!("must be at most {SIZE_BYTES_MAX}"));
        }
        if let Some((name, problem)) = delta_problem(archive) {
            return bad(&key(&name), &problem);
        }
    }
    None
}

/// The first value of an archive's deltas that cannot be.
fn delta_problem(archive: &Archive) -> Option<(String, String)> {
    if archive.deltas.len() > DELTAS_MAX {
        return Some(("delta".to_owned(), format!("must be there at most {DELTAS_MAX} times")));
    }
    if !archive.deltas.is_empty() && archive.tar_sha256.is_none() {
        return Some(("tar_sha256".to_owned(), "must be there where deltas are".to_owned()));
    }
    archive.deltas.iter().enumerate().find_map(|(index, delta)| {
        let bad = |name: &str, problem: &str| Some((format!("delta.{index}.{name}"), problem.to_owned()));
        if !is_plain_file_name(&delta.file) || delta.file == archive.file {
            return bad("file", "must be a file name of its own without a directory, not hidden");
        }
        if !is_sha256(&delta.sha256) {
            return bad("sha256", NO_SHA256);
        }
        if !is_sha256(&delta.from_tar_sha256) {
            return bad("from_tar_sha256", NO_SHA256);
        }
        if delta.size_bytes > SIZE_BYTES_MAX {
            return bad("size_bytes", &format!("must be at most {SIZE_BYTES_MAX}"));
        }
        None
    })
}

const NO_SHA256: &str = "must be 64 lower-case hexadecimal digits";

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
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
pub(crate) mod tests {
    use super::*;

    pub(crate) const GOOD: &str = r#"
version = "2.4.1"
build = 24
date = 2026-11-20
notes = "Faster."
min_version = "2.0"
min_afterhours = "0.2"
barrier = true
migrate = ["bin/migrate"]
migrate_as_root = true
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
        assert!(release.barrier && release.migrate_as_root);
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

    /// What a vendor of signed releases says besides.
    const SIGNED: &str = r#"
version = "2.4.1"
build = 24
published_at = 2026-11-20T08:00:00Z
security = true
licences = ["pro"]
rollout = { start = "2026-11-20T09:00:00+01:00", hours = 72 }
[[archive]]
file = "a.tar.zst"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
size_bytes = 10
unpacked_bytes = 20
tar_sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
[[archive.delta]]
from_build = 23
from_tar_sha256 = "2222222222222222222222222222222222222222222222222222222222222222"
file = "a.from-23.delta"
sha256 = "3333333333333333333333333333333333333333333333333333333333333333"
size_bytes = 5
"#;

    #[test]
    fn what_signed_releases_say_is_read_and_written_again() {
        let release = parse_here(SIGNED).unwrap();
        let at: DateTime<Utc> = "2026-11-20T08:00:00Z".parse().unwrap();
        assert_eq!((release.published_at, release.security), (Some(at), true));
        assert_eq!(release.rollout, Some(Rollout { start: at, hours: 72 }));
        assert_eq!(release.licences, ["pro"]);
        assert_eq!(release.archives[0].deltas[0].from_build, 23);
        assert_eq!(parse_here(&write(&release).unwrap()).unwrap(), release);
    }

    #[test]
    fn impossible_values_of_signed_releases_are_named() {
        let (ones, threes) = ("1".repeat(64), "3".repeat(64));
        for (from, to, key) in [
            ("hours = 72", "hours = 100000", "rollout.hours"),
            (ones.as_str(), "11", "archive.0.tar_sha256"),
            (threes.as_str(), "33", "archive.0.delta.0.sha256"),
            ("a.from-23.delta", "../a", "archive.0.delta.0.file"),
            ("a.from-23.delta", "a.tar.zst", "archive.0.delta.0.file"),
            ("size_bytes = 5", "size_bytes = 9000000000000000000", "archive.0.delta.0.size_bytes"),
            (&format!("tar_sha256 = \"{ones}\""), "", "archive.0.tar_sha256"),
        ] {
            match parse_here(&SIGNED.replacen(from, to, 1)).unwrap_err() {
                FeedError::BadValue { key: found, .. } => assert_eq!(found, key),
                other => panic!("{key}: {other:?}"),
            }
        }
        let local = SIGNED.replacen("2026-11-20T08:00:00Z", "2026-11-20T08:00:00", 1);
        assert!(matches!(parse_here(&local), Err(FeedError::ParseDescription { .. })));
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
    fn a_site_knows_which_releases_it_does_not_understand() {
        let text = GOOD.replacen("notes", "something_else = 1\nnotes", 1);
        let release = parse_for_a_site(&text, Path::new("/feed/2.4.1")).unwrap();
        assert_eq!((release.unknown_key.as_deref(), release.id.build), (Some("something_else"), 24));
        assert_eq!(parse_for_a_site(GOOD, Path::new("/feed/2.4.1")).unwrap().unknown_key, None);
    }

    #[test]
    fn impossible_values_are_named() {
        let hash = "0".repeat(64);
        for (from, to, key) in [
            ("build = 24", "build = 0", "build"),
            ("migrate = [\"bin/migrate\"]", "", "migrate_as_root"),
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
