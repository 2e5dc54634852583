//! The one place with unsafe code: what happens between `fork` and `exec`.
//!
//! `std` can change user and group of a child, but neither sets the user's further groups nor forbids it to gain
//! rights again. Both need a closure that runs in the child between the two calls, where only system calls may be made.

#![expect(unsafe_code, reason = "`pre_exec` is unsafe; its closure makes nothing but system calls")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Gid;
use rustix::process::Uid;
use rustix::thread;

use crate::files::account::Account;

/// Makes `command` run as `account`: with all groups of that user, and no way back to more rights.
///
/// Where this process is that user already, only the way back is closed.
pub fn become_user(command: &mut Command, account: &Account) {
    let already = rustix::process::geteuid().as_raw() == account.uid;
    let groups: Vec<_> = account.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    // SAFETY: the closure runs in the child between fork and exec. It allocates nothing and takes no lock: it makes
    // four system calls. The child has one thread, so the calls that change a thread change the process.
    unsafe {
        command.pre_exec(move || {
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
        assert!(status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}", daemon.uid)), "{status}");
    }

    #[test]
    fn its_own_user_needs_no_right() {
        let own = Account::own();
        assert_eq!(said(&own, "id", "-u").trim(), own.uid.to_string());
    }
}
