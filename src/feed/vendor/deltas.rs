//! Small downloads beside a new release's archive: one for each of the builds before it.
//!
//! A delta is kept only where it saves something worth the trouble. What the archives of earlier builds hold is proven before
//! one is made of them: a delta from a damaged archive would send every site to the full one.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use crate::domain::progress::Progress;
use crate::domain::release::Archive;
use crate::domain::release::Delta;
use crate::domain::release::Release;
use crate::feed::delta;
use crate::feed::hash;
use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::state::Workshop;

/// A delta that is larger than this part of the archive, in per cent, is not published.
const WORTH_PERCENT: u64 = 70;
/// The largest tree for which one is made, 32 GiB: it takes some seconds for each GiB and build.
const TREE_BYTES_MAX: u64 = 32 << 30;
/// How an archive's name ends.
const ENDING: &str = ".tar.zst";

impl Workshop {
    /// Makes deltas to the archive of `release` from the last `count` builds of `before`, in `drafts`, and names them. Says why there is
    /// none, where the tree is larger than is worth the time.
    pub(in crate::feed::vendor) fn make_deltas(
        &self,
        release: &mut Release,
        before: &BTreeMap<u64, Release>,
        count: usize,
        drafts: &Path,
        progress: &dyn Progress,
    ) -> Result<Option<String>, VendorError> {
        let Some(archive) = release.archives.first_mut() else { return Ok(None) };
        let bases = before.values().rev().take(count).filter_map(|old| Some((old, old.archives.first()?)));
        let bases: Vec<_> = bases.collect();
        let largest =
            bases.iter().map(|(_, base)| base.unpacked_bytes).chain([archive.unpacked_bytes]).max().unwrap_or(0);
        if !bases.is_empty() && largest > TREE_BYTES_MAX {
            return Ok(Some(format!("a tree has {largest} bytes, and they are made up to {TREE_BYTES_MAX}")));
        }
        for (old, base) in bases {
            let Some(from_tar_sha256) = &base.tar_sha256 else { continue };
            let name = format!("{}/{}", old.location.to_string_lossy(), base.file);
            let path = self.target_file(&name, &base.sha256);
            if sha256_of(&path)? != base.sha256 {
                return Err(VendorError::Spoilt { file: path });
            }
            let stem = archive.file.strip_suffix(ENDING).unwrap_or(&archive.file);
            let file = format!("{stem}.from-{}.delta", old.id.build);
            let draft = drafts.join(&file);
            let what = format!("small download from build {}", old.id.build);
            let watched = Watched { progress, total: archive.unpacked_bytes, what };
            delta::make_watched(&path, &drafts.join(&archive.file), &draft, &watched)
                .map_err(|source| VendorError::Delta { from: old.id.clone(), source: Box::new(source) })?;
            let size_bytes =
                std::fs::metadata(&draft).map_err(|source| VendorError::Read { path: draft.clone(), source })?.len();
            if !is_worth_it(size_bytes, archive) {
                disk::remove(&draft)?;
                continue;
            }
            let sha256 = sha256_of(&draft)?;
            let from_tar_sha256 = from_tar_sha256.clone();
            archive.deltas.push(Delta { from_build: old.id.build, from_tar_sha256, file, sha256, size_bytes });
        }
        Ok(None)
    }
}

/// Says which small download is made, and of how much.
struct Watched<'a> {
    progress: &'a dyn Progress,
    total: u64,
    what: String,
}

impl Progress for Watched<'_> {
    fn advance(&self, done: u64, _total: Option<u64>, _what: &str) {
        self.progress.advance(done.min(self.total), Some(self.total), &self.what);
    }
}

fn is_worth_it(delta_bytes: u64, archive: &Archive) -> bool {
    u128::from(delta_bytes) * 100 <= u128::from(archive.size_bytes) * u128::from(WORTH_PERCENT)
}

fn sha256_of(path: &Path) -> Result<String, VendorError> {
    let failed = |source| VendorError::Read { path: path.to_owned(), source };
    File::open(path).and_then(hash::sha256_of).map_err(failed)
}
