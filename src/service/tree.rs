//! Which processes belong to a supervised application, read from `/proc`.
//!
//! ```text
//! session      everything whose session is the main process's own
//! marked       everything that inherited our variable MARK with the application's token
//! offspring    every child of one of these, whatever it made of its session and environment
//! ```
//!
//! The first survives a cleared environment, the second a daemon that left the session, the third
//! both at once, as long as its parent lives. A number is no identity: a process is known by its number,
//! its start in clock ticks, and the boot it belongs to, so that a reused number is never signalled.

use std::collections::BTreeMap;
use std::io;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use serde::Deserialize;
use serde::Serialize;

/// The variable that every process of an application inherits.
pub(crate) const MARK: &str = "AFTERHOURS_SUPERVISED";
/// More of an environment is not read: the mark is set last but may stand anywhere.
const ENVIRON_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A process that can be told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// In clock ticks since boot.
    pub(crate) start_time: u64,
}

/// A line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    id: Identity,
    parent: i32,
    session: i32,
    ended: bool,
}

/// What is known of the application whose processes are sought.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The main process, where it is known.
    pub(crate) main: Option<Identity>,
    /// The value of [`MARK`].
    pub(crate) token: String,
}

impl Identity {
    /// Whether it lives; a zombie does not.
    pub(crate) fn lives(self) -> bool {
        entry(self.pid).is_some_and(|entry| entry.id == self && !entry.ended)
    }

    /// The living process with this number.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        entry(pid.cast_signed()).map(|entry| entry.id)
    }

    /// Signals exactly this process; nothing when it has ended.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let done = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            // The handle is of whoever has the number now; only then it is settled whether that is ours.
            Ok(handle) if self.lives() => rustix::process::pidfd_send_signal(handle, signal),
            Ok(_) => Ok(()),
            Err(Errno::NOSYS) if self.lives() => rustix::process::kill_process(pid, signal),
            Err(Errno::NOSYS) => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Err(Errno::SRCH) => Ok(()),
            done => done.map_err(io::Error::from),
        }
    }

    /// Whether it leads a session of its own.
    pub(crate) fn leads_session(self) -> bool {
        entry(self.pid).is_some_and(|entry| entry.id == self && entry.session == self.pid)
    }
}

/// Every living process of the application, `known` ones and their children included, but never this one; ascending
/// by start.
pub(crate) fn members(wanted: &Wanted, known: &[Identity]) -> io::Result<Vec<Identity>> {
    let mut table = table()?;
    // Were we started from within the application, we would still not be part of it.
    table.remove(&std::process::id().cast_signed());
    let mark = format!("{MARK}={}", wanted.token);
    let session = wanted.main.filter(|main| session_is_ours(&table, *main));
    let main_lives = wanted.main.is_some_and(|main| table.get(&main.pid).is_some_and(|e| e.id == main && !e.ended));
    let mut ours: Vec<Entry> = Vec::new();
    // An earlier generation was ended before the main process was started: who is older is a stranger.
    let oldest = wanted.main.map_or(0, |main| main.start_time);
    for entry in table.values().filter(|entry| entry.id.start_time >= oldest) {
        let in_session = session.is_some_and(|main| entry.session == main.pid);
        let is = known.contains(&entry.id)
            || wanted.main == Some(entry.id)
            || (in_session && main_lives)
            || match environ(entry.id.pid) {
                Environ::Has(text) => has_mark(&text, &mark),
                // An orphan of the session that cleared or overwrote its environment.
                Environ::Empty => in_session,
            };
        if is {
            ours.push(*entry);
        }
    }
    let mut next = 0;
    while next < ours.len() {
        let parent = ours[next].id.pid;
        let children = table.values().filter(|entry| entry.parent == parent);
        let new: Vec<_> = children.filter(|child| !ours.contains(child)).copied().collect();
        ours.extend(new);
        next += 1;
    }
    let mut ids: Vec<_> = ours.iter().filter(|entry| !entry.ended).map(|entry| entry.id).collect();
    ids.sort_by_key(|id| (id.start_time, id.pid));
    Ok(ids)
}

/// A session's number is not reused while somebody is in it; it was if a stranger leads it now.
fn session_is_ours(table: &BTreeMap<i32, Entry>, main: Identity) -> bool {
    table.get(&main.pid).is_none_or(|leader| leader.id == main)
}

enum Environ {
    Has(Vec<u8>),
    Empty,
}

fn environ(pid: i32) -> Environ {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(ENVIRON_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.iter().any(|byte| *byte != 0) => Environ::Has(bytes),
        _ => Environ::Empty,
    }
}

fn has_mark(environ: &[u8], mark: &str) -> bool {
    environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

fn table() -> io::Result<BTreeMap<i32, Entry>> {
    let mut table = BTreeMap::new();
    for file in fs_err::read_dir("/proc")? {
        let pid = file?.file_name().to_str().and_then(|name| name.parse().ok());
        // It may have ended meanwhile.
        if let Some(entry) = pid.and_then(entry) {
            table.insert(entry.id.pid, entry);
        }
    }
    Ok(table)
}

fn entry(pid: i32) -> Option<Entry> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(pid, &String::from_utf8_lossy(&stat))
}

/// Reads `/proc/PID/stat`. The program's name is in brackets and may itself hold brackets and spaces.
fn parse_stat(pid: i32, stat: &str) -> Option<Entry> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    // Field 3 of proc(5) is the first here.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Entry {
        id: Identity { pid, start_time: field(22)?.parse().ok()? },
        parent: field(4)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        ended: matches!(field(3)?, "Z" | "X" | "x"),
    })
}

/// Which boot this is; process numbers of an earlier one mean nothing.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The argument list of a process, as it stands in `/proc`.
pub(crate) fn command_line(pid: u32) -> io::Result<Vec<u8>> {
    fs_err::read(format!("/proc/{pid}/cmdline"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nasty_program_name_does_not_confuse() {
        let stat = "7 (a) Z 1 (b) S 3 7 9 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let entry = parse_stat(7, stat).unwrap();
        assert_eq!((entry.id.start_time, entry.parent, entry.session, entry.ended), (4711, 3, 9, false));
        assert_eq!(parse_stat(7, "7 (short) S 1"), None);
    }

    #[test]
    fn a_mark_is_a_whole_variable() {
        let environ = b"PATH=/bin\0AFTERHOURS_SUPERVISED=abc\0";
        assert!(has_mark(environ, "AFTERHOURS_SUPERVISED=abc"));
        assert!(!has_mark(environ, "AFTERHOURS_SUPERVISED=ab"));
        assert!(!has_mark(b"X=AFTERHOURS_SUPERVISED=abc\0", "AFTERHOURS_SUPERVISED=abc"));
    }

    #[test]
    fn a_reused_number_is_a_stranger() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.lives());
        let earlier = Identity { start_time: me.start_time - 1, ..me };
        assert!(!earlier.lives());
        // Were it signalled, this test would end here.
        earlier.signal(Signal::KILL).unwrap();
        let table = table().unwrap();
        assert!(session_is_ours(&table, me));
        assert!(!session_is_ours(&table, earlier));
    }
}
