//! When: which instant a job starts at, and the loop that starts it then.
//!
//! ```text
//!  pure                                     does things
//!  calendar   expression → next local time  dispatcher  arms ahead, fires at the instant
//!  resolve    local time → instant (DST)    timekeeper  sleeps on the wall clock, notices when it is set
//!  misfire    late? run, skip or ask        chores      the fixed housekeeping, in UTC
//!  pace       how long to wait             checks      when newer releases are looked for
//!                                          guard       whether the clock can be believed
//! ```
//!
//! *Invariant:* the store is the truth. Nothing is started that the store has not armed, and what it has armed is
//! started once: never early, never twice, and after a crash the store still lists it.
//!
//! Absent on purpose: jobs are not given to `tokio_cron_scheduler`, only the housekeeping is; [`chores`] says why.

pub mod calendar;
pub mod checks;
pub mod chores;
pub mod dispatcher;
pub mod due;
pub mod guard;
#[cfg(test)]
mod house_tests;
pub mod housekeeping;
pub mod launcher;
pub mod misfire;
mod pace;
pub mod post;
pub mod resolve;
pub mod retention;
pub mod timekeeper;
