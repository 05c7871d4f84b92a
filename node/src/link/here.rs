//! The leader calls: for a node that knows only coordinators that are gone.

use coordinator::Client;
use proto::internal::v1 as pb;
use tonic::{Request, Response, Status};
use types::NodeId;

/// Takes a leader's call as a hint: attaching shows whether it leads.
pub struct Here {
    pub node: NodeId,
    pub client: Client,
}

#[tonic::async_trait]
impl pb::member_server::Member for Here {
    async fn leader_here(
        &self,
        request: Request<pb::LeaderHereRequest>,
    ) -> Result<Response<pb::LeaderHereResponse>, Status> {
        let request = request.into_inner();
        if request.cluster_id.as_ref() != self.client.cluster().0 || request.node_id != self.node.0 {
            return Err(Status::failed_precondition("the call is for another node or cluster"));
        }
        // Without an address it is only asked whether this node is that one.
        if !request.leader_addr.is_empty() {
            self.client.note_leader(&request.leader_addr);
        }
        Ok(Response::new(pb::LeaderHereResponse {}))
    }
}
