//! The task table and the indexes over it. An index entry is a function of its row, and every change goes through
//! here, so that no index can be forgotten. Indexes are not part of the state hash and are made again on restore.

use crate::change::holds_slot;
use crate::events::{self, List, Total};
use crate::queue::QueueKey;
use crate::rows::{Event, TaskRow};
use crate::table::{Sum, Table};
use crate::text::{Label, Pool};
use minicbor::Encode;
use std::collections::{BTreeMap, BTreeSet};
use types::{Class, Hash, NodeId, PauseReason, ProjectName, TaskState, TaskUid};

#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    table: Table<TaskUid, TaskRow, List>,
    events: Total,
    index: Index,
    shared: Shared,
}

/// What rows have in common, once each.
#[derive(Clone, Debug, Default)]
struct Shared {
    texts: Pool<str>,
    hashes: Pool<Hash>,
    nodes: Pool<[NodeId]>,
    labels: Pool<[Label]>,
}

/// Everything that finds tasks by something other than their uid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub by_project: BTreeMap<ProjectName, BTreeSet<TaskUid>>,
    by_task_id: Names,
    /// Project, author, request id of the creation.
    by_request: Names,
    pub by_state: BTreeMap<&'static str, u64>,
    /// Pending tasks whose time has come, by class and project, in the order of their ranks.
    pub queue: BTreeMap<(Class, ProjectName), BTreeSet<QueueKey>>,
    /// Tasks that hold a slot, by class.
    pub running: BTreeMap<Class, u64>,
    /// Projects with something in the queue or leased, and how much.
    pub busy: BTreeMap<ProjectName, u64>,
    /// Running tasks that were asked to make room, by when, on the ledger's clock.
    pub yielding: BTreeSet<(u64, TaskUid)>,
    /// Pending tasks that may not begin yet, by when they may, Unix milliseconds.
    pub later: BTreeSet<(u64, TaskUid)>,
    /// Tasks that wait for a task to succeed, by that task.
    pub waiting_for: BTreeMap<TaskUid, BTreeSet<TaskUid>>,
    /// Tasks paused for lack of budget, in the order in which they wake.
    pub starved: BTreeSet<QueueKey>,
    /// Tasks that were woken and have not been served yet.
    pub hopeful: BTreeSet<TaskUid>,
    /// Leases by node.
    pub leases: BTreeMap<NodeId, BTreeSet<TaskUid>>,
    /// Those of them that hold no slot, counted.
    pub aside: BTreeMap<NodeId, u64>,
    /// Tasks whose former holder does not know yet that its lease is over, by that holder.
    pub unaware: BTreeMap<NodeId, BTreeSet<TaskUid>>,
    /// Open tasks by deadline, Unix milliseconds.
    pub deadlines: BTreeSet<(u64, TaskUid)>,
    /// Final root tasks by their end, Unix milliseconds.
    pub ended: BTreeSet<(u64, TaskUid)>,
}

/// Tasks by a name that their row has, too: so a few bytes of the name's hash are enough here, and whoever looks
/// compares with the rows.
type Names = BTreeSet<(u64, TaskUid)>;

/// The index entries of one row that change during its life.
#[derive(PartialEq, Eq)]
struct Places {
    state: &'static str,
    queue: Option<((Class, ProjectName), QueueKey)>,
    running: Option<Class>,
    busy: Option<ProjectName>,
    yielding: Option<u64>,
    later: Option<u64>,
    waiting_for: Vec<TaskUid>,
    starved: Option<QueueKey>,
    hopeful: bool,
    node: Option<NodeId>,
    aside: Option<NodeId>,
    unaware: Vec<NodeId>,
    deadline: Option<u64>,
    ended: Option<u64>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Tasks {
            table: Table::new("tasks"),
            events: Total::default(),
            index: Index::default(),
            shared: Shared::default(),
        }
    }

    pub(crate) fn table(&self) -> &Table<TaskUid, TaskRow, List> {
        &self.table
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn get(&self, uid: TaskUid) -> Option<&TaskRow> {
        self.table.get(&uid)
    }

    /// By the key that its user gave it.
    pub(crate) fn by_task_id(&self, project: &ProjectName, task_id: &str) -> Option<&TaskRow> {
        let named = self.named(&self.index.by_task_id, short(&(project, task_id)));
        named.into_iter().find(|row| row.project == *project && row.task_id.as_deref() == Some(task_id))
    }

    /// By the request that made it.
    pub(crate) fn by_request(&self, project: &ProjectName, author: &str, id: &str) -> Option<&TaskRow> {
        let named = self.named(&self.index.by_request, short(&(project, author, id)));
        named.into_iter().find(|row| request_of(row) == Some((project, author, id)))
    }

    fn named(&self, names: &Names, short: u64) -> impl Iterator<Item = &TaskRow> {
        let (first, last) =
            (TaskUid { index: 0, position: 0 }, TaskUid { index: u64::MAX, position: u32::MAX });
        names.range((short, first)..=(short, last)).filter_map(|(_, uid)| self.get(*uid))
    }

    pub(crate) fn insert(&mut self, mut row: TaskRow) {
        self.shared.share(&mut row);
        self.index.enrol(&row);
        self.table.insert(row.uid, row);
    }

    pub(crate) fn update<R>(&mut self, uid: TaskUid, change: impl FnOnce(&mut TaskRow) -> R) -> Option<R> {
        let before = Places::of(self.table.get(&uid)?);
        let shared = &mut self.shared;
        let result = self.table.update(&uid, |row| {
            let (reason, home, keepers) = (row.reason.clone(), row.home.clone(), row.keepers.clone());
            let result = change(row);
            row.rare.tidy();
            shared.texts.replaced(&reason, &mut row.reason);
            shared.nodes.replaced(&home, &mut row.home);
            shared.nodes.replaced(&keepers, &mut row.keepers);
            result
        });
        let after = Places::of(self.table.get(&uid).expect("the row was there a moment ago"));
        if before != after {
            self.index.leave(uid, &before);
            self.index.take(uid, &after);
        }
        result
    }

    pub(crate) fn remove(&mut self, uid: TaskUid) -> Option<TaskRow> {
        self.forget_events(uid, u64::MAX);
        let row = self.table.remove(&uid)?;
        self.index.strike(&row);
        self.shared.release(&row);
        Some(row)
    }

    pub(crate) fn read(&mut self, from: &mut minicbor::Decoder<'_>) -> Result<(), minicbor::decode::Error> {
        let shared = &mut self.shared;
        self.table.read_with(from, |row| shared.share(row))?;
        self.index = self.rebuilt();
        Ok(())
    }

    /// A task's events from a sequence on, as far as they are kept.
    pub(crate) fn events(&self, uid: TaskUid, from: u64) -> impl Iterator<Item = Event> {
        self.table.beside_of(&uid).into_iter().flat_map(move |list| list.from(from))
    }

    /// `None` when there is no such task.
    pub(crate) fn push_event(&mut self, uid: TaskUid, event: &Event) -> Option<()> {
        self.table.change_beside(&uid)?.push(uid, event, &mut self.events);
        Some(())
    }

    pub(crate) fn forget_events(&mut self, uid: TaskUid, up_to: u64) {
        let list = self.table.change_beside(&uid);
        list.into_iter().for_each(|list| list.forget(uid, up_to, &mut self.events));
    }

    pub(crate) fn events_sum(&self) -> Sum {
        self.events.sum
    }

    pub(crate) fn events_recomputed(&self) -> Sum {
        Total::of(self.table.beside()).sum
    }

    pub(crate) fn write_events(&self, out: &mut minicbor::Encoder<Vec<u8>>) {
        self.events.write(self.table.beside(), out);
    }

    /// After the tasks themselves.
    pub(crate) fn read_events(
        &mut self,
        from: &mut minicbor::Decoder<'_>,
    ) -> Result<(), minicbor::decode::Error> {
        events::read(from, |uid, event| self.push_event(uid, event))
    }

    /// The index made again from the rows.
    pub(crate) fn rebuilt(&self) -> Index {
        let mut index = Index::default();
        self.table.values().for_each(|row| index.enrol(row));
        index
    }
}

impl Shared {
    fn share(&mut self, row: &mut TaskRow) {
        row.rare.tidy();
        for text in [&mut row.agent, &mut row.model, &mut row.author, &mut row.reason] {
            self.texts.share(text);
        }
        row.inputs.iter_mut().for_each(|input| self.texts.share(&mut input.name));
        self.labels.share(&mut row.labels);
        self.hashes.share(&mut row.revision);
        self.hashes.share(&mut row.definition);
        self.nodes.share(&mut row.home);
        self.nodes.share(&mut row.keepers);
    }

    /// The row is about to go.
    fn release(&mut self, row: &TaskRow) {
        let texts = row.inputs.iter().map(|input| &input.name);
        texts
            .chain([&row.agent, &row.model, &row.author, &row.reason])
            .for_each(|text| self.texts.release(text));
        self.labels.release(&row.labels);
        self.hashes.release(&row.revision);
        self.hashes.release(&row.definition);
        self.nodes.release(&row.home);
        self.nodes.release(&row.keepers);
    }
}

/// The beginning of the name's hash.
fn short<K: Encode<()>>(name: &K) -> u64 {
    let hash = Hash::of(&types::encode(name));
    u64::from_le_bytes(hash.0[..8].try_into().expect("a hash has more than eight bytes"))
}

impl Places {
    fn of(row: &TaskRow) -> Places {
        let pending = row.state == TaskState::Pending;
        let queued = pending && row.not_before_ms.is_none() && row.after.is_none();
        let starved = row.state == TaskState::Paused(PauseReason::Budget);
        let open = !row.state.is_final() && row.state != TaskState::Cancelling;
        let wants = row.wanted_tokens > 0 || row.want.is_some();
        let hopeful = wants && (pending || row.state == TaskState::Running);
        Places {
            state: row.state.name(),
            queue: queued.then(|| ((row.class, row.project.clone()), QueueKey::of(row))),
            running: holds_slot(row).then_some(row.class),
            busy: (queued || row.node.is_some()).then(|| row.project.clone()),
            yielding: row
                .yield_by_ms
                .filter(|_| matches!(row.state, TaskState::Running | TaskState::WaitingTool)),
            later: row.not_before_ms.filter(|_| pending && row.after.is_none()),
            waiting_for: row.after.clone().filter(|_| open).unwrap_or_default(),
            starved: starved.then(|| QueueKey::on_waking(row)),
            hopeful,
            node: row.node,
            aside: row.node.filter(|_| row.aside.is_some()),
            unaware: row.unaware.iter().map(|holder| holder.node).collect(),
            deadline: (open && row.deadline_ms > 0).then_some(row.deadline_ms),
            ended: (row.state.is_final() && row.origin.is_none()).then_some(row.ended_ms),
        }
    }
}

impl Index {
    fn enrol(&mut self, row: &TaskRow) {
        self.by_project.entry(row.project.clone()).or_default().insert(row.uid);
        self.by_task_id.extend(task_id_of(row).map(|name| (short(&name), row.uid)));
        self.by_request.extend(request_of(row).map(|name| (short(&name), row.uid)));
        self.take(row.uid, &Places::of(row));
    }

    fn strike(&mut self, row: &TaskRow) {
        remove_from(&mut self.by_project, &row.project, &row.uid);
        task_id_of(row).map(|name| self.by_task_id.remove(&(short(&name), row.uid)));
        request_of(row).map(|name| self.by_request.remove(&(short(&name), row.uid)));
        self.leave(row.uid, &Places::of(row));
    }

    fn take(&mut self, uid: TaskUid, at: &Places) {
        *self.by_state.entry(at.state).or_default() += 1;
        if let Some((line, key)) = &at.queue {
            self.queue.entry(line.clone()).or_default().insert(*key);
        }
        if let Some(class) = at.running {
            *self.running.entry(class).or_default() += 1;
        }
        if let Some(project) = &at.busy {
            *self.busy.entry(project.clone()).or_default() += 1;
        }
        self.yielding.extend(at.yielding.map(|ms| (ms, uid)));
        self.later.extend(at.later.map(|ms| (ms, uid)));
        for other in &at.waiting_for {
            self.waiting_for.entry(*other).or_default().insert(uid);
        }
        self.starved.extend(at.starved);
        self.hopeful.extend(at.hopeful.then_some(uid));
        if let Some(node) = at.node {
            self.leases.entry(node).or_default().insert(uid);
        }
        if let Some(node) = at.aside {
            *self.aside.entry(node).or_default() += 1;
        }
        for node in &at.unaware {
            self.unaware.entry(*node).or_default().insert(uid);
        }
        self.deadlines.extend(at.deadline.map(|ms| (ms, uid)));
        self.ended.extend(at.ended.map(|ms| (ms, uid)));
    }

    fn leave(&mut self, uid: TaskUid, at: &Places) {
        one_less(&mut self.by_state, &at.state);
        if let Some((line, key)) = &at.queue {
            remove_from(&mut self.queue, line, key);
        }
        if let Some(class) = at.running {
            one_less(&mut self.running, &class);
        }
        if let Some(project) = &at.busy {
            one_less(&mut self.busy, project);
        }
        at.yielding.map(|ms| self.yielding.remove(&(ms, uid)));
        at.later.map(|ms| self.later.remove(&(ms, uid)));
        for other in &at.waiting_for {
            remove_from(&mut self.waiting_for, other, &uid);
        }
        at.starved.map(|key| self.starved.remove(&key));
        if at.hopeful {
            self.hopeful.remove(&uid);
        }
        if let Some(node) = at.node {
            remove_from(&mut self.leases, &node, &uid);
        }
        if let Some(node) = at.aside {
            one_less(&mut self.aside, &node);
        }
        for node in &at.unaware {
            remove_from(&mut self.unaware, node, &uid);
        }
        at.deadline.map(|ms| self.deadlines.remove(&(ms, uid)));
        at.ended.map(|ms| self.ended.remove(&(ms, uid)));
    }
}

fn task_id_of(row: &TaskRow) -> Option<(&ProjectName, &str)> {
    Some((&row.project, row.task_id.as_deref()?))
}

/// Children are made by their parent's step, not by a request of their author.
fn request_of(row: &TaskRow) -> Option<(&ProjectName, &str, &str)> {
    let asked = row.origin.is_none() && !row.request_id.is_empty();
    asked.then(|| (&row.project, row.author.as_str(), &*row.request_id))
}

fn one_less<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn remove_from<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
