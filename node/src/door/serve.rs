//! `ToolService`: one stream of one program that serves tools and models.

use super::{Door, identity, project, status};
use crate::members::Members;
use crate::served::Place;
use proto::v1 as pb;
use proto::v1::tool_server_message::Kind as Told;
use proto::v1::tool_server_request::Kind as Asked;
use proto::v1::tool_service_server::ToolService;
use std::pin::Pin;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// How long a program may take to say what it serves.
const FIRST: Duration = Duration::from_secs(10);
/// How often the list of nodes is compared with what the program was told.
const LOOK: Duration = Duration::from_secs(2);

type Requests = Pin<Box<dyn Stream<Item = Result<pb::ToolServerRequest, Status>> + Send>>;

#[tonic::async_trait]
impl ToolService for Door {
    type ServeToolsStream = Requests;

    async fn serve_tools(
        &self,
        request: Request<Streaming<pb::ToolServerMessage>>,
    ) -> Result<Response<Requests>, Status> {
        let caller = identity(&request);
        let mut messages = request.into_inner();
        let first = tokio::time::timeout(FIRST, messages.message()).await;
        let first = first.map_err(|_| status::invalid("register", "nothing came within 10 s"))??;
        let pb::ToolServerMessage { project: named, kind } = first.unwrap_or_default();
        let project = project(&caller, &named)?;
        let Some(Told::Register(register)) = kind else {
            return Err(status::invalid("register", "the first message says what is served"));
        };
        let inside = self.inside()?;
        // A list from before the others joined would have the program serve here only.
        inside.members.refresh(&inside.client).await;
        let members = inside.members.clone();
        let (place, asked) =
            self.served.join(&project, &register).map_err(|why| status::invalid("register", &why))?;
        tracing::info!(%project, caller = caller.subject, tools = register.tools.len(), "a program serves");
        tokio::spawn(follow(place, messages, members));
        Ok(Response::new(Box::pin(ReceiverStream::new(asked).map(Ok))))
    }
}

/// Hears the program until it goes.
async fn follow(place: Place, mut messages: Streaming<pb::ToolServerMessage>, members: Members) {
    let mut look = tokio::time::interval(LOOK);
    let mut told = Vec::new();
    loop {
        let message = tokio::select! {
            () = place.out.closed() => return,
            _ = look.tick() => {
                tell_nodes(&place, &members, &mut told);
                continue;
            }
            message = messages.message() => message,
        };
        match message {
            Ok(Some(pb::ToolServerMessage { kind: Some(Told::Result(result)), .. })) => {
                place.answered(result.id, Told::Result(result));
            }
            Ok(Some(pb::ToolServerMessage { kind: Some(Told::Answer(answer)), .. })) => {
                place.answered(answer.id, Told::Answer(answer));
            }
            // A second registration, or what only a newer program knows.
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

fn tell_nodes(place: &Place, members: &Members, told: &mut Vec<String>) {
    let nodes: Vec<String> = members.all().into_iter().map(|row| row.client_addr).collect();
    let served_at = Asked::ServedAt(pb::ServedAt { nodes: nodes.clone() });
    // Where there is no room now, it is said at the next look.
    if nodes != *told && place.out.try_send(pb::ToolServerRequest { kind: Some(served_at) }).is_ok() {
        *told = nodes;
    }
}
