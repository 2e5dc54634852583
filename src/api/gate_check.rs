//! Whether a login may pass, for the proxy in front of an application (nginx `auth_request`,
//! Caddy `forward_auth`).
//!
//! 204 lets it through; 403 refuses, with `X-Update-Eta` (RFC 3339, UTC) and `Retry-After` (seconds)
//! where the end is known. 403 and not 503, because nginx turns any other answer into a 500.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::http::header::RETRY_AFTER;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use chrono::SecondsFormat;

use crate::domain::clock::Clock;
use crate::domain::clock::Moment;
use crate::domain::gate::Gate;
use crate::domain::gate::Position;
use crate::domain::name::AppName;
use crate::domain::span::Span;

/// Where the gates stand, as control knows it.
pub trait Gates: Send + Sync + 'static {
    /// The gate of an application; `None` when there is no such application, or its gate cannot be read.
    fn gate(&self, app: &AppName) -> impl Future<Output = Option<Gate>> + Send;
}

/// `GET /v1/apps/{app}/gate/check`.
pub fn router<G: Gates>(gates: Arc<G>, clock: Arc<dyn Clock>) -> Router {
    Router::new().route("/v1/apps/{app}/gate/check", get(check::<G>)).with_state((gates, clock))
}

async fn check<G: Gates>(State((gates, clock)): State<(Arc<G>, Arc<dyn Clock>)>, Path(app): Path<AppName>) -> Response {
    answer(gates.gate(&app).await.as_ref(), clock.moment())
}

/// The answer for one login. A gate that cannot be read refuses.
fn answer(gate: Option<&Gate>, now: Moment) -> Response {
    let until = match gate {
        Some(gate) if gate.admits(now) => {
            return (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
        }
        Some(Gate { position: Position::Closed { until, .. }, .. }) => *until,
        Some(_) | None => None,
    };
    let mut response = (StatusCode::FORBIDDEN, [(CACHE_CONTROL, "no-store")]).into_response();
    if let Some(until) = until {
        let headers = response.headers_mut();
        let eta = until.to_rfc3339_opts(SecondsFormat::Secs, true);
        if let Ok(eta) = HeaderValue::from_str(&eta) {
            headers.insert("x-update-eta", eta);
        }
        headers.insert(RETRY_AFTER, HeaderValue::from(Span::between(now.at, until).duration().as_secs()));
    }
    response
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn what_cannot_be_known_is_refused_and_an_end_in_the_past_is_now() {
        let now = DateTime::<chrono::Utc>::UNIX_EPOCH;
        assert_eq!(answer(None, now.into()).status(), StatusCode::FORBIDDEN);
        let mut gate = Gate::open("orders".parse().unwrap());
        assert_eq!(answer(Some(&gate), now.into()).status(), StatusCode::NO_CONTENT);
        gate.position = Position::Closed {
            by: crate::domain::gate::ClosedBy::Operator("root".into()),
            message: String::new(),
            until: Some(now - chrono::TimeDelta::minutes(1)),
            lease_until: None,
            lease: None,
            since: now,
        };
        let refused = answer(Some(&gate), now.into());
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert_eq!(refused.headers()[RETRY_AFTER], "0");
        assert_eq!(refused.headers()["x-update-eta"], "1969-12-31T23:59:00Z");
    }
}
