//! Commands that outlived the process that ran them.
//!
//! A command is ended with its group when its future is dropped, but nobody drops futures of a
//! process that was killed: the command runs on. Whoever repeats or undoes its work must end it
//! first. It is known by a variable that it was given and that its children inherit, and by the
//! process group it leads.
//!
//! Deliberately absent: what has left the group and cleared its environment is not found.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::exec::TERM_WAIT;
use crate::exec::process;

/// How long what was killed may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long it is looked again where somebody shows no environment: a program that is just being replaced by another
/// (`exec`) shows none for a moment, and must not slip through.
const SETTLE_WAIT: Duration = Duration::from_millis(500);
/// More of an environment is not read.
const ENVIRON_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Ends every process, other than this one, that has a variable for which `is_mark` holds (`NAME=value`), and
/// whoever shares a group with one: TERM, two seconds, KILL. Answers with the numbers of those that were there, or, as an
/// error, of those that would not go.
///
/// # Errors
/// Somebody is still there long after KILL.
pub async fn end(is_mark: impl Fn(&[u8]) -> bool + Send + Sync + Clone + 'static) -> Result<Vec<u32>, Vec<u32>> {
    let began = Instant::now();
    let mut met = BTreeSet::new();
    let mut asked = BTreeSet::new();
    loop {
        let looked = is_mark.clone();
        // Without the process table nobody is found; a machine without /proc runs nothing of ours.
        let look = tokio::task::spawn_blocking(move || look(&looked)).await.unwrap_or_default();
        let left = look.marked;
        if left.is_empty() && (look.all_shown || began.elapsed() >= SETTLE_WAIT) {
            return Ok(met.into_iter().collect());
        }
        met.extend(left.iter().map(|(pid, _)| *pid));
        if began.elapsed() >= TERM_WAIT + KILL_WAIT {
            return Err(left.into_iter().map(|(pid, _)| pid).collect());
        }
        for (pid, start_ticks) in left {
            let kill = began.elapsed() >= TERM_WAIT;
            if kill || asked.insert((pid, start_ticks)) {
                // Who may not be signalled is still there in the end, and is named then.
                let _ = process::signal(pid, start_ticks, if kill { Signal::KILL } else { Signal::TERM });
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What one look at the process table found.
#[derive(Debug, Default)]
struct Look {
    /// The marked processes and their groups, each with its start.
    marked: Vec<(u32, u64)>,
    /// Whether every program showed its environment.
    all_shown: bool,
}

fn look(is_mark: &impl Fn(&[u8]) -> bool) -> Look {
    let Ok(entries) = fs_err::read_dir("/proc") else { return Look { all_shown: true, ..Look::default() } };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let table: Vec<process::Entry> = pids.filter(|pid| *pid != std::process::id()).filter_map(process::entry).collect();
    let mut all_shown = true;
    let mut room = vec![0; ENVIRON_BYTES_MAX];
    let is_marked = |entry: &&process::Entry| {
        let environ = environ(entry.pid, &mut room);
        all_shown &= !environ.is_empty() || !runs_a_program(entry.pid);
        environ.split(|byte| *byte == 0).any(is_mark)
    };
    let ours: Vec<&process::Entry> = table.iter().filter(is_marked).collect();
    // Only a group of the command's own: its leader is, or was, one of them.
    let groups: BTreeSet<u32> = ours.iter().map(|entry| entry.group).filter(|group| *group != own_group()).collect();
    let mates = table.iter().filter(|entry| groups.contains(&entry.group) || ours.contains(entry));
    Look { marked: mates.map(|entry| (entry.pid, entry.start_ticks)).collect(), all_shown }
}

/// Not a thread of the kernel, nor one that has ended: those never show an environment.
fn runs_a_program(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

fn own_group() -> u32 {
    rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs()
}

/// The environment of a process, read in one piece: between two, another program may have taken its place.
fn environ(pid: u32, room: &mut [u8]) -> &[u8] {
    // It may have ended meanwhile, or be somebody else's.
    let read = std::fs::File::open(format!("/proc/{pid}/environ")).and_then(|mut file| file.read(room)).unwrap_or(0);
    &room[..read]
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
        let mut stranger = start("sleep 1000", "another");
        let is_mark = move |variable: &[u8]| variable == mark.as_bytes();
        let ended = end(is_mark.clone()).await.unwrap();
        assert!(ended.contains(&deaf.id()) && ended.contains(&parent.id()), "{ended:?}");
        assert!(!ended.contains(&stranger.id()), "{ended:?}");
        deaf.wait().unwrap();
        parent.wait().unwrap();
        assert_eq!(end(is_mark).await, Ok(Vec::new()));
        stranger.kill().unwrap();
        stranger.wait().unwrap();
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
            let ended = end(move |variable: &[u8]| variable == mark.as_bytes()).await.unwrap();
            // Nobody is left running where it was not found.
            let _ = restless.kill();
            restless.wait().unwrap();
            assert!(ended.contains(&restless.id()), "{ended:?}");
        }
    }
}
