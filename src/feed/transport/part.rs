//! The file that is being fetched: `INTO.part` until it is whole, `INTO` from then on.
//!
//! ```text
//! lock INTO.part → hash what is there → append and hash → fsync → rename to INTO → fsync the directory
//! ```
//!
//! The hash that is asked for names the file, so what an interrupted try left is the beginning of
//! the right file, or is found not to be at the end and dropped. No other state is kept: a crash at
//! any point leaves a shorter part. Everything here blocks.
//!
//! The lock is an advisory one on the part itself: it ends with the process and moves with the rename.

use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::Digest;
use sha2::Sha256;

use crate::domain::hex::hex;
use crate::feed::transport::Wanted;
use crate::feed::transport::error::TransportError;

const BUFFER_BYTES: usize = 256 * 1024;

/// A part that only we write to.
#[derive(Debug)]
pub(super) struct Part {
    into: PathBuf,
    path: PathBuf,
    file: File,
    hash: Sha256,
    len: u64,
}

/// What there is to begin with.
#[derive(Debug)]
pub(super) enum Beginning {
    /// The whole file.
    Whole,
    /// Somebody else has the part.
    Busy,
    /// A part of ours, empty or not.
    Part(Part),
}

/// What a part turned out to be.
#[derive(Debug)]
pub(super) enum Ending {
    /// It is the file that was wanted, and stands in its place.
    Right,
    /// It has this hash instead.
    Wrong(Part, String),
}

impl Part {
    /// Looks what there is of the file at `into`, and takes the part.
    pub(super) fn begin(into: &Path, want: &Wanted) -> Result<Beginning, TransportError> {
        let above = above(into);
        DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(failed("create", above))?;
        if is_whole(into, want)? {
            return sync_names(into).map(|()| Beginning::Whole);
        }
        let Some(mut part) = Self::lock(into)? else { return Ok(Beginning::Busy) };
        // Whoever had the lock before may have finished in between.
        if is_whole(into, want)? {
            part.remove()?;
            return sync_names(into).map(|()| Beginning::Whole);
        }
        part.take_up(want.size_bytes)?;
        Ok(Beginning::Part(part))
    }

    fn lock(into: &Path) -> Result<Option<Self>, TransportError> {
        let mut path = into.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let unlocked = |error: Errno| failed("lock", &path)(error.into());
        let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(fd.map_err(|error| failed("open", &path)(error.into()))?);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(unlocked(error)),
        }
        // The one before us may have renamed or removed it since we opened it.
        let ours = rustix::fs::fstat(&file).map_err(unlocked)?;
        match rustix::fs::lstat(&path) {
            Ok(there) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(unlocked(error)),
        }
        Ok(Some(Self { into: into.to_owned(), path, file, hash: Sha256::new(), len: 0 }))
    }

    /// Hashes what an earlier try left; drops it when it is longer than the whole.
    fn take_up(&mut self, size_bytes: u64) -> Result<(), TransportError> {
        let unread = failed("read", &self.path);
        let len = self.file.metadata().map_err(&unread)?.len();
        if len > size_bytes {
            return self.restart();
        }
        (self.hash, self.len) = hash(&mut self.file, len).map_err(unread)?;
        Ok(())
    }

    /// How many bytes there are.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Adds bytes at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        self.file.write_all(bytes).map_err(failed("write", &self.path))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Drops what there is.
    pub(super) fn restart(&mut self) -> Result<(), TransportError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(failed("empty", &self.path))?;
        (self.hash, self.len) = (Sha256::new(), 0);
        Ok(())
    }

    /// Drops what there is, and the file.
    pub(super) fn remove(self) -> Result<(), TransportError> {
        std::fs::remove_file(&self.path).map_err(failed("remove", &self.path))
    }

    /// Puts the whole file in its place, if it is the right one.
    pub(super) fn finish(self, want: &Wanted) -> Result<Ending, TransportError> {
        let found = hex(self.hash.clone().finalize());
        if found != want.sha256 || self.len != want.size_bytes {
            return Ok(Ending::Wrong(self, found));
        }
        self.file.sync_all().map_err(failed("write", &self.path))?;
        std::fs::rename(&self.path, &self.into).map_err(failed("rename", &self.path))?;
        sync_names(&self.into).map(|()| Ending::Right)
    }
}

/// Whether the file is there, whole and right.
fn is_whole(into: &Path, want: &Wanted) -> Result<bool, TransportError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match rustix::fs::open(into, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(failed("open", into)(error.into())),
    };
    let meta = file.metadata().map_err(failed("read", into))?;
    if !meta.is_file() || meta.len() != want.size_bytes {
        return Ok(false);
    }
    let (hash, len) = hash(&mut file, want.size_bytes).map_err(failed("read", into))?;
    Ok(len == want.size_bytes && hex(hash.finalize()) == want.sha256)
}

/// The hash of at most `len` bytes, and how many there were.
fn hash(file: &mut File, len: u64) -> io::Result<(Sha256, u64)> {
    let (mut hash, mut done) = (Sha256::new(), 0);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut limited = file.take(len);
    loop {
        match limited.read(&mut buffer) {
            Ok(0) => return Ok((hash, done)),
            Ok(read) => {
                hash.update(&buffer[..read]);
                done += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes the name of `path` durable.
fn sync_names(path: &Path) -> Result<(), TransportError> {
    let above = above(path);
    File::open(above).and_then(|dir| dir.sync_all()).map_err(failed("bring to disk", above))
}

fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> TransportError + use<> {
    let path = path.to_owned();
    move |source| TransportError::File { operation, path: path.clone(), source }
}
