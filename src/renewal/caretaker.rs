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
use crate::renewal::record::Record;

/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How many times its deadline one may hold the lock: under it programs are read and written, which takes as long as the
/// machine is busy.
const LOCKED_DEADLINES: u32 = 3;

/// Watches the renewal in `data_dir` until it is over; what is to be run then, if nobody else does it.
///
/// # Errors
/// The record cannot be read or written, or the old program not be put back.
pub async fn watch(data_dir: &Path) -> Result<Option<Relaunch>, RenewalError> {
    let dir = RecordDir::from(data_dir);
    let mut patience = Patience::new(0);
    let mut ended = None;
    loop {
        // Held by whoever is at it just now; that one lives, and may hang.
        let lock = dir.try_lock()?;
        let mut record = dir.load()?;
        // Whoever we ended may have come up in its last moment.
        let Some(pending) = record.pending.clone() else { return Ok(ended) };
        if pending.unwatched {
            return Ok(None);
        }
        let was_over = patience.over;
        match pending.prover.filter(|it| process::life(it.pid, it.start_ticks) != Life::Dead) {
            Some(prover) => {
                if patience.is_over(&pending, lock.is_some()) {
                    process::signal(prover.pid, prover.start_ticks, Signal::KILL).at("end", &pending.program)?;
                    ended = Some(relaunch(&pending));
                }
            }
            None => {
                if let Some(lock) = &lock {
                    return take_back(&dir, lock, &mut record, &pending, was_over).await.map(Some);
                }
            }
        }
        // Whoever comes up needs it. This ends with the renewal and not before: as long as somebody lives who may come up, or
        // holds the lock, one who went would leave nobody to put the old program back.
        drop(lock);
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// How long the one that is to come up has been waited for.
struct Patience {
    starts: u32,
    since: Instant,
    /// Since when the lock could not be had: whoever comes up needs it for a moment only.
    locked_since: Option<Instant>,
    over: bool,
}

impl Patience {
    fn new(starts: u32) -> Self {
        Self { starts, since: Instant::now(), locked_since: None, over: false }
    }

    /// Each one that begins has its own time, and so has each one that holds the lock: it may be about to come up.
    fn is_over(&mut self, pending: &Pending, has_lock: bool) -> bool {
        if self.starts != pending.starts {
            *self = Self::new(pending.starts);
        }
        if has_lock {
            self.locked_since = None;
        } else {
            self.locked_since.get_or_insert_with(Instant::now);
        }
        let deadline = pending.deadline.duration();
        self.over = match self.locked_since {
            Some(since) => since.elapsed() >= deadline * LOCKED_DEADLINES,
            None => self.since.elapsed() >= deadline,
        };
        self.over
    }
}

/// The one that was to come up is gone; what is to be run in its place.
async fn take_back(
    dir: &RecordDir,
    lock: &Lock,
    record: &mut Record,
    pending: &Pending,
    was_over: bool,
) -> Result<Relaunch, RenewalError> {
    let reason = match was_over {
        true => format!("it did not come up within {}", pending.deadline),
        false => "it ended before it had come up".to_owned(),
    };
    match next(pending, in_place(pending).await?) {
        Next::Prove | Next::GoBack(_) => return go_back(dir, lock, record, &reason).await,
        Next::Forget => {
            record.end(Ending::NotTried { reason: "Afterhours ended before it came to it".to_owned() });
            dir.save(record)?;
        }
        // Whoever begins puts the store back.
        Next::PutStoreBack(_) => {}
    }
    Ok(relaunch(pending))
}

fn relaunch(pending: &Pending) -> Relaunch {
    Relaunch { program: pending.program.clone(), args: pending.args.clone(), alone: pending.alone }
}
