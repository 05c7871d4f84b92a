//! The promise of the numbers: raise all that is named and the task starts; one less of any and it doesn't.

use crate::command::{Command, RequestKey, Stamp};
use crate::explain::explain;
use crate::placement::{Soft, SoftNode};
use crate::plan::plan;
use crate::query::Blocker;
use crate::rows::{AgentKind, QuotaKey, Role};
use crate::state::{Place, State};
use proptest::collection::vec;
use proptest::prelude::*;
use types::{Class, ClusterId, Hash, NodeId, ProjectName, TaskState, TaskUid};

const PROJECTS: [&str; 3] = ["a", "a/b", "c"];
const PATHS: [&str; 4] = ["cluster", "projects/a", "projects/a/b", "projects/c"];

/// A cluster with some history, as random numbers small enough to collide often.
#[derive(Clone, Debug)]
struct Case {
    slots: [u32; 2],
    /// Project, class, priority, then what became of it: left pending, running, or a wish for tokens.
    tasks: Vec<(usize, usize, u8, u8, u64)>,
    /// Limits set at the end, by path: running, tokens a minute, tokens in total.
    limits: Vec<(usize, u8, u64)>,
}

fn case() -> impl Strategy<Value = Case> {
    let task = (0..3usize, 0..4usize, 0..10u8, 0..5u8, 1..60u64);
    let limit = (0..4usize, 0..3u8, 0..120u64);
    ([0..4u32, 0..4u32], vec(task, 1..12), vec(limit, 0..7)).prop_map(|(slots, tasks, limits)| Case {
        slots,
        tasks,
        limits,
    })
}

struct Bench {
    state: State,
    index: u64,
    now_ms: u64,
}

impl Bench {
    fn apply(&mut self, command: Command) -> crate::reply::Reply {
        self.index += 1;
        self.now_ms += 7;
        let stamp = Stamp { ledger_ms: self.now_ms, wall_ms: self.now_ms };
        self.state.apply(Place { index: self.index, position: 0 }, stamp, &command).reply
    }

    fn set(&mut self, path: &str, key: QuotaKey, limit: Option<u64>) {
        let request = RequestKey::default();
        let changes = vec![(key, limit)];
        self.apply(Command::SetQuota {
            path: path.into(),
            changes,
            etag: None,
            reason: String::new(),
            request,
        });
    }

    fn build(case: &Case) -> Bench {
        let mut bench = Bench { state: State::new(), index: 0, now_ms: 0 };
        bench.apply(Command::InitCluster { cluster_id: ClusterId::default() });
        for name in ["one", "two"] {
            bench.admit(name);
        }
        for project in PROJECTS {
            bench.agent(project);
        }
        // The history needs something to be starved of.
        bench.set("cluster", QuotaKey::TokensTotal, Some(100));
        bench.set("projects/a", QuotaKey::TokensMinute, Some(60));
        for task in &case.tasks {
            bench.task(task);
        }
        for (path, key, limit) in &case.limits {
            let keys = [QuotaKey::Running, QuotaKey::TokensMinute, QuotaKey::TokensTotal];
            let limit = if *key == 0 { limit % 5 } else { *limit };
            bench.set(PATHS[*path], keys[*key as usize].clone(), Some(limit));
        }
        bench
    }

    fn admit(&mut self, name: &str) {
        self.apply(Command::AdmitNode {
            name: name.into(),
            roles: vec![Role::Worker],
            client_addr: String::new(),
            internal_addr: "x:1".into(),
            disk_id: [name.len() as u8 + name.as_bytes()[0]; 16],
            version: String::new(),
        });
    }

    fn members(&self) -> Vec<NodeId> {
        self.state.nodes().map(|row| row.id).collect()
    }

    fn agent(&mut self, project: &str) {
        let home = self.members();
        self.apply(Command::ApplyAgent {
            project: ProjectName::parse(project).unwrap(),
            name: "agent".into(),
            kind: AgentKind::Agent,
            model: "m".into(),
            revision: Hash::default(),
            definition: Hash::default(),
            etag: None,
            home,
            request: RequestKey::default(),
            needs: None,
        });
    }

    fn task(&mut self, (project, class, priority, fate, tokens): &(usize, usize, u8, u8, u64)) {
        let home = self.members();
        self.apply(Command::CreateTask {
            project: ProjectName::parse(PROJECTS[*project]).unwrap(),
            agent: "agent".into(),
            inputs: vec![],
            task_id: None,
            labels: vec![],
            class: Class::ALL[*class],
            priority: *priority,
            deadline_ms: 0,
            home,
            request: RequestKey::default(),
            terms: None,
        });
        let uid = TaskUid { index: self.index, position: 0 };
        let node = NodeId(1);
        if *fate == 0 {
            return;
        }
        self.apply(Command::Assign { task: uid, node });
        if let (Some(epoch), 2..) = (self.state.task(uid).unwrap().epoch, *fate) {
            let (min_tokens, max_tokens) = (*tokens, *tokens);
            self.apply(Command::Reserve { task: uid, epoch, node, step: 1, min_tokens, max_tokens, want: None });
        }
    }

    /// Nodes with that many slots free.
    fn soft(&self, mut slots: [u32; 2]) -> Soft {
        slots[0] += self.state.leases_of(NodeId(1)).count() as u32;
        slots[1] += u32::from(slots == [0, 0]);
        let ids = self.members();
        let node = |slots| SoftNode {
            attached: true,
            slots,
            models: ["m".to_string()].into(),
            ..SoftNode::default()
        };
        let nodes = ids.into_iter().zip(slots).map(|(id, slots)| (id, node(slots))).collect();
        Soft { nodes, ledger_ms: self.now_ms, ..Soft::default() }
    }
}

/// Raises what the blockers name, all at the same moment, each less what `short` says, and sees whether the task is
/// in the next plan.
fn starts(state: &State, soft: &Soft, uid: TaskUid, blockers: &[Blocker], short: Option<usize>) -> bool {
    let (mut state, mut soft) = (state.clone(), soft.clone());
    for (i, blocker) in blockers.iter().enumerate() {
        let more = blocker.requested - blocker.available - u64::from(short == Some(i));
        match blocker.resource.rsplit_once(' ') {
            Some((path, key)) => raise(&mut state, path, key, blocker.limit + more),
            None => soft.nodes.values_mut().next().unwrap().slots += more as u32,
        }
    }
    let tick = Stamp { ledger_ms: soft.ledger_ms, wall_ms: soft.ledger_ms };
    let place = Place { index: state.applied_index() + 1, position: 0 };
    state.apply(place, tick, &Command::Tick);
    plan(&state, &soft, usize::MAX)
        .iter()
        .any(|command| matches!(command, Command::Assign { task, .. } if *task == uid))
}

/// As `SetQuota` does it, but without waking anyone in between.
fn raise(state: &mut State, path: &str, key: &str, limit: u64) {
    let (key, clock) = (QuotaKey::parse(key).unwrap(), state.clock());
    let spot = crate::quota::read_path(path).unwrap();
    state.quota_row(&path.to_string());
    let set = |row: &mut crate::rows::QuotaRow| {
        row.refill(clock.ledger_ms);
        crate::quota::set_one(row, &spot, &key, Some(limit), clock).unwrap();
    };
    state.quotas.update(&path.to_string(), set);
    state.pledges = state.pledges_of_rows();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn raising_what_is_named_starts_the_task_and_less_does_not(case in case()) {
        let bench = Bench::build(&case);
        let soft = bench.soft(case.slots);
        let waiting: Vec<TaskUid> = bench
            .state
            .tasks()
            .filter(|row| matches!(row.state, TaskState::Pending | TaskState::Paused(_)))
            .map(|row| row.uid)
            .collect();
        for uid in waiting {
            let blockers = explain(&bench.state, &soft, uid).unwrap().blockers;
            prop_assert!(starts(&bench.state, &soft, uid, &blockers, None), "{uid} does not start: {blockers:#?}");
            for short in 0..blockers.len() {
                let early = starts(&bench.state, &soft, uid, &blockers, Some(short));
                prop_assert!(!early, "{uid} starts with one less of {:#?}", blockers[short]);
            }
        }
    }
}

#[test]
fn the_cases_reach_every_kind_of_blocker() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let bench = Bench::build(&case);
        let soft = bench.soft(case.slots);
        for row in bench.state.tasks() {
            let explanation = explain(&bench.state, &soft, row.uid).unwrap();
            seen.extend(explanation.blockers.into_iter().map(|blocker| blocker.reason));
        }
    }
    for reason in ["QUOTA_RUNNING", "QUOTA_TOKENS_TOTAL", "QUOTA_TOKENS_MINUTE", "NO_SLOT", "TASKS_AHEAD"] {
        assert!(seen.contains(reason), "{reason} was never seen, only {seen:?}");
    }
}
