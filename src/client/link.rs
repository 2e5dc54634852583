//! The client's connection to the daemon: it comes back by itself, and then tells all anew.
//!
//! The rest of the client sets what is to be known ([`Link::tell`]) and reads what was said
//! ([`Link::next`]). One task keeps the stream, posts what has changed, and connects again with a
//! growing pause; a daemon that was restarted thus learns of the session within a second.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use reqwest::Client;
use reqwest::RequestBuilder;
use reqwest::Response;
use reqwest::StatusCode;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;
use tokio_util::codec::LinesCodec;
use tokio_util::io::StreamReader;

use crate::client::workstation::WorkstationError;
use crate::domain::name::AppName;
use crate::domain::session::SessionId;
use crate::wire::workstation::LINE_BYTES_MAX;
use crate::wire::workstation::PING_EVERY;
use crate::wire::workstation::Register;
use crate::wire::workstation::ServerMessage;
use crate::wire::workstation::StationStatus;

/// How long a request may take. A registration waits until the daemon has remembered it.
const REQUEST_WAIT: Duration = Duration::from_secs(15);
/// How many signs of life may be missing.
const PINGS_MISSED_MAX: u32 = 3;
/// The first and the longest pause before connecting again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How many messages wait to be read.
const EVENTS_MAX: usize = 64;
/// The longest error text that is read, in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// The daemon behind its socket.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    http: Client,
    app: AppName,
}

/// What the link has to say.
#[derive(Debug)]
pub(super) enum Event {
    /// The daemon said something.
    Said(ServerMessage),
    /// The daemon cannot be reached, or has gone.
    Down(WorkstationError),
}

impl Daemon {
    pub(super) fn new(socket: &Path, app: &AppName) -> Result<Self, WorkstationError> {
        let http = http(socket)?;
        Ok(Self { http, app: app.clone() })
    }

    fn session_url(session: &SessionId, what: &str) -> String {
        format!("http://localhost/v1/workstations/{session}{what}")
    }

    fn app_url(&self, what: &str) -> String {
        format!("http://localhost/v1/apps/{}/workstations{what}", self.app)
    }

    async fn register(&self, register: &Register) -> Result<BoxStream<'static, io::Result<String>>, WorkstationError> {
        let response = answer(self.http.post(self.app_url("")).json(register).send()).await?;
        let bytes = response.bytes_stream().map_err(io::Error::other);
        let lines = FramedRead::new(StreamReader::new(bytes), LinesCodec::new_with_max_length(LINE_BYTES_MAX));
        Ok(lines.map_err(io::Error::other).boxed())
    }

    async fn post(&self, session: &SessionId, what: &str, body: &impl Serialize) -> Result<(), WorkstationError> {
        answer(self.http.post(Self::session_url(session, what)).json(body).send()).await.map(drop)
    }

    pub(super) async fn leave(&self, session: &SessionId) -> Result<(), WorkstationError> {
        answer(self.http.delete(Self::session_url(session, "")).send()).await.map(drop)
    }

    pub(super) async fn status(&self) -> Result<StationStatus, WorkstationError> {
        read(self.http.get(self.app_url("/status"))).await
    }
}

/// How it stands wherever this user has a session.
pub(super) async fn statuses(socket: &Path) -> Result<BTreeMap<AppName, StationStatus>, WorkstationError> {
    read(http(socket)?.get("http://localhost/v1/workstations")).await
}

async fn read<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, WorkstationError> {
    let response = answer(request.send()).await?;
    response.json().await.map_err(|source| WorkstationError::Unreachable { source: Box::new(source) })
}

fn http(socket: &Path) -> Result<Client, WorkstationError> {
    let client = Client::builder().unix_socket(socket).no_proxy().tls_certs_only([]).build();
    client.map_err(|source| WorkstationError::Prepare { source: Box::new(source) })
}

/// The head of an answer, in time; a refusal is an error.
async fn answer(request: impl Future<Output = reqwest::Result<Response>>) -> Result<Response, WorkstationError> {
    let response = match timeout(REQUEST_WAIT, request).await {
        Ok(Ok(response)) => response,
        Ok(Err(source)) => return Err(WorkstationError::Unreachable { source: Box::new(source) }),
        Err(late) => return Err(WorkstationError::Unreachable { source: Box::new(late) }),
    };
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let message = timeout(REQUEST_WAIT, error_text(response)).await.ok().flatten();
    let message = message.unwrap_or_else(|| format!("the daemon answered {status}"));
    if status == StatusCode::SERVICE_UNAVAILABLE || status.is_server_error() {
        return Err(WorkstationError::Unreachable { source: message.into() });
    }
    Err(WorkstationError::Rejected { status: status.as_u16(), message })
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    message: String,
}

async fn error_text(mut response: Response) -> Option<String> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ERROR_BYTES_MAX {
            return None;
        }
    }
    serde_json::from_slice::<ErrorBody>(&body).ok().map(|body| body.error.message)
}

/// A session's connection that comes back by itself.
#[derive(Debug)]
pub(super) struct Link {
    daemon: Daemon,
    told: watch::Sender<Register>,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Link {
    /// Connects and keeps connected, until dropped.
    pub(super) fn new(daemon: Daemon, register: Register) -> Self {
        let (told, known) = watch::channel(register);
        let (say, events) = mpsc::channel(EVENTS_MAX);
        let keeper = Keeper { daemon: daemon.clone(), told: told.clone(), known, say };
        Self { daemon, told, events, task: tokio::spawn(keeper.keep()) }
    }

    /// What the daemon is to know from now on.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Register)) {
        self.told.send_modify(change);
    }

    /// What the daemon said next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Gives the session up. A daemon that does not hear it finds out by itself.
    pub(super) async fn leave(self) {
        // The task must not register again what is being given up.
        self.task.abort();
        let session = self.told.borrow().session.clone();
        if let Some(session) = session
            && let Err(error) = self.daemon.leave(&session).await
        {
            tracing::debug!(%session, %error, "the session could not be given up");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind a [`Link`].
struct Keeper {
    daemon: Daemon,
    told: watch::Sender<Register>,
    known: watch::Receiver<Register>,
    say: mpsc::Sender<Event>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut pause = PAUSE.0;
        loop {
            let register = self.known.borrow_and_update().clone();
            let why = match self.daemon.register(&register).await {
                Ok(lines) => {
                    let began = Instant::now();
                    let why = self.follow(lines, register).await;
                    // A link that breaks at once each time is no reason to hurry.
                    if began.elapsed() > PAUSE.1 {
                        pause = PAUSE.0;
                    }
                    why
                }
                Err(error) => error,
            };
            if self.say.send(Event::Down(why)).await.is_err() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Passes on what is said and posts what changes, until the stream ends or the daemon does not take it.
    async fn follow(
        &mut self,
        mut lines: BoxStream<'static, io::Result<String>>,
        mut posted: Register,
    ) -> WorkstationError {
        let ended = || WorkstationError::Unreachable { source: "the daemon ended the connection".into() };
        loop {
            let line = tokio::select! {
                line = timeout(PING_EVERY.duration() * PINGS_MISSED_MAX, lines.next()) => line,
                changed = self.known.changed() => {
                    let current = self.known.borrow_and_update().clone();
                    if changed.is_ok() && current.session.is_none() {
                        // The welcome sets the session, and that is a change too.
                        continue;
                    }
                    match (changed, self.post(&posted, &current).await) {
                        (Ok(()), Ok(())) => posted = current,
                        (Ok(()), Err(error)) => return error,
                        (Err(_), _) => return ended(),
                    }
                    continue;
                }
            };
            let message = match line {
                Ok(Some(Ok(line))) => serde_json::from_str(&line),
                Ok(Some(Err(source))) => return WorkstationError::Unreachable { source: Box::new(source) },
                Ok(None) => return ended(),
                Err(late) => return WorkstationError::Unreachable { source: Box::new(late) },
            };
            let message = match message {
                Ok(message) => message,
                Err(source) => return WorkstationError::Unreachable { source: Box::new(source) },
            };
            if let ServerMessage::Welcome { session } = &message {
                posted.session = Some(session.clone());
                self.told.send_modify(|told| told.session = Some(session.clone()));
            }
            if self.say.send(Event::Said(message)).await.is_err() {
                return ended();
            }
        }
    }

    async fn post(&self, posted: &Register, current: &Register) -> Result<(), WorkstationError> {
        let Some(session) = &current.session else { return Ok(()) };
        // The answer first: a program that has ended is let in again only where a restart was asked for.
        if let Some(answered) = &current.answered
            && posted.answered.as_ref() != Some(answered)
        {
            match self.daemon.post(session, "/answer", answered).await {
                // The warning was over before the answer came.
                Err(WorkstationError::Rejected { status: 409, .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        if posted.state != current.state {
            self.daemon.post(session, "/state", &current.state).await?;
        }
        Ok(())
    }
}
