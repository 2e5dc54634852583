//! The vocabulary: what a job, a run, a step, a release, a session and a gate are.
//!
//! Floor 1, the lowest: everything above speaks in these words. Nothing here does input or
//! output, and nothing knows the async runtime; [`clock`] is the one place that reads the wall
//! clock, and only for the shells that hand `now` to pure code as an argument.
//!
//! [`step`] holds the one table that decides the order of a run.

pub mod answers;
pub mod clock;
pub mod command;
pub mod doubt;
pub mod event;
pub mod evidence;
pub mod failure;
pub mod finding;
pub mod foreign;
pub mod gate;
pub mod held;
pub mod hex;
pub mod history;
pub mod job;
pub mod letter;
pub mod name;
pub mod plain;
pub mod progress;
pub mod release;
pub mod run;
pub mod session;
pub mod span;
pub mod step;
pub mod update_check;
