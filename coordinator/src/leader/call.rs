//! A new leader calls the members that do not attach by themselves: they may know only nodes that are gone.

use crate::coordinator::Coordinator;
use ledger::rows::{NodeRow, Role};
use proto::internal::v1 as pb;
use proto::internal::v1::member_client::MemberClient;
use std::time::Duration;

/// One call to one member.
const PATIENCE: Duration = Duration::from_secs(1);

/// Calls every member that is not attached and does not hear of leaders by consensus.
pub(crate) fn call_absent(coordinator: &Coordinator) {
    let attached: Vec<u64> = coordinator.inner.link.attached().iter().map(|node| node.node_id).collect();
    let rows = coordinator.nodes();
    let own = rows.iter().find(|row| row.id == coordinator.raft().id());
    let Some(leader_addr) = own.map(|row| row.internal_addr.clone()) else { return };
    let absent = |row: &NodeRow| !row.roles.contains(&Role::Coordinator) && !attached.contains(&row.id.0);
    for row in rows.into_iter().filter(absent) {
        let request = pb::LeaderHereRequest {
            cluster_id: coordinator.cluster().0.to_vec().into(),
            node_id: row.id.0,
            leader_addr: leader_addr.clone(),
        };
        let Ok(channel) = coordinator.inner.dialer.channel(&row.internal_addr) else { continue };
        tokio::spawn(async move {
            // A member that is down does not hear it; it is called again as long as it stays away.
            let _ = tokio::time::timeout(PATIENCE, MemberClient::new(channel).leader_here(request)).await;
        });
    }
}
