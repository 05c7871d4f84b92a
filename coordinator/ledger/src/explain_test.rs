//! The promise of the numbers: raise all that is named and the task starts; one less of any and it doesn't.

use crate::command::{Command, RequestKey, Stamp};
use crate::explain::explain;
use crate::placement::{Soft, SoftNode};
use crate::plan::plan;
use crate::query::Blocker;
use crate::rows::{AgentKind, Price, QuotaKey, Role};
use crate::state::{Place, State};
use proptest::collection::vec;
use proptest::prelude::*;
use types::{Class, ClusterId, Hash, NodeId, ProjectName, TaskState, TaskUid};

const PROJECTS: [&str; 3] = ["a", "a/b", "c"];
const PATHS: [&str; 6] = [
    "cluster",
    "projects/a",
    "projects/a/b",
    "projects/c",
    "projects/a/agents/agent",
    "projects/a/b/agents/agent",
];
/// What is limited, and how small limits on it are.
const KEYS: [(&str, u64); 10] = [
    ("running", 5),
    ("tokens_minute", 120),
    ("tokens_total", 120),
    ("running_guaranteed", 4),
    ("running_borrow", 3),
    ("running_lend", 3),
    ("tokens_day", 120),
    ("micro_usd_total", 90),
    ("requests_minute", 4),
    ("weight", 5),
];

/// A cluster with some history, as random numbers small enough to collide often.
#[derive(Clone, Debug)]
struct Case {
    slots: [u32; 2],
    /// Project, class, priority, then what became of it: left pending, running, or a wish for tokens.
    tasks: Vec<(usize, usize, u8, u8, u64)>,
    /// Limits set at the end: place, key, amount. Those that the ledger refuses change nothing.
    limits: Vec<(usize, usize, u64)>,
    /// Micro-dollars a generated token, if there is a price.
    price: Option<u64>,
}

fn case() -> impl Strategy<Value = Case> {
    let task = (0..3usize, 0..4usize, 0..10u8, 0..5u8, 1..60u64);
    let limit = (0..PATHS.len(), 0..KEYS.len(), 0..120u64);
    let price = prop_oneof![Just(None), (0..3u64).prop_map(Some)];
    ([0..4u32, 0..4u32], vec(task, 1..12), vec(limit, 0..9), price)
        .prop_map(|(slots, tasks, limits, price)| Case { slots, tasks, limits, price })
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
            let (name, most) = KEYS[*key];
            bench.set(PATHS[*path], QuotaKey::parse(name).unwrap(), Some(limit % most));
        }
        if let Some(output) = case.price {
            bench.price(output);
        }
        bench
    }

    fn price(&mut self, output: u64) {
        let price = Price { input: 0, cached: 0, output: output * 1_000_000 };
        self.apply(price_of(price));
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
            self.apply(Command::Reserve {
                task: uid,
                epoch,
                node,
                step: 1,
                min_tokens,
                max_tokens,
                want: None,
                route: None,
            });
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

fn price_of(price: Price) -> Command {
    Command::SetPrice {
        model: "m".into(),
        price,
        etag: None,
        reason: String::new(),
        request: RequestKey::default(),
    }
}

/// Raises what the blockers name, all at the same moment, each less what `short` says, and sees whether the task is
/// in the next plan.
fn starts(state: &State, soft: &Soft, uid: TaskUid, blockers: &[Blocker], short: Option<usize>) -> bool {
    let (mut state, mut soft) = (state.clone(), soft.clone());
    for (i, blocker) in blockers.iter().enumerate() {
        let more = blocker.requested - blocker.available - u64::from(short == Some(i));
        if blocker.reason == "UNKNOWN_PRICE" {
            let row = crate::rows::PriceRow {
                model: "m".into(),
                price: Price::default(),
                version: 1,
                author: String::new(),
                reason: String::new(),
                updated_ms: 0,
            };
            (more > 0).then(|| state.prices.insert("m".to_string(), row));
            continue;
        }
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
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

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

/// Found by chance: a task that has what it needs kept for it needs nothing of the cluster's pool, so another one that
/// does may not be counted as going before it.
#[test]
fn a_pool_that_is_not_named_lets_nobody_ahead() {
    let tasks = vec![(1, 0, 0, 0, 1), (1, 0, 0, 2, 29), (0, 0, 0, 0, 1), (1, 0, 0, 0, 1), (1, 0, 0, 0, 1)];
    let limits = vec![(2, 3, 17), (2, 5, 114), (5, 4, 42), (5, 3, 9)];
    let case = Case { slots: [0, 0], tasks, limits, price: None };
    let bench = Bench::build(&case);
    let first = bench.state.tasks().find(|row| row.state == TaskState::Pending).unwrap().uid;
    let blockers = explain(&bench.state, &bench.soft(case.slots), first).unwrap().blockers;
    let named: Vec<_> =
        blockers.iter().map(|it| (it.resource.as_str(), it.requested - it.available)).collect();
    assert_eq!(named, [("projects/a/b/agents/agent running_borrow", 1), ("slots", 1)]);
}

#[test]
fn the_cases_reach_every_kind_of_blocker() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..600 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let bench = Bench::build(&case);
        let soft = bench.soft(case.slots);
        for row in bench.state.tasks() {
            let explanation = explain(&bench.state, &soft, row.uid).unwrap();
            seen.extend(explanation.blockers.into_iter().map(|blocker| blocker.reason));
        }
    }
    for reason in [
        "QUOTA_RUNNING",
        "QUOTA_TOKENS_TOTAL",
        "QUOTA_TOKENS_MINUTE",
        "QUOTA_TOKENS_DAY",
        "QUOTA_MICRO_USD_TOTAL",
        "QUOTA_REQUESTS_MINUTE",
        "UNKNOWN_PRICE",
        "NO_SLOT",
        "TASKS_AHEAD",
    ] {
        assert!(seen.contains(reason), "{reason} was never seen, only {seen:?}");
    }
}
