//! The first files of a member whose cluster begins with a state instead of an empty log.

use super::snapshots::Snapshots;
use super::type_config::{SnapshotMeta, StoredMembership, log_id, membership};
use crate::wal::{self, EntryId};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use sys::disk::Disk;
use types::{ClusterId, NodeId};

/// What every founder of such a cluster must be given alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    pub cluster: ClusterId,
    /// The last entry that the state counts as applied.
    pub index: u64,
    /// All founders, with their internal addresses.
    pub members: BTreeMap<NodeId, String>,
    /// What the machine is restored from.
    pub machine: Vec<u8>,
}

impl Seed {
    /// Writes the files of the member `id`, durable when this returns. It is to be started with `first_start` then, and
    /// elects a leader with the others: the entries behind the state were written by nobody, in term 0, so that whoever
    /// leads first comes later than they do.
    ///
    /// # Errors
    /// When there is a log already, or the disk fails.
    pub fn plant(&self, disk: Arc<dyn Disk>, id: NodeId) -> io::Result<()> {
        if wal::exists(disk.as_ref(), "raft/wal")? || disk.exists("raft/snap")? {
            let why = "there is a log already: a state is planted into an empty folder only";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        let last = log_id(EntryId { term: 0, node: 0, index: self.index });
        let members = self.members.iter().map(|(id, address)| (id.0, address.clone())).collect();
        let ids: Vec<NodeId> = self.members.keys().copied().collect();
        let voters =
            crate::leader::voters(&ids, &Default::default(), None).into_iter().map(|id| id.0).collect();
        let membership = membership(vec![voters], members).map_err(io::Error::other)?;
        let last_membership = StoredMembership::new(Some(last), membership);
        let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
        Snapshots::open(disk, "raft/snap", self.cluster, id)?.save(&meta, &self.machine)
    }
}
