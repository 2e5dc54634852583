//! The routes of the API and what they call.
//!
//! One thin function a route: take the request apart, ask [`Control`], put the answer together. Who may
//! do what is control's affair; who asks is found out here, from the credentials of the socket's peer.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use serde::Deserialize;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::api::caller::Operators;
use crate::api::caller::PeerCaller;
use crate::api::door::places::Places;
use crate::api::events;
use crate::api::extract::Json;
use crate::api::extract::Path;
use crate::api::extract::Query;
use crate::control::Control;
use crate::control::error::ControlError;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::run::RunId;
use crate::wire::app::AllowRelease;
use crate::wire::audit::EntriesQuery;
use crate::wire::audit::VerifyQuery;
use crate::wire::error::ErrorBody;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;
use crate::wire::job::CreateJob;
use crate::wire::job::EditJob;
use crate::wire::job::RunJob;
use crate::wire::mail::TestMail;
use crate::wire::people::CloseGate;
use crate::wire::people::EndSessions;
use crate::wire::people::GivePass;
use crate::wire::people::MessageSessions;
use crate::wire::route;
use crate::wire::run::LookQuery;
use crate::wire::run::ResolveRun;
use crate::wire::run::RunsQuery;

/// The largest request.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// What every route has at hand.
#[derive(Clone)]
pub struct Api {
    /// The use cases.
    pub control: Arc<Control>,
    /// Who is an operator.
    pub operators: Operators,
    /// Ends long answers when the daemon stops.
    pub stop: CancellationToken,
    /// How many may follow runs at once.
    pub followers: Arc<Places>,
}

/// All routes but the workstations' and the gate check. They are the operators', reading, too: who is logged in and what
/// went wrong where is nobody else's affair.
pub fn router(api: Api) -> Router {
    let operators_only = middleware::from_fn_with_state(api.clone(), operators_only);
    Router::new()
        .route(route::STATUS, get(async |State(api): State<Api>| reply(api.control.status().await)))
        .route(
            route::MAIL_TEST,
            post(async |State(api): State<Api>, caller: PeerCaller, Json(ask): Json<TestMail>| {
                reply(api.control.test_mail(&caller.0, ask).await)
            }),
        )
        .route(
            route::CLOCK_ACCEPT,
            post(async |State(api): State<Api>, caller: PeerCaller| match api.control.accept_clock(&caller.0).await {
                Ok(()) => StatusCode::NO_CONTENT.into_response(),
                Err(error) => refuse(&error),
            }),
        )
        .merge(audit())
        .merge(jobs())
        .merge(runs())
        .merge(people())
        .merge(apps())
        .route_layer(operators_only)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

/// Lets operators through, and notes whatever is refused, here or further in.
async fn operators_only(State(api): State<Api>, caller: PeerCaller, request: Request, next: Next) -> Response {
    let asked = format!("{} {}", request.method(), request.uri().path());
    let response = match Control::must_operate(&caller.0) {
        Ok(()) => next.run(request).await,
        Err(error) => refuse(&error),
    };
    if let Some(Refusal(view)) = response.extensions().get::<Refusal>() {
        api.control.note_refusal(&caller.0, &asked, view).await;
    }
    response
}

/// What was refused and why, along with the answer that says so.
#[derive(Clone)]
struct Refusal(ErrorView);

/// An answer or a refusal.
fn reply<T: Serialize>(result: Result<T, ControlError>) -> Response {
    with_status(StatusCode::OK, result)
}

fn with_status<T: Serialize>(status: StatusCode, result: Result<T, ControlError>) -> Response {
    match result {
        Ok(answer) => (status, axum::Json(answer)).into_response(),
        Err(error) => refuse(&error),
    }
}

/// What is answered where the operators' routes are not: that they are, and where. Who asked is noted.
pub fn not_here(api: Api, socket: &std::path::Path) -> Router {
    let view = ErrorView::new(ErrorKind::NotPermitted, "failed to do that at the workstations' socket")
        .hint(format!("operators ask at {}", socket.display()));
    let refused = async move |State(api): State<Api>, caller: PeerCaller, request: Request| {
        let asked = format!("{} {}", request.method(), request.uri().path());
        api.control.note_refusal(&caller.0, &asked, &view).await;
        refusal(view.clone())
    };
    Router::new().fallback(refused).with_state(api)
}

/// A refusal with its kind and remedy.
pub(super) fn refuse(error: &ControlError) -> Response {
    let view = error.view();
    if view.kind.http_status() >= 500 {
        tracing::warn!(error = error as &dyn std::error::Error, "a request failed");
    }
    let noted = Refusal(view.clone());
    let mut response = refusal(view);
    response.extensions_mut().insert(noted);
    response
}

/// A refusal that is no error of control's.
pub(super) fn refusal(view: ErrorView) -> Response {
    let status = StatusCode::from_u16(view.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(ErrorBody::from(view))).into_response()
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<u32>,
}

type Of<T> = Path<T>;

fn audit() -> Router<Api> {
    Router::new()
        .route(
            route::AUDIT,
            get(async |State(api): State<Api>, Query(query): Query<EntriesQuery>| {
                reply(api.control.history(query).await)
            }),
        )
        .route(
            route::AUDIT_VERIFY,
            get(async |State(api): State<Api>, Query(query): Query<VerifyQuery>| {
                reply(api.control.prove_history(query).await)
            }),
        )
}

fn jobs() -> Router<Api> {
    Router::new()
        .route(
            route::JOBS,
            get(async |State(api): State<Api>| reply(api.control.jobs().await)).post(
                async |State(api): State<Api>, caller: PeerCaller, Json(ask): Json<CreateJob>| {
                    with_status(StatusCode::CREATED, api.control.create_job(&caller.0, ask).await)
                },
            ),
        )
        .route(
            route::JOB,
            get(async |State(api): State<Api>, Path(name): Of<JobName>| reply(api.control.job(&name).await))
                .patch(
                    async |State(api): State<Api>,
                           caller: PeerCaller,
                           Path(name): Of<JobName>,
                           Json(ask): Json<EditJob>| {
                        reply(api.control.edit_job(&caller.0, &name, ask).await)
                    },
                )
                .delete(async |State(api): State<Api>, caller: PeerCaller, Path(name): Of<JobName>| {
                    match api.control.delete_job(&caller.0, &name).await {
                        Ok(()) => StatusCode::NO_CONTENT.into_response(),
                        Err(error) => refuse(&error),
                    }
                }),
        )
        .route(
            route::JOB_ENABLE,
            post(async |State(api): State<Api>, caller: PeerCaller, Path(name): Of<JobName>| {
                reply(api.control.enable_job(&caller.0, &name).await)
            }),
        )
        .route(
            route::JOB_DISABLE,
            post(async |State(api): State<Api>, caller: PeerCaller, Path(name): Of<JobName>| {
                reply(api.control.disable_job(&caller.0, &name).await)
            }),
        )
        .route(
            route::JOB_RUN,
            post(
                async |State(api): State<Api>, caller: PeerCaller, Path(name): Of<JobName>, Json(ask): Json<RunJob>| {
                    reply(api.control.run_job(&caller.0, &name, ask).await)
                },
            ),
        )
        .route(
            route::JOB_PLAN,
            get(async |State(api): State<Api>, Path(name): Of<JobName>| reply(api.control.plan_job(&name).await)),
        )
        .route(
            route::JOB_HISTORY,
            get(async |State(api): State<Api>, Path(name): Of<JobName>, Query(query): Query<Limit>| {
                reply(api.control.job_history(&name, query.limit).await)
            }),
        )
}

fn runs() -> Router<Api> {
    Router::new()
        .route(
            route::RUNS,
            get(async |State(api): State<Api>, Query(query): Query<RunsQuery>| reply(api.control.runs(query).await)),
        )
        .route(
            route::RUN,
            get(async |State(api): State<Api>, Path(run): Of<RunId>| reply(api.control.run_view(run).await)),
        )
        .route(route::RUN_EVENTS, get(events::follow))
        .route(
            route::RUN_CANCEL,
            post(async |State(api): State<Api>, caller: PeerCaller, Path(run): Of<RunId>| {
                reply(api.control.cancel_run(&caller.0, run).await)
            }),
        )
        .route(
            route::RUN_RETRY,
            post(async |State(api): State<Api>, caller: PeerCaller, Path(run): Of<RunId>| {
                reply(api.control.retry_run(&caller.0, run).await)
            }),
        )
        .route(
            route::RUN_LOOK,
            get(
                async |State(api): State<Api>,
                       caller: PeerCaller,
                       Path(run): Of<RunId>,
                       Query(query): Query<LookQuery>| {
                    reply(api.control.look_at_run(&caller.0, run, query.side).await)
                },
            ),
        )
        .route(
            route::RUN_RESOLVE,
            post(
                async |State(api): State<Api>,
                       caller: PeerCaller,
                       Path(run): Of<RunId>,
                       Json(ask): Json<ResolveRun>| {
                    reply(api.control.resolve_run(&caller.0, run, ask).await)
                },
            ),
        )
        .route(
            route::RUN_BUNDLE,
            get(async |State(api): State<Api>, Path(run): Of<RunId>| match api.control.bundle(run).await {
                Ok(bytes) => bytes.into_response(),
                Err(error) => refuse(&error),
            }),
        )
}

fn people() -> Router<Api> {
    Router::new()
        .route(
            route::SESSIONS,
            get(async |State(api): State<Api>, Path(app): Of<AppName>| reply(api.control.sessions(&app).await)),
        )
        .route(
            route::SESSIONS_MESSAGE,
            post(
                async |State(api): State<Api>,
                       caller: PeerCaller,
                       Path(app): Of<AppName>,
                       Json(ask): Json<MessageSessions>| {
                    reply(api.control.message_sessions(&caller.0, &app, ask).await)
                },
            ),
        )
        .route(
            route::SESSIONS_END,
            post(
                async |State(api): State<Api>,
                       caller: PeerCaller,
                       Path(app): Of<AppName>,
                       Json(ask): Json<EndSessions>| {
                    reply(api.control.end_sessions(&caller.0, &app, ask).await)
                },
            ),
        )
        .route(
            route::GATE,
            get(async |State(api): State<Api>, Path(app): Of<AppName>| reply(api.control.gate(&app).await)),
        )
        .route(
            route::GATE_CLOSE,
            post(
                async |State(api): State<Api>,
                       caller: PeerCaller,
                       Path(app): Of<AppName>,
                       Json(ask): Json<CloseGate>| {
                    reply(api.control.close_gate(&caller.0, &app, ask).await)
                },
            ),
        )
        .route(
            route::GATE_OPEN,
            post(async |State(api): State<Api>, caller: PeerCaller, Path(app): Of<AppName>| {
                reply(api.control.open_gate(&caller.0, &app).await)
            }),
        )
        .route(
            route::GATE_PASS,
            post(
                async |State(api): State<Api>,
                       caller: PeerCaller,
                       Path(app): Of<AppName>,
                       Json(ask): Json<GivePass>| {
                    reply(api.control.give_pass(&caller.0, &app, ask).await)
                },
            ),
        )
}

fn apps() -> Router<Api> {
    Router::new()
        .route(
            route::BACKUP,
            get(async |State(api): State<Api>, Path(app): Of<AppName>| reply(api.control.check_backup(&app).await))
                .post(async |State(api): State<Api>, caller: PeerCaller, Path(app): Of<AppName>| {
                    reply(api.control.make_backup(&caller.0, &app).await)
                }),
        )
        .route(
            route::BACKUPS,
            get(async |State(api): State<Api>, Path(app): Of<AppName>| reply(api.control.backups(&app).await)),
        )
        .route(
            route::SNAPSHOTS,
            get(async |State(api): State<Api>, Path(app): Of<AppName>| reply(api.control.snapshots(&app).await)),
        )
        .route(
            route::DOCTOR,
            get(async |State(api): State<Api>, Path(app): Of<AppName>| reply(api.control.doctor(&app).await)),
        )
        .route(
            route::UPDATES,
            get(async |State(api): State<Api>, Path(app): Of<AppName>| reply(api.control.updates(&app).await)),
        )
        .route(
            route::QUARANTINE,
            get(async |State(api): State<Api>, Path(app): Of<AppName>| reply(api.control.quarantined(&app).await)),
        )
        .route(
            route::UPDATE_ALLOW,
            post(
                async |State(api): State<Api>,
                       caller: PeerCaller,
                       Path(app): Of<AppName>,
                       Json(ask): Json<AllowRelease>| {
                    reply(api.control.allow_release(&caller.0, &app, ask.version).await)
                },
            ),
        )
        .route(
            route::UPDATE,
            post(async |State(api): State<Api>, caller: PeerCaller, Path(app): Of<AppName>, Json(ask): Json<_>| {
                reply(api.control.update_now(&caller.0, &app, ask).await)
            }),
        )
}
