//! openraft's own storage suite, on our log and state machine: semantics, not durability.

use super::log_store::LogStore;
use super::sim_test::Numbers;
use super::snapshots::Snapshots;
use super::state_machine::StateMachine;
use super::type_config::Types;
use crate::wal::{Flush, Wal, WalOptions};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::sync::{Arc, Mutex};
use sys::disk::{CrashDisk, Disk, RealDisk};
use tempfile::TempDir;
use types::{ClusterId, NodeId};

const CLUSTER: ClusterId = ClusterId([9; 16]);

fn stores(disk: Arc<dyn Disk>, flush: Flush) -> (LogStore, StateMachine) {
    let small = WalOptions {
        segment_bytes: 1024,
        cache_bytes: 256,
        ..WalOptions::new("raft/wal", CLUSTER, NodeId(0), flush)
    };
    let wal = Wal::open(disk.clone(), small).expect("an empty folder opens");
    let snapshots = Snapshots::open(disk, "raft/snap", CLUSTER, NodeId(0)).expect("an empty folder opens");
    (LogStore::new(wal), StateMachine::new(Arc::new(Mutex::new(Numbers::default())), snapshots, flush))
}

struct InMemory;

impl StoreBuilder<Types, LogStore, StateMachine, ()> for InMemory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<Types>> {
        let (log, machine) = stores(Arc::new(CrashDisk::new()), Flush::Inline);
        Ok(((), log, machine))
    }
}

struct OnDisk;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = RealDisk::new(folder.path()).expect("the folder is there");
        let (log, machine) = stores(Arc::new(disk), Flush::Thread);
        Ok((folder, log, machine))
    }
}

#[tokio::test(start_paused = true)]
async fn openrafts_suite_passes_in_memory() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test]
async fn openrafts_suite_passes_on_a_real_disk_with_its_own_thread() {
    Suite::test_all(OnDisk).await.unwrap();
}
