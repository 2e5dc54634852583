//! One store for one installation: a lock beside it, which says whose it is.
//!
//! ```text
//! nobody holds it    alone ──► write who we are ──► share
//! somebody does      share ──► read who it is: the same store and application, or somebody else
//! ```
//!
//! All processes of one store share it, as the daemon and `update now` do; which of them works is told by the lock of the
//! application. The kernel drops it with its last holder, so nothing is left behind by a crash.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde::Serialize;

use crate::config::settings::AppSettings;
use crate::domain::name::AppName;
use crate::files::trusted::trusted_dir;
use crate::install::durable;
use crate::install::layout::Layout;
use crate::install::place;

/// The lock in the staging folder.
const FILE: &str = "store";
/// Nobody's word is longer.
const BYTES_MAX: u64 = 16 * 1024;
/// How often a lock that somebody is just taking is tried again, and with which pause.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Who works on an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The directory of its store.
    pub data_dir: PathBuf,
    /// What the application is called there.
    pub app: AppName,
}

/// Held as long as it lives.
#[derive(Debug)]
pub struct Claim {
    _file: File,
}

/// What became of claiming an installation.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours.
    Ours(Claim),
    /// Somebody else works on it, or on something in which it stands, or has it in theirs.
    Theirs(Holder),
    /// There is no place for a lock, so nothing can be done with it either; runs say why.
    Nowhere,
}

impl Claim {
    /// Claims the installation of `app` for the store in `data_dir`.
    pub async fn take(app: &AppSettings, data_dir: &Path) -> Claimed {
        let us = Holder::of(app, data_dir);
        if let Some(theirs) = theirs(app, &us) {
            return Claimed::Theirs(theirs);
        }
        let layout = Layout::new(app);
        // Without its directory there is nothing to guard yet.
        let is_there = layout.install_dir.parent().is_some_and(Path::is_dir);
        if !is_there || place::open(&layout, &app.name).is_err() || durable::create_dir(&layout.staging_dir).is_err() {
            return Claimed::Nowhere;
        }
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path(&layout.staging_dir));
        let Ok(mut file) = open else { return Claimed::Nowhere };
        for _ in 0..TRIES {
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                && us.write(&mut file).is_err()
            {
                return Claimed::Nowhere;
            }
            // From alone to shared the lock is given up for a moment: what counts is what is read then.
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
                match Holder::read(&mut file) {
                    Some(holder) if holder == us => return Claimed::Ours(Self { _file: file }),
                    Some(holder) => return Claimed::Theirs(holder),
                    // Whoever took it has not said yet who they are.
                    None => drop(rustix::fs::flock(&file, FlockOperation::Unlock)),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Claimed::Nowhere
    }
}

impl Holder {
    fn of(app: &AppSettings, data_dir: &Path) -> Self {
        let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
        Self { data_dir, app: app.name.clone() }
    }

    fn write(&self, file: &mut File) -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(serde_json::json!(self).to_string().as_bytes())
    }

    fn read(file: &mut File) -> Option<Self> {
        let mut text = Vec::new();
        file.rewind().ok()?;
        file.take(BYTES_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// Who else works on the installation of `app`, or on one in which it stands. Changes nothing.
pub fn held_by_others(app: &AppSettings, data_dir: &Path) -> Option<Holder> {
    theirs(app, &Holder::of(app, data_dir))
}

fn theirs(app: &AppSettings, us: &Holder) -> Option<Holder> {
    let there = app.install_dir.canonicalize().unwrap_or_else(|_| app.install_dir.clone());
    let around = there.ancestors().filter_map(|dir| {
        let name = dir.file_name()?.to_string_lossy();
        Some(dir.with_file_name(format!(".{name}.afterhours")))
    });
    std::iter::once(app.staging_dir.clone()).chain(around).find_map(|dir| holder(&dir).filter(|holder| holder != us))
}

/// Who holds the lock in a staging folder now. What others than root can write there says nothing.
fn holder(staging_dir: &Path) -> Option<Holder> {
    trusted_dir(staging_dir).ok()?;
    let mut file = File::open(path(staging_dir)).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Holder::read(&mut file),
        _ => None,
    }
}

fn path(staging_dir: &Path) -> PathBuf {
    staging_dir.join(FILE)
}
