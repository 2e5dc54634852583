//! All SQL: one file a table, one thread that writes.
//!
//! Floor 2. It stores and finds; it knows no policy. What must never be is a CHECK or an index in
//! `migrations/`; what must be read and written together is one immediate transaction.
//! `rusqlite` is named nowhere else.

pub mod audit;
pub mod chain;
pub mod clock;
pub mod copy;
pub mod events;
pub mod gates;
pub mod history;
pub mod jobs;
pub mod outbox;
pub mod quarantine;
mod reserve;
pub mod retention;
pub mod runs;
pub mod sessions;
pub mod store;
#[cfg(test)]
mod tests;
pub mod unreadable;
pub mod update_checks;
