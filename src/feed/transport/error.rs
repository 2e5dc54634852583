//! Why something could not be fetched, and what to do about it.
//!
//! Every variant names the address without user, password and query, since those may be secrets. The
//! licence number is in none of them.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;
use thiserror::Error;

use crate::domain::failure::FailureCode;
use crate::domain::span::Span;
use crate::feed::error::hint_for_write;
use crate::feed::transport::licence::Refusal;
use crate::wire::error::ErrorKind;

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
    #[error("understand the certificates in {}: {problem}", .file.display())]
    BadAuthority {
        /// `feed.ca_file`.
        file: PathBuf,
        /// Why.
        problem: String,
    },
    /// The proxy's address cannot be used.
    #[error("use the proxy {proxy}")]
    BadProxy {
        /// `feed.proxy`.
        proxy: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// No client can be made at all.
    #[error("prepare for fetching")]
    Prepare {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The address is neither `http://` nor `https://`.
    #[error("fetch {url}: it is no address of a web server")]
    BadAddress {
        /// The address.
        url: String,
    },

    /// The file with the licence number cannot be read.
    #[error("read the licence number in {}", .file.display())]
    ReadLicence {
        /// `feed.licence_file`.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file with the licence number holds something else.
    #[error("understand the licence number in {}: it is not one line of printable ASCII", .file.display())]
    BadLicence {
        /// `feed.licence_file`.
        file: PathBuf,
    },
    /// The licence number would be readable on its way.
    #[error("fetch {url}: the licence number is not sent without encryption")]
    LicenceInClear {
        /// The address.
        url: String,
    },
    /// The vendor's server knows this site's licence and says no.
    #[error("fetch {url}: {}", .refusal.text())]
    Licence {
        /// The address.
        url: String,
        /// What it says.
        refusal: Refusal,
    },

    /// No connection comes about.
    #[error("fetch {url}: the server cannot be reached")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server cannot prove that it is the one.
    #[error("fetch {url}: the server's certificate is not trusted")]
    Untrusted {
        /// The address.
        url: String,
        /// What the certificate was measured by.
        trusted: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The proxy asks for other credentials, or for some.
    #[error("fetch {url}: the proxy asks for a user and a password that it knows ({status})")]
    ProxyLogin {
        /// The address.
        url: String,
        /// How it says so: 407, or 401 where it takes itself for the server.
        status: u16,
    },
    /// The proxy cannot or will not connect to the server.
    #[error("fetch {url}: the proxy does not connect to the server")]
    ProxyRefused {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing comes any more.
    #[error("fetch {url}: the server is silent; it was waited {waited} to {stage}")]
    Silent {
        /// The address.
        url: String,
        /// For what: `connect`, `get an answer`, `go on`.
        stage: &'static str,
        /// How long.
        waited: Span,
    },
    /// Something comes, but so little that it would never end.
    #[error("fetch {url}: the server sends less than {bytes_per_second_min} bytes a second, for {watched}")]
    TooSlow {
        /// The address.
        url: String,
        /// The least that is accepted.
        bytes_per_second_min: u64,
        /// How long it was watched.
        watched: Span,
    },
    /// The connection breaks off.
    #[error("fetch {url}: the connection broke off")]
    Broken {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The body ends before its time.
    #[error("fetch {url}: it ended after {found} of {declared} bytes")]
    Short {
        /// The address.
        url: String,
        /// As declared.
        declared: u64,
        /// What there is.
        found: u64,
    },

    /// The server answers with a status that is none of those expected.
    #[error("fetch {url}: the server answers {status}")]
    Status {
        /// The address.
        url: String,
        /// The answer.
        status: StatusCode,
        /// When it may be asked again, as it says.
        retry_after: Option<Duration>,
    },
    /// There is nothing at the address.
    #[error("fetch {url}: it is not there")]
    Absent {
        /// The address.
        url: String,
    },
    /// The server sends from one address to the next.
    #[error("fetch {url}: the server redirects more than {max} times")]
    TooManyRedirects {
        /// The address.
        url: String,
        /// The limit.
        max: u32,
    },
    /// The server sends to an address where nothing is fetched from.
    #[error("fetch {url}: the server redirects to {to}")]
    BadRedirect {
        /// The address.
        url: String,
        /// Where to.
        to: String,
    },
    /// The body is packed, which was not asked for.
    #[error("fetch {url}: the server sends it encoded as {encoding}")]
    Encoded {
        /// The address.
        url: String,
        /// As the server calls it.
        encoding: String,
    },
    /// The server sends more than was declared, or than is accepted.
    #[error("fetch {url}: the server sends more than {bytes_max} bytes")]
    TooLarge {
        /// The address.
        url: String,
        /// The limit.
        bytes_max: u64,
    },
    /// The server announces another length than was declared.
    #[error("accept {url}: it has {found} bytes instead of {declared}")]
    WrongSize {
        /// The address.
        url: String,
        /// As the release says.
        declared: u64,
        /// As the server says.
        found: u64,
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
    /// Somebody else fetches the same file and does not come to an end.
    #[error("fetch into {}: it is being done already, and was not done within {waited}", .path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Span,
    },
    /// The thread that did the work is gone.
    #[error("finish the work on {}: its thread ended unexpectedly", .path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl TransportError {
    /// A stable name for scripts, where there is one.
    pub const fn code(&self) -> Option<FailureCode> {
        match self {
            Self::Licence { refusal, .. } => Some(refusal.code()),
            Self::ProxyLogin { .. } => Some(FailureCode::ServerUnreachable),
            _ if self.is_away() => Some(FailureCode::ServerUnreachable),
            _ => None,
        }
    }

    /// What kind of error it is; the command line makes its exit code of it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Licence { .. } | Self::LicenceInClear { .. } => ErrorKind::Refused,
            Self::ProxyLogin { .. } => ErrorKind::Unavailable,
            _ if self.is_away() => ErrorKind::Unavailable,
            _ => ErrorKind::Failed,
        }
    }

    /// Whether the server could not be reached, or not for as long as it takes; nothing is said against it otherwise.
    const fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::ProxyRefused { .. }
            | Self::Silent { .. }
            | Self::TooSlow { .. }
            | Self::Broken { .. }
            | Self::Short { .. } => true,
            Self::Status { status, .. } => is_passing(*status),
            _ => false,
        }
    }

    /// Whether it may be otherwise in a moment.
    pub(in crate::feed) const fn is_passing(&self) -> bool {
        self.is_away()
    }

    /// When the server may be asked again, as it says.
    pub(in crate::feed) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ReadAuthority { .. } | Self::BadAuthority { .. } => {
                "put the certificate of the server or of its authority there as PEM, or correct feed.ca_file".to_owned()
            }
            Self::BadProxy { .. } => "write feed.proxy as \"http://HOST:PORT\"".to_owned(),
            Self::BadAddress { .. } => "write feed.url as \"https://HOST/PATH/\"".to_owned(),
            Self::ReadLicence { .. } | Self::BadLicence { .. } => {
                "put the licence number there, alone in one line, or correct feed.licence_file".to_owned()
            }
            Self::LicenceInClear { .. } => {
                "write feed.url with https://, or take feed.licence_file out if this feed asks for none".to_owned()
            }
            Self::Licence { refusal, .. } => refusal.hint().to_owned(),
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Broken { .. } => {
                "check feed.url, this host's network and feed.proxy; it is tried again at the next check".to_owned()
            }
            Self::Untrusted { trusted, .. } => {
                format!(
                    "it was measured by {trusted}; ask the vendor for its authority's certificate and set feed.ca_file"
                )
            }
            Self::ProxyLogin { .. } => "set feed.proxy_user and feed.proxy_password_file".to_owned(),
            Self::ProxyRefused { .. } => {
                "check feed.proxy_user and feed.proxy_password_file, ask who runs the proxy to let this host reach the server, or \
                 name the server in feed.no_proxy"
                    .to_owned()
            }
            Self::TooSlow { .. } | Self::Short { .. } => {
                "what there is of it is kept; try again later, or tell the vendor".to_owned()
            }
            Self::Status { status, .. } if status.as_u16() == 403 => {
                "ask the vendor whether this site may read the feed".to_owned()
            }
            Self::Status { status, .. } if status.is_server_error() => {
                "tell the vendor, and try again later".to_owned()
            }
            Self::Status { .. } | Self::Absent { .. } => "check feed.url; if it is right, tell the vendor".to_owned(),
            Self::TooManyRedirects { .. } | Self::BadRedirect { .. } => {
                "write feed.url as the address that the files are really at".to_owned()
            }
            Self::Encoded { .. } => "tell the vendor to switch compression off for the feed's files".to_owned(),
            Self::TooLarge { .. } | Self::WrongSize { .. } | Self::WrongHash { .. } => {
                "nothing of it was used; tell the vendor that the server's copy is not the one that was signed"
                    .to_owned()
            }
            Self::File { source, .. } => return hint_for_write(source),
            Self::Busy { .. } => "look for another run or prefetch of this application".to_owned(),
            Self::Prepare { .. } | Self::Thread { .. } => return None,
        })
    }
}

/// Whether an answer says no for now only.
const fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504 | 506..=599)
}
