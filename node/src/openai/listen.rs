//! Connections: only so many, and none that dawdles over its head.

use super::error::Failure;
use super::face::Face;
use axum::Router;
use axum::response::IntoResponse;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A request's head must be here by then; idle connections are closed after it.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long somebody who is turned away may take to hear it.
const REFUSAL_TIME: Duration = Duration::from_secs(10);
/// How long answers in the making may go on once the process was told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// After a failed accept: usually there are no file descriptors left for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` fires, then lets what runs come to its end.
pub(crate) async fn serve(listener: TcpListener, face: Face, stop: CancellationToken) {
    let served = super::routes(face.clone());
    let full = Router::new().fallback(async || refusal().into_response());
    let places = Arc::new(Semaphore::new(face.bounds().connections));
    // Those who are told that there is no room. Beyond, connections wait in the system's queue.
    let steps = Arc::new(Semaphore::new(face.bounds().connections));
    let tasks = TaskTracker::new();
    while let Some(stream) = stop.run_until_cancelled(accept(&listener)).await {
        match places.clone().try_acquire_owned() {
            Ok(place) => drop(tasks.spawn(attend(stream, served.clone(), place, stop.clone()))),
            Err(_) => {
                let Ok(step) = steps.clone().acquire_owned().await else { break };
                let turned_away = attend(stream, full.clone(), step, stop.clone());
                tasks.spawn(tokio::time::timeout(REFUSAL_TIME, turned_away));
            }
        }
    }
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::info!("answers in the making were cut off");
    }
    face.cut_off();
}

fn refusal() -> Failure {
    Failure::gone("too many connections are open; try again later")
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, routes: Router, _place: OwnedSemaphorePermit, stop: CancellationToken) {
    // A piece of an answer must not wait for the next one.
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}
