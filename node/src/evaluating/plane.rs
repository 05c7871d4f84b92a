//! Evaluations for other nodes: whoever was let in at their door has its calls scored by our engine.

use super::{Evaluations, asked};
use crate::segments::{ClusterCell, Peers, Wire};
use bytes::Bytes;
use prost::Message;
use proto::internal::v1::evaluator_client::EvaluatorClient;
use proto::internal::v1::evaluator_server::{Evaluator, EvaluatorServer};
use proto::internal::v1::{EvaluateRequest, EvaluateResponse};
use proto::v1 as pb;
use std::sync::{Arc, OnceLock};
use tonic::{Request, Response, Status};
use types::{NodeId, ProjectName};

/// Calls of a whole team, and a page of them.
const MESSAGE_BYTES: usize = 128 << 20;

/// Mounted on the internal port before engines are there.
#[derive(Clone)]
pub(crate) struct EvaluatorPlane {
    pub(crate) cluster: ClusterCell,
    pub(crate) evaluations: Arc<OnceLock<Evaluations>>,
}

impl EvaluatorPlane {
    pub(crate) fn service(self) -> EvaluatorServer<EvaluatorPlane> {
        EvaluatorServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl Evaluator for EvaluatorPlane {
    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<EvaluateResponse>, Status> {
        let EvaluateRequest { cluster_id, order, author } = request.into_inner();
        if self.cluster.get().is_none_or(|ours| ours.0[..] != cluster_id[..]) {
            return Err(Status::failed_precondition("this node is of another cluster"));
        }
        let Some(evaluations) = self.evaluations.get() else {
            return Err(Status::unavailable("this node has no engine yet; try again"));
        };
        let order = pb::EvaluateContextRequest::decode(order);
        let order = order.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = evaluate(evaluations, order, author).await?;
        Ok(Response::new(EvaluateResponse { answer: answer.encode_to_vec().into() }))
    }
}

/// Evaluates the calls of a request that names its project.
pub(crate) async fn evaluate(
    evaluations: &Evaluations,
    request: pb::EvaluateContextRequest,
    author: String,
) -> Result<pb::EvaluateContextResponse, Status> {
    let project = ProjectName::parse(&request.project)
        .map_err(|error| crate::door::status::invalid("project", &error.to_string()))?;
    let (model, page) = (request.model.clone(), request.page);
    let done = evaluations.run(asked::order(request, project, author)?).await;
    done.map(|done| asked::answer(&done, model, page)).map_err(asked::refused)
}

/// Has calls evaluated by the engine of another node. Takes as long as that takes: whoever asks has the patience.
///
/// # Errors
/// In the words of the node that was asked; UNAVAILABLE where it can't be reached.
pub(crate) async fn evaluate_at(
    peers: &Peers,
    node: NodeId,
    request: &pb::EvaluateContextRequest,
    author: &str,
) -> Result<pb::EvaluateContextResponse, Status> {
    let Wire { channel, cluster, .. } =
        peers.wire(node).map_err(|error| Status::unavailable(error.to_string()))?;
    let mut client = EvaluatorClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let order = EvaluateRequest {
        cluster_id: Bytes::copy_from_slice(&cluster.0),
        order: request.encode_to_vec().into(),
        author: author.into(),
    };
    let answer = client.evaluate(order).await?.into_inner().answer;
    pb::EvaluateContextResponse::decode(answer).map_err(|error| Status::internal(error.to_string()))
}
