//! Whole nights with the real program: processes, files, mails, and `kill -9`.
//!
//! `site` is the place, `desk.py` the application, `releases` its versions, `truth` what must hold afterwards.

pub(crate) mod chance;
pub(crate) mod mail;
pub(crate) mod releases;
pub(crate) mod site;
pub(crate) mod truth;

pub(crate) mod alone;
mod armed;
mod away;
mod chain;
mod changed;
mod checks;
mod failing;
mod ill;
mod killed;
mod people;
mod plain;
mod post;
mod reload;
mod told;
mod turns;
mod undo;
mod unfit;
