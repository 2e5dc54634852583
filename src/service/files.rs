//! Small files that must be whole after a power cut.

use std::fs::Permissions;
use std::io;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a file so that after a power cut it is there, whole.
pub(crate) fn write_durably(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_whole(file, bytes, mode)?;
    fs_err::File::open(folder(file)?)?.sync_all()
}

/// Writes a file so that after a power cut the old one or the new one is there, never a part.
pub(crate) fn write_whole(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(folder(file)?)?;
    // The mode that is asked for, whatever the umask is.
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file).map_err(|error| error.error)?;
    Ok(())
}

fn folder(file: &Path) -> io::Result<&Path> {
    file.parent().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Removing what is not there is no error.
pub(crate) fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
