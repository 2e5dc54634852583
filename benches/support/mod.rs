//! What the benchmarks share.

pub(crate) mod dice;
pub(crate) mod figures;
pub(crate) mod process;
pub(crate) mod store;
