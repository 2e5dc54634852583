//! Whether sites can make a release of a description: asked before one is written, and when one is read.
//!
//! *Invariant:* a description that is of no use spoils no other release. An [`unreadable`] one stands in its place, which nobody is
//! offered and nobody goes past: it could be a barrier.

use std::path::Path;

use crate::domain::failure::Failure;
use crate::domain::plain::one_line;
use crate::domain::release::Archive;
use crate::domain::release::Delta;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::feed::error::FeedError;
use crate::feed::manifest::DESCRIPTION;
use crate::feed::manifest::DESCRIPTION_BYTES_MAX;
use crate::feed::manifest::SIZE_BYTES_MAX;
use crate::feed::manifest::parse;
use crate::feed::manifest::parse_for_a_site;
use crate::feed::manifest::problem;
use crate::feed::manifest::write;

/// How much of a description that is of no use is searched for what it is called.
const SALVAGED_BYTES_MAX: usize = 64 * 1024;
/// How much is said of what is wrong with it, in characters.
const BECAUSE_CHARS_MAX: usize = 400;

/// The release that a site sees: [`unreadable`] where the bytes are no description. Its build is `build` where the feed tells it.
pub(in crate::feed) fn read(bytes: &[u8], folder: &Path, build: Option<u64>) -> Release {
    let file = || folder.join(DESCRIPTION);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        FeedError::ReadDescription { file: file(), source }
    });
    let parsed = match text {
        _ if bytes.len() as u64 > DESCRIPTION_BYTES_MAX => {
            Err(FeedError::DescriptionTooLarge { file: file(), max: DESCRIPTION_BYTES_MAX })
        }
        text => text.and_then(|text| parse_for_a_site(text, folder)),
    };
    parsed.unwrap_or_else(|error| unreadable(&error, bytes, folder, build))
}

/// What stands in the place of a release whose description, which begins with `bytes`, is of no use. As much of its name is told as
/// can be; its build is 0 where nobody tells it.
pub(in crate::feed) fn unreadable(error: &FeedError, bytes: &[u8], folder: &Path, build: Option<u64>) -> Release {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SALVAGED_BYTES_MAX)]);
    let version = salvaged(&text, "version").and_then(|version| version.parse().ok());
    let build = build.or_else(|| salvaged(&text, "build")?.parse().ok()).unwrap_or(0);
    let because = format!("failed to {}", Failure::from_error(error));
    let because =
        one_line(&because).split_whitespace().collect::<Vec<_>>().join(" ").chars().take(BECAUSE_CHARS_MAX).collect();
    let id = ReleaseId { version: version.unwrap_or_else(Version::unknown), build };
    Release { unreadable: Some(because), ..Release::new(id, Vec::new(), folder) }
}

/// The value of a key in a text that is no TOML. Nothing where it is cut off, or where several lines say different things.
fn salvaged<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let value = |line: &'t str| {
        let value = line.trim_start().strip_prefix(key)?.trim_start().strip_prefix('=')?;
        Some(value.split('#').next()?.trim().trim_matches(['"', '\'']))
    };
    let mut values = lines.filter_map(value);
    values.next().filter(|first| values.all(|other| other == *first))
}

/// Refuses, before anything is packed, what sites would not read: `release` with archives of these names, and so many deltas.
///
/// # Errors
/// A value cannot be, or the description would be too large.
pub(in crate::feed) fn check(release: &Release, files: &[String], deltas: usize) -> Result<(), FeedError> {
    let sha256 = "f".repeat(64);
    // None of them will take more room than this.
    let archive = |file: &String| Archive {
        file: file.clone(),
        sha256: sha256.clone(),
        size_bytes: SIZE_BYTES_MAX,
        unpacked_bytes: SIZE_BYTES_MAX,
        tar_sha256: Some(sha256.clone()),
        deltas: vec![
            Delta {
                from_build: release.id.build,
                from_tar_sha256: sha256.clone(),
                file: format!("{file}.from-{}.delta", release.id.build),
                sha256: sha256.clone(),
                size_bytes: SIZE_BYTES_MAX,
            };
            deltas
        ],
    };
    let release = Release { archives: files.iter().map(archive).collect(), ..release.clone() };
    let file = release.location.join(DESCRIPTION);
    if let Some((key, problem)) = problem(&release) {
        return Err(FeedError::BadValue { file, key, problem });
    }
    let text = write(&release)?;
    if text.len() as u64 > DESCRIPTION_BYTES_MAX {
        return Err(FeedError::DescriptionTooLong { file, bytes: text.len() as u64, max: DESCRIPTION_BYTES_MAX });
    }
    parse(&text, &release.location).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::manifest::tests::GOOD;

    #[test]
    fn what_is_no_description_is_called_what_can_be_told() {
        let told = |bytes: &[u8], build| {
            let release = read(bytes, Path::new("/feed/x"), build);
            (release.id.version.to_string(), release.id.build, release.unreadable.is_some())
        };
        assert_eq!(told(GOOD.as_bytes(), None), ("2.4.1".to_owned(), 24, false));
        let unknown = || "unknown".to_owned();
        for (bytes, version, build) in [
            (GOOD.replacen("migrate =", "migrate = {} #", 1), "2.4.1".to_owned(), 24),
            (format!("{GOOD}#{}", "x".repeat(DESCRIPTION_BYTES_MAX as usize)), "2.4.1".to_owned(), 24),
            (GOOD.replacen("build = 24", "build = \"24", 1), "2.4.1".to_owned(), 24),
            ("version = \"2.4.1\"\nbuild = 2".to_owned(), "2.4.1".to_owned(), 0),
            ("build = 24\nnotes = '''\nbuild = 2\n".to_owned(), unknown(), 0),
            ("\u{0}".to_owned(), unknown(), 0),
        ] {
            assert_eq!(told(bytes.as_bytes(), None), (version.clone(), build, true), "{bytes:.100}");
            assert_eq!(told(bytes.as_bytes(), Some(7)), (version, 7, true));
        }
        assert_eq!(told(b"build = 24\nnotes = '\xff'\n", None), (unknown(), 24, true));
    }

    #[test]
    fn what_sites_would_not_read_is_refused_before() {
        let release = parse(GOOD, Path::new("/feed/2.4.1")).unwrap();
        let files = ["a.tar.zst".to_owned()];
        let noted = |bytes: usize| Release { notes: "y".repeat(bytes), ..release.clone() };
        assert!(check(&noted(1_000_000), &files, 3).is_ok());
        assert!(matches!(check(&noted(1_048_500), &files, 3), Err(FeedError::DescriptionTooLong { .. })));
        // Written down, this takes six times its room.
        let controls = Release { notes: "\u{1}".repeat(200_000), ..release.clone() };
        assert!(matches!(check(&controls, &files, 0), Err(FeedError::DescriptionTooLong { .. })));
        assert!(matches!(check(&release, &["x".repeat(300)], 0), Err(FeedError::BadValue { .. })));
    }
}
