//! Copies the data for rollback, in two passes: while people work, and after the stop only what changed since.
//!
//! Copies lie beside their data, where the file system may share blocks; where they cannot, in
//! the staging folder. A database is written by its own command instead, after the stop only.
//!
//! Invariant: `complete` is written only after everything copied is durable.
//! Deliberately absent: data inside the installation; the swap carries them over and the old tree keeps its own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::StatxAttributes;
use rustix::fs::StatxFlags;

use crate::config::settings::AppSettings;
use crate::config::settings::DataSettings;
use crate::domain::progress::Progress;
use crate::domain::run::RunId;
use crate::files::account::Account;
use crate::files::trusted::reach;
use crate::files::trusted::trusted_dir;
use crate::files::trusted::trusted_way;
use crate::install::anchor::Anchor;
use crate::install::check::existing;
use crate::install::dumped;
use crate::install::durable;
use crate::install::error::InstallError;
use crate::install::index::Index;
use crate::install::index::Trust;
use crate::install::layout::Layout;
use crate::install::layout::beside;
use crate::install::layout::parent;
use crate::install::measure;
use crate::install::mirror::Done;
use crate::install::mirror::Known;
use crate::install::mirror::Mirror;
use crate::install::mirror::Watch;
use crate::install::scope::Scope;
use crate::install::scope::ScopeTexts;
use crate::install::state;
use crate::install::state::Part;
use crate::install::state::SnapshotPhase;
use crate::install::state::State;

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotReport {
    /// How many files are in the snapshot.
    pub files: u64,
    /// The sum of their sizes.
    pub bytes: u64,
    /// How many files this pass copied.
    pub copied_files: u64,
    /// The bytes this pass copied; less than their sizes where the file system shares blocks.
    pub copied_bytes: u64,
    /// How many entries this pass removed from the copy.
    pub removed: u64,
}

/// Which of the two passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// While people work.
    Ahead,
    /// After the stop.
    Final,
}

/// The data paths outside the installation, without links and without those inside another one.
///
/// # Errors
/// One leads over a link that is somebody else's, who would choose whose data are copied and put back.
pub(super) fn data_paths(app: &AppSettings) -> Result<Vec<PathBuf>, InstallError> {
    let DataSettings::Paths { paths, .. } = &app.data else { return Ok(Vec::new()) };
    let install_dir = resolve(&app.install_dir)?;
    // A link inside the installation is kept as a link; what it leads to is copied like all data outside.
    let mut found = paths.iter().map(|path| resolve(path)).collect::<Result<Vec<_>, _>>()?;
    found.retain(|path| !path.starts_with(&install_dir));
    found.sort();
    found.dedup_by(|inner, outer| inner.starts_with(outer));
    Ok(found)
}

/// Where a data path leads, as far as it is there.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, InstallError> {
    let mut known = path;
    loop {
        match (reach(known), known.parent()) {
            (Ok(found), _) => {
                let rest = path.strip_prefix(known).unwrap_or(Path::new(""));
                return Ok(if rest.as_os_str().is_empty() { found.path } else { found.path.join(rest) });
            }
            (Err(error), Some(above)) if error.is_missing() => known = above,
            (Err(source), _) => return Err(InstallError::LeadsElsewhere { path: path.to_owned(), source }),
        }
    }
}

/// The patterns of the data.
pub(super) fn scope_texts(app: &AppSettings) -> ScopeTexts {
    match &app.data {
        DataSettings::Paths { include, exclude, .. } => {
            ScopeTexts { include: include.texts.clone(), exclude: exclude.texts.clone() }
        }
        DataSettings::Dump { .. } => ScopeTexts::default(),
    }
}

/// Whether something is mounted at `path` itself.
pub(super) fn is_mount_point(path: &Path) -> bool {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .is_ok_and(|about| about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Where copies of `data` can lie, so that the file system may share blocks: in the folder of the configuration, else
/// beside it; nothing when they cannot. A place that others than root can change is none. Nothing is made.
pub(super) fn folder_for(app: &AppSettings, data: &Path) -> Option<PathBuf> {
    let dev = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
    let folder = match &app.snapshot_dir {
        Some(dir) => {
            trusted_way(dir).ok()?;
            let is_near = dev(data).is_none_or(|dev_of_data| dev(existing(dir)) == Some(dev_of_data));
            is_near.then(|| dir.join(beside(data).file_name().unwrap_or_default()))?
        }
        None if is_mount_point(data) || dev(data).is_some_and(|of_data| dev(parent(data)) != Some(of_data)) => {
            return None;
        }
        None => beside(data),
    };
    let there = existing(&folder);
    trusted_dir(there).ok()?;
    tempfile::tempfile_in(there).ok()?;
    Some(folder)
}

fn parts(layout: &Layout, app: &AppSettings, run: RunId) -> Result<Vec<Part>, InstallError> {
    let scope = scope_texts(app);
    let place = |(place, data): (usize, PathBuf)| {
        let made = |folder: &PathBuf| durable::create_dir(folder).is_ok() && trusted_dir(folder).is_ok();
        let copy = match folder_for(app, &data).filter(made) {
            // Two data paths may have the same name.
            Some(folder) if app.snapshot_dir.is_some() => folder.join(format!("{run}-{place}")),
            Some(folder) => folder.join(run.to_string()),
            None => layout.snapshot(run).join(format!("copy-{place}")),
        };
        Part { data, copy, scope: scope.clone(), absent: false }
    };
    Ok(data_paths(app)?.into_iter().enumerate().map(place).collect())
}

/// The state to go on with: that of the pass before when the configuration is still the same.
fn begin(layout: &Layout, app: &AppSettings, run: RunId) -> Result<State, InstallError> {
    let found = State::read(layout, run)?;
    if found.as_ref().is_some_and(|state| state.phase == SnapshotPhase::Restoring) {
        return Err(InstallError::RestoreUnfinished { run });
    }
    let scope = scope_texts(app);
    let paths = data_paths(app)?;
    let same = |state: &State| {
        let data: Vec<&PathBuf> = state.parts.iter().map(|part| &part.data).collect();
        !state.given_up
            && data == paths.iter().collect::<Vec<_>>()
            && state.parts.iter().all(|part| part.scope == scope)
    };
    let mut state = match found {
        Some(state) if same(&state) && state.phase == SnapshotPhase::Ahead => return Ok(state),
        Some(state) if same(&state) => state,
        Some(_) => {
            state::remove(layout, run)?;
            State::begun(run, parts(layout, app, run)?, None)
        }
        None => State::begun(run, parts(layout, app, run)?, None),
    };
    state.reach(layout, SnapshotPhase::Ahead)?;
    Ok(state)
}

/// One pass over all data paths.
pub(super) fn pass(
    layout: &Layout,
    app: &AppSettings,
    run: RunId,
    pass: Pass,
    progress: &dyn Progress,
    cancelled: &AtomicBool,
) -> Result<SnapshotReport, InstallError> {
    let mut state = begin(layout, app, run)?;
    let copied = copy_parts(layout, &mut state, pass, progress, cancelled).and_then(|done| {
        state::reserve(layout, run)?;
        Ok(done)
    });
    if copied.as_ref().is_err_and(InstallError::is_full) {
        // The application needs the room to run on.
        state::remove(layout, run)?;
    }
    let done = copied?;
    (state.files, state.bytes) = (done.files, done.bytes);
    state.reach(layout, if pass == Pass::Final { SnapshotPhase::Complete } else { SnapshotPhase::Ahead })?;
    Ok(SnapshotReport {
        files: done.files,
        bytes: done.bytes,
        copied_files: done.copied_files,
        copied_bytes: done.copied_bytes,
        removed: done.removed,
    })
}

fn copy_parts(
    layout: &Layout,
    state: &mut State,
    pass: Pass,
    progress: &dyn Progress,
    cancelled: &AtomicBool,
) -> Result<Done, InstallError> {
    let mut total = 0;
    let mut sources = Vec::new();
    for part in &state.parts {
        // Held from here on: whoever owns a directory on the way may put a link in its place.
        let above = Anchor::noted(parent(&part.data))?;
        let data = above.as_ref().map(|above| above.entry(part.data.file_name().unwrap_or_default()));
        if let Some(data) = &data {
            total += measure::measure(data, &Scope::new(&part.scope)?).bytes;
        }
        sources.push((above, data));
    }
    let what = if pass == Pass::Final { "copying what changed" } else { "copying data ahead" };
    let mut watch = Watch { progress, total_bytes: Some(total), done_bytes: 0, what, cancelled };
    let mut sum = Done::default();
    for (place, (part, (_above, data))) in state.parts.iter_mut().zip(&sources).enumerate() {
        let index_file = state::index_file(layout, state.run, place);
        let Some(data) = data else {
            part.absent = true;
            durable::remove_any(&part.copy)?;
            Index::default().write(&index_file)?;
            continue;
        };
        part.absent = !durable::exists(data)?;
        let index = Index::read(&index_file)?;
        if index.is_none() {
            // A copy nobody can vouch for.
            durable::remove_any(&part.copy)?;
        }
        durable::create_dir(parent(&part.copy))?;
        let (scope, index, side) = (Scope::new(&part.scope)?, index.unwrap_or_default(), parent(&part.copy));
        let trust = Trust::begin(data, side, pass == Pass::Ahead)?;
        let mut mirror = Mirror::new((data, &part.copy), side, (&scope, &index), Known::Source, trust, &mut watch)?;
        mirror.live = pass == Pass::Ahead;
        mirror.run()?;
        sum.add(mirror.done);
        mirror.touched.sync()?;
        mirror.noted.write(&index_file)?;
    }
    Ok(sum)
}

/// Clears the place for a dump and tells where it is.
pub(super) fn begin_dump(layout: &Layout, run: RunId, account: &Account) -> Result<PathBuf, InstallError> {
    let phase = State::read(layout, run)?.map(|state| state.phase);
    if phase == Some(SnapshotPhase::Restoring) {
        return Err(InstallError::RestoreUnfinished { run });
    }
    let path = dumped::path(layout, run);
    let mut state = State::begun(run, Vec::new(), Some(path.clone()));
    state.reach(layout, SnapshotPhase::Ahead)?;
    dumped::open_for(layout, run, account)?;
    Ok(path)
}

/// Makes a dump durable and complete.
pub(super) fn end_dump(layout: &Layout, run: RunId, path: &Path) -> Result<SnapshotReport, InstallError> {
    let mut state = State::read(layout, run)?.ok_or(InstallError::NoSnapshot { run })?;
    dumped::seal(layout, run)?;
    if !durable::exists(path)? {
        return Err(InstallError::NoDump { path: path.to_owned() });
    }
    let amount = measure::measure(path, &Scope::new(&ScopeTexts::default())?);
    state::reserve(layout, run)?;
    durable::sync_file_system(&layout.snapshot(run))?;
    (state.files, state.bytes) = (amount.entries, amount.bytes);
    state.reach(layout, SnapshotPhase::Complete)?;
    // It outlives the dump, so that the next run knows how much room it will need. No dump is worse for want of it.
    let _ = durable::write(&layout.dump_size(), amount.bytes.to_string().as_bytes());
    Ok(SnapshotReport {
        files: amount.entries,
        bytes: amount.bytes,
        copied_files: amount.entries,
        copied_bytes: amount.bytes,
        removed: 0,
    })
}
