//! The swap, the snapshot and their ways back, on real file systems, killed and cut off.

pub(crate) mod app;
mod check;
mod crash;
pub(crate) mod manifest;
pub(crate) mod mounted;
mod odd;
mod snapshot;
mod swap;
