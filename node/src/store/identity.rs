//! Who this node is: a file that is made once, at the first start, and changed once, when the node joins.
//!
//! The disk's own number is made before joining. A node that comes back with a known name and another disk
//! number has lost its disk, and the cluster can refuse to mistake it for the one it knew.

use std::io;

use minicbor::{Decode, Encode};
use sys::disk::{Disk, write_durably};
use types::{ClusterId, NodeId};

const PATH: &str = "identity";
const FORMAT: u32 = 1;

/// A node's name and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub disk_id: [u8; 16],
    /// Set once the node belongs to a cluster.
    pub member: Option<Member>,
}

/// Which node of which cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub cluster_id: ClusterId,
    pub node_id: NodeId,
}

/// Why the node cannot be who its configuration says.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read or write the node's identity file: {0}; check the disk under data_dir")]
    Disk(#[from] io::Error),
    #[error(
        "the node's identity file is damaged ({0}); restore it from a copy, or start with an empty data_dir as a new node"
    )]
    Damaged(String),
    #[error(
        "the node's identity file has format {format}, this version reads up to {FORMAT}; start the newer version again"
    )]
    TooNew { format: u32 },
    #[error(
        "this data_dir belongs to node {stored:?} but the configuration says name = {configured:?}; set the name \
         back, or use another data_dir for the new node"
    )]
    Renamed { stored: String, configured: String },
    #[error(
        "this data_dir belongs to node {node} of cluster {cluster}; to join another cluster start with an empty \
         data_dir"
    )]
    OtherCluster { node: NodeId, cluster: ClusterId },
}

#[derive(Encode, Decode)]
struct Stored {
    #[n(0)]
    format: u32,
    #[n(1)]
    min_reader: u32,
    #[n(2)]
    name: String,
    #[cbor(n(3), with = "minicbor::bytes")]
    disk_id: [u8; 16],
    #[n(4)]
    cluster_id: Option<ClusterId>,
    #[n(5)]
    node_id: Option<NodeId>,
}

impl Identity {
    /// Reads the identity, or makes one at the first start: durable before this answers. `fresh` becomes the
    /// disk's number then and must be random.
    pub fn open(disk: &dyn Disk, name: &str, fresh: [u8; 16]) -> Result<Identity, IdentityError> {
        if !disk.exists(PATH)? {
            let identity = Identity { name: name.to_string(), disk_id: fresh, member: None };
            identity.save(disk)?;
            return Ok(identity);
        }
        let identity = decode(&disk.read(PATH)?)?;
        if identity.name != name {
            return Err(IdentityError::Renamed { stored: identity.name, configured: name.to_string() });
        }
        Ok(identity)
    }

    /// What a file of that kind says; nothing is made or changed.
    pub fn read(bytes: &[u8]) -> Result<Identity, IdentityError> {
        decode(bytes)
    }

    /// Records that the node belongs to a cluster. Durable when Ok; saying the same again changes nothing.
    pub fn join(&mut self, disk: &dyn Disk, member: Member) -> Result<(), IdentityError> {
        match self.member {
            Some(known) if known == member => Ok(()),
            Some(known) => {
                Err(IdentityError::OtherCluster { node: known.node_id, cluster: known.cluster_id })
            }
            None => {
                let joined = Identity { member: Some(member), ..self.clone() };
                joined.save(disk)?;
                *self = joined;
                Ok(())
            }
        }
    }

    fn save(&self, disk: &dyn Disk) -> Result<(), IdentityError> {
        let stored = Stored {
            format: FORMAT,
            min_reader: FORMAT,
            name: self.name.clone(),
            disk_id: self.disk_id,
            cluster_id: self.member.map(|member| member.cluster_id),
            node_id: self.member.map(|member| member.node_id),
        };
        Ok(write_durably(disk, PATH, &types::encode(&stored))?)
    }
}

fn decode(bytes: &[u8]) -> Result<Identity, IdentityError> {
    // The first two fields are read alone, because a newer format may differ in all others.
    let min_reader = min_reader(bytes).map_err(|e| IdentityError::Damaged(e.to_string()))?;
    if min_reader > FORMAT {
        return Err(IdentityError::TooNew { format: min_reader });
    }
    let stored: Stored = types::decode(bytes).map_err(|e| IdentityError::Damaged(e.to_string()))?;
    let member = match (stored.cluster_id, stored.node_id) {
        (Some(cluster_id), Some(node_id)) => Some(Member { cluster_id, node_id }),
        (None, None) => None,
        _ => return Err(IdentityError::Damaged("half of the membership is missing".into())),
    };
    Ok(Identity { name: stored.name, disk_id: stored.disk_id, member })
}

fn min_reader(bytes: &[u8]) -> Result<u32, minicbor::decode::Error> {
    let mut decoder = minicbor::Decoder::new(bytes);
    decoder.array()?;
    decoder.u32()?;
    decoder.u32()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::disk::CrashDisk;

    fn member(node: u64) -> Member {
        Member { cluster_id: ClusterId([1; 16]), node_id: NodeId(node) }
    }

    #[test]
    fn made_once_and_kept_through_power_cuts() {
        let disk = CrashDisk::new();
        let mut first = Identity::open(&disk, "a", [1; 16]).unwrap();
        disk.crash(1);
        assert_eq!(Identity::open(&disk, "a", [2; 16]).unwrap(), first);
        first.join(&disk, member(7)).unwrap();
        first.join(&disk, member(7)).unwrap();
        disk.crash(2);
        let again = Identity::open(&disk, "a", [3; 16]).unwrap();
        assert_eq!((again.disk_id, again.member), ([1; 16], Some(member(7))));
    }

    #[test]
    fn another_name_cluster_or_version_is_refused() {
        let disk = CrashDisk::new();
        let mut identity = Identity::open(&disk, "a", [1; 16]).unwrap();
        assert!(matches!(Identity::open(&disk, "b", [1; 16]), Err(IdentityError::Renamed { .. })));
        identity.join(&disk, member(7)).unwrap();
        assert!(matches!(identity.join(&disk, member(8)), Err(IdentityError::OtherCluster { .. })));
        for (bytes, newer) in [(&[0x84, 9, 9, 0, 0][..], true), (&b"junk"[..], false), (&[][..], false)] {
            write_durably(&disk, PATH, bytes).unwrap();
            let refused = Identity::open(&disk, "a", [1; 16]).unwrap_err();
            assert_eq!(matches!(refused, IdentityError::TooNew { format: 9 }), newer, "{refused}");
        }
    }

    #[test]
    fn the_stored_form_is_golden() {
        let disk = CrashDisk::new();
        let mut identity = Identity::open(&disk, "a", [1; 16]).unwrap();
        identity.join(&disk, member(7)).unwrap();
        let mut golden = vec![0x86, 1, 1, 0x61, b'a'];
        for _disk_then_cluster in 0..2 {
            golden.push(0x50);
            golden.extend_from_slice(&[1; 16]);
        }
        golden.push(7);
        assert_eq!(disk.read(PATH).unwrap(), golden);
    }
}
