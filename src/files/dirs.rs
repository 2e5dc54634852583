//! Makes directories that others may look into, whatever the umask of this process is.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Makes `dir` and what is missing on the way to it, with mode 0755. What is there already stays as it is.
///
/// # Errors
/// A directory cannot be made, or a part of the path is none.
pub fn make_public(dir: &Path) -> io::Result<()> {
    match fs_err::create_dir(dir) {
        Ok(()) => fs_err::set_permissions(dir, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = dir.parent() else { return Err(error) };
            make_public(parent)?;
            make_public(dir)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_made_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        make_public(&deep).unwrap();
        make_public(&deep).unwrap();
        for made in [&deep, deep.parent().unwrap()] {
            assert_eq!(fs_err::metadata(made).unwrap().permissions().mode() & 0o777, 0o755);
        }
        fs_err::write(deep.join("file"), "").unwrap();
        assert!(make_public(&deep.join("file/x")).is_err());
    }
}
