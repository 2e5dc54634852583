//! What each file looked like when it was copied, so that a second pass and a restore need not read it again.
//!
//! A file counts as unchanged when inode, size and the times of content and of attributes are the
//! same **and** they were old enough when they were noted: a change within one tick of the clock
//! leaves no trace in the times, and neither does a write through a mapping of a page that is dirty already.
//! So before a pass the file system is asked for its time and synced, and everything that changed since then is not trusted.
//!
//! Text, one line a file, paths escaped because they need not be UTF-8; `owner UID GID` where all belong to one; the last
//! line is `end COUNT`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FsWord;

use crate::files::identity::Identity;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::tree;

/// How much before a pass times must lie to be trusted, beyond what the order of events already gives.
const MARGIN_NANOS: i128 = 100_000_000;
/// The same where the copy is on another file system, which may keep finer times than that of the data.
const MARGIN_ELSEWHERE_NANOS: i128 = 2_100_000_000;

/// What a file looked like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    modified: i128,
    changed: i128,
    trusted: bool,
}

/// From when on times are not to be trusted; nothing where no times are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trust {
    before: Option<i128>,
    /// Only on this file system; others may be mounted below.
    dev: u64,
}

impl Trust {
    /// No times are trusted.
    pub(super) const NONE: Self = Self { before: None, dev: 0 };

    /// Asks a file system for its time, with a file in `probe_dir`, **then** syncs that of `data`: a mapped page that is
    /// written to after the sync and was clean leaves its trace, and one that was dirty was written to before it was asked.
    /// Without anybody at work there are no such mappings, and a new one always leaves its trace; then nothing is synced.
    pub(super) fn begin(data: &Path, probe_dir: &Path, live: bool) -> Result<Self, InstallError> {
        let Ok(file) = tree::open_file(data) else { return Ok(Self::NONE) };
        if !keeps_times(&file) {
            return Ok(Self::NONE);
        }
        let probe = tempfile::tempfile_in(probe_dir).at("create a file in", probe_dir)?;
        let about = probe.metadata().at("look at a file in", probe_dir)?;
        let dev = file.metadata().at("look at", data)?.dev();
        let same = dev == about.dev();
        let margin = if same { MARGIN_NANOS } else { MARGIN_ELSEWHERE_NANOS };
        if live {
            rustix::fs::syncfs(&file).at("sync the file system of", data)?;
        }
        Ok(Self { before: Some(nanos(about.ctime(), about.ctime_nsec()) - margin), dev })
    }

    /// Notes what a file looks like.
    pub(super) fn stamp(self, about: &Metadata) -> Stamp {
        let (modified, changed) = (nanos(about.mtime(), about.mtime_nsec()), nanos(about.ctime(), about.ctime_nsec()));
        let trusted = self.dev == about.dev() && self.before.is_some_and(|before| changed < before);
        Stamp { dev: about.dev(), ino: about.ino(), size: about.size(), modified, changed, trusted }
    }
}

/// Whether every change of a file shows in its times: not where writes through mappings do not, nor where another machine writes.
fn keeps_times(file: &File) -> bool {
    const TMPFS: FsWord = 0x0102_1994;
    const RAMFS: FsWord = 0x8584_58f6;
    const NFS: FsWord = 0x6969;
    const FUSE: FsWord = 0x6573_5546;
    const CIFS: FsWord = 0xff53_4d42;
    const SMB2: FsWord = 0xfe53_4d42;
    const V9FS: FsWord = 0x0102_1997;
    const CEPH: FsWord = 0x00c3_6400;
    rustix::fs::fstatfs(file)
        .is_ok_and(|about| ![TMPFS, RAMFS, NFS, FUSE, CIFS, SMB2, V9FS, CEPH].contains(&about.f_type))
}

fn nanos(secs: i64, nanos: i64) -> i128 {
    i128::from(secs) * 1_000_000_000 + i128::from(nanos)
}

impl Stamp {
    /// Whether a file still looks as noted.
    pub(super) fn still(&self, about: &Metadata) -> bool {
        let now = Trust::NONE.stamp(about);
        self.trusted && Self { trusted: false, ..*self } == now
    }
}

/// Whose the entries of a tree are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Whose {
    /// There are none yet.
    #[default]
    Nobodys,
    /// All have this owner, who may do with them what a restore needs.
    Ones(Identity),
    /// Anything else.
    Several,
}

impl Whose {
    fn and(self, about: &Metadata) -> Self {
        let kind = about.file_type();
        let needed = match () {
            () if kind.is_symlink() => 0,
            () if kind.is_dir() => 0o700,
            () => 0o400,
        };
        let is_open = kind.is_symlink() || about.mode() & needed == needed;
        let is_plain = kind.is_dir() || (about.mode() & 0o6000 == 0 && about.rdev() == 0);
        let one = Identity { uid: about.uid(), gid: about.gid() };
        match self {
            Self::Nobodys if is_open && is_plain => Self::Ones(one),
            Self::Ones(other) if is_open && is_plain && other == one => self,
            _ => Self::Several,
        }
    }
}

/// What the files of one data path looked like.
#[derive(Debug, Default)]
pub(super) struct Index {
    stamps: HashMap<PathBuf, Stamp>,
    whose: Whose,
}

impl Index {
    pub(super) fn get(&self, path: &Path) -> Option<&Stamp> {
        self.stamps.get(path)
    }

    pub(super) fn insert(&mut self, path: PathBuf, stamp: Stamp) {
        self.stamps.insert(path, stamp);
    }

    /// Notes an entry of any kind for [`owner`](Self::owner).
    pub(super) fn see(&mut self, about: &Metadata) {
        self.whose = self.whose.and(about);
    }

    /// To whom all entries belong, where it is one and with no more than their rights everything could be put back.
    pub(super) fn owner(&self) -> Option<Identity> {
        match self.whose {
            Whose::Ones(owner) => Some(owner),
            Whose::Nobodys | Whose::Several => None,
        }
    }

    /// Reads an index; nothing when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, InstallError> {
        let file = match File::open(path) {
            Err(error) if durable::is_absent(&error) => return Ok(None),
            file => file.at("open", path)?,
        };
        let mut index = Self::default();
        for line in BufReader::new(file).lines() {
            let line = line.at("read", path)?;
            match line.split_once(' ') {
                Some(("end", count)) => return Ok((count.parse() == Ok(index.stamps.len())).then_some(index)),
                Some(("owner", owner)) => match parse_owner(owner) {
                    Some(owner) => index.whose = Whose::Ones(owner),
                    None => return Ok(None),
                },
                _ => match parse(&line) {
                    Some((path, stamp)) => index.insert(path, stamp),
                    None => return Ok(None),
                },
            }
        }
        // Without its last line it is not whole, and as good as none.
        Ok(None)
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<(), InstallError> {
        let temporary = path.with_extension("tmp");
        durable::remove_file(&temporary)?;
        let write = || -> io::Result<()> {
            let mut file = BufWriter::new(File::create_new(&temporary)?);
            for (path, stamp) in &self.stamps {
                let Stamp { dev, ino, size, modified, changed, trusted } = stamp;
                let trusted = u8::from(*trusted);
                writeln!(file, "{dev} {ino} {size} {modified} {changed} {trusted} {}", escape(path))?;
            }
            if let Some(Identity { uid, gid }) = self.owner() {
                writeln!(file, "owner {uid} {gid}")?;
            }
            writeln!(file, "end {}", self.stamps.len())?;
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
        };
        write().at("write", &temporary)?;
        // If a power cut brings the older one back, that is as good: it knows less, and nothing wrong.
        fs::rename(&temporary, path).at("rename", &temporary)
    }
}

fn parse_owner(text: &str) -> Option<Identity> {
    let (uid, gid) = text.split_once(' ')?;
    Some(Identity { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
}

fn parse(line: &str) -> Option<(PathBuf, Stamp)> {
    let mut fields = line.splitn(7, ' ');
    let stamp = Stamp {
        dev: fields.next()?.parse().ok()?,
        ino: fields.next()?.parse().ok()?,
        size: fields.next()?.parse().ok()?,
        modified: fields.next()?.parse().ok()?,
        changed: fields.next()?.parse().ok()?,
        trusted: fields.next()? == "1",
    };
    Some((unescape(fields.next()?)?, stamp))
}

fn escape(path: &Path) -> String {
    let mut text = String::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

fn unescape(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_torn() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        assert!(Index::read(&file).unwrap().is_none());
        let name = PathBuf::from(OsString::from_vec(b"a b%\n\xff/\xc3\xa4".to_vec()));
        let stamp = Stamp { dev: 1, ino: 2, size: 3, modified: -4, changed: 5, trusted: true };
        let mut index = Index::default();
        index.insert(name.clone(), stamp);
        index.write(&file).unwrap();
        let read = Index::read(&file).unwrap().unwrap();
        assert_eq!((read.get(&name), read.owner()), (Some(&stamp), None));
        index.whose = Whose::Ones(Identity { uid: 12, gid: 34 });
        index.write(&file).unwrap();
        assert_eq!(Index::read(&file).unwrap().unwrap().owner(), index.owner());
        let text = fs::read(&file).unwrap();
        fs::write(&file, &text[..text.len() - 6]).unwrap();
        assert!(Index::read(&file).unwrap().is_none());
    }

    #[test]
    fn what_changed_a_moment_ago_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        fs::write(&file, "1").unwrap();
        let about = fs::metadata(&file).unwrap();
        assert!(!Trust::begin(dir.path(), dir.path(), true).unwrap().stamp(&about).still(&about));
        let later = Trust { before: Some(i128::MAX), dev: about.dev() }.stamp(&about);
        assert!(!Trust { before: Some(i128::MAX), dev: about.dev() + 1 }.stamp(&about).still(&about));
        assert!(later.still(&about));
        fs::write(&file, "22").unwrap();
        assert!(!later.still(&fs::metadata(&file).unwrap()));
    }
}
