//! Commands that outlived the process that ran them.
//!
//! A command is ended with its group when its future is dropped, but nobody drops futures of a
//! process that was killed: the command runs on. Whoever repeats or undoes its work must end it
//! first. It is known by a variable that it was given and that its children inherit, and by the
//! process group it leads.
//!
//! Anybody can put any variable into their own environment. So what [`MARK`] holds is made of a secret and the user: who
//! has not got it from us cannot know it, and who has got it can claim nobody else's processes with it.
//!
//! Deliberately absent: what has left the group and cleared its environment is not found, nor what has become another user.

use std::collections::BTreeSet;
use std::io;
use std::io::Read;
use std::time::Duration;

use rustix::process::Signal;
use sha2::Digest;
use sha2::Sha256;
use tokio::time::Instant;

use crate::domain::failure::Scarce;
use crate::domain::hex::hex;
use crate::exec::TERM_WAIT;
use crate::exec::process;

/// The variable by which a command is known that must not outlive us. Who starts one sets it to a secret; the command sees
/// what [`mark_of`] makes of it.
pub const MARK: &str = "AFTERHOURS_STEP";

/// What [`MARK`] holds in a process of the user `uid`.
pub fn mark_of(secret: &str, uid: u32) -> String {
    hex(Sha256::digest(format!("{secret}\0{uid}")))
}

/// How long what was killed may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long it is looked again where somebody shows no environment: a program that is just being replaced by another
/// (`exec`) shows none for a moment, and must not slip through.
const SETTLE_WAIT: Duration = Duration::from_millis(500);
/// More of an environment is not read.
const ENVIRON_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Ends every process, other than this one, that has a variable for which `is_mark` holds for its user (`NAME=value`), and
/// whoever of the same user shares a group with one: TERM, two seconds, KILL. Answers with the numbers of those that were
/// there, or, as an error, of those that would not go.
///
/// # Errors
/// Somebody is still there long after KILL, or nobody knows who is.
pub async fn end(is_mark: impl Fn(u32, &[u8]) -> bool + Send + Sync + Clone + 'static) -> Result<Vec<u32>, Remaining> {
    let began = Instant::now();
    let mut met = BTreeSet::new();
    let mut asked = BTreeSet::new();
    loop {
        let looked = is_mark.clone();
        let look = match tokio::task::spawn_blocking(move || look(&looked)).await {
            Ok(Ok(look)) => look,
            // Whoever was not looked at is not known to be gone.
            unknown if began.elapsed() >= KILL_WAIT => {
                return Err(Remaining::Unknown(unknown.ok().and_then(Result::err).as_ref().and_then(Scarce::of)));
            }
            _ => {
                tokio::time::sleep(SETTLE_WAIT).await;
                continue;
            }
        };
        let left = look.marked;
        if left.is_empty() && (look.all_shown || began.elapsed() >= SETTLE_WAIT) {
            return Ok(met.into_iter().collect());
        }
        met.extend(left.iter().map(|found| found.pid));
        if began.elapsed() >= TERM_WAIT + KILL_WAIT {
            return Err(Remaining::Alive(left.into_iter().map(|found| found.pid).collect()));
        }
        for Found { pid, start_ticks, uid } in left {
            let kill = began.elapsed() >= TERM_WAIT;
            if kill || asked.insert((pid, start_ticks)) {
                let signal = if kill { Signal::KILL } else { Signal::TERM };
                // Who may not be signalled is still there in the end, and is named then.
                let _ = process::signal_of_user(pid, start_ticks, uid, signal);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What keeps from saying that nobody is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remaining {
    /// These would not go.
    Alive(Vec<u32>),
    /// The processes could not be looked at; for want of what, if it is that.
    Unknown(Option<Scarce>),
}

/// What one look at the process table found.
#[derive(Debug, Default)]
struct Look {
    /// The marked processes and their groups.
    marked: Vec<Found>,
    /// Whether every program showed its environment.
    all_shown: bool,
}

/// A process that is to be ended.
#[derive(Debug, Clone, Copy)]
struct Found {
    pid: u32,
    start_ticks: u64,
    uid: u32,
}

fn look(is_mark: &impl Fn(u32, &[u8]) -> bool) -> io::Result<Look> {
    let entries = std::fs::read_dir("/proc")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let table = pids.filter(|pid| *pid != std::process::id()).filter_map(process::entry);
    // Who is in between two users is nobody's: a set-uid program that somebody else has started.
    let table: Vec<_> = table.filter_map(|entry| Some((entry, process::only_user(entry.pid)?))).collect();
    let (mut all_shown, mut unread) = (true, None);
    let mut room = vec![0; ENVIRON_BYTES_MAX];
    let is_marked = |(entry, uid): &&(process::Entry, u32)| {
        let environ = match environ(entry.pid, &mut room) {
            Ok(environ) => environ,
            // It may have ended meanwhile, or be somebody else's; but not for want of something here.
            Err(error) => {
                unread = unread.take().or(Scarce::of(&error).map(|_| error));
                &[]
            }
        };
        all_shown &= !environ.is_empty() || !runs_a_program(entry.pid);
        environ.split(|byte| *byte == 0).any(|variable| is_mark(*uid, variable))
    };
    let ours: Vec<&(process::Entry, u32)> = table.iter().filter(is_marked).collect();
    if let Some(error) = unread {
        return Err(error);
    }
    // Only a group of the command's own: its leader is, or was, one of them.
    let mut groups: BTreeSet<(u32, u32)> = ours.iter().map(|(entry, uid)| (entry.group, *uid)).collect();
    groups.retain(|(group, _)| *group != own_group());
    let is_theirs = |found: &&(process::Entry, u32)| groups.contains(&(found.0.group, found.1)) || ours.contains(found);
    let found =
        |(entry, uid): &(process::Entry, u32)| Found { pid: entry.pid, start_ticks: entry.start_ticks, uid: *uid };
    Ok(Look { marked: table.iter().filter(is_theirs).map(found).collect(), all_shown })
}

/// Not a thread of the kernel, nor one that has ended: those never show an environment.
fn runs_a_program(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

fn own_group() -> u32 {
    rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs()
}

/// The environment of a process, read in one piece: between two, another program may have taken its place.
fn environ(pid: u32, room: &mut [u8]) -> io::Result<&[u8]> {
    let read = std::fs::File::open(format!("/proc/{pid}/environ")).and_then(|mut file| file.read(room))?;
    Ok(&room[..read])
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::process::Stdio;

    use super::*;

    #[tokio::test]
    async fn ends_who_is_marked_with_its_group_and_nobody_else() {
        let mark = format!("AFTERHOURS_TEST={}", uuid::Uuid::now_v7());
        let value = mark.split_once('=').unwrap().1.to_owned();
        let start = |script: &str, value: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).env("AFTERHOURS_TEST", value).process_group(0);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        // One that does not care for TERM, one whose child has cleared its environment, and a stranger.
        let mut deaf = start("trap '' TERM; while :; do sleep 1000; done", &value);
        let mut parent = start("env -i sleep 1000 & wait", &value);
        let mut stranger = start("exec sleep 1000", "another");
        let own = rustix::process::geteuid().as_raw();
        let is_mark = move |uid: u32, variable: &[u8]| uid == own && variable == mark.as_bytes();
        let ended = end(is_mark.clone()).await.unwrap();
        assert!(ended.contains(&deaf.id()) && ended.contains(&parent.id()), "{ended:?}");
        assert!(!ended.contains(&stranger.id()), "{ended:?}");
        deaf.wait().unwrap();
        parent.wait().unwrap();
        assert_eq!(end(is_mark.clone()).await, Ok(Vec::new()));
        assert_eq!(end(move |uid, variable: &[u8]| is_mark(uid + 1, variable)).await, Ok(Vec::new()));
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn a_mark_is_one_users() {
        assert_eq!(mark_of("secret", 7), mark_of("secret", 7));
        assert_ne!(mark_of("secret", 7), mark_of("secret", 0));
        assert_ne!(mark_of("secret", 7), mark_of("other", 7));
    }

    /// While a program replaces itself, it shows no environment for a moment.
    #[tokio::test]
    async fn who_becomes_another_program_all_the_time_is_found() {
        for _ in 0..20 {
            let mark = format!("AFTERHOURS_TEST={}", uuid::Uuid::now_v7());
            let mut restless = Command::new("sh");
            restless.args(["-c", "exec sh -c \"$AGAIN\""]).env("AGAIN", "exec sh -c \"$AGAIN\"");
            restless.env("AFTERHOURS_TEST", mark.split_once('=').unwrap().1).process_group(0);
            let mut restless = restless.spawn().unwrap();
            let ended = end(move |_: u32, variable: &[u8]| variable == mark.as_bytes()).await.unwrap();
            // Nobody is left running where it was not found.
            let _ = restless.kill();
            restless.wait().unwrap();
            assert!(ended.contains(&restless.id()), "{ended:?}");
        }
    }
}
