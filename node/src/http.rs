//! The HTTP port: `/healthz` (the process lives), `/readyz` (it serves), `/metrics` (Prometheus text), OpenAI's API below
//! `/v1` (see `front`), A2A below `/a2a` (see `a2a`), and the web page of the cluster at `/` (see `page`).
//!
//! The first two are open to everyone who reaches the port; metrics name projects, so they are for callers who may see
//! all of them. On loopback it is plain; beyond it speaks TLS where the node does.

use crate::door::{Access, Door};
use crate::figures::Figures;
use crate::front::Front;
use crate::openai::told::Kind;
use crate::tls::Tls;
use crate::tls::accept::{Conn, Incoming, Peer, Port, incoming};
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// What answers are made of.
#[derive(Clone)]
pub(crate) struct Face {
    pub(crate) door: Door,
    pub(crate) figures: Figures,
    pub(crate) access: Access,
    pub(crate) front: Front,
}

/// Serves until `stop` fires.
pub(crate) async fn serve(listener: TcpListener, tls: Option<Tls>, face: Face, stop: CancellationToken) {
    let Ok(address) = listener.local_addr() else { return tracing::error!("the HTTP port has no address") };
    let tls = tls.filter(|_| !address.ip().is_loopback());
    let secure = tls.is_some();
    let connections = Connections { incoming: incoming(listener, tls, Port::Http), address };
    let page = crate::page::routes(face.door.clone(), face.access.clone(), stop.clone());
    let a2a = crate::a2a::routes(face.door.clone(), face.access.clone(), secure, stop.clone());
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .with_state(face)
        .merge(page)
        .merge(a2a)
        .into_make_service_with_connect_info::<Remote>();
    let served = axum::serve(connections, routes).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP face ended");
    }
}

/// Connections in the form that the HTTP server takes.
pub(crate) struct Connections {
    incoming: Incoming,
    address: SocketAddr,
}

impl Listener for Connections {
    type Io = Conn;
    type Addr = Peer;

    async fn accept(&mut self) -> (Conn, Peer) {
        loop {
            match self.incoming.next().await {
                Some(Ok(connection)) => {
                    let peer = connection.peer.clone();
                    return (connection, peer);
                }
                Some(Err(_)) => {}
                // The accepting side ends only with the process.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: self.address, certified: None })
    }
}

/// Who is at the other side of a connection.
#[derive(Clone)]
pub(crate) struct Remote(pub(crate) Peer);

impl Connected<IncomingStream<'_, Connections>> for Remote {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        Remote(stream.remote_addr().clone())
    }
}

async fn metrics(
    State(face): State<Face>,
    ConnectInfo(Remote(peer)): ConnectInfo<Remote>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    match face.access.may_read_figures(&headers, Some(&peer)) {
        Ok(()) => (StatusCode::OK, face.figures.render().await),
        Err(status) => {
            let code = match status.code() {
                Code::Unauthenticated => StatusCode::UNAUTHORIZED,
                _ => StatusCode::FORBIDDEN,
            };
            (code, format!("{}\n", status.message()))
        }
    }
}

async fn chat(
    State(face): State<Face>,
    ConnectInfo(Remote(peer)): ConnectInfo<Remote>,
    request: Request,
) -> Response {
    face.front.answer(Kind::Chat, &peer, request).await
}

async fn completions(
    State(face): State<Face>,
    ConnectInfo(Remote(peer)): ConnectInfo<Remote>,
    request: Request,
) -> Response {
    face.front.answer(Kind::Completion, &peer, request).await
}

async fn models(
    State(face): State<Face>,
    ConnectInfo(Remote(peer)): ConnectInfo<Remote>,
    headers: HeaderMap,
) -> Response {
    face.front.models(&peer, &headers, None).await
}

async fn model(
    State(face): State<Face>,
    ConnectInfo(Remote(peer)): ConnectInfo<Remote>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    face.front.models(&peer, &headers, Some(&name)).await
}

/// Ready means: member of a cluster, and somebody leads.
async fn ready(State(face): State<Face>) -> (StatusCode, &'static str) {
    match face.door.leader_known() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready: no cluster, or no leader is known\n"),
    }
}
