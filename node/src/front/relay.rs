//! A request from the node that was asked to the node that has the model, and the answer back, byte by byte.
//!
//! The answering node reserves and settles by itself: when the asking one is gone, or its client, the stream breaks, the
//! answer ends, and what was made is settled.

use super::places::Busy;
use super::{Front, TRACEPARENT};
use crate::accounts::Caller;
use crate::openai::Failure;
use crate::openai::error::SHOULD_RETRY;
use crate::openai::told::Kind;
use crate::segments::Dial;
use crate::tls::dial::NodeDialer;
use crate::traces::ids::Caller as Tracer;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::BoxStream;
use proto::internal::v1 as pb;
use proto::internal::v1::front_client::FrontClient;
use proto::internal::v1::front_piece::Piece;
use proto::internal::v1::front_server::FrontServer;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use types::{ClusterId, ProjectName};

/// A body and what is around it.
const MESSAGE_BYTES: usize = 8 << 20;
/// The only headers that travel back.
const TRAVEL: [&str; 4] = ["content-type", "cache-control", "retry-after", SHOULD_RETRY];

/// Connections to other nodes, for requests alone.
pub(super) struct Relay {
    cluster: ClusterId,
    dialer: NodeDialer,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Relay {
    pub(super) fn new(cluster: ClusterId, dialer: NodeDialer) -> Relay {
        Relay { cluster, dialer, channels: Mutex::default() }
    }

    /// Has a node answer. `busy` is dropped when the answer is over.
    ///
    /// # Errors
    /// The node can't be reached: another one may be asked.
    pub(super) async fn ask(
        &self,
        address: &str,
        kind: Kind,
        caller: &Caller,
        tracer: Option<Tracer>,
        body: Bytes,
        busy: Busy,
    ) -> Result<Response, String> {
        let mut request = Request::new(pb::FrontRequest {
            cluster_id: self.cluster.0.to_vec().into(),
            project: caller.project.to_string(),
            author: caller.author.clone(),
            chat: kind == Kind::Chat,
            body,
        });
        let header = tracer.and_then(|tracer| tracer.to_string().parse().ok());
        header.and_then(|header| request.metadata_mut().insert(TRACEPARENT, header));
        let mut client = FrontClient::new(self.channel(address)?)
            .max_encoding_message_size(MESSAGE_BYTES)
            .max_decoding_message_size(MESSAGE_BYTES);
        let mut pieces =
            client.ask(request).await.map_err(|status| status.message().to_owned())?.into_inner();
        match pieces.message().await {
            Ok(Some(pb::FrontPiece { piece: Some(Piece::Head(head)) })) => Ok(response(head, pieces, busy)),
            Ok(_) => Err("it answered without a head".to_owned()),
            Err(status) => Err(status.message().to_owned()),
        }
    }

    fn channel(&self, address: &str) -> Result<Channel, String> {
        let mut channels = self.channels.lock().expect("no panic while held");
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = self.dialer.dial(address)?;
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

fn response(head: pb::FrontHead, pieces: Streaming<pb::FrontPiece>, busy: Busy) -> Response {
    let status = u16::try_from(head.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let streams = head.headers.iter().any(|header| header.value.starts_with("text/event-stream"));
    let rest = futures::stream::unfold(Some((pieces, busy)), move |open| next_piece(open, streams));
    let mut response = Response::new(Body::from_stream(rest));
    *response.status_mut() = status.unwrap_or(StatusCode::BAD_GATEWAY);
    for header in head.headers {
        let name = TRAVEL.into_iter().find(|name| *name == header.name);
        if let (Some(name), Ok(value)) = (name, HeaderValue::from_str(&header.value)) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

type Open = Option<(Streaming<pb::FrontPiece>, Busy)>;

/// The next bytes of an answer. A stream of events that breaks off says so where the next event would stand; another
/// answer breaks off.
async fn next_piece(open: Open, streams: bool) -> Option<(Result<Bytes, std::io::Error>, Open)> {
    let (mut pieces, busy) = open?;
    match pieces.message().await {
        Ok(Some(pb::FrontPiece { piece: Some(Piece::Data(data)) })) => Some((Ok(data), Some((pieces, busy)))),
        Ok(_) => None,
        Err(status) => {
            let why =
                format!("the node that answered is gone ({}); send the request again", status.message());
            let event = format!("data: {}\n\n", Failure::gone(&why).body());
            Some((if streams { Ok(event.into()) } else { Err(std::io::Error::other(why)) }, None))
        }
    }
}

/// The answering side, on the internal port: nodes alone reach it.
pub(crate) struct FrontService(Front, ClusterId);

impl FrontService {
    pub(crate) fn new(front: Front, cluster: ClusterId) -> FrontServer<FrontService> {
        FrontServer::new(FrontService(front, cluster))
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl pb::front_server::Front for FrontService {
    type AskStream = BoxStream<'static, Result<pb::FrontPiece, Status>>;

    async fn ask(
        &self,
        request: Request<pb::FrontRequest>,
    ) -> Result<tonic::Response<Self::AskStream>, Status> {
        let header = request.metadata().get(TRACEPARENT).and_then(|header| header.to_str().ok());
        let tracer = header.and_then(Tracer::parse);
        let request = request.into_inner();
        if request.cluster_id.as_ref() != self.1.0 {
            return Err(Status::failed_precondition("the request is for another cluster"));
        }
        let project =
            ProjectName::parse(&request.project).map_err(|why| Status::invalid_argument(why.to_string()))?;
        let caller = Caller { project, author: request.author };
        let kind = if request.chat { Kind::Chat } else { Kind::Completion };
        let response = self.0.answer_here(kind, &caller, tracer, request.body).await;
        Ok(tonic::Response::new(in_pieces(response)))
    }
}

impl Front {
    /// Answers what another node was asked, without passing it on again.
    async fn answer_here(
        &self,
        kind: Kind,
        caller: &Caller,
        tracer: Option<Tracer>,
        body: Bytes,
    ) -> Response {
        let answered = async {
            let inside = self.inside()?;
            let room = inside.face.room(body.len())?;
            inside.here(kind, caller, tracer, body, room).await
        };
        answered.await.unwrap_or_else(Failure::into_response)
    }
}

fn in_pieces(response: Response) -> BoxStream<'static, Result<pb::FrontPiece, Status>> {
    let (parts, body) = response.into_parts();
    let headers =
        parts.headers.iter().filter(|(name, _)| TRAVEL.contains(&name.as_str())).map(|(name, value)| {
            pb::FrontHeader {
                name: name.as_str().to_owned(),
                value: value.to_str().unwrap_or_default().to_owned(),
            }
        });
    let head = pb::FrontHead { status: parts.status.as_u16().into(), headers: headers.collect() };
    let piece = |piece| pb::FrontPiece { piece: Some(piece) };
    let data = body.into_data_stream().map(move |data| match data {
        Ok(data) => Ok(piece(Piece::Data(data))),
        Err(error) => Err(Status::aborted(error.to_string())),
    });
    futures::stream::once(std::future::ready(Ok(piece(Piece::Head(head))))).chain(data).boxed()
}
