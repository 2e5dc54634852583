//! What a run does.
//!
//! ```text
//! loop: log ─fold─► machine ─decide(now)─► decision ─► append intent ─► act ─► append result
//! ```
//!
//! [`machine`] and [`decide`] are pure; [`engine`] does what they say and owns no policy; `steps/`
//! holds one file a step. The order of the steps is not here: it is the table of
//! [`crate::domain::step`].

mod blame;
pub(crate) mod commands;
pub mod decide;
pub mod driver;
pub mod engine;
pub mod gatekeeper;
pub mod history;
pub(crate) mod installed;
pub mod kept;
pub mod kit;
mod known;
pub mod lock;
pub mod machine;
mod mark;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod picture_tests;
pub mod plan;
pub mod preflight;
pub mod select;
mod self_update;
pub mod site;
pub mod steps;
pub mod update_check;
