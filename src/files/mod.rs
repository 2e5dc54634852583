//! Paths, files and accounts of a machine that others use, too.
//!
//! Afterhours works as root among users who are not. Three questions come back everywhere, and each is answered here
//! once:
//! - [`trusted`]: can anybody but root change what this path names?
//! - [`small`]: how is a file read whose directory belongs to somebody else?
//! - [`account`]: which user is this, by name and by number?

pub mod account;
pub mod small;
pub mod trusted;
