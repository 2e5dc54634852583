//! A tree becomes a release of a directory feed, where nothing is signed.

use std::path::Path;

use crate::domain::release::Release;
use crate::feed::dir;
use crate::feed::error::FeedError;
use crate::feed::pack;
use crate::feed::pack::PackMeta;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::refuse::check_migration;
use crate::feed::vendor::refuse::check_tree;

/// Makes the release that `meta` describes out of `tree`, in the directory feed `dir`, which is made where it is not there. Blocking.
///
/// No site sees it before it is whole.
///
/// # Errors
/// The build is there already, a site would not read the feed or refuse the release, or something cannot be written.
pub fn pack_into(dir: &Path, meta: &PackMeta, tree: &Path) -> Result<Release, VendorError> {
    let failed = |source: FeedError| VendorError::Release { id: meta.id.clone(), source: Box::new(source) };
    std::fs::create_dir_all(dir).map_err(|source| VendorError::Write { path: dir.to_owned(), source })?;
    let there = dir::releases_in(dir).map_err(failed)?;
    if let Some(same) = there.iter().find(|release| release.id.build == meta.id.build) {
        return Err(failed(FeedError::Published { folder: same.location.clone() }));
    }
    check_tree(tree, dir, &[])?;
    check_migration(tree, meta.migrate.as_deref().unwrap_or_default())?;
    pack::pack(tree, meta, dir).map_err(failed)
}
