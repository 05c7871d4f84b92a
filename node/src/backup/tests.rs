//! Archives that are whole, cut, bent, of the future; folders that are empty and that are not.

use super::BackupError;
use super::format::{End, Head, Kind, MAGIC, Stored, frame};
use super::read::verify;
use super::restore::{FounderName, restore};
use crate::config::{Config, Exposure};
use crate::store::SegmentStore;
use crate::store::identity::Identity;
use context::{Segment, Visibility};
use ledger::State;
use ledger::command::{Command, RequestKey, Stamp};
use ledger::reply::Reply;
use ledger::rows::{AgentKind, InputRef, Role};
use std::path::{Path, PathBuf};
use sys::disk::RealDisk;
use tempfile::TempDir;
use types::{Class, ClusterId, Hash, NodeId, ProjectName};

fn project() -> ProjectName {
    ProjectName::parse("a/b").unwrap()
}

fn text(kind: context::Kind, text: &str) -> (Hash, Vec<u8>) {
    let sealed = context::seal(&project(), &Segment::new(kind, "ann", Visibility::Project, text));
    (sealed.hash, sealed.bytes)
}

fn apply(state: &mut State, command: Command) -> Reply {
    let at = ledger::Place { index: state.applied_index() + 1, position: 0 };
    state.apply(at, Stamp { ledger_ms: 5, wall_ms: 7_000 }, &command).reply
}

/// A cluster of one with one agent and one task, and the two segments that they name.
fn cluster() -> (State, Vec<(Hash, Vec<u8>)>) {
    let mut state = State::new();
    apply(&mut state, Command::InitCluster { cluster_id: ClusterId([4; 16]) });
    apply(
        &mut state,
        Command::AdmitNode {
            name: "old".into(),
            roles: vec![Role::Coordinator, Role::Worker],
            client_addr: "old:7400".into(),
            internal_addr: "old:7401".into(),
            disk_id: [1; 16],
            version: "0".into(),
        },
    );
    let (definition, input) =
        (text(context::Kind::Definition, "name = \"x\""), text(context::Kind::Message, "hello"));
    let home = vec![NodeId(1)];
    let applied = apply(
        &mut state,
        Command::ApplyAgent {
            project: project(),
            name: "x".into(),
            kind: AgentKind::Agent,
            model: "m".into(),
            revision: Hash::of(b"x"),
            definition: definition.0,
            etag: None,
            home: home.clone(),
            request: RequestKey::default(),
            needs: None,
        },
    );
    assert!(!matches!(applied, Reply::Refused(_)), "{applied:?}");
    let made = apply(
        &mut state,
        Command::CreateTask {
            project: project(),
            agent: "x".into(),
            inputs: vec![InputRef { name: "i".into(), segment: input.0, bytes: 5 }],
            task_id: Some("one".into()),
            labels: vec![],
            class: Class::Batch,
            priority: 5,
            deadline_ms: 0,
            home,
            request: RequestKey::default(),
            terms: None,
        },
    );
    let Reply::Task(row) = made else { panic!("{made:?}") };
    apply(&mut state, Command::Assign { task: row.uid, node: NodeId(1) });
    (state, vec![definition, input])
}

/// The archive of a state with these segments, of which it says that so many are missing.
fn archive(state: &State, segments: &[(Hash, Vec<u8>)], missing: u64) -> Vec<u8> {
    let ledger = state.snapshot();
    archive_of(&Head::of(state, &ledger), &ledger, segments, missing)
}

fn archive_of(head: &Head, ledger: &[u8], segments: &[(Hash, Vec<u8>)], missing: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(frame(Kind::Head, &types::encode(head)));
    for piece in ledger.chunks(100) {
        bytes.extend(frame(Kind::Ledger, piece));
    }
    for (hash, data) in segments {
        let stored = Stored { project: project(), hash: *hash, bytes: data.clone() };
        bytes.extend(frame(Kind::Segment, &types::encode(&stored)));
    }
    let end = End { tasks: 1, segments: segments.len() as u64, missing, hash: Hash::of(&bytes) };
    bytes.extend(frame(Kind::End, &types::encode(&end)));
    bytes
}

fn saved(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let file = folder.path().join("archive");
    std::fs::write(&file, bytes).unwrap();
    file
}

fn config(folder: &Path, name: &str, port: u16) -> Config {
    let data = folder.join(name);
    let text = format!(
        "name = {name:?}\nroles = [\"coordinator\"]\ndata_dir = {data:?}\n[listen]\ninternal = \"127.0.0.1:{port}\"\n"
    );
    Config::parse("test", &text, Exposure::LoopbackOnly).unwrap()
}

fn founders() -> Vec<FounderName> {
    let parse = |text: &str| FounderName::parse(text).unwrap();
    vec![parse("p=127.0.0.1:7601"), parse("q=127.0.0.1:7602"), parse("r=127.0.0.1:7603")]
}

#[test]
fn a_whole_archive_is_good_and_one_without_its_segments_says_so() {
    let (folder, (state, segments)) = (TempDir::new().unwrap(), cluster());
    let verified = verify(&saved(&folder, &archive(&state, &segments, 0))).unwrap();
    assert_eq!(verified.summary.head.state_hash, state.state_hash());
    assert_eq!((verified.summary.end.tasks, verified.summary.end.segments), (1, 2));
    let lacking = verify(&saved(&folder, &archive(&state, &segments[1..], 0))).unwrap_err();
    assert!(lacking.to_string().contains("1 named segments are not in it"), "{lacking}");
    let admitted = verify(&saved(&folder, &archive(&state, &segments[1..], 1))).unwrap();
    assert_eq!(admitted.summary.end.missing, 1);
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let (folder, (state, segments)) = (TempDir::new().unwrap(), cluster());
    let whole = archive(&state, &segments, 0);
    for length in 0..whole.len() {
        let refused = verify(&saved(&folder, &whole[..length])).unwrap_err();
        let expected = matches!(refused, BackupError::CutOff { .. } | BackupError::NoArchive);
        assert!(expected, "cut at {length}: {refused}");
    }
    let longer = [&whole[..], b"x"].concat();
    assert!(verify(&saved(&folder, &longer)).unwrap_err().to_string().contains("something follows"));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let (folder, (state, segments)) = (TempDir::new().unwrap(), cluster());
    let whole = archive(&state, &segments, 0);
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 1 << (at % 8);
        assert!(verify(&saved(&folder, &bent)).is_err(), "a bit of byte {at} was not missed");
    }
}

#[test]
fn archives_of_the_future_and_other_files_are_named_as_such() {
    let (folder, (state, segments)) = (TempDir::new().unwrap(), cluster());
    let ledger = state.snapshot();
    let head = Head { format: 9, min_reader: 9, ..Head::of(&state, &ledger) };
    let refused = verify(&saved(&folder, &archive_of(&head, &ledger, &segments, 0))).unwrap_err();
    assert!(matches!(refused, BackupError::TooNew { needs: 9, reads: 1 }), "{refused}");
    let other = verify(&saved(&folder, b"PK\x03\x04 something else altogether")).unwrap_err();
    assert!(matches!(other, BackupError::NoArchive), "{other}");
    // A head of another ledger is no head of this one, though every checksum is right.
    let head = Head { applied_index: 1, ..Head::of(&state, &ledger) };
    let refused = verify(&saved(&folder, &archive_of(&head, &ledger, &segments, 0))).unwrap_err();
    assert!(refused.to_string().contains("not those of the head"), "{refused}");
    let absent = verify(&folder.path().join("nowhere")).unwrap_err();
    assert!(absent.to_string().contains("nowhere"), "{absent}");
}

#[tokio::test]
async fn three_founders_come_to_the_same_and_hold_everything() {
    let (folder, (state, segments)) = (TempDir::new().unwrap(), cluster());
    let file = saved(&folder, &archive(&state, &segments, 0));
    let mut seen = Vec::new();
    for (name, port) in [("p", 7601), ("q", 7602), ("r", 7603)] {
        let config = config(folder.path(), name, port);
        let mut list = founders();
        list.rotate_left(seen.len());
        let restored = restore(&file, &config, &list, 1).await.unwrap();
        assert_eq!(restored.state_hash, state.state_hash());
        assert_ne!(restored.cluster, ClusterId([4; 16]));
        let disk = RealDisk::new(&config.data_dir).unwrap();
        let identity = Identity::open(&disk, name, [0; 16]).unwrap();
        let member = identity.member.unwrap();
        assert_eq!((member.cluster_id, member.node_id), (restored.cluster, restored.node));
        let store = SegmentStore::open_in(&config.data_dir, identity.disk_id).unwrap();
        for (hash, bytes) in &segments {
            assert_eq!(store.get(&project(), *hash).await.unwrap().as_deref(), Some(&bytes[..]));
        }
        store.close().await;
        seen.push((restored.cluster, restored.begins_with, restored.begins_at));
        let again = restore(&file, &config, &founders(), 1).await.unwrap_err();
        assert!(again.to_string().contains("is not empty"), "{again}");
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    let other =
        restore(&file, &config(&folder.path().join("second"), "p", 7601), &founders(), 2).await.unwrap();
    assert_ne!(other.cluster, seen[0].0);
}

#[tokio::test]
async fn what_cannot_be_restored_changes_nothing() {
    let (folder, (state, segments)) = (TempDir::new().unwrap(), cluster());
    let whole = archive(&state, &segments, 0);
    let file = saved(&folder, &whole[..whole.len() - 1]);
    let own = config(folder.path(), "p", 7601);
    let cut = restore(&file, &own, &founders(), 1).await.unwrap_err();
    assert!(matches!(cut, BackupError::CutOff { .. }), "{cut}");
    let file = saved(&folder, &whole);
    let stranger = restore(&file, &config(folder.path(), "z", 7609), &founders(), 1).await.unwrap_err();
    assert!(stranger.to_string().contains("not among the founders"), "{stranger}");
    let twice = [founders(), founders()].concat();
    let refused = restore(&file, &own, &twice, 1).await.unwrap_err();
    assert!(refused.to_string().contains("same name or address"), "{refused}");
    let names: Vec<_> =
        std::fs::read_dir(&own.data_dir).unwrap().map(|name| name.unwrap().file_name()).collect();
    assert_eq!(names, ["LOCK"]);
    restore(&file, &own, &founders(), 1).await.unwrap();
}
