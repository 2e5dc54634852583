//! How the vendor's files are written: whole and durable, or not at all.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::feed::vendor::error::VendorError;

/// What may be read by whoever serves it.
const PUBLIC: u32 = 0o644;
/// What only the vendor may read.
const PRIVATE: u32 = 0o600;

/// Makes a folder for everybody to read, and those above it.
pub(in crate::feed::vendor) fn make(dir: &Path) -> Result<(), VendorError> {
    std::fs::create_dir_all(dir).map_err(|source| VendorError::Write { path: dir.to_owned(), source })
}

/// Makes a folder that only its owner may look into.
pub(in crate::feed::vendor) fn make_private(dir: &Path) -> Result<(), VendorError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| VendorError::Write { path: dir.to_owned(), source })
}

/// Writes a file that everybody may read; the old one stands there until the new one does.
pub(in crate::feed::vendor) fn write(path: &Path, bytes: &[u8]) -> Result<(), VendorError> {
    write_with(path, bytes, PUBLIC)
}

/// Writes a file that only its owner may read.
pub(in crate::feed::vendor) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), VendorError> {
    write_with(path, bytes, PRIVATE)
}

fn write_with(path: &Path, bytes: &[u8], mode: u32) -> Result<(), VendorError> {
    let failed = |source| VendorError::Write { path: path.to_owned(), source };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.part"));
    // What a crash left may have another mode.
    remove(&draft)?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft).map_err(failed)?;
    let written =
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed).and_then(|()| rename(&draft, path));
    if written.is_err() {
        // Half a file is of no use, and may be half a key.
        let _ = remove(&draft);
    }
    written
}

/// Gives a file or folder another name, durably.
pub(in crate::feed::vendor) fn rename(from: &Path, to: &Path) -> Result<(), VendorError> {
    let failed = |source| VendorError::Write { path: to.to_owned(), source };
    std::fs::rename(from, to).map_err(failed)?;
    for path in [from, to] {
        sync_dir(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|dir| dir.sync_all())
}

/// Brings the names of `dir` and of every folder above it to disk, up to `top`.
pub(in crate::feed::vendor) fn sync_up(dir: &Path, top: &Path) -> Result<(), VendorError> {
    for dir in dir.ancestors().take_while(|dir| dir.starts_with(top)) {
        sync_dir(dir).map_err(|source| VendorError::Write { path: dir.to_owned(), source })?;
    }
    Ok(())
}

/// A new file that may be run.
pub(in crate::feed::vendor) fn create_program(path: &Path) -> Result<File, VendorError> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(path)
        .map_err(|source| VendorError::Write { path: path.to_owned(), source })
}

/// Removes a file; done when there is none.
pub(in crate::feed::vendor) fn remove(path: &Path) -> Result<(), VendorError> {
    gone(std::fs::remove_file(path), path)
}

/// Removes a folder with all that is in it; done when there is none.
pub(in crate::feed::vendor) fn remove_folder(path: &Path) -> Result<(), VendorError> {
    gone(std::fs::remove_dir_all(path), path)
}

fn gone(removed: io::Result<()>, path: &Path) -> Result<(), VendorError> {
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(VendorError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Everything in a file of at most `bytes_max` bytes.
pub(in crate::feed::vendor) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, VendorError> {
    let failed = |source| VendorError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(VendorError::TooLarge { path: path.to_owned(), bytes_max });
    }
    Ok(bytes)
}

/// The same; nothing where there is no file.
pub(in crate::feed::vendor) fn read_if_there(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, VendorError> {
    match read(path, bytes_max) {
        Err(VendorError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(bytes) => Ok(Some(bytes)),
    }
}

/// Keeps a second run out for as long as the file is held.
pub(in crate::feed::vendor) fn lock(path: &Path) -> Result<File, VendorError> {
    let failed = |source| VendorError::Write { path: path.to_owned(), source };
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(VendorError::Busy { lock: path.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}
