//! The log of a run as it is written, one JSON object a line.

use std::convert::Infallible;

use axum::Extension;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::response::Response;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::api::door::places::Caps;
use crate::api::extract::Path;
use crate::api::extract::Query;
use crate::api::server::Api;
use crate::api::server::refusal;
use crate::api::server::refuse;
use crate::domain::event::LoggedEvent;
use crate::domain::event::RunEvent;
use crate::domain::run::RunId;
use crate::domain::step::Step;
use crate::jobs::driver::Live;
use crate::sessions::station::Peer;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;
use crate::wire::run::ALIVE_SECS;
use crate::wire::run::EventsQuery;
use crate::wire::run::RunEventView;

/// How many may follow runs at once: each keeps a connection for as long as a run does.
pub const FOLLOWERS: Caps = Caps { all: 128, each: 32, reserve: 32 };
/// How many lines a slow reader may be behind before we wait for it.
const LINES_MAX: usize = 64;

/// A logged event as it travels.
pub fn event_view(logged: LoggedEvent) -> RunEventView {
    RunEventView::Event { run: logged.run, seq: logged.seq, logged_at: logged.at, event: logged.event }
}

/// What somebody watching `run` is shown of a live message.
pub fn live_view(run: RunId, live: Live) -> Option<RunEventView> {
    match live {
        Live::Event(logged) if logged.run == run => Some(event_view(logged)),
        Live::Progress { run: of, at, done, total, what } if of == run => {
            Some(RunEventView::Progress { at, done, total, what })
        }
        _ => None,
    }
}

/// Whether the run may rest after this event: it is over, or it is stuck and may have reported.
fn may_be_last(event: &RunEvent) -> bool {
    match event {
        RunEvent::Finished { .. } | RunEvent::UndoFailed { again_at: None, .. } | RunEvent::GaveUp { .. } => true,
        RunEvent::StepSucceeded { at, .. } | RunEvent::PassedOver { at, .. } => at.step == Step::Report,
        _ => false,
    }
}

pub(super) async fn follow(
    State(api): State<Api>,
    Path(run): Path<RunId>,
    Query(query): Query<EventsQuery>,
    peer: Option<Extension<ConnectInfo<Peer>>>,
) -> Response {
    let uid = peer.map_or(u32::MAX, |peer| peer.0.0.uid);
    let Some(place) = api.followers.take(uid) else {
        let view = ErrorView::new(ErrorKind::Unavailable, "failed to follow one more run: too many are followed");
        return refusal(view.hint("end a `run watch` that nobody looks at"));
    };
    let (sender, mut lines) = mpsc::channel::<Bytes>(LINES_MAX);
    let (mut so_far, mut live) = match api.control.follow_run(run, query.after).await {
        Ok(followed) => followed,
        Err(error) => return refuse(&error),
    };
    tokio::spawn(async move {
        let _place = place;
        let mut seq = query.after;
        // A run that rests already says nothing more.
        let mut may_rest = true;
        loop {
            for logged in so_far.drain(..) {
                seq = logged.seq;
                may_rest |= may_be_last(&logged.event);
                if sender.send(line(&event_view(logged))).await.is_err() {
                    return;
                }
            }
            if !query.follow || (may_rest && api.control.rests(run).await.unwrap_or(true)) {
                return;
            }
            may_rest = false;
            let next = tokio::select! {
                next = live.recv() => next,
                () = api.stop.cancelled() => return,
                () = sender.closed() => return,
                () = tokio::time::sleep(std::time::Duration::from_secs(ALIVE_SECS)) => {
                    if sender.send(line(&RunEventView::Alive)).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            match next {
                Ok(Live::Event(logged)) if logged.run == run && logged.seq > seq => so_far.push(logged),
                Ok(Live::Event(_)) => {}
                Ok(progress) => {
                    // Progress may be lost by a slow reader; events may not.
                    if let Some(view) = live_view(run, progress)
                        && sender.capacity() > LINES_MAX / 2
                        && sender.send(line(&view)).await.is_err()
                    {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => match api.control.follow_run(run, seq).await {
                    Ok((missed, _)) => so_far = missed,
                    Err(_) => return,
                },
                Err(RecvError::Closed) => return,
            }
        }
    });
    let stream = futures_util::stream::poll_fn(move |context| {
        lines.poll_recv(context).map(|line| line.map(Ok::<_, Infallible>))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}

fn line(view: &RunEventView) -> Bytes {
    // A view is made of strings and numbers; it has a JSON form.
    let mut text = serde_json::to_vec(view).unwrap_or_default();
    text.push(b'\n');
    text.into()
}
