//! What can go wrong in the sample application.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Something the sample application could not do.
#[derive(Debug, Error)]
pub enum SampleError {
    /// A file cannot be used.
    #[error("{call} {}", .path.display())]
    File {
        /// What was tried.
        call: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not say what it should.
    #[error("understand {}", .path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The data are of another schema.
    #[error("work with data of schema {found}: this version knows schema {known}")]
    Schema {
        /// That of the data.
        found: u32,
        /// That of the program.
        known: u32,
    },
    /// An order does not have the form of its schema.
    #[error("read order {line} in schema {schema}")]
    Order {
        /// The line, counted from 1.
        line: usize,
        /// The schema.
        schema: u32,
    },
    /// The server cannot listen.
    #[error("listen at {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Signals cannot be waited for.
    #[error("wait for signals")]
    Signals(#[source] io::Error),
    /// The server cannot be asked.
    #[error("ask the server for {page}")]
    Ask {
        /// The page.
        page: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server did not come back.
    #[error("enter an order: the server was away for too long")]
    Away,
}

impl SampleError {
    /// `call` failed for `path`.
    pub(crate) fn file(call: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { call, path, source }
    }

    /// `path` says something else.
    pub(crate) fn text<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Text { path, source: source.into() }
    }
}
