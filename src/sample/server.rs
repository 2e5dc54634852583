//! The pages of Order desk.
//!
//! | page | answers |
//! |---|---|
//! | `/health` | 200 when orders can be entered, else 500 |
//! | `/version` | version, schema, greeting |
//! | `/login`, `/logout` | a token for name and password; its end |
//! | `/orders` | `GET`: all; `POST`: one more, and the answer is given when it is on the disk |
//!
//! On data of an older schema it runs and says 500: somebody forgot the migration. On data of a newer
//! one it does not start: it would only do harm.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::routing::get;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::task::spawn_blocking;

use crate::sample::About;
use crate::sample::Login;
use crate::sample::Order;
use crate::sample::Token;
use crate::sample::data::Orders;
use crate::sample::data::People;
use crate::sample::error::SampleError;
use crate::sample::tree::Program;

/// More people than that are not logged in at a time.
const LOGINS_MAX: usize = 1_000;

type Answer<T> = Result<Json<T>, StatusCode>;

/// What the pages share.
struct Desk {
    about: About,
    people: People,
    /// Absent where the data cannot be worked with; then every answer is 500.
    orders: Option<Mutex<Orders>>,
    broken: bool,
    logins: Mutex<BTreeMap<String, String>>,
}

impl Desk {
    fn open(root: &Path) -> Result<(Self, Program), SampleError> {
        let program = Program::load(root)?;
        let (app, settings) = (&program.app, &program.settings);
        let orders = match Orders::open(&settings.data, app.schema) {
            Ok(orders) => Some(Mutex::new(orders)),
            Err(error @ SampleError::Schema { found, known }) if found < known => {
                tracing::error!(%error, "the data were not migrated");
                None
            }
            Err(error) => return Err(error),
        };
        let about = About { version: app.version.clone(), schema: app.schema, greeting: settings.greeting.clone() };
        let people = People::load(&settings.data)?;
        let desk = Self { about, people, orders, broken: app.broken, logins: Mutex::default() };
        Ok((desk, program))
    }

    fn orders(&self) -> Result<MutexGuard<'_, Orders>, StatusCode> {
        let orders = self.orders.as_ref().filter(|_| !self.broken).ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
        Ok(orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn logins(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn who(&self, headers: &HeaderMap) -> Result<String, StatusCode> {
        let token = token(headers).ok_or(StatusCode::UNAUTHORIZED)?;
        self.logins().get(token).cloned().ok_or(StatusCode::UNAUTHORIZED)
    }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Serves the tree at `root` until TERM or INT.
///
/// # Errors
/// The tree or the data cannot be used, or the address cannot be listened at.
pub async fn serve(root: &Path) -> Result<(), SampleError> {
    let (desk, program) = Desk::open(root)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(SampleError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SampleError::Signals)?;
    let address = program.settings.listen;
    let unheard = |source| SampleError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(unheard)?;
    tracing::info!(version = program.app.version, %address, "Order desk is open");
    let routes = routes(Arc::new(desk));
    tokio::select! {
        served = async move { axum::serve(listener, routes).await } => served.map_err(unheard),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/version", get(async |State(desk): State<Arc<Desk>>| Json(desk.about.clone())))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/orders", get(all).post(enter))
        .with_state(desk)
}

async fn health(State(desk): State<Arc<Desk>>) -> Answer<About> {
    drop(desk.orders()?);
    Ok(Json(desk.about.clone()))
}

async fn login(State(desk): State<Arc<Desk>>, Json(login): Json<Login>) -> Answer<Token> {
    drop(desk.orders()?);
    // Hashing is meant to take a while.
    let (asked, name) = (Arc::clone(&desk), login.name.clone());
    let admitted = spawn_blocking(move || asked.people.admits(&login.name, &login.password)).await;
    if !admitted.unwrap_or(false) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let token = uuid::Uuid::now_v7().to_string();
    let mut logins = desk.logins();
    if logins.len() >= LOGINS_MAX {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    logins.insert(token.clone(), name);
    Ok(Json(Token { token }))
}

async fn logout(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> StatusCode {
    if let Some(token) = token(&headers) {
        desk.logins().remove(token);
    }
    StatusCode::NO_CONTENT
}

async fn all(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Answer<Vec<Order>> {
    desk.who(&headers)?;
    Ok(Json(desk.orders()?.all()))
}

async fn enter(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    Json(order): Json<Order>,
) -> Result<StatusCode, StatusCode> {
    let who = desk.who(&headers)?;
    if order.by != who {
        return Err(StatusCode::FORBIDDEN);
    }
    let entered = spawn_blocking(move || {
        desk.orders()?.enter(order).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "an order is not entered");
            StatusCode::INTERNAL_SERVER_ERROR
        })
    });
    entered.await.unwrap_or(Err(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(StatusCode::CREATED)
}
