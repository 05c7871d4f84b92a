//! What goes wrong, in the shape that OpenAI's clients know: `{"error": {"message", "type", "param", "code"}}`.

use crate::engine_thread::RefusedJob;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Tells OpenAI's clients whether the same request is worth sending again.
pub(crate) const SHOULD_RETRY: &str = "x-should-retry";
/// When a client that found no place should come back.
const RETRY_SECONDS: u32 = 1;

/// A request that is not answered. `message` says what happened, why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub status: StatusCode,
    /// `invalid_request_error`, `rate_limit_error`, `insufficient_quota`, `permission_error` or `server_error`.
    pub kind: &'static str,
    /// The field that is wrong, where it is one.
    pub param: Option<&'static str>,
    /// A stable word, such as `context_length_exceeded`.
    pub code: Option<&'static str>,
    pub message: String,
    /// When to come back, in seconds. `Some(0)`: not at all, the same request will not be answered soon.
    pub retry_after_s: Option<u32>,
}

impl Failure {
    /// A stable word for it.
    pub(crate) fn word(&self) -> &'static str {
        self.code.unwrap_or(self.kind)
    }

    fn of(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Failure {
        let (kind, message) = ("invalid_request_error", message.into());
        Failure { status, kind, param: None, code, message, retry_after_s: None }
    }

    /// 400: the request itself is wrong.
    pub fn bad(message: impl Into<String>) -> Failure {
        Failure::of(StatusCode::BAD_REQUEST, None, message)
    }

    /// 400: this field is wrong.
    pub fn field(param: &'static str, message: impl Into<String>) -> Failure {
        Failure { param: Some(param), ..Failure::bad(message) }
    }

    /// 400: known to OpenAI and not offered here.
    pub fn unsupported(param: &'static str, message: impl Into<String>) -> Failure {
        Failure { code: Some("unsupported_parameter"), ..Failure::field(param, message) }
    }

    /// 400: no answer can have this form.
    pub fn schema(param: &'static str, message: impl Into<String>) -> Failure {
        Failure { code: Some("invalid_json_schema"), ..Failure::field(param, message) }
    }

    /// 400: prompt and answer do not fit the model.
    pub fn too_long(param: &'static str, prompt: usize, answer: u64, window: u64) -> Failure {
        let message = format!(
            "the prompt has {prompt} tokens and {answer} are asked for, the model's window is {window}; shorten the \
             prompt or lower max_tokens"
        );
        Failure { code: Some("context_length_exceeded"), ..Failure::field(param, message) }
    }

    /// 404.
    pub fn no_model(asked: &str, there: &[String]) -> Failure {
        let message = format!("the model {asked:?} is not loaded; there are {}", there.join(", "));
        Failure {
            param: Some("model"),
            ..Failure::of(StatusCode::NOT_FOUND, Some("model_not_found"), message)
        }
    }

    /// 404.
    pub fn no_route(method: &str, path: &str) -> Failure {
        let message = format!(
            "there is no {method} {path}; there are POST /v1/chat/completions, POST /v1/completions, GET /v1/models, \
             GET /health, GET /metrics"
        );
        Failure::of(StatusCode::NOT_FOUND, Some("unknown_url"), message)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Failure {
        let message = format!("the body is larger than {limit} bytes; send less text");
        Failure::of(StatusCode::PAYLOAD_TOO_LARGE, Some("request_too_large"), message)
    }

    /// 408.
    pub fn too_slow() -> Failure {
        Failure::of(StatusCode::REQUEST_TIMEOUT, None, "the body did not arrive in time; send it again")
    }

    /// 429: everything is taken.
    pub fn busy(why: impl Into<String>) -> Failure {
        let code = Some("rate_limit_exceeded");
        Failure { kind: "rate_limit_error", ..Failure::of(StatusCode::TOO_MANY_REQUESTS, code, why) }
    }

    /// 503: the model is gone, or the process ends.
    pub fn gone(why: impl Into<String>) -> Failure {
        Failure { kind: "server_error", ..Failure::of(StatusCode::SERVICE_UNAVAILABLE, None, why) }
    }

    /// 500: a bug of ours.
    pub fn bug(why: impl Into<String>) -> Failure {
        Failure { kind: "server_error", ..Failure::of(StatusCode::INTERNAL_SERVER_ERROR, None, why) }
    }

    /// 429: a rate or a number of calls at the same time is used up for now.
    pub fn rate(why: impl Into<String>, retry_after_s: u32) -> Failure {
        Failure { retry_after_s: Some(retry_after_s.max(1)), ..Failure::busy(why) }
    }

    /// 429: the budget is used up.
    pub fn quota(why: impl Into<String>) -> Failure {
        let (kind, code) = ("insufficient_quota", Some("insufficient_quota"));
        let failure = Failure::of(StatusCode::TOO_MANY_REQUESTS, code, why);
        Failure { kind, retry_after_s: Some(0), ..failure }
    }

    /// 401: nobody knows who asks.
    pub fn stranger(why: impl Into<String>) -> Failure {
        Failure::of(StatusCode::UNAUTHORIZED, Some("invalid_api_key"), why)
    }

    /// 403.
    pub fn denied(code: &'static str, why: impl Into<String>) -> Failure {
        Failure { kind: "permission_error", ..Failure::of(StatusCode::FORBIDDEN, Some(code), why) }
    }

    /// 502: who computes for us gave no answer.
    pub fn upstream(why: impl Into<String>) -> Failure {
        Failure { kind: "server_error", ..Failure::of(StatusCode::BAD_GATEWAY, None, why) }
    }

    /// The object as it stands in a body or in a stream.
    pub fn body(&self) -> serde_json::Value {
        json!({ "error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        }})
    }
}

impl From<RefusedJob> for Failure {
    fn from(refused: RefusedJob) -> Failure {
        match refused.retriable {
            true => Failure::busy(refused.why),
            false => Failure::bad(refused.why),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let again = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        match self.retry_after_s {
            // OpenAI's clients try again at every 429, unless they are told not to.
            Some(0) => drop(response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"))),
            None if !again.contains(&self.status) => {}
            after => {
                let seconds = HeaderValue::from(after.unwrap_or(RETRY_SECONDS));
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
        }
        response
    }
}
