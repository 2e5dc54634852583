//! Unpacks one `.tar.zst` of a vendor into a [`tree::Tree`], trusting nothing in it.
//!
//! ```text
//! file → hash → zstd (window bounded) → meter (bytes allowed next) → tar headers → checks → tree
//! ```
//!
//! Everything is streamed. Memory is bounded by named maxima: the window of zstd, the metadata of
//! one entry, the names of all directories. Disk is bounded by `unpacked_bytes`: an entry that
//! says it is larger than what is left is refused before a byte of it is written, and every byte
//! is counted as it is read, so a header that lies about its size gains nothing.
//!
//! Allowed are files, directories, symbolic and hard links that stay inside, and the metadata of
//! GNU and pax that carry long names, sizes and times. All else is refused: the list says what
//! may be, not what may not. Sparse files are not on it. A pax record that would change what an
//! entry is, and a global record other than a comment, are refused rather than ignored, since
//! another program might not ignore them.
//!
//! Setuid and setgid bits are dropped silently: a release that needs them sets them in its
//! migration, where somebody can see it. Names need not be UTF-8.
//!
//! Deliberately absent: owners, extended attributes, access lists.

pub(in crate::feed) mod error;
pub(in crate::feed) mod name;
pub(in crate::feed) mod tree;

use std::cell::Cell;
use std::io;
use std::io::Read;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use rustix::fs::Timespec;
use tar::EntryType;

use crate::domain::release::MARKER;
use crate::feed::archive::error::ArchiveError;
use crate::feed::archive::error::shown;
use crate::feed::archive::name::EntryName;
use crate::feed::archive::name::check_symlink;
use crate::feed::archive::tree::Meta;
use crate::feed::archive::tree::Tree;

/// The largest window of zstd that is accepted: 128 MiB, what `zstd --long` makes and reads.
const WINDOW_LOG_MAX: u32 = 27;
/// How much is copied at a time.
const CHUNK_BYTES: usize = 128 * 1024;
/// How many zero bytes may follow the end mark: `tar -b` pads to its record size.
const PADDING_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The pax records that are understood or harmless; beside them `SCHILY.`, `LIBARCHIVE.` and `SUN.` notes.
const PAX_KEYS: [&str; 12] =
    ["path", "linkpath", "size", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment", "hdrcharset"];

/// Where we are before the first entry.
const BEGINNING: &str = "its beginning";

/// What an archive may at most ask of us.
#[derive(Debug, Clone)]
pub(in crate::feed) struct Limits {
    /// Entries in one archive.
    pub(in crate::feed) entries_max: u64,
    /// The length of a path, or of a link's target.
    pub(in crate::feed) path_bytes_max: usize,
    /// Components of a path.
    pub(in crate::feed) depth_max: usize,
    /// Long names and pax records of one entry.
    pub(in crate::feed) metadata_bytes_max: u64,
    /// The names of all directories of a tree.
    pub(in crate::feed) names_bytes_max: usize,
}

impl Limits {
    /// Several times what the largest known application trees need.
    pub(in crate::feed) const DEFAULT: Self = Self {
        entries_max: 1_000_000,
        path_bytes_max: 4000,
        depth_max: 128,
        metadata_bytes_max: 256 * 1024,
        names_bytes_max: 64 * 1024 * 1024,
    };
}

/// Tells work in another thread that nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub(in crate::feed) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the work to end.
    pub(in crate::feed) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to.
    pub(in crate::feed) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Unpacks a whole archive, to the last byte of `source`.
///
/// # Errors
/// The archive is broken, is refused, or cannot be written; then the tree is of no use.
pub(in crate::feed) fn unpack(
    source: impl Read,
    unpacked_bytes: u64,
    tree: &mut Tree,
    limits: &Limits,
    cancel: &Cancel,
) -> Result<(), ArchiveError> {
    let decoder =
        decompressed(source).map_err(|source| ArchiveError::Broken { after: BEGINNING.to_owned(), source })?;
    unpack_tar(decoder, unpacked_bytes, tree, limits, cancel)
}

/// What is inside a compressed archive: a plain tar archive.
///
/// # Errors
/// There is no room for a decoder.
pub(in crate::feed) fn decompressed<R: Read>(source: R) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::new(source)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// The same for a plain tar archive.
///
/// # Errors
/// As of [`unpack`].
pub(in crate::feed) fn unpack_tar(
    source: impl Read,
    unpacked_bytes: u64,
    tree: &mut Tree,
    limits: &Limits,
    cancel: &Cancel,
) -> Result<(), ArchiveError> {
    let broken = |after: &str, source| ArchiveError::Broken { after: after.to_owned(), source };
    let mut after = BEGINNING.to_owned();
    let meter = Meter { allowed: Cell::new(0), at_end: Cell::new(false), cancel };
    let mut archive = tar::Archive::new(Metered { inner: source, meter: &meter });
    tree.next_archive();
    let mut unpacker = Unpacker { tree, limits, declared: unpacked_bytes, left: unpacked_bytes };

    let mut count = 0;
    let mut entries = archive.entries().map_err(|e| broken(&after, e))?;
    loop {
        // The padding of the entry before, one header for each kind of metadata, and their contents.
        meter.allow(limits.metadata_bytes_max);
        let entry = match entries.next() {
            None if meter.at_end.get() => return Err(ArchiveError::NoEnd { after }),
            None => break,
            Some(Err(_)) if cancel.is_cancelled() => return Err(ArchiveError::Cancelled),
            Some(Err(_)) if meter.allowed.get() == 0 => {
                return Err(ArchiveError::MetadataTooLarge { after, max: limits.metadata_bytes_max });
            }
            Some(Err(source)) => return Err(broken(&after, source)),
            Some(Ok(entry)) => entry,
        };
        count += 1;
        if count > limits.entries_max {
            return Err(ArchiveError::TooManyEntries { max: limits.entries_max });
        }
        after = shown(&entry.path_bytes());
        unpacker.entry(entry, &meter)?;
    }
    expect_only_zeros(archive.into_inner(), &meter).map_err(|source| broken(&after, source))?
}

/// Unpacks entry after entry.
struct Unpacker<'a> {
    tree: &'a mut Tree,
    limits: &'a Limits,
    declared: u64,
    left: u64,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, mut entry: tar::Entry<'_, R>, meter: &Meter<'_>) -> Result<(), ArchiveError> {
        let raw = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            meter.allow(self.limits.metadata_bytes_max);
            return check_global(&raw, &mut entry, meter, self.limits);
        }
        let is_listed =
            matches!(kind, EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Link);
        if !is_listed {
            return Err(ArchiveError::Kind { entry: shown(&raw), kind: kind_in_words(kind) });
        }
        let mtime = check_records(&raw, &mut entry)?;
        let name = EntryName::parse(&raw, kind == EntryType::Directory, self.limits)?;
        if name.as_bytes() == MARKER.as_bytes() {
            return Err(ArchiveError::Reserved { entry: name.shown() });
        }
        let meta = meta(&name, entry.header(), mtime)?;
        if kind == EntryType::Regular {
            return self.file(&name, entry, meta, meter);
        }
        if entry.size() != 0 {
            return Err(ArchiveError::UnexpectedData { entry: name.shown(), size: entry.size() });
        }
        if kind == EntryType::Directory {
            return self.tree.directory(&name, meta);
        }
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        if kind == EntryType::Symlink {
            check_symlink(&name, &target, self.limits)?;
            return self.tree.symlink(&name, &target, meta);
        }
        let target = match EntryName::parse(&target, false, self.limits) {
            Ok(target) => target,
            Err(ArchiveError::Absolute { .. }) => {
                return Err(ArchiveError::LinkAbsolute { entry: name.shown(), target: shown(&target) });
            }
            Err(ArchiveError::Parent { .. }) => {
                return Err(ArchiveError::LinkOut { entry: name.shown(), target: shown(&target) });
            }
            Err(_) => return Err(ArchiveError::HardLinkTarget { entry: name.shown(), target: shown(&target) }),
        };
        self.tree.hardlink(&name, &target)
    }

    fn file<R: Read>(
        &mut self,
        name: &EntryName,
        mut entry: tar::Entry<'_, R>,
        meta: Meta,
        meter: &Meter<'_>,
    ) -> Result<(), ArchiveError> {
        let size = entry.size();
        if size > self.left {
            return Err(ArchiveError::TooBig { entry: name.shown(), declared: self.declared });
        }
        meter.allow(size);
        let mut file = self.tree.file(name)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut written = 0;
        loop {
            let read = match entry.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(_) if meter.cancel.is_cancelled() => return Err(ArchiveError::Cancelled),
                Err(source) => return Err(ArchiveError::Broken { after: name.shown(), source }),
            };
            written += read as u64;
            self.left = self
                .left
                .checked_sub(read as u64)
                .ok_or_else(|| ArchiveError::TooBig { entry: name.shown(), declared: self.declared })?;
            file.write_all(&chunk[..read]).map_err(|source| ArchiveError::Write { entry: name.shown(), source })?;
        }
        if written != size {
            return Err(ArchiveError::Short { entry: name.shown() });
        }
        Tree::seal(name, &file, meta)
    }
}

/// Looks through an entry's pax records; the modification time with its fraction, if there is one.
fn check_records<R: Read>(raw: &[u8], entry: &mut tar::Entry<'_, R>) -> Result<Option<Timespec>, ArchiveError> {
    let broken = |source| ArchiveError::PaxBroken { entry: shown(raw), source };
    let mut mtime = None;
    let mut seen = Vec::new();
    let Some(records) = entry.pax_extensions().map_err(broken)? else { return Ok(None) };
    for record in records {
        let record = record.map_err(broken)?;
        let key = String::from_utf8_lossy(record.key_bytes()).into_owned();
        let is_note = ["SCHILY.", "LIBARCHIVE.", "SUN."].iter().any(|note| key.starts_with(note));
        // SCHILY.realsize and its like belong to sparse files, which are written in another way.
        let is_known = PAX_KEYS.contains(&key.as_str()) || (is_note && key != "SCHILY.realsize");
        if !is_known || seen.contains(&key) {
            return Err(ArchiveError::PaxRecord { entry: shown(raw), key: shown(record.key_bytes()) });
        }
        if key == "mtime" {
            mtime = Some(
                parse_time(record.value_bytes())
                    .ok_or_else(|| ArchiveError::PaxRecord { entry: shown(raw), key: shown(b"mtime") })?,
            );
        }
        if key == "size" && record.value().ok().and_then(|value| value.parse::<u64>().ok()).is_none() {
            return Err(ArchiveError::PaxRecord { entry: shown(raw), key: shown(b"size") });
        }
        seen.push(key);
    }
    Ok(mtime)
}

/// A global header may hold a comment, as `git archive` writes it, and nothing that changes entries.
fn check_global<R: Read>(
    raw: &[u8],
    entry: &mut tar::Entry<'_, R>,
    meter: &Meter<'_>,
    limits: &Limits,
) -> Result<(), ArchiveError> {
    if entry.size() > limits.metadata_bytes_max {
        return Err(ArchiveError::MetadataTooLarge { after: shown(raw), max: limits.metadata_bytes_max });
    }
    let broken = |source| match meter.cancel.is_cancelled() {
        true => ArchiveError::Cancelled,
        false => ArchiveError::PaxBroken { entry: shown(raw), source },
    };
    let Some(records) = entry.pax_extensions().map_err(broken)? else { return Ok(()) };
    for record in records {
        let record = record.map_err(broken)?;
        if record.key_bytes() != b"comment" {
            return Err(ArchiveError::PaxRecord { entry: shown(raw), key: shown(record.key_bytes()) });
        }
    }
    Ok(())
}

fn meta(name: &EntryName, header: &tar::Header, mtime: Option<Timespec>) -> Result<Meta, ArchiveError> {
    let broken = |source| ArchiveError::Header { entry: name.shown(), source };
    let mode = header.mode().map_err(broken)?;
    let mtime = match mtime {
        Some(mtime) => mtime,
        None => {
            let secs = i64::try_from(header.mtime().map_err(broken)?).unwrap_or(i64::MAX);
            Timespec { tv_sec: secs, tv_nsec: 0 }
        }
    };
    Ok(Meta { mode, mtime })
}

/// A pax time: decimal seconds, perhaps negative, perhaps with a fraction that is cut to nanoseconds.
fn parse_time(text: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(text).ok()?;
    let (secs, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{:0<9.9}", fraction).parse().ok()?;
    let is_negative = secs.starts_with('-');
    let secs: i64 = secs.parse().ok()?;
    // A negative time with a fraction lies that much before its whole second.
    Some(match is_negative && nanos > 0 {
        true => Timespec { tv_sec: secs.checked_sub(1)?, tv_nsec: 1_000_000_000 - nanos },
        false => Timespec { tv_sec: secs, tv_nsec: nanos },
    })
}

fn kind_in_words(kind: EntryType) -> String {
    match kind {
        EntryType::Char => "a character device".to_owned(),
        EntryType::Block => "a block device".to_owned(),
        EntryType::Fifo => "a named pipe".to_owned(),
        EntryType::GNUSparse => "a sparse file".to_owned(),
        other => format!("of the type {}", shown(&[other.as_byte()])),
    }
}

/// Reads to the end of the file: what another program would read on, we want to have seen.
fn expect_only_zeros(mut rest: impl Read, meter: &Meter<'_>) -> io::Result<Result<(), ArchiveError>> {
    meter.allow(PADDING_BYTES_MAX);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match rest.read(&mut chunk) {
            Ok(0) => return Ok(Ok(())),
            Ok(read) if chunk[..read].iter().any(|byte| *byte != 0) => return Ok(Err(ArchiveError::Trailing)),
            Ok(_) => {}
            Err(_) if meter.cancel.is_cancelled() => return Ok(Err(ArchiveError::Cancelled)),
            Err(_) if meter.allowed.get() == 0 => return Ok(Err(ArchiveError::Trailing)),
            Err(error) => return Err(error),
        }
    }
}

/// How many bytes may be read next.
struct Meter<'a> {
    allowed: Cell<u64>,
    at_end: Cell<bool>,
    cancel: &'a Cancel,
}

impl Meter<'_> {
    fn allow(&self, bytes: u64) {
        self.allowed.set(bytes);
    }
}

/// Reads no more than its meter allows.
struct Metered<'a, R> {
    inner: R,
    meter: &'a Meter<'a>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.meter.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        if into.is_empty() {
            return Ok(0);
        }
        let allowed = self.meter.allowed.get();
        let want = usize::try_from(allowed).unwrap_or(usize::MAX).min(into.len());
        if want == 0 {
            return Err(io::Error::other("more bytes than allowed"));
        }
        let read = self.inner.read(&mut into[..want])?;
        self.meter.allowed.set(allowed - read as u64);
        self.meter.at_end.set(read == 0);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
