//! Reports and suppositions over a small state that real commands made.

use crate::cost::{CostGroup, CostQuestion, report};
use crate::suppose::suppose;
use ledger::command::{Command, Next, RequestKey, Stamp};
use ledger::keys::QuotaKey;
use ledger::reply::{Refusal, Reply};
use ledger::rows::{AgentKind, Price, Role, Want};
use ledger::{Place, Soft, SoftNode, State};
use types::{Class, ClusterId, Epoch, Hash, NodeId, ProjectName, Spent, TaskUid};

const NODE: NodeId = NodeId(1);
/// 2024-02-29T12:00:00Z.
const NOON_MS: u64 = 1_709_208_000_000;
const DAY_MS: u64 = 86_400_000;

struct World {
    state: State,
    index: u64,
    wall_ms: u64,
}

impl World {
    fn new() -> World {
        let mut world = World { state: State::new(), index: 0, wall_ms: NOON_MS };
        world.ok(Command::InitCluster { cluster_id: ClusterId([1; 16]) });
        world.ok(Command::AdmitNode {
            name: "n".into(),
            roles: vec![Role::Coordinator, Role::Worker],
            client_addr: String::new(),
            internal_addr: "n:1".into(),
            disk_id: [1; 16],
            version: String::new(),
        });
        for project in ["a", "b"] {
            world.ok(Command::ApplyAgent {
                project: named(project),
                name: "reader".into(),
                kind: AgentKind::Agent,
                model: "m".into(),
                revision: Hash::of(b"reader"),
                definition: Hash::of(b"reader"),
                etag: None,
                home: vec![NODE],
                request: RequestKey::default(),
                needs: None,
            });
        }
        let price = Price { input: 1_000_000, cached: 0, output: 2_000_000 };
        let (reason, request) = (String::new(), RequestKey::default());
        world.ok(Command::SetPrice { model: "m".into(), price, etag: None, reason, request });
        world
    }

    fn ok(&mut self, command: Command) -> Reply {
        self.index += 1;
        let stamp = Stamp { ledger_ms: self.index * 10, wall_ms: self.wall_ms };
        let reply = self.state.apply(Place { index: self.index, position: 0 }, stamp, &command).reply;
        assert!(!matches!(reply, Reply::Refused(_)), "{command:?}: {reply:?}");
        reply
    }

    fn create(&mut self, project: &str) -> TaskUid {
        let Reply::Task(row) = self.ok(create(project)) else { panic!("no task") };
        row.uid
    }

    /// One whole step: 10 new tokens of prompt, 5 generated.
    fn run(&mut self, task: TaskUid) {
        let Reply::Assigned(epoch) = self.ok(Command::Assign { task, node: NODE }) else {
            panic!("no lease")
        };
        self.step(task, epoch);
    }

    fn step(&mut self, task: TaskUid, epoch: Epoch) {
        let want = Some(Want { fresh_tokens: 10, ..Want::default() });
        let (min_tokens, max_tokens) = (11, 20);
        self.ok(Command::Reserve {
            task,
            epoch,
            node: NODE,
            step: 1,
            min_tokens,
            max_tokens,
            want,
            route: None,
        });
        let spent = Spent { prompt_tokens: 10, cached_tokens: 4, generated_tokens: 5, micro_usd: 0 };
        self.ok(Command::CommitStep {
            task,
            epoch,
            node: NODE,
            step: 1,
            head: Hash::of(b"1"),
            home: vec![NODE],
            spent,
            billed_tokens: 15,
            next: Next::Done { result: Hash::of(b"r"), bytes: 1 },
            extra: None,
        });
    }
}

fn named(project: &str) -> ProjectName {
    ProjectName::parse(project).unwrap()
}

fn create(project: &str) -> Command {
    Command::CreateTask {
        project: named(project),
        agent: "reader".into(),
        inputs: vec![],
        task_id: None,
        labels: vec![],
        class: Class::Batch,
        priority: 5,
        deadline_ms: 0,
        home: vec![NODE],
        request: RequestKey::default(),
        terms: None,
    }
}

fn set(path: &str, key: QuotaKey, limit: u64) -> Command {
    Command::SetQuota {
        path: path.into(),
        changes: vec![(key, Some(limit))],
        etag: None,
        reason: String::new(),
        request: RequestKey::default(),
    }
}

fn question(group_by: CostGroup) -> CostQuestion {
    CostQuestion { group_by, since_ms: 0, until_ms: u64::MAX, project: None }
}

fn soft() -> Soft {
    let node = SoftNode { attached: true, slots: 4, models: ["m".into()].into(), ..SoftNode::default() };
    Soft { nodes: [(NODE, node)].into(), ..Soft::default() }
}

#[test]
fn a_report_sums_what_the_ledger_settled() {
    let mut world = World::new();
    for (project, days) in [("a", 0), ("a", 1), ("b", 2)] {
        world.wall_ms = NOON_MS + days * DAY_MS;
        let task = world.create(project);
        world.run(task);
    }
    world.create("b");
    let (lines, total) = report(&world.state, &question(CostGroup::Project));
    let seen: Vec<_> = lines.iter().map(|l| (l.key.as_str(), l.tasks, l.steps, l.spent.micro_usd)).collect();
    assert_eq!(seen, [("projects/a", 2, 2, 40), ("projects/b", 2, 1, 20)]);
    assert_eq!(
        (total.tasks, total.spent.micro_usd, total.new_tokens, total.spent.cached_tokens),
        (4, 60, 45, 12)
    );
    let cluster = world.state.quota("cluster").unwrap();
    assert_eq!(cluster.tokens_settled, total.new_tokens);
    let (days, _) = report(&world.state, &question(CostGroup::Day));
    let seen: Vec<_> = days.iter().map(|line| (line.key.as_str(), line.tasks)).collect();
    assert_eq!(seen, [("2024-02-29", 1), ("2024-03-01", 1), ("2024-03-02", 2)]);
    let later =
        CostQuestion { since_ms: NOON_MS + 1, project: Some(named("a")), ..question(CostGroup::Agent) };
    let (lines, total) = report(&world.state, &later);
    assert_eq!((lines.len(), lines[0].key.as_str(), total.tasks), (1, "projects/a/agents/reader", 1));
    assert_eq!(report(&world.state, &question(CostGroup::Task)).0.len(), 4);
    assert_eq!(report(&world.state, &question(CostGroup::Model)).0[0].key, "m");
}

#[test]
fn suppositions_change_nothing() {
    let mut world = World::new();
    world.ok(set("projects/a", QuotaKey::Running, 0));
    let task = world.create("a");
    let (hash, stamp) = (world.state.state_hash(), Stamp { ledger_ms: 9_999, wall_ms: NOON_MS });
    let ask = |commands: &[Command], task: &str| {
        suppose(world.state.clone(), &soft(), stamp, commands, (&named("a"), task))
    };
    let now = ask(&[], &task.to_string()).explanation.unwrap();
    assert_eq!(now.blockers[0].reason, "QUOTA_RUNNING");
    let raised = ask(&[set("projects/a", QuotaKey::Running, 1)], &task.to_string()).explanation.unwrap();
    assert!(raised.blockers.is_empty(), "{:?}", raised.blockers);
    let made = ask(&[create("a")], "");
    assert!(matches!(made.replies[0], Reply::Task(_)));
    assert_eq!(made.explanation.unwrap().blockers[0].reason, "QUOTA_RUNNING");
    let refused = ask(&[set("nowhere", QuotaKey::Running, 1)], "t_unknown");
    assert!(matches!(refused.replies[0], Reply::Refused(Refusal::Invalid { .. })), "{refused:?}");
    assert_eq!(refused.explanation, None);
    assert_eq!(world.state.state_hash(), hash);
}
