//! The face that OpenAI's clients know: `/v1/completions`, `/v1/chat/completions`, `/v1/models`, health, metrics.
//!
//! It turns bodies into jobs of an engine and events into answers; it decides nothing about models. What clients may
//! take is bounded before anything is read: connections, bytes of bodies, answers in the making.
//!
//! Read: `body` (what is asked; pure), `face` (what is served, its bounds), `made` (a job from a request), `told` (events
//! as OpenAI writes them), `listen` (connections).

pub mod body;
pub mod error;
mod face;
mod listen;
pub(crate) mod made;
mod metering;
pub(crate) mod read;
pub(crate) mod told;

pub use error::Failure;
pub use face::{Bounds, Face};
pub(crate) use listen::serve;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use body::{Chat, Completion};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;

/// All routes.
pub fn routes(face: Face) -> Router {
    Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/health", get(health))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .fallback(nothing)
        .method_not_allowed_fallback(nothing)
        .with_state(face)
}

async fn completions(State(face): State<Face>, request: Request) -> Response {
    let answered = AssertUnwindSafe(async {
        let (body, place) = read::body(&face, request).await?;
        let prepared = made::completion(&face, body, place).await?;
        told::answer(prepared.start(face.stop())?.told()).await
    });
    finish(&face, "completions", answered.catch_unwind().await)
}

async fn chat(State(face): State<Face>, request: Request) -> Response {
    let answered = AssertUnwindSafe(async {
        let (body, place) = read::body(&face, request).await?;
        let prepared = made::chat(&face, body, place).await?;
        told::answer(prepared.start(face.stop())?.told()).await
    });
    finish(&face, "chat", answered.catch_unwind().await)
}

/// The answer, counted. A bug of ours ends one request, not the face.
pub(crate) fn finish(
    face: &Face,
    method: &'static str,
    answered: std::thread::Result<Result<Response, Failure>>,
) -> Response {
    let response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => failure.into_response(),
        Err(_) => Failure::bug("answering failed; this is a bug, report it").into_response(),
    };
    face.count(method, response.status());
    response
}

async fn models(State(face): State<Face>) -> Response {
    axum::Json(face.list()).into_response()
}

async fn model(State(face): State<Face>, axum::extract::Path(name): axum::extract::Path<String>) -> Response {
    match face.describe(&name) {
        Some(model) => axum::Json(model).into_response(),
        None => Failure::no_model(&name, &face.names()).into_response(),
    }
}

async fn health(State(face): State<Face>) -> Response {
    match face.is_well() {
        true => axum::Json(serde_json::json!({ "status": "ok" })).into_response(),
        false => Failure::gone("an engine has failed; restart the process").into_response(),
    }
}

async fn metrics(State(face): State<Face>) -> String {
    metering::render(&face)
}

async fn nothing(request: Request) -> Response {
    Failure::no_route(request.method().as_str(), request.uri().path()).into_response()
}

/// Reads a body as the routes do, for fuzzing: never panics, whatever the bytes.
pub fn check_body(chat: bool, body: &[u8]) -> Result<(), Failure> {
    match chat {
        true => Chat::parse(body).map(drop),
        false => Completion::parse(body).map(drop),
    }
}
