//! The door: who is let in, how many, and for how long somebody may say nothing.
//!
//! ```text
//! operators' socket ────► accept ─► a place of the operators'? ──────┐ no: 503, closed
//! workstations' socket ─► accept ─► a place of the workstations'? ───┤
//!                                                                    ▼ yes
//!                       head in time ─► body in time ─► route ─► answer, as fast as it is read
//! ```
//!
//! Invariants
//! - Connections never get the descriptors that runs need: [`Shares::of`] counts from the process's limit.
//! - A flood at one door takes nothing from the other, and a flood of one user leaves places for everybody else ([`places`]).
//! - Whoever sends nothing, or reads nothing, loses the connection.
//! - A failing `accept` makes the loop wait, never spin.

pub mod places;
mod stall;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::api::door::places::Caps;
use crate::api::door::places::Place;
use crate::api::door::places::Places;
use crate::api::door::stall::Unstalled;
use crate::sessions::hub::WORKSTATIONS_MAX;
use crate::sessions::station::Peer;

/// How many descriptors connections never get: those of runs, of the store and of what is started.
pub const RESERVED_FOR_RUNS: usize = 256;
/// How many connections operators need at most.
const OPERATORS_MAX: usize = 512;
/// How many connections root and the daemon's own user find in any case.
const RESERVE: usize = 32;
/// How many connections one user may have beside those of the sessions: a proxy asks for every login.
const EACH_MIN: usize = 256;
/// How much of a head is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How many connections wait to be accepted.
const BACKLOG: i32 = 4096;
/// The first and the longest pause after a failed `accept`.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often the same trouble at the door is told.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long what is under way may take when the door closes.
const LEAVE_WAIT: Duration = Duration::from_secs(15);
/// What those are told who find no place.
const FULL: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
    r#"{"error":{"kind":"not_available","message":"take another connection: there are too many","#,
    r#""because":[],"hint":"try again in a moment"}}"#
);

/// How long somebody may say nothing.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the head of a request is there, also between two requests of one connection.
    pub head: Duration,
    /// Until the body of a request is there.
    pub body: Duration,
    /// While it reads nothing of the answer.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(20), body: Duration::from_secs(20), write: Duration::from_secs(60) }
    }
}

/// What each door gets of the descriptors there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// The operators' door.
    pub operators: Caps,
    /// The workstations' door.
    pub workstations: Caps,
}

impl Shares {
    /// The shares of a process that may have so many descriptors open, where one user may have so many sessions.
    pub fn of(descriptors: usize, sessions_per_user_max: usize) -> Self {
        let connections = descriptors.saturating_sub(RESERVED_FOR_RUNS).max(descriptors / 4);
        let operators = (connections / 4).min(OPERATORS_MAX);
        let workstations = (connections - operators).min(WORKSTATIONS_MAX + 2 * EACH_MIN);
        // A session keeps one, and needs a second to say something.
        let each = EACH_MIN.max(2 * sessions_per_user_max + RESERVE);
        let caps = |all: usize| Caps { all, each: each.min(all), reserve: RESERVE.min(all / 4) };
        Self { operators: caps(operators), workstations: caps(workstations) }
    }
}

/// A socket, and what is served there.
#[derive(Debug)]
pub struct Door {
    name: &'static str,
    listener: UnixListener,
    routes: Router,
    places: Arc<Places>,
    patience: Patience,
}

impl Door {
    /// Serves `routes` at `listener` to as many as `caps` say.
    pub fn new(name: &'static str, listener: UnixListener, routes: Router, caps: Caps, patience: Patience) -> Self {
        Self { name, listener, routes, places: Places::new(caps), patience }
    }

    /// Lets people in until it is told to stop, and then sees to it that they leave.
    pub async fn serve(self, stop: CancellationToken) {
        // Binding has asked for a shorter queue; a burst of honest people must not be turned away by the kernel.
        if let Err(error) = rustix::net::listen(&self.listener, BACKLOG) {
            tracing::debug!(door = self.name, %error, "the queue of connections stays short");
        }
        let connections = TaskTracker::new();
        let (mut refused, mut failed) = (Trouble::default(), Trouble::default());
        let mut pause = ACCEPT_PAUSE.0;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    pause = ACCEPT_PAUSE.0;
                    let peer = peer_of(&stream);
                    match self.places.take(peer.uid) {
                        Some(place) => {
                            let routes = self.routes.clone();
                            connections.spawn(converse(stream, peer, place, routes, self.patience, stop.clone()));
                        }
                        None => {
                            refuse(&stream);
                            if let Some(times) = refused.again() {
                                let (door, uid) = (self.name, peer.uid);
                                tracing::warn!(door, uid, times, "a connection found no place and was refused");
                            }
                        }
                    }
                }
                Err(error) => {
                    if let Some(times) = failed.again() {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(door = self.name, error, times, "a connection cannot be accepted");
                    }
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                }
            }
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }
}

/// The same trouble, told now and then.
#[derive(Debug, Default)]
struct Trouble {
    told: Option<Instant>,
    times: u64,
}

impl Trouble {
    /// It happened again; how often since it was told, when it is to be told.
    fn again(&mut self) -> Option<u64> {
        self.times += 1;
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

/// Who is at the other end, as the kernel says.
fn peer_of(stream: &UnixStream) -> Peer {
    match stream.peer_cred() {
        Ok(cred) => Peer { uid: cred.uid(), pid: cred.pid().and_then(|pid| u32::try_from(pid).ok()) },
        // Nobody: may speak for no session but its own.
        Err(_) => Peer { uid: u32::MAX, pid: None },
    }
}

/// Says that there is no place, where that costs no time.
fn refuse(stream: &UnixStream) {
    // A request that stays unread would make the kernel throw the answer away. Whoever cannot be told now is not told.
    let _ = rustix::net::recv(stream, &mut [0; 4096], RecvFlags::DONTWAIT);
    let _ = rustix::net::send(stream, FULL.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// One connection, from its first request to its last.
async fn converse(
    stream: UnixStream,
    peer: Peer,
    _place: Place,
    routes: Router,
    patience: Patience,
    stop: CancellationToken,
) {
    let spoke = Arc::new(AtomicBool::new(false));
    let speaks = Arc::clone(&spoke);
    let service = service_fn(move |request: Request<Incoming>| {
        speaks.store(true, Ordering::Relaxed);
        let routes = routes.clone();
        async move {
            let mut request = request.map(|body| in_time(body, patience.body));
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer: Result<_, Infallible> = routes.oneshot(request).await;
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(HEAD_BYTES_MAX);
    let stream = TokioIo::new(Unstalled::new(stream, patience.write));
    let mut connection = pin!(http.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            if !spoke.load(Ordering::Relaxed) {
                return;
            }
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LEAVE_WAIT, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(uid = peer.uid, error = &error as &dyn std::error::Error, "a connection broke");
    }
}

/// A body that fails when it is not there in time.
fn in_time(body: Incoming, wait: Duration) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    let until = Instant::now() + wait;
    let pieces = stream::unfold(Some(body.into_data_stream()), move |pieces| async move {
        let mut pieces = pieces?;
        match tokio::time::timeout_at(until, pieces.next()).await {
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(pieces))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Ok(None) => None,
            Err(_) => Some((Err(io::Error::new(io::ErrorKind::TimedOut, "the body did not come in time")), None)),
        }
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_runs_their_descriptors() {
        for descriptors in [64, 256, 512, 1024, 4096, 65_536] {
            let Shares { operators, workstations } = Shares::of(descriptors, 16);
            let taken = operators.all + workstations.all;
            assert!(taken > 0 && operators.all > 0 && workstations.each > 0, "{descriptors}");
            assert!(operators.reserve > 0 && workstations.reserve > 0, "{descriptors}");
            if descriptors >= 512 {
                assert!(descriptors - taken >= RESERVED_FOR_RUNS, "{descriptors}");
            }
            assert!(workstations.each <= workstations.all, "{descriptors}");
        }
        assert!(Shares::of(65_536, 16).workstations.all > WORKSTATIONS_MAX);
        assert!(Shares::of(65_536, 2000).workstations.each > 4000, "a terminal server");
    }
}
