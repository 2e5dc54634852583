//! What is refused before a release is packed: a dead end for every site, and a tree that is none or would give keys away.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use walkdir::WalkDir;

use crate::domain::release::MARKER;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::feed::vendor::error::VendorError;

/// The highest build. Beyond it numbers in JSON are not exact, and nothing must stand where nothing can follow.
const BUILD_MAX: u64 = (1 << 53) - 1;

/// Whether a release comes after all others that were ever there. Its version may be that of an earlier one, which was packed wrongly.
pub(in crate::feed::vendor) fn check_is_newer(
    known: &BTreeMap<u64, ReleaseId>,
    id: &ReleaseId,
) -> Result<(), VendorError> {
    if id.build > BUILD_MAX {
        return Err(VendorError::BuildTooHigh { build: id.build, max: BUILD_MAX });
    }
    if let Some((newest, found)) = known.last_key_value()
        && *newest >= id.build
    {
        return Err(VendorError::BuildNotNewer { build: id.build, newest: found.clone() });
    }
    Ok(())
}

/// Whether a site can go on from `before`, the release that it has by then, to one that needs `min_version`.
pub(in crate::feed::vendor) fn check_way(
    before: Option<&ReleaseId>,
    id: &ReleaseId,
    min_version: Option<&Version>,
) -> Result<(), VendorError> {
    match (before, min_version) {
        (Some(before), Some(needs)) if *needs > before.version => {
            Err(VendorError::NoWay { id: id.clone(), needs: needs.clone(), before: before.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether a tree is one, has something in it, and keeps clear of the feed in `dir` and of the folders with `keys`.
pub(in crate::feed::vendor) fn check_tree(tree: &Path, dir: &Path, keys: &[PathBuf]) -> Result<(), VendorError> {
    let unread = |source| VendorError::ReadTree { tree: tree.to_owned(), source };
    if !tree.symlink_metadata().map_err(unread)?.is_dir() {
        return Err(VendorError::TreeIsNoFolder { tree: tree.to_owned() });
    }
    let real = tree.canonicalize().map_err(unread)?;
    let is_inside = |folder: &Path| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
    let holds = |folder: &&Path| folder.canonicalize().is_ok_and(|folder| folder.starts_with(&real));
    let folder =
        if is_inside(dir) { Some(dir) } else { [dir].into_iter().chain(keys.iter().map(PathBuf::as_path)).find(holds) };
    if let Some(folder) = folder {
        return Err(VendorError::TreeInFeed { tree: tree.to_owned(), folder: folder.to_owned() });
    }
    let marker = tree.join(MARKER);
    let mut inside = WalkDir::new(tree).into_iter().filter_map(Result::ok);
    match inside.any(|entry| !entry.file_type().is_dir() && entry.path() != marker) {
        true => Ok(()),
        false => Err(VendorError::EmptyTree { tree: tree.to_owned() }),
    }
}

/// Whether the program that migrates the data is in the tree. A bare name and an absolute path are the site's own.
pub(in crate::feed::vendor) fn check_migration(tree: &Path, argv: &[String]) -> Result<(), VendorError> {
    let Some(program) = argv.first().filter(|program| program.contains('/') && !program.starts_with('/')) else {
        return Ok(());
    };
    let is_inside = |file: &Path| tree.canonicalize().is_ok_and(|tree| file.starts_with(tree));
    let may_run =
        |file: &Path| file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0);
    match tree.join(program).canonicalize() {
        Ok(file) if is_inside(&file) && may_run(&file) => Ok(()),
        _ => Err(VendorError::NoMigration { tree: tree.to_owned(), program: program.clone() }),
    }
}
