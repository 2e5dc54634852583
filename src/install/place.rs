//! Where we work: in a staging folder that only root can change, upon an installation whose directory may be anybody's.
//!
//! Everything that we believe later (which exchange was begun, what a snapshot is, which tree is a release) lies in the
//! staging folder. Where its parent belongs to the application's user, that user could plant all of it; so nothing
//! there is read or written before [`open`] has said that nobody can. The installation is different: its parent may
//! be the application's. It is reached by an anchor ([`home`]), with no link on the way but root's.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::io::Errno;

use crate::config::settings::AppSettings;
use crate::domain::finding::Finding;
use crate::domain::name::AppName;
use crate::files::trusted::Untrusted;
use crate::files::trusted::trusted_dir;
use crate::files::trusted::trusted_way;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::layout::Layout;
use crate::install::layout::parent;
use crate::install::snapshot;

const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Refuses to work where somebody but root can change the staging folder, or put another in its place.
pub(super) fn open(layout: &Layout, app: &AppName) -> Result<(), InstallError> {
    let dir = &layout.staging_dir;
    let answer = match trusted_dir(dir) {
        // Who can make it decides what is in it.
        Err(error) if error.is_absent() => trusted_way(parent(dir)),
        answer => answer.map(drop),
    };
    answer.map_err(|source| {
        let remedy = remedy(layout, app, &source);
        InstallError::Untrusted { path: dir.clone(), remedy, source }
    })
}

/// What to type, so that the staging folder is root's alone.
fn remedy(layout: &Layout, app: &AppName, why: &Untrusted) -> String {
    let command = why.remedy();
    let is_itself = matches!(why, Untrusted::Owner { path, .. } | Untrusted::Writable { path, .. } if path.starts_with(&layout.staging_dir));
    match (proposal(layout, app), command) {
        // The folder is where it should be, but somebody else's: what is in it is theirs, too.
        (_, Some(command)) if is_itself => {
            format!("look what is in {}, remove it, or {command}", layout.staging_dir.display())
        }
        (Some(proposal), _) => format!("set staging_dir = \"{}\" in [app.{app}]", proposal.display()),
        (None, Some(command)) => format!("let only root change that place: {command}"),
        (None, None) => format!("set staging_dir in [app.{app}] to a directory of root's"),
    }
}

/// A place for the staging folder: the nearest directory above the installation, on its file system, that is root's.
fn proposal(layout: &Layout, app: &AppName) -> Option<PathBuf> {
    let dev = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
    let wanted = dev(parent(&layout.install_dir))?;
    let above = layout.install_dir.ancestors().skip(1);
    let place = above.take_while(|dir| dev(dir) == Some(wanted)).find(|dir| trusted_dir(dir).is_ok())?;
    Some(place.join(format!(".afterhours-{app}")))
}

/// What is wrong with the places of one application, for `doctor` and the preflight; nothing where all are root's.
pub(super) fn check(layout: &Layout, app: &AppSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(InstallError::Untrusted { path, remedy, source }) = open(layout, &app.name) {
        let text = format!(
            "{source}, so others than root can change what Afterhours keeps in {}; nothing there is read or written",
            path.display()
        );
        findings.push(Finding::fatal("staging_dir", text, remedy));
    }
    if let Some(dir) = &app.snapshot_dir
        && let Err(source) = trusted_way(dir)
    {
        let text = format!("{source}, so others than root can change the copies of the data in {}", dir.display());
        let remedy = source.remedy().unwrap_or_else(|| format!("correct snapshot_dir of [app.{}]", app.name));
        findings.push(Finding::fatal("snapshot_dir", text, remedy));
    }
    findings.extend(app.snapshot_dir.as_deref().and_then(|dir| too_far(dir, app)));
    findings
}

/// Data that are on another file system than the folder for their copies.
fn too_far(dir: &Path, app: &AppSettings) -> Option<Finding> {
    let dev = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
    let there = dir.ancestors().find_map(dev)?;
    let far = snapshot::data_paths(app).ok()?.into_iter().find(|data| dev(data).is_some_and(|dev| dev != there))?;
    let text = format!("snapshot_dir {} is on another file system than the data in {}", dir.display(), far.display());
    let remedy =
        format!("set snapshot_dir of [app.{}] to a directory of root's beside the data, or take it out", app.name);
    Some(Finding::fatal("snapshot_dir", text, remedy))
}

/// The directory that holds the installation, held open, and the installation's name in it.
#[derive(Debug)]
pub(super) struct Home {
    dir: OwnedFd,
    name: OsString,
}

/// Holds the directory of the installation. Below what only root can change, no link is followed.
pub(super) fn home(layout: &Layout) -> Result<Home, InstallError> {
    let above = parent(&layout.install_dir);
    let name = layout.install_dir.file_name().unwrap_or_default().to_owned();
    let refused = |source| InstallError::Untrusted {
        path: above.to_owned(),
        remedy: "correct install_dir: write it without links that are not root's".to_owned(),
        source,
    };
    let mut known = above;
    let held = loop {
        match (trusted_dir(known), known.parent()) {
            (Ok(held), _) => break held,
            (Err(error), None) => return Err(refused(error)),
            (Err(_), Some(parent)) => known = parent,
        }
    };
    let rest = above.strip_prefix(known).unwrap_or(Path::new(""));
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let dir = rustix::fs::openat2(held.fd(), rest, DIR, Mode::empty(), resolve).at("open", above)?;
    Ok(Home { dir, name })
}

impl Home {
    /// The installation, by a path that leads there whatever becomes of the directories above. Its last part may be
    /// exchanged by whoever owns the directory.
    pub(super) fn entry(&self) -> PathBuf {
        held(&self.dir).join(&self.name)
    }

    /// Holds the installation itself; nothing where there is no directory by that name.
    pub(super) fn tree(&self) -> Result<Option<Held>, InstallError> {
        match rustix::fs::openat(&self.dir, &self.name, DIR, Mode::empty()) {
            Ok(fd) => Ok(Some(Held(fd))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error).at("open", &self.entry()),
        }
    }
}

/// A tree that is held open.
#[derive(Debug)]
pub(super) struct Held(OwnedFd);

impl Held {
    /// A path that leads there whatever becomes of its name. The dot lets it be opened without following links.
    pub(super) fn path(&self) -> PathBuf {
        held(&self.0).join(".")
    }
}

fn held(fd: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}
