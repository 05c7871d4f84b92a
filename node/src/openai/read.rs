//! A request's body into memory: no more of it than allowed, and not for ever.

use super::error::Failure;
use super::face::Face;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use futures::StreamExt;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// A body must be here by then.
const BODY_TIME: Duration = Duration::from_secs(30);
/// What is still taken off the line behind a body that is too large, so that its sender reads the answer.
const DRAINED_BYTES_MAX: usize = 64 << 20;

/// A body, and the room that it takes as long as the second part lives.
pub(crate) async fn body(face: &Face, request: Request) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
    let limit = face.bounds().body_bytes;
    let told = request.headers().get(header::CONTENT_LENGTH);
    let told: Option<usize> = told.and_then(|length| length.to_str().ok()?.parse().ok());
    let room = match told {
        Some(length) if length > limit => None,
        length => Some(face.room(length.unwrap_or(limit))?),
    };
    let keep = if room.is_some() { limit } else { 0 };
    let read = tokio::time::timeout(BODY_TIME, whole(request.into_body(), keep)).await;
    let bytes = read.map_err(|_| Failure::too_slow())??;
    match (bytes, room) {
        (Some(bytes), Some(room)) => Ok((bytes, room)),
        _ => Err(Failure::too_large(limit)),
    }
}

/// The body, or None where it has more bytes than are kept.
async fn whole(body: Body, keep: usize) -> Result<Option<Bytes>, Failure> {
    let mut parts = body.into_data_stream();
    let (mut bytes, mut seen) = (Vec::new(), 0);
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| Failure::bad("the connection broke inside the body; send it again"))?;
        seen += part.len();
        match seen <= keep {
            true => bytes.extend_from_slice(&part),
            false => bytes = Vec::new(),
        }
        if seen > DRAINED_BYTES_MAX.max(keep) {
            break;
        }
    }
    Ok((seen <= keep).then(|| bytes.into()))
}
