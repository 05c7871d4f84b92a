//! Who should get which pending task. A pure proposal: the same state and the same view of the nodes give the same
//! plan, and `Assign` checks everything again when it is applied.
//!
//! The order of the queue, from coarse to fine:
//! 1. *Class.* One that has less than its slice of what runs goes first, the more urgent ones before. Otherwise the
//!    class of the task with the lowest rank ([`crate::queue`]): urgent classes first, until a task has waited so long
//!    that it outranks them. Urgent work may come faster than it is done, and then nothing ever outranks it: a class
//!    that has waited for its whole handicap gets a share of the starts, however urgent the others are.
//! 2. *Project.* Inside the class one that has less than it is guaranteed before those who borrow, and among them by
//!    the strategy ([`crate::strategy`]): usually the one that was served least for its weight ([`crate::fair`]).
//! 3. *Task.* Inside the project by rank: priority, what was begun before what is fresh, age.
//!
//! A task that may not start is passed over, so nobody blocks the tasks behind. One exception: children that start
//! together and have waited long for slots enough get those that become free ([`crate::gang`]).

use crate::command::Command;
use crate::fair::{ClassTurns, Turn};
use crate::gang::{Gang, Gangs, Misfit, Start, start_together, starts_together};
use crate::keys::Holding;
use crate::placement::{Board, Soft};
use crate::queue::{QueueKey, class_ms};
use crate::quota::{Claims, Reach, path_of_project};
use crate::rows::{AgentKind, TaskRow};
use crate::state::State;
use crate::strategy::Turns;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use types::{Class, Hash, NodeId, ProjectName, TaskState};

/// What each class has of the running tasks before rank decides, in percent. Small, so that urgency still means
/// something; with a handful of slots it rounds to none.
const SLICES: [(Class, u64); 4] =
    [(Class::System, 10), (Class::Interactive, 10), (Class::Batch, 10), (Class::BestEffort, 5)];

/// How long a task that has to make room may go on with the step it is in.
const GRACE_MS: u64 = 10_000;

/// At most `max` assignments, in queue order, then requests to make room for those who are owed it.
pub fn plan(state: &State, soft: &Soft, max: usize) -> Vec<Command> {
    let mut walk = Walk::new(state, soft, Board::new(state, soft), Claims::new(state), vec![]);
    let mut planned = Vec::new();
    while planned.len() < max && !walk.board.is_full() {
        let Some(start) = walk.next_start() else { break };
        planned.push(start.command());
    }
    let room = max - planned.len();
    planned.extend(reclaims(state, &walk, room));
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
    /// Tasks started, by project.
    started: BTreeMap<&'a ProjectName, u64>,
    gangs: Gangs,
    /// Tasks looked at so far.
    pub(crate) looked: u64,
}

impl<'a> Walk<'a> {
    /// `entering` are tasks that would be in the queue as well.
    pub(crate) fn new(
        state: &'a State,
        soft: &Soft,
        board: Board<'a>,
        claims: Claims<'a>,
        entering: Vec<(QueueKey, &'a TaskRow)>,
    ) -> Self {
        Walk {
            board,
            claims,
            line: Line::new(state, soft, entering),
            full: BTreeSet::new(),
            hopeless: BTreeSet::new(),
            started: BTreeMap::new(),
            gangs: Gangs::default(),
            looked: 0,
        }
    }

    /// The next task that starts, or the next ones that start together, and where.
    fn next_start(&mut self) -> Option<Start<'a>> {
        while !self.gangs.saving
            && let Some(row) = self.line.next()
        {
            if let Some(start) = self.look(row) {
                return Some(start);
            }
        }
        None
    }

    /// Gives away what everyone takes who is before the task and those that start with it. False when the task is not in the line.
    pub(crate) fn walk_to(&mut self, target: &TaskRow, mut started: impl FnMut(&Board<'a>, NodeId)) -> bool {
        while let Some(row) = self.line.next() {
            if row.uid == target.uid || start_together(row, target) {
                return true;
            }
            let start = self.look(row);
            start.iter().flat_map(|start| &start.0).for_each(|(_, node)| started(&self.board, *node));
        }
        false
    }

    fn look(&mut self, row: &'a TaskRow) -> Option<Start<'a>> {
        if self.gangs.started.contains(&row.uid) {
            self.line.pass(row);
            return None;
        }
        self.looked += 1;
        let (kind, engine) = ((&row.project, row.agent.as_str(), *row.revision), engine_of(row));
        if self.full.contains(&kind) || self.hopeless.contains(&engine) {
            self.line.pass(row);
            return None;
        }
        if let Some(reach) = self.claims.held_back(row) {
            self.hold_back(row, reach);
            return None;
        }
        if starts_together(row) {
            return self.look_at_gang(row);
        }
        let Some(node) = self.board.node_for(row, self.line.strategy.first_fit()) else {
            self.hopeless.insert(engine);
            self.line.pass(row);
            return None;
        };
        self.board.take(row, node);
        self.claims.take(row);
        self.line.serve(row);
        *self.started.entry(&row.project).or_default() += 1;
        Some(Start(vec![(row, node)]))
    }

    /// Children that start together: a place for each, or for none.
    fn look_at_gang(&mut self, row: &'a TaskRow) -> Option<Start<'a>> {
        let gang = Gang::of(self.line.state, row);
        let known = !self.gangs.passed.insert(gang.of);
        let first_fit = self.line.strategy.first_fit();
        let fit = if known { Err(Misfit::Held) } else { gang.fit(&self.board, &self.claims, first_fit) };
        match fit {
            Ok(fitted) => {
                (self.board, self.claims) = (fitted.board, fitted.claims);
                fitted.start.0.iter().for_each(|(member, _)| self.line.count(member));
                self.looked += fitted.start.0.len() as u64 - 1;
                self.gangs.started.extend(fitted.start.0.iter().map(|(member, _)| member.uid));
                *self.started.entry(&row.project).or_default() += fitted.start.0.len() as u64;
                self.line.pass(row);
                Some(fitted.start)
            }
            Err(misfit) => {
                let impatient = gang.is_impatient(self.line.now_ms);
                self.gangs.saving |= misfit == Misfit::NoSlots && impatient;
                self.line.pass(row);
                None
            }
        }
    }

    fn hold_back(&mut self, row: &'a TaskRow, reach: Reach) {
        match reach {
            Reach::Project => self.line.drop_project(&row.project),
            Reach::Agent => {
                self.full.insert((&row.project, row.agent.as_str(), *row.revision));
                self.line.pass(row);
            }
            Reach::Task => self.line.pass(row),
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
    by_turn: BTreeSet<(Standing, &'a ProjectName)>,
}

/// The queue while it is walked.
struct Line<'a> {
    state: &'a State,
    now_ms: u64,
    strategy: Box<dyn Turns + 'a>,
    classes: BTreeMap<Class, ClassLine<'a>>,
    /// Served for the weight, with what this walk gave away.
    turns: BTreeMap<&'a ProjectName, Standing>,
    /// Running tasks by class, with what this walk gave away.
    running: BTreeMap<Class, u64>,
    class_turns: ClassTurns,
    /// Running tasks below each project of the line that others are compared with by guarantees.
    held: BTreeMap<&'a ProjectName, u64>,
}

/// A project's place inside a class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    borrows: bool,
    turn: Turn,
}

impl<'a> Line<'a> {
    fn new(state: &'a State, soft: &Soft, entering: Vec<(QueueKey, &'a TaskRow)>) -> Self {
        let now_ms = soft.ledger_ms.max(state.ledger_ms());
        let mut line = Line {
            state,
            now_ms,
            strategy: soft.strategy.turns(state, now_ms),
            classes: BTreeMap::new(),
            turns: BTreeMap::new(),
            running: state.tasks.index().running.clone(),
            class_turns: state.class_turns(),
            held: BTreeMap::new(),
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
        self.held.insert(
            project,
            self.state.quotas.get(&path_of_project(project)).map_or(0, |row| row.running_used),
        );
        let turn = Standing { borrows: self.borrows(project), turn: self.strategy.turn(project) };
        self.turns.insert(project, turn);
        let class = self.classes.entry(class).or_default();
        class.by_rank.insert((head.0, project));
        class.by_turn.insert((turn, project));
        class.lanes.insert(project, Lane { rows, head: Some(head) });
    }

    /// The task to be looked at now. It stays the next one until it is passed, served or its project dropped.
    fn next(&mut self) -> Option<&'a TaskRow> {
        let class = self.next_class()?;
        let (_, by_turn) = class.by_turn.first()?;
        let (_, by_rank) = class.by_rank.first()?;
        let project = if self.strategy.first_fit() { by_rank } else { by_turn };
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
        let rank = |class: &ClassLine<'a>| class.by_rank.first().map(|(key, _)| *key);
        let (first, line) = self.classes.iter().min_by_key(|(_, line)| rank(line))?;
        let overdue = |class: Class, line: &ClassLine<'a>| {
            rank(line).is_some_and(|key| key.queued_ms.saturating_add(class_ms(class)) <= self.now_ms)
        };
        let impatient = self.classes.iter().filter(|(class, line)| overdue(**class, line));
        match impatient.min_by_key(|(class, _)| self.class_turns.of(**class)) {
            Some((class, other)) if self.class_turns.of(*class) < self.class_turns.of(*first) => Some(other),
            _ => Some(line),
        }
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
        self.count(row);
    }

    /// It starts, and stays where it is in the line.
    fn count(&mut self, row: &'a TaskRow) {
        *self.running.entry(row.class).or_default() += 1;
        self.class_turns.start(row.class);
        *self.held.entry(&row.project).or_default() += 1;
        let old = self.turns[&row.project];
        self.strategy.start(row);
        let turn = self.strategy.turn(&row.project);
        let new = Standing { borrows: self.borrows(&row.project), turn };
        self.turns.insert(&row.project, new);
        for class in self.classes.values_mut() {
            if class.by_turn.remove(&(old, &row.project)) {
                class.by_turn.insert((new, &row.project));
            }
        }
    }

    /// Whether a task more would be beyond what the project is guaranteed, where anyone is guaranteed anything.
    fn borrows(&self, project: &ProjectName) -> bool {
        if !self.state.pledges.contains_key(&Holding::Running) {
            return false;
        }
        let row = self.state.quotas.get(&path_of_project(project));
        let guaranteed = row.and_then(|row| row.holding(&Holding::Running).guaranteed).unwrap_or(0);
        self.held.get(project).copied().unwrap_or(0) >= guaranteed
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
fn reclaims(state: &State, walk: &Walk<'_>, most: usize) -> Vec<Command> {
    let Some(pledged) = state.pledges.get(&Holding::Running) else { return vec![] };
    let owed: u64 = pledged.iter().map(|path| owed(state, walk, path)).sum();
    let leaving = state.tasks.index().yielding.len();
    let wanted = usize::try_from(owed).unwrap_or(usize::MAX).min(most).saturating_sub(leaving);
    let preempt =
        |row: &TaskRow| row.epoch.map(|epoch| Command::Preempt { task: row.uid, epoch, grace_ms: GRACE_MS });
    victims(state, wanted).into_iter().filter_map(preempt).collect()
}

/// Tasks of a project that wait, could run on some node, and would be within its guarantee.
fn owed(state: &State, walk: &Walk<'_>, path: &str) -> u64 {
    let of_path = |project: &ProjectName| path_of_project(project) == *path;
    let started: u64 =
        walk.started.iter().filter(|(project, _)| of_path(project)).map(|(_, count)| *count).sum();
    let held = state.quotas.get(&path.to_string()).map(|row| row.holding(&Holding::Running));
    let short = held.map_or(0, |held| held.guaranteed.unwrap_or(0).saturating_sub(held.used + started));
    if short == 0 {
        return 0;
    }
    let lanes = state.tasks.index().queue.iter().filter(|((_, project), _)| of_path(project));
    // Tasks of one model are able together: a long queue for a model that no node has is one question.
    let mut engines: BTreeMap<(bool, &str), bool> = BTreeMap::new();
    let rows = lanes.flat_map(|(_, keys)| keys).filter_map(|key| state.task(key.uid));
    let able = rows.filter(|row| {
        *engines.entry(engine_of(row)).or_insert_with(|| walk.board.able(row).next().is_some())
    });
    let waiting = able.take((short + started) as usize).count() as u64;
    short.min(waiting.saturating_sub(started))
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
        let Some(greediest) = borrowers
            .iter_mut()
            .filter(|(path, over)| *over > 0 && !running[path].is_empty())
            .max_by_key(|(_, over)| *over)
        else {
            break;
        };
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
            let of_path = path_of_project(&row.project);
            let below =
                of_path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            below && row.state == TaskState::Running && row.yield_by_ms.is_none()
        })
    }
}
