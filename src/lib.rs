//! Afterhours updates self-hosted, multi-user applications while nobody works.
//!
//! `ARCHITECTURE.md` is the way in: it shows the floors of this house and walks through a night.

pub mod api;
pub mod backup;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
pub mod db;
pub mod domain;
pub mod exec;
pub mod feed;
pub mod files;
pub mod gate;
#[cfg(test)]
mod generated;
pub mod install;
pub mod jobs;
pub mod notify;
pub mod probe;
pub mod renewal;
pub mod sample;
pub mod scheduler;
pub mod service;
pub mod sessions;
pub mod wire;
