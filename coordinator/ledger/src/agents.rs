//! Agents and teams: the revision in force under a name. Tasks pin the one they were created with.

use crate::change::{Change, check_name, check_text, invalid};
use crate::command::RequestKey;
use crate::keys::Holding;
use crate::reply::{Refusal, Reply};
use crate::requests::Memory;
use crate::rows::{AgentKind, AgentRow};
use types::{Hash, NodeId, ProjectName, limits};

/// A petabyte: more is a slip of the pen, and keeps sums far from overflow.
const NEED_MOST: u64 = 1 << 50;

pub(crate) struct Revision<'a> {
    pub project: &'a ProjectName,
    pub name: &'a str,
    pub kind: AgentKind,
    pub model: &'a str,
    pub revision: Hash,
    pub definition: Hash,
    pub etag: Option<u64>,
    pub home: &'a [NodeId],
    pub request: &'a RequestKey,
    pub needs: &'a Option<Vec<(Holding, u64)>>,
}

/// Puts a revision in force. Applying the same one again changes nothing but where it is kept.
pub(crate) fn apply(change: &mut Change<'_>, new: &Revision<'_>) -> Result<Reply, Refusal> {
    let scope = format!("projects/{}", new.project);
    if let Some(reply) = change.recall(new.request, &scope)? {
        return Ok(reply);
    }
    check(new)?;
    change.durable_home(new.home)?;
    let old = change.state.agent(new.project, new.name).cloned();
    check_etag(new.etag, old.as_ref().map_or(0, |row| row.etag))?;
    let row = next_row(change, new, old);
    change.state.agents.insert((new.project.clone(), new.name.to_string()), row.clone());
    change.remember(new.request, &scope, Memory::Reply(Box::new(Reply::Agent(row.clone()))));
    Ok(Reply::Agent(row))
}

pub(crate) fn check_etag(given: Option<u64>, current: u64) -> Result<(), Refusal> {
    match given {
        Some(given) if given != current => Err(Refusal::WrongEtag { given, current }),
        Some(_) | None => Ok(()),
    }
}

fn check(new: &Revision<'_>) -> Result<(), Refusal> {
    check_name("agent name", new.name)?;
    check_text("model name", new.model)?;
    check_needs(new.needs.as_deref().unwrap_or_default())?;
    match new.kind {
        AgentKind::Agent if new.model.is_empty() => Err(invalid("model", "an agent needs a model; name one")),
        AgentKind::Agent | AgentKind::Team => Ok(()),
    }
}

pub(crate) fn check_needs(needs: &[(Holding, u64)]) -> Result<(), Refusal> {
    if needs.len() > limits::AGENT_NEEDS {
        return Err(invalid("needs", format!("{} given, at most {}", needs.len(), limits::AGENT_NEEDS)));
    }
    for (i, (holding, amount)) in needs.iter().enumerate() {
        let name = holding.name();
        if *holding == Holding::Running {
            return Err(invalid("needs", "every task needs one running slot; leave `running` out"));
        }
        if Holding::parse(&name).is_none() || *amount > NEED_MOST {
            return Err(invalid("needs", format!("{name} = {amount} is not a need; amounts go up to 2^50")));
        }
        if needs[..i].iter().any(|(earlier, _)| earlier == holding) {
            return Err(invalid("needs", format!("{name} is given twice")));
        }
    }
    Ok(())
}

fn next_row(change: &Change<'_>, new: &Revision<'_>, old: Option<AgentRow>) -> AgentRow {
    let home = change.members(new.home);
    let same = |row: &AgentRow| {
        row.kind == new.kind
            && row.model == new.model
            && row.revision == new.revision
            && row.definition == new.definition
            && row.needs == *new.needs
    };
    match old {
        Some(row) if same(&row) => {
            // The definition may be kept in more places by now; none of the known ones is forgotten.
            let both: Vec<NodeId> = home.into_iter().chain(row.home.iter().copied()).collect();
            AgentRow { home: change.members(&both), ..row }
        }
        old => AgentRow {
            project: new.project.clone(),
            name: new.name.to_string(),
            kind: new.kind,
            model: new.model.to_string(),
            revision: new.revision,
            definition: new.definition,
            etag: old.map_or(0, |row| row.etag) + 1,
            updated_ms: change.state.wall_ms(),
            home,
            needs: new.needs.clone(),
        },
    }
}
