//! Afterhours replaces itself in the middle of a run: with a good new program, and with every kind of bad one.
//!
//! `updater` publishes them. The good one is the program under test, changed so that it says another version and is another
//! file; the bad ones are scripts that let the real program rehearse, and fail when it counts. `signed` has them in a
//! signed feed.

pub(crate) mod signed;

mod alone;
mod bad;
mod good;
mod killed;
mod limits;
pub(crate) mod updater;
