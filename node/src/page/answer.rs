//! Answers as JSON: with a tag, so that what has not changed is not sent again, and errors in the command line's form.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What handlers answer.
pub(crate) type Answer = Result<Response, Failed>;

/// A refusal or a failure of the door.
#[derive(Debug)]
pub(crate) struct Failed(Box<Status>);

impl From<Status> for Failed {
    fn from(status: Status) -> Failed {
        Failed(Box::new(status))
    }
}

impl Failed {
    /// `{"error": {"code", "reason", "message", "next"}}`
    pub(crate) fn body(&self) -> Value {
        let info = self.0.get_details_error_info();
        let reason = info.as_ref().map(|info| info.reason.clone()).unwrap_or_default();
        let next = info.and_then(|info| info.metadata.get("next").cloned()).unwrap_or_default();
        json!({ "error": {
            "code": format!("{:?}", self.0.code()), "reason": reason, "message": self.0.message(), "next": next,
        }})
    }

    fn status(&self) -> StatusCode {
        match self.0.code() {
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable | Code::DeadlineExceeded => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let code = self.status();
        let mut response = (code, Json(self.body())).into_response();
        if matches!(code, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The value, or 304 where the caller has it already.
pub(crate) fn value(asked: &HeaderMap, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| Status::internal(error.to_string()))?;
    let tag = tag(&body);
    if asked.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    let headers = [
        (CONTENT_TYPE, "application/json".to_string()),
        (CACHE_CONTROL, "no-store".to_string()),
        (ETAG, tag),
    ];
    Ok((headers, body).into_response())
}

/// Names the bytes.
pub(crate) fn tag(body: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(body).to_hex()[..24])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::status;

    #[test]
    fn what_is_known_is_not_sent_again() {
        let first = value(&HeaderMap::new(), &[1, 2]).unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        let known = HeaderMap::from_iter([(IF_NONE_MATCH, first.headers()[ETAG].clone())]);
        assert_eq!(value(&known, &[1, 2]).unwrap().status(), StatusCode::NOT_MODIFIED);
        assert_eq!(value(&known, &[1, 3]).unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn errors_keep_their_reason_and_the_next_step() {
        let failed = Failed::from(status::not_found("task", "x", "quorate task list"));
        assert_eq!(failed.status(), StatusCode::NOT_FOUND);
        let error = &failed.body()["error"];
        assert!(error["reason"] == "NOT_FOUND" && error["next"].as_str().unwrap().contains("task list"));
    }
}
