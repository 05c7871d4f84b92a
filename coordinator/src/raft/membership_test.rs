//! Members come and go, leaders hand over, laggards get a snapshot, and mistakes are refused.

use super::sim_test::{CLUSTER, Numbers, Sim, address};
use super::*;
use std::collections::BTreeSet;
use std::time::Duration;
use sys::disk::CrashDisk;
use types::{ClusterId, NodeId};

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

#[tokio::test(start_paused = true)]
async fn one_node_becomes_three_then_five_then_three() {
    let mut sim = Sim::with_voters(1, 3, false).await;
    sim.propose(10).await.unwrap();
    for id in [NodeId(4), NodeId(5)] {
        sim.start(id).await.unwrap();
        sim.leader().await.unwrap().add_learner(id, &address(id)).await.unwrap();
    }
    sim.leader().await.unwrap().change_voters(ids(&[1, 2, 3, 4, 5])).await.unwrap();
    sim.propose(11).await.unwrap();
    // The leader itself may be among those that go.
    sim.leader().await.unwrap().change_voters(ids(&[3, 4, 5])).await.unwrap();
    sim.propose(12).await.unwrap();
    let all = |sim: &Sim| [3, 4, 5].iter().all(|id| sim.seen(NodeId(*id)) == [10, 11, 12]);
    sim.until("all three have all numbers", all).await.unwrap();
    let leader = sim.leader().await.unwrap();
    let members: Vec<u64> = leader.status().voters.keys().map(|id| id.0).collect();
    assert_eq!((members, leader.status().learners.len()), (vec![3, 4, 5], 0));

    // Two of the five are gone for good; the three still have a quorum without one.
    sim.crash(leader.id(), 1).await;
    sim.propose(13).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_without_a_silence() {
    let sim = Sim::with_voters(2, 3, false).await;
    let old = sim.leader().await.unwrap();
    let to = sim.ids().into_iter().find(|id| *id != old.id()).unwrap();
    let mut watch = old.watch_leader();
    let before = tokio::time::Instant::now();
    old.transfer_leader(to).await.unwrap();
    let taken = before.elapsed();
    assert!(taken < Duration::from_millis(400), "{taken:?} is an election, not a handover");
    watch.wait_for(|view| view.leader.as_ref().is_some_and(|l| l.id == to)).await.unwrap();
    assert_eq!(sim.leader().await.unwrap().id(), to);
    let refused = old.propose(vec![0; 8]).await.unwrap_err();
    let leader = Leader { id: to, address: address(to) };
    assert_eq!(refused, ProposeError::NotLeader { leader: Some(leader) });
    assert!(matches!(old.transfer_leader(to).await, Err(MembershipError::NotLeader { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_away_too_long_gets_a_snapshot() {
    let mut sim = Sim::with_voters(3, 3, false).await;
    let leader = sim.leader().await.unwrap();
    let away = sim.ids().into_iter().find(|id| *id != leader.id()).unwrap();
    sim.crash(away, 5).await;
    for number in 0..300 {
        sim.propose(number).await.unwrap();
    }
    let purged = |sim: &Sim| sim.node(leader.id()).status().purged > 200;
    sim.until("the leader has purged its log", purged).await.unwrap();
    sim.start(away).await.unwrap();
    sim.until("the follower has caught up", |sim| sim.seen(away).len() == 300).await.unwrap();
    assert!(sim.net.delivered("snapshot") > 0);

    // What it installed survives its own crash, without the leader's help.
    sim.crash(away, 6).await;
    sim.net.isolate(away, true);
    sim.start(away).await.unwrap();
    assert!(sim.seen(away).len() >= 200, "{}", sim.seen(away).len());
    assert!(sim.seen(away).iter().copied().eq(0..sim.seen(away).len() as u64));
}

/// A node's lease is renewed by a leader only while nobody else can lead: otherwise two nodes might run one task.
#[tokio::test(start_paused = true)]
async fn a_leader_cut_from_its_quorum_is_not_confirmed_for_long() {
    let sim = Sim::with_voters(7, 3, false).await;
    let leader = sim.leader().await.unwrap();
    sim.until("a quorum confirms the leader", |_| leader.is_confirmed()).await.unwrap();
    sim.net.isolate(leader.id(), true);
    let cut = tokio::time::Instant::now();
    sim.until("the confirmation ends", |_| !leader.is_confirmed()).await.unwrap();
    let took = cut.elapsed();
    // Followers wait for at least an election's timeout before they choose another.
    assert!(took < Duration::from_millis(sim.timings.election_min_ms + 50), "confirmed for {took:?} more");
    sim.net.isolate(leader.id(), false);
    let next = sim.leader().await.unwrap();
    sim.until("the next leader is confirmed", |_| next.is_confirmed()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_alone_is_always_confirmed() {
    let mut sim = Sim::new(8);
    sim.start(NodeId(1)).await.unwrap();
    sim.node(NodeId(1)).initialize(&address(NodeId(1))).await.unwrap();
    let leader = sim.leader().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(leader.is_confirmed());
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_nothing_is_acknowledged_or_read() {
    let sim = Sim::with_voters(4, 3, false).await;
    let old = sim.leader().await.unwrap();
    sim.propose(1).await.unwrap();
    sim.net.isolate(old.id(), true);
    let reply = old.propose(2u64.to_le_bytes().to_vec()).await;
    assert!(matches!(reply, Err(ProposeError::Unknown | ProposeError::NotLeader { .. })), "{reply:?}");
    assert!(old.read_barrier().await.is_err());
    let others: Vec<NodeId> = sim.ids().into_iter().filter(|id| *id != old.id()).collect();
    sim.until("another leads", |sim| others.iter().any(|id| sim.node(*id).is_leader())).await.unwrap();
    sim.net.isolate(old.id(), false);
    sim.propose(3).await.unwrap();
    let same = |sim: &Sim| sim.ids().iter().all(|id| sim.seen(*id) == [1, 3]);
    sim.until("the lost proposal is nowhere", same).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn mistakes_with_members_are_refused_and_change_nothing() {
    let sim = Sim::with_voters(5, 3, false).await;
    let leader = sim.leader().await.unwrap();
    assert_eq!(leader.initialize("elsewhere:1").await, Err(InitializeError::Already));
    assert_eq!(leader.change_voters(ids(&[1, 2])).await, Err(MembershipError::Count { count: 2 }));
    let stranger = leader.change_voters(ids(&[1, 2, 9])).await;
    assert_eq!(stranger, Err(MembershipError::NotAMember { id: NodeId(9) }));
    let taken = leader.add_learner(NodeId(4), &address(NodeId(2))).await;
    assert!(matches!(taken, Err(MembershipError::AddressTaken { id: NodeId(2), .. })), "{taken:?}");
    let moved = leader.add_learner(NodeId(2), "elsewhere:1").await;
    assert!(matches!(moved, Err(MembershipError::AddressTaken { id: NodeId(2), .. })), "{moved:?}");
    assert!(matches!(leader.remove_learner(NodeId(2)).await, Err(MembershipError::StillAVoter { .. })));
    assert!(matches!(leader.remove_learner(NodeId(8)).await, Err(MembershipError::NotAMember { .. })));
    assert!(matches!(leader.transfer_leader(NodeId(8)).await, Err(MembershipError::NotAVoter { .. })));

    // A member that never ran holds up no commit, so it must not become a voter.
    leader.add_learner(NodeId(4), &address(NodeId(4))).await.unwrap();
    for number in 0..200 {
        sim.propose(number).await.unwrap();
    }
    let behind = leader.change_voters(ids(&[1, 2, 3, 4])).await;
    assert!(matches!(behind, Err(MembershipError::Count { .. })));
    let behind = leader.change_voters(ids(&[1, 2, 4])).await;
    assert!(matches!(behind, Err(MembershipError::Behind { id: NodeId(4), .. })), "{behind:?}");
    leader.remove_learner(NodeId(4)).await.unwrap();
    sim.propose(200).await.unwrap();
    let members: Vec<u64> = leader.status().voters.keys().map(|id| id.0).collect();
    assert_eq!((members, leader.status().learners.len()), (vec![1, 2, 3], 0));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_not_understood_stops_the_node() {
    let sim = Sim::with_voters(6, 1, false).await;
    let node = sim.node(NodeId(1));
    let reply = node.propose(vec![1, 2, 3]).await;
    assert!(matches!(reply, Err(ProposeError::Stopped { .. } | ProposeError::Unknown)), "{reply:?}");
    assert!(node.stopped().await.contains("an entry that is no number"), "{}", node.stopped().await);
    assert!(node.propose(vec![0; 8]).await.is_err() && node.status().stopped.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_stops_the_node_and_the_others_go_on() {
    let sim = Sim::with_voters(7, 3, false).await;
    let leader = sim.leader().await.unwrap();
    sim.disk(leader.id()).fail_sync_in(1);
    // Whatever the answer to this one is, the failed leader never leads again.
    let _ = leader.propose(1u64.to_le_bytes().to_vec()).await;
    assert!(leader.stopped().await.contains("failed to sync"));
    let others: Vec<NodeId> = sim.ids().into_iter().filter(|id| *id != leader.id()).collect();
    sim.until("another leads", |sim| others.iter().any(|id| sim.node(*id).is_leader())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_disk_is_refused() {
    let start = |disk: CrashDisk, first_start| {
        RaftNode::start(RaftOptions {
            id: NodeId(1),
            cluster: CLUSTER,
            timings: Timings::default(),
            disk: Arc::new(disk),
            flush: Flush::Inline,
            transport: GrpcTransport::new(Arc::new(PlainDialer)),
            machine: Arc::new(Mutex::new(Numbers::default())),
            seed: 0,
            first_start,
        })
    };
    let error = start(CrashDisk::new(), false).await.err().unwrap();
    assert!(matches!(error, StartError::LostDisk { .. }) && error.to_string().contains("Next:"), "{error}");
    let disk = CrashDisk::new();
    start(disk.clone(), true).await.unwrap().shutdown().await;
    start(disk, false).await.unwrap().shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn calls_for_another_cluster_or_node_are_refused() {
    let sim = Sim::with_voters(8, 1, false).await;
    let node = sim.node(NodeId(1));
    let vote = openraft::Vote::new(9, 2);
    let body = || Body::Vote(openraft::raft::VoteRequest::new(vote, None));
    for (cluster, to) in [(ClusterId([4; 16]), NodeId(1)), (CLUSTER, NodeId(2))] {
        let call = Envelope { cluster, from: NodeId(2), to, body: body() };
        assert!(matches!(node.handle(call).await, Err(CallError::Refused(_))));
    }
    assert!(node.status().term < 9);
}

/// The real thing: three nodes with threads and files, over TCP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_over_tcp_and_a_snapshot_in_chunks() {
    let (mut nodes, mut machines, mut addresses, mut folders) = (vec![], vec![], vec![], vec![]);
    for id in 1..=3 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let machine: Arc<Mutex<Numbers>> = Arc::default();
        let node = RaftNode::start(RaftOptions {
            id: NodeId(id),
            cluster: CLUSTER,
            timings: Timings { snapshot_every: 50, keep_entries: 5, ..Timings::default() },
            disk: Arc::new(sys::disk::RealDisk::new(folder.path()).unwrap()),
            flush: Flush::Thread,
            transport: GrpcTransport::new(Arc::new(PlainDialer)),
            machine: machine.clone(),
            seed: id,
            first_start: true,
        });
        let node = node.await.unwrap();
        addresses.push(listener.local_addr().unwrap().to_string());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(node.service());
        tokio::spawn(server.serve_with_incoming(incoming));
        nodes.push(node);
        machines.push(machine);
        folders.push(folder);
    }
    nodes[0].initialize(&addresses[0]).await.unwrap();
    nodes[0].watch_leader().wait_for(|view| view.leader.is_some()).await.unwrap();
    // Enough for a snapshot of more than one chunk.
    machines[0].lock().unwrap().seen = vec![7; 300_000];
    for number in 0..120u64 {
        nodes[0].propose(number.to_le_bytes().to_vec()).await.unwrap();
    }
    let purged = nodes[0].wait(Duration::from_secs(10), |m| m.purged.is_some_and(|p| p.index > 50)).await;
    purged.unwrap();
    for id in [2, 3] {
        nodes[0].add_learner(NodeId(id), &addresses[id as usize - 1]).await.unwrap();
    }
    nodes[0].change_voters(ids(&[1, 2, 3])).await.unwrap();
    let last = nodes[0].propose(120u64.to_le_bytes().to_vec()).await.unwrap();
    for (node, machine) in nodes.iter().zip(&machines) {
        node.wait_applied(last.index, Duration::from_secs(10)).await.unwrap();
        assert_eq!(machine.lock().unwrap().seen.len(), 300_121);
    }
    nodes[0].transfer_leader(NodeId(3)).await.unwrap();
    nodes[2].propose(121u64.to_le_bytes().to_vec()).await.unwrap();
    for node in &nodes {
        node.shutdown().await;
    }
}

/// Members of a cluster that begins with a state elect a leader, have the state, and go on behind it.
#[tokio::test(start_paused = true)]
async fn a_planted_state_is_where_a_cluster_begins() {
    let mut sim = Sim::new(9);
    let members: std::collections::BTreeMap<_, _> =
        [21, 22, 23].map(|id| (NodeId(id), address(NodeId(id)))).into();
    let seed = Seed {
        cluster: CLUSTER,
        index: 500,
        members: members.clone(),
        machine: [7u64, 8, 9].iter().flat_map(|n| n.to_le_bytes()).collect(),
    };
    for id in members.keys() {
        seed.plant(sim.prepare(*id), *id).unwrap();
        assert!(seed.plant(sim.prepare(*id), *id).is_err(), "planted twice");
        sim.start(*id).await.unwrap();
    }
    sim.propose(10).await.unwrap();
    let all = |sim: &Sim| members.keys().all(|id| sim.seen(*id) == [7, 8, 9, 10]);
    sim.until("all three have all numbers", all).await.unwrap();
    assert!(sim.leader().await.unwrap().status().applied > 500);
    for id in members.keys() {
        sim.crash(*id, 3).await;
        sim.start(*id).await.unwrap();
    }
    sim.propose(11).await.unwrap();
    let all = |sim: &Sim| members.keys().all(|id| sim.seen(*id) == [7, 8, 9, 10, 11]);
    sim.until("after a restart, too", all).await.unwrap();
}
