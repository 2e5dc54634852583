//! HTTP over a Unix socket; one file per resource.

pub mod caller;
pub mod door;
pub mod events;
mod extract;
pub mod gate_check;
pub mod server;
pub mod workstations;
