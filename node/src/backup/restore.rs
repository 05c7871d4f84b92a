//! Makes an empty folder the one of a founder of a restored cluster. Every founder does it by itself, from the same
//! file with the same list of founders, and they all come to the same cluster id, node ids and first state.

use super::BackupError;
use super::read::{Part, Reader, Verified, verify};
use super::write::Summary;
use crate::config::Config;
use crate::store::identity::{Identity, Member};
use crate::store::{DataLock, SegmentStore};
use coordinator::raft::Seed;
use ledger::Founder;
use std::path::Path;
use std::sync::Arc;
use sys::disk::{Disk, RealDisk};
use types::{ClusterId, Hash, NodeId, ProjectName};

/// Segments are stored in groups of about this size: one sync for many, but bounded memory.
const GROUP_BYTES: usize = 8 << 20;
const GROUP_SEGMENTS: usize = 256;

/// A founder as people name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FounderName {
    /// As in its configuration.
    pub(crate) name: String,
    /// Its internal address, `host:port`.
    pub(crate) address: String,
}

impl FounderName {
    /// `NAME=HOST:PORT`.
    pub(crate) fn parse(text: &str) -> Result<FounderName, String> {
        match text.split_once('=') {
            Some((name, address)) if crate::config::is_name(name) && address.contains(':') => {
                Ok(FounderName { name: name.into(), address: address.into() })
            }
            _ => Err(format!("{text:?} is not NAME=HOST:PORT, such as coordinator-1=10.0.0.1:7401")),
        }
    }
}

/// What a folder became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    pub summary: Summary,
    /// Of the ledger in the archive, made again from its rows.
    pub state_hash: Hash,
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Of the first state of the new cluster, the same on every founder.
    pub begins_with: Hash,
    pub begins_at: u64,
}

/// Reads the archive twice: once to know that all of it is good, before anything is written, and once to store it.
pub(crate) async fn restore(
    file: &Path,
    config: &Config,
    founders: &[FounderName],
    round: u64,
) -> Result<Restored, BackupError> {
    let _lock = DataLock::take(&config.data_dir).map_err(|error| BackupError::Refused(error.to_string()))?;
    must_be_empty(&config.data_dir)?;
    let founders = checked(founders, config)?;
    let Verified { summary, mut state } = verify(file)?;
    let state_hash = state.state_hash();
    let cluster = cluster_id(&summary, &founders, round);
    let rows: Vec<Founder> = founders.iter().map(|founder| row(cluster, founder)).collect();
    let own = founders.iter().position(|founder| founder.name == config.name);
    let own = own.expect("the list was checked for this node");
    let ids = state.begin_again(cluster, &rows);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&config.data_dir)?);
    store_segments(file, &config.data_dir, rows[own].disk_id).await?;
    let seed = Seed {
        cluster,
        index: state.applied_index(),
        members: ids.iter().copied().zip(founders.iter().map(|founder| founder.address.clone())).collect(),
        machine: state.snapshot(),
    };
    seed.plant(disk.clone(), ids[own])?;
    // Last: without it the folder belongs to no member, however far this came.
    let mut identity = Identity::open(disk.as_ref(), &config.name, rows[own].disk_id).map_err(refused)?;
    identity.join(disk.as_ref(), Member { cluster_id: cluster, node_id: ids[own] }).map_err(refused)?;
    let (begins_with, begins_at) = (state.state_hash(), state.applied_index());
    Ok(Restored { summary, state_hash, cluster, node: ids[own], begins_with, begins_at })
}

fn refused(error: impl std::fmt::Display) -> BackupError {
    BackupError::Refused(error.to_string())
}

/// Only the lock that was just taken may be there.
fn must_be_empty(folder: &Path) -> Result<(), BackupError> {
    let names = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    match names.iter().map(std::fs::DirEntry::file_name).find(|name| name != "LOCK") {
        None => Ok(()),
        Some(name) => Err(BackupError::Refused(format!(
            "{} is not empty ({} is there): restore into a new data_dir; nothing was changed",
            folder.display(),
            name.display()
        ))),
    }
}

/// The founders in order, this node among them as its configuration says. Without a list this node is the only one.
fn checked(founders: &[FounderName], config: &Config) -> Result<Vec<FounderName>, BackupError> {
    let own = FounderName { name: config.name.clone(), address: config.internal_address() };
    if !config.roles.contains(&crate::config::Role::Coordinator) {
        let next = "restore on coordinators; workers join the new cluster with an empty data_dir";
        return Err(BackupError::Refused(format!("{} is no coordinator: {next}", config.name)));
    }
    if founders.is_empty() {
        return Ok(vec![own]);
    }
    let mut sorted = founders.to_vec();
    sorted.sort();
    let twice =
        sorted.windows(2).any(|pair| pair[0].name == pair[1].name || pair[0].address == pair[1].address);
    if twice {
        return Err(BackupError::Refused("two founders have the same name or address".into()));
    }
    match sorted.contains(&own) {
        true => Ok(sorted),
        false => Err(BackupError::Refused(format!(
            "this node is {}={} by its configuration, and not among the founders; give every founder the same list",
            own.name, own.address
        ))),
    }
}

/// Everybody with the same file and list makes the same, and nobody else: nodes that were given another list do not talk
/// to these.
fn cluster_id(summary: &Summary, founders: &[FounderName], round: u64) -> ClusterId {
    let mut parts: Vec<Vec<u8>> =
        vec![b"restored".to_vec(), summary.end.hash.0.to_vec(), round.to_le_bytes().to_vec()];
    parts.extend(founders.iter().map(|founder| format!("{}={}", founder.name, founder.address).into_bytes()));
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    ClusterId(half(Hash::of_parts(&parts)))
}

/// The number of a disk is known to all founders before its node has run.
fn row(cluster: ClusterId, founder: &FounderName) -> Founder {
    Founder {
        name: founder.name.clone(),
        internal_addr: founder.address.clone(),
        disk_id: half(Hash::of_parts(&[b"disk", &cluster.0, founder.name.as_bytes()])),
    }
}

fn half(hash: Hash) -> [u8; 16] {
    hash.0[..16].try_into().expect("a hash has 32 bytes")
}

async fn store_segments(file: &Path, folder: &Path, disk_id: [u8; 16]) -> Result<(), BackupError> {
    let store = SegmentStore::open_in(folder, disk_id)?;
    let mut reader = Reader::open(file)?;
    let head = reader.head()?;
    reader.ledger(&head)?;
    let (mut project, mut group, mut bytes): (Option<ProjectName>, Vec<_>, usize) = (None, Vec::new(), 0);
    while let Part::Segment(stored) = reader.next_part()? {
        let full = bytes >= GROUP_BYTES || group.len() >= GROUP_SEGMENTS;
        if let Some(of) = project.as_ref().filter(|of| full || **of != stored.project) {
            store.put_all(of, std::mem::take(&mut group)).await?;
            bytes = 0;
        }
        bytes += stored.bytes.len();
        group.push((stored.hash, stored.bytes.into()));
        project = Some(stored.project);
    }
    if let Some(of) = project {
        store.put_all(&of, group).await?;
    }
    store.close().await;
    Ok(())
}
