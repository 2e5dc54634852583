//! How long work tells how far it is.

/// Receives the progress of one long piece of work; called often, so it must be cheap.
pub trait Progress: Send + Sync {
    /// `done` of `total` units (bytes, files, seconds), with a short word on what is going on.
    fn advance(&self, done: u64, total: Option<u64>, what: &str);
}

/// Nobody listens.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn advance(&self, _done: u64, _total: Option<u64>, _what: &str) {}
}
