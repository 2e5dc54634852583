//! The secret of a run: commands that must not outlive us are known by what is made of it ([`crate::exec::leftover`]).
//!
//! It stands in a file of root's, since it must be found again after a crash, and not in the run's log, which many may
//! read. An application has one run at a time, so one file for each is enough.
//!
//! Invariant: it is durable before the first command knows it.

use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::domain::run::RunId;
use crate::files::small::read_small;
use crate::service::files::write_durably;

/// Its file in the directory with the state of an application.
const FILE: &str = "mark.json";
/// No such file is longer.
const BYTES_MAX: u64 = 4096;

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    run: RunId,
    secret: String,
}

/// The secret of a run; drawn, and kept, where there is none yet.
///
/// # Errors
/// It cannot be read or written.
pub(super) fn draw(state_dir: &Path, run: RunId) -> io::Result<String> {
    if let Some(secret) = find(state_dir, run)? {
        return Ok(secret);
    }
    let mark = Mark { run, secret: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()) };
    std::fs::create_dir_all(state_dir)?;
    write_durably(&state_dir.join(FILE), serde_json::json!(mark).to_string().as_bytes(), 0o600)?;
    Ok(mark.secret)
}

/// The secret of a run; nothing where none was drawn, and so no command knows it.
///
/// # Errors
/// It cannot be read.
pub(super) fn find(state_dir: &Path, run: RunId) -> io::Result<Option<String>> {
    let Some(text) = read_small(&state_dir.join(FILE), BYTES_MAX)? else { return Ok(None) };
    // What cannot be understood is no reason not to go on: a new one is drawn.
    let mark = serde_json::from_slice::<Mark>(&text).ok().filter(|mark| mark.run == run);
    Ok(mark.map(|mark| mark.secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn each_run_has_one_that_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("orders");
        assert_eq!(find(&state, RunId(1)).unwrap(), None);
        let first = draw(&state, RunId(1)).unwrap();
        assert_eq!(draw(&state, RunId(1)).unwrap(), first);
        assert_eq!(find(&state, RunId(1)).unwrap(), Some(first.clone()));
        let second = draw(&state, RunId(2)).unwrap();
        assert_ne!(first, second);
        assert_eq!(find(&state, RunId(1)).unwrap(), None, "that run is over");
        let mode = fs_err::metadata(state.join(FILE)).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, first.len()), (0o600, 64));
    }
}
