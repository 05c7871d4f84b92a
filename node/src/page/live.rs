//! Events of one task as they come: the door's own watch, as server-sent events. The script reads them with `fetch`, because
//! an `EventSource` can't send a key.

use super::Page;
use super::answer::Failed;
use super::caller::{Caller, with};
use super::shapes::usage;
use crate::door::status;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt};
use proto::v1 as pb;
use proto::v1::task_event::Kind;
use proto::v1::task_service_server::TaskService;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

const WATCH: &str = "/quorate.v1.TaskService/WatchTask";

#[derive(Deserialize)]
pub(crate) struct Watched {
    #[serde(default)]
    project: String,
    id: String,
    /// First sequence wanted; 0 is the beginning.
    #[serde(default)]
    from: u64,
}

/// Ends with the task, with the caller's key, and with the node.
pub(crate) async fn watch(
    State(page): State<Page>,
    caller: Caller,
    Query(asked): Query<Watched>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failed> {
    let identity = caller.identity(WATCH)?;
    let place = page.streams.clone().try_acquire_owned().map_err(|_| full())?;
    let over = over(page.stop.clone(), caller.revoked(&identity));
    let message = pb::WatchTaskRequest {
        project: asked.project,
        id: asked.id,
        from_sequence: asked.from,
        no_tokens: false,
    };
    let events = page.door.watch_task(with(identity, message)).await?.into_inner();
    let events = events.map(move |event| {
        let _held = &place;
        Ok(shown(event))
    });
    Ok(Sse::new(events.take_until(over)).keep_alive(KeepAlive::default()))
}

async fn over(stop: CancellationToken, revoked: Option<impl Future<Output = ()>>) {
    match revoked {
        Some(revoked) => drop(stop.run_until_cancelled(revoked).await),
        None => stop.cancelled().await,
    }
}

fn full() -> Status {
    status::error(
        Code::ResourceExhausted,
        "TOO_MANY_WATCHERS",
        "this node's page follows as many tasks as it may",
        "close a page, or open that of another node",
    )
}

fn shown(event: Result<pb::TaskEvent, Status>) -> Event {
    let said = match event {
        Ok(event) => json!({ "sequence": event.sequence, "at_ms": event.at_ms, "kind": kind(event.kind) }),
        Err(status) => Failed::from(status).body(),
    };
    Event::default().data(said.to_string())
}

fn kind(kind: Option<Kind>) -> Value {
    match kind {
        Some(Kind::State(it)) => {
            json!({ "state": it.state().as_str_name(), "reason": it.reason, "node": it.node })
        }
        Some(Kind::Step(it)) => json!({ "step": it.step, "usage": usage(it.usage) }),
        Some(Kind::Token(it)) => json!({ "token": it.text, "step": it.step, "attempt": it.attempt }),
        Some(Kind::Retract(it)) => json!({ "retract": it.step }),
        Some(Kind::Gap(it)) => json!({ "gap": [it.first, it.last] }),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_ends_with_its_key_or_its_node() {
        let stop = CancellationToken::new();
        over(stop.clone(), Some(std::future::ready(()))).await;
        stop.cancel();
        over(stop.clone(), Some(std::future::pending())).await;
        over(stop, None::<std::future::Pending<()>>).await;
    }

    #[test]
    fn one_event_is_one_line_whatever_is_in_it() {
        let kind =
            Kind::Token(pb::TokenChunk { text: "a\n\ndata: x\r<b>".into(), step: 1, ..Default::default() });
        let event = pb::TaskEvent { kind: Some(kind), ..Default::default() };
        let text = json!({ "kind": super::kind(event.kind.clone()) }).to_string();
        assert!(!text.contains('\n') && !text.contains('\r') && text.contains("<b>"));
        drop(shown(Ok(event)));
    }
}
