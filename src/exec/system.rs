//! The one place with unsafe code: what happens between `fork` and `exec`, descriptors that the runtime watches, and whether
//! the kernel's clock is kept right.
//!
//! `std` can change user and group of a child, but neither sets the user's further groups nor forbids it to gain
//! rights again. Both need a closure that runs in the child between the two calls, where only system calls may be made.

#![expect(
    unsafe_code,
    reason = "`pre_exec` and `AsyncFd::register` are unsafe, and so is a call that no crate of ours offers"
)]

use std::io;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use chrono::DateTime;
use chrono::Utc;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::process::Gid;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::Uid;
use rustix::thread;
use tokio::io::unix::AsyncFd;

use crate::files::account::Account;

/// What this process makes is for its own user alone; what others may read is given its mode by name.
const OWN_UMASK: u32 = 0o077;
/// What a child may do with files that it makes: others may read them, as everywhere. The daemon's own are its own.
const CHILD_UMASK: u32 = 0o022;
/// More descriptors than this are of no use, and where there is no limit at all, some programs try to close every one.
const OPEN_FILES_MAX: u64 = 65_536;
/// What this process was given, if it has asked for more.
static FIRST_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// Makes what this process makes from now on its own, whatever it was started with.
pub fn make_files_our_own() {
    rustix::process::umask(Mode::from_raw_mode(OWN_UMASK));
}

/// What `adjtimex` fills in, in eighths of its bytes, and more than it fills.
#[repr(C, align(8))]
struct Timex([u8; 512]);

unsafe extern "C" {
    /// Of the C library, which is linked in any case.
    fn adjtimex(timex: *mut Timex) -> std::ffi::c_int;
}

/// Whether a time service keeps the kernel's clock right, and `now` is what that shows. Unknown is no.
pub fn is_kept_by_a_time_service(now: DateTime<Utc>) -> bool {
    /// What the call answers where nobody keeps it.
    const ERROR: std::ffi::c_int = 5;
    /// The flag that says so, too.
    const UNSYNCHRONISED: i32 = 0x40;
    if cfg!(not(target_pointer_width = "64")) {
        return false;
    }
    let mut timex = Timex([0; 512]);
    // SAFETY: the structure is 208 bytes long there, aligned as its longest fields; it begins with `modes`, and 0 only reads.
    let answered = unsafe { adjtimex(&raw mut timex) };
    let field = |at: usize| timex.0.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(i64::from_ne_bytes);
    let status = timex.0.get(40..44).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    let (Some(status), Some(secs)) = (status, field(72)) else { return false };
    (0..ERROR).contains(&answered) && status & UNSYNCHRONISED == 0 && (now.timestamp() - secs).abs() <= 2
}

/// Lets this process have as many files open as it may; how many that is.
pub fn raise_open_files() -> usize {
    let first = rustix::process::getrlimit(Resource::Nofile);
    let most = first.maximum.unwrap_or(OPEN_FILES_MAX).min(OPEN_FILES_MAX);
    let mut has = first.current.unwrap_or(OPEN_FILES_MAX);
    if has < most && rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..first }).is_ok() {
        FIRST_LIMIT.get_or_init(|| first);
        has = most;
    }
    usize::try_from(has).unwrap_or(usize::MAX)
}

/// Gives `command` the limit of open files that this process was given itself: programs that look into all descriptors
/// they may have, or use `select`, expect the usual one.
pub fn with_first_limit(command: &mut Command) {
    let Some(first) = FIRST_LIMIT.get() else { return };
    let first = *first;
    // SAFETY: the closure runs in the child between fork and exec, and makes one system call.
    unsafe {
        command.pre_exec(move || Ok(rustix::process::setrlimit(Resource::Nofile, first)?));
    }
}

/// Makes `command` run as `account`: with all groups of that user, and no way back to more rights.
///
/// Where this process is that user already, only the way back is closed. What the daemon has for itself is not
/// inherited: its narrow umask, and its place among those that the kernel ends last when memory runs out.
pub fn become_user(command: &mut Command, account: &Account) {
    let already = rustix::process::geteuid().as_raw() == account.uid;
    let groups: Vec<_> = account.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    // SAFETY: the closure runs in the child between fork and exec. It allocates nothing and takes no lock: it makes
    // system calls. The child has one thread, so the calls that change a thread change the process.
    unsafe {
        command.pre_exec(move || {
            rustix::process::umask(Mode::from_raw_mode(CHILD_UMASK));
            forget_oom_score();
            if !already {
                thread::set_thread_groups(&groups)?;
                thread::set_thread_res_gid(gid, gid, gid)?;
                thread::set_thread_res_uid(uid, uid, uid)?;
            }
            thread::set_no_new_privs(true)?;
            Ok(())
        });
    }
}

/// Starts `command` in a session of its own: whoever shares a terminal with root can type into it. It leads its process
/// group, too.
pub fn leave_the_terminal(command: &mut Command) {
    // SAFETY: the closure runs in the child between fork and exec, and makes one system call.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
}

/// Starts `command` in a session of its own whose terminal is its standard input. It leads its process group, which is in
/// the foreground.
pub fn own_the_terminal(command: &mut Command) {
    // SAFETY: the closure runs in the child between fork and exec, and makes two system calls. The descriptor 0 is in
    // place by then.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(BorrowedFd::borrow_raw(0))?;
            Ok(())
        });
    }
}

/// Has the runtime tell when something can be read from `descriptor` or written to it. To be called inside a runtime.
///
/// # Errors
/// It cannot be watched.
pub fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` holds its descriptor open for as long as it lives, and it is always the same one.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}

/// Becomes as likely to be ended as anybody, where the kernel lets us say so.
fn forget_oom_score() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(CWD, c"/proc/self/oom_score_adj", flags, Mode::empty()) {
        // A child that is protected better than it needs to be is no reason not to start it.
        let _ = rustix::io::write(&file, b"0");
    }
}

/// Makes the outputs of `command` files of `account`'s, where they are pipes or plain files: many a script opens
/// `/dev/stderr` anew, which only the owner may. To be called before [`become_user`], while there is the right to do it.
pub fn hand_over_outputs(command: &mut Command, account: &Account) {
    if rustix::process::geteuid().as_raw() == account.uid {
        return;
    }
    let uid = Uid::from_raw(account.uid);
    // SAFETY: the closure runs in the child between fork and exec, and makes nothing but system calls. The descriptors 1
    // and 2 are in place by then; where one is closed, the call fails, which is no harm.
    unsafe {
        command.pre_exec(move || {
            for fd in [1, 2] {
                let fd = BorrowedFd::borrow_raw(fd);
                let kind = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
                if let Ok(FileType::Fifo | FileType::RegularFile) = kind {
                    // An output that cannot be given away can still be written to.
                    let _ = rustix::fs::fchown(fd, Some(uid), None);
                }
            }
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(account: &Account, program: &str, arg: &str) -> String {
        let mut command = Command::new(program);
        command.arg(arg);
        become_user(&mut command, account);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn a_command_is_its_user_and_stays_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let daemon = Account::find("daemon").unwrap();
        assert_eq!(said(&daemon, "id", "-u").trim(), daemon.uid.to_string());
        assert_eq!(said(&daemon, "id", "-G").trim(), daemon.gid.to_string());
        let status = said(&daemon, "cat", "/proc/self/status");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        assert!(status.contains("Umask:\t0022"), "{status}");
        assert!(status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}", daemon.uid)), "{status}");
    }

    #[test]
    fn what_is_started_gets_the_limit_that_we_were_given() {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let given = limit.maximum.unwrap_or(OPEN_FILES_MAX).min(1000);
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(given), ..limit }).unwrap();
        let has = raise_open_files();
        assert!(has as u64 >= given);
        assert_eq!(rustix::process::getrlimit(Resource::Nofile).current, Some(has as u64));
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -Sn; ulimit -Hn"]);
        with_first_limit(&mut command);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let hard = limit.maximum.map_or("unlimited".to_owned(), |maximum| maximum.to_string());
        assert_eq!(said.lines().collect::<Vec<_>>(), [given.to_string(), hard]);
    }

    #[test]
    fn a_command_has_no_terminal_of_ours() {
        let mut command = Command::new("cat");
        command.arg("/proc/self/stat");
        leave_the_terminal(&mut command);
        let stat = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let pid = stat.split(' ').next().unwrap();
        // State, parent, group, session, terminal.
        assert_eq!((fields[2], fields[3], fields[4]), (pid, pid, "0"), "{stat}");
    }

    #[test]
    fn its_own_user_needs_no_right() {
        let own = Account::own();
        assert_eq!(said(&own, "id", "-u").trim(), own.uid.to_string());
    }
}
