//! The workstation protocol over HTTP; see [`crate::wire::workstation`] for the picture.
//!
//! The stream of one client is one HTTP response of one JSON object a line. It ends when the
//! client goes, when the hub gives it up, or with the daemon; whichever it is, dropping the
//! stream drops the [`Seat`], and that is how the hub learns of it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::extract::DefaultBodyLimit;
use axum::extract::FromRequestParts;
use axum::extract::Path;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::delete;
use axum::routing::get;
use axum::routing::post;
use futures_util::Stream;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::Interval;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::domain::session::SessionId;
use crate::sessions::hub::Hub;
use crate::sessions::hub::HubError;
use crate::sessions::hub::Joined;
use crate::sessions::hub::Seat;
use crate::sessions::hub::Verdict;
use crate::sessions::station::Peer;
use crate::wire::workstation::Answered;
use crate::wire::workstation::BODY_BYTES_MAX;
use crate::wire::workstation::ClientState;
use crate::wire::workstation::LINE_BYTES_MAX;
use crate::wire::workstation::PING_EVERY;
use crate::wire::workstation::Register;
use crate::wire::workstation::ServerMessage;

/// Who decides whether a program may be started.
pub trait Admission: Send + Sync + 'static {
    /// Whether there is such an application.
    fn knows(&self, app: &AppName) -> bool;
    /// Whether sessions of this user count at all.
    fn counts(&self, app: &AppName, peer: Option<Peer>, said: &str) -> impl Future<Output = bool> + Send;
    /// Writes down that this user was refused something by the hub; `object` is an application or a session.
    fn refused(
        &self,
        object: String,
        peer: Option<Peer>,
        said: Option<&str>,
        error: &HubError,
    ) -> impl Future<Output = ()> + Send;
    /// Whether this user may log in now, whatever `said` is; uses up a pass where the gate is closed and one is there.
    fn admit(&self, app: &AppName, peer: Option<Peer>, said: &str) -> impl Future<Output = Verdict> + Send;
}

/// What the routes need.
#[derive(Debug)]
pub struct Workstations<A> {
    /// The workstations.
    pub hub: Arc<Hub>,
    /// Who decides.
    pub admission: Arc<A>,
    /// Cancelled when the daemon stops: ends every stream.
    pub stop: CancellationToken,
}

impl<A> Clone for Workstations<A> {
    fn clone(&self) -> Self {
        Self { hub: Arc::clone(&self.hub), admission: Arc::clone(&self.admission), stop: self.stop.clone() }
    }
}

/// The routes. [`crate::api::door`] tells them who asks, so that sessions belong to users.
pub fn router<A: Admission>(state: Workstations<A>) -> Router {
    Router::new()
        .route("/v1/apps/{app}/workstations", post(register::<A>))
        .route("/v1/apps/{app}/workstations/status", get(status::<A>))
        .route("/v1/workstations", get(statuses::<A>))
        .route("/v1/workstations/{session}/state", post(tell::<A>))
        .route("/v1/workstations/{session}/answer", post(answer::<A>))
        .route("/v1/workstations/{session}", delete(leave::<A>))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state)
}

/// The peer, where the listener knows it.
struct MaybePeer(Option<Peer>);

impl<S: Send + Sync> FromRequestParts<S> for MaybePeer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<ConnectInfo<Peer>>().map(|info| info.0)))
    }
}

async fn register<A: Admission>(
    State(state): State<Workstations<A>>,
    Path(app): Path<AppName>,
    MaybePeer(peer): MaybePeer,
    Json(register): Json<Register>,
) -> Response {
    if !state.admission.knows(&app) {
        return refusal(StatusCode::NOT_FOUND, "not_found", &Failure::new(format!("find application {app}")));
    }
    if let Some(flaw) = register.flaw() {
        return refusal(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", &Failure::new(format!("register: {flaw}")));
    }
    if let Err(error) = state.hub.knock(peer) {
        state.admission.refused(app.to_string(), peer, Some(&register.user), &error).await;
        return failed(&error);
    }
    if !state.admission.counts(&app, peer, &register.user).await {
        let failure = Failure::new(format!("register: {app} is used by other users of this machine"))
            .hint(format!("ask your administrator: `users` and `group` of [app.{app}] say whose sessions count"));
        return refusal(StatusCode::FORBIDDEN, "not_permitted", &failure);
    }
    let verdict = if state.hub.needs_admission(&app, &register, peer) {
        state.admission.admit(&app, peer, &register.user).await
    } else {
        Verdict::Admitted
    };
    match state.hub.join(&app, &register, peer, &verdict).await {
        Ok(Joined::Seat(seat)) => lines(Body::from_stream(messages(seat, state.stop))),
        Ok(Joined::GateClosed(closed)) => {
            lines(Body::from(line(&ServerMessage::GateClosed { text: closed.text, until: closed.until })))
        }
        Err(error) => {
            state.admission.refused(app.to_string(), peer, Some(&register.user), &error).await;
            failed(&error)
        }
    }
}

async fn status<A: Admission>(
    State(state): State<Workstations<A>>,
    Path(app): Path<AppName>,
    MaybePeer(peer): MaybePeer,
) -> Response {
    if !state.admission.knows(&app) {
        return refusal(StatusCode::NOT_FOUND, "not_found", &Failure::new(format!("find application {app}")));
    }
    Json(state.hub.status(&app, peer)).into_response()
}

async fn statuses<A: Admission>(State(state): State<Workstations<A>>, MaybePeer(peer): MaybePeer) -> Response {
    Json(state.hub.statuses(peer)).into_response()
}

async fn tell<A: Admission>(
    State(state): State<Workstations<A>>,
    Path(session): Path<SessionId>,
    MaybePeer(peer): MaybePeer,
    Json(told): Json<ClientState>,
) -> Response {
    let done = state.hub.state(&session, peer, &told);
    answered(&state, &session, peer, done).await
}

async fn answer<A: Admission>(
    State(state): State<Workstations<A>>,
    Path(session): Path<SessionId>,
    MaybePeer(peer): MaybePeer,
    Json(told): Json<Answered>,
) -> Response {
    let done = state.hub.answer(&session, peer, &told);
    answered(&state, &session, peer, done).await
}

async fn leave<A: Admission>(
    State(state): State<Workstations<A>>,
    Path(session): Path<SessionId>,
    MaybePeer(peer): MaybePeer,
) -> Response {
    let done = state.hub.leave(&session, peer);
    answered(&state, &session, peer, done).await
}

/// What a client is told after something about its session.
async fn answered<A: Admission>(
    state: &Workstations<A>,
    session: &SessionId,
    peer: Option<Peer>,
    done: Result<(), HubError>,
) -> Response {
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            state.admission.refused(session.to_string(), peer, None, &error).await;
            failed(&error)
        }
    }
}

fn failed(error: &HubError) -> Response {
    let (status, kind) = match error {
        HubError::NoSession { .. } => (StatusCode::NOT_FOUND, "not_found"),
        HubError::NotYours { .. } | HubError::Signal { .. } => (StatusCode::FORBIDDEN, "not_permitted"),
        HubError::StaleAnswer => (StatusCode::CONFLICT, "refused"),
        HubError::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "refused"),
        HubError::NotNow
        | HubError::Full
        | HubError::TooOften
        | HubError::NotRemembered { .. }
        | HubError::Unreachable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "not_available"),
    };
    refusal(status, kind, &Failure::from_error(error))
}

/// An error as every part of the API gives it.
fn refusal(status: StatusCode, kind: &str, failure: &Failure) -> Response {
    let Failure { message, because, hint, code, .. } = failure;
    let error = serde_json::json!({
        "error": { "kind": kind, "message": message, "because": because, "hint": hint, "code": code }
    });
    (status, Json(error)).into_response()
}

fn lines(body: Body) -> Response {
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn line(message: &ServerMessage) -> Bytes {
    // Plain data without maps of non-texts: it always becomes JSON.
    let mut text = serde_json::to_vec(message).unwrap_or_default();
    if text.len() >= LINE_BYTES_MAX {
        // Clients refuse such a line and would come back for it again and again.
        tracing::warn!(bytes = text.len(), "a message to a workstation is too long and was not sent");
        return line(&ServerMessage::Ping);
    }
    text.push(b'\n');
    Bytes::from(text)
}

/// What one client is told, with signs of life between.
fn messages(seat: Seat, stop: CancellationToken) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let mut alive = interval(PING_EVERY.duration());
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    alive.reset();
    stream::unfold((seat, stop, alive), next).map(Ok)
}

async fn next(
    (mut seat, stop, mut alive): (Seat, CancellationToken, Interval),
) -> Option<(Bytes, (Seat, CancellationToken, Interval))> {
    let message = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        message = seat.messages.recv() => message,
        _ = alive.tick() => Some(ServerMessage::Ping),
    }?;
    Some((line(&message), (seat, stop, alive)))
}
