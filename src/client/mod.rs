//! Everything that talks to the daemon from outside of it.
//!
//! - [`api`]: one typed method for each route of the API.
//! - [`workstation`]: starts a program under the gate and keeps its session.
//! - [`ui`]: what the person in front of it sees and says; [`terminal`]: that on a terminal.

pub mod api;
pub mod terminal;
pub mod ui;
pub mod workstation;

mod connection;
mod error;
mod keys;
mod link;
mod program;
mod screen;
