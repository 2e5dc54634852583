//! How the daemon is asked: HTTP over its Unix socket, with a deadline and a largest size for
//! every answer.
//!
//! An answer that is not a success becomes the [`ErrorView`] that the daemon sent. Deliberately
//! absent: retries. Only [`Events`] can be taken up again, by the number of the last line that was
//! read; everything else is for the caller to repeat or not.

use std::error::Error;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::RequestBuilder;
use reqwest::Response;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use url::form_urlencoded;

use crate::wire::error::ErrorBody;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;
use crate::wire::run::ALIVE_SECS;
use crate::wire::run::RunEventView;

/// How long the daemon may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to answer from its store.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a followed log may be silent before the daemon counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(3 * ALIVE_SECS);
/// The largest answer that is read into memory.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The longest line of a log.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests over a Unix socket need a host in their address, but nobody looks at it.
const BASE: &str = "http://afterhours";

/// The daemon could not be asked, or did not do what it was asked.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The client could not be made.
    #[error("set up the connection to the daemon")]
    SetUp(#[source] reqwest::Error),
    /// Nobody listens at the socket, or we may not talk to it.
    #[error("reach the daemon at {}", .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke, or the answer came too late.
    #[error("get an answer to {request}")]
    Interrupted {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The daemon is silent.
    #[error("hear from the daemon for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// The answer is too large.
    #[error("read the answer to {request}: it is larger than {bytes_max} bytes")]
    TooLarge {
        /// Method and path.
        request: String,
        /// The limit.
        bytes_max: u64,
    },
    /// The answer is not what we expect.
    #[error("understand the answer to {request}")]
    Unreadable {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Somebody answers, but not with our errors.
    #[error("get an answer of ours to {request}: status {status}")]
    NotOurs {
        /// Method and path.
        request: String,
        /// The status.
        status: StatusCode,
    },
    /// What was received could not be written down.
    #[error("write down the answer to {request}")]
    Write {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon said no.
    #[error(transparent)]
    Answered(#[from] ErrorView),
}

impl ApiError {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Answered(view) => view.kind,
            Self::Unreachable { .. } if self.is_permission() => ErrorKind::NotPermitted,
            Self::Unreachable { .. } | Self::Interrupted { .. } | Self::Silent => ErrorKind::Unavailable,
            Self::SetUp(_)
            | Self::TooLarge { .. }
            | Self::Unreadable { .. }
            | Self::NotOurs { .. }
            | Self::Write { .. } => ErrorKind::Failed,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Answered(view) => view.hint.clone(),
            Self::Unreachable { .. } if self.is_permission() => {
                Some("use sudo, or become a member of the group `afterhours`".to_owned())
            }
            Self::Unreachable { .. } => {
                Some("start it with `afterhours serve`, or `systemctl start afterhours`".to_owned())
            }
            Self::Interrupted { .. } | Self::Silent => {
                Some("see whether it still runs with `afterhours status`".to_owned())
            }
            Self::Unreadable { .. } | Self::NotOurs { .. } => {
                Some("restart the daemon: it may be of another version than this program".to_owned())
            }
            Self::SetUp(_) | Self::TooLarge { .. } | Self::Write { .. } => None,
        }
    }

    /// The whole of it, as the daemon itself would say it.
    pub fn view(&self) -> ErrorView {
        match self {
            Self::Answered(view) => view.clone(),
            _ => ErrorView {
                because: self.because(),
                hint: self.hint(),
                ..ErrorView::new(self.kind(), format!("failed to {self}"))
            },
        }
    }

    /// The causes that say something. Between us and the system's own error stand only layers of the HTTP client.
    fn because(&self) -> Vec<String> {
        let all = causes(self).map(ToString::to_string);
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } => all.last().into_iter().collect(),
            _ => all.collect(),
        }
    }

    fn is_permission(&self) -> bool {
        causes(self)
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    }
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

/// A connection to the daemon.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Connection {
    /// A client of the daemon that listens at `socket`. Nothing is connected yet.
    pub(super) fn new(socket: &Path) -> Result<Self, ApiError> {
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .http1_only()
            .no_proxy()
            // Nothing here is encrypted; without this, a host without certificates could not even start.
            .tls_certs_only([])
            // The daemon cuts off who says nothing; a connection that waited for the next request may be gone.
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("afterhours/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ApiError::SetUp)?;
        Ok(Self { http, socket: socket.to_owned() })
    }

    pub(super) fn get(&self, path: String) -> Asked<'_> {
        self.ask(Method::GET, path)
    }

    pub(super) fn post(&self, path: String) -> Asked<'_> {
        self.ask(Method::POST, path)
    }

    /// As [`Self::get`], with a query of those pairs that have a value.
    pub(super) fn find(&self, path: &str, query: &[(&str, Option<String>)]) -> Asked<'_> {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        for (key, value) in query {
            if let Some(value) = value {
                pairs.append_pair(key, value);
            }
        }
        self.get(format!("{path}?{}", pairs.finish()))
    }

    pub(super) fn ask(&self, method: Method, path: String) -> Asked<'_> {
        let request = format!("{method} {path}");
        let builder = self.http.request(method, format!("{BASE}{path}"));
        Asked { connection: self, request, builder, timeout: Some(ANSWER_TIMEOUT) }
    }
}

/// A request that is about to be sent.
pub(super) struct Asked<'c> {
    connection: &'c Connection,
    request: String,
    builder: RequestBuilder,
    timeout: Option<Duration>,
}

impl Asked<'_> {
    pub(super) fn body(mut self, body: &impl Serialize) -> Self {
        self.builder = self.builder.json(body);
        self
    }

    pub(super) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Opens a log that may go on for as long as a run does.
    pub(super) async fn events(mut self) -> Result<Events, ApiError> {
        self.timeout = None;
        let request = self.request.clone();
        match tokio::time::timeout(ANSWER_TIMEOUT, self.send()).await {
            Ok(response) => Ok(Events { request, response: response?, waiting: Vec::new() }),
            Err(_) => Err(ApiError::Silent),
        }
    }

    /// Hands the answer to `to`, piece by piece, up to `bytes_max`; returns the number of bytes.
    pub(super) async fn copy(self, to: &mut (impl AsyncWrite + Unpin), bytes_max: u64) -> Result<u64, ApiError> {
        let request = self.request.clone();
        let mut response = self.send().await?;
        let mut bytes = 0;
        while let Some(chunk) = next_chunk(&mut response, &request).await? {
            bytes += chunk.len() as u64;
            if bytes > bytes_max {
                return Err(ApiError::TooLarge { request, bytes_max });
            }
            to.write_all(&chunk).await.map_err(|source| ApiError::Write { request: request.clone(), source })?;
        }
        to.flush().await.map_err(|source| ApiError::Write { request, source })?;
        Ok(bytes)
    }

    /// Sends it; only a success comes back.
    async fn send(self) -> Result<Response, ApiError> {
        let Self { connection, request, builder, timeout } = self;
        let builder = match timeout {
            Some(timeout) => builder.timeout(timeout),
            None => builder,
        };
        let mut response = match builder.send().await {
            Ok(response) => response,
            Err(source) if source.is_connect() => {
                return Err(ApiError::Unreachable { socket: connection.socket.clone(), source });
            }
            Err(source) => return Err(ApiError::Interrupted { request, source }),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = read_all(&mut response, &request).await?;
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(ApiError::Answered(body.error)),
            Err(_) => Err(ApiError::NotOurs { request, status }),
        }
    }

    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let request = self.request.clone();
        let mut response = self.send().await?;
        let body = read_all(&mut response, &request).await?;
        serde_json::from_slice(&body).map_err(|source| ApiError::Unreadable { request, source })
    }

    pub(super) async fn nothing(self) -> Result<(), ApiError> {
        self.send().await.map(drop)
    }
}

async fn next_chunk(response: &mut Response, request: &str) -> Result<Option<Bytes>, ApiError> {
    response.chunk().await.map_err(|source| ApiError::Interrupted { request: request.to_owned(), source })
}

async fn read_all(response: &mut Response, request: &str) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    while let Some(chunk) = next_chunk(response, request).await? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ApiError::TooLarge { request: request.to_owned(), bytes_max: ANSWER_BYTES_MAX as u64 });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The log of a run as it comes in.
#[derive(Debug)]
pub struct Events {
    request: String,
    response: Response,
    waiting: Vec<u8>,
}

impl Events {
    /// The next line; `None` at the end of the log. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection breaks or is silent for too long, or a line is not what we expect.
    pub async fn next(&mut self) -> Result<Option<RunEventView>, ApiError> {
        loop {
            if let Some(line) = self.take_line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|source| ApiError::Unreadable { request: self.request.clone(), source });
            }
            if self.waiting.len() > LINE_BYTES_MAX {
                return Err(ApiError::TooLarge { request: self.request.clone(), bytes_max: LINE_BYTES_MAX as u64 });
            }
            let chunk = tokio::time::timeout(SILENCE_MAX, next_chunk(&mut self.response, &self.request));
            match chunk.await {
                Err(_) => return Err(ApiError::Silent),
                Ok(chunk) => match chunk? {
                    // A line that was cut off is no line: its reader asks for it again.
                    None => return Ok(None),
                    Some(chunk) => self.waiting.extend_from_slice(&chunk),
                },
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.waiting.iter().position(|byte| *byte == b'\n')?;
        Some(self.waiting.drain(..=end).collect())
    }
}
