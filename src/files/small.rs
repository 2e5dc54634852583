//! Reads a small file that somebody else may have put there.
//!
//! A fifo would block the reader, a device would fill the memory, and a link would lead elsewhere. [`read_small`] opens
//! without waiting and without following a link in the last part, asks the descriptor what it is, and reads a bounded
//! amount.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use thiserror::Error;

/// A small file could not be read.
#[derive(Debug, Error)]
pub enum SmallFileError {
    /// It is a directory, a link, a fifo, a socket or a device.
    #[error("not a regular file")]
    NotRegular,
    /// It is longer than was agreed.
    #[error("larger than {bytes_max} bytes")]
    TooLarge {
        /// The agreed maximum.
        bytes_max: u64,
    },
    /// The system refused it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<SmallFileError> for io::Error {
    fn from(error: SmallFileError) -> Self {
        match error {
            SmallFileError::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other.to_string()),
        }
    }
}

/// The content of the regular file `path`; nothing where there is no file by that name.
///
/// # Errors
/// It is no regular file, has more than `bytes_max` bytes, or cannot be read.
pub fn read_small(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, SmallFileError> {
    read_small_at(CWD, path, bytes_max)
}

/// [`read_small`] of a path below a directory that is held open.
///
/// # Errors
/// As [`read_small`].
pub fn read_small_at(dir: impl AsFd, path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, SmallFileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        // A link in the last part, and a socket or a device without a driver.
        Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => return Err(SmallFileError::NotRegular),
        Err(error) => return Err(SmallFileError::Io(error.into())),
    };
    let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(SmallFileError::NotRegular);
    }
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(SmallFileError::TooLarge { bytes_max });
    }
    Ok(Some(bytes))
}

/// [`read_small`] where a link in the last part is an honest way to name a file, such as `latest.json`.
///
/// # Errors
/// As [`read_small`].
pub fn read_small_linked(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, SmallFileError> {
    match std::fs::canonicalize(path) {
        Ok(real) => read_small(&real, bytes_max),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SmallFileError::Io(error)),
    }
}

/// Opens a regular file of any size for reading, through links, without waiting for a fifo's other end.
///
/// # Errors
/// It is no regular file, or cannot be opened.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(SmallFileError::NotRegular.into()),
    }
}

/// [`read_small`] for text.
///
/// # Errors
/// As [`read_small`], and where it is not UTF-8.
pub fn read_small_text(path: &Path, bytes_max: u64) -> Result<Option<String>, SmallFileError> {
    let Some(bytes) = read_small(path, bytes_max)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_bounded_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs_err::write(at("file"), "12345").unwrap();
        assert_eq!(read_small(&at("file"), 5).unwrap().unwrap(), b"12345");
        assert!(matches!(read_small(&at("file"), 4), Err(SmallFileError::TooLarge { bytes_max: 4 })));
        assert!(read_small(&at("absent"), 5).unwrap().is_none());

        symlink("/dev/zero", at("endless")).unwrap();
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        fs_err::create_dir(at("dir")).unwrap();
        for bad in ["endless", "fifo", "socket", "dir"] {
            assert!(matches!(read_small(&at(bad), 5), Err(SmallFileError::NotRegular)), "{bad}");
        }
        assert!(matches!(read_small(Path::new("/dev/zero"), 5), Err(SmallFileError::NotRegular)));

        symlink("file", at("link")).unwrap();
        assert!(read_small(&at("link"), 5).is_err());
        assert_eq!(read_small_linked(&at("link"), 5).unwrap().unwrap(), b"12345");
        assert!(open_regular(&at("link")).is_ok());
        for bad in ["endless", "fifo", "dir"] {
            assert!(read_small_linked(&at(bad), 5).is_err(), "{bad}");
            assert!(open_regular(&at(bad)).is_err(), "{bad}");
        }
    }
}
