//! Plans over nodes that are cordoned, drained, pressed, and what they hold.

use crate::command::{Command, RequestKey, Stamp};
use crate::placement::{Soft, SoftNode, remembered, views};
use crate::plan::plan;
use crate::routing::{Chain, Routes};
use crate::rows::{AgentKind, Closed, InputRef, Role};
use crate::state::{Place, State};
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{Class, ClusterId, Hash, NodeId, ProjectName, TaskUid};

/// A cluster of three workers, with tasks of which some share their first input.
struct Bench {
    state: State,
    index: u64,
}

impl Bench {
    fn new() -> Bench {
        let mut bench = Bench { state: State::new(), index: 0 };
        bench.apply(Command::InitCluster { cluster_id: ClusterId::default() });
        for name in ["one", "two", "three"] {
            bench.apply(Command::AdmitNode {
                name: name.into(),
                roles: vec![Role::Worker],
                client_addr: String::new(),
                internal_addr: format!("{name}:1"),
                disk_id: Hash::of(name.as_bytes()).0[..16].try_into().unwrap(),
                version: String::new(),
            });
        }
        bench.apply(Command::ApplyAgent {
            project: ProjectName::default(),
            name: "agent".into(),
            kind: AgentKind::Agent,
            model: "m".into(),
            revision: Hash::default(),
            definition: Hash::default(),
            etag: None,
            home: bench.ids(),
            request: RequestKey::default(),
            needs: None,
        });
        bench
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let stamp = Stamp { ledger_ms: self.index, wall_ms: self.index };
        self.state.apply(Place { index: self.index, position: 0 }, stamp, &command);
    }

    fn ids(&self) -> Vec<NodeId> {
        self.state.nodes().map(|row| row.id).collect()
    }

    /// Inputs are 4,000 tokens long.
    fn task(&mut self, inputs: &[&str]) -> TaskUid {
        let input = |text: &&str| InputRef {
            name: (*text).into(),
            segment: Hash::of(text.as_bytes()),
            bytes: 16_000,
        };
        self.apply(Command::CreateTask {
            project: ProjectName::default(),
            agent: "agent".into(),
            inputs: inputs.iter().map(input).collect(),
            task_id: None,
            labels: vec![],
            class: Class::Batch,
            priority: 0,
            deadline_ms: 0,
            home: self.ids(),
            request: RequestKey::default(),
            terms: None,
        });
        TaskUid { index: self.index, position: 0 }
    }

    fn soft(&self, change: impl Fn(usize, &mut SoftNode)) -> Soft {
        let mut soft = Soft::default();
        for (at, id) in self.ids().into_iter().enumerate() {
            let models = ["m".to_string()].into();
            let mut node = SoftNode { attached: true, slots: 4, models, ..SoftNode::default() };
            change(at, &mut node);
            soft.nodes.insert(id, node);
        }
        soft
    }

    /// Tasks planned, by place of the node among the members.
    fn planned(&self, soft: &Soft) -> BTreeMap<usize, usize> {
        let commands = plan(&self.state, soft, usize::MAX);
        assert_eq!(commands, plan(&self.state, soft, usize::MAX), "the same again");
        let mut planned = BTreeMap::new();
        for command in commands {
            let Command::Assign { node, .. } = command else { panic!("{command:?}") };
            *planned.entry(self.ids().iter().position(|id| *id == node).unwrap()).or_default() += 1;
        }
        planned
    }
}

#[test]
fn a_cordoned_or_draining_node_gets_nothing_new_and_keeps_what_runs() {
    let mut bench = Bench::new();
    let running = bench.task(&["a"]);
    bench.apply(Command::Assign { task: running, node: bench.ids()[0] });
    for _ in 0..4 {
        bench.task(&["a"]);
    }
    let close = |bench: &mut Bench, closed| {
        bench.apply(Command::CloseNode {
            node: bench.ids()[0],
            closed,
            grace_ms: 0,
            reason: String::new(),
            request: RequestKey::default(),
        });
    };
    close(&mut bench, Some(Closed::Cordoned));
    let cordoned = bench.soft(|at, node| node.draining = at == 1);
    assert_eq!(bench.planned(&cordoned), BTreeMap::from([(2, 4)]), "though the first has the prefix");
    assert_eq!(bench.state.leases_of(bench.ids()[0]).count(), 1, "what runs there stays");
    close(&mut bench, None);
    let open = bench.soft(|_, _| ());
    assert!(bench.planned(&open)[&0] > 0, "and when it is opened again it is used");
}

#[test]
fn pressure_counts_from_its_bound_on() {
    let mut bench = Bench::new();
    bench.task(&["a"]);
    let memory = |milli| bench.soft(move |at, node| node.memory_pressure_milli = (at == 0).then_some(milli));
    assert_eq!(bench.planned(&memory(199)), BTreeMap::from([(0, 1)]));
    assert_eq!(bench.planned(&memory(200)), BTreeMap::from([(1, 1)]));
    let cpu = |milli| bench.soft(move |_, node| node.cpu_pressure_milli = Some(milli));
    assert_eq!(bench.planned(&cpu(900)), BTreeMap::from([(0, 1)]), "all alike: somewhere it must run");
}

#[test]
fn what_the_leader_remembers_decides_and_is_told_in_numbers() {
    let mut bench = Bench::new();
    let waiting = bench.task(&["shared", "own"]);
    let mut soft = bench.soft(|_, _| ());
    assert_eq!(bench.planned(&soft), BTreeMap::from([(0, 1)]), "nobody knows it: the first");
    let mut routes = Routes::default();
    let other = bench.task(&["shared", "other"]);
    routes.learn(bench.ids()[2], &Chain::of_task(bench.state.task(other).unwrap()));
    soft.routes = Arc::new(routes);
    let seen = views(&bench.state, &soft, waiting);
    assert_eq!(seen.iter().map(|view| view.matched_tokens).collect::<Vec<_>>(), [0, 0, 4256]);
    assert_eq!((seen[2].missing_tokens, seen[2].why_not.as_str()), (4000, ""));
    assert_eq!(seen[0].why_not, format!("costs 8256 tokens, {} costs 4000", bench.ids()[2]));
}

#[test]
fn a_new_leader_learns_from_the_ledger_who_ran_what() {
    let mut bench = Bench::new();
    let ran = bench.task(&["shared", "own"]);
    let node = bench.ids()[1];
    bench.apply(Command::Assign { task: ran, node });
    let next = bench.task(&["shared", "other"]);
    let chain = Chain::of_task(bench.state.task(next).unwrap());
    assert_eq!(remembered(&bench.state).matched(node, &chain), 4256);
    assert_eq!(remembered(&State::new()), Routes::default());
}

#[test]
fn prompts_that_all_begin_alike_do_not_all_go_to_one_node() {
    let mut bench = Bench::new();
    for number in 0..9 {
        bench.task(&["shared", &format!("own {number}")]);
    }
    let planned = bench.planned(&bench.soft(|_, _| ()));
    assert!(planned.len() == 3 && planned.values().all(|count| *count >= 2), "{planned:?}");
}
