//! Entries held open: what is read, what it is, and what is given to another, all on one descriptor.
//!
//! A copy has everything that belongs to its source: content with its holes, owner, mode, times, extended attributes (ACLs
//! among them). A link is copied as a link and never followed. Where the file system shares blocks, a copy costs
//! nothing. What only root may set is left out when we are not root.
//!
//! Invariant: set-id bits and what else gives a program power stay only where the entry was ours, nobody else could write to
//! it, and nothing about it changed while it was read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SeekFrom;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::Uid;
use rustix::io::Errno;
use xattr::FileExt as _;

use crate::install::anchor::Anchor;
use crate::install::anchor::held_path;
use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;

/// How much is read at once.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Attributes by which the system's policy knows a file again; they confine, the others of their kind give power.
const LABELS: [&str; 2] = ["security.selinux", "security.SMACK64"];
const CAPABILITY: &str = "security.capability";

/// The extended attributes of an entry.
type Attributes = BTreeMap<OsString, Vec<u8>>;

/// Opens a file for reading without following a link, and without waiting for a pipe's other end.
pub(super) fn open_file(path: &Path) -> Result<File, InstallError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).at("open", path)
}

/// An entry that is held open.
#[derive(Debug)]
pub(super) struct Held {
    file: File,
    about: Metadata,
    /// Whether the descriptor is good for more than naming the entry.
    is_plain: bool,
}

impl Held {
    /// Opens what `about` says is at `path`: a file for reading, anything else but to look at.
    pub(super) fn open(path: &Path, about: &Metadata) -> Result<Self, InstallError> {
        let is_plain = about.is_file();
        let file = if is_plain {
            open_file(path)?
        } else {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            File::from(rustix::fs::openat(CWD, path, flags, Mode::empty()).at("open", path)?)
        };
        let now = file.metadata().at("look at", path)?;
        let plain = |about: &Metadata| (about.dev(), about.ino(), about.file_type());
        if plain(&now) != plain(about) {
            // Not what was looked at: somebody put another file, or a link to one, in its place.
            return Err(io::Error::other("another file took its place")).at("read", path);
        }
        Ok(Self { file, about: now, is_plain })
    }

    /// An entry that is only named by its descriptor.
    pub(super) fn of(file: File, about: Metadata) -> Self {
        Self { file, about, is_plain: false }
    }

    /// An entry we have just made.
    pub(super) fn made(file: File, is_plain: bool, path: &Path) -> Result<Self, InstallError> {
        let about = file.metadata().at("look at", path)?;
        Ok(Self { file, about, is_plain })
    }

    /// A directory.
    pub(super) fn dir(dir: &Anchor) -> Result<Self, InstallError> {
        let file = dir.file().try_clone().at("open", &dir.path())?;
        Ok(Self { file, about: dir.about()?, is_plain: true })
    }

    /// The same, with what was known of it earlier.
    pub(super) fn looked(mut self, about: &Metadata) -> Self {
        self.about = about.clone();
        self
    }

    /// What it was when it was opened.
    pub(super) fn about(&self) -> &Metadata {
        &self.about
    }

    /// What it is now.
    pub(super) fn now(&self, path: &Path) -> Result<Metadata, InstallError> {
        self.file.metadata().at("look at", path)
    }

    /// The file, if it is one that can be written or made durable.
    pub(super) fn into_file(self) -> Option<File> {
        self.is_plain.then_some(self.file)
    }

    /// Where a link leads.
    pub(super) fn target(&self, path: &Path) -> Result<OsString, InstallError> {
        let target = rustix::fs::readlinkat(&self.file, c"", Vec::new()).at("read the link", path)?;
        Ok(std::os::unix::ffi::OsStringExt::from_vec(target.into_bytes()))
    }

    /// Whether what runs with another's power may go on to do so in a copy: it was ours, and only we could have written what we read.
    pub(super) fn is_privileged(&self, path: &Path) -> Result<bool, InstallError> {
        let has_owner = self.about.uid() == rustix::process::geteuid().as_raw();
        if !has_owner || self.about.mode() & 0o022 != 0 {
            return Ok(false);
        }
        let now = self.now(path)?;
        Ok((now.ctime(), now.ctime_nsec()) == (self.about.ctime(), self.about.ctime_nsec()))
    }

    /// Copies the content into an empty file. Returns the bytes that were copied, 0 when they are shared.
    pub(super) fn copy_content(&self, from: &Path, target: &File, to: &Path) -> Result<u64, InstallError> {
        let (source, about) = (&self.file, &self.about);
        if rustix::fs::ioctl_ficlone(target, source).is_ok() {
            return Ok(0);
        }
        let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(about.size()).unwrap_or(CHUNK_BYTES).max(1))];
        let mut copied = 0;
        let mut at = 0;
        let mut written_to = 0;
        // What takes as much room as it has bytes has no holes to look for.
        let is_dense = about.blocks().saturating_mul(512) >= about.size();
        while at < about.size() {
            let data = if is_dense { Err(Errno::OPNOTSUPP) } else { rustix::fs::seek(source, SeekFrom::Data(at)) };
            let (begin, end) = match data {
                Ok(begin) => {
                    let end = rustix::fs::seek(source, SeekFrom::Hole(begin)).at("read", from)?;
                    (begin, end.min(about.size()))
                }
                // Nothing but a hole is left.
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP) => (at, about.size()),
                Err(error) => return Err(error).at("read", from),
            };
            at = begin;
            while at < end {
                let want = chunk.len().min(usize::try_from(end - at).unwrap_or(chunk.len()));
                let got = source.read_at(&mut chunk[..want], at).at("read", from)?;
                if got == 0 {
                    // It became shorter while we read: somebody works on it, and its times will say so.
                    at = about.size();
                    break;
                }
                target.write_all_at(&chunk[..got], at).at("write", to)?;
                at += got as u64;
                written_to = at;
                copied += got as u64;
            }
        }
        if written_to != about.size() {
            target.set_len(about.size()).at("write", to)?;
        }
        Ok(copied)
    }

    /// Gives what is held as `to` the owner, mode, extended attributes and times of this.
    pub(super) fn give_attributes(
        &self,
        from: &Path,
        to: &Self,
        path: &Path,
        privileged: bool,
    ) -> Result<(), InstallError> {
        // The owner first: that clears what only the owner may give.
        to.set_owner(path, self.about.uid(), self.about.gid())?;
        if !self.about.is_symlink() {
            to.set_mode(path, self.mode(privileged))?;
        }
        if let Some(wanted) = self.attributes(from, privileged)? {
            to.set_attributes(path, &wanted)?;
        }
        to.set_times(path, &self.about)
    }

    /// Gives a directory the attributes of this one unless it has them. Says whether it had to.
    pub(super) fn match_attributes(&self, from: &Path, to: &Self, path: &Path) -> Result<bool, InstallError> {
        let has = to.now(path)?;
        let plain = |about: &Metadata| (about.uid(), about.gid(), about.mode(), about.mtime(), about.mtime_nsec());
        let privileged = self.is_privileged(from)?;
        if plain(&self.about) == plain(&has) && self.attributes(from, privileged)? == to.attributes(path, true)? {
            return Ok(false);
        }
        self.give_attributes(from, to, path, privileged)?;
        Ok(true)
    }

    /// The mode that a copy gets. What the bit means for a directory is no power.
    fn mode(&self, privileged: bool) -> u32 {
        let mode = self.about.mode() & 0o7777;
        if privileged || self.about.is_dir() { mode } else { mode & !0o6000 }
    }

    /// Changes the owner. Clears set-user-id bits, as the system does.
    pub(super) fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> Result<(), InstallError> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match rustix::fs::chownat(&self.file, c"", uid, gid, AtFlags::EMPTY_PATH) {
            Err(Errno::PERM) if !is_root() => Ok(()),
            done => done.at("set the owner of", path),
        }
    }

    /// Sets the mode.
    pub(super) fn set_mode(&self, path: &Path, mode: u32) -> Result<(), InstallError> {
        let mode = fs::Permissions::from_mode(mode & 0o7777);
        if self.is_plain {
            return self.file.set_permissions(mode).at("set the mode of", path);
        }
        // A descriptor that was opened for nothing but its path takes no mode itself.
        fs::set_permissions(held_path(&self.file), mode).at("set the mode of", path)
    }

    /// Sets the times of access and change to those of `about`.
    fn set_times(&self, path: &Path, about: &Metadata) -> Result<(), InstallError> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: about.atime(), tv_nsec: about.atime_nsec() as _ },
            last_modification: Timespec { tv_sec: about.mtime(), tv_nsec: about.mtime_nsec() as _ },
        };
        let set = if self.is_plain {
            rustix::fs::futimens(&self.file, &times)
        } else {
            rustix::fs::utimensat(CWD, held_path(&self.file), &times, AtFlags::empty())
        };
        set.at("set the times of", path)
    }

    /// The extended attributes that a copy gets; nothing where there are no such things.
    fn attributes(&self, path: &Path, privileged: bool) -> Result<Option<Attributes>, InstallError> {
        let Some(names) = self.attribute_names(path)? else { return Ok(None) };
        let mut found = Attributes::new();
        for name in names.into_iter().filter(|name| privileged || !gives_power(name)) {
            if let Some(value) = self.attribute(&name).at("read an extended attribute of", path)? {
                found.insert(name, value);
            }
        }
        Ok(Some(found))
    }

    fn attribute_names(&self, path: &Path) -> Result<Option<Vec<OsString>>, InstallError> {
        let listed = if self.is_plain { self.file.list_xattr() } else { xattr::list_deref(held_path(&self.file)) };
        match listed {
            Ok(names) => Ok(Some(names.collect())),
            Err(error) if may_ignore(&error) => Ok(None),
            Err(error) => Err(error).at("list the extended attributes of", path),
        }
    }

    fn attribute(&self, name: &OsString) -> io::Result<Option<Vec<u8>>> {
        if self.is_plain { self.file.get_xattr(name) } else { xattr::get_deref(held_path(&self.file), name) }
    }

    fn set_attribute(&self, name: &OsString, value: &[u8]) -> io::Result<()> {
        if self.is_plain {
            self.file.set_xattr(name, value)
        } else {
            xattr::set_deref(held_path(&self.file), name, value)
        }
    }

    fn remove_attribute(&self, name: &OsString) -> io::Result<()> {
        if self.is_plain { self.file.remove_xattr(name) } else { xattr::remove_deref(held_path(&self.file), name) }
    }

    /// Makes the extended attributes `wanted`, no more and no less.
    fn set_attributes(&self, path: &Path, wanted: &Attributes) -> Result<(), InstallError> {
        let present = self.attribute_names(path)?.unwrap_or_default();
        for name in present.iter().filter(|name| !wanted.contains_key(*name)) {
            match self.remove_attribute(name) {
                Err(error) if !may_ignore(&error) => return Err(error).at("remove an extended attribute of", path),
                _ => {}
            }
        }
        for (name, value) in wanted {
            match self.set_attribute(name, value) {
                Err(error) if may_ignore(&error) => {
                    tracing::warn!(path = %path.display(), attribute = %name.display(), "extended attribute cannot be kept");
                }
                set => set.at("set an extended attribute of", path)?,
            }
        }
        Ok(())
    }

    /// Makes the extended attributes those of `from`.
    pub(super) fn take_attributes(&self, path: &Path, from: &Self, of: &Path) -> Result<(), InstallError> {
        match from.attributes(of, from.is_privileged(of)?)? {
            Some(wanted) => self.set_attributes(path, &wanted),
            None => Ok(()),
        }
    }

    /// Gives one entry of a new tree its owner; mode and capabilities stay as they are, where they were ours to give.
    pub(super) fn give_to(&self, path: &Path, uid: u32, gid: u32) -> Result<(), InstallError> {
        if (self.about.uid(), self.about.gid()) == (uid, gid) {
            return Ok(());
        }
        let privileged = self.about.is_file() && self.is_privileged(path)?;
        let name = OsString::from(CAPABILITY);
        let capability = if privileged { self.attribute(&name).ok().flatten() } else { None };
        self.set_owner(path, uid, gid)?;
        if privileged && self.about.mode() & 0o6000 != 0 {
            self.set_mode(path, self.about.mode())?;
        }
        if let Some(capability) = capability {
            match self.set_attribute(&name, &capability) {
                Err(error) if may_ignore(&error) => {}
                set => set.at("set the capabilities of", path)?,
            }
        }
        Ok(())
    }
}

/// Whether an extended attribute lets a program do what its user may not.
fn gives_power(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(b"security.") && !LABELS.iter().any(|label| name == label)
}

/// The kind of an entry that is neither a file nor a directory nor a link.
pub(super) fn special(kind: fs::FileType) -> FileType {
    if kind.is_fifo() {
        FileType::Fifo
    } else if kind.is_block_device() {
        FileType::BlockDevice
    } else if kind.is_char_device() {
        FileType::CharacterDevice
    } else {
        FileType::Socket
    }
}

/// Whether we may do what only root may.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The file system has no such attributes, or only root may set them.
fn may_ignore(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || (error.kind() == io::ErrorKind::PermissionDenied && !is_root())
}

/// Whether two entries have the same kind and content; links are compared as links.
pub(super) fn same_content(a: &Path, b: &Path) -> Result<bool, InstallError> {
    let about_a = fs::symlink_metadata(a).at("look at", a)?;
    let about_b = fs::symlink_metadata(b).at("look at", b)?;
    if about_a.file_type() != about_b.file_type() {
        return Ok(false);
    }
    if about_a.file_type().is_symlink() {
        return Ok(fs::read_link(a).at("read the link", a)? == fs::read_link(b).at("read the link", b)?);
    }
    if !about_a.is_file() {
        return Ok(true);
    }
    if about_a.size() != about_b.size() {
        return Ok(false);
    }
    let (file_a, file_b) = (Held::open(a, &about_a)?.file, Held::open(b, &about_b)?.file);
    let (mut chunk_a, mut chunk_b) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut at = 0;
    loop {
        let got = file_a.read_at(&mut chunk_a, at).at("read", a)?;
        if got == 0 {
            return Ok(true);
        }
        match file_b.read_exact_at(&mut chunk_b[..got], at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read.at("read", b)?,
        }
        if chunk_a[..got] != chunk_b[..got] {
            return Ok(false);
        }
        at += got as u64;
    }
}

/// The names in a directory, sorted; nothing when it is gone.
pub(super) fn names(dir: &Path) -> Result<Vec<std::ffi::OsString>, InstallError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if durable::is_absent(&error) => return Ok(Vec::new()),
        entries => entries.at("list", dir)?,
    };
    let mut names =
        entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>().at("list", dir)?;
    names.sort();
    Ok(names)
}

/// What is known of an entry, if there is one; a link is not followed.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>, InstallError> {
    match fs::symlink_metadata(path) {
        Ok(about) => Ok(Some(about)),
        Err(error) if durable::is_absent(&error) => Ok(None),
        Err(error) => Err(error).at("look at", path),
    }
}
