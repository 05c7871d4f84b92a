//! One JSON-RPC call, read and refused by the rules of A2A.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(super) const TASK_NOT_FOUND: i32 = -32001;
pub(super) const NOT_CANCELABLE: i32 = -32002;
const NO_PUSH: i32 = -32003;
pub(super) const UNSUPPORTED: i32 = -32004;
pub(super) const CONTENT_TYPE: i32 = -32005;
const NO_EXTENDED_CARD: i32 = -32007;
const VERSION: i32 = -32009;
const PARSE: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const NO_METHOD: i32 = -32601;
pub(super) const INVALID_PARAMS: i32 = -32602;
const INTERNAL: i32 = -32603;

/// The version that is spoken here; patches do not matter.
pub(super) const SPOKEN: &str = "1.0";
const VERSION_HEADER: &str = "a2a-version";

#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: Value,
    pub(super) method: String,
    params: Value,
}

#[derive(Deserialize)]
struct Envelope {
    jsonrpc: String,
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Value,
}

/// The calls that name a task and nothing else.
#[derive(Deserialize)]
struct Named {
    id: String,
}

impl Call {
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Call, Refused> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| Refused::new(PARSE, &format!("the body is not JSON: {error}")))?;
        let call: Envelope = serde_json::from_value(value).map_err(|error| {
            Refused::new(INVALID_REQUEST, &format!("this is no JSON-RPC request: {error}"))
        })?;
        if call.jsonrpc != "2.0" || !is_id(&call.id) {
            let why = "send jsonrpc \"2.0\" and an id, a string or a number";
            return Err(Refused::new(INVALID_REQUEST, why));
        }
        version(headers, &call.method)?;
        Ok(Call { id: call.id, method: call.method, params: call.params })
    }

    /// The id of a body that may be no call at all.
    pub(super) fn id(body: &[u8]) -> Value {
        let id = serde_json::from_slice::<Value>(body).ok().and_then(|value| value.get("id").cloned());
        id.filter(is_id).unwrap_or_default()
    }

    pub(super) fn params<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        serde_json::from_value(self.params.clone())
            .map_err(|error| Refused::new(INVALID_PARAMS, &format!("params: {error}")))
    }

    pub(super) fn task_id(&self) -> Result<String, Refused> {
        self.params::<Named>().map(|named| named.id)
    }
}

fn is_id(id: &Value) -> bool {
    id.is_string() || id.is_number()
}

/// Methods of the versions before have other names, so that a client that says nothing is known by them.
fn version(headers: &HeaderMap, method: &str) -> Result<(), Refused> {
    let asked = headers.get(VERSION_HEADER).map(|value| value.to_str().unwrap_or("?"));
    let spoken = asked.is_none_or(|asked| {
        asked == SPOKEN || asked.strip_prefix(SPOKEN).is_some_and(|rest| rest.starts_with('.'))
    });
    if spoken && !method.contains('/') {
        return Ok(());
    }
    let why = format!(
        "this address speaks A2A {SPOKEN} alone; send the header A2A-Version: {SPOKEN} and its methods"
    );
    Err(Refused::new(VERSION, &why))
}

pub(super) fn unknown(method: &str) -> Refused {
    if method.contains("PushNotification") {
        return Refused::new(NO_PUSH, "tasks are not told to web hooks; use SubscribeToTask");
    }
    match method {
        "GetExtendedAgentCard" => {
            Refused::new(NO_EXTENDED_CARD, "there is no other card than the public one")
        }
        "ListTasks" => {
            Refused::new(UNSUPPORTED, "tasks are listed by `quorate task list`, the SDKs and the page")
        }
        _ => Refused::new(NO_METHOD, &format!("there is no method {method:?}")),
    }
}

/// An error in A2A's words.
#[derive(Debug)]
pub(super) struct Refused {
    code: i32,
    message: String,
    /// Of the door, where it refused.
    reason: Option<(String, String)>,
    http: StatusCode,
}

impl Refused {
    pub(super) fn new(code: i32, message: &str) -> Refused {
        Refused { code, message: message.into(), reason: None, http: StatusCode::OK }
    }

    /// The error that a call of this id gets.
    pub(super) fn body(&self, id: &Value) -> Value {
        let info = |(reason, next): &(String, String)| {
            json!([{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "quorate",
                "metadata": { "next": next } }])
        };
        let data = self.reason.as_ref().map_or(Value::Null, info);
        let mut error = json!({ "code": self.code, "message": self.message });
        if !data.is_null() {
            error["data"] = data;
        }
        json!({ "jsonrpc": "2.0", "id": id, "error": error })
    }

    pub(super) fn response(&self, id: &Value) -> Response {
        (self.http, Json(self.body(id))).into_response()
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        let (code, http) = match status.code() {
            Code::InvalidArgument | Code::OutOfRange | Code::NotFound | Code::AlreadyExists => {
                (INVALID_PARAMS, StatusCode::OK)
            }
            Code::FailedPrecondition | Code::Aborted => (UNSUPPORTED, StatusCode::OK),
            Code::Unauthenticated => (INTERNAL, StatusCode::UNAUTHORIZED),
            Code::PermissionDenied => (INTERNAL, StatusCode::FORBIDDEN),
            Code::ResourceExhausted => (INTERNAL, StatusCode::TOO_MANY_REQUESTS),
            Code::Unavailable | Code::DeadlineExceeded => (INTERNAL, StatusCode::SERVICE_UNAVAILABLE),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => (INTERNAL, StatusCode::OK),
        };
        let info = status.get_details_error_info();
        let reason = info.map(|info| {
            let next = info.metadata.get("next").cloned().unwrap_or_default();
            (info.reason, next)
        });
        Refused { code, message: status.message().into(), reason, http }
    }
}

/// Of a card, which is no call: the same body, and a status that says no.
impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let http = if self.http == StatusCode::OK { StatusCode::NOT_FOUND } else { self.http };
        (http, Json(self.body(&Value::Null))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: Option<&str>, body: &str) -> Result<Call, i32> {
        let mut headers = HeaderMap::new();
        if let Some(version) = version {
            headers.insert(VERSION_HEADER, version.parse().unwrap());
        }
        Call::read(&headers, body.as_bytes()).map_err(|refused| refused.code)
    }

    #[test]
    fn what_is_no_call_gets_the_code_that_the_protocol_has_for_it() {
        let call =
            |method: &str| format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{{"id":"t"}}}}"#);
        let good = read(Some("1.0"), &call("GetTask")).unwrap();
        assert_eq!((good.id.clone(), good.task_id().unwrap()), (json!(7), "t".to_string()));
        assert!(read(None, &call("GetTask")).is_ok() && read(Some("1.0.3"), &call("GetTask")).is_ok());
        for (version, body, code) in [
            (None, "{", PARSE),
            (None, "[]", INVALID_REQUEST),
            (None, r#"{"jsonrpc":"1.0","id":1,"method":"GetTask"}"#, INVALID_REQUEST),
            (None, r#"{"jsonrpc":"2.0","method":"GetTask"}"#, INVALID_REQUEST),
            (None, r#"{"jsonrpc":"2.0","id":{},"method":"GetTask"}"#, INVALID_REQUEST),
            (Some("0.3"), &call("GetTask"), VERSION),
            (Some("1.01"), &call("GetTask"), VERSION),
            (None, &call("message/send"), VERSION),
        ] {
            assert_eq!(read(version, body).unwrap_err(), code, "{version:?} {body}");
        }
        assert_eq!(good.params::<Vec<u8>>().unwrap_err().code, INVALID_PARAMS);
    }

    #[test]
    fn what_is_not_offered_is_said_in_the_protocols_words() {
        let code = |method: &str| unknown(method).code;
        assert_eq!(code("CreateTaskPushNotificationConfig"), NO_PUSH);
        assert_eq!(code("GetExtendedAgentCard"), NO_EXTENDED_CARD);
        assert_eq!((code("ListTasks"), code("Dance")), (UNSUPPORTED, NO_METHOD));
    }

    #[test]
    fn the_doors_reasons_come_along() {
        let status = crate::door::status::invalid("inputs", "too many");
        let body = Refused::from(status).body(&json!("a"));
        assert_eq!((&body["id"], &body["error"]["code"]), (&json!("a"), &json!(INVALID_PARAMS)));
        assert_eq!(body["error"]["data"][0]["reason"], "INVALID_ARGUMENT");
    }
}
