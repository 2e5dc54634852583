//! Looks at processes of this machine through `/proc`, and signals them.
//!
//! A process is named by its number and its start in clock ticks since boot, so that a later one
//! with the same number is never mistaken for it. A process that cannot be looked at
//! (`hidepid`) is [`Life::Unknown`], never dead.

use std::io;

use rustix::process::Pid;
use rustix::process::Signal;

/// Whether a process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Alive,
    /// It has ended; perhaps its number is in use again.
    Dead,
    /// It cannot be looked at.
    Unknown,
}

/// When a process started, in clock ticks since boot; `None` when it cannot be looked at or has ended.
pub fn start_ticks(pid: u32) -> Option<u64> {
    match stat(pid) {
        Ok(stat) if !stat.ended => Some(stat.start_ticks),
        _ => None,
    }
}

/// The real user of a process.
pub fn uid(pid: u32) -> Option<u32> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

/// The user of a process that can do what that user can and nothing else: the real one, the effective one, the saved one and
/// that of its files.
pub(super) fn only_user(pid: u32) -> Option<u32> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace();
    let first = users.next()?;
    if users.all(|user| user == first) { first.parse().ok() } else { None }
}

/// Whether the process that had this number since `start_ticks` lives.
pub fn life(pid: u32, start_ticks: u64) -> Life {
    match stat(pid) {
        Ok(stat) if stat.start_ticks == start_ticks && !stat.ended => Life::Alive,
        Ok(_) => Life::Dead,
        Err(_) => match Pid::from_raw(pid.cast_signed()).map(rustix::process::test_kill_process) {
            Some(Err(rustix::io::Errno::SRCH)) | None => Life::Dead,
            Some(_) => Life::Unknown,
        },
    }
}

/// Signals a process, with its whole group when it leads one. A process that has ended is no error.
///
/// # Errors
/// The kernel refuses, for want of rights.
pub fn signal(pid: u32, start_ticks: u64, signal: Signal) -> io::Result<()> {
    let Some(raw) = Pid::from_raw(pid.cast_signed()) else { return Ok(()) };
    // The descriptor holds the process itself: after the look at its start it cannot become another one.
    let handle = match rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    if life(pid, start_ticks) != Life::Alive {
        return Ok(());
    }
    let sent = if rustix::process::getpgid(Some(raw)) == Ok(raw) {
        rustix::process::kill_process_group(raw, signal)
    } else {
        rustix::process::pidfd_send_signal(&handle, signal)
    };
    match sent {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The same for a program of one user: with the group that it leads, but only those of its processes that are that user's.
/// Whatever else a user has let run in that group, by `sudo` or `su`, is none of ours to signal.
///
/// # Errors
/// The kernel refuses, for want of rights.
pub fn signal_of_user(pid: u32, start_ticks: u64, owner: u32, signal: Signal) -> io::Result<()> {
    let Some(leader) = entry(pid).filter(|entry| entry.start_ticks == start_ticks) else { return Ok(()) };
    let mut theirs = vec![leader];
    if leader.group == pid {
        let pids = fs_err::read_dir("/proc")?.flatten().filter_map(|found| found.file_name().to_str()?.parse().ok());
        theirs.extend(pids.filter_map(entry).filter(|entry| entry.group == pid && entry.pid != pid));
    }
    for process in theirs {
        let Some(raw) = Pid::from_raw(process.pid.cast_signed()) else { continue };
        let handle = match rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => continue,
            Err(errno) => return Err(errno.into()),
        };
        // What is looked at now is what the descriptor holds, or has ended.
        if uid(process.pid) != Some(owner) || life(process.pid, process.start_ticks) != Life::Alive {
            continue;
        }
        match rustix::process::pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Whether a process of this group lives. One that has ended and was not waited for by its parent does not.
pub fn group_lives(group: Pid) -> bool {
    if rustix::process::test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(entries) = fs_err::read_dir("/proc") else { return true };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| stat(pid).ok()).any(|stat| stat.group == group.as_raw_nonzero().get() && !stat.ended)
}

/// The process groups of a session in which a process lives.
pub fn groups_of_session(session: Pid) -> Vec<Pid> {
    let Ok(entries) = fs_err::read_dir("/proc") else { return vec![session] };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let living = pids.filter_map(|pid| stat(pid).ok()).filter(|stat| !stat.ended);
    let groups = living.filter(|stat| stat.session == session.as_raw_nonzero().get());
    let mut groups: Vec<Pid> = groups.filter_map(|stat| Pid::from_raw(stat.group)).collect();
    groups.sort_by_key(|group| group.as_raw_nonzero());
    groups.dedup();
    groups
}

/// Whether a process takes no notice of a signal.
pub fn ignores(pid: Pid, signal: Signal) -> bool {
    let Ok(status) = fs_err::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (signal.as_raw() - 1)) != 0
}

/// A living line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pid: u32,
    pub(super) group: u32,
    pub(super) start_ticks: u64,
}

/// A process that lives.
pub(super) fn entry(pid: u32) -> Option<Entry> {
    let stat = stat(pid).ok().filter(|stat| !stat.ended)?;
    Some(Entry { pid, group: stat.group.unsigned_abs(), start_ticks: stat.start_ticks })
}

struct Stat {
    ended: bool,
    group: i32,
    session: i32,
    start_ticks: u64,
}

fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses and may itself hold any character.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_whitespace();
    let ended = fields.next().is_some_and(|state| matches!(state, "Z" | "X" | "x"));
    let group = fields.nth(1).and_then(|group| group.parse().ok());
    let session = fields.next().and_then(|session| session.parse().ok());
    let start_ticks = fields.nth(15).and_then(|ticks| ticks.parse().ok());
    group
        .zip(session)
        .zip(start_ticks)
        .map(|((group, session), start_ticks)| Stat { ended, group, session, start_ticks })
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time in /proc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_process_from_its_successor() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        let ticks = start_ticks(pid).unwrap();
        assert_eq!(life(pid, ticks), Life::Alive);
        assert_eq!(life(pid, ticks + 1), Life::Dead);
        assert_eq!(uid(pid), uid(std::process::id()));
        signal(pid, ticks + 1, Signal::KILL).unwrap();
        assert_eq!(life(pid, ticks), Life::Alive, "another start is another process");
        signal(pid, ticks, Signal::KILL).unwrap();
        child.wait().unwrap();
        assert_eq!(life(pid, ticks), Life::Dead);
        signal(pid, ticks, Signal::KILL).unwrap();
    }
}
