//! What a snapshot is and how far it is: one small file a run, written whole or not at all.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::run::RunId;
use crate::files::trusted::trusted_way;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::layout::Layout;
use crate::install::layout::parent;
use crate::install::remove;
use crate::install::remove::Stays;
use crate::install::scope::ScopeTexts;
use crate::install::trash;
use crate::install::tree;

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotPhase {
    /// Begun, or copied ahead while people work: nothing may be restored from it.
    Ahead,
    /// Whole: it is the data at the moment of the stop.
    Complete,
    /// The data are being put back: they are neither old nor new.
    Restoring,
    /// The data were put back.
    Restored,
}

/// One data path and its copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Without links in it.
    pub(super) data: PathBuf,
    pub(super) copy: PathBuf,
    pub(super) scope: ScopeTexts,
    /// There was nothing at the data path.
    pub(super) absent: bool,
}

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) run: RunId,
    pub(super) phase: SnapshotPhase,
    pub(super) parts: Vec<Part>,
    /// Where a command of the administrator's wrote the data.
    pub(super) dump: Option<PathBuf>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Nobody needs it any more: it is no snapshot, and on its way out.
    #[serde(default)]
    pub(super) given_up: bool,
}

/// A snapshot, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotInfo {
    /// The run it was taken for.
    pub run: RunId,
    /// How far it is.
    pub phase: SnapshotPhase,
    /// When it came that far.
    pub at: Option<DateTime<Utc>>,
    /// How many files are in it; 0 for a dump.
    pub files: u64,
    /// The sum of their sizes.
    pub bytes: u64,
    /// What was copied and where the copy is.
    pub copies: Vec<(PathBuf, PathBuf)>,
}

/// What is known of the snapshot of a run.
pub(super) fn file(layout: &Layout, run: RunId) -> PathBuf {
    layout.snapshot(run).join("state.json")
}

/// Where the index of the data path at `place` is.
pub(super) fn index_file(layout: &Layout, run: RunId, place: usize) -> PathBuf {
    layout.snapshot(run).join(format!("index-{place}"))
}

/// Room kept for [`SnapshotPhase::Restoring`]: what spoilt the data may have filled the disk.
const RESERVE_BYTES: usize = 256 * 1024;

fn reserve_file(layout: &Layout, run: RunId) -> PathBuf {
    layout.snapshot(run).join("reserve")
}

/// Keeps some room for the way back.
pub(super) fn reserve(layout: &Layout, run: RunId) -> Result<(), InstallError> {
    let present = fs::metadata(reserve_file(layout, run)).is_ok_and(|about| about.len() == RESERVE_BYTES as u64);
    if present {
        return Ok(());
    }
    // Not zeros: they might take no room.
    let rubbish: Vec<u8> = (0..RESERVE_BYTES).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    durable::write(&reserve_file(layout, run), &rubbish)
}

/// Uses the room that was kept.
pub(super) fn release_reserve(layout: &Layout, run: RunId) -> Result<(), InstallError> {
    durable::remove_file_durably(&reserve_file(layout, run))
}

impl State {
    /// That of a snapshot which is just begun.
    pub(super) fn begun(run: RunId, parts: Vec<Part>, dump: Option<PathBuf>) -> Self {
        Self { run, phase: SnapshotPhase::Ahead, parts, dump, files: 0, bytes: 0, given_up: false }
    }

    pub(super) fn read(layout: &Layout, run: RunId) -> Result<Option<Self>, InstallError> {
        let path = file(layout, run);
        match fs::read(&path) {
            Ok(text) => {
                let state: Self =
                    serde_json::from_slice(&text).map_err(|source| InstallError::BadState { path, source })?;
                state.parts.iter().try_for_each(|part| is_ours(&part.copy))?;
                Ok(Some(state))
            }
            Err(error) if durable::is_absent(&error) => Ok(None),
            Err(error) => Err(error).at("read", &path),
        }
    }

    /// Durable when it returns.
    pub(super) fn write(&self, layout: &Layout) -> Result<(), InstallError> {
        let path = file(layout, self.run);
        let text = serde_json::to_vec(self).map_err(|source| InstallError::BadState { path: path.clone(), source })?;
        durable::create_dir(&layout.snapshot(self.run))?;
        durable::write(&path, &text)
    }

    /// The same, that far.
    pub(super) fn reach(&mut self, layout: &Layout, phase: SnapshotPhase) -> Result<(), InstallError> {
        self.phase = phase;
        self.write(layout)
    }

    fn info(self, layout: &Layout) -> SnapshotInfo {
        let at = fs::metadata(file(layout, self.run)).and_then(|about| about.modified()).ok().map(DateTime::from);
        let mut copies: Vec<_> = self.parts.into_iter().map(|part| (part.data, part.copy)).collect();
        copies.extend(self.dump.map(|dump| (PathBuf::new(), dump)));
        SnapshotInfo { run: self.run, phase: self.phase, at, files: self.files, bytes: self.bytes, copies }
    }
}

/// The runs that have a snapshot, ascending.
pub(super) fn runs(layout: &Layout) -> Result<Vec<RunId>, InstallError> {
    let names = tree::names(&layout.snapshots())?;
    let mut runs: Vec<RunId> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    runs.sort();
    Ok(runs)
}

/// All snapshots, for people.
pub(super) fn infos(layout: &Layout) -> Result<Vec<SnapshotInfo>, InstallError> {
    let states = runs(layout)?.into_iter().filter_map(|run| State::read(layout, run).transpose());
    let states = states.filter(|state| !state.as_ref().is_ok_and(|state| state.given_up));
    states.map(|state| state.map(|state| state.info(layout))).collect()
}

/// Says that nobody needs the snapshot of a run any more, durably; it is removed later. From this moment on nothing can be restored from it.
pub(super) fn give_up(layout: &Layout, run: RunId) -> Result<(), InstallError> {
    match State::read(layout, run)? {
        Some(state) if state.given_up => Ok(()),
        Some(state) => State { given_up: true, phase: SnapshotPhase::Ahead, ..state }.write(layout),
        None => trash::put(layout, &layout.snapshot(run)),
    }
}

/// The runs whose snapshots were given up.
pub(super) fn given_up(layout: &Layout) -> Result<Vec<RunId>, InstallError> {
    let is_given_up = |run: &RunId| State::read(layout, *run).is_ok_and(|state| state.is_some_and(|it| it.given_up));
    Ok(runs(layout)?.into_iter().filter(is_given_up).collect())
}

/// Where the copies of a run lie, and what else is kept of its snapshot.
pub(super) fn places(layout: &Layout, run: RunId) -> Vec<PathBuf> {
    let parts = State::read(layout, run).ok().flatten().map(|state| state.parts).unwrap_or_default();
    let copies = parts.into_iter().map(|part| part.copy).filter(|copy| !copy.starts_with(layout.snapshot(run)));
    copies.chain([layout.snapshot(run)]).collect()
}

/// Removes a snapshot that was given up, as far as it goes; its state stays as long as a copy does.
pub(super) fn clear(
    layout: &Layout,
    run: RunId,
    stays: &mut Stays,
    cancelled: &AtomicBool,
) -> Result<(), InstallError> {
    let before = stays.entries.count;
    let mut places = places(layout, run);
    let own = places.pop();
    for copy in &places {
        is_ours(copy)?;
        remove::remove(copy, stays, cancelled)?;
        leave(copy);
    }
    match own {
        Some(own) if stays.entries.count == before => remove::remove(&own, stays, cancelled),
        _ => Ok(()),
    }
}

/// A copy lies where only root can change it; who else can might have put something else there.
fn is_ours(copy: &Path) -> Result<(), InstallError> {
    trusted_way(parent(copy)).map_err(|source| InstallError::Untrusted {
        path: parent(copy).to_owned(),
        remedy: source.remedy().unwrap_or_else(|| "let only root change that place".to_owned()),
        source,
    })
}

/// Removes a snapshot with its copies. From its first moment on nothing can be restored from it any more.
pub(super) fn remove(layout: &Layout, run: RunId) -> Result<(), InstallError> {
    if let Some(mut state) = State::read(layout, run)? {
        if state.phase != SnapshotPhase::Ahead {
            state.reach(layout, SnapshotPhase::Ahead)?;
        }
        for part in &state.parts {
            remove_copy(&part.copy)?;
        }
    }
    durable::remove_any(&layout.snapshot(run))
}

fn remove_copy(copy: &Path) -> Result<(), InstallError> {
    is_ours(copy)?;
    durable::remove_any(copy)?;
    leave(copy);
    Ok(())
}

/// Removes the folder that a copy was in, where it was the last.
fn leave(copy: &Path) {
    if let Some(folder) = copy.parent().filter(|folder| folder.to_string_lossy().ends_with(".afterhours-snapshot")) {
        // Other runs' copies may be in it; then it stays.
        let _ = fs::remove_dir(folder);
    }
}
