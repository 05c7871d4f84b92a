//! Named chains of segments with one head each: the memory of a scope, the notes of a task tree. And what was forgotten:
//! segments that nobody may have any more.

use crate::change::{Change, check_name, invalid};
use crate::command::RequestKey;
use crate::query::ForgottenRow;
use crate::reply::{Refusal, Reply};
use crate::requests::Memory;
use crate::state::State;
use minicbor::{Decode, Encode};
use std::ops::Bound;
use types::{Hash, NodeId, ProjectName, limits};

/// A chain: its newest record, and how many there were.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeadRow {
    #[n(0)]
    pub project: ProjectName,
    #[n(1)]
    pub path: String,
    #[n(2)]
    pub head: Hash,
    #[n(3)]
    pub moves: u64,
    /// Nodes that durably hold the whole chain.
    #[n(4)]
    pub home: Vec<NodeId>,
    #[n(5)]
    pub updated_ms: u64,
}

pub(crate) struct Move<'a> {
    pub project: &'a ProjectName,
    pub path: &'a str,
    pub after: Option<Hash>,
    pub head: Hash,
    pub home: &'a [NodeId],
    pub forget: &'a [Hash],
    pub request: &'a RequestKey,
}

/// Moves a head from the one that the caller has seen. The same move again is answered as done.
pub(crate) fn move_head(change: &mut Change<'_>, to: &Move<'_>) -> Result<Reply, Refusal> {
    let scope = format!("projects/{}", to.project);
    if let Some(reply) = change.recall(to.request, &scope)? {
        return Ok(reply);
    }
    check_name("path", to.path)?;
    if to.forget.len() > limits::FORGET {
        return Err(invalid("forget", format!("{} given, at most {}", to.forget.len(), limits::FORGET)));
    }
    let home = change.durable_home(to.home)?;
    let key = (to.project.clone(), to.path.to_string());
    let row = change.state.heads.get(&key);
    let (head, moves) = (row.map(|row| row.head), row.map_or(0, |row| row.moves));
    if head == Some(to.head) {
        return Ok(Reply::Head(row.expect("it has a head").clone()));
    }
    if head != to.after {
        return Err(Refusal::WrongHead { path: to.path.to_string(), head });
    }
    if row.is_none() && change.state.heads(to.project, "").count() >= limits::HEADS_PER_PROJECT {
        return Err(invalid("path", format!("the project has {} chains already", limits::HEADS_PER_PROJECT)));
    }
    let row = HeadRow {
        project: to.project.clone(),
        path: to.path.to_string(),
        head: to.head,
        moves: moves + 1,
        home,
        updated_ms: change.state.wall_ms(),
    };
    change.state.heads.insert(key, row.clone());
    let at_ms = change.state.wall_ms();
    for hash in to.forget {
        change.state.forgotten.insert((to.project.clone(), *hash), at_ms);
    }
    change.remember(to.request, &scope, Memory::Reply(Box::new(Reply::Head(row.clone()))));
    Ok(Reply::Head(row))
}

impl State {
    /// Chains of a project whose paths begin so.
    pub fn heads<'a>(&'a self, project: &ProjectName, prefix: &'a str) -> impl Iterator<Item = &'a HeadRow> {
        let from = (project.clone(), prefix.to_string());
        let project = project.clone();
        let of_prefix = move |row: &&HeadRow| row.project == project && row.path.starts_with(prefix);
        self.heads.range(from..).map(|(_, row)| row).take_while(of_prefix)
    }

    /// Everything that was forgotten, by project.
    pub fn forgotten(&self) -> impl Iterator<Item = (&ProjectName, Hash)> {
        self.forgotten.keys().map(|(project, hash)| (project, *hash))
    }

    /// What was forgotten at a time or later, in the order of names. The ledger's time never goes back, so whoever asks
    /// from the newest time that it was told misses nothing.
    pub(crate) fn forgotten_since<'a>(
        &'a self,
        since_ms: u64,
        after: Option<&(ProjectName, Hash)>,
    ) -> impl Iterator<Item = ForgottenRow> + 'a {
        let from = after.cloned().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.forgotten.range((from, Bound::Unbounded));
        let row = |((project, hash), at_ms): (&(ProjectName, Hash), &u64)| ForgottenRow {
            project: project.clone(),
            hash: *hash,
            at_ms: *at_ms,
        };
        rows.filter(move |(_, at_ms)| **at_ms >= since_ms).map(row)
    }

    pub fn is_forgotten(&self, project: &ProjectName, hash: Hash) -> bool {
        self.forgotten.contains(&(project.clone(), hash))
    }
}
