//! Tells whether anybody but root can change what a path names, as `sudo` and `cron` ask of their own files.
//!
//! The path is walked from `/`, component by component, each opened beneath the one before. Every directory on the way
//! must belong to root, or to the user of this process, and nobody else may write into it; a sticky directory such as
//! `/tmp` may be shared, since nobody can take another's entry away there. A link is followed where root made it: it
//! lies in a directory that only root can change. What is found is held open, so the answer cannot grow old.
//!
//! An access list that grants writing shows in the group bits of the mode, which are then its mask.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::io::Errno;
use thiserror::Error;

use crate::files::account;
use crate::files::account::Account;

/// The attribute that holds an access list.
const ACCESS_LIST: &str = "system.posix_acl_access";
/// How many links one path may go through.
const LINKS_MAX: usize = 40;

/// Somebody who is not root can change what a path names, or it cannot be known.
#[derive(Debug, Error)]
pub enum Untrusted {
    /// The file or directory belongs to somebody else.
    #[error("{} belongs to {owner}", .path.display())]
    Owner {
        /// What was found on the way, or at its end.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// Others than its owner may write to it.
    #[error("{} can be written by {}", .path.display(), .who)]
    Writable {
        /// What was found on the way, or at its end.
        path: PathBuf,
        /// Who may.
        who: Who,
    },
    /// It leads through too many links.
    #[error("{} leads through more than {LINKS_MAX} links", .path.display())]
    Links {
        /// The path that was asked about.
        path: PathBuf,
    },
    /// It cannot be looked at.
    #[error("look at {}", .path.display())]
    Look {
        /// What cannot be looked at.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Who may write to what only root should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The group with this number.
    Group(u32),
    /// Whoever is in its access list.
    Listed,
    /// Everybody.
    Everybody,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(gid) => write!(f, "the group {}", account::group_name(*gid)),
            Self::Listed => f.write_str("users or groups in its access list"),
            Self::Everybody => f.write_str("everybody"),
        }
    }
}

impl Untrusted {
    /// What to type so that only root can change it; nothing where that is not the cause.
    pub fn remedy(&self) -> Option<String> {
        let quoted = |path: &Path| path.display().to_string();
        match self {
            // Root must not take somebody's home away from them.
            Self::Owner { path, owner } if is_at_home(path, owner) => Some(format!(
                "move the file to /etc/afterhours, or the directory to one of root's: {} is in the home of {owner}",
                quoted(path)
            )),
            Self::Owner { path, .. } => Some(format!("chown root {}", quoted(path))),
            Self::Writable { path, who: Who::Group(_) } => Some(format!("chmod g-w {}", quoted(path))),
            Self::Writable { path, who: Who::Listed } => Some(format!("setfacl -b {}", quoted(path))),
            Self::Writable { path, who: Who::Everybody } => Some(format!("chmod go-w {}", quoted(path))),
            Self::Links { .. } | Self::Look { .. } => None,
        }
    }

    /// Whether there is nothing by that name.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Look { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether there is nothing by that name, also because what it should be in is no directory.
    pub fn is_missing(&self) -> bool {
        let is_no_dir = matches!(self, Self::Look { source, .. } if source.kind() == io::ErrorKind::NotADirectory);
        is_no_dir || self.is_absent()
    }
}

/// Whether a path is the home of its owner, or in it.
fn is_at_home(path: &Path, owner: &str) -> bool {
    Account::find(owner).is_some_and(|owner| owner.home.parent().is_some() && path.starts_with(&owner.home))
}

/// What a path names, held open, and changed by root alone.
#[derive(Debug)]
pub struct Trusted {
    fd: OwnedFd,
    stat: Stat,
    path: PathBuf,
}

impl Trusted {
    /// The descriptor, opened with `O_PATH`.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Owner, mode and kind.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// The path without any link.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Holds the directory `path`, into which nobody but root may write and which nobody else can move away.
///
/// # Errors
/// Somebody else can, or there is no such directory.
pub fn trusted_dir(path: &Path) -> Result<Trusted, Untrusted> {
    let found = trusted(path)?;
    if FileType::from_raw_mode(found.stat.st_mode) != FileType::Directory {
        return Err(Untrusted::Look { path: found.path, source: io::ErrorKind::NotADirectory.into() });
    }
    Ok(found)
}

/// Holds the regular file `path`, which nobody but root may change or replace.
///
/// # Errors
/// Somebody else can, or there is no such file.
pub fn trusted_file(path: &Path) -> Result<Trusted, Untrusted> {
    let found = trusted(path)?;
    if FileType::from_raw_mode(found.stat.st_mode) != FileType::RegularFile {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(Untrusted::Look { path: found.path, source });
    }
    Ok(found)
}

/// Holds what `path` names, which nobody but root may change or replace.
///
/// # Errors
/// Somebody else can, or there is nothing by that name.
pub fn trusted(path: &Path) -> Result<Trusted, Untrusted> {
    let found = walk(path, Way::Judged)?;
    // At its end nothing may be shared: in a sticky directory everybody may still make entries.
    judge(&found.fd, &found.path, &found.stat, Shared::Refused)?;
    Ok(found)
}

/// What a path names, held open. Who may change it is not said.
#[derive(Debug)]
pub struct Reached {
    /// The descriptor, opened with `O_PATH`.
    pub fd: OwnedFd,
    /// Owner, mode and kind.
    pub stat: Stat,
    /// The path without any link.
    pub path: PathBuf,
}

/// Holds what `path` names, where the directories on the way, and the thing itself, may be anybody's. A link that is
/// neither root's nor this process's own is not followed, the last part included: whoever made it chose where it leads.
///
/// # Errors
/// It leads over somebody else's link, or there is nothing by that name.
pub fn reach(path: &Path) -> Result<Reached, Untrusted> {
    let Trusted { fd, stat, path } = walk(path, Way::Anybodys)?;
    Ok(Reached { fd, stat, path })
}

/// As root, asks [`trusted`] of what Afterhours goes by. Whoever is not root can be harmed by others only in what is
/// their own, and who may write there is their choice. What is absent, or cannot be looked at, fails where it is used.
///
/// # Errors
/// Others than root can change it.
pub fn required(path: &Path) -> Result<(), Untrusted> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    match trusted(path) {
        Ok(_) | Err(Untrusted::Look { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Asks the deepest directory on the way to `path` that is there. It is what decides who can make the rest.
///
/// # Errors
/// Somebody but root can.
pub fn trusted_way(path: &Path) -> Result<(), Untrusted> {
    let mut known = path;
    loop {
        match trusted(known) {
            Err(error) if error.is_absent() => match known.parent() {
                Some(parent) => known = parent,
                None => return Err(error),
            },
            answer => return answer.map(|_| ()),
        }
    }
}

/// Whether a sticky directory may be shared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shared {
    Allowed,
    Refused,
}

/// Whose the directories on the way may be. Links must be root's or our own in any case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Judged,
    Anybodys,
}

fn walk(asked: &Path, way: Way) -> Result<Trusted, Untrusted> {
    let look = |path: &Path, error: rustix::io::Errno| Untrusted::Look { path: path.to_owned(), source: error.into() };
    let absolute = std::path::absolute(asked).map_err(|source| Untrusted::Look { path: asked.to_owned(), source })?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut left = parts(&absolute);
    let mut links = 0;
    let mut walked = vec![(root(flags)?, PathBuf::from("/"))];
    loop {
        let (fd, path) = walked.last().expect("the root is never popped");
        let stat = rustix::fs::fstat(fd).map_err(|error| look(path, error))?;
        let Some(part) = left.pop() else {
            let (fd, path) = walked.pop().expect("just seen");
            return Ok(Trusted { fd, stat, path });
        };
        if way == Way::Judged && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            judge(fd, path, &stat, Shared::Allowed)?;
        }
        if part == ".." {
            if walked.len() > 1 {
                walked.pop();
            }
            continue;
        }
        let next = path.join(&part);
        let found = rustix::fs::openat(fd, &part, flags, Mode::empty()).map_err(|error| look(&next, error))?;
        let stat = rustix::fs::fstat(&found).map_err(|error| look(&next, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            walked.push((found, next));
            continue;
        }
        // The link's mode says nothing; its owner and its directory do.
        judge_owner(&next, &stat)?;
        links += 1;
        if links > LINKS_MAX {
            return Err(Untrusted::Links { path: asked.to_owned() });
        }
        let target = rustix::fs::readlinkat(&found, "", Vec::new()).map_err(|error| look(&next, error))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            walked.truncate(1);
        }
        left.extend(parts(&target));
    }
}

fn root(flags: OFlags) -> Result<OwnedFd, Untrusted> {
    rustix::fs::openat(CWD, "/", flags, Mode::empty())
        .map_err(|error| Untrusted::Look { path: PathBuf::from("/"), source: error.into() })
}

/// The names of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<_> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect();
    parts.reverse();
    parts
}

fn judge_owner(path: &Path, stat: &Stat) -> Result<(), Untrusted> {
    let own = rustix::process::geteuid().as_raw();
    if stat.st_uid == 0 || stat.st_uid == own {
        return Ok(());
    }
    Err(Untrusted::Owner { path: path.to_owned(), owner: account::user_name(stat.st_uid) })
}

fn judge(fd: &OwnedFd, path: &Path, stat: &Stat, shared: Shared) -> Result<(), Untrusted> {
    judge_owner(path, stat)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    if shared == Shared::Allowed && mode.contains(Mode::SVTX) {
        return Ok(());
    }
    if mode.contains(Mode::WOTH) {
        return Err(Untrusted::Writable { path: path.to_owned(), who: Who::Everybody });
    }
    // Whoever is in root's own group is root's choice.
    if mode.contains(Mode::WGRP) && has_access_list(&Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())) {
        return Err(Untrusted::Writable { path: path.to_owned(), who: Who::Listed });
    }
    if mode.contains(Mode::WGRP) && stat.st_gid != 0 && !is_own_group(stat.st_gid) {
        return Err(Untrusted::Writable { path: path.to_owned(), who: Who::Group(stat.st_gid) });
    }
    Ok(())
}

/// Whether an access list names others than the owner and the group. What cannot be asked counts as one.
fn has_access_list(path: &Path) -> bool {
    match xattr::get_deref(path, ACCESS_LIST) {
        Ok(list) => list.is_some(),
        // A file system without access lists.
        Err(error) => error.raw_os_error() != Some(Errno::OPNOTSUPP.raw_os_error()),
    }
}

/// Whether a group is the private one of this process's user, by whose name it goes: then nobody else is in it.
fn is_own_group(gid: u32) -> bool {
    let own = rustix::process::geteuid();
    !own.is_root() && account::group_name(gid) == account::user_name(own.as_raw())
}

/// What the mode of a file lets everybody but root and its own user read; used for secrets.
pub fn read_by_others(path: &Path) -> io::Result<bool> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::empty())?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    Ok(mode.contains(Mode::ROTH) || (mode.contains(Mode::RGRP) && (stat.st_gid != 0 || has_access_list(path))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::chown;
    use std::os::unix::fs::symlink;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_can_change_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs_err::create_dir_all(&deep).unwrap();
        fs_err::write(deep.join("file"), "").unwrap();
        chmod(&deep.join("file"), 0o600);
        let file = deep.join("file");
        assert!(trusted_file(&file).is_ok());
        assert!(trusted_dir(&deep).is_ok());
        assert!(trusted_dir(&file).is_err() && trusted_file(&deep).is_err());

        chmod(&dir.path().join("a"), 0o777);
        let error = trusted_file(&file).unwrap_err();
        assert_eq!(error.remedy().unwrap(), format!("chmod go-w {}", dir.path().join("a").display()));
        chmod(&dir.path().join("a"), 0o1777);
        assert!(trusted_file(&file).is_ok(), "a sticky directory on the way may be shared");
        assert!(trusted_dir(&dir.path().join("a")).is_err(), "at the end it may not");
        chmod(&dir.path().join("a"), 0o755);

        if rustix::process::geteuid().is_root() {
            chown(&deep, Some(65534), None).unwrap();
            assert!(matches!(trusted_file(&file), Err(Untrusted::Owner { path, .. }) if path == deep));
            chown(&deep, Some(0), Some(65534)).unwrap();
            chmod(&deep, 0o775);
            assert!(matches!(trusted_file(&file), Err(Untrusted::Writable { who: Who::Group(65534), .. })));
            chmod(&deep, 0o755);
        }

        assert!(trusted_file(&deep.join("absent")).unwrap_err().is_absent());
        assert!(trusted_way(&deep.join("absent/too")).is_ok());
    }

    #[test]
    fn nobody_is_told_to_take_a_home_away() {
        let home = Account::find("root").unwrap().home;
        let of = |path: PathBuf| Untrusted::Owner { path, owner: "root".to_owned() }.remedy().unwrap();
        for path in [home.clone(), home.join("feed")] {
            assert!(of(path.clone()).starts_with("move the file to /etc/afterhours"), "{}", of(path));
        }
        assert_eq!(of("/srv/feed".into()), "chown root /srv/feed");
    }

    #[test]
    fn an_access_list_is_seen() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs_err::write(&file, "").unwrap();
        chmod(&file, 0o660);
        assert!(trusted_file(&file).is_ok(), "the group is root's");
        // Version 2; owner, user 65534, group and mask read and write, others nothing.
        let entry =
            |tag: u16, may: u16, id: u32| [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat();
        let none = u32::MAX;
        let list = [
            2u32.to_le_bytes().to_vec(),
            entry(0x01, 6, none),
            entry(0x02, 6, 65534),
            entry(0x04, 0, none),
            entry(0x10, 6, none),
            entry(0x20, 0, none),
        ];
        match xattr::set(&file, ACCESS_LIST, &list.concat()) {
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => return,
            set => set.unwrap(),
        }
        let refused = trusted_file(&file).unwrap_err();
        assert_eq!(refused.remedy().unwrap(), format!("setfacl -b {}", file.display()));
        assert!(read_by_others(&file).unwrap());
    }

    #[test]
    fn a_link_is_followed_where_root_made_it() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("real")).unwrap();
        fs_err::write(dir.path().join("real/file"), "").unwrap();
        chmod(&dir.path().join("real/file"), 0o600);
        symlink("real", dir.path().join("link")).unwrap();
        symlink("../link/./file", dir.path().join("real/again")).unwrap();
        let real = fs_err::canonicalize(dir.path().join("real/file")).unwrap();
        assert_eq!(trusted_file(&dir.path().join("link/again")).unwrap().path(), real);
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(matches!(trusted(&dir.path().join("loop")), Err(Untrusted::Links { .. })));

        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(dir.path().join("link"), Some(65534), None).unwrap();
            assert!(matches!(trusted(&dir.path().join("link")), Err(Untrusted::Owner { .. })));
        }
    }
    #[test]
    fn anybodys_directory_is_reached_but_not_over_their_link() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs_err::create_dir_all(open.join("deep")).unwrap();
        chmod(&open, 0o777);
        symlink("open", dir.path().join("link")).unwrap();
        let real = fs_err::canonicalize(open.join("deep")).unwrap();
        assert_eq!(reach(&dir.path().join("link/deep")).unwrap().path, real);
        assert!(reach(&dir.path().join("link/absent")).unwrap_err().is_absent());
        if rustix::process::geteuid().is_root() {
            chown(&open, Some(65534), None).unwrap();
            assert_eq!(reach(&open.join("deep")).unwrap().path, real);
            let theirs = open.join("theirs");
            symlink("/etc", &theirs).unwrap();
            std::os::unix::fs::lchown(&theirs, Some(65534), None).unwrap();
            for path in [theirs.clone(), theirs.join("passwd"), theirs.join("absent")] {
                assert!(matches!(reach(&path), Err(Untrusted::Owner { path, .. }) if path.ends_with("open/theirs")));
            }
        }
    }
}
