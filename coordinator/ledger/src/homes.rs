//! Homes: which nodes keep what a row names, which of these rows are kept by too few, and what has no reader any more.
//!
//! The bytes are not here, and neither is who is up. A node that keeps a chain asks which chains it has to bring to
//! another store, brings them, and says so with `MoveHome`: it is taken only where nothing has happened to the chain
//! since it was looked at.

use crate::change::{Change, invalid, not_found};
use crate::heads::HeadRow;
use crate::reply::{Refusal, Reply};
use crate::rows::{AgentRow, Nodes, ScheduleRow, TaskRow};
use crate::state::State;
use crate::steps::lease_node_first;
use minicbor::{Decode, Encode};
use std::ops::Bound;
use types::{Hash, NodeId, ProjectName, TaskUid, limits};

/// A row whose segments certain nodes keep, in the order of the tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Chain {
    /// An agent's definition.
    #[n(0)]
    Agent {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        name: String,
    },
    /// The inputs of a schedule's tasks.
    #[n(1)]
    Schedule {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        name: String,
    },
    /// A memory or a board.
    #[n(2)]
    Head {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        path: String,
    },
    #[n(3)]
    Task {
        #[n(0)]
        uid: TaskUid,
    },
}

impl Chain {
    /// The place of its table.
    fn rank(&self) -> u8 {
        match self {
            Chain::Agent { .. } => 0,
            Chain::Schedule { .. } => 1,
            Chain::Head { .. } => 2,
            Chain::Task { .. } => 3,
        }
    }
}

/// What a chain's row says of its segments, and who keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    #[n(0)]
    pub chain: Chain,
    #[n(1)]
    pub project: ProjectName,
    /// Nodes that said that they hold it. Of a task that has not committed yet each may hold a part.
    #[n(2)]
    pub keepers: Vec<NodeId>,
    /// These, the node with the lease, and where something was said to a task.
    #[n(3)]
    pub home: Vec<NodeId>,
    /// Another one when there is anything else to keep, or another lease.
    #[n(4)]
    pub mark: Hash,
    /// What the row names itself.
    #[n(5)]
    pub segments: Vec<Hash>,
    /// The newest step record. It names further segments and the record before it.
    #[n(6)]
    pub journal: Option<Hash>,
    /// The newest record of a memory. As with steps.
    #[n(7)]
    pub memory: Option<Hash>,
    /// The sheet of a board. It names the texts of its notes.
    #[n(8)]
    pub board: Option<Hash>,
}

/// Who looks for chains that too few nodes keep.
pub(crate) struct Gap<'a> {
    /// Whoever is first among a chain's keepers that are left brings it to another store.
    pub holder: NodeId,
    /// Members that are away for good, as far as the holder knows.
    pub gone: &'a [NodeId],
    /// A member was removed: of chains whose keepers each hold a part nobody knows what it took along.
    pub unproved: bool,
    /// Chains of ended tasks, or all others.
    pub ended: bool,
}

/// Chains that too few nodes keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Short {
    pub rows: Vec<Kept>,
    pub more: bool,
    /// All that the holder has to bring to another store, where the page is the first.
    pub count: u64,
    /// All that no node keeps any more.
    pub lost: u64,
}

/// A row with a home.
#[derive(Clone, Copy)]
pub(crate) enum Row<'a> {
    Agent(&'a AgentRow),
    Schedule(&'a ScheduleRow),
    Head(&'a HeadRow),
    Task(&'a TaskRow),
}

impl Row<'_> {
    fn chain(&self) -> Chain {
        match self {
            Row::Agent(row) => Chain::Agent { project: row.project.clone(), name: row.name.clone() },
            Row::Schedule(row) => Chain::Schedule { project: row.project.clone(), name: row.name.clone() },
            Row::Head(row) => Chain::Head { project: row.project.clone(), path: row.path.clone() },
            Row::Task(row) => Chain::Task { uid: row.uid },
        }
    }

    pub(crate) fn project(&self) -> &ProjectName {
        match self {
            Row::Agent(row) => &row.project,
            Row::Schedule(row) => &row.project,
            Row::Head(row) => &row.project,
            Row::Task(row) => &row.project,
        }
    }

    pub(crate) fn home(&self) -> &[NodeId] {
        match self {
            Row::Agent(row) => &row.home,
            Row::Schedule(row) => &row.home,
            Row::Head(row) => &row.home,
            Row::Task(row) => &row.home,
        }
    }

    fn keepers(&self) -> &[NodeId] {
        match self {
            Row::Task(row) => &row.keepers,
            Row::Agent(_) | Row::Schedule(_) | Row::Head(_) => self.home(),
        }
    }

    fn is_ended(&self) -> bool {
        matches!(self, Row::Task(row) if row.state.is_final())
    }

    /// Nothing of it was committed yet, so that each keeper may hold a part of it only.
    fn is_unproved(&self) -> bool {
        let Row::Task(row) = self else { return false };
        row.step == row.fork.as_ref().map_or(0, |fork| fork.step)
    }

    pub(crate) fn segments(&self) -> Vec<Hash> {
        match self {
            Row::Agent(row) => vec![row.definition],
            Row::Schedule(row) => row.inputs.iter().map(|input| input.segment).collect(),
            Row::Head(_) => Vec::new(),
            Row::Task(row) => of_task(row),
        }
    }

    pub(crate) fn journal(&self) -> Option<Hash> {
        if let Row::Task(row) = self { row.head } else { None }
    }

    pub(crate) fn memory(&self) -> Option<Hash> {
        self.head_below("memory/")
    }

    pub(crate) fn board(&self) -> Option<Hash> {
        self.head_below("boards/")
    }

    fn head_below(&self, prefix: &str) -> Option<Hash> {
        match self {
            Row::Head(row) => row.path.starts_with(prefix).then_some(row.head),
            Row::Agent(_) | Row::Schedule(_) | Row::Task(_) => None,
        }
    }

    fn kept(&self) -> Kept {
        let (segments, journal) = (self.segments(), self.journal());
        let (memory, board) = (self.memory(), self.board());
        let lease = if let Row::Task(row) = self { row.last_epoch } else { None };
        let mark = Hash::of(&types::encode(&(&segments, journal, memory, board, lease)));
        Kept {
            chain: self.chain(),
            project: self.project().clone(),
            keepers: self.keepers().to_vec(),
            home: self.home().to_vec(),
            mark,
            segments,
            journal,
            memory,
            board,
        }
    }
}

fn of_task(row: &TaskRow) -> Vec<Hash> {
    let inputs = row.inputs.iter().map(|input| input.segment);
    let error = row.error.as_ref().and_then(|error| error.text);
    let given = std::iter::once(*row.definition).chain(row.background.iter().copied()).chain(inputs);
    let talk = row.talk.iter().flat_map(|talk| {
        let asked = talk.asks.iter().filter_map(|ask| ask.text);
        asked.chain(talk.inbox.iter().filter_map(|signal| signal.text))
    });
    given.chain(row.result).chain(error).chain(talk).collect()
}

/// Where the rows of a table begin that are behind a chain; none: all of them are before it.
fn begin(after: Option<&Chain>, rank: u8) -> Option<Option<&Chain>> {
    match after.map(Chain::rank) {
        Some(at) if at > rank => None,
        Some(at) if at == rank => Some(after),
        _ => Some(None),
    }
}

fn named(after: Option<&Chain>, project: Option<&ProjectName>) -> Bound<(ProjectName, String)> {
    match after {
        Some(
            Chain::Agent { project, name }
            | Chain::Schedule { project, name }
            | Chain::Head { project, path: name },
        ) => Bound::Excluded((project.clone(), name.clone())),
        Some(Chain::Task { .. }) | None => match project {
            Some(project) => Bound::Included((project.clone(), String::new())),
            None => Bound::Unbounded,
        },
    }
}

impl State {
    /// Rows with a home behind a chain, of one project or of all.
    pub(crate) fn homes<'a>(
        &'a self,
        project: Option<&'a ProjectName>,
        after: Option<&'a Chain>,
    ) -> impl Iterator<Item = Row<'a>> + 'a {
        let mine = move |of: &ProjectName| project.is_none_or(|project| project == of);
        let from = |rank| begin(after, rank).map(|after| (named(after, project), Bound::Unbounded));
        let agents = from(0).into_iter().flat_map(|range| self.agents.range(range));
        let schedules = from(1).into_iter().flat_map(|range| self.schedules.range(range));
        let heads = from(2).into_iter().flat_map(|range| self.heads.range(range));
        let tasks = begin(after, 3).into_iter().flat_map(move |after| self.tasks_behind(project, after));
        let agents = agents.map(|(_, row)| Row::Agent(row)).take_while(move |row| mine(row.project()));
        let schedules =
            schedules.map(|(_, row)| Row::Schedule(row)).take_while(move |row| mine(row.project()));
        let heads = heads.map(|(_, row)| Row::Head(row)).take_while(move |row| mine(row.project()));
        agents.chain(schedules).chain(heads).chain(tasks.map(Row::Task))
    }

    fn tasks_behind<'a>(
        &'a self,
        project: Option<&ProjectName>,
        after: Option<&Chain>,
    ) -> Box<dyn Iterator<Item = &'a TaskRow> + 'a> {
        let from = match after {
            Some(Chain::Task { uid }) => Bound::Excluded(*uid),
            _ => Bound::Unbounded,
        };
        let range = (from, Bound::Unbounded);
        match project {
            None => Box::new(self.tasks.table().range(range).map(|(_, row)| row)),
            Some(project) => {
                let uids = self.tasks.index().by_project.get(project).into_iter();
                Box::new(uids.flat_map(move |uids| uids.range(range)).filter_map(|uid| self.task(*uid)))
            }
        }
    }

    /// A page of a project's rows: those with a node in their home, or those without.
    pub(crate) fn kept_of<'a>(
        &'a self,
        project: &'a ProjectName,
        node: NodeId,
        homed: bool,
        after: Option<&'a Chain>,
    ) -> impl Iterator<Item = Kept> + 'a {
        let rows = self.homes(Some(project), after);
        rows.filter(move |row| row.home().contains(&node) == homed).map(|row| row.kept())
    }

    /// What a holder has to bring to another store, a page of it.
    pub(crate) fn short_of_copies(&self, gap: &Gap<'_>, after: Option<&Chain>, limit: u32) -> Short {
        let most = (limit as usize).clamp(1, limits::PAGE_SIZE_MAX);
        let mut short = Short::default();
        for row in self.homes(None, after).filter(|row| row.is_ended() == gap.ended) {
            // Counted with the first page alone.
            if after.is_some() && short.more {
                break;
            }
            match self.holder_of(&row, gap) {
                Holder::Enough => {}
                Holder::Nobody => short.lost += 1,
                Holder::Is(node) if node != gap.holder => {}
                Holder::Is(_) => {
                    short.count += 1;
                    short.more |= short.rows.len() == most;
                    if short.rows.len() < most {
                        short.rows.push(row.kept());
                    }
                }
            }
        }
        short
    }

    fn holder_of(&self, row: &Row<'_>, gap: &Gap<'_>) -> Holder {
        let keepers = row.keepers();
        let mut left = keepers.iter().filter(|node| self.node(**node).is_some() && !gap.gone.contains(node));
        let count = left.clone().count();
        let whole = count == keepers.len() && count >= self.copies() as usize;
        let proved = !gap.unproved || !row.is_unproved();
        match left.next() {
            _ if whole && proved => Holder::Enough,
            Some(node) => Holder::Is(*node),
            None => Holder::Nobody,
        }
    }

    /// Memories and boards of tasks whose records are gone: nobody can name them any more.
    pub fn heads_outlived(&self) -> impl Iterator<Item = &HeadRow> {
        self.heads.values().filter(|row| task_of(&row.path).is_some_and(|uid| self.task(uid).is_none()))
    }

    fn row_of(&self, chain: &Chain) -> Option<Row<'_>> {
        match chain {
            Chain::Agent { project, name } => self.agent(project, name).map(Row::Agent),
            Chain::Schedule { project, name } => {
                self.schedules.get(&(project.clone(), name.clone())).map(Row::Schedule)
            }
            Chain::Head { project, path } => self.heads.get(&(project.clone(), path.clone())).map(Row::Head),
            Chain::Task { uid } => self.task(*uid).map(Row::Task),
        }
    }
}

/// Who brings a chain to another store.
enum Holder {
    Enough,
    Is(NodeId),
    Nobody,
}

/// The task whose own chain it is.
fn task_of(path: &str) -> Option<TaskUid> {
    let uid = path.strip_prefix("memory/tasks/").or_else(|| path.strip_prefix("boards/"))?;
    TaskUid::parse(uid).ok()
}

/// Others keep a chain from now on. Refused where anything has happened to it since it was looked at.
pub(crate) fn move_home(
    change: &mut Change<'_>,
    chain: &Chain,
    was: &[NodeId],
    mark: Hash,
    home: &[NodeId],
) -> Result<Reply, Refusal> {
    let home = change.durable_home(home)?;
    let row = change.state.row_of(chain).ok_or_else(|| not_found("chain", &format!("{chain:?}")))?;
    if row.keepers() == home {
        return Ok(Reply::Done);
    }
    if row.keepers() != was || row.kept().mark != mark {
        return Err(invalid("home", "something happened to the chain since it was looked at; look again"));
    }
    if !home.iter().any(|node| was.contains(node)) {
        return Err(invalid("home", "holds nobody who kept the chain before"));
    }
    settle(change, chain, home);
    Ok(Reply::Done)
}

fn settle(change: &mut Change<'_>, chain: &Chain, home: Vec<NodeId>) {
    match chain {
        Chain::Agent { project, name } => {
            change.state.agents.update(&(project.clone(), name.clone()), |row| row.home = home);
        }
        Chain::Schedule { project, name } => {
            change.state.schedules.update(&(project.clone(), name.clone()), |row| row.home = home);
        }
        Chain::Head { project, path } => {
            change.state.heads.update(&(project.clone(), path.clone()), |row| row.home = home);
        }
        Chain::Task { uid } => change.update(*uid, |row| {
            row.home = match row.node {
                Some(node) => lease_node_first(node, &home),
                None => Nodes::from(home.clone()),
            };
            row.keepers = home.into();
        }),
    }
}

/// The task of a memory or a board is gone, and so is it.
pub(crate) fn drop_head(
    change: &mut Change<'_>,
    project: &ProjectName,
    path: &str,
    head: Hash,
) -> Result<Reply, Refusal> {
    let key = (project.clone(), path.to_string());
    let Some(row) = change.state.heads.get(&key) else { return Ok(Reply::Done) };
    if row.head != head {
        return Err(Refusal::WrongHead { path: path.to_string(), head: Some(row.head) });
    }
    if task_of(path).is_none_or(|uid| change.state.task(uid).is_some()) {
        return Err(invalid("path", "is not of a task whose record is gone"));
    }
    change.state.heads.remove(&key);
    Ok(Reply::Done)
}
