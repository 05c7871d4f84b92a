//! Who should get which pending task. A pure proposal: the same state and the same view of the nodes give the same
//! plan, and `Assign` checks everything again when it is applied.
//!
//! The order of the queue, from coarse to fine:
//! 1. *Class.* One that has less than its slice of what runs goes first, the more urgent ones before. Otherwise the
//!    class of the task with the lowest rank ([`crate::queue`]): urgent classes first, until a task has waited so long
//!    that it outranks them.
//! 2. *Project.* Inside the class the one that was served least for its weight ([`crate::fair`]).
//! 3. *Task.* Inside the project by rank: priority, what was begun before what is fresh, age.
//!
//! A task that may not start is passed over, so nobody blocks the tasks behind.

use crate::command::Command;
use crate::fair::Turn;
use crate::keys::Holding;
use crate::placement::{Board, Soft};
use crate::queue::QueueKey;
use crate::quota::Claims;
use crate::rows::{AgentKind, TaskRow};
use crate::state::State;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use types::{Class, Hash, NodeId, ProjectName, TaskState, TaskUid};

/// What each class has of the running tasks before rank decides, in percent. Small, so that urgency still means
/// something; with a handful of slots it rounds to none.
const SLICES: [(Class, u64); 4] =
    [(Class::System, 10), (Class::Interactive, 10), (Class::Batch, 10), (Class::BestEffort, 5)];

/// How long a task that has to make room may go on with the step it is in.
const GRACE_MS: u64 = 10_000;

/// At most `max` assignments, in queue order, then requests to make room for those who are owed it.
pub fn plan(state: &State, soft: &Soft, max: usize) -> Vec<Command> {
    let mut walk = Walk::new(state, Board::new(state, soft), Claims::new(state), vec![]);
    let mut planned = Vec::new();
    while planned.len() < max && !walk.board.is_full() {
        let Some((row, node)) = walk.next_start() else { break };
        planned.push(Command::Assign { task: row.uid, node });
    }
    let room = max - planned.len();
    planned.extend(reclaims(state, &walk).into_iter().take(room));
    planned
}

/// One look at the queue, with what is given away on the way.
pub(crate) struct Walk<'a> {
    pub(crate) board: Board<'a>,
    pub(crate) claims: Claims<'a>,
    line: Line<'a>,
    /// Capacity only shrinks while planning, so a no stays a no.
    full: BTreeSet<(&'a ProjectName, &'a str, Hash)>,
    hopeless: BTreeSet<(bool, &'a str)>,
    /// The projects whose next task was held back by the tree, with that task.
    pub(crate) held_back: BTreeMap<&'a ProjectName, &'a TaskRow>,
    /// Tasks looked at so far.
    pub(crate) looked: u64,
}

impl<'a> Walk<'a> {
    /// `entering` are tasks that would be in the queue as well.
    pub(crate) fn new(
        state: &'a State,
        board: Board<'a>,
        claims: Claims<'a>,
        entering: Vec<(QueueKey, &'a TaskRow)>,
    ) -> Self {
        Walk {
            board,
            claims,
            line: Line::new(state, entering),
            full: BTreeSet::new(),
            hopeless: BTreeSet::new(),
            held_back: BTreeMap::new(),
            looked: 0,
        }
    }

    /// The next task that starts, and where.
    fn next_start(&mut self) -> Option<(&'a TaskRow, NodeId)> {
        while let Some(row) = self.line.next() {
            if let Some(node) = self.look(row) {
                return Some((row, node));
            }
        }
        None
    }

    /// Gives away what everyone before the task takes. False when the task is not in the line.
    pub(crate) fn walk_to(&mut self, uid: TaskUid, mut started: impl FnMut(&Board<'a>, NodeId)) -> bool {
        while let Some(row) = self.line.next() {
            if row.uid == uid {
                return true;
            }
            if let Some(node) = self.look(row) {
                started(&self.board, node);
            }
        }
        false
    }

    fn look(&mut self, row: &'a TaskRow) -> Option<NodeId> {
        self.looked += 1;
        let (kind, engine) = ((&row.project, row.agent.as_str(), row.revision), engine_of(row));
        if self.full.contains(&kind) || self.hopeless.contains(&engine) {
            self.line.pass(row);
            return None;
        }
        if !self.claims.fits(row) {
            self.hold_back(row);
            return None;
        }
        let Some(node) = self.board.best_node(row) else {
            self.hopeless.insert(engine);
            self.line.pass(row);
            return None;
        };
        self.board.take(row, node);
        self.claims.take(row);
        self.line.serve(row);
        Some(node)
    }

    fn hold_back(&mut self, row: &'a TaskRow) {
        self.held_back.entry(&row.project).or_insert(row);
        match self.claims.reach(row) {
            crate::quota::Reach::Project => self.line.drop_project(&row.project),
            crate::quota::Reach::Agent => {
                self.full.insert((&row.project, row.agent.as_str(), row.revision));
                self.line.pass(row);
            }
            crate::quota::Reach::Task => self.line.pass(row),
        }
    }
}

/// A team needs no engine of its own.
fn engine_of(row: &TaskRow) -> (bool, &str) {
    (row.kind == AgentKind::Team, row.model.as_str())
}

/// Tasks of one class and project that are still to be looked at.
struct Lane<'a> {
    rows: Box<dyn Iterator<Item = (QueueKey, &'a TaskRow)> + 'a>,
    head: Option<(QueueKey, &'a TaskRow)>,
}

/// The lanes of one class, by the rank of their heads and by the turn of their projects.
#[derive(Default)]
struct ClassLine<'a> {
    lanes: BTreeMap<&'a ProjectName, Lane<'a>>,
    by_rank: BTreeSet<(QueueKey, &'a ProjectName)>,
    by_turn: BTreeSet<(Turn, &'a ProjectName)>,
}

/// The queue while it is walked.
struct Line<'a> {
    state: &'a State,
    classes: BTreeMap<Class, ClassLine<'a>>,
    /// Served for the weight, with what this walk gave away.
    turns: BTreeMap<&'a ProjectName, Turn>,
    /// Running tasks by class, with what this walk gave away.
    running: BTreeMap<Class, u64>,
}

impl<'a> Line<'a> {
    fn new(state: &'a State, entering: Vec<(QueueKey, &'a TaskRow)>) -> Self {
        let mut line = Line {
            state,
            classes: BTreeMap::new(),
            turns: BTreeMap::new(),
            running: state.tasks.index().running.clone(),
        };
        let mut more: BTreeMap<(Class, &ProjectName), Vec<(QueueKey, &TaskRow)>> = BTreeMap::new();
        for (key, row) in entering {
            more.entry((row.class, &row.project)).or_default().push((key, row));
        }
        for ((class, project), keys) in &state.tasks.index().queue {
            let rows = keys.iter().filter_map(|key| Some((*key, state.task(key.uid)?)));
            let mut merged = more.remove(&(*class, project)).unwrap_or_default();
            if merged.is_empty() {
                line.put(*class, project, Box::new(rows));
            } else {
                merged.extend(rows);
                merged.sort_by_key(|(key, _)| *key);
                line.put(*class, project, Box::new(merged.into_iter()));
            }
        }
        for ((class, project), mut rows) in more {
            rows.sort_by_key(|(key, _)| *key);
            line.put(class, project, Box::new(rows.into_iter()));
        }
        line
    }

    fn put(
        &mut self,
        class: Class,
        project: &'a ProjectName,
        mut rows: Box<dyn Iterator<Item = (QueueKey, &'a TaskRow)> + 'a>,
    ) {
        let Some(head) = rows.next() else { return };
        let turn = self.state.turn(project);
        self.turns.insert(project, turn);
        let class = self.classes.entry(class).or_default();
        class.by_rank.insert((head.0, project));
        class.by_turn.insert((turn, project));
        class.lanes.insert(project, Lane { rows, head: Some(head) });
    }

    /// The task to be looked at now. It stays the next one until it is passed, served or its project dropped.
    fn next(&mut self) -> Option<&'a TaskRow> {
        let class = self.next_class()?;
        let (_, project) = class.by_turn.first()?;
        class.lanes.get(project)?.head.map(|(_, row)| row)
    }

    fn next_class(&self) -> Option<&ClassLine<'a>> {
        let running: u64 = self.running.values().sum();
        let below_slice = |(class, percent): &&(Class, u64)| {
            let has = self.running.get(class).copied().unwrap_or(0);
            has < (running + 1) * percent / 100 && self.classes.contains_key(class)
        };
        if let Some((class, _)) = SLICES.iter().find(below_slice) {
            return self.classes.get(class);
        }
        self.classes.values().min_by_key(|class| class.by_rank.first().map(|(key, _)| *key))
    }

    fn pass(&mut self, row: &'a TaskRow) {
        let Entry::Occupied(mut class) = self.classes.entry(row.class) else { return };
        let line = class.get_mut();
        let Some(lane) = line.lanes.get_mut(&row.project) else { return };
        if let Some((key, _)) = lane.head {
            line.by_rank.remove(&(key, &row.project));
        }
        lane.head = lane.rows.next();
        match lane.head {
            Some((key, _)) => drop(line.by_rank.insert((key, &row.project))),
            None => {
                line.lanes.remove(&row.project);
                line.by_turn.remove(&(self.turns[&row.project], &row.project));
                if line.lanes.is_empty() {
                    class.remove();
                }
            }
        }
    }

    fn serve(&mut self, row: &'a TaskRow) {
        self.pass(row);
        *self.running.entry(row.class).or_default() += 1;
        let (guess, weight) = (self.state.guess(&row.project), self.state.weight(&row.project));
        let old = self.turns[&row.project];
        let new = old.later_by(guess, weight);
        self.turns.insert(&row.project, new);
        for class in self.classes.values_mut() {
            if class.by_turn.remove(&(old, &row.project)) {
                class.by_turn.insert((new, &row.project));
            }
        }
    }

    fn drop_project(&mut self, project: &'a ProjectName) {
        let turn = self.turns[project];
        self.classes.retain(|_, class| {
            if let Some(lane) = class.lanes.remove(project) {
                class.by_turn.remove(&(turn, project));
                lane.head.map(|(key, _)| class.by_rank.remove(&(key, project)));
            }
            !class.lanes.is_empty()
        });
    }
}

/// Who has to make room: where a project waits that holds less than its guarantee, a task of those who hold more than
/// theirs, from the greediest, the least urgent and youngest first. One for each task that is owed a place.
fn reclaims(state: &State, walk: &Walk<'_>) -> Vec<Command> {
    let Some(pledged) = state.pledges.get(&Holding::Running) else { return vec![] };
    let owed = |(project, _): &(&&ProjectName, &&TaskRow)| {
        let path = crate::quota::path_of_project(project);
        let held = state.quotas.get(&path).map(|row| row.holding(&Holding::Running));
        let has_less = held.is_some_and(|held| held.used < held.guaranteed.unwrap_or(0));
        pledged.contains(&path) && has_less
    };
    let owed = walk.held_back.iter().filter(owed).count();
    let leaving = state.tasks.index().yielding.len();
    let wanted = owed.saturating_sub(leaving);
    let preempt = |row: &TaskRow| {
        row.epoch.map(|epoch| Command::Preempt { task: row.uid, epoch, grace_ms: GRACE_MS })
    };
    victims(state, wanted).into_iter().filter_map(preempt).collect()
}

fn victims(state: &State, wanted: usize) -> Vec<&TaskRow> {
    let mut victims = vec![];
    let mut borrowers = if wanted > 0 { state.borrowers(&Holding::Running) } else { vec![] };
    let mut running: BTreeMap<String, Vec<&TaskRow>> = BTreeMap::new();
    for (path, _) in &borrowers {
        let mut rows: Vec<&TaskRow> = state.running_below(path).collect();
        rows.sort_by_key(|row| (row.class, row.last_epoch));
        running.insert(path.clone(), rows);
    }
    while victims.len() < wanted {
        let Some(greediest) = borrowers.iter_mut().filter(|(path, over)| *over > 0 && !running[path].is_empty()).max_by_key(|(_, over)| *over) else { break };
        greediest.1 -= 1;
        victims.extend(running.get_mut(&greediest.0).and_then(Vec::pop));
    }
    victims
}

impl State {
    /// Running tasks of a project and those below it that were not asked to make room yet.
    fn running_below(&self, path: &str) -> impl Iterator<Item = &TaskRow> {
        let leases = self.tasks.index().leases.values().flatten().filter_map(|uid| self.task(*uid));
        leases.filter(move |row| {
            let of_path = crate::quota::path_of_project(&row.project);
            let below = of_path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            below && row.state == TaskState::Running && row.yield_by_ms.is_none()
        })
    }
}
