//! The task table and the indexes over it. An index entry is a function of its row, and every change goes through
//! here, so that no index can be forgotten. Indexes are not part of the state hash and are made again on restore.

use crate::change::holds_slot;
use crate::queue::QueueKey;
use crate::rows::TaskRow;
use crate::table::Table;
use minicbor::Encode;
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use types::{Class, Hash, NodeId, PauseReason, ProjectName, TaskState, TaskUid};

#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    table: Table<TaskUid, TaskRow>,
    index: Index,
}

/// Everything that finds tasks by something other than their uid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub by_project: BTreeMap<ProjectName, BTreeSet<TaskUid>>,
    pub by_task_id: Names<(ProjectName, String)>,
    /// Project, author, request id of the creation.
    pub by_request: Names<(ProjectName, String, String)>,
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

/// Tasks by a name that their row has, too: so the hash of the name is enough here, and a tenth of the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names<K> {
    uids: BTreeMap<Hash, TaskUid>,
    key: PhantomData<fn(&K)>,
}

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
        Tasks { table: Table::new("tasks"), index: Index::default() }
    }

    pub(crate) fn table(&self) -> &Table<TaskUid, TaskRow> {
        &self.table
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn get(&self, uid: TaskUid) -> Option<&TaskRow> {
        self.table.get(&uid)
    }

    pub(crate) fn insert(&mut self, row: TaskRow) {
        self.index.enrol(&row);
        self.table.insert(row.uid, row);
    }

    pub(crate) fn update<R>(&mut self, uid: TaskUid, change: impl FnOnce(&mut TaskRow) -> R) -> Option<R> {
        let before = Places::of(self.table.get(&uid)?);
        let result = self.table.update(&uid, change);
        let after = Places::of(self.table.get(&uid).expect("the row was there a moment ago"));
        if before != after {
            self.index.leave(uid, &before);
            self.index.take(uid, &after);
        }
        result
    }

    pub(crate) fn remove(&mut self, uid: TaskUid) -> Option<TaskRow> {
        let row = self.table.remove(&uid)?;
        self.index.strike(&row);
        Some(row)
    }

    pub(crate) fn read(&mut self, from: &mut minicbor::Decoder<'_>) -> Result<(), minicbor::decode::Error> {
        self.table.read(from)?;
        self.index = self.rebuilt();
        Ok(())
    }

    /// The index made again from the rows.
    pub(crate) fn rebuilt(&self) -> Index {
        let mut index = Index::default();
        self.table.values().for_each(|row| index.enrol(row));
        index
    }
}

impl<K> Default for Names<K> {
    fn default() -> Self {
        Names { uids: BTreeMap::new(), key: PhantomData }
    }
}

impl<K: Encode<()>> Names<K> {
    pub(crate) fn get(&self, key: &K) -> Option<&TaskUid> {
        self.uids.get(&hashed(key))
    }

    fn insert(&mut self, key: &K, uid: TaskUid) {
        self.uids.insert(hashed(key), uid);
    }

    fn remove(&mut self, key: &K) {
        self.uids.remove(&hashed(key));
    }
}

fn hashed<K: Encode<()>>(key: &K) -> Hash {
    Hash::of(&types::encode(key))
}

impl Places {
    fn of(row: &TaskRow) -> Places {
        let pending = row.state == TaskState::Pending;
        let queued = pending && row.not_before_ms.is_none() && row.after.is_none();
        let starved = row.state == TaskState::Paused(PauseReason::Budget);
        let open = !row.state.is_final() && row.state != TaskState::Cancelling;
        let waits_for_tokens = row.wanted_tokens > 0 && (pending || row.state == TaskState::Running);
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
            hopeful: waits_for_tokens,
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
        if let Some(task_id) = &row.task_id {
            self.by_task_id.insert(&(row.project.clone(), task_id.clone()), row.uid);
        }
        if let Some(key) = request_key(row) {
            self.by_request.insert(&key, row.uid);
        }
        self.take(row.uid, &Places::of(row));
    }

    fn strike(&mut self, row: &TaskRow) {
        remove_from(&mut self.by_project, &row.project, &row.uid);
        if let Some(task_id) = &row.task_id {
            self.by_task_id.remove(&(row.project.clone(), task_id.clone()));
        }
        if let Some(key) = request_key(row) {
            self.by_request.remove(&key);
        }
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

/// Children are made by their parent's step, not by a request of their author.
fn request_key(row: &TaskRow) -> Option<(ProjectName, String, String)> {
    let asked = row.origin.is_none() && !row.request_id.is_empty();
    asked.then(|| (row.project.clone(), row.author.clone(), row.request_id.clone()))
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
