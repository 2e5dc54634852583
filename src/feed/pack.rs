//! Makes a release out of a tree: for the demo, for tests, and for vendors.
//!
//! The same tree gives the same bytes: entries are sorted by name, owners are 0:0, times are cut
//! to whole seconds. What [`crate::feed::Feed::stage`] would refuse is refused here, with the same
//! words: better the vendor sees it than a thousand sites.
//!
//! The release is made in a hidden folder, which no feed looks into, and renamed in the end;
//! inside, `release.toml` is the last file and comes by rename, too, for whoever copies it from
//! there. A crash leaves the hidden folder; the next try removes it.
//!
//! Deliberately absent: owners, extended attributes, sparse files (holes are packed as zeros).

use std::collections::HashMap;
use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::NaiveDate;
use chrono::Utc;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use sha2::Digest;
use sha2::Sha256;
use tar::EntryType;
use tar::Header;
use walkdir::WalkDir;

use crate::domain::answers::Answers;
use crate::domain::hex::hex;
use crate::domain::release::Archive;
use crate::domain::release::MARKER;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Rollout;
use crate::domain::release::Version;
use crate::feed::archive::Limits;
use crate::feed::archive::error::ArchiveError;
use crate::feed::archive::error::shown;
use crate::feed::archive::name::EntryName;
use crate::feed::archive::name::check_symlink;
use crate::feed::error::FeedError;
use crate::feed::manifest;
use crate::feed::manifest::DESCRIPTION;
use crate::feed::readable;

/// How hard zstd tries: packing runs once, on a vendor's machine.
const ZSTD_LEVEL: i32 = 6;
/// The longest name that fits into a header.
const HEADER_NAME_BYTES: usize = 100;

/// What a tree cannot say about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackMeta {
    /// Version and build.
    pub id: ReleaseId,
    /// The day of publication.
    pub date: Option<NaiveDate>,
    /// What is new, in Markdown.
    pub notes: String,
    /// The lowest version that may be updated to this one directly.
    pub min_version: Option<Version>,
    /// The lowest version of Afterhours that can install it.
    pub min_afterhours: Option<Version>,
    /// Whether no update may jump over it.
    pub barrier: bool,
    /// Migrates the data.
    pub migrate: Option<Vec<String>>,
    /// Whether that must run as root.
    pub migrate_as_root: bool,
    /// What it answers when it is asked for its version, where that is not the version.
    pub answers: Option<Answers>,
    /// The instant of publication.
    pub published_at: Option<DateTime<Utc>>,
    /// Whether it mends a hole that others may use.
    pub security: bool,
    /// How it spreads over the sites.
    pub rollout: Option<Rollout>,
    /// The classes of licences it is for; all when empty.
    pub licences: Vec<String>,
}

impl PackMeta {
    /// A release with no more than its version and build.
    pub fn new(id: ReleaseId) -> Self {
        Self {
            id,
            date: None,
            notes: String::new(),
            min_version: None,
            min_afterhours: None,
            barrier: false,
            migrate: None,
            migrate_as_root: false,
            answers: None,
            published_at: None,
            security: false,
            rollout: None,
            licences: Vec::new(),
        }
    }
}

/// Makes the folder `VERSION-BUILD` in `into_dir` from everything in `tree`. Blocking.
///
/// A marker in the tree's root is left out: it says what was installed, not what is packed.
///
/// # Errors
/// The tree cannot be read or holds what a release must not, the folder exists or cannot be written, or a
/// value of `meta` cannot be.
pub fn pack(tree: &Path, meta: &PackMeta, into_dir: &Path) -> Result<Release, FeedError> {
    let name = format!("{}-{}", meta.id.version, meta.id.build);
    let folder = into_dir.join(&name);
    let hidden = into_dir.join(format!(".{name}.partial"));
    if rustix::fs::lstat(&folder).is_ok() {
        return Err(FeedError::Published { folder });
    }
    readable::check(&release(meta, Vec::new(), &folder), &[archive_name(meta)], 0)?;
    match std::fs::remove_dir_all(&hidden) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(FeedError::Clear { path: hidden, source });
        }
        _ => {}
    }
    std::fs::create_dir_all(&hidden).map_err(|source| FeedError::Make { path: hidden.clone(), source })?;
    let published = publish(tree, meta, &hidden, &folder);
    if published.is_err() {
        // The next try removes it as well; this is only to give the space back at once.
        let _ = std::fs::remove_dir_all(&hidden);
    }
    published
}

fn archive_name(meta: &PackMeta) -> String {
    format!("{}.tar.zst", meta.id.version)
}

fn publish(tree: &Path, meta: &PackMeta, hidden: &Path, folder: &Path) -> Result<Release, FeedError> {
    let file = archive_name(meta);
    let archive = write_archive(tree, &hidden.join(&file), file)?;
    let release = release(meta, vec![archive], folder);
    if let Some((key, problem)) = manifest::problem(&release) {
        return Err(FeedError::BadValue { file: folder.join(DESCRIPTION), key, problem });
    }
    let text = manifest::write(&release)?;
    let (draft, last) = (hidden.join(format!("{DESCRIPTION}.draft")), hidden.join(DESCRIPTION));
    File::create(&draft)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|source| FeedError::Write { path: draft.clone(), source })?;
    rename(&draft, &last)?;
    sync_dir(hidden)?;
    rename(hidden, folder)?;
    if let Some(parent) = folder.parent() {
        sync_dir(parent)?;
    }
    Ok(release)
}

/// The release that `meta` describes.
pub(in crate::feed) fn release(meta: &PackMeta, archives: Vec<Archive>, location: impl Into<PathBuf>) -> Release {
    Release {
        date: meta.date,
        published_at: meta.published_at,
        security: meta.security,
        rollout: meta.rollout.clone(),
        licences: meta.licences.clone(),
        notes: meta.notes.clone(),
        min_version: meta.min_version.clone(),
        min_afterhours: meta.min_afterhours.clone(),
        barrier: meta.barrier,
        migrate: meta.migrate.clone(),
        migrate_as_root: meta.migrate_as_root,
        answers: meta.answers.clone(),
        ..Release::new(meta.id.clone(), archives, location)
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), FeedError> {
    std::fs::rename(from, to).map_err(|source| FeedError::Rename { from: from.to_owned(), to: to.to_owned(), source })
}

fn sync_dir(dir: &Path) -> Result<(), FeedError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| FeedError::Sync { path: dir.to_owned(), source })
}

/// Packs everything in `tree` into the new file at `path`, which a release calls `file`.
pub(in crate::feed) fn write_archive(tree: &Path, path: &Path, file: String) -> Result<Archive, FeedError> {
    let unwritten = |source| FeedError::Write { path: path.to_owned(), source };
    let out = Hashing::new(File::create(path).map_err(unwritten)?);
    let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL).map_err(unwritten)?;
    encoder.include_checksum(true).map_err(unwritten)?;
    let encoder = Hashing::new(encoder);
    let mut packer =
        Packer { tree, out: path, builder: tar::Builder::new(encoder), links: HashMap::new(), unpacked_bytes: 0 };
    for entry in WalkDir::new(tree).sort_by_file_name() {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(tree).to_owned();
            FeedError::ReadTree { path, source: error.into() }
        })?;
        if entry.path() == tree.join(MARKER) {
            continue;
        }
        packer.add(entry.path())?;
    }
    let unpacked_bytes = packer.unpacked_bytes;
    let (encoder, tar_sha256, _) = packer.builder.into_inner().map_err(unwritten)?.finish();
    let (written, sha256, size_bytes) = encoder.finish().map_err(unwritten)?.finish();
    written.sync_all().map_err(unwritten)?;
    Ok(Archive { file, sha256, size_bytes, unpacked_bytes, tar_sha256: Some(tar_sha256), deltas: Vec::new() })
}

/// Adds entry after entry to an archive.
struct Packer<'a, W: Write> {
    tree: &'a Path,
    out: &'a Path,
    builder: tar::Builder<W>,
    /// Files with several names: device and inode, and the name that was first.
    links: HashMap<(u64, u64), PathBuf>,
    unpacked_bytes: u64,
}

impl<W: Write> Packer<'_, W> {
    fn add(&mut self, path: &Path) -> Result<(), FeedError> {
        let unread = |source| FeedError::ReadTree { path: path.to_owned(), source };
        let refused = |source| FeedError::Refused { path: path.to_owned(), source };
        let unwritten = |out: &Path, source| FeedError::Write { path: out.to_owned(), source };
        let name = path.strip_prefix(self.tree).unwrap_or(path);
        let meta = path.symlink_metadata().map_err(unread)?;
        let is_root = name.as_os_str().is_empty();
        let raw = if is_root { &b"./"[..] } else { name.as_os_str().as_bytes() };
        let checked = EntryName::parse(raw, meta.is_dir(), &Limits::DEFAULT).map_err(refused)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            let mut header = header(&meta, EntryType::Directory, 0);
            return self.append(&mut header, raw, io::empty()).map_err(|e| unwritten(self.out, e));
        }
        if kind.is_symlink() {
            let target = std::fs::read_link(path).map_err(unread)?;
            let target = target.as_os_str().as_bytes();
            check_symlink(&checked, target, &Limits::DEFAULT).map_err(refused)?;
            let mut header = header(&meta, EntryType::Symlink, 0);
            return self.append_link(&mut header, raw, target).map_err(|e| unwritten(self.out, e));
        }
        if !kind.is_file() {
            let kind = "a device, a pipe or a socket".to_owned();
            return Err(refused(ArchiveError::Kind { entry: shown(raw), kind }));
        }
        // Opened first and asked through the descriptor: what is packed is one and the same file.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|e| unread(e.into()))?);
        let meta = file.metadata().map_err(unread)?;
        if !meta.is_file() {
            return Err(FeedError::Changed { path: path.to_owned() });
        }
        if meta.nlink() > 1 {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())).cloned() {
                let mut header = header(&meta, EntryType::Link, 0);
                return self
                    .append_link(&mut header, raw, first.as_os_str().as_bytes())
                    .map_err(|e| unwritten(self.out, e));
            }
            self.links.insert((meta.dev(), meta.ino()), name.to_owned());
        }
        let mut header = header(&meta, EntryType::Regular, meta.len());
        let mut data = Exactly { file, left: meta.len(), failed: None };
        let appended = self.append(&mut header, raw, &mut data);
        if let Some(source) = data.failed {
            return Err(unread(source));
        }
        appended.map_err(|e| unwritten(self.out, e))?;
        if data.left > 0 || data.file.read(&mut [0]).map_err(unread)? > 0 {
            return Err(FeedError::Changed { path: path.to_owned() });
        }
        self.unpacked_bytes += meta.len();
        Ok(())
    }

    fn append(&mut self, header: &mut Header, name: &[u8], data: impl Read) -> io::Result<()> {
        if name.len() > HEADER_NAME_BYTES {
            self.append_long(EntryType::GNULongName, name)?;
        }
        let short = &name[..name.len().min(HEADER_NAME_BYTES)];
        header.as_old_mut().name[..short.len()].copy_from_slice(short);
        header.set_cksum();
        self.builder.append(header, data)
    }

    fn append_link(&mut self, header: &mut Header, name: &[u8], target: &[u8]) -> io::Result<()> {
        if target.len() > HEADER_NAME_BYTES {
            self.append_long(EntryType::GNULongLink, target)?;
        }
        header.set_link_name_literal(&target[..target.len().min(HEADER_NAME_BYTES)])?;
        self.append(header, name, io::empty())
    }

    /// A name that does not fit into its header stands in front of it, as GNU tar does it.
    fn append_long(&mut self, kind: EntryType, name: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(name.len() as u64 + 1);
        let title = b"././@LongLink";
        header.as_old_mut().name[..title.len()].copy_from_slice(title);
        header.set_cksum();
        self.builder.append(&header, name.chain(&b"\0"[..]))
    }
}

fn header(meta: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(meta.mode() & 0o1777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(size);
    header
}

/// Reads as many bytes as were announced in the header, whatever happens to the file; says what was wrong.
struct Exactly {
    file: File,
    left: u64,
    failed: Option<io::Error>,
}

impl Read for Exactly {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        match self.file.read(&mut into[..want]) {
            Ok(read) => {
                self.left -= read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

/// Hashes and counts what is written through it.
struct Hashing<W> {
    into: W,
    hash: Sha256,
    written: u64,
}

impl<W> Hashing<W> {
    fn new(into: W) -> Self {
        Self { into, hash: Sha256::new(), written: 0 }
    }

    /// Where it was written to, the SHA-256 in hexadecimal digits, and how many bytes there were.
    fn finish(self) -> (W, String, u64) {
        let sha256 = hex(self.hash.finalize());
        (self.into, sha256, self.written)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.into.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}
