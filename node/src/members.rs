//! Who belongs to the cluster, as this node last heard it. A cache: wrong answers cost a retry, never data.

use crate::segments::Addresses;
use crate::store::identity::Member;
use coordinator::Client;
use coordinator::raft::Dialer;
use ledger::query::{Answer, Query};
use ledger::rows::{NodeRow, Role};
use proto::internal::v1::LeaderHereRequest;
use proto::internal::v1::member_client::MemberClient;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use types::{Hash, NodeId, limits};

/// How often the list is read again.
const REFRESH: Duration = Duration::from_secs(2);

/// A node that runs answers in a hundredth of it.
const ANSWERS: Duration = Duration::from_secs(2);

/// Whether a process at this internal address runs as that node of that cluster.
pub(crate) async fn answers_as(dialer: &dyn Dialer, address: &str, member: Member) -> bool {
    let Ok(channel) = dialer.channel(address) else { return false };
    let asked = LeaderHereRequest {
        cluster_id: member.cluster_id.0.to_vec().into(),
        node_id: member.node_id.0,
        leader_addr: String::new(),
    };
    tokio::time::timeout(ANSWERS, MemberClient::new(channel).leader_here(asked))
        .await
        .is_ok_and(|it| it.is_ok())
}

#[derive(Clone, Default)]
pub struct Members {
    rows: Arc<RwLock<Vec<NodeRow>>>,
}

impl Members {
    pub fn all(&self) -> Vec<NodeRow> {
        self.rows.read().expect("no panic while held").clone()
    }

    pub fn get(&self, id: NodeId) -> Option<NodeRow> {
        self.rows.read().expect("no panic while held").iter().find(|row| row.id == id).cloned()
    }

    /// The configured name, or the id of a node that is not known here.
    pub fn name(&self, id: NodeId) -> String {
        self.get(id).map_or_else(|| id.to_string(), |row| row.name)
    }

    /// By id like n7 or by configured name.
    pub fn find(&self, id_or_name: &str) -> Option<NodeRow> {
        let wanted = NodeId::parse(id_or_name).ok();
        self.all().into_iter().find(|row| Some(row.id) == wanted || row.name == id_or_name)
    }

    /// Copies that a commit needs: two, where two stores are members.
    pub fn copies(&self) -> usize {
        self.rows.read().expect("no panic while held").len().clamp(1, limits::COPIES)
    }

    /// Other stores in the order to try them as keepers: nodes in `first`, then coordinators, which rarely come and
    /// go, then the rest; within each in an order that spreads by `what`.
    pub fn keepers(&self, own: NodeId, first: &[NodeId], what: Hash) -> Vec<NodeId> {
        let mut rows: Vec<NodeRow> = self.all().into_iter().filter(|row| row.id != own).collect();
        let spread = |row: &NodeRow| Hash::of_parts(&[&what.0, &row.id.0.to_le_bytes()]);
        rows.sort_by_key(|row| {
            (!first.contains(&row.id), !row.roles.contains(&Role::Coordinator), spread(row))
        });
        rows.into_iter().map(|row| row.id).collect()
    }

    /// Reads the list again, and tells the client where coordinators are.
    pub async fn refresh(&self, client: &Client) -> bool {
        let Ok((Answer::Nodes(rows), _, _)) = client.read_stale(Query::Nodes).await else { return false };
        if rows.is_empty() {
            return false;
        }
        let coordinators = rows.iter().filter(|row| row.roles.contains(&Role::Coordinator));
        client.learn_seeds(coordinators.map(|row| row.internal_addr.clone()).collect());
        *self.rows.write().expect("no panic while held") = rows;
        true
    }

    /// Reads the list again when one of these nodes is not in it: it may have joined a moment ago.
    pub async fn learn(&self, client: &Client, mut ids: impl Iterator<Item = NodeId>) {
        if ids.any(|id| self.get(id).is_none()) {
            self.refresh(client).await;
        }
    }

    /// Keeps the list fresh for the life of the node.
    pub async fn follow(self, client: Client) {
        loop {
            self.refresh(&client).await;
            tokio::time::sleep(REFRESH).await;
        }
    }
}

impl Addresses for Members {
    fn address(&self, node: NodeId) -> Option<String> {
        self.get(node).map(|row| row.internal_addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, role: Role) -> NodeRow {
        NodeRow {
            id: NodeId(id),
            name: format!("node-{id}"),
            roles: vec![role],
            client_addr: String::new(),
            internal_addr: format!("127.0.0.1:{id}"),
            disk_id: [0; 16],
            version: String::new(),
            fenced: Default::default(),
            closed: None,
        }
    }

    #[test]
    fn keepers_prefer_the_home_then_coordinators() {
        let members = Members::default();
        let rows = vec![
            row(1, Role::Coordinator),
            row(2, Role::Coordinator),
            row(3, Role::Worker),
            row(4, Role::Worker),
        ];
        *members.rows.write().unwrap() = rows;
        let order = members.keepers(NodeId(3), &[NodeId(4)], Hash::of(b"x"));
        assert_eq!(order[0], NodeId(4));
        assert_eq!(order.len(), 3);
        assert!(!order.contains(&NodeId(3)));
        assert_eq!(members.find("node-2").map(|row| row.id), Some(NodeId(2)));
        assert_eq!(members.find("n4").map(|row| row.id), Some(NodeId(4)));
        assert_eq!(members.copies(), 2);
        assert_eq!(Members::default().copies(), 1);
    }
}
