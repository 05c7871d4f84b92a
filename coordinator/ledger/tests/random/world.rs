//! A cluster, several nodes and people who do what chance tells them.

use ledger::command::{ChildSpec, Command, Next, Release, RequestKey, Route, Stamp, Terms};
use ledger::keys::{Amounts, Holding};
use ledger::query::{Answer, Query};
use ledger::reply::{Refusal, Reply};
use ledger::rows::{
    AgentKind, Ask, AskKind, Closed, Fork, Price, QuotaKey, Role, ScheduleRow, SignalKind, TaskError, Want,
};
use ledger::{Soft, SoftNode, State, encode_entry, invariants, plan};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use types::{Class, ClusterId, Epoch, Hash, NodeId, ProjectName, Spent, TaskUid};

/// One move: what to do, and three numbers that choose among what there is.
pub(super) type Move = (u8, u16, u16, u16);

pub(super) const PROJECTS: [&str; 3] = ["a", "a/b", "c"];
pub(super) const ASKS: [AskKind; 5] =
    [AskKind::Approval, AskKind::Question, AskKind::Unknown, AskKind::UnknownMayRepeat, AskKind::Message];
pub(super) const SIGNALS: [SignalKind; 8] = [
    SignalKind::Approve,
    SignalKind::Reject,
    SignalKind::Answer,
    SignalKind::Repeat,
    SignalKind::Message,
    SignalKind::Enqueue,
    SignalKind::Interrupt,
    SignalKind::Rollback,
];

pub(super) struct World {
    pub(super) state: State,
    pub(super) watch: invariants::Watch,
    pub(super) stamp: Stamp,
    pub(super) index: u64,
    /// Every lease ever given, so that old ones can come back.
    pub(super) leases: Vec<(TaskUid, Epoch, NodeId)>,
    /// The log, to be replayed by another replica.
    pub(super) log: Vec<(u64, Vec<u8>)>,
    pub(super) kinds: BTreeSet<&'static str>,
}

impl World {
    pub(super) fn new() -> World {
        let mut world = World {
            state: State::new(),
            watch: invariants::Watch::default(),
            stamp: Stamp::default(),
            index: 0,
            leases: vec![],
            log: vec![],
            kinds: BTreeSet::new(),
        };
        world.run(Command::InitCluster { cluster_id: ClusterId([1; 16]) });
        for (i, name) in ["one", "two", "three"].iter().enumerate() {
            world.run(admit(name, i as u8 + 1));
        }
        for project in PROJECTS {
            world.run(agent(project, "agent", AgentKind::Agent, 0, world.home(0)));
            world.run(agent(project, "team", AgentKind::Team, 0, world.home(0)));
        }
        world
    }

    /// Applies a command as a log entry and checks everything. Commands that can be sent twice are, at once.
    pub(super) fn run(&mut self, command: Command) -> Reply {
        let reply = self.apply(&command);
        if let Reply::Refused(refusal) = &reply {
            self.kinds.insert(refusal_kind(refusal));
        }
        if !matches!(command, Command::Reserve { .. }) {
            let truth = truth(&self.state);
            self.apply_at(&command, 300);
            assert_eq!(truth, self::truth(&self.state), "a second {command:?} changed something");
        }
        reply
    }

    pub(super) fn apply(&mut self, command: &Command) -> Reply {
        self.apply_at(command, 0)
    }

    /// By a leader whose clocks are behind.
    fn apply_at(&mut self, command: &Command, behind_ms: u64) -> Reply {
        self.index += 1;
        let stamp = Stamp {
            ledger_ms: self.stamp.ledger_ms.saturating_sub(behind_ms),
            wall_ms: self.stamp.wall_ms.saturating_sub(behind_ms),
        };
        let bytes = encode_entry(stamp, std::slice::from_ref(command));
        let applied = self.state.apply_entry(self.index, &bytes).expect("our own entry is understood");
        self.log.push((self.index, bytes));
        self.watch.check(&self.state).unwrap_or_else(|broken| panic!("after {command:?}: {broken}"));
        let reply = applied.replies.into_iter().next().expect("one command, one reply");
        if let (Reply::Assigned(epoch), Command::Assign { task, node }) = (&reply, command) {
            self.leases.push((*task, *epoch, *node));
        }
        reply
    }

    pub(super) fn task(&self, choice: u16) -> TaskUid {
        let uids: Vec<TaskUid> = self.state.tasks().map(|row| row.uid).collect();
        if uids.is_empty() { TaskUid::default() } else { uids[choice as usize % uids.len()] }
    }

    pub(super) fn node(&self, choice: u16) -> NodeId {
        let ids: Vec<NodeId> = self.state.nodes().map(|row| row.id).collect();
        ids.get(choice as usize % ids.len().max(1)).copied().unwrap_or(NodeId(99))
    }

    /// Two members where there are two, and now and then the same one twice.
    pub(super) fn home(&self, choice: u16) -> Vec<NodeId> {
        let other = if choice % 16 == 15 { choice } else { choice.wrapping_add(1) };
        vec![self.node(choice), self.node(other)]
    }

    /// Mostly a lease in force, sometimes any that ever was.
    fn lease(&self, choice: u16) -> (TaskUid, Epoch, NodeId) {
        let live: Vec<_> =
            self.state.tasks().filter_map(|row| Some((row.uid, row.epoch?, row.node?))).collect();
        let from = if choice.is_multiple_of(7) || live.is_empty() { &self.leases } else { &live };
        let chosen = from.get((choice / 7) as usize % from.len().max(1));
        chosen.copied().unwrap_or((self.task(choice), Epoch::default(), self.node(choice)))
    }

    fn step_of(&self, uid: TaskUid) -> u64 {
        self.state.task(uid).map_or(0, |row| row.step)
    }

    pub(super) fn play(&mut self, (kind, a, b, c): Move) {
        self.stamp.ledger_ms += u64::from(c % 500);
        self.stamp.wall_ms += u64::from(c % 500);
        match kind % 30 {
            0..=2 => drop(self.run(create(a, b, c, &self.request(b), self.stamp, self.home(a)))),
            3..=5 => self.plan(a),
            6..=7 => self.reserve(a, b, c),
            8..=11 => self.commit(a, b, c),
            12 => self.spawn(a, b),
            13 => self.release(a, b),
            14 => self.people(a, b),
            15 => self.quota(a, b, c),
            16 => drop(self.run(Command::NodeLost { node: self.node(a) })),
            17 => self.members(a, b),
            18 => self.wait(a),
            19 => self.price(a, b),
            20 => self.scheduled(a, b, c),
            21 => self.close_or_preempt(a, b, c),
            22 => self.signal(a, b),
            23 => self.head_or_schedule(a, b, c),
            24..=25 => self.call(a, b, c),
            26 => self.homes(a, b, c),
            27..=28 => self.slice(a, b, c),
            _ => {
                let project = PROJECTS[a as usize % 3];
                drop(self.run(agent(project, "agent", AgentKind::Agent, b % 3, self.home(c))));
            }
        }
    }

    fn request(&self, choice: u16) -> RequestKey {
        let request_id = if choice.is_multiple_of(2) { String::new() } else { format!("r{}", choice % 40) };
        RequestKey { author: format!("author{}", choice % 2), request_id, body: Hash([choice as u8 % 3; 32]) }
    }

    pub(super) fn plan(&mut self, max: u16) {
        let node =
            |slots| SoftNode { attached: true, slots, models: ["m".into()].into(), ..SoftNode::default() };
        let nodes = self.state.nodes().map(|row| (row.id, node(3))).collect();
        let soft = Soft { nodes, ledger_ms: self.stamp.ledger_ms, ..Soft::default() };
        let planned = plan::plan(&self.state, &soft, 1 + max as usize % 4);
        assert_eq!(planned, plan::plan(&self.state, &soft, 1 + max as usize % 4), "plans are stable");
        for command in planned {
            let one = matches!(command, Command::Assign { .. });
            let reply = self.run(command);
            let accepted = if one { matches!(reply, Reply::Assigned(_)) } else { reply == Reply::Done };
            assert!(accepted, "what is planned is accepted: {reply:?}");
        }
    }

    fn reserve(&mut self, a: u16, b: u16, c: u16) {
        let (task, epoch, node) = self.lease(a);
        let min_tokens = u64::from(b % 50);
        let max_tokens = min_tokens + u64::from(c % 50);
        let model = |model: &str| Route {
            model: model.into(),
            reason: "CHEAPER".into(),
            turn: u32::from(b % 5),
            others: c.is_multiple_of(2),
        };
        let route = ["", "m", "other"][a as usize % 3];
        let route = (!route.is_empty()).then(|| model(route));
        let reply = self.run(Command::Reserve {
            task,
            epoch,
            node,
            step: self.step_of(task) + 1,
            min_tokens,
            max_tokens,
            want: Some(Want {
                fresh_tokens: u64::from(a) % (min_tokens + 1),
                known_tokens: u64::from(c % 70),
                extra: Amounts {
                    tool_calls: u64::from(b % 3),
                    kv_block_seconds: u64::from(c % 9),
                    ..Amounts::NONE
                },
            }),
            route: route.clone(),
        });
        if let Reply::Reserved(tokens) = reply {
            assert!((min_tokens..=max_tokens).contains(&tokens));
            let row = self.state.task(task).expect("it has reserved");
            let said = row.route.as_deref().map(|known| (known.model.as_str(), known.turn, known.granted));
            assert_eq!(said, route.as_ref().map(|route| (route.model.as_str(), route.turn, true)));
        }
        // Refused for one model of several, a task stands still only when there is no other.
        if matches!(reply, Reply::Refused(Refusal::OverQuota { .. } | Refusal::Unpriced { .. })) {
            let paused = self.state.task(task).is_some_and(|row| row.epoch.is_none());
            assert_eq!(paused, !route.is_some_and(|route| route.others));
        }
    }

    fn commit(&mut self, a: u16, b: u16, c: u16) {
        let (task, epoch, node) = self.lease(a);
        let reserved = self.state.task(task).map_or(0, |row| row.reserved_tokens);
        let billed_tokens = if b.is_multiple_of(13) { reserved + 1 } else { reserved * u64::from(c % 5) / 4 };
        let error = TaskError { reason: "BROKEN".into(), text: None };
        let heard = self.state.task(task).and_then(|row| Some(row.talk.as_ref()?.said)).unwrap_or(0);
        let heard = heard.saturating_sub(u64::from(b % 2));
        let kind = ASKS[a as usize % ASKS.len()];
        let ask = |n: u16| Ask { id: format!("{n}.0"), kind, about: "tool".into(), text: None };
        let next = match c % 16 {
            8 => Next::WaitTool { heard, asks: vec![], begun: Some(u64::from(b % 4)) },
            9 => Next::WaitTool { heard, asks: (0..b % 2).map(ask).collect(), begun: None },
            10 | 11 => Next::GoOn { heard },
            12 => Next::WaitInput { heard, asks: (0..1 + b % 2).map(ask).collect() },
            13 => Next::WaitFor { heard, ms: u64::from(b) },
            14 => Next::WaitBudget { heard, calls: u64::from(b % 4) },
            0 => Next::Done { result: Hash([2; 32]), bytes: 1 },
            1 => Next::Failed { error },
            2 => Next::PausedError { error },
            3 | 4 | 15 => Next::WaitChildren,
            _ => Next::Continue,
        };
        let before = self.state.quota("cluster").map_or(0, |row| row.tokens_settled);
        let reply = self.run(Command::CommitStep {
            task,
            epoch,
            node,
            step: self.step_of(task) + 1 + u64::from(b.is_multiple_of(17)),
            head: Hash([c as u8; 32]),
            home: vec![node, self.node(b)],
            spent: Spent { generated_tokens: billed_tokens / 2, ..Spent::default() },
            billed_tokens,
            next,
            extra: Some(Amounts {
                tool_calls: u64::from(c % 3),
                kv_block_seconds: u64::from(b % 9),
                ..Amounts::NONE
            }),
        });
        let settled = self.state.quota("cluster").map_or(0, |row| row.tokens_settled) - before;
        assert_eq!(settled, if reply == Reply::Done { billed_tokens } else { 0 }, "settled once, sent twice");
    }

    fn spawn(&mut self, a: u16, b: u16) {
        let (parent, epoch, node) = self.lease(a);
        let agent = if b.is_multiple_of(5) { "team" } else { "agent" };
        let together = b.is_multiple_of(3).then_some(true);
        let child = ChildSpec {
            agent: agent.into(),
            inputs: vec![],
            background: vec![],
            home: vec![],
            limits: None,
            together,
            priority: (b % 4 == 3).then_some((b % 12) as u8),
        };
        let children = vec![child; 1 + b as usize % 3];
        self.run(Command::Spawn { parent, epoch, node, step: self.step_of(parent) + 1, children });
    }

    fn release(&mut self, a: u16, b: u16) {
        let (task, epoch, node) = self.lease(a);
        let all = [Release::Stopped, Release::Yielded, Release::Broken, Release::Stuck];
        let why = all[b as usize % all.len()];
        self.run(Command::Release { task, epoch, node, why });
    }

    fn people(&mut self, a: u16, b: u16) {
        let task = self.task(a);
        let project = self.state.task(task).map_or_else(ProjectName::default, |row| row.project.clone());
        let request = self.request(b);
        self.run(match b % 4 {
            0 | 1 => Command::CancelTask { project, task, request },
            2 => Command::PauseTask { project, task, request },
            _ => Command::ResumeTask { project, task, request },
        });
    }

    fn quota(&mut self, a: u16, b: u16, c: u16) {
        let places = ["cluster", "projects/a", "projects/a/b", "projects/c", "projects/a/agents/agent"];
        let path = match a as usize % 6 {
            5 => format!("tasks/{}", self.task(c)),
            at => places[at].to_string(),
        };
        let keys = QuotaKey::plain();
        let key = if b.is_multiple_of(2) {
            [QuotaKey::Running, QuotaKey::TokensMinute, QuotaKey::TokensTotal][b as usize / 2 % 3].clone()
        } else {
            keys[b as usize / 2 % keys.len()].clone()
        };
        let most = if matches!(key, QuotaKey::Running | QuotaKey::Holding(..)) { 7 } else { 300 };
        let limit = (!c.is_multiple_of(4)).then_some(u64::from(c) % most);
        // Without a request id a second change is a second change of the etag.
        let request = RequestKey { request_id: format!("q{}", self.index), ..self.request(1) };
        self.run(Command::SetQuota {
            path,
            changes: vec![(key, limit)],
            etag: None,
            reason: "".into(),
            request,
        });
    }

    fn price(&mut self, a: u16, b: u16) {
        if a.is_multiple_of(2) {
            let request = RequestKey { request_id: format!("m{}", self.index), ..self.request(1) };
            let changes = vec![(QuotaKey::parse("micro_usd_total").unwrap(), Some(u64::from(b)))];
            let path = "cluster".to_string();
            self.run(Command::SetQuota { path, changes, etag: None, reason: "".into(), request });
            return;
        }
        let price =
            Price { input: u64::from(a) * 1000, cached: u64::from(b) * 100, output: u64::from(a) * 3000 };
        let request = RequestKey { request_id: format!("p{}", self.index), ..self.request(1) };
        let model = if a % 4 == 1 { "m" } else { "other" };
        self.run(Command::SetPrice { model: model.into(), price, etag: None, reason: "".into(), request });
    }

    /// A task with limits of its own that may not begin yet, or waits for others.
    fn scheduled(&mut self, a: u16, b: u16, c: u16) {
        let request = RequestKey { request_id: format!("s{}", self.index), ..self.request(1) };
        let Command::CreateTask { project, agent, inputs, labels, class, priority, home, .. } =
            create(a, b, c, &request, self.stamp, self.home(a))
        else {
            unreachable!("it makes creations");
        };
        let terms = Terms {
            limits: vec![(QuotaKey::TokensTotal, u64::from(c % 200)), (QuotaKey::Running, 2)],
            not_before_ms: if b.is_multiple_of(2) { self.stamp.wall_ms + u64::from(c % 900) } else { 0 },
            after: if b.is_multiple_of(3) { vec![self.task(c)] } else { vec![] },
            fork: b.is_multiple_of(5).then(|| self.fork(a)),
        };
        self.run(Command::CreateTask {
            project,
            agent,
            inputs,
            task_id: None,
            labels,
            class,
            priority,
            deadline_ms: 0,
            home,
            request,
            terms: Some(terms),
        });
    }

    fn close_or_preempt(&mut self, a: u16, b: u16, c: u16) {
        if a.is_multiple_of(3) {
            let closed = [None, Some(Closed::Cordoned), Some(Closed::Draining)][b as usize % 3];
            let request = RequestKey { request_id: format!("n{}", self.index), ..self.request(1) };
            let (node, grace_ms) = (self.node(c), u64::from(c % 900));
            self.run(Command::CloseNode { node, closed, grace_ms, reason: "".into(), request });
        } else {
            let (task, epoch, _) = self.lease(b);
            self.run(Command::Preempt { task, epoch, grace_ms: u64::from(c % 900) });
        }
    }

    fn fork(&self, choice: u16) -> Fork {
        let task = self.task(choice);
        let step = self.step_of(task);
        Fork { task, step, head: (step > 0).then_some(Hash([9; 32])) }
    }

    fn signal(&mut self, a: u16, b: u16) {
        let asked: Vec<TaskUid> =
            self.state.tasks().filter(|row| row.talk.is_some()).map(|row| row.uid).collect();
        let task = asked.get(a as usize % asked.len().max(1)).copied().unwrap_or(self.task(a));
        let project = self.state.task(task).map_or_else(ProjectName::default, |row| row.project.clone());
        let kind = SIGNALS[b as usize % SIGNALS.len()];
        let of_ask = matches!(
            kind,
            SignalKind::Approve | SignalKind::Reject | SignalKind::Answer | SignalKind::Repeat
        );
        let ask = if of_ask { format!("{}.0", a % 2) } else { String::new() };
        let request = RequestKey { request_id: format!("g{}", self.index), ..self.request(1) };
        let (text, home) = (Some(Hash([3; 32])), self.home(b));
        self.run(Command::Signal { project, task, kind, ask, text, home, request });
    }

    fn head_or_schedule(&mut self, a: u16, b: u16, c: u16) {
        let project = ProjectName::parse(PROJECTS[a as usize % 3]).unwrap();
        let request = RequestKey { request_id: format!("h{}", self.index), ..self.request(1) };
        let name = format!("every{}", b % 2);
        let row = self.state.answer(&Query::Schedules { project: project.clone() }, None);
        let Answer::Schedules(rows) = row else { unreachable!("it answers with schedules") };
        let due_ms = rows.iter().find(|row| row.name == name).map_or(0, |row| row.next_ms);
        match c % 4 {
            0 => {
                let row = ScheduleRow {
                    project,
                    name,
                    cron: "0 * * * *".into(),
                    agent: "agent".into(),
                    inputs: vec![],
                    class: Class::Batch,
                    priority: 5,
                    home: self.home(c),
                    next_ms: self.stamp.wall_ms + u64::from(c % 300),
                    last_task: None,
                    last_error: String::new(),
                    fired: 0,
                    author: String::new(),
                };
                self.run(Command::SetSchedule { row: Box::new(row), request });
            }
            1 => {
                let next_ms = self.stamp.wall_ms + 200;
                self.run(Command::FireSchedule { project, name, due_ms, next_ms });
            }
            2 if b.is_multiple_of(4) => drop(self.run(Command::DropSchedule { project, name, request })),
            _ => {
                let path = format!("memory/{}", b % 2);
                let Answer::Heads(heads) =
                    self.state.answer(&Query::Heads { project: project.clone(), prefix: path.clone() }, None)
                else {
                    unreachable!("it answers with heads")
                };
                let after = heads.first().map(|row| row.head).filter(|_| !b.is_multiple_of(7));
                let (head, forget) = (Hash([c as u8; 32]), vec![Hash([a as u8; 32])]);
                let home = self.home(a);
                self.run(Command::MoveHead { project, path, after, head, home, forget, request });
                self.forgotten_by_pages();
            }
        }
    }

    /// Pages of what was forgotten are all of it, each once.
    fn forgotten_by_pages(&self) {
        let (mut after, mut paged) = (None, Vec::new());
        loop {
            let query = Query::Forgotten { since_ms: 0, after, limit: 2 };
            let Answer::Forgotten { rows, more } = self.state.answer(&query, None) else {
                unreachable!("it answers with what was forgotten")
            };
            after = rows.last().map(|row| (row.project.clone(), row.hash));
            paged.extend(rows.into_iter().map(|row| (row.project, row.hash)));
            if !more {
                break;
            }
        }
        let all: Vec<_> = self.state.forgotten().map(|(project, hash)| (project.clone(), hash)).collect();
        assert_eq!(paged, all);
    }

    fn members(&mut self, a: u16, b: u16) {
        match a % 4 {
            0 => drop(self.run(Command::RemoveNode { node: self.node(b), wish: None })),
            1 => drop(self.run(admit(["one", "two", "three", "four"][b as usize % 4], b as u8 % 5))),
            _ => {
                let digest = Hash([b as u8 % 2; 32]);
                let models = vec![("m".to_string(), digest, 1), (format!("k{}", b % 3), digest, 2)];
                self.run(Command::HoldModels { node: self.node(a), models });
            }
        }
    }

    fn wait(&mut self, a: u16) {
        let days = if a.is_multiple_of(11) { 8 * 86_400_000 } else { 0 };
        self.stamp.ledger_ms += u64::from(a) * 4 + days;
        self.stamp.wall_ms += u64::from(a) * 4 + days;
        let due = self.state.tick_due(self.stamp.ledger_ms, self.stamp.wall_ms);
        let before = tasks(&self.state);
        self.run(Command::Tick);
        assert!(due || before == tasks(&self.state), "a tick that is not due changes nothing");
    }
}

pub(super) fn admit(name: &str, disk: u8) -> Command {
    Command::AdmitNode {
        name: name.into(),
        roles: vec![Role::Coordinator, Role::Worker],
        client_addr: String::new(),
        internal_addr: "x:1".into(),
        disk_id: [disk; 16],
        version: String::new(),
    }
}

pub(super) fn agent(project: &str, name: &str, kind: AgentKind, text: u16, home: Vec<NodeId>) -> Command {
    Command::ApplyAgent {
        project: ProjectName::parse(project).unwrap(),
        name: name.into(),
        kind,
        model: if kind == AgentKind::Agent { "m".into() } else { String::new() },
        revision: Hash([text as u8; 32]),
        definition: Hash([text as u8; 32]),
        etag: None,
        home,
        request: RequestKey::default(),
        needs: (text == 1).then(|| vec![(Holding::CpuMilli, 3)]),
    }
}

pub(super) fn create(
    a: u16,
    b: u16,
    c: u16,
    request: &RequestKey,
    stamp: Stamp,
    home: Vec<NodeId>,
) -> Command {
    // Creations are sent twice, so they need an id of some kind.
    let task_id = request.request_id.is_empty().then(|| format!("task{}", c % 50));
    Command::CreateTask {
        project: ProjectName::parse(PROJECTS[a as usize % 3]).unwrap(),
        agent: ["agent", "agent", "team", "nobody"][b as usize % 4].into(),
        inputs: vec![],
        task_id,
        labels: vec![],
        class: Class::ALL[c as usize % 4],
        priority: (a % 10) as u8,
        deadline_ms: if b.is_multiple_of(6) { stamp.wall_ms + u64::from(c) } else { 0 },
        home,
        request: request.clone(),
        terms: None,
    }
}

/// Every task with its events.
pub(super) fn tasks(state: &State) -> Vec<Vec<u8>> {
    let with_events = |row: &ledger::rows::TaskRow| {
        let events: Vec<_> = state.events_from(row.uid, 0).collect();
        types::encode(&(row.clone(), events))
    };
    state.tasks().map(with_events).collect()
}

/// Everything that a user could see, less the counters of refusals.
pub(super) fn truth(state: &State) -> Hash {
    let rows = tasks(state);
    let answers = [Query::Quotas, Query::Models].map(|query| types::encode(&state.answer(&query, None)));
    let nodes: Vec<_> = state.nodes().map(|row| types::encode(&(row.id, row.name.clone()))).collect();
    let all: Vec<&[u8]> = rows.iter().chain(&answers).chain(&nodes).map(Vec::as_slice).collect();
    Hash::of_parts(&all)
}

pub(super) fn refusal_kind(refusal: &ledger::reply::Refusal) -> &'static str {
    use ledger::reply::Refusal::*;
    match refusal {
        AlreadyInitialised | NotInitialised => "init",
        NameTaken { .. } => "name",
        NotFound { .. } => "not found",
        TaskIdTaken { .. } => "task id",
        RequestIdReused { .. } | RequestIdExpired { .. } => "request id",
        WrongEtag { .. } => "etag",
        Fenced { .. } => "fenced",
        WrongState { .. } => "state",
        OverQuota { .. } => "quota",
        Invalid { .. } => "invalid",
        TooFewCopies { .. } => "copies",
        Unpriced { .. } => "price",
        WrongHead { .. } => "head",
        Answered { .. } => "answered",
        Busy { .. } => "busy",
    }
}

pub(super) fn moves(most: usize) -> impl Strategy<Value = Vec<Move>> {
    vec((any::<u8>(), any::<u16>(), any::<u16>(), any::<u16>()), 1..most)
}
