//! Work on files as another user: what the system then checks is what that user may do.
//!
//! The identity belongs to a thread of its own, which ends with the work, so that nothing else ever runs with it. Only what
//! concerns files changes; nobody can send that thread a signal whom the process itself does not let.

use std::io;
use std::panic::resume_unwind;
use std::thread;

use nix::unistd;
use nix::unistd::Gid;
use nix::unistd::Uid;

/// For deep trees; memory is taken only as it is needed.
const STACK_BYTES: usize = 64 << 20;

/// A user and a group, as far as files are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user's number.
    pub uid: u32,
    /// The group's number; there are no others.
    pub gid: u32,
}

/// Does `work` with the file-system identity of another user; as we are where there is none.
///
/// # Errors
/// The identity cannot be taken, or there can be no thread.
pub fn work_as<T: Send>(identity: Option<Identity>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let begin = || {
            identity.map_or(Ok(()), take)?;
            Ok(work())
        };
        let thread =
            thread::Builder::new().name("files".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, begin)?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Takes an identity, for this thread and for good.
fn take(identity: Identity) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    // The groups and the group first: afterwards we may not.
    rustix::thread::set_thread_groups(&[rustix::process::Gid::from_raw(identity.gid)])?;
    unistd::setfsgid(gid);
    unistd::setfsuid(uid);
    // They say nothing about success but by what they find the next time.
    let is_taken = unistd::setfsgid(gid) == gid && fs_uid() == identity.uid;
    if is_taken { Ok(()) } else { Err(io::Error::from(io::ErrorKind::PermissionDenied)) }
}

/// The user whose rights this thread has at files.
pub fn fs_uid() -> u32 {
    // No user has this number; so nothing changes, and the answer is what is.
    unistd::setfsuid(Uid::from_raw(u32::MAX)).as_raw()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_of_roots_cannot_be_opened_as_somebody_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "root's").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let own = dir.path().join("own");
        let identity = Some(Identity { uid: 65_534, gid: 65_534 });
        let (opened, made) = work_as(identity, || {
            assert_eq!(fs_uid(), 65_534);
            (File::open(&secret).map(drop), fs::write(&own, "theirs"))
        })
        .unwrap();
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        made.unwrap();
        assert_eq!((fs::metadata(&own).unwrap().uid(), fs::metadata(&own).unwrap().gid()), (65_534, 65_534));
        // Nobody else took it on.
        assert_eq!(fs_uid(), 0);
        work_as(None, || File::open(&secret).map(drop)).unwrap().unwrap();
    }
}
