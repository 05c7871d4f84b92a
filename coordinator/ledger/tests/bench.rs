//! A ledger to play with: one line a move, all at one clock that the test moves.

use ledger::command::{Command, Next, RequestKey, Route, Stamp, Terms};
use ledger::keys::{Amounts, Holding};
use ledger::reply::Reply;
use ledger::rows::{AgentKind, Price, QuotaKey, Role, TaskRow, Want};
use ledger::{Place, Soft, SoftNode, State, invariants, plan};
use types::{Class, ClusterId, Epoch, Hash, NodeId, ProjectName, Spent, TaskUid};

pub(crate) struct Bench {
    pub state: State,
    pub watch: invariants::Watch,
    pub now: Stamp,
    pub index: u64,
    /// Slots of the one node.
    pub slots: u32,
}

pub(crate) const NODE: NodeId = NodeId(1);

fn project(name: &str) -> ProjectName {
    ProjectName::parse(name).unwrap()
}

impl Bench {
    pub(crate) fn new(slots: u32, projects: &[&str]) -> Bench {
        let mut bench = Bench {
            state: State::new(),
            watch: invariants::Watch::default(),
            now: Stamp { ledger_ms: 0, wall_ms: 1_790_000_000_000 },
            index: 0,
            slots,
        };
        bench.apply(Command::InitCluster { cluster_id: ClusterId([1; 16]) });
        bench.apply(Command::AdmitNode {
            name: "one".into(),
            roles: vec![Role::Worker],
            client_addr: String::new(),
            internal_addr: "x:1".into(),
            disk_id: [1; 16],
            version: String::new(),
        });
        projects.iter().for_each(|name| bench.agent(name, "agent", &[]));
        bench
    }

    pub(crate) fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let place = Place { index: self.index, position: 0 };
        let reply = self.state.apply(place, self.now, &command).reply;
        self.watch.check_use(&self.state).unwrap_or_else(|broken| panic!("after {command:?}: {broken}"));
        reply
    }

    pub(crate) fn check(&mut self) {
        self.watch.check(&self.state).unwrap();
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now.ledger_ms += ms;
        self.now.wall_ms += ms;
        if self.state.tick_due(self.now.ledger_ms, self.now.wall_ms) {
            self.apply(Command::Tick);
        }
    }

    pub(crate) fn agent(&mut self, project: &str, name: &str, needs: &[(&str, u64)]) {
        let needs: Vec<_> =
            needs.iter().map(|(name, amount)| (Holding::parse(name).unwrap(), *amount)).collect();
        let reply = self.apply(Command::ApplyAgent {
            project: self::project(project),
            name: name.into(),
            kind: AgentKind::Agent,
            model: "m".into(),
            revision: Hash::of(name.as_bytes()),
            definition: Hash::default(),
            etag: None,
            home: vec![NODE],
            request: RequestKey::default(),
            needs: (!needs.is_empty()).then_some(needs),
        });
        assert!(matches!(reply, Reply::Agent(_)), "{reply:?}");
    }

    pub(crate) fn set(&mut self, path: &str, key: &str, limit: Option<u64>) -> Reply {
        self.apply(Command::SetQuota {
            path: path.into(),
            changes: vec![(QuotaKey::parse(key).unwrap(), limit)],
            etag: None,
            reason: String::new(),
            request: RequestKey::default(),
        })
    }

    pub(crate) fn price(&mut self, input: u64, cached: u64, output: u64) -> Reply {
        self.apply(Command::SetPrice {
            model: "m".into(),
            price: Price { input, cached, output },
            etag: None,
            reason: String::new(),
            request: RequestKey::default(),
        })
    }

    pub(crate) fn create(&mut self, project: &str, agent: &str, class: Class) -> TaskUid {
        match self.ask(project, agent, class, None) {
            Reply::Task(row) => row.uid,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, project: &str, agent: &str, class: Class, terms: Option<Terms>) -> Reply {
        self.apply(Command::CreateTask {
            project: self::project(project),
            agent: agent.into(),
            inputs: vec![],
            task_id: None,
            labels: vec![],
            class,
            priority: 5,
            deadline_ms: 0,
            home: vec![NODE],
            request: RequestKey::default(),
            terms,
        })
    }

    pub(crate) fn task(&self, uid: TaskUid) -> &TaskRow {
        self.state.task(uid).unwrap()
    }

    pub(crate) fn soft(&self) -> Soft {
        let node = SoftNode {
            attached: true,
            slots: self.slots,
            models: ["m".into()].into(),
            ..SoftNode::default()
        };
        Soft { nodes: [(NODE, node)].into(), ledger_ms: self.now.ledger_ms, ..Soft::default() }
    }

    /// Starts what the plan says.
    pub(crate) fn plan(&mut self) -> Vec<TaskUid> {
        let soft = self.soft();
        let commands = plan::plan(&self.state, &soft, usize::MAX);
        let mut started = vec![];
        for command in commands {
            let task = if let Command::Assign { task, .. } = command { Some(task) } else { None };
            let reply = self.apply(command);
            assert!(
                matches!(reply, Reply::Assigned(_) | Reply::Done),
                "what is planned is accepted: {reply:?}"
            );
            started.extend(task);
        }
        started
    }

    pub(crate) fn start(&mut self, uid: TaskUid) -> Reply {
        self.apply(Command::Assign { task: uid, node: NODE })
    }

    fn epoch(&self, uid: TaskUid) -> Epoch {
        self.task(uid).epoch.unwrap_or_default()
    }

    pub(crate) fn reserve(&mut self, uid: TaskUid, min_tokens: u64, max_tokens: u64, want: Want) -> Reply {
        self.reserve_of(uid, min_tokens, max_tokens, want, None)
    }

    /// For one model of several.
    pub(crate) fn reserve_of(
        &mut self,
        uid: TaskUid,
        min_tokens: u64,
        max_tokens: u64,
        want: Want,
        route: Option<Route>,
    ) -> Reply {
        let (epoch, step) = (self.epoch(uid), self.task(uid).step + 1);
        let want = Some(want);
        self.apply(Command::Reserve {
            task: uid,
            epoch,
            node: NODE,
            step,
            min_tokens,
            max_tokens,
            want,
            route,
        })
    }

    /// Commits a step that used so many tokens, `generated` of them said by the model.
    pub(crate) fn commit(
        &mut self,
        uid: TaskUid,
        billed: u64,
        generated: u64,
        extra: Amounts,
        done: bool,
    ) -> Reply {
        let next = if done { Next::Done { result: Hash::default(), bytes: 0 } } else { Next::Continue };
        self.commit_next(uid, billed, generated, extra, next)
    }

    /// Commits a step that called no model and begins so many calls of tools.
    pub(crate) fn begin_calls(&mut self, uid: TaskUid, calls: u64) -> Reply {
        let next = Next::WaitTool { heard: 0, asks: vec![], begun: Some(calls) };
        self.commit_next(uid, 0, 0, Amounts::NONE, next)
    }

    pub(crate) fn commit_next(
        &mut self,
        uid: TaskUid,
        billed: u64,
        generated: u64,
        extra: Amounts,
        next: Next,
    ) -> Reply {
        let (epoch, step) = (self.epoch(uid), self.task(uid).step + 1);
        self.apply(Command::CommitStep {
            task: uid,
            epoch,
            node: NODE,
            step,
            head: Hash([step as u8; 32]),
            home: vec![NODE],
            spent: Spent { generated_tokens: generated, ..Spent::default() },
            billed_tokens: billed,
            next,
            extra: Some(extra),
        })
    }

    /// A whole step: reserved and used to the last token.
    pub(crate) fn step(&mut self, uid: TaskUid, fresh: u64, generated: u64, done: bool) {
        let want = Want { fresh_tokens: fresh, ..Want::default() };
        let tokens = fresh + generated;
        assert_eq!(self.reserve(uid, tokens, tokens, want), Reply::Reserved(tokens));
        assert_eq!(self.commit(uid, tokens, generated, Amounts::NONE, done), Reply::Done);
    }

    pub(crate) fn used(&self, path: &str, key: &str) -> u64 {
        let row = self.state.quota(path).unwrap();
        let key = QuotaKey::parse(key).unwrap();
        let fact = row.facts(self.now).into_iter().find(|(known, ..)| *known == key);
        fact.map_or(0, |(_, _, used, reserved)| used + reserved)
    }
}
