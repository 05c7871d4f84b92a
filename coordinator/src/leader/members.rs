//! Who votes: the largest odd number of coordinators, five at the most, lowest ids first. The others learn.

use crate::raft::{MembershipError, RaftNode};
use std::collections::BTreeSet;
use std::time::Duration;
use types::NodeId;

/// More voters than this cost latency and tolerate nothing that people have.
const VOTERS_MAX: usize = 5;
/// How often and how soon a change is tried again while another is under way: two seconds.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Which of the coordinators should vote, given who votes now: an even number tolerates no more failures than the odd
/// one below it. Voters in office stay before newcomers, and who leads before all: a leader that made itself a stranger
/// could not make the next change.
pub(crate) fn voters(
    coordinators: &[NodeId],
    now: &BTreeSet<NodeId>,
    leader: Option<NodeId>,
) -> BTreeSet<NodeId> {
    let odd = |n: usize| if n.is_multiple_of(2) { n.saturating_sub(1) } else { n };
    let wanted = odd(coordinators.len().min(VOTERS_MAX));
    let mut order: Vec<NodeId> = coordinators.to_vec();
    order.sort_by_key(|id| (Some(*id) != leader, !now.contains(id), *id));
    order.into_iter().take(wanted).collect()
}

/// Adds every coordinator as a learner, makes the right ones voters, and lets go of who is no coordinator. Can be
/// repeated; one at a time.
pub(crate) async fn follow(raft: &RaftNode, coordinators: &[(NodeId, String)]) -> Result<(), String> {
    teach(raft, coordinators).await?;
    let ids: Vec<NodeId> = coordinators.iter().map(|(id, _)| *id).collect();
    let now: BTreeSet<NodeId> = raft.status().voters.keys().copied().collect();
    let wanted = voters(&ids, &now, Some(raft.id()));
    if wanted != now && !wanted.is_empty() {
        settled(|| raft.change_voters(wanted.clone())).await?;
        // A voter that is left out leaves altogether: one that is a coordinator still goes on learning.
        teach(raft, coordinators).await?;
    }
    let strangers: Vec<NodeId> =
        raft.status().learners.into_keys().filter(|learner| !ids.contains(learner)).collect();
    for stranger in strangers {
        settled(|| raft.remove_learner(stranger)).await?;
    }
    Ok(())
}

async fn teach(raft: &RaftNode, coordinators: &[(NodeId, String)]) -> Result<(), String> {
    let status = raft.status();
    for (id, address) in coordinators {
        let known = status.voters.get(id).or_else(|| status.learners.get(id));
        if known != Some(address) {
            settled(|| raft.add_learner(*id, address)).await?;
        }
    }
    Ok(())
}

/// Makes a change when the one before is through: consensus answers it before its last entry is known to be committed.
async fn settled<F>(change: impl Fn() -> F) -> Result<(), String>
where
    F: Future<Output = Result<u64, MembershipError>>,
{
    let mut tries = 0;
    loop {
        match change().await {
            Err(MembershipError::InProgress) if tries < TRIES => tries += 1,
            other => return other.map(|_index| ()).map_err(|error| error.to_string()),
        }
        tokio::time::sleep(PAUSE).await;
    }
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
        assert_eq!(voters(&ids(&[1]), &now, Some(NodeId(1))).len(), 1);
        assert_eq!(voters(&ids(&[1, 4]), &now, Some(NodeId(1))), now);
        assert_eq!(voters(&ids(&[1, 4, 6]), &now, Some(NodeId(1))).len(), 3);
        assert_eq!(voters(&ids(&[1, 4, 6, 7, 8, 9, 10]), &now, Some(NodeId(1))).len(), 5);
    }

    #[test]
    fn voters_in_office_stay() {
        let now = BTreeSet::from([NodeId(4), NodeId(6), NodeId(9)]);
        assert_eq!(voters(&ids(&[1, 4, 6, 9]), &now, Some(NodeId(4))), now);
        assert_eq!(voters(&ids(&[1, 4, 6]), &now, Some(NodeId(1))).len(), 3);
    }

    #[test]
    fn a_leader_never_leaves_itself_out() {
        let now = BTreeSet::from([NodeId(4), NodeId(6), NodeId(9), NodeId(12)]);
        assert!(voters(&ids(&[4, 6, 9, 12]), &now, Some(NodeId(12))).contains(&NodeId(12)));
    }
}
