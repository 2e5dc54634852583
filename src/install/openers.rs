//! Who writes to the installation that is not the application: an editor, a backup agent, a scanner.
//! After the swap they would go on writing to the old version.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use crate::config::settings::AppSettings;
use crate::config::settings::ServiceControl;
use crate::domain::finding::Finding;
use crate::exec::openers;

/// No more are named.
const NAMED_MAX: usize = 5;
/// How far up we look for our own service manager.
const ANCESTORS_MAX: usize = 16;

/// Warns of processes that keep a file of the installation open for writing.
pub(super) fn check(app: &AppSettings) -> Finding {
    const CHECK: &str = "open_files";
    let dir = fs::canonicalize(&app.install_dir).unwrap_or_else(|_| app.install_dir.clone());
    let owner = fs::metadata(&dir).map(|about| about.uid()).ok().filter(|uid| *uid != 0);
    let mut found = Vec::new();
    let mut files_left = openers::FILES_MAX;
    for pid in openers::processes() {
        let written = openers::written_by(pid, &mut files_left, |file, _| file.starts_with(&dir));
        // Whom we may not look at is none of ours to name.
        let first = written.unwrap_or_default().into_iter().next();
        if let Some(file) = first
            && !belongs_to_service(app, &PathBuf::from(format!("/proc/{pid}")), &dir, owner)
        {
            let name = openers::name(pid);
            found.push(format!("{name} (process {pid}) has {} open for writing", file.display()));
        }
        if found.len() == NAMED_MAX || files_left == 0 {
            break;
        }
    }
    if found.is_empty() {
        return Finding::good(CHECK, "nothing but the application writes to the installation");
    }
    Finding::warning(CHECK, found.join("; "), "end it before the update, or it goes on writing to the old version")
}

/// Whether a process is a part of the application, as far as one can tell: by its control group, its program, its directory, its user, or because we started it.
fn belongs_to_service(app: &AppSettings, proc: &Path, dir: &Path, owner: Option<u32>) -> bool {
    let points_below = |link: &str| fs::read_link(proc.join(link)).is_ok_and(|path| path.starts_with(dir));
    let in_unit = match &app.service.control {
        ServiceControl::Systemd { units } => {
            let group = fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
            group.lines().any(|line| line.split('/').any(|part| units.iter().any(|unit| part == unit)))
        }
        _ => false,
    };
    let is_owner = || fs::metadata(proc).is_ok_and(|about| Some(about.uid()) == owner);
    in_unit || points_below("exe") || points_below("cwd") || is_owner() || is_ours(proc)
}

/// Whether a process descends from a supervising Afterhours.
fn is_ours(proc: &Path) -> bool {
    let mut proc = proc.to_owned();
    for _ in 0..ANCESTORS_MAX {
        let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        let Some(parent) = parent.filter(|parent| *parent > 1) else { return false };
        proc = PathBuf::from(format!("/proc/{parent}"));
        if fs::read_to_string(proc.join("comm")).is_ok_and(|name| name.trim() == "afterhours") {
            return true;
        }
    }
    false
}
