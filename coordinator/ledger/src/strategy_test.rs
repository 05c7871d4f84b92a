//! Each strategy changes an order where it should: two projects wait, and the one that is named goes first.

use crate::command::{Command, RequestKey, Stamp};
use crate::keys::{Bound, Holding, QuotaKey};
use crate::placement::{Soft, SoftNode};
use crate::plan::plan;
use crate::rows::{AgentKind, Role};
use crate::state::{Place, State};
use crate::strategy::Strategy;
use types::{Class, ClusterId, Hash, NodeId, ProjectName, TaskUid};

struct Bench {
    state: State,
    index: u64,
    nodes: Vec<NodeId>,
}

fn project(name: &str) -> ProjectName {
    ProjectName::parse(name).unwrap()
}

fn cpu() -> Holding {
    Holding::CpuMilli
}

impl Bench {
    /// Two workers; agents of project `a` need much of the processors, those of `b` little.
    fn new() -> Bench {
        let mut bench = Bench { state: State::new(), index: 0, nodes: vec![] };
        bench.apply(Command::InitCluster { cluster_id: ClusterId::default() });
        for name in ["one", "two"] {
            bench.apply(Command::AdmitNode {
                name: name.into(),
                roles: vec![Role::Worker],
                client_addr: String::new(),
                internal_addr: format!("{name}:1"),
                disk_id: Hash::of(name.as_bytes()).0[..16].try_into().unwrap(),
                version: String::new(),
            });
        }
        bench.nodes = bench.state.nodes().map(|row| row.id).collect();
        for (name, needed) in [("a", 4000), ("b", 1000)] {
            bench.apply(Command::ApplyAgent {
                project: project(name),
                name: "agent".into(),
                kind: AgentKind::Agent,
                model: "m".into(),
                revision: Hash::default(),
                definition: Hash::default(),
                etag: None,
                home: bench.nodes.clone(),
                request: RequestKey::default(),
                needs: Some(vec![(cpu(), needed)]),
            });
        }
        bench
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let stamp = Stamp { ledger_ms: self.index, wall_ms: self.index };
        let reply = self.state.apply(Place { index: self.index, position: 0 }, stamp, &command).reply;
        assert!(!matches!(reply, crate::reply::Reply::Refused(_)), "{command:?}: {reply:?}");
    }

    fn limit(&mut self, path: &str, key: QuotaKey, limit: u64) {
        self.apply(Command::SetQuota {
            path: path.into(),
            changes: vec![(key, Some(limit))],
            etag: None,
            reason: "a test".into(),
            request: RequestKey::default(),
        });
    }

    fn task(&mut self, of: &str) -> TaskUid {
        self.apply(Command::CreateTask {
            project: project(of),
            agent: "agent".into(),
            inputs: vec![],
            task_id: None,
            labels: vec![],
            class: Class::Batch,
            priority: 0,
            deadline_ms: 0,
            home: self.nodes.clone(),
            request: RequestKey::default(),
            terms: None,
        });
        TaskUid { index: self.index, position: 0 }
    }

    fn start(&mut self, task: TaskUid, node: usize) {
        self.apply(Command::Assign { task, node: self.nodes[node] });
    }

    /// Projects and nodes of what would start, in order.
    fn planned(&self, strategy: Strategy) -> Vec<(String, usize)> {
        let node = SoftNode { attached: true, slots: 8, models: ["m".into()].into(), ..SoftNode::default() };
        let nodes = self.nodes.iter().map(|id| (*id, node.clone())).collect();
        let soft = Soft { nodes, ledger_ms: self.index, strategy, ..Soft::default() };
        let planned = plan(&self.state, &soft, usize::MAX).into_iter();
        let started = planned.map(|command| {
            let Command::Assign { task, node } = command else { panic!("{command:?}") };
            let at = self.nodes.iter().position(|id| *id == node).unwrap();
            (self.state.task(task).unwrap().project.to_string(), at)
        });
        started.collect()
    }

    fn order(&self, strategy: Strategy) -> String {
        self.planned(strategy).into_iter().map(|(project, _)| project).collect()
    }
}

#[test]
fn engines_go_to_who_was_served_least_and_processors_to_who_holds_least_of_them() {
    let mut bench = Bench::new();
    bench.limit("cluster", QuotaKey::Holding(cpu(), Bound::Limit), 40_000);
    // Both were given one lease, which costs the same on an engine; that of `a` holds four times the processors.
    let tasks = ["a", "b"].map(|of| bench.task(of));
    for task in tasks {
        bench.start(task, 0);
    }
    for of in ["a", "a", "a", "b", "b", "b"] {
        bench.task(of);
    }
    assert_eq!(bench.order(Strategy::Llm), "ababab");
    assert_eq!(bench.order(Strategy::Compute), "bbbaaa", "4,000 of 40,000 each, then by name");
}

#[test]
fn calls_go_to_who_has_most_left_of_its_minute() {
    let mut bench = Bench::new();
    bench.limit("projects/a", QuotaKey::RequestsMinute, 2);
    bench.limit("projects/b", QuotaKey::RequestsMinute, 20);
    for of in ["a", "a", "b", "b", "b"] {
        bench.task(of);
    }
    assert_eq!(bench.order(Strategy::Llm), "ababb");
    assert_eq!(bench.order(Strategy::Api), "abbba", "half of a's minute is more than three calls of b's");
}

#[test]
fn room_goes_to_the_oldest_at_the_first_place() {
    let mut bench = Bench::new();
    for of in ["b", "b", "b", "a"] {
        bench.task(of);
    }
    assert_eq!(bench.order(Strategy::Llm), "abbb");
    assert_eq!(bench.order(Strategy::Storage), "bbba");
    let places = |strategy| bench.planned(strategy).into_iter().map(|(_, node)| node).collect::<Vec<_>>();
    assert_eq!(places(Strategy::Storage), [0, 0, 0, 0]);
    assert!(places(Strategy::Llm).contains(&1), "others spread");
}

#[test]
fn each_has_a_name() {
    assert_eq!(Strategy::ALL.map(Strategy::name), ["llm", "compute", "api", "storage"]);
    assert_eq!(Strategy::default(), Strategy::Llm);
}
