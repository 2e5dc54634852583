//! Puts the data back as they were at the snapshot.
//!
//! In place, and only what changed since: the index says which files were not touched. The copy is not used up,
//! so it can be done again after an interruption, and after another attempt to migrate. What is excluded is left alone.
//!
//! Invariant: between `restoring` and `restored` the data count as neither old nor new.
//! Deliberately absent: exchanging the copy with the data. It would be quicker once, but then there is no copy
//! left for the second time, and excluded files would have to be carried back.

use std::sync::atomic::AtomicBool;

use crate::domain::progress::Progress;
use crate::domain::run::RunId;
use crate::files::account::Account;
use crate::install::anchor::Anchor;
use crate::install::dumped;
use crate::install::durable;
use crate::install::durable::Touched;
use crate::install::error::InstallError;
use crate::install::index::Index;
use crate::install::index::Trust;
use crate::install::layout::Layout;
use crate::install::layout::parent;
use crate::install::marks;
use crate::install::mirror::Done;
use crate::install::mirror::Known;
use crate::install::mirror::Mirror;
use crate::install::mirror::Watch;
use crate::install::scope::Scope;
use crate::install::state;
use crate::install::state::Part;
use crate::install::state::SnapshotPhase;
use crate::install::state::State;
use crate::install::tree;

/// What a restore did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// How many files are data.
    pub files: u64,
    /// How many of them were put back.
    pub restored_files: u64,
    /// The bytes copied for that.
    pub copied_bytes: u64,
    /// How many entries were removed because they were not there before.
    pub removed: u64,
}

/// The state of a snapshot that may be restored from.
pub(super) fn usable(layout: &Layout, run: RunId) -> Result<State, InstallError> {
    match State::read(layout, run)? {
        None => Err(InstallError::NoSnapshot { run }),
        Some(state) if state.phase == SnapshotPhase::Ahead => Err(InstallError::SnapshotIncomplete { run }),
        Some(state) => Ok(state),
    }
}

/// Puts all data paths back.
pub(super) fn restore(
    layout: &Layout,
    run: RunId,
    progress: &dyn Progress,
    cancelled: &AtomicBool,
) -> Result<RestoreReport, InstallError> {
    let mut state = usable(layout, run)?;
    for part in state.parts.iter().filter(|part| !part.absent) {
        // Before anything is touched: a copy that is gone must never look like data that were not there.
        if !durable::exists(&part.copy)? {
            return Err(InstallError::PartMissing { copy: part.copy.clone(), data: part.data.clone() });
        }
    }
    state::release_reserve(layout, run)?;
    state.reach(layout, SnapshotPhase::Restoring)?;
    let total_bytes = Some(state.bytes);
    let mut watch = Watch { progress, total_bytes, done_bytes: 0, what: "putting the data back", cancelled };
    let mut sum = Done::default();
    for (place, part) in state.parts.iter().enumerate() {
        let done = match restore_part(layout, run, place, part, &mut watch) {
            // What spoilt the data may have seen to it that they stay as they are.
            Err(error) if error.is_denied() && tree::is_root() && is_freed(part)? => {
                restore_part(layout, run, place, part, &mut watch)?
            }
            done => done?,
        };
        sum.add(done);
    }
    state.reach(layout, SnapshotPhase::Restored)?;
    keep_room(layout, run);
    Ok(RestoreReport {
        files: sum.files,
        restored_files: sum.copied_files,
        copied_bytes: sum.copied_bytes,
        removed: sum.removed,
    })
}

/// Whether there was a mark on the data of a part that kept it from being put back, and is none any more.
fn is_freed(part: &Part) -> Result<bool, InstallError> {
    let Some(above) = Anchor::noted(parent(&part.data))? else { return Ok(false) };
    let data = above.entry(part.data.file_name().unwrap_or_default());
    Ok(marks::take_off(&data, &Scope::new(&part.scope)?) > 0)
}

/// For the next time; without it this time is still done.
fn keep_room(layout: &Layout, run: RunId) {
    if let Err(error) = state::reserve(layout, run) {
        tracing::warn!(run.id = run.0, error = %error, "no room can be kept for another restore");
    }
}

fn restore_part(
    layout: &Layout,
    run: RunId,
    place: usize,
    part: &Part,
    watch: &mut Watch<'_>,
) -> Result<Done, InstallError> {
    if part.absent {
        // By now somebody may have put a link in the way, or a pipe.
        if let Some(above) = Anchor::noted(parent(&part.data))? {
            durable::remove_any(&above.entry(part.data.file_name().unwrap_or_default()))?;
            let mut touched = Touched::default();
            touched.dir(&above)?;
            touched.sync()?;
        }
        return Ok(Done::default());
    }
    let index_file = state::index_file(layout, run, place);
    let index = Index::read(&index_file)?.unwrap_or_default();
    let (scope, side) = (Scope::new(&part.scope)?, parent(&part.copy));
    let trust = Trust::begin(&part.data, side, false)?;
    let mut mirror = Mirror::new((&part.copy, &part.data), side, (&scope, &index), Known::Target, trust, watch)?;
    mirror.run()?;
    mirror.touched.sync()?;
    mirror.noted.write(&index_file)?;
    Ok(mirror.done)
}

/// Notes that a command of `account` begins to put the data back, and lets it through to the dump.
pub(super) fn begin_dump(layout: &Layout, run: RunId, account: &Account) -> Result<(), InstallError> {
    let mut state = usable(layout, run)?;
    dumped::let_through(layout, run, account)?;
    state::release_reserve(layout, run)?;
    state.reach(layout, SnapshotPhase::Restoring)
}

/// Notes that it has.
pub(super) fn end_dump(layout: &Layout, run: RunId) -> Result<RestoreReport, InstallError> {
    let mut state = usable(layout, run)?;
    dumped::close(layout)?;
    state.reach(layout, SnapshotPhase::Restored)?;
    keep_room(layout, run);
    Ok(RestoreReport { files: state.files, restored_files: state.files, copied_bytes: state.bytes, removed: 0 })
}
