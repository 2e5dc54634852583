//! Watches the new program come up, and puts the old one back when it does not.
//!
//! It is a process of the old program, so nothing that is wrong with the new one can be wrong with it. It only looks at
//! the record and at the process that is expected to come up: whoever that is, the one that was replaced in its place or
//! one that an init system has started meanwhile.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::exec::process;
use crate::exec::process::Life;
use crate::renewal::RecordDir;
use crate::renewal::Relaunch;
use crate::renewal::decide::Next;
use crate::renewal::decide::next;
use crate::renewal::error::At;
use crate::renewal::error::RenewalError;
use crate::renewal::go_back;
use crate::renewal::in_place;
use crate::renewal::record::Ending;
use crate::renewal::record::Lock;
use crate::renewal::record::Pending;

/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What one look found.
enum Look {
    /// It is up, or was told to stop.
    Over,
    /// It lives and is not up yet.
    Waiting,
    /// It is gone; this is to be run in its place.
    Gone(Relaunch),
}

/// Watches the renewal in `data_dir` until it is over; what is to be run then, if nobody else does it.
///
/// # Errors
/// The record cannot be read or written, or the old program not be put back.
pub async fn watch(data_dir: &Path) -> Result<Option<Relaunch>, RenewalError> {
    let dir = RecordDir::from(data_dir);
    let mut patience = Patience { starts: 0, since: Instant::now(), over: false };
    loop {
        // Held by whoever is at it just now; that one is alive.
        if let Some(lock) = dir.try_lock()? {
            match look(&dir, &lock, &mut patience).await? {
                Look::Over => return Ok(None),
                Look::Gone(relaunch) => return Ok(Some(relaunch)),
                Look::Waiting => {}
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// How long the one that is to come up has been waited for.
struct Patience {
    starts: u32,
    since: Instant,
    over: bool,
}

impl Patience {
    /// Each one that begins has its own time.
    fn is_over(&mut self, pending: &Pending) -> bool {
        if self.starts != pending.starts {
            *self = Self { starts: pending.starts, since: Instant::now(), over: false };
        }
        self.over = self.since.elapsed() >= pending.deadline.duration();
        self.over
    }
}

async fn look(dir: &RecordDir, lock: &Lock, patience: &mut Patience) -> Result<Look, RenewalError> {
    let mut record = dir.load()?;
    let Some(pending) = record.pending.clone().filter(|pending| !pending.unwatched) else { return Ok(Look::Over) };
    let was_over = patience.over;
    if let Some(prover) = pending.prover.filter(|it| process::life(it.pid, it.start_ticks) != Life::Dead) {
        if patience.is_over(&pending) {
            process::signal(prover.pid, prover.start_ticks, Signal::KILL).at("end", &pending.program)?;
        }
        return Ok(Look::Waiting);
    }
    let reason = match was_over {
        true => format!("it did not come up within {}", pending.deadline),
        false => "it ended before it had come up".to_owned(),
    };
    let back = Relaunch { program: pending.program.clone(), args: pending.args.clone(), alone: pending.alone };
    match next(&pending, in_place(&pending).await?) {
        Next::Prove | Next::GoBack(_) => return go_back(dir, lock, &mut record, &reason).await.map(Look::Gone),
        Next::Forget => {
            record.end(Ending::NotTried { reason: "Afterhours ended before it came to it".to_owned() });
            dir.save(&record)?;
        }
        // Whoever begins puts the store back.
        Next::PutStoreBack(_) => {}
    }
    Ok(Look::Gone(back))
}
