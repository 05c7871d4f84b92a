//! What a local cluster is asked by whoever started it.

use super::plan::NodePlan;
use proto::v1::cluster_service_client::ClusterServiceClient;
use proto::v1::task_service_client::TaskServiceClient;
use proto::v1::{GetClusterStatusRequest, InitClusterRequest, ListNodesRequest, ListTasksRequest};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;
use types::ProjectName;

const PATIENCE: Duration = Duration::from_secs(5);

type Asked = ClusterServiceClient<Channel>;

async fn ask(node: &NodePlan) -> Option<Asked> {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.client())).ok()?;
    Some(ClusterServiceClient::new(endpoint.timeout(PATIENCE).connect().await.ok()?))
}

/// Whether the cluster is founded, by this call or before it.
pub(super) async fn found(node: &NodePlan) -> bool {
    let Some(mut client) = ask(node).await else { return false };
    match client.init_cluster(InitClusterRequest {}).await {
        Ok(_) => true,
        Err(status) => {
            status.get_details_error_info().is_some_and(|info| info.reason == "ALREADY_INITIALISED")
        }
    }
}

pub(super) async fn voters(node: &NodePlan) -> usize {
    let Some(mut client) = ask(node).await else { return 0 };
    client
        .get_cluster_status(GetClusterStatusRequest {})
        .await
        .map_or(0, |status| status.into_inner().voters.len())
}

/// The name of the node that leads, as the first node that answers has it.
pub(crate) async fn leader(nodes: &[NodePlan]) -> Option<String> {
    for node in nodes {
        let Some(mut client) = ask(node).await else { continue };
        let status = client.get_cluster_status(GetClusterStatusRequest {}).await;
        if let Some(leader) =
            status.ok().map(|status| status.into_inner().leader).filter(|name| !name.is_empty())
        {
            return Some(leader);
        }
    }
    None
}

pub(super) async fn ready_nodes(node: &NodePlan) -> usize {
    list(std::slice::from_ref(node)).await.iter().filter(|node| node.state == "ready").count()
}

/// The worker of a running task, or the one on which most run: what nodes say of themselves is half a second old.
pub(crate) async fn busiest_worker(nodes: &[NodePlan]) -> Option<String> {
    if let Some(worker) = working(nodes).await {
        return Some(worker);
    }
    let workers: Vec<&str> =
        nodes.iter().filter(|node| !node.coordinator).map(|node| node.name.as_str()).collect();
    let known = list(nodes).await;
    let ours =
        known.into_iter().filter(|node| workers.contains(&node.name.as_str()) && node.state == "ready");
    ours.max_by_key(|node| node.running).map(|node| node.name)
}

/// Where the last task that runs in the project `default` does so.
async fn working(nodes: &[NodePlan]) -> Option<String> {
    for node in nodes {
        let Ok(endpoint) = Endpoint::from_shared(format!("http://{}", node.client())) else { continue };
        let Ok(channel) = endpoint.timeout(PATIENCE).connect().await else { continue };
        let running = ListTasksRequest {
            project: ProjectName::DEFAULT.into(),
            filter: "state=RUNNING".into(),
            page_size: 100,
            ..Default::default()
        };
        if let Ok(answer) = TaskServiceClient::new(channel).list_tasks(running).await {
            let at: Vec<String> = answer.into_inner().tasks.into_iter().map(|task| task.node).collect();
            return at.into_iter().rev().find(|name| nodes.iter().any(|node| node.name == *name));
        }
    }
    None
}

async fn list(nodes: &[NodePlan]) -> Vec<proto::v1::Node> {
    for node in nodes {
        let Some(mut client) = ask(node).await else { continue };
        if let Ok(answer) = client.list_nodes(ListNodesRequest {}).await {
            return answer.into_inner().nodes;
        }
    }
    Vec::new()
}
