//! Requests taken apart; one that cannot be is refused as everything else is: with a kind and a text.

use axum::extract::FromRequest;
use axum::extract::FromRequestParts;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::response::Response;
use serde::de::DeserializeOwned;

use crate::wire::error::ErrorBody;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// The body of a request.
pub(super) struct Json<T>(pub(super) T);

/// The names in the path of a request.
pub(super) struct Path<T>(pub(super) T);

/// What follows the question mark.
pub(super) struct Query<T>(pub(super) T);

/// A request that cannot be understood.
pub(super) struct Misuse(String);

impl IntoResponse for Misuse {
    fn into_response(self) -> Response {
        let view = ErrorView::new(ErrorKind::Usage, self.0)
            .hint("is this `afterhours` of the same version as the daemon? see `afterhours status`");
        (StatusCode::BAD_REQUEST, axum::Json(ErrorBody::from(view))).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Misuse;

    async fn from_request(request: Request, state: &S) -> Result<Self, Misuse> {
        let body = axum::Json::from_request(request, state).await;
        body.map(|axum::Json(value)| Self(value)).map_err(|error| Misuse(error.body_text()))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Misuse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Misuse> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value)).map_err(|error| Misuse(error.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Misuse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Misuse> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query.map(|axum::extract::Query(value)| Self(value)).map_err(|error| Misuse(error.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::post;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::domain::name::JobName;
    use crate::wire::people::CloseGate;

    #[tokio::test]
    async fn a_misspelt_key_and_a_bad_name_are_usage_errors() {
        let handler = async |Path(_): Path<JobName>, Json(_): Json<CloseGate>| StatusCode::NO_CONTENT;
        let router: Router = Router::new().route("/{name}", post(handler));
        for (path, body, told) in [
            ("/orders", r#"{"mesage": "x"}"#, "unknown field `mesage`"),
            ("/-orders", "{}", "cannot be a job name"),
            ("/orders", "{", "EOF"),
        ] {
            let request =
                Request::post(path).header("content-type", "application/json").body(Body::from(body)).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path} {body}");
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let error: ErrorBody = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(error.error.kind, ErrorKind::Usage);
            assert!(error.error.message.contains(told), "{}", error.error.message);
        }
    }
}
