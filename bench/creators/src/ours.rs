//! Three coordinators of ours, and clients that create tasks at their leader.

use crate::load::{Call, connections};
use crate::syncs;
use proto::v1;
use proto::v1::task_service_client::TaskServiceClient;
use quorate_tests::{Cluster, Spec};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tonic::transport::Endpoint;

const INPUT_BYTES: usize = 256;

pub(crate) struct Ours {
    cluster: Cluster,
    turns: AtomicU64,
}

impl Ours {
    pub(crate) async fn start(binary: &Path) -> anyhow::Result<Ours> {
        let spec = Spec { coordinators: 3, workers: 0, ..Spec::default() };
        let cluster = Cluster::start(binary, spec).await?;
        let agent = "name = \"quick\"\nmodel = \"none\"\n";
        cluster.client()?.agents().apply(agent).send().await?;
        Ok(Ours { cluster, turns: AtomicU64::new(0) })
    }

    /// Inputs differ, as they do in life: the same text twice would be stored once.
    pub(crate) async fn clients(&self, clients: usize) -> anyhow::Result<Vec<Call>> {
        let leader = self.cluster.leader().await?;
        let address = self.cluster.node(&leader)?.endpoint();
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let mut channels = Vec::new();
        for _ in 0..connections(clients) {
            channels.push(Endpoint::from_shared(address.clone())?.tcp_nodelay(true).connect().await?);
        }
        let client = |client: usize| -> Call {
            let service = TaskServiceClient::new(channels[client % channels.len()].clone());
            Box::new(move |number| {
                let mut service = service.clone();
                Box::pin(async move {
                    let text = format!("{turn:08}-{number:020}-{}", "x".repeat(INPUT_BYTES - 30));
                    let message = v1::CreateTaskRequest {
                        project: "default".into(),
                        agent: "quick".into(),
                        inputs: vec![v1::Input { name: String::new(), text }],
                        request_id: format!("{turn}-{number}"),
                        ..Default::default()
                    };
                    service.create_task(message).await.map(drop)
                })
            })
        };
        Ok((0..clients).map(client).collect())
    }

    /// Syncs of all members so far: of the log, and of groups of segments.
    pub(crate) async fn syncs(&self) -> anyhow::Result<u64> {
        let ports: Vec<u16> = self.cluster.nodes.iter().map(|node| node.ports.http).collect();
        syncs::count(&ports, &["quorate_fsync_seconds_count"]).await
    }
}
