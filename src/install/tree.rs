//! Copies one entry with everything that belongs to it: content with its holes, owner, mode,
//! times, extended attributes (ACLs and capabilities among them).
//!
//! A link is copied as a link and never followed. Where the file system shares blocks, a copy costs
//! nothing. What only root may set is left out when we are not root.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs;
use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::lchown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SeekFrom;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::io::Errno;

use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;

/// How much is read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Hard links seen so far: device and inode of the source, and the first copy.
pub(super) type Links = HashMap<(u64, u64), PathBuf>;

/// Copies anything but a directory. Whatever stands at `to` is removed first. Returns the bytes that were copied, 0 when they are shared.
/// `name` is a path of the copy that stays good for later links.
pub(super) fn copy_entry(
    from: &Path,
    about: &Metadata,
    to: &Path,
    name: &Path,
    links: &mut Links,
) -> Result<u64, InstallError> {
    durable::remove_any(to)?;
    if about.nlink() > 1 {
        if let Some(first) = links.get(&(about.dev(), about.ino())) {
            fs::hard_link(first, to).at("link", to)?;
            return Ok(0);
        }
        links.insert((about.dev(), about.ino()), name.to_owned());
    }
    let kind = about.file_type();
    let mut bytes = 0;
    if kind.is_file() {
        bytes = copy_content(from, about, to)?;
    } else if kind.is_symlink() {
        let target = fs::read_link(from).at("read the link", from)?;
        symlink(target, to).at("create the link", to)?;
    } else {
        let kind = if kind.is_fifo() {
            FileType::Fifo
        } else if kind.is_block_device() {
            FileType::BlockDevice
        } else if kind.is_char_device() {
            FileType::CharacterDevice
        } else {
            FileType::Socket
        };
        rustix::fs::mknodat(CWD, to, kind, Mode::from_raw_mode(0o600), about.rdev()).at("create", to)?;
    }
    copy_attributes(from, about, to)?;
    Ok(bytes)
}

/// Makes a directory at `to` if there is none, and says so; other things in its place are removed. Attributes follow
/// when its content is there.
pub(super) fn make_dir(to: &Path) -> Result<bool, InstallError> {
    match fs::symlink_metadata(to) {
        Ok(about) if about.is_dir() => return Ok(false),
        Ok(_) => durable::remove_any(to)?,
        Err(_) => {}
    }
    fs::DirBuilder::new().mode(0o700).create(to).at("create", to)?;
    Ok(true)
}

/// Opens a file for reading without following a link, and without waiting for a pipe's other end.
pub(super) fn open_file(path: &Path) -> Result<File, InstallError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).at("open", path)
}

fn copy_content(from: &Path, about: &Metadata, to: &Path) -> Result<u64, InstallError> {
    let source = open_file(from)?;
    let opened = source.metadata().at("look at", from)?;
    if (opened.dev(), opened.ino()) != (about.dev(), about.ino()) {
        // Not what was looked at: somebody put another file, or a link to one, in its place.
        return Err(io::Error::other("another file took its place")).at("read", from);
    }
    let target = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).at("create", to)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(0);
    }
    let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(about.size()).unwrap_or(CHUNK_BYTES).max(1))];
    let mut copied = 0;
    let mut at = 0;
    while at < about.size() {
        let (begin, end) = match rustix::fs::seek(&source, SeekFrom::Data(at)) {
            Ok(begin) => {
                let end = rustix::fs::seek(&source, SeekFrom::Hole(begin)).at("read", from)?;
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
            copied += got as u64;
        }
    }
    target.set_len(about.size()).at("write", to)?;
    Ok(copied)
}

/// Gives `to` the owner, mode, extended attributes and times of `from`.
pub(super) fn copy_attributes(from: &Path, about: &Metadata, to: &Path) -> Result<(), InstallError> {
    chown(to, about.uid(), about.gid())?;
    if !about.file_type().is_symlink() {
        set_mode(to, about.mode())?;
    }
    copy_xattrs(from, to)?;
    set_times(to, about)
}

/// Gives a directory the attributes of another unless it has them. Says whether it had to.
pub(super) fn match_attributes(from: &Path, about: &Metadata, to: &Path) -> Result<bool, InstallError> {
    let has = fs::symlink_metadata(to).at("look at", to)?;
    let plain = |about: &Metadata| (about.uid(), about.gid(), about.mode(), about.mtime(), about.mtime_nsec());
    if plain(about) == plain(&has) && xattrs(from)? == xattrs(to)? {
        return Ok(false);
    }
    copy_attributes(from, about, to)?;
    Ok(true)
}

fn xattrs(path: &Path) -> Result<BTreeMap<std::ffi::OsString, Option<Vec<u8>>>, InstallError> {
    let names = list_xattrs(path)?.unwrap_or_default();
    let value = |name: std::ffi::OsString| {
        let value = xattr::get(path, &name).at("read an extended attribute of", path)?;
        Ok((name, value))
    };
    names.into_iter().map(value).collect()
}

/// Sets the mode of an entry, never of what a link in its place points to.
fn set_mode(path: &Path, mode: u32) -> Result<(), InstallError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat(CWD, path, flags, Mode::empty()).at("open", path)?;
    let about = rustix::fs::fstat(&held).at("look at", path)?;
    if FileType::from_raw_mode(about.st_mode) == FileType::Symlink {
        return Err(io::Error::from(Errno::LOOP)).at("set the mode of", path);
    }
    // A descriptor that was opened for nothing but its path takes no mode itself.
    let name = format!("/proc/self/fd/{}", held.as_raw_fd());
    fs::set_permissions(name, fs::Permissions::from_mode(mode & 0o7777)).at("set the mode of", path)
}

/// Changes the owner of an entry, not of what a link points to. Clears set-user-id bits, as the system does.
pub(super) fn chown(path: &Path, uid: u32, gid: u32) -> Result<(), InstallError> {
    match lchown(path, Some(uid), Some(gid)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_root() => Ok(()),
        done => done.at("set the owner of", path),
    }
}

/// Whether we may do what only root may.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes the extended attributes of `to` those of `from`.
pub(super) fn copy_xattrs(from: &Path, to: &Path) -> Result<(), InstallError> {
    let Some(wanted) = list_xattrs(from)? else { return Ok(()) };
    let present = list_xattrs(to)?.unwrap_or_default();
    for name in present.iter().filter(|name| !wanted.contains(name)) {
        match xattr::remove(to, name) {
            Err(error) if !may_ignore(&error) => return Err(error).at("remove an extended attribute of", to),
            _ => {}
        }
    }
    for name in wanted {
        let Some(value) = xattr::get(from, &name).at("read an extended attribute of", from)? else { continue };
        match xattr::set(to, &name, &value) {
            Err(error) if may_ignore(&error) => {
                tracing::warn!(path = %to.display(), attribute = %name.display(), "extended attribute cannot be kept");
            }
            set => set.at("set an extended attribute of", to)?,
        }
    }
    Ok(())
}

fn list_xattrs(path: &Path) -> Result<Option<Vec<std::ffi::OsString>>, InstallError> {
    match xattr::list(path) {
        Ok(names) => Ok(Some(names.collect())),
        Err(error) if may_ignore(&error) => Ok(None),
        Err(error) => Err(error).at("list the extended attributes of", path),
    }
}

/// The file system has no such attributes, or only root may set them.
fn may_ignore(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || (error.kind() == io::ErrorKind::PermissionDenied && !is_root())
}

/// Sets the times of access and change to those of `about`.
pub(super) fn set_times(path: &Path, about: &Metadata) -> Result<(), InstallError> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: about.atime(), tv_nsec: about.atime_nsec() as _ },
        last_modification: Timespec { tv_sec: about.mtime(), tv_nsec: about.mtime_nsec() as _ },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).at("set the times of", path)
}

/// Gives one entry of a new tree its owner; mode and capabilities stay as they are.
pub(super) fn give_to(path: &Path, about: &Metadata, uid: u32, gid: u32) -> Result<(), InstallError> {
    const CAPABILITY: &str = "security.capability";
    if (about.uid(), about.gid()) == (uid, gid) {
        return Ok(());
    }
    let capability = if about.is_file() { xattr::get(path, CAPABILITY).ok().flatten() } else { None };
    chown(path, uid, gid)?;
    if about.is_file() && about.mode() & 0o6000 != 0 {
        set_mode(path, about.mode())?;
    }
    if let Some(capability) = capability {
        match xattr::set(path, CAPABILITY, &capability) {
            Err(error) if may_ignore(&error) => {}
            set => set.at("set the capabilities of", path)?,
        }
    }
    Ok(())
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
    let (file_a, file_b) = (open_file(a)?, open_file(b)?);
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
