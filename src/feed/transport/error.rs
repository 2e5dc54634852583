//! Why something could not be fetched, and what to do about it.
//!
//! Every variant names the address without user, password and query, since those may be secrets.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Something could not be fetched.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The authority's certificate cannot be read.
    #[error("read the certificates in {}", .file.display())]
    ReadAuthority {
        /// `feed.ca_file`.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The authority's file holds no certificate.
    #[error("understand the certificates in {}", .file.display())]
    BadAuthority {
        /// `feed.ca_file`.
        file: PathBuf,
        /// Why.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// No client can be made at all.
    #[error("prepare for fetching")]
    Prepare {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server answers with a status that is none of those expected.
    #[error("fetch {url}: the server answers {status}")]
    Status {
        /// The address.
        url: String,
        /// The answer.
        status: reqwest::StatusCode,
    },
    /// The connection fails.
    #[error("fetch {url}")]
    Http {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// There is nothing at the address.
    #[error("fetch {url}: it is not there")]
    Absent {
        /// The address.
        url: String,
    },
    /// The server sends more than was declared, or than is accepted.
    #[error("fetch {url}: the server sends more than {bytes_max} bytes")]
    TooLarge {
        /// The address.
        url: String,
        /// The limit.
        bytes_max: u64,
    },
    /// The bytes are not those that were asked for.
    #[error("accept {url}: its sha256 is {found} instead of {declared}")]
    WrongHash {
        /// The address.
        url: String,
        /// As the release says.
        declared: String,
        /// As it is.
        found: String,
    },
    /// A file of ours cannot be read or written.
    #[error("{operation} {}", .path.display())]
    File {
        /// What was done to it: `write`, `rename`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
