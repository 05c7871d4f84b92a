//! Who votes: the largest odd number of coordinators, five at the most, lowest ids first. The others learn.

use crate::raft::RaftNode;
use std::collections::BTreeSet;
use types::NodeId;

/// More voters than this cost latency and tolerate nothing that people have.
const VOTERS_MAX: usize = 5;

/// Which of the coordinators should vote, given who votes now: an even number tolerates no more failures than the odd
/// one below it. Voters in office stay before newcomers.
pub(crate) fn voters(coordinators: &[NodeId], now: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let odd = |n: usize| if n.is_multiple_of(2) { n.saturating_sub(1) } else { n };
    let wanted = odd(coordinators.len().min(VOTERS_MAX));
    let mut order: Vec<NodeId> = coordinators.to_vec();
    order.sort_by_key(|id| (!now.contains(id), *id));
    order.into_iter().take(wanted).collect()
}

/// Adds every coordinator as a learner, then makes the right ones voters. Can be repeated.
pub(crate) async fn follow(raft: &RaftNode, coordinators: &[(NodeId, String)]) -> Result<(), String> {
    let status = raft.status();
    for (id, address) in coordinators {
        let known = status.voters.get(id).or_else(|| status.learners.get(id));
        if known != Some(address) {
            raft.add_learner(*id, address).await.map_err(|e| e.to_string())?;
        }
    }
    let ids: Vec<NodeId> = coordinators.iter().map(|(id, _)| *id).collect();
    let now: BTreeSet<NodeId> = status.voters.keys().copied().collect();
    let wanted = voters(&ids, &now);
    if wanted != now && !wanted.is_empty() {
        raft.change_voters(wanted).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().map(|n| NodeId(*n)).collect()
    }

    #[test]
    fn an_even_coordinator_waits_as_a_learner() {
        let now = BTreeSet::from([NodeId(1)]);
        assert_eq!(voters(&ids(&[1]), &now).len(), 1);
        assert_eq!(voters(&ids(&[1, 4]), &now), now);
        assert_eq!(voters(&ids(&[1, 4, 6]), &now).len(), 3);
        assert_eq!(voters(&ids(&[1, 4, 6, 7, 8, 9, 10]), &now).len(), 5);
    }

    #[test]
    fn voters_in_office_stay() {
        let now = BTreeSet::from([NodeId(4), NodeId(6), NodeId(9)]);
        assert_eq!(voters(&ids(&[1, 4, 6, 9]), &now), now);
        assert_eq!(voters(&ids(&[1, 4, 6]), &now).len(), 3);
    }
}
