//! The small HTTP face: `/healthz` (the process lives), `/readyz` (it serves), `/metrics` (Prometheus text).

use crate::door::Door;
use crate::figures::Figures;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Face {
    door: Door,
    figures: Figures,
}

/// Serves until `stop` fires.
pub(crate) async fn serve(listener: TcpListener, door: Door, figures: Figures, stop: CancellationToken) {
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Face { door, figures });
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP face ended");
    }
}

async fn metrics(State(face): State<Face>) -> String {
    face.figures.render().await
}

/// Ready means: member of a cluster, and somebody leads.
async fn ready(State(face): State<Face>) -> (StatusCode, &'static str) {
    match face.door.leader_known() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready: no cluster, or no leader is known\n"),
    }
}
