//! What is known of a staged tree. It stands beside the tree, in a folder of ours.
//!
//! ```text
//! staged/2.0+20/          the tree: the vendor's, and one day the application's
//! staged/2.0+20.state/    ours: release.json (which release, which directory), files (what is in it),
//!                         and whatever else must be known of the tree
//! ```
//!
//! A tree that was in place was the application's: what lies inside it is that user's word. So nothing inside says what a
//! tree is. The record names the directory by its number and its birth, and follows it through every rename: the
//! tree in place is the release whose record names it.
//!
//! Invariant: a tree that is [`spoil`]t is never taken for its release again.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::StatxFlags;
use rustix::io::Errno;
use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;
use walkdir::WalkDir;

use crate::domain::hex::hex;
use crate::domain::release::Marker;
use crate::files::small::read_small;

/// No record is longer.
const RECORD_BYTES_MAX: u64 = 1024 * 1024;
/// How much of a file is hashed at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Which directory it is, whatever it is called. The device is left out: its number changes when the machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    inode: u64,
    /// When it was made, in seconds and nanoseconds, where the file system knows. Nobody can set that.
    born: Option<(i64, u32)>,
}

impl Identity {
    /// That of the directory `path`; nothing where there is none, or something else.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let about = match rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted) {
            Ok(about) => about,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(u32::from(about.stx_mode)) != FileType::Directory {
            return Ok(None);
        }
        let is_known = StatxFlags::from_bits_retain(about.stx_mask).contains(StatxFlags::BTIME);
        let born = is_known.then_some((about.stx_btime.tv_sec, about.stx_btime.tv_nsec));
        Ok(Some(Self { inode: about.stx_ino, born }))
    }
}

/// What is recorded of a staged tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Which release it is, and from which archives.
    pub marker: Marker,
    /// Which directory it is.
    pub root: Identity,
}

/// One entry of a tree as it was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where in the tree.
    pub path: PathBuf,
    /// Its mode; 0 for a link.
    pub mode: u32,
    /// What it is.
    pub kind: Kind,
}

/// What an entry of a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A file.
    File {
        /// How long it is.
        bytes: u64,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: PathBuf,
    },
}

/// Where what is known of `tree` stands.
pub fn state_dir(tree: &Path) -> PathBuf {
    let mut name = tree.file_name().unwrap_or_default().to_owned();
    name.push(".state");
    tree.with_file_name(name)
}

/// The list of what is in `tree`.
fn files(tree: &Path) -> PathBuf {
    state_dir(tree).join("files")
}

/// The tree that a name in a folder of staged trees keeps the state of, which may be elsewhere by now.
pub fn tree_of_state(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.as_bytes().strip_suffix(b".state")?;
    Some(path.with_file_name(std::ffi::OsStr::from_bytes(name)))
}

/// Whether a name in a folder of staged trees is that of a tree.
pub fn is_tree(name: &std::ffi::OsStr) -> bool {
    !name.as_bytes().ends_with(b".state") && !name.as_bytes().ends_with(b".partial")
}

/// Records that the tree, which stands at `now` and will be called `tree`, is the release of `marker` to the byte.
/// Durable with its file system.
///
/// # Errors
/// It cannot be read, or the record cannot be written.
pub fn seal(now: &Path, tree: &Path, marker: &Marker) -> io::Result<()> {
    let state = state_dir(tree);
    match std::fs::remove_dir_all(&state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    DirBuilder::new().mode(0o700).create(&state)?;
    let mut list = BufWriter::new(File::create_new(files(tree))?);
    lines(now, |line| writeln!(list, "{line}"))?;
    list.into_inner().map_err(io::IntoInnerError::into_error)?;
    let root = Identity::of(now)?.ok_or(io::ErrorKind::NotADirectory)?;
    let text = serde_json::json!(Sealed { marker: marker.clone(), root }).to_string();
    std::fs::write(state.join("release.json"), text)
}

/// What is recorded of `tree`; nothing where nothing is. It says something about the directory that stands there
/// only where the identity is the same.
///
/// # Errors
/// The record cannot be read or understood.
pub fn sealed(tree: &Path) -> io::Result<Option<Sealed>> {
    let Some(text) = read_small(&state_dir(tree).join("release.json"), RECORD_BYTES_MAX)? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&text)?))
}

/// Lets `tree` not be taken for its release any more: it is about to have been in place, or is not as it was staged.
///
/// # Errors
/// That cannot be written down.
pub fn spoil(tree: &Path) -> io::Result<()> {
    let state = state_dir(tree);
    File::create(state.join("spoilt"))?;
    File::open(&state)?.sync_all()
}

/// Whether `tree` was [`spoil`]t.
///
/// # Errors
/// It cannot be looked at.
pub fn is_spoilt(tree: &Path) -> io::Result<bool> {
    state_dir(tree).join("spoilt").try_exists()
}

/// What at `now` is not as `tree` was when it was sealed: changed, missing, or new; nothing where all is.
///
/// # Errors
/// It cannot be read.
pub fn difference(now: &Path, tree: &Path) -> io::Result<Option<PathBuf>> {
    let text = std::fs::read_to_string(files(tree))?;
    let mut known = text.lines();
    let mut differs = None;
    lines(now, |line| {
        if differs.is_none() && known.next() != Some(line) {
            differs = Some(name_in(line));
        }
        Ok(())
    })?;
    Ok(differs.or_else(|| known.next().map(name_in)))
}

/// The first of `paths` at `now` that is not as `tree` was when it was sealed; nothing where all are. Other entries are not
/// looked at.
///
/// # Errors
/// It cannot be read.
pub fn first_altered(now: &Path, tree: &Path, paths: &[PathBuf]) -> io::Result<Option<PathBuf>> {
    if paths.is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(files(tree))?;
    let known: HashSet<&str> = text.lines().collect();
    for path in paths {
        match line_of(now, &now.join(path)) {
            Ok(line) if known.contains(line.as_str()) => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(Some(path.clone())),
        }
    }
    Ok(None)
}

/// What `tree` held when it was sealed, directories before their content.
///
/// # Errors
/// The record cannot be read or understood.
pub fn entries(tree: &Path) -> io::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(files(tree))?;
    text.lines().map(|line| entry(line).ok_or_else(|| io::ErrorKind::InvalidData.into())).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split('\t');
    let mut field = || fields.next();
    let (letter, mode, size, content, path) = (field()?, field()?, field()?, field()?, field()?);
    let kind = match letter {
        "d" => Kind::Dir,
        "f" => Kind::File { bytes: size.parse().ok()? },
        "l" => Kind::Link { target: unescaped(content)? },
        _ => return None,
    };
    Some(Entry { path: unescaped(path)?, mode: u32::from_str_radix(mode, 8).ok()?, kind })
}

/// Undoes [`escape_ascii`](slice::escape_ascii).
fn unescaped(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                itself => itself,
            },
            plain => plain,
        });
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// The path at the end of a line, as people read it.
fn name_in(line: &str) -> PathBuf {
    PathBuf::from(line.rsplit('\t').next().unwrap_or_default())
}

/// One line for each entry below `root`: kind, mode, size, hash or target, and path.
fn lines(root: &Path, mut line: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
    for entry in WalkDir::new(root).min_depth(1).sort_by_file_name() {
        line(&line_of(root, entry.map_err(io::Error::from)?.path())?)?;
    }
    Ok(())
}

/// That of the entry `at` below `root`.
fn line_of(root: &Path, at: &Path) -> io::Result<String> {
    let about = at.symlink_metadata()?;
    let kind = about.file_type();
    let (letter, mode, size, content) = if kind.is_dir() {
        ('d', about.mode() & 0o7777, 0, String::new())
    } else if kind.is_symlink() {
        ('l', 0, 0, std::fs::read_link(at)?.as_os_str().as_bytes().escape_ascii().to_string())
    } else if kind.is_file() {
        ('f', about.mode() & 0o7777, about.len(), sha256(File::open(at)?)?)
    } else {
        ('?', about.mode(), about.rdev(), String::new())
    };
    let path = at.strip_prefix(root).unwrap_or(at).as_os_str().as_bytes().escape_ascii();
    Ok(format!("{letter}\t{mode:o}\t{size}\t{content}\t{path}"))
}

fn sha256(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(hex(hash.finalize()));
        }
        hash.update(&piece[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> (tempfile::TempDir, PathBuf, Marker) {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("2.0+20");
        fs_err::create_dir_all(tree.join("bin")).unwrap();
        fs_err::write(tree.join("bin/desk"), "one").unwrap();
        std::os::unix::fs::symlink("desk", tree.join("bin/link")).unwrap();
        let marker = Marker::from_text("{\"version\":\"2.0\",\"build\":20}").unwrap();
        seal(&tree, &tree, &marker).unwrap();
        (dir, tree, marker)
    }

    #[test]
    fn a_record_follows_its_directory_and_no_other() {
        let (dir, tree, marker) = scene();
        let record = sealed(&tree).unwrap().unwrap();
        assert_eq!((&record.marker, Some(record.root)), (&marker, Identity::of(&tree).unwrap()));
        let away = dir.path().join("away");
        fs_err::rename(&tree, &away).unwrap();
        assert_eq!(Identity::of(&away).unwrap(), Some(record.root));
        fs_err::create_dir(&tree).unwrap();
        assert_ne!(Identity::of(&tree).unwrap(), Some(record.root));
        assert!(!is_spoilt(&tree).unwrap());
        spoil(&tree).unwrap();
        assert!(is_spoilt(&tree).unwrap());
    }

    type Change = fn(&Path);

    #[test]
    fn whatever_is_changed_is_found() {
        let changes: [(&str, &str, Change); 5] = [
            ("bin/desk", "content", |tree| fs_err::write(tree.join("bin/desk"), "two").unwrap()),
            ("bin/link", "target", |tree| {
                fs_err::remove_file(tree.join("bin/link")).unwrap();
                std::os::unix::fs::symlink("/etc", tree.join("bin/link")).unwrap();
            }),
            ("bin/more", "new", |tree| fs_err::write(tree.join("bin/more"), "").unwrap()),
            ("bin/link", "missing", |tree| fs_err::remove_file(tree.join("bin/link")).unwrap()),
            ("bin", "mode", |tree| {
                use std::os::unix::fs::PermissionsExt;
                fs_err::set_permissions(tree.join("bin"), std::fs::Permissions::from_mode(0o777)).unwrap();
            }),
        ];
        for (path, what, change) in changes {
            let (_dir, tree, _) = scene();
            assert_eq!(difference(&tree, &tree).unwrap(), None);
            change(&tree);
            assert_eq!(difference(&tree, &tree).unwrap(), Some(PathBuf::from(path)), "{what}");
        }
    }

    #[test]
    fn every_name_can_be_told_from_the_record() {
        let (_dir, tree, marker) = scene();
        let name = std::ffi::OsString::from_vec(b"a\tb\\x41'\"\n\xff".to_vec());
        std::os::unix::fs::symlink(&name, tree.join(&name)).unwrap();
        seal(&tree, &tree, &marker).unwrap();
        let entries = entries(&tree).unwrap();
        let told: Vec<_> = entries.iter().map(|entry| entry.path.clone()).collect();
        assert_eq!(told, [PathBuf::from(&name), "bin".into(), "bin/desk".into(), "bin/link".into()]);
        assert_eq!(entries[0].kind, Kind::Link { target: name.into() });
        assert_eq!(entries[2].kind, Kind::File { bytes: 3 });
    }
}
