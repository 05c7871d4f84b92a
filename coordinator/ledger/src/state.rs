//! The whole state, and the one way in: `apply`.

use crate::calls::{self, Calls};
use crate::change::Change;
use crate::command::{Command, Stamp};
use crate::effect::Effect;
use crate::entry::{Halt, decode_entry};
use crate::quota::Pledges;
use crate::reply::{Refusal, Reply};
use crate::requests::Requests;
use crate::rows::{
    AgentRow, AuditRow, Event, HeadRow, ModelRow, NodeRow, PriceRow, QuotaRow, ScheduleRow, TaskRow,
};
use crate::table::{Sum, Table};
use crate::tasks::Tasks;
use crate::{
    agents, create, gang, heads, homes, level, nodes, quota, schedules, slices, steps, stop, talk, tick,
};
use minicbor::{Decode, Encode};
use types::{ClusterId, Hash, NodeId, ProjectName, TaskUid, limits};

/// Everything the cluster agrees on.
#[derive(Clone, Debug)]
pub struct State {
    /// One row, under key 0.
    pub(crate) meta: Table<u8, Meta>,
    pub(crate) nodes: Table<NodeId, NodeRow>,
    pub(crate) agents: Table<(ProjectName, String), AgentRow>,
    pub(crate) tasks: Tasks,
    pub(crate) quotas: Table<String, QuotaRow>,
    pub(crate) models: Table<String, ModelRow>,
    pub(crate) requests: Requests,
    pub(crate) prices: Table<String, PriceRow>,
    pub(crate) audit: Table<u64, AuditRow>,
    pub(crate) heads: Table<(ProjectName, String), HeadRow>,
    /// Segments that nobody may have any more, and since when, Unix milliseconds.
    pub(crate) forgotten: Table<(ProjectName, Hash), u64>,
    pub(crate) schedules: Table<(ProjectName, String), ScheduleRow>,
    pub(crate) calls: Calls,
    /// Places with a guarantee: a function of the quotas, and not part of the hash.
    pub(crate) pledges: Pledges,
}

/// What is there once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Meta {
    #[n(0)]
    pub cluster_id: Option<ClusterId>,
    #[n(1)]
    pub incarnation: u32,
    #[n(2)]
    pub clock: Stamp,
    #[n(3)]
    pub applied_index: u64,
    #[n(4)]
    pub feature_level: u32,
    /// The newest node id ever given; ids are never given twice.
    #[n(5)]
    pub last_node: u64,
}

/// Where a command stands: the log index of its entry, and its place among the entry's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub index: u64,
    pub position: u32,
}

/// What one command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub reply: Reply,
    pub effects: Vec<Effect>,
}

/// What one log entry did: one reply a command, in order, and all effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    pub replies: Vec<Reply>,
    pub effects: Vec<Effect>,
}

impl Place {
    /// The uid of the `nth` task that the command here makes. Positions leave room for every child of every command
    /// of an entry, so that no two tasks can meet.
    pub(crate) fn uid(self, nth: u32) -> TaskUid {
        TaskUid { index: self.index, position: self.position * limits::TASK_CHILDREN as u32 + nth }
    }
}

impl Default for State {
    fn default() -> Self {
        State::new()
    }
}

impl State {
    /// The state before the first log entry.
    pub fn new() -> State {
        let mut meta = Table::new("meta");
        meta.insert(0, Meta { feature_level: 1, ..Meta::default() });
        State {
            meta,
            nodes: Table::new("nodes"),
            agents: Table::new("agents"),
            tasks: Tasks::new(),
            quotas: Table::new("quotas"),
            models: Table::new("models"),
            requests: Requests::new(),
            prices: Table::new("prices"),
            audit: Table::new("audit"),
            heads: Table::new("heads"),
            forgotten: Table::new("forgotten"),
            schedules: Table::new("schedules"),
            calls: Calls::new(),
            pledges: Pledges::new(),
        }
    }

    /// Applies one committed log entry. `Halt` when this version cannot know what the entry means; the node must
    /// stop then, its state is as before the entry.
    pub fn apply_entry(&mut self, index: u64, bytes: &[u8]) -> Result<AppliedEntry, Halt> {
        let entry = decode_entry(index, bytes)?;
        if index <= self.applied_index() {
            return Err(Halt(format!(
                "log entry {index} came after entry {} was applied; the log store gave entries out of order",
                self.applied_index()
            )));
        }
        let mut done =
            AppliedEntry { replies: Vec::with_capacity(entry.commands.len()), effects: Vec::new() };
        self.advance(index, entry.stamp);
        self.begin_level(entry.format);
        for (position, command) in (0u32..).zip(&entry.commands) {
            let applied = self.apply_one(Place { index, position }, command);
            done.replies.push(applied.reply);
            done.effects.extend(applied.effects);
        }
        Ok(done)
    }

    /// Applies one committed command, as an entry of today's form would. The same state and command give the same result on every replica.
    pub fn apply(&mut self, at: Place, stamp: Stamp, command: &Command) -> Applied {
        self.advance(at.index, stamp);
        self.begin_level(command.form());
        self.apply_one(at, command)
    }

    fn apply_one(&mut self, at: Place, command: &Command) -> Applied {
        let mut change = Change::new(self, at);
        let outcome = dispatch(&mut change, command);
        let effects = change.into_effects();
        Applied { reply: outcome.unwrap_or_else(Reply::Refused), effects }
    }

    /// Clocks never run backwards, whatever a new leader believes.
    pub(crate) fn advance(&mut self, index: u64, stamp: Stamp) {
        self.update_meta(|meta| {
            meta.applied_index = meta.applied_index.max(index);
            meta.clock.ledger_ms = meta.clock.ledger_ms.max(stamp.ledger_ms);
            meta.clock.wall_ms = meta.clock.wall_ms.max(stamp.wall_ms);
        });
    }

    pub(crate) fn meta(&self) -> &Meta {
        self.meta.get(&0).expect("the meta row is made with the state")
    }

    pub(crate) fn update_meta(&mut self, change: impl FnOnce(&mut Meta)) {
        self.meta.update(&0, change).expect("the meta row is made with the state");
    }

    /// Sum modulo 2^256 of the hashes of all rows. Equal on every replica that applied the same log.
    pub fn state_hash(&self) -> Hash {
        let mut sum = Sum::default();
        self.sums().into_iter().for_each(|(_, kept, _)| sum.plus(kept));
        sum.hash()
    }

    /// Table name, the sum that was kept, and a way to make it again.
    #[allow(clippy::type_complexity)]
    pub(crate) fn sums(&self) -> Vec<(&'static str, Sum, Box<dyn Fn() -> Sum + '_>)> {
        vec![
            ("meta", self.meta.sum(), Box::new(|| self.meta.recomputed())),
            ("nodes", self.nodes.sum(), Box::new(|| self.nodes.recomputed())),
            ("agents", self.agents.sum(), Box::new(|| self.agents.recomputed())),
            ("tasks", self.tasks.table().sum(), Box::new(|| self.tasks.table().recomputed())),
            ("events", self.tasks.events_sum(), Box::new(|| self.tasks.events_recomputed())),
            ("quotas", self.quotas.sum(), Box::new(|| self.quotas.recomputed())),
            ("models", self.models.sum(), Box::new(|| self.models.recomputed())),
            ("requests", self.requests.table().sum(), Box::new(|| self.requests.table().recomputed())),
            ("prices", self.prices.sum(), Box::new(|| self.prices.recomputed())),
            ("audit", self.audit.sum(), Box::new(|| self.audit.recomputed())),
            ("heads", self.heads.sum(), Box::new(|| self.heads.recomputed())),
            ("forgotten", self.forgotten.sum(), Box::new(|| self.forgotten.recomputed())),
            ("schedules", self.schedules.sum(), Box::new(|| self.schedules.recomputed())),
            ("calls", self.calls.table().sum(), Box::new(|| self.calls.table().recomputed())),
        ]
    }

    pub fn applied_index(&self) -> u64 {
        self.meta().applied_index
    }

    /// The newest stamp: the ledger's two clocks, in milliseconds.
    pub fn clock(&self) -> Stamp {
        self.meta().clock
    }

    pub fn ledger_ms(&self) -> u64 {
        self.clock().ledger_ms
    }

    pub fn wall_ms(&self) -> u64 {
        self.clock().wall_ms
    }

    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.meta().cluster_id
    }

    /// Changes when a cluster is restored from a backup.
    pub fn incarnation(&self) -> u32 {
        self.meta().incarnation
    }

    /// Members in order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRow> {
        self.nodes.values()
    }

    pub fn node(&self, id: NodeId) -> Option<&NodeRow> {
        self.nodes.get(&id)
    }

    /// Durable copies that commits, tasks and definitions need: two, or one where there is only one member to keep any.
    pub fn copies(&self) -> u32 {
        limits::COPIES.min(self.nodes.len()).max(1) as u32
    }

    pub fn task(&self, uid: TaskUid) -> Option<&TaskRow> {
        self.tasks.get(uid)
    }

    /// All tasks in order of their uids.
    pub fn tasks(&self) -> impl DoubleEndedIterator<Item = &TaskRow> {
        self.tasks.table().values()
    }

    /// The tasks whose lease the node holds, cancelling ones too: the truth behind a full set.
    pub fn leases_of(&self, node: NodeId) -> impl Iterator<Item = &TaskRow> {
        let uids = self.tasks.index().leases.get(&node).into_iter().flatten();
        uids.filter_map(|uid| self.tasks.get(*uid))
    }

    /// Nodes that hold at least one lease, and how many each.
    pub fn lease_counts(&self) -> impl Iterator<Item = (NodeId, usize)> {
        self.tasks.index().leases.iter().map(|(node, uids)| (*node, uids.len()))
    }

    /// How many tasks wait for a slot.
    pub fn queue_len(&self) -> usize {
        self.tasks.index().queue.values().map(std::collections::BTreeSet::len).sum()
    }

    /// Pending tasks whose time has come, by class, then project, then rank.
    pub fn queue(&self) -> impl Iterator<Item = &TaskRow> {
        self.tasks.index().queue.values().flatten().filter_map(|key| self.tasks.get(key.uid))
    }

    pub fn agent(&self, project: &ProjectName, name: &str) -> Option<&AgentRow> {
        self.agents.get(&(project.clone(), name.to_string()))
    }

    /// A task by its uid, or by the id its user gave it; only inside the project.
    pub fn find_task(&self, project: &ProjectName, id: &str) -> Option<&TaskRow> {
        match TaskUid::parse(id) {
            Ok(uid) => self.task(uid).filter(|row| row.project == *project),
            Err(_) => self.tasks.by_task_id(project, id),
        }
    }

    /// A task's events from a sequence on, as far as they are kept.
    pub fn events_from(&self, uid: TaskUid, from: u64) -> impl Iterator<Item = Event> {
        self.tasks.events(uid, from)
    }
}

fn dispatch(change: &mut Change<'_>, command: &Command) -> Result<Reply, Refusal> {
    if change.state.cluster_id().is_none() && !matches!(command, Command::InitCluster { .. }) {
        return Err(Refusal::NotInitialised);
    }
    match command {
        Command::InitCluster { cluster_id } => nodes::init_cluster(change, *cluster_id),
        Command::AdmitNode { name, roles, client_addr, internal_addr, disk_id, version } => nodes::admit(
            change,
            &nodes::Candidate { name, roles, client_addr, internal_addr, disk_id: *disk_id, version },
        ),
        Command::RemoveNode { node, wish } => nodes::remove(change, *node, wish.as_ref()),
        Command::RaiseLevel { level, reason, request } => level::raise(change, *level, reason, request),
        Command::NodeLost { node } => nodes::lost(change, *node),
        Command::ApplyAgent {
            project,
            name,
            kind,
            model,
            revision,
            definition,
            etag,
            home,
            request,
            needs,
        } => agents::apply(
            change,
            &agents::Revision {
                project,
                name,
                kind: *kind,
                model,
                revision: *revision,
                definition: *definition,
                etag: *etag,
                home,
                request,
                needs,
            },
        ),
        Command::CreateTask {
            project,
            agent,
            inputs,
            task_id,
            labels,
            class,
            priority,
            deadline_ms,
            home,
            request,
            terms,
        } => create::task(
            change,
            &create::NewTask {
                project,
                agent,
                inputs,
                task_id,
                labels,
                class: *class,
                priority: *priority,
                deadline_ms: *deadline_ms,
                home,
                request,
                terms: terms.as_ref(),
            },
        ),
        Command::Spawn { parent, epoch, node, step, children } => create::spawn(
            change,
            &create::Brood {
                lease: steps::Lease { task: *parent, epoch: *epoch, node: *node },
                step: *step,
                children,
            },
        ),
        Command::Assign { task, node } => steps::assign(change, *task, *node),
        Command::AssignTogether { leases } => gang::assign(change, leases),
        Command::Reserve { task, epoch, node, step, min_tokens, max_tokens, want, route } => steps::reserve(
            change,
            &steps::Wish {
                lease: steps::Lease { task: *task, epoch: *epoch, node: *node },
                step: *step,
                min_tokens: *min_tokens,
                max_tokens: *max_tokens,
                want: want.unwrap_or_default(),
                route: route.as_ref(),
            },
        ),
        Command::CommitStep { task, epoch, node, step, head, home, spent, billed_tokens, next, extra } => {
            steps::commit(
                change,
                &steps::Commit {
                    lease: steps::Lease { task: *task, epoch: *epoch, node: *node },
                    step: *step,
                    head: *head,
                    home,
                    spent: *spent,
                    billed_tokens: *billed_tokens,
                    next,
                    extra: extra.unwrap_or_default(),
                },
            )
        }
        Command::Release { task, epoch, node, why } => {
            steps::release(change, steps::Lease { task: *task, epoch: *epoch, node: *node }, *why)
        }
        Command::CancelTask { project, task, request } => stop::cancel(change, project, *task, request),
        Command::PauseTask { project, task, request } => stop::pause(change, project, *task, request),
        Command::ResumeTask { project, task, request } => stop::resume(change, project, *task, request),
        Command::SetQuota { path, changes, etag, reason, request } => {
            quota::set(change, &quota::Cut { path, changes, etag: *etag, reason, request })
        }
        Command::HoldModels { node, models } => nodes::hold_models(change, *node, models),
        Command::Tick => tick::tick(change),
        Command::SetPrice { model, price, etag, reason, request } => quota::price::set(
            change,
            &quota::price::NewPrice { model, price: *price, etag: *etag, reason, request },
        ),
        Command::CloseNode { node, closed, grace_ms, reason, request } => nodes::close(
            change,
            *node,
            &nodes::Closing { closed: *closed, grace_ms: *grace_ms, reason, request },
        ),
        Command::Preempt { task, epoch, grace_ms } => stop::preempt(change, *task, *epoch, *grace_ms),
        Command::Signal { project, task, kind, ask, text, home, request } => talk::signal(
            change,
            &talk::Said { project, task: *task, kind: *kind, ask, text: *text, home, request },
        ),
        Command::MoveHead { project, path, after, head, home, forget, request } => heads::move_head(
            change,
            &heads::Move { project, path, after: *after, head: *head, home, forget, request },
        ),
        Command::MoveHome { chain, was, mark, home } => homes::move_home(change, chain, was, *mark, home),
        Command::DropHead { project, path, head } => homes::drop_head(change, project, path, *head),
        Command::SetSchedule { row, request } => schedules::set(change, row, request),
        Command::DropSchedule { project, name, request } => schedules::drop(change, project, name, request),
        Command::FireSchedule { project, name, due_ms, next_ms } => {
            schedules::fire(change, project, name, *due_ms, *next_ms)
        }
        Command::BeginCall {
            call,
            project,
            model,
            author,
            node,
            min_tokens,
            max_tokens,
            want,
            lives_ms,
            needs,
        } => calls::begin(
            change,
            &calls::NewCall {
                call: *call,
                project,
                model,
                author,
                node: *node,
                min_tokens: *min_tokens,
                max_tokens: *max_tokens,
                want: *want,
                lives_ms: *lives_ms,
                needs,
            },
        ),
        Command::RenewCalls { node, calls, lives_ms } => calls::renew(change, *node, calls, *lives_ms),
        Command::EndCall { project, call, fresh_tokens, known_tokens, generated_tokens, extra } => {
            let used = calls::Used {
                fresh_tokens: *fresh_tokens,
                known_tokens: *known_tokens,
                generated_tokens: *generated_tokens,
                extra: *extra,
            };
            calls::end(change, project, *call, used)
        }
        Command::TurnSlice { turn } => slices::turn(change, turn),
        Command::RefundSlice { project, slice, node, spent } => {
            slices::refund(change, project, *slice, *node, *spent)
        }
    }
}
