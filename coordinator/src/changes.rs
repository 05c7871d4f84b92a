//! What operators ask of the leader about the cluster itself: who votes, who leads, who is out for good, and which
//! feature level holds.

use crate::coordinator::Coordinator;
use crate::leader::follow_members;
use crate::proposer::ProposeFailed;
use ledger::command::{Command, Release, Removal, RequestKey};
use ledger::reply::{Refusal, Reply};
use ledger::rows::{NodeRow, Role};
use proto::internal::v1 as pb;
use types::{ClusterId, Hash, NodeId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    AddVoter,
    /// A coordinator leaves the cluster for good; one that leads hands over first.
    RemoveVoter,
    TransferLeader,
    /// A member that is lost leaves the cluster for good.
    RemoveNode,
    /// To the newest level that every member reads.
    RaiseLevel,
}

#[derive(Clone, Debug)]
pub struct Wish {
    pub change: Change,
    /// None where the name leads to no member any more, or where no node is meant.
    pub node: Option<NodeId>,
    /// What the caller called the node.
    pub wanted: String,
    pub author: String,
    pub reason: String,
    pub request_id: String,
}

/// Why a change was not made here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotChanged {
    /// Another one leads by now, or may: ask again, there or here.
    Moved,
    /// Says what to do.
    Because(String),
}

impl From<String> for NotChanged {
    fn from(why: String) -> Self {
        NotChanged::Because(why)
    }
}

impl From<ProposeFailed> for NotChanged {
    fn from(failed: ProposeFailed) -> Self {
        match failed {
            // It may be asked again: by its request id it is made once.
            ProposeFailed::NotLeader { .. } | ProposeFailed::Unknown | ProposeFailed::Busy => {
                NotChanged::Moved
            }
            other => NotChanged::Because(other.to_string()),
        }
    }
}

impl Wish {
    /// About the node that the caller calls so, which is still to be found.
    pub fn named(change: Change, wanted: String, author: String) -> Wish {
        Wish { change, node: None, wanted, author, reason: String::new(), request_id: String::new() }
    }

    pub(crate) fn of(request: pb::ChangeRequest) -> Result<Wish, NotChanged> {
        let change = match request.kind() {
            pb::ChangeKind::AddVoter => Change::AddVoter,
            pb::ChangeKind::RemoveVoter => Change::RemoveVoter,
            pb::ChangeKind::TransferLeader => Change::TransferLeader,
            pb::ChangeKind::RemoveNode => Change::RemoveNode,
            pb::ChangeKind::RaiseLevel => Change::RaiseLevel,
            pb::ChangeKind::Unspecified => return Err("the request names no change".to_string().into()),
        };
        let node = (request.node_id > 0).then_some(NodeId(request.node_id));
        let pb::ChangeRequest { wanted, author, reason, request_id, .. } = request;
        Ok(Wish { change, node, wanted, author, reason, request_id })
    }

    pub(crate) fn to_wire(&self, cluster: ClusterId) -> pb::ChangeRequest {
        let kind = match self.change {
            Change::AddVoter => pb::ChangeKind::AddVoter,
            Change::RemoveVoter => pb::ChangeKind::RemoveVoter,
            Change::TransferLeader => pb::ChangeKind::TransferLeader,
            Change::RemoveNode => pb::ChangeKind::RemoveNode,
            Change::RaiseLevel => pb::ChangeKind::RaiseLevel,
        };
        pb::ChangeRequest {
            cluster_id: cluster.0.to_vec().into(),
            kind: kind.into(),
            node_id: self.node.map_or(0, |node| node.0),
            wanted: self.wanted.clone(),
            author: self.author.clone(),
            reason: self.reason.clone(),
            request_id: self.request_id.clone(),
        }
    }

    fn request(&self) -> RequestKey {
        RequestKey {
            author: self.author.clone(),
            request_id: self.request_id.clone(),
            body: Hash::of(format!("{:?} {}", self.change, self.wanted).as_bytes()),
        }
    }

    fn stranger(&self) -> NotChanged {
        let name = match self.node {
            Some(node) if self.wanted.is_empty() => node.to_string(),
            _ => self.wanted.clone(),
        };
        format!("{name} is not a member; `quorate node list` shows who is").into()
    }
}

impl Coordinator {
    pub(crate) async fn change(&self, wish: &Wish) -> Result<(), NotChanged> {
        match wish.change {
            Change::AddVoter => self.add_voter(self.coordinator_of(wish)?.id).await,
            Change::TransferLeader => {
                let node = self.coordinator_of(wish)?.id;
                self.raft().transfer_leader(node).await.map_err(|error| error.to_string().into())
            }
            Change::RemoveVoter => self.remove_voter(wish).await,
            Change::RemoveNode => self.remove_node(wish).await,
            Change::RaiseLevel => self.raise_level(wish).await,
        }
    }

    fn member(&self, wish: &Wish) -> Option<NodeRow> {
        self.nodes().into_iter().find(|row| Some(row.id) == wish.node)
    }

    fn coordinator_of(&self, wish: &Wish) -> Result<NodeRow, NotChanged> {
        let row = self.member(wish).ok_or_else(|| wish.stranger())?;
        match row.roles.contains(&Role::Coordinator) {
            true => Ok(row),
            false => Err(format!(
                "{} is no coordinator; start one with the role and let it join. `quorate node remove` takes out a worker \
                 that is lost",
                row.name
            )
            .into()),
        }
    }

    /// Coordinators vote by themselves as soon as their number is odd; this says why one does not.
    async fn add_voter(&self, node: NodeId) -> Result<(), NotChanged> {
        follow_members(self).await?;
        match self.raft().status().voters.contains_key(&node) {
            true => Ok(()),
            false => Err(format!(
                "{node} stays a learner: an even number of voters survives no more failures than one less; \
                 let another coordinator join and both will vote"
            )
            .into()),
        }
    }

    async fn remove_voter(&self, wish: &Wish) -> Result<(), NotChanged> {
        // Who is gone may be asked for again.
        if self.member(wish).is_some() || wish.request_id.is_empty() {
            let row = self.coordinator_of(wish)?;
            if row.id == self.raft().id() {
                return self.step_aside(&row.name).await;
            }
        }
        self.take_out(wish).await?;
        Ok(follow_members(self).await?)
    }

    /// Whoever leads next does it.
    async fn step_aside(&self, name: &str) -> Result<(), NotChanged> {
        self.hand_over().await;
        match self.raft().is_leader() {
            false => Err(NotChanged::Moved),
            true => Err(format!(
                "{name} leads, and no other voter took over: a cluster needs another one first; where there is one, see \
                 `quorate node list` and `quorate cluster transfer-leader`"
            )
            .into()),
        }
    }

    async fn remove_node(&self, wish: &Wish) -> Result<(), NotChanged> {
        if let Some(row) = self.member(wish) {
            self.is_gone(&row)?;
        }
        self.take_out(wish).await
    }

    /// A node that may still work would go on with what others get.
    fn is_gone(&self, row: &NodeRow) -> Result<(), String> {
        let name = &row.name;
        if row.roles.contains(&Role::Coordinator) {
            return Err(format!("{name} is a coordinator; `quorate cluster remove-voter` takes it out"));
        }
        if self.inner.link.attached().iter().any(|node| node.node_id == row.id.0) {
            return Err(format!(
                "{name} is attached and works; only who is lost is removed: `quorate node drain` it and stop its service"
            ));
        }
        if self.inner.link.may_live(row.id) || self.holds_something(row.id) {
            return Err(format!("{name} is away, but its lease is not over yet; repeat it in some seconds"));
        }
        Ok(())
    }

    /// Tasks or model calls of the node have to end with it.
    pub(crate) fn holds_something(&self, node: NodeId) -> bool {
        let machine = self.locked();
        machine.state.leases_of(node).next().is_some() || machine.state.calls_of(node).next().is_some()
    }

    async fn take_out(&self, wish: &Wish) -> Result<(), NotChanged> {
        let removal = Removal { reason: wish.reason.clone(), request: wish.request() };
        let named = Command::RemoveNode { node: wish.node.unwrap_or(NodeId(0)), wish: Some(removal) };
        let command = match (self.allowed(std::slice::from_ref(&named)), wish.node) {
            (Ok(()), _) => named,
            // Below its level there is no memory of requests: a second time finds nobody.
            (Err(ProposeFailed::Level { .. }), Some(node)) if self.member(wish).is_some() => {
                Command::RemoveNode { node, wish: None }
            }
            (Err(ProposeFailed::Level { .. }), _) => return Err(wish.stranger()),
            (Err(other), _) => return Err(other.into()),
        };
        match self.propose(vec![command]).await?.into_iter().next() {
            Some(Reply::Node(_) | Reply::Done) => Ok(()),
            Some(Reply::Refused(Refusal::NotFound { .. })) => Err(wish.stranger()),
            Some(Reply::Refused(refusal)) => Err(refusal.to_string().into()),
            other => Err(format!("unexpected answer to a removal: {other:?}").into()),
        }
    }

    async fn raise_level(&self, wish: &Wish) -> Result<(), NotChanged> {
        let attached = self.inner.link.attached();
        let reads = |row: &NodeRow| attached.iter().find(|it| it.node_id == row.id.0).map(|it| it.reads_form);
        let members: Vec<_> = self.nodes().into_iter().map(|row| (row.name.clone(), reads(&row))).collect();
        let level = common_level(&members, u32::from(ledger::FORMAT))?;
        let reached = u32::from(self.locked().state.form_allowed()) >= level;
        if reached && wish.request_id.is_empty() {
            return Ok(());
        }
        let command = Command::RaiseLevel { level, reason: wish.reason.clone(), request: wish.request() };
        match self.propose_unasked(vec![command]).await?.1.into_iter().next() {
            Some(Reply::Done) => Ok(()),
            Some(Reply::Refused(refusal)) => Err(refusal.to_string().into()),
            other => Err(format!("unexpected answer to a raised level: {other:?}").into()),
        }
    }

    /// Whether every member can read these, as far as the cluster has said so.
    pub(crate) fn allowed(&self, commands: &[Command]) -> Result<(), ProposeFailed> {
        let needed = commands.iter().map(Command::form).max().map_or(0, u32::from);
        if needed <= ledger::BY_USE {
            return Ok(());
        }
        let level = u32::from(self.locked().state.form_allowed());
        match (needed <= level, self.inner.link.is_open()) {
            (true, _) => Ok(()),
            (false, true) => Err(ProposeFailed::Level { needed, level }),
            // The office has not begun: what its predecessors raised may not be applied yet.
            (false, false) => Err(ProposeFailed::NotLeader { leader: None }),
        }
    }

    /// What a worker of this version says, in the words that the level has.
    pub(crate) fn as_allowed(&self, command: Command) -> Command {
        match command {
            Command::Release { task, epoch, node, why: Release::Stuck }
                if u32::from(self.locked().state.form_allowed()) < STUCK =>
            {
                Command::Release { task, epoch, node, why: Release::Broken }
            }
            other => other,
        }
    }
}

/// The level that knows of tasks that hang; below it they count as broken.
const STUCK: u32 = 4;

/// A new cluster has no older versions to think of.
pub(crate) fn newest_level() -> Command {
    let request = RequestKey::default();
    Command::RaiseLevel { level: u32::from(ledger::FORMAT), reason: String::new(), request }
}

/// The newest level of this version, if every member reads it. Each with what it reads: `None` is away, 0 is a version
/// from before levels were raised by command.
fn common_level(members: &[(String, Option<u32>)], newest: u32) -> Result<u32, String> {
    let names = |fits: &dyn Fn(Option<u32>) -> bool| -> Vec<&str> {
        members.iter().filter(|(_, reads)| fits(*reads)).map(|(name, _)| name.as_str()).collect()
    };
    let away = names(&|reads| reads.is_none());
    if !away.is_empty() {
        return Err(format!(
            "{} cannot be asked what it reads: every member has to be ready (`quorate node list`); who is lost for good is \
             removed first",
            away.join(", ")
        ));
    }
    let older = names(&|reads| reads.is_some_and(|form| form < newest));
    match older.is_empty() {
        true => Ok(newest),
        false => Err(format!(
            "{} runs an older version that does not know level {newest}; upgrade every node first",
            older.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_begins_when_every_member_reads_it() {
        let named = |reads: &[Option<u32>]| -> Vec<(String, Option<u32>)> {
            reads.iter().enumerate().map(|(n, reads)| (format!("n{n}"), *reads)).collect()
        };
        assert_eq!(common_level(&named(&[Some(5), Some(6)]), 5), Ok(5));
        let old = common_level(&named(&[Some(5), Some(0), Some(4)]), 5).unwrap_err();
        assert!(old.starts_with("n1, n2 runs an older version"), "{old}");
        let away = common_level(&named(&[Some(5), None]), 5).unwrap_err();
        assert!(away.starts_with("n1 cannot be asked"), "{away}");
    }

    #[test]
    fn wishes_travel() {
        let wish = Wish {
            change: Change::RemoveNode,
            node: None,
            wanted: "worker-2".into(),
            author: "ann".into(),
            reason: "burnt".into(),
            request_id: "r".into(),
        };
        let back = Wish::of(wish.to_wire(ClusterId([1; 16]))).unwrap();
        assert_eq!((back.change, back.node, back.request()), (wish.change, wish.node, wish.request()));
        assert!(Wish::of(pb::ChangeRequest::default()).is_err(), "no change is named");
    }
}
