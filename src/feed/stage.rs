//! Makes a whole tree at a path, or nothing: the same for every kind of feed.
//!
//! ```text
//! lock INTO.partial → empty it → archive by archive: hash + unpack → marker → modes
//!                   → record beside it → syncfs → rename to INTO (the commit) → fsync the parent
//! ```
//!
//! A crash at any point before the rename leaves `INTO.partial`, which the next try empties. The
//! rename cannot replace anything. A tree that stands there is the release if the record beside it ([`staged`]) names that
//! directory, has the hashes of the release's archives, and was not spoilt; one of its version and build without that
//! becomes the `INTO.partial` of a try that died. Nothing inside the tree is believed. Everything in the tree is on
//! disk before the rename, so after a power cut `INTO` is absent or whole.
//!
//! The lock is an advisory one on the directory `INTO.partial` itself: it needs no file of its
//! own, ends with the process, and moves along with the rename. It keeps apart a prefetch and a
//! run, and a try whose caller has gone away from the one after it.
//!
//! A hash is computed over the bytes on their way from the one open file into the unpacker (`ahead`, in a thread of its
//! own), and to the file's end; nothing is read twice. If unpacking fails and the bytes are not the declared
//! ones, that is reported: it is the cause.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::AtFlags;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use sha2::Digest;
use sha2::Sha256;

use crate::domain::hex::hex;
use crate::domain::progress::Progress;
use crate::domain::release::Archive;
use crate::domain::release::MARKER;
use crate::domain::release::Marker;
use crate::domain::release::Release;
use crate::domain::span::Span;
use crate::feed::ahead::ReadAhead;
use crate::feed::archive::Cancel;
use crate::feed::archive::Limits;
use crate::feed::archive::decompressed;
use crate::feed::archive::error::ArchiveError;
use crate::feed::archive::tree::Tree;
use crate::feed::archive::unpack;
use crate::feed::archive::unpack_tar;
use crate::feed::error::FeedError;
use crate::feed::manifest;
use crate::files::small::read_small_text;
use crate::files::staged;
use crate::files::staged::Identity;
use crate::files::trusted::trusted_way;

/// How long another try to stage the same release is waited for.
const BUSY_WAIT: Span = Span::mins(30);
/// The pause between two looks whether it has ended.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// The longest marker that is read.
const MARKER_BYTES_MAX: u64 = 64 * 1024;

/// An archive to unpack.
#[derive(Debug)]
pub(in crate::feed) struct Opened {
    /// The file.
    pub(in crate::feed) file: io::Result<File>,
    /// Its path, for messages.
    pub(in crate::feed) path: PathBuf,
    /// What proves that it is the right one.
    pub(in crate::feed) proof: Proof,
}

/// What proves that an archive is the one that the release declares.
#[derive(Debug)]
pub(in crate::feed) enum Proof {
    /// It is the published file, to the byte: its size and hash.
    File,
    /// It was made here, by a delta: the hash of the tar archive in it.
    Tar,
}

/// Opens an archive of a release.
pub(in crate::feed) type OpenArchive = dyn Fn(&Archive) -> Opened + Send + Sync;

/// Stages a release whose archives `open` opens.
///
/// # Errors
/// See [`crate::feed::Feed::stage`].
pub(in crate::feed) async fn stage(
    release: Release,
    into: PathBuf,
    progress: Arc<dyn Progress>,
    open: Arc<OpenArchive>,
) -> Result<(), FeedError> {
    // The release may come from a log that was written long ago.
    if let Some((key, problem)) = manifest::problem(&release) {
        return Err(FeedError::BadValue { file: release.location, key, problem });
    }
    let cancel = Cancel::default();
    // When this future is dropped, the thread is told.
    let _guard = CancelOnDrop(cancel.clone());
    let staging = Arc::new(Staging { place: Place::new(&into)?, release, progress, open, cancel });
    let deadline = tokio::time::Instant::now() + BUSY_WAIT.duration();
    loop {
        let worker = Arc::clone(&staging);
        let tried = tokio::task::spawn_blocking(move || worker.try_once());
        match tried.await.map_err(|source| FeedError::Thread { what: into.display().to_string(), source })?? {
            Tried::Done => return Ok(()),
            Tried::Busy if tokio::time::Instant::now() >= deadline => {
                return Err(FeedError::Busy { into, waited: BUSY_WAIT });
            }
            Tried::Busy => tokio::time::sleep(BUSY_PAUSE).await,
        }
    }
}

/// Tells a thread when nobody waits for it any more.
pub(in crate::feed) struct CancelOnDrop(pub(in crate::feed) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How a try ended, if not with an error.
enum Tried {
    /// The tree stands.
    Done,
    /// Somebody else is at it.
    Busy,
}

/// What is where the tree should come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// Nothing.
    Nothing,
    /// The tree.
    Itself,
    /// A tree of the same version and build, from other archives, or nobody knows from which.
    OtherContents,
}

/// Where a tree goes.
struct Place {
    into: PathBuf,
    partial: PathBuf,
    parent: PathBuf,
}

impl Place {
    fn new(into: &Path) -> Result<Self, FeedError> {
        match (into.parent(), into.file_name()) {
            (Some(parent), Some(name)) => {
                let mut partial = name.to_owned();
                partial.push(".partial");
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                Ok(Self { into: into.to_owned(), partial: parent.join(partial), parent: parent.to_owned() })
            }
            _ => Err(FeedError::NoPlace { into: into.to_owned() }),
        }
    }
}

struct Staging {
    place: Place,
    release: Release,
    progress: Arc<dyn Progress>,
    open: Arc<OpenArchive>,
    cancel: Cancel,
}

impl Staging {
    /// Blocking: from nothing to the whole tree.
    fn try_once(&self) -> Result<Tried, FeedError> {
        let Place { into, parent, partial } = &self.place;
        if self.cancel.is_cancelled() {
            return Err(FeedError::Cancelled);
        }
        let untrusted = |source| FeedError::Untrusted { path: parent.clone(), source };
        trusted_way(parent).map_err(untrusted)?;
        std::fs::create_dir_all(parent).map_err(|source| FeedError::Make { path: parent.clone(), source })?;
        if self.stands()? == Stands::Itself {
            return self.make_name_durable().map(|()| Tried::Done);
        }
        let Some(mut root) = self.lock()? else { return Ok(Tried::Busy) };
        // Whoever had the lock before may have finished in between.
        let stands = self.stands()?;
        if stands == Stands::Itself {
            self.clean_up(&root);
            return self.make_name_durable().map(|()| Tried::Done);
        }
        let clear = |root: &OwnedFd| {
            clear(root.as_fd()).map_err(|e| FeedError::Clear { path: partial.clone(), source: e.into() })
        };
        clear(&root)?;
        if stands == Stands::OtherContents {
            tracing::warn!(tree = %self.place.into.display(), release = %self.release.id,
                "what was staged under this release's name has other contents; it is staged anew");
            self.set_aside()?;
            let Some(aside) = self.lock()? else { return Ok(Tried::Busy) };
            clear(&aside)?;
            root = aside;
        }
        let made = self.fill(&root).and_then(|()| self.commit());
        if made.is_err() {
            // Without the tree it says nothing; if it stays, the next try writes it anew.
            let _ = std::fs::remove_dir_all(staged::state_dir(into));
            self.clean_up(&root);
        }
        made.map(|()| Tried::Done)
    }

    /// Whether the tree is there already.
    fn stands(&self) -> Result<Stands, FeedError> {
        let into = &self.place.into;
        match rustix::fs::lstat(into) {
            Err(Errno::NOENT) => return Ok(Stands::Nothing),
            Err(error) => return Err(FeedError::ReadMarker { tree: into.clone(), source: error.into() }),
            Ok(_) => {}
        }
        let unread = |source| FeedError::ReadMarker { tree: into.clone(), source };
        let occupied = |found: Option<Marker>| {
            Err(FeedError::Occupied { into: into.clone(), found: found.map(|marker| marker.id) })
        };
        let Some(root) = Identity::of(into).map_err(unread)? else { return occupied(None) };
        match staged::sealed(into).map_err(unread)? {
            Some(record) if record.root == root => {
                let marker = record.marker;
                let is_spoilt = staged::is_spoilt(into).map_err(unread)?;
                match marker.id == self.release.id {
                    true if !is_spoilt && marker == Marker::of(&self.release) => Ok(Stands::Itself),
                    true => Ok(Stands::OtherContents),
                    false => occupied(Some(marker)),
                }
            }
            // An exchange has brought it here: it may be an installation's way back.
            Some(_) => occupied(None),
            // Nobody knows of it, and its own word makes it at most a tree that goes.
            None => match read_marker(into)? {
                Some(marker) if marker.id == self.release.id => Ok(Stands::OtherContents),
                found => occupied(found),
            },
        }
    }

    /// Makes the tree that stands the partial one. That is ours and empty, so one rename does both.
    fn set_aside(&self) -> Result<(), FeedError> {
        let Place { into, partial, .. } = &self.place;
        let renamed = rustix::fs::rename(into, partial);
        renamed.map_err(|e| FeedError::Rename { from: into.clone(), to: partial.clone(), source: e.into() })
    }

    /// Opens the partial tree for us alone; nothing when somebody else has it.
    fn lock(&self) -> Result<Option<OwnedFd>, FeedError> {
        let partial = &self.place.partial;
        let unmade = |error: Errno| FeedError::Make { path: partial.clone(), source: error.into() };
        match rustix::fs::mkdir(partial, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(unmade(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::open(partial, flags, Mode::empty());
        let root = match open() {
            // The interrupted try may have come as far as giving it a mode that shuts us out.
            Err(Errno::ACCESS) => rustix::fs::chmod(partial, Mode::RWXU).and_then(|()| open()).map_err(unmade)?,
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(unmade)?,
        };
        match rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(unmade(error)),
        }
        // The one before us may have renamed or removed it since we opened it.
        let ours = rustix::fs::fstat(&root).map_err(unmade)?;
        match rustix::fs::lstat(partial) {
            Ok(there) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => Ok(Some(root)),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(unmade(error)),
        }
    }

    fn fill(&self, root: &OwnedFd) -> Result<(), FeedError> {
        let partial = &self.place.partial;
        let unwritten = |path: PathBuf| move |source| FeedError::Write { path, source };
        rustix::fs::fchmod(root, Mode::RWXU).map_err(|e| unwritten(partial.clone())(e.into()))?;
        let limits = Limits::DEFAULT;
        let fd = root.try_clone().map_err(unwritten(partial.clone()))?;
        let mut tree = Tree::new(fd, limits.names_bytes_max);
        let mut done = 0;
        for archive in &self.release.archives {
            self.add(archive, &mut tree, &limits, done)?;
            done += archive.size_bytes;
        }
        write_marker(root, &Marker::of(&self.release)).map_err(unwritten(partial.join(MARKER)))?;
        let root = tree.finish().map_err(|source| FeedError::Unpack { file: self.release.location.clone(), source })?;
        staged::seal(partial, &self.place.into, &Marker::of(&self.release))
            .map_err(unwritten(staged::state_dir(&self.place.into)))?;
        self.progress.advance(done, Some(self.release.size_bytes()), "writing to disk");
        rustix::fs::syncfs(&*root).map_err(|e| FeedError::Sync { path: partial.clone(), source: e.into() })
    }

    /// Unpacks one archive and proves that it was the right one.
    fn add(&self, archive: &Archive, tree: &mut Tree, limits: &Limits, before: u64) -> Result<(), FeedError> {
        let Opened { file, path, proof } = (self.open)(archive);
        let unread = |source| FeedError::ReadArchive { file: path.clone(), source };
        let file = file.map_err(unread)?;
        let meta = file.metadata().map_err(unread)?;
        if !meta.is_file() {
            return Err(FeedError::NotAFile { file: path });
        }
        let job = Unpacking { staging: self, archive, path: &path, before, limits };
        match proof {
            Proof::File => job.published(file, meta.len(), tree),
            Proof::Tar => job.made_here(file, meta.len(), tree),
        }
    }

    /// The one moment at which the tree comes to be.
    fn commit(&self) -> Result<(), FeedError> {
        let Place { into, partial, .. } = &self.place;
        if self.cancel.is_cancelled() {
            return Err(FeedError::Cancelled);
        }
        let cwd = rustix::fs::CWD;
        match rustix::fs::renameat_with(cwd, partial, cwd, into, RenameFlags::NOREPLACE) {
            // A file system without this flag: a directory with contents is not replaced by rename either.
            Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::rename(partial, into),
            renamed => renamed,
        }
        .map_err(|e| FeedError::Rename { from: partial.clone(), to: into.clone(), source: e.into() })?;
        self.make_name_durable()
    }

    fn make_name_durable(&self) -> Result<(), FeedError> {
        let parent = &self.place.parent;
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| FeedError::Sync { path: parent.clone(), source })
    }

    /// Removes the partial tree, as far as that goes: a full disk should not stay full because of us.
    fn clean_up(&self, root: &OwnedFd) {
        let partial = &self.place.partial;
        let cleared = clear(root.as_fd()).and_then(|()| match rustix::fs::rmdir(partial) {
            // After the commit there is nothing left to remove.
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        });
        if let Err(error) = cleared {
            tracing::warn!(path = %partial.display(), %error, "an unfinished tree could not be removed; the next try does it");
        }
    }
}

/// What a tree says of itself; nothing when it does not say.
fn read_marker(tree: &Path) -> Result<Option<Marker>, FeedError> {
    let unread = |source| FeedError::ReadMarker { tree: tree.to_owned(), source };
    let text = read_small_text(&tree.join(MARKER), MARKER_BYTES_MAX).map_err(|error| unread(error.into()))?;
    let Some(text) = text else { return Ok(None) };
    let marker = Marker::from_text(&text);
    marker.map(Some).map_err(|source| FeedError::ParseMarker { tree: tree.to_owned(), source })
}

fn write_marker(root: &OwnedFd, marker: &Marker) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let mut file = File::from(rustix::fs::openat(root, MARKER, flags, mode)?);
    rustix::fs::fchmod(&file, mode)?;
    file.write_all(marker.to_text().as_bytes())
}

/// Removes everything in a directory, without following links out of it, even from directories that
/// have no right to be written. Depth is bounded, since only unpacking made them.
fn clear(dir: impl AsFd) -> Result<(), Errno> {
    let dir = dir.as_fd();
    rustix::fs::fchmod(dir, Mode::RWXU)?;
    let names: Vec<_> = rustix::fs::Dir::read_from(dir)?
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .filter(|name| !matches!(name.as_ref().map(|name| name.to_bytes()), Ok(b"." | b"..")))
        .collect::<Result<_, _>>()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for name in names {
        match rustix::fs::unlinkat(dir, &name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            removed => {
                removed?;
                continue;
            }
        }
        let open = || rustix::fs::openat(dir, &name, flags, Mode::empty());
        let below = match open() {
            // It is a directory, by the answer to unlink, and in a directory that only we can write to.
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(dir, &name, Mode::RWXU, AtFlags::empty()).and_then(|()| open())?
            }
            opened => opened?,
        };
        clear(below)?;
        rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// One archive on its way into the tree.
struct Unpacking<'a> {
    staging: &'a Staging,
    archive: &'a Archive,
    path: &'a Path,
    /// The bytes of the archives before it.
    before: u64,
    limits: &'a Limits,
}

impl Unpacking<'_> {
    /// Unpacks the published file and proves it by its size and hash.
    fn published(&self, file: File, found: u64, tree: &mut Tree) -> Result<(), FeedError> {
        let declared = self.archive.size_bytes;
        if found != declared {
            return Err(self.wrong_size(found));
        }
        let mut ahead = ReadAhead::new(file, declared);
        let source = Told { source: &mut ahead, read: 0, told: |read| self.tell(read) };
        let unpacked = unpack(source, self.archive.unpacked_bytes, tree, self.limits, &self.staging.cancel);
        let unpacked = self.unless_ours(unpacked)?;
        // A failed unpacking stops early; the hash is that of all declared bytes.
        let (found, sha256) = ahead.finish().map_err(|source| self.unread(source))?;
        if found != declared {
            return Err(self.wrong_size(found));
        }
        self.judge(unpacked, &self.archive.sha256, sha256)
    }

    /// Unpacks an archive that a delta has made and proves it by the hash of the tar archive in it.
    fn made_here(&self, file: File, size: u64, tree: &mut Tree) -> Result<(), FeedError> {
        // Counted in the bytes of the published file, which is what was announced.
        let share =
            |read: u64| u64::try_from(u128::from(read) * u128::from(self.archive.size_bytes) / u128::from(size.max(1)));
        let told = |read| self.tell(share(read).unwrap_or(u64::MAX));
        let tar = decompressed(Told { source: file, read: 0, told }).map_err(|source| self.unread(source))?;
        let mut hashed = Hashed { source: tar, hash: Sha256::new() };
        let unpacked = unpack_tar(&mut hashed, self.archive.unpacked_bytes, tree, self.limits, &self.staging.cancel);
        let unpacked = self.unless_ours(unpacked)?;
        let drained = io::copy(&mut hashed, &mut io::sink());
        let sha256 = hex(hashed.hash.finalize());
        match &self.archive.tar_sha256 {
            Some(declared) => self.judge(unpacked, declared, sha256)?,
            None => {
                return Err(FeedError::WrongHash {
                    file: self.path.to_owned(),
                    declared: String::new(),
                    found: sha256,
                });
            }
        }
        drained.map(drop).map_err(|source| self.unread(source))
    }

    /// What is wrong with the archive is told only when its bytes are the right ones: else that is the cause.
    fn judge(&self, unpacked: Result<(), ArchiveError>, declared: &str, found: String) -> Result<(), FeedError> {
        if found != declared {
            return Err(FeedError::WrongHash { file: self.path.to_owned(), declared: declared.to_owned(), found });
        }
        unpacked.map_err(|source| FeedError::Unpack { file: self.path.to_owned(), source })
    }

    /// What is no fault of the archive ends the work at once.
    fn unless_ours(&self, unpacked: Result<(), ArchiveError>) -> Result<Result<(), ArchiveError>, FeedError> {
        match unpacked {
            Err(_) if self.staging.cancel.is_cancelled() => Err(FeedError::Cancelled),
            Err(source) if source.is_ours() => Err(FeedError::Unpack { file: self.path.to_owned(), source }),
            unpacked => Ok(unpacked),
        }
    }

    fn tell(&self, read: u64) {
        let total = self.staging.release.size_bytes();
        self.staging.progress.advance(self.before + read, Some(total), &self.archive.file);
    }

    fn unread(&self, source: io::Error) -> FeedError {
        FeedError::ReadArchive { file: self.path.to_owned(), source }
    }

    fn wrong_size(&self, found: u64) -> FeedError {
        FeedError::WrongSize { file: self.path.to_owned(), declared: self.archive.size_bytes, found }
    }
}

/// Tells how far the reading is.
struct Told<R, F> {
    source: R,
    read: u64,
    told: F,
}

impl<R: Read, F: Fn(u64)> Read for Told<R, F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.read += read as u64;
        (self.told)(self.read);
        Ok(read)
    }
}

/// Hashes what is read through it.
struct Hashed<R> {
    source: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.hash.update(&into[..read]);
        Ok(read)
    }
}
