//! Who has which files open for writing, as far as `/proc` shows.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// No more processes are looked at.
const PROCESSES_MAX: usize = 20_000;
/// No more open files are looked at in one go.
pub const FILES_MAX: usize = 200_000;

/// The processes of this machine but this one.
pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let us = std::process::id();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != us).take(PROCESSES_MAX).collect()
}

/// The name of a process, as it calls itself.
pub fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    crate::domain::plain::one_line(name.trim())
}

/// What of `is_meant` a process has open for writing: it is asked with the path of an open file, as that was when it was opened,
/// and with one that leads to the file itself. `files_left` counts down; at 0 nothing more is looked at.
///
/// # Errors
/// It cannot be looked at. A process that has ended has nothing open.
pub fn written_by(
    pid: u32,
    files_left: &mut usize,
    mut is_meant: impl FnMut(&Path, &Path) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let entries = match fs::read_dir(proc.join("fd")) {
        Err(error) if has_ended(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = match entry {
            Err(error) if has_ended(&error) => break,
            entry => entry?,
        };
        let Some(left) = files_left.checked_sub(1) else { break };
        *files_left = left;
        let Ok(file) = fs::read_link(entry.path()) else { continue };
        if is_meant(&file, &entry.path()) && is_written(&proc.join("fdinfo").join(entry.file_name())) {
            found.push(file);
        }
    }
    Ok(found)
}

fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn is_written(info: &Path) -> bool {
    let info = fs::read_to_string(info).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0) & 0b11 != 0
}
