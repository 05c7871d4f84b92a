//! The machines, the voters among them, and the models they hold.

use crate::client::Client;
use crate::data::{ClusterStatus, Model, Node};
use crate::error::Error;
use crate::retry::Kind;
use crate::wire;
use proto::v1;

#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    pub(crate) client: &'a Client,
}

/// A call whose message is cloned for every attempt and whose answer is the cluster's status.
macro_rules! status_call {
    ($self:ident, $kind:expr, $method:ident, $message:expr) => {{
        let message = $message;
        let call = $self.client.call($kind, |via| {
            let message = message.clone();
            async move { via.cluster().$method(via.request(message)).await }
        });
        Ok(call.await?.into())
    }};
}

impl Cluster<'_> {
    /// Makes the first endpoint's node a cluster of one; others join it by their configuration. It goes to that node
    /// alone, and is not repeated once it may have arrived.
    pub async fn init(&self) -> Result<ClusterStatus, Error> {
        status_call!(self, Kind::Once, init_cluster, v1::InitClusterRequest {})
    }

    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        status_call!(self, Kind::Repeatable, get_cluster_status, v1::GetClusterStatusRequest {})
    }

    /// Makes a member node vote. Ids like `n7`, or names. Harmless to repeat, as are the next two.
    pub async fn add_voter(&self, id: &str) -> Result<ClusterStatus, Error> {
        status_call!(self, Kind::Repeatable, add_voter, v1::AddVoterRequest { id: id.into() })
    }

    pub async fn remove_voter(&self, id: &str) -> Result<ClusterStatus, Error> {
        status_call!(self, Kind::Repeatable, remove_voter, v1::RemoveVoterRequest { id: id.into() })
    }

    pub async fn transfer_leader(&self, id: &str) -> Result<ClusterStatus, Error> {
        status_call!(self, Kind::Repeatable, transfer_leader, v1::TransferLeaderRequest { id: id.into() })
    }

    /// Every member, whatever its roles.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let nodes = self.client.call(Kind::Repeatable, |via| async move {
            via.cluster().list_nodes(via.request(v1::ListNodesRequest {})).await
        });
        let (nodes, status) = futures::try_join!(nodes, self.status())?;
        Ok(nodes.nodes.into_iter().map(|node| wire::node(node, status.copies)).collect())
    }

    /// One member, by id or name.
    pub async fn node(&self, id: &str) -> Result<Node, Error> {
        let message = v1::GetNodeRequest { id: id.into() };
        let node = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.cluster().get_node(via.request(message)).await }
        });
        let (node, status) = futures::try_join!(node, self.status())?;
        Ok(wire::node(node, status.copies))
    }

    /// Models that some node holds.
    pub async fn models(&self) -> Result<Vec<Model>, Error> {
        let call = self.client.call(Kind::Repeatable, |via| async move {
            via.cluster().list_models(via.request(v1::ListModelsRequest {})).await
        });
        Ok(call.await?.models.into_iter().map(Model::from).collect())
    }
}
