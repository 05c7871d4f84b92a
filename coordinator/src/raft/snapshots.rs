//! Snapshot files: written whole, synced, renamed; two are kept.
//!
//! `magic | head length u32 | head | machine's bytes | BLAKE3 of all before it`. A file that was called durable
//! is the newest one with a good hash; an unfinished one has a temporary name and is removed at open.

use super::type_config::{MembershipRecord, Snapshot, SnapshotMeta, StoredMembership, entry_id, log_id};
use crate::wal::EntryId;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use sys::disk::{self, Disk};
use types::{ClusterId, NodeId};

const MAGIC: [u8; 8] = *b"QUORSNP\n";
const FORMAT: u32 = 1;
const READER: u32 = 1;
const HASH: usize = 32;
/// The newest, and one before it for the case that the newest cannot be read.
const KEPT: usize = 2;

#[derive(Debug, minicbor::Encode, minicbor::Decode)]
struct Head {
    #[n(0)]
    format: u32,
    #[n(1)]
    min_reader: u32,
    #[n(2)]
    cluster: ClusterId,
    #[n(3)]
    node: NodeId,
    #[n(4)]
    last: Option<EntryId>,
    #[n(5)]
    membership_at: Option<EntryId>,
    #[n(6)]
    membership: MembershipRecord,
}

/// The snapshot files of one node. Clones are the same files.
#[derive(Clone)]
pub(super) struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: String,
    cluster: ClusterId,
    node: NodeId,
}

impl Snapshots {
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &str, cluster: ClusterId, node: NodeId) -> io::Result<Self> {
        disk::create_dir_durably(disk.as_ref(), dir)?;
        for name in disk.list(dir)? {
            if name.ends_with(".tmp") {
                disk.remove(&format!("{dir}/{name}"))?;
            }
        }
        // After the crash of a program a new file's name may be in the machine's memory only.
        disk.sync_dir(dir)?;
        Ok(Snapshots { disk, dir: dir.to_string(), cluster, node })
    }

    /// Writes a snapshot, durable when this returns, and removes all but the newest two.
    pub(super) fn save(&self, meta: &SnapshotMeta, machine: &[u8]) -> io::Result<()> {
        let head = types::encode(&Head {
            format: FORMAT,
            min_reader: READER,
            cluster: self.cluster,
            node: self.node,
            last: meta.last_log_id.map(entry_id),
            membership_at: meta.last_membership.log_id().map(entry_id),
            membership: MembershipRecord::from(meta.last_membership.membership()),
        });
        let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + head.len() + machine.len() + HASH);
        bytes.extend(MAGIC);
        bytes.extend((head.len() as u32).to_le_bytes());
        bytes.extend(head);
        bytes.extend(machine);
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        disk::write_durably(self.disk.as_ref(), &self.path(meta), &bytes)?;
        self.remove_old()
    }

    /// The newest snapshot that can be read.
    ///
    /// # Errors
    /// Only the disk's. A damaged file is passed over with a warning: whether the log reaches back to the one
    /// before it is for the caller to see.
    pub(super) fn newest(&self) -> io::Result<Option<Snapshot>> {
        for name in self.names()?.into_iter().rev() {
            let path = format!("{}/{name}", self.dir);
            match self.parse(self.disk.read(&path)?) {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(reason) => tracing::warn!(file = %path, %reason, "passed over a snapshot"),
            }
        }
        Ok(None)
    }

    /// Whether exactly this snapshot is the newest file.
    pub(super) fn has(&self, meta: &SnapshotMeta) -> io::Result<bool> {
        Ok(self.names()?.last().is_some_and(|name| self.path(meta) == format!("{}/{name}", self.dir)))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.disk.list(&self.dir)?;
        names.retain(|name| name.starts_with("snap-") && !name.ends_with(".tmp"));
        Ok(names)
    }

    fn remove_old(&self) -> io::Result<()> {
        let names = self.names()?;
        let old = names.len().saturating_sub(KEPT);
        for name in &names[..old] {
            self.disk.remove(&format!("{}/{name}", self.dir))?;
        }
        Ok(())
    }

    /// Names sort as snapshots do: by the number of entries inside, then by who wrote the last.
    fn path(&self, meta: &SnapshotMeta) -> String {
        let (next, term, node) =
            meta.last_log_id.map_or((0, 0, 0), |id| (id.index + 1, id.leader_id.term, id.leader_id.node_id));
        format!("{}/snap-{next:020}-{term:020}-{node:020}", self.dir)
    }

    fn parse(&self, bytes: Vec<u8>) -> Result<Snapshot, String> {
        let content = bytes.len().checked_sub(HASH).ok_or("it is too short")?;
        if blake3::hash(&bytes[..content]).as_bytes()[..] != bytes[content..] {
            return Err("its hash does not match its contents".to_string());
        }
        if !bytes.starts_with(&MAGIC) {
            return Err("it is no snapshot".to_string());
        }
        let len = bytes.get(8..12).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
        let head = bytes[..content].get(12..12 + len).ok_or("its head is too long")?;
        let head: Head = types::decode(head).map_err(|e| e.to_string())?;
        if head.min_reader > READER {
            return Err(format!("it needs a reader of format {}, this is {READER}", head.min_reader));
        }
        if (head.cluster, head.node) != (self.cluster, self.node) {
            return Err(format!("it belongs to node {} of cluster {}", head.node, head.cluster));
        }
        let membership = head.membership.into_membership()?;
        let last_membership = StoredMembership::new(head.membership_at.map(log_id), membership);
        let meta = SnapshotMeta { last_log_id: head.last.map(log_id), last_membership };
        Ok(Snapshot { meta, snapshot: Bytes::from(bytes).slice(12 + len..content) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::disk::CrashDisk;

    fn meta(index: u64) -> SnapshotMeta {
        let last = EntryId { term: 2, node: 1, index };
        let membership = super::super::type_config::membership(
            vec![[1, 2].into()],
            [(1, "a:1".to_string()), (2, "b:1".to_string()), (3, "c:1".to_string())].into(),
        );
        let last_membership = StoredMembership::new(Some(log_id(last)), membership.unwrap());
        SnapshotMeta { last_log_id: Some(log_id(last)), last_membership }
    }

    fn open(disk: &CrashDisk) -> Snapshots {
        Snapshots::open(Arc::new(disk.clone()), "raft/snap", ClusterId([1; 16]), NodeId(4)).unwrap()
    }

    #[test]
    fn the_newest_comes_back_and_two_are_kept() {
        let disk = CrashDisk::new();
        let snapshots = open(&disk);
        assert!(snapshots.newest().unwrap().is_none());
        for index in [5, 90, 700] {
            snapshots.save(&meta(index), format!("state {index}").as_bytes()).unwrap();
        }
        let newest = snapshots.newest().unwrap().unwrap();
        assert_eq!((newest.meta, &newest.snapshot[..]), (meta(700), &b"state 700"[..]));
        assert_eq!(disk.list("raft/snap").unwrap().len(), 2);
        assert!(snapshots.has(&meta(700)).unwrap() && !snapshots.has(&meta(90)).unwrap());
    }

    /// The bytes of a snapshot written by the first version, for ever: whoever changes the format sees it here.
    #[test]
    fn the_first_format_is_still_read() {
        let disk = CrashDisk::new();
        let snapshots = open(&disk);
        snapshots.save(&meta(5), b"state").unwrap();
        let name = disk.list("raft/snap").unwrap().pop().unwrap();
        let bytes = disk.read(&format!("raft/snap/{name}")).unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("golden/snapshot-1.hex").trim());
    }

    #[test]
    fn a_damaged_file_and_another_nodes_file_are_passed_over() {
        let disk = CrashDisk::new();
        let snapshots = open(&disk);
        snapshots.save(&meta(5), b"older").unwrap();
        snapshots.save(&meta(9), b"newer").unwrap();
        let name = disk.list("raft/snap").unwrap().pop().unwrap();
        disk.open(&format!("raft/snap/{name}")).unwrap().write_at(40, &[0xee]).unwrap();
        assert_eq!(&snapshots.newest().unwrap().unwrap().snapshot[..], b"older");
        let other = Snapshots::open(Arc::new(disk), "raft/snap", ClusterId([1; 16]), NodeId(5)).unwrap();
        assert!(other.newest().unwrap().is_none());
    }

    #[test]
    fn a_crash_while_saving_leaves_the_old_or_the_new() {
        for cut in 1..12 {
            for seed in 0..10 {
                let disk = CrashDisk::new();
                let snapshots = open(&disk);
                snapshots.save(&meta(5), b"older").unwrap();
                disk.cut_power_in(cut);
                let saved = snapshots.save(&meta(9), b"newer").is_ok();
                disk.crash(seed);
                let found = open(&disk).newest().unwrap().unwrap();
                assert!(found.meta == meta(9) || !saved, "cut {cut} seed {seed}");
                assert!(found.meta == meta(9) || found.meta == meta(5));
            }
        }
    }
}
