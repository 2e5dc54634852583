//! Paths, files and accounts of a machine that others use, too.
//!
//! Afterhours works as root among users who are not. What comes back everywhere is answered here, once:
//! - [`trusted`]: can anybody but root change what this path names?
//! - [`small`]: how is a file read whose directory belongs to somebody else?
//! - [`staged`]: what is known of a staged tree, without asking the tree?
//! - [`account`]: which user is this, by name and by number?
//! - [`identity`]: how is work on files done with no more than a user's rights?
//! - [`pinned`]: which servers does the certificate of a `ca_file` stand for?
//! - [`dirs`]: a directory that others may look into, whatever our umask is.

pub mod account;
pub mod dirs;
pub mod identity;
pub mod pinned;
pub mod small;
pub mod staged;
pub mod trusted;
