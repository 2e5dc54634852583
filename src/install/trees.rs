//! Which tree is which: what we know of the directories that we have moved, without asking anything inside them.
//!
//! While a release is under way, the record beside its staged tree names the directory (`files/staged.rs`). What must be
//! known longer stands in `trees.json` in the staging folder: the release in place, and the old trees that are
//! ours to remove.

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::domain::release::Installed;
use crate::domain::release::MARKER;
use crate::domain::release::Marker;
use crate::domain::release::ReleaseId;
use crate::domain::release::Word;
use crate::domain::run::RunId;
use crate::files::small::read_small;
use crate::files::small::read_small_text;
use crate::files::staged;
use crate::files::staged::Identity;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::layout::Layout;
use crate::install::tree;

/// No file of ours, and no marker, is longer.
const BYTES_MAX: u64 = 1024 * 1024;

/// What is known of trees that are no longer, or never were, among the staged ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trees {
    /// What was put in place by the last run that went well.
    #[serde(default)]
    pub(super) installed: Option<Placed>,
    /// Old trees that retention may remove.
    #[serde(default)]
    pub(super) retired: Vec<Retired>,
}

/// A release, and the directory it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Placed {
    pub(super) release: ReleaseId,
    pub(super) root: Identity,
}

/// The tree of before a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retired {
    pub(super) run: RunId,
    pub(super) root: Identity,
}

impl Trees {
    pub(super) fn read(layout: &Layout) -> Result<Self, InstallError> {
        let path = layout.trees();
        match read_small(&path, BYTES_MAX).map_err(std::io::Error::from).at("read", &path)? {
            Some(text) => serde_json::from_slice(&text).map_err(|source| InstallError::BadState { path, source }),
            None => Ok(Self::default()),
        }
    }

    /// Durable when it returns.
    pub(super) fn write(&self, layout: &Layout) -> Result<(), InstallError> {
        durable::write(&layout.trees(), serde_json::json!(self).to_string().as_bytes())
    }
}

/// Which directory stands at `path`; nothing where there is none.
pub(super) fn identity(path: &Path) -> Result<Option<Identity>, InstallError> {
    Identity::of(path).at("look at", path)
}

/// Which release our records say the tree in place is; nothing where it is none that we have put there.
pub(super) fn known(layout: &Layout) -> Result<Option<ReleaseId>, InstallError> {
    let Some(root) = identity(&layout.install_dir)? else { return Ok(None) };
    if let Some(installed) = Trees::read(layout)?.installed
        && installed.root == root
    {
        return Ok(Some(installed.release));
    }
    for name in tree::names(&layout.staged_dir())? {
        let Some(tree) = staged::tree_of_state(&layout.staged_dir().join(name)) else { continue };
        let record = staged::sealed(&tree).at("read the record of", &tree)?;
        if let Some(record) = record.filter(|record| record.root == root) {
            return Ok(Some(record.marker.id));
        }
    }
    Ok(None)
}

/// The same, and for a tree that we have not put there what it says of itself. That is a hint, and nothing is moved by it.
pub(super) fn installed(layout: &Layout) -> Result<Option<Installed>, InstallError> {
    match known(layout)? {
        Some(id) => Ok(Some(Installed { id, word: Word::Ours })),
        None => claimed(&layout.install_dir),
    }
}

/// Which release a tree says it is. Whoever owns it may say anything.
pub(super) fn claimed(tree: &Path) -> Result<Option<Installed>, InstallError> {
    let path = tree.join(MARKER);
    let text = read_small_text(&path, BYTES_MAX)
        .map_err(|error| InstallError::UnreadMarker { path: path.clone(), source: error.into() })?;
    let marker = text.map(|text| Marker::from_text(&text)).transpose();
    let said = |marker: Marker| Installed { id: marker.id, word: Word::Tree };
    marker.map(|marker| marker.map(said)).map_err(|source| InstallError::BadMarker { path, source })
}
