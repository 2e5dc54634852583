//! Releases from a directory: one folder a release, with a `release.toml` and its archives.
//!
//! The folder `afterhours` may carry the signed feed of Afterhours itself. What lies in a folder `updater`, as earlier versions
//! wanted it, is not taken: nobody has signed for it.
//!
//! Copy `release.toml` last: a folder without one is taken for half copied and ignored, as is
//! everything whose name begins with `.` and everything that is no folder. A release whose
//! `release.toml` is there but cannot be understood, or whose build is there twice, is not left out,
//! since it could be a barrier: it stands in its place, nobody is offered it, and nobody goes past it.
//!
//! Reading the directory has a deadline, because it may be a network share that hangs.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::progress::Progress;
use crate::domain::release::Archive;
use crate::domain::release::Release;
use crate::domain::span::Span;
use crate::feed::FeedHome;
use crate::feed::UPDATERS;
use crate::feed::error::FeedError;
use crate::feed::manifest::DESCRIPTION;
use crate::feed::manifest::DESCRIPTION_BYTES_MAX;
use crate::feed::readable;
use crate::feed::signed::CARRIED;
use crate::feed::signed::Carried;
use crate::feed::stage;
use crate::feed::stage::Opened;
use crate::feed::stage::Proof;
use crate::files::trusted::required;

/// The most entries of a feed's directory.
const RELEASES_MAX: usize = 10_000;
/// The most things that a finding names.
const SHOWN_MAX: usize = 3;
/// How long a look at the directory may take.
const LOOK_DEADLINE: Span = Span::secs(60);

/// A directory with releases.
#[derive(Debug, Clone)]
pub struct DirFeed {
    dir: PathBuf,
    carried: Option<Box<Carried>>,
}

/// What a look at the directory found.
#[derive(Debug, Default)]
struct Look {
    /// Ascending by build.
    releases: Vec<Release>,
    /// Folders without a description.
    incomplete: Vec<PathBuf>,
}

impl DirFeed {
    /// The feed in `dir`. Nothing is looked at yet.
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().to_owned(), carried: None }
    }

    /// The same feed, which may carry an Afterhours.
    #[must_use]
    pub(in crate::feed) fn carrying(self, home: &FeedHome) -> Self {
        Self { carried: Carried::in_dir(&self.dir, home).map(Box::new), ..self }
    }

    /// What it carries of Afterhours itself.
    pub(in crate::feed) fn carried(&self) -> Option<&Carried> {
        self.carried.as_deref()
    }

    /// Whether there is an Afterhours that nobody has signed.
    pub(in crate::feed) fn offers_updaters(&self) -> bool {
        std::fs::read_dir(self.dir.join(UPDATERS)).is_ok_and(|mut inside| inside.next().is_some())
    }

    /// All releases, ascending by build.
    ///
    /// # Errors
    /// The directory or a description cannot be read, or it takes too long.
    pub async fn releases(&self) -> Result<Vec<Release>, FeedError> {
        let dir = self.dir.clone();
        Ok(self.in_time(move || look(&dir)).await?.releases)
    }

    /// See [`crate::feed::Feed::updaters`].
    ///
    /// # Errors
    /// As there.
    pub async fn updaters(&self) -> Result<Vec<Release>, FeedError> {
        match &self.carried {
            Some(carried) => carried.releases().await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether the directory can be read, how many releases are in it, and whether their archives are there.
    pub async fn check(&self) -> Vec<Finding> {
        let dir = self.dir.clone();
        let looked = self
            .in_time(move || {
                let look = look(&dir)?;
                let missing = missing_archives(&look.releases);
                Ok((look, missing))
            })
            .await;
        match looked {
            Ok((look, missing)) => findings(&self.dir, &look, &missing),
            Err(error) => {
                let check = match error {
                    FeedError::List { .. } | FeedError::Overdue { .. } => "feed_reachable",
                    _ => "feed_releases",
                };
                let remedy = error.hint().unwrap_or_else(|| "look into the feed".to_owned());
                vec![Finding::fatal(check, format!("failed to {}", Failure::from_error(&error)), remedy)]
            }
        }
    }

    /// See [`crate::feed::Feed::stage`].
    ///
    /// # Errors
    /// As there.
    pub async fn stage(&self, release: &Release, into: &Path, progress: Arc<dyn Progress>) -> Result<(), FeedError> {
        let folder = release.location.clone();
        let open = move |archive: &Archive| {
            let path = folder.join(&archive.file);
            Opened { file: open_file(&path), path, proof: Proof::File }
        };
        stage::stage(release.clone(), into.to_owned(), progress, Arc::new(open)).await
    }

    async fn in_time<T, F>(&self, work: F) -> Result<T, FeedError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, FeedError> + Send + 'static,
    {
        let feed = self.dir.display().to_string();
        match tokio::time::timeout(LOOK_DEADLINE.duration(), tokio::task::spawn_blocking(work)).await {
            Ok(Ok(result)) => result,
            Ok(Err(source)) => Err(FeedError::Thread { what: feed, source }),
            Err(_) => Err(FeedError::Overdue { feed, deadline: LOOK_DEADLINE }),
        }
    }
}

/// All releases of a directory, ascending by build. Blocking, without a deadline.
///
/// # Errors
/// As for [`DirFeed::releases`].
pub(in crate::feed) fn releases_in(dir: &Path) -> Result<Vec<Release>, FeedError> {
    Ok(look(dir)?.releases)
}

fn look(dir: &Path) -> Result<Look, FeedError> {
    let unlisted = |source| FeedError::List { dir: dir.to_owned(), source };
    // Nothing is signed here: whoever can write here can have root run what they like.
    required(dir).map_err(|source| FeedError::Untrusted { path: dir.to_owned(), source })?;
    let mut look = Look::default();
    for (count, entry) in std::fs::read_dir(dir).map_err(unlisted)?.enumerate() {
        let entry = entry.map_err(unlisted)?;
        if count >= RELEASES_MAX {
            return Err(FeedError::TooManyReleases { dir: dir.to_owned(), max: RELEASES_MAX });
        }
        let folder = entry.path();
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") || name == UPDATERS || name == CARRIED {
            continue;
        }
        match folder.metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => continue,
            // Taken away meanwhile, or a link to nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unlisted(error)),
        }
        for path in [&folder, &folder.join(DESCRIPTION)] {
            required(path).map_err(|source| FeedError::Untrusted { path: path.clone(), source })?;
        }
        match read_description(&folder) {
            Ok(Some(bytes)) => look.releases.push(readable::read(&bytes, &folder, None)),
            Ok(None) => look.incomplete.push(folder),
            Err(error @ FeedError::NotAFile { .. }) => {
                look.releases.push(readable::unreadable(&error, &[], &folder, None));
            }
            Err(error) => return Err(error),
        }
    }
    look.incomplete.sort();
    // By folder where the build is the same, so that the error reads the same every time.
    look.releases.sort_by(|a, b| (a.id.build, &a.location).cmp(&(b.id.build, &b.location)));
    look.releases.dedup_by(|second, first| {
        let is_twice = first.id.build == second.id.build && first.id.build > 0;
        if is_twice {
            let (build, location) = (first.id.build, first.location.clone());
            let error = FeedError::DuplicateBuild { build, first: location.clone(), second: second.location.clone() };
            *first = readable::unreadable(&error, &[], &location, Some(build));
        }
        is_twice
    });
    Ok(look)
}

/// A folder's description, and no more of it than shows that it is too large; nothing when it has none.
fn read_description(folder: &Path) -> Result<Option<Vec<u8>>, FeedError> {
    let file = folder.join(DESCRIPTION);
    let unread = |source| FeedError::ReadDescription { file: file.clone(), source };
    let opened = match open_file(&file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unread(error)),
    };
    if !opened.metadata().map_err(unread)?.is_file() {
        return Err(FeedError::NotAFile { file });
    }
    let mut bytes = Vec::new();
    opened.take(DESCRIPTION_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unread)?;
    Ok(Some(bytes))
}

/// Opens for reading without being held up by a named pipe.
pub(in crate::feed) fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Archives that are not there, cannot be read, or have another size than declared.
fn missing_archives(releases: &[Release]) -> Vec<PathBuf> {
    let is_good = |path: &Path, size: u64| {
        open_file(path).and_then(|file| file.metadata()).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    };
    let archives = |release: &Release| {
        let folder = release.location.clone();
        release.archives.clone().into_iter().map(move |archive| (folder.join(&archive.file), archive.size_bytes))
    };
    releases.iter().flat_map(archives).filter(|(path, size)| !is_good(path, *size)).map(|(path, _)| path).collect()
}

fn findings(dir: &Path, look: &Look, missing: &[PathBuf]) -> Vec<Finding> {
    let mut findings = vec![Finding::good("feed_reachable", format!("the feed {} can be read", dir.display()))];
    let mut readable = look.releases.iter().filter(|release| release.unreadable.is_none());
    let count = readable.clone().count();
    findings.push(match readable.next_back() {
        None => Finding::warning(
            "feed_releases",
            format!("the feed {} has no release", dir.display()),
            "put releases into it, one folder each, or correct feed.dir",
        ),
        Some(newest) => {
            let noun = if count == 1 { "release" } else { "releases" };
            Finding::good("feed_releases", format!("the feed has {count} {noun}; the newest is {}", newest.id))
        }
    });
    findings.extend(unreadable(&look.releases));
    if !look.incomplete.is_empty() {
        findings.push(Finding::warning(
            "feed_incomplete",
            format!("no {DESCRIPTION} in {}: ignored", listed(&look.incomplete)),
            format!("wait until copying has ended; if it has, copy {DESCRIPTION} as well"),
        ));
    }
    if !missing.is_empty() {
        findings.push(Finding::warning(
            "feed_archives",
            format!("missing, unreadable or of the wrong size: {}", listed(missing)),
            "copy the release into the feed again",
        ));
    }
    findings
}

/// The releases whose descriptions cannot be read, if there are any.
pub(in crate::feed) fn unreadable(releases: &[Release]) -> Option<Finding> {
    let said: Vec<String> = releases
        .iter()
        .filter_map(|release| Some(format!("{}: {}", release.id, release.unreadable.as_ref()?)))
        .take(SHOWN_MAX)
        .collect();
    let remedy = "correct or withdraw it, or in a directory begin the folder's name with '.' to have it ignored";
    (!said.is_empty()).then(|| {
        Finding::warning(
            "feed_unreadable",
            format!("not offered, and nothing behind it is: {}", said.join("; ")),
            remedy,
        )
    })
}

/// The first few paths, and how many more there are.
fn listed(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().take(SHOWN_MAX).map(|path| path.display().to_string()).collect();
    match paths.len().saturating_sub(SHOWN_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
