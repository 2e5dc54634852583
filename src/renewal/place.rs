//! The program's file: what stands in its place, keeping it, replacing it, and what is in the way.
//!
//! A file is replaced by a copy that is written beside it, made durable, and renamed over it: at every moment there is
//! a whole program by that name, on every file system, and doing it twice is the same as once. So no exchange and no
//! journal is needed, as it is for directories.
//!
//! ```text
//! /usr/local/bin/afterhours
//! /usr/local/bin/.afterhours.renewal/staged/3/afterhours    as unpacked
//!                                    kept                   what was there before
//!                                    next                   about to be renamed
//! ```

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Access;
use sha2::Digest;
use sha2::Sha256;

use crate::domain::finding::Finding;
use crate::domain::hex::hex;
use crate::domain::release::UPDATER_PROGRAM;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::is_there;
use crate::renewal::error::At;
use crate::renewal::error::RenewalError;

/// What decides who may run a file and as what, beside its mode.
const SECURITY: [&str; 2] = ["security.selinux", "security.capability"];
/// Package managers that may own the file, asked with its path; they end with 0 when they do.
const OWNERS: [&[&str]; 2] = [&["dpkg-query", "--search"], &["rpm", "--query", "--file"]];
/// How long a package manager may take to answer.
const ASK_DEADLINE: Span = Span::secs(20);

/// Our folder beside the program.
pub(super) fn folder(program: &Path) -> PathBuf {
    program.with_file_name(".afterhours.renewal")
}

/// Where the tree of a build is unpacked.
pub(super) fn staged(program: &Path, build: u64) -> PathBuf {
    folder(program).join("staged").join(build.to_string())
}

pub(super) fn kept(program: &Path) -> PathBuf {
    folder(program).join("kept")
}

/// The program in an unpacked tree, made executable.
pub(super) fn program_in(tree: &Path) -> Result<PathBuf, RenewalError> {
    let path = tree.join(UPDATER_PROGRAM);
    match fs::symlink_metadata(&path) {
        Ok(about) if about.is_file() => {}
        _ => return Err(RenewalError::NoProgram { path }),
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).at("make executable", &path)?;
    Ok(path)
}

/// SHA-256 of a file, as hexadecimal digits.
pub(super) fn sha256(path: &Path) -> Result<String, RenewalError> {
    let mut file = File::open(path).at("open", path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read", path),
        }
    }
    Ok(hex(hash.finalize()))
}

/// Keeps a copy of the program. Durable when it returns.
pub(super) fn keep(program: &Path) -> Result<(), RenewalError> {
    create_dir(&folder(program))?;
    let (next, kept) = (folder(program).join("kept.next"), kept(program));
    copy_over(program, &next, &kept, |copy| fs::set_permissions(copy, fs::Permissions::from_mode(0o700)))
}

/// Puts a copy of `source` in the place of `program`, with the owner and rights of what stands there. Durable when it
/// returns.
pub(super) fn put(source: &Path, program: &Path) -> Result<(), RenewalError> {
    let old = fs::metadata(program).at("look at", program)?;
    copy_over(source, &folder(program).join("next"), program, |copy| {
        std::os::unix::fs::chown(copy, Some(old.uid()), Some(old.gid()))?;
        for name in SECURITY {
            // Not every file system has them, and not every file.
            if let Ok(Some(value)) = xattr::get(program, name) {
                xattr::set(copy, name, &value)?;
            }
        }
        // Last, because a change of the owner takes bits away.
        fs::set_permissions(copy, fs::Permissions::from_mode(old.mode() & 0o7777))
    })
}

fn copy_over(
    from: &Path,
    next: &Path,
    to: &Path,
    dress: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), RenewalError> {
    remove(next)?;
    let mut reading = File::open(from).at("open", from)?;
    let mut writing = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(next).at("create", next)?;
    io::copy(&mut reading, &mut writing).at("write", next)?;
    dress(next).at("give owner and rights to", next)?;
    writing.sync_all().at("fsync", next)?;
    // A file that is open for writing cannot be executed.
    drop(writing);
    rename(next, to)
}

/// Writes a whole file or none.
pub(super) fn write(path: &Path, text: &[u8]) -> Result<(), RenewalError> {
    let next = path.with_extension("next");
    remove(&next)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next).at("create", &next)?;
    file.write_all(text).at("write", &next)?;
    file.sync_all().at("fsync", &next)?;
    rename(&next, path)
}

fn rename(from: &Path, to: &Path) -> Result<(), RenewalError> {
    fs::rename(from, to).at("rename", from)?;
    for dir in [to.parent(), from.parent()].into_iter().flatten() {
        File::open(dir).and_then(|dir| dir.sync_all()).at("fsync", dir)?;
    }
    Ok(())
}

/// Makes a directory only we can look into. It may exist.
pub(super) fn create_dir(dir: &Path) -> Result<(), RenewalError> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(dir).at("create", dir)
}

fn remove(path: &Path) -> Result<(), RenewalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.at("remove", path),
    }
}

/// Removes a directory with everything below; it may be gone already.
pub(super) fn remove_tree(path: &Path) -> Result<(), RenewalError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.at("remove", path),
    }
}

/// Whether this process runs another file than the one that stands in the program's place by now.
pub(super) fn was_replaced(program: &Path) -> Result<bool, RenewalError> {
    let running = Path::new("/proc/self/exe");
    let ours = fs::metadata(running).at("look at", running)?;
    let theirs = fs::metadata(program).at("look at", program)?;
    Ok((ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino()))
}

/// Why the program cannot be replaced by us, with the remedy.
pub(super) async fn obstacle(check: &str, program: &Path) -> Option<Finding> {
    let by_hand = "or update it by hand and set `self_update = false` in [daemon]";
    let dir = program.parent().unwrap_or(Path::new("/"));
    if let Err(errno) = rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        let text = format!("Afterhours cannot update itself: {} cannot be written to: {errno}", dir.display());
        return Some(Finding::warning(check, text, format!("let Afterhours write to {}, {by_hand}", dir.display())));
    }
    for owner in OWNERS {
        let [asked, args @ ..] = owner else { continue };
        if !is_there(asked) {
            continue;
        }
        let args = args.iter().map(|arg| (*arg).to_owned()).chain([program.display().to_string()]);
        // One that does not answer does not own it.
        if Exec::ours(asked, args, ASK_DEADLINE).inherit(&["DPKG_ADMINDIR"]).run().await.is_ok() {
            let text =
                format!("Afterhours cannot update itself: {} belongs to a package ({})", program.display(), owner[0]);
            return Some(Finding::warning(check, text, format!("update the package, {by_hand}")));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_replaced_with_its_rights_and_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let (program, new) = (dir.path().join("afterhours"), dir.path().join("new"));
        fs::write(&program, "old").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o751)).unwrap();
        fs::write(&new, "new").unwrap();
        keep(&program).unwrap();
        // A crash may have left it half-written.
        fs::write(folder(&program).join("next"), "ne").unwrap();
        for _ in 0..2 {
            put(&new, &program).unwrap();
            assert_eq!(fs::read_to_string(&program).unwrap(), "new");
        }
        put(&kept(&program), &program).unwrap();
        assert_eq!(fs::read_to_string(&program).unwrap(), "old");
        assert_eq!(fs::metadata(&program).unwrap().mode() & 0o7777, 0o751);
    }

    #[test]
    fn a_tree_without_the_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(program_in(dir.path()), Err(RenewalError::NoProgram { .. })));
        std::os::unix::fs::symlink("/bin/true", dir.path().join(UPDATER_PROGRAM)).unwrap();
        assert!(matches!(program_in(dir.path()), Err(RenewalError::NoProgram { .. })));
    }
}
