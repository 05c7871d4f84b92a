//! The web page of the cluster, served by every node at its HTTP port: what the nodes do, what waits and why, the tasks and
//! their trees, one task step by step, limits and what is used of them.
//!
//! It is the door in another dress. Every request is checked by `door/access` and answered by the door's own handlers, so
//! that a key sees here what it sees over gRPC; only the three verbs ask for more ([`act`]). Files are compiled in, and
//! nothing is loaded from anywhere else. It knows no ledger beyond rows, and writes no text of a task into a log.
//!
//! Read: `caller` (who asks, and from which site), `views` (what is answered), `lines` (tasks as lists and trees, pure),
//! `kept` (one answer for many watchers), `live` (events of one task as they come), `assets`.

mod act;
mod answer;
mod assets;
mod caller;
mod journal;
mod kept;
mod lines;
mod live;
mod shapes;
mod views;
mod waiting;

use crate::door::{Access, Door};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::map_response;
use axum::routing::{get, post};
pub(crate) use caller::Caller;
use kept::Kept;
use lines::Digest;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use types::ProjectName;
use waiting::Waiting;

/// Watchers of single tasks on this node: each holds a stream of the door.
const STREAMS: usize = 256;
/// A verb about a task is a line of JSON.
const BODY_BYTES: usize = 4096;

/// What answers are made of. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Page {
    door: Door,
    access: Access,
    tasks: Arc<Kept<ProjectName, Digest>>,
    waiting: Arc<Kept<ProjectName, Waiting>>,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

impl AsRef<Access> for Page {
    fn as_ref(&self) -> &Access {
        &self.access
    }
}

/// The page's files and what they ask for.
pub(crate) fn routes(door: Door, access: Access, stop: CancellationToken) -> Router {
    let page = Page {
        door,
        access,
        tasks: Arc::default(),
        waiting: Arc::default(),
        streams: Arc::new(Semaphore::new(STREAMS)),
        stop,
    };
    let api = Router::new()
        .route("/me", get(views::me))
        .route("/cluster", get(views::cluster))
        .route("/tasks", get(views::tasks))
        .route("/queue", get(views::queue))
        .route("/tree", get(views::tree))
        .route("/task", get(views::task))
        .route("/explain", get(views::explain))
        .route("/journal", get(journal::journal))
        .route("/segment", get(journal::segment))
        .route("/quotas", get(views::quotas))
        .route("/watch", get(live::watch))
        .route("/act", post(act::act))
        .layer(DefaultBodyLimit::max(BODY_BYTES));
    Router::new()
        .route("/", get(assets::index))
        .route("/page/{name}", get(assets::file))
        .nest("/page/api", api)
        .layer(map_response(assets::guarded))
        .with_state(page)
}
