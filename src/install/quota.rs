//! What quotas leave to those whom the new version and the copies of the data will belong to.
//!
//! Root writes beyond any quota, but what it writes counts for the owner: an application that cannot write any
//! more after a night that went well is no better than one that is down. So the question is asked for the owner.
//!
//! Deliberately absent: project quotas, and quotas of file systems without a device of their own (tmpfs, btrfs,
//! network file systems); those show as free space that is smaller, or as a write that fails.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::quota::QuotaType;
use nix::sys::quota::quotactl_get;

use crate::domain::finding::Finding;
use crate::install::owner::Owner;
use crate::install::tree;

const CHECK: &str = "quota";
/// The unit in which the kernel tells limits of space.
const BLOCK_BYTES: u64 = 1024;

/// Whose files they are, as a quota sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    User(u32),
    Group(u32),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Group(gid) => write!(f, "group {gid}"),
        }
    }
}

/// Whose quotas what belongs to `owner` counts for. Root has none.
pub(super) fn holders(owner: Owner) -> impl Iterator<Item = Holder> {
    let user = (owner.uid != 0).then_some(Holder::User(owner.uid));
    user.into_iter().chain((owner.gid != 0).then_some(Holder::Group(owner.gid)))
}

/// What will be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// How much is used of something, and how much may be; 0 where there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Limit {
    used: u64,
    soft: u64,
    hard: u64,
}

/// A quota that is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Quota {
    bytes: Limit,
    entries: Limit,
}

/// Looks at the quotas of one file system, for everybody who will take something of it.
pub(super) fn check(dev: u64, at: &Path, taken: &BTreeMap<Holder, Taken>) -> Vec<Finding> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(device) = device(&mounts, dev) else { return Vec::new() };
    let look = |(holder, taken): (&Holder, &Taken)| match ask(&device, *holder) {
        Ok(quota) => judge(*holder, at, *taken, quota?),
        Err(Errno::EPERM | Errno::EACCES) => Some(Finding::warning(
            CHECK,
            format!("the quota of {holder} at {} cannot be asked for", at.display()),
            match tree::is_root() {
                true => "let the unit of Afterhours keep CAP_SYS_ADMIN",
                false => "run this as root",
            },
        )),
        Err(error) => Some(Finding::warning(
            CHECK,
            format!("the quota of {holder} at {} cannot be read: {error}", at.display()),
            "see what `repquota` says about that file system",
        )),
    };
    taken.iter().filter_map(look).collect()
}

/// The device that is mounted with the number `dev`.
fn device(mountinfo: &str, dev: u64) -> Option<PathBuf> {
    let number = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let mount = mountinfo.lines().find(|line| line.split(' ').nth(2) == Some(&number))?;
    let source = mount.split_once(" - ")?.1.split(' ').nth(1)?;
    // What is no path is the name of a file system without a device.
    source.starts_with('/').then(|| super::check::unescaped(source))
}

/// The quota that is in force; nothing where none is.
fn ask(device: &Path, holder: Holder) -> Result<Option<Quota>, Errno> {
    let (kind, id) = match holder {
        Holder::User(uid) => (QuotaType::USRQUOTA, uid),
        Holder::Group(gid) => (QuotaType::GRPQUOTA, gid),
    };
    let told = match quotactl_get(kind, device, id.cast_signed()) {
        Ok(told) => told,
        // Nobody counts there: by this kernel, on this file system, or just now.
        Err(
            Errno::ENOSYS
            | Errno::EINVAL
            | Errno::ESRCH
            | Errno::ENODEV
            | Errno::ENOENT
            | Errno::ENOTBLK
            | Errno::EOPNOTSUPP,
        ) => return Ok(None),
        Err(error) => return Err(error),
    };
    let blocks = |limit: Option<u64>| limit.unwrap_or(0).saturating_mul(BLOCK_BYTES);
    Ok(Some(Quota {
        bytes: Limit {
            used: told.occupied_space().unwrap_or(0),
            soft: blocks(told.blocks_soft_limit()),
            hard: blocks(told.blocks_hard_limit()),
        },
        entries: Limit {
            used: told.allocated_inodes().unwrap_or(0),
            soft: told.inodes_soft_limit().unwrap_or(0),
            hard: told.inodes_hard_limit().unwrap_or(0),
        },
    }))
}

/// Whether what will be taken fits; nothing to say where there is no limit.
fn judge(holder: Holder, at: &Path, taken: Taken, quota: Quota) -> Option<Finding> {
    let shown = at.display();
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    let needed = [taken.bytes.saturating_add(taken.bytes / 20), taken.entries];
    let limits = [quota.bytes, quota.entries];
    let told = |kind: usize, limit: u64| {
        let used = limits[kind].used;
        match kind {
            0 => format!("{} MiB of {} MiB are used and {} MiB needed", mib(used), mib(limit), mib(needed[0])),
            _ => format!("{used} files of {limit} are used and {} needed", needed[1]),
        }
    };
    let over = |limit: fn(&Limit) -> u64| {
        (0..limits.len())
            .find(|kind| {
                let most = limit(&limits[*kind]);
                most > 0 && limits[*kind].used.saturating_add(needed[*kind]) > most
            })
            .map(|kind| told(kind, limit(&limits[kind])))
    };
    let option = if matches!(holder, Holder::User(_)) { 'u' } else { 'g' };
    let id = match holder {
        Holder::User(id) | Holder::Group(id) => id,
    };
    if let Some(told) = over(|limit| limit.hard) {
        return Some(Finding::fatal(
            CHECK,
            format!("the quota of {holder} at {shown} does not allow it: {told}"),
            format!("raise it (`setquota -{option} {id}`), or remove what belongs to {holder} and is not needed"),
        ));
    }
    if let Some(told) = over(|limit| limit.soft) {
        return Some(Finding::warning(
            CHECK,
            format!("{holder} will be over the soft quota at {shown}: {told}"),
            format!("raise it (`setquota -{option} {id}`) before its period of grace is over"),
        ));
    }
    let is_limited = limits.iter().any(|limit| limit.soft > 0 || limit.hard > 0);
    is_limited.then(|| Finding::good(CHECK, format!("the quota of {holder} at {shown} has room for it")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::finding::Severity;

    const MIB: u64 = 1024 * 1024;

    #[rstest]
    #[case::no_limit(0, 0, 0, 0, None)]
    #[case::room(100, 90, 0, 0, Some((Severity::Good, "has room")))]
    #[case::to_the_brim(62, 62, 6, 0, Some((Severity::Good, "has room")))]
    #[case::hard(61, 0, 0, 0, Some((Severity::Fatal, "40 MiB of 61 MiB are used and 22 MiB needed")))]
    #[case::soft(100, 61, 0, 0, Some((Severity::Warning, "40 MiB of 61 MiB are used and 22 MiB needed")))]
    #[case::files(0, 0, 5, 0, Some((Severity::Fatal, "3 files of 5 are used and 3 needed")))]
    #[case::some_files(0, 0, 0, 5, Some((Severity::Warning, "3 files of 5 are used and 3 needed")))]
    #[case::hard_before_soft(100, 10, 5, 0, Some((Severity::Fatal, "files")))]
    fn a_quota_is_judged(
        #[case] hard_mib: u64,
        #[case] soft_mib: u64,
        #[case] hard_files: u64,
        #[case] soft_files: u64,
        #[case] expected: Option<(Severity, &str)>,
    ) {
        let quota = Quota {
            bytes: Limit { used: 40 * MIB, soft: soft_mib * MIB, hard: hard_mib * MIB },
            entries: Limit { used: 3, soft: soft_files, hard: hard_files },
        };
        let taken = Taken { bytes: 20 * MIB, entries: 3 };
        // 20 MiB and a twentieth of it are 21; a little more is 22.
        let taken = if expected.is_some_and(|(_, text)| text.contains("22")) {
            Taken { bytes: taken.bytes + MIB / 2, ..taken }
        } else {
            taken
        };
        let found = judge(Holder::User(1000), Path::new("/opt"), taken, quota);
        match (found, expected) {
            (None, None) => {}
            (Some(found), Some((severity, text))) => {
                assert_eq!(found.severity, severity, "{found:?}");
                assert!(found.text.contains(text), "{found:?}");
                assert!(found.remedy.is_none_or(|remedy| remedy.contains("setquota -u 1000")));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn root_has_no_quota() {
        assert_eq!(holders(Owner { uid: 0, gid: 0 }).count(), 0);
        let all: Vec<_> = holders(Owner { uid: 7, gid: 8 }).collect();
        assert_eq!(all, [Holder::User(7), Holder::Group(8)]);
    }

    #[test]
    fn the_device_is_found_by_its_number() {
        let mounts = "36 35 98:0 /a /mnt1 rw,noatime master:1 - ext3 /dev/disk\\040one rw\n\
                      37 35 0:42 / /tmp rw - tmpfs tmpfs rw,size=1g\n";
        let dev = rustix::fs::makedev(98, 0);
        assert_eq!(device(mounts, dev), Some(PathBuf::from("/dev/disk one")));
        assert_eq!(device(mounts, rustix::fs::makedev(0, 42)), None);
        assert_eq!(device(mounts, rustix::fs::makedev(8, 1)), None);
    }

    #[test]
    fn where_nobody_counts_there_is_no_quota() {
        assert_eq!(ask(Path::new("/dev/null"), Holder::User(1000)), Ok(None));
        assert_eq!(ask(Path::new("/nowhere"), Holder::Group(1000)), Ok(None));
    }
}
