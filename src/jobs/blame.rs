//! Whose fault a failure is. A release is held back only for what it did itself.
//!
//! Its own are: its migration failed, it did not come up, it did not answer. Not its own are crashes, cancelled runs, the
//! administrator's hooks, and whatever the machine has too little of or cannot do: full disks, broken disks, memory.
//! In doubt a release is not to blame: it is tried again, and fails again if it is bad.

use std::path::Path;
use std::path::PathBuf;

use crate::config::settings::AppSettings;
use crate::config::settings::DataSettings;
use crate::domain::failure::Failure;
use crate::exec::ExecError;

/// What the system says when it cannot do what a program asks for; programs repeat it.
const OF_THE_MACHINE: [&str; 13] = [
    "no space left on device",
    "disk full",
    "disk is full",
    "disk quota exceeded",
    "input/output error",
    "i/o error",
    "read-only file system",
    "structure needs cleaning",
    "stale file handle",
    "cannot allocate memory",
    "out of memory",
    "too many open files",
    "resource temporarily unavailable",
];
/// A disk with less room than this is full.
const ROOM_BYTES_MIN: u64 = 1024 * 1024;

/// Whether a command of the release's own failed by itself.
pub(crate) fn is_of_command(error: &ExecError) -> bool {
    match error {
        // Whoever is killed was killed by somebody: an operator, or the machine for want of memory.
        ExecError::Failed { status, .. } => !matches!(status.as_str(), "signal 9" | "signal 15"),
        ExecError::Overdue { .. } => true,
        ExecError::Spawn { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        ExecError::Refused { .. } | ExecError::Log { .. } | ExecError::Wait { .. } => false,
    }
}

/// Leaves the blame on the release only where nothing speaks for the machine.
pub(crate) fn settle(app: &AppSettings, failure: Failure) -> Failure {
    let of_release = failure.of_release && !of_machine(&failure) && !is_full(app);
    failure.of_release(of_release)
}

fn of_machine(failure: &Failure) -> bool {
    let lines = failure.exhibits.iter().flat_map(|exhibit| &exhibit.lines);
    let mut all = lines.chain(&failure.said).chain(&failure.because).chain(std::iter::once(&failure.message));
    failure.scarce.is_some()
        || all.any(|line| {
            let line = line.to_lowercase();
            OF_THE_MACHINE.iter().any(|words| line.contains(words))
        })
}

/// Whether a disk that the application writes to has no room left.
fn is_full(app: &AppSettings) -> bool {
    let data = match &app.data {
        DataSettings::Paths { paths, .. } => paths.as_slice(),
        _ => &[],
    };
    let full = |path: &Path| {
        rustix::fs::statvfs(path).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_BYTES_MIN)
    };
    data.iter().map(PathBuf::as_path).chain([app.install_dir.as_path(), Path::new("/tmp")]).any(full)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("KeyError: 'vat'", false)]
    #[case("django.db.utils.OperationalError: could not extend file: No space left on device", true)]
    #[case("sqlite3.OperationalError: disk I/O error", true)]
    #[case("OSError: [Errno 30] Read-only file system: '/var/lib/orders'", true)]
    fn what_the_machine_cannot_do_is_not_the_releases_fault(#[case] said: &str, #[case] machine: bool) {
        let failure = Failure { said: vec![said.to_owned()], ..Failure::new("run the migration of 2.0 (build 2)") };
        assert_eq!(of_machine(&failure), machine);
    }

    #[rstest]
    #[case("exit status 1", true)]
    #[case("signal 11", true)]
    #[case("signal 9", false)]
    fn who_is_killed_did_not_fail(#[case] status: &str, #[case] of_release: bool) {
        let (program, status) = ("migrate".to_owned(), status.to_owned());
        assert_eq!(is_of_command(&ExecError::Failed { program, status, said: Vec::new() }), of_release);
    }
}
