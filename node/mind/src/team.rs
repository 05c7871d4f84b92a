//! What a team decides: one child for each input, then one child that has all their results, then done.

use crate::definition::TeamDefinition;
use crate::draft::{Doing, Draft, Move, Trouble};
use crate::{ChildOutcome, ChildPlan, Decision, Mind, NextMove};
use types::{Hash, TaskState, TaskUid, limits};

/// The next move, from what is committed.
pub(crate) fn next(mind: &Mind, team: &TeamDefinition) -> Move {
    if !mind.journal.stages.is_empty() {
        return Move::Do(Doing::Ask);
    }
    let given = mind.facts.inputs.len();
    if given == 0 {
        let message = format!(
            "team {:?} fans out over its inputs and was given none; create the task with at least one input",
            team.name
        );
        return Move::Trouble(Trouble::last("NO_INPUT", message));
    }
    if given > limits::TASK_CHILDREN {
        let message = format!(
            "team {:?} was given {given} inputs, but a task has at most {} children; give it fewer",
            team.name,
            limits::TASK_CHILDREN
        );
        return Move::Trouble(Trouble::last("TOO_MANY_INPUTS", message));
    }
    let plan = |input: &(String, Hash)| {
        let plan = child(mind, &team.fan_out, vec![input.clone()]);
        ChildPlan { together: team.together, ..plan }
    };
    Move::Do(Doing::Spawn(mind.facts.inputs.iter().map(plan).collect()))
}

/// All members share the task's background and the team's own, in this order, before anything private.
fn child(mind: &Mind, agent: &str, inputs: Vec<(String, Hash)>) -> ChildPlan {
    let own = mind.opening.iter().map(|(sealed, _)| sealed.hash);
    let background = mind.facts.background.iter().copied().chain(own).collect();
    ChildPlan { agent: agent.to_string(), inputs, background, tokens: None, priority: None, together: false }
}

/// The ledger has the children: write down which, and wait.
pub(crate) fn spawned(mind: &Mind, plan: &[ChildPlan], children: Vec<TaskUid>) -> Move {
    let (asked, given) = (plan.len(), children.len());
    if asked != given {
        let message = format!(
            "{asked} children were to be started and {given} were; cancel the task and create it again"
        );
        return Move::Trouble(Trouble::last("SPAWN_MISMATCH", message));
    }
    let stage = u8::try_from(mind.journal.stages.len()).unwrap_or(u8::MAX);
    let draft = mind.draft(Decision::Spawned { children, stage }, NextMove::WaitChildren);
    Move::Commit(Box::new(draft))
}

/// The children have said how they stand.
pub(crate) fn children(mind: &Mind, team: &TeamDefinition, outcomes: Vec<ChildOutcome>) -> Move {
    let Some(wanted) = mind.journal.stages.last() else { return Move::Nothing };
    let find = |uid: &TaskUid| outcomes.iter().find(|outcome| outcome.uid == *uid).ok_or(*uid);
    let found: Vec<&ChildOutcome> = match wanted.iter().map(find).collect() {
        Ok(found) => found,
        Err(uid) => return Move::Trouble(unknown_child(uid)),
    };
    if found.iter().any(|child| !child.state.is_final()) {
        return wait(mind);
    }
    let results: Option<Vec<(Hash, u64)>> = found.iter().map(|child| result(child)).collect();
    match results {
        None => Move::Trouble(failed_children(mind, &found)),
        Some(results) if mind.journal.stages.len() == 1 => merge(mind, team, &found, &results),
        Some(results) => finish(mind, &results),
    }
}

fn result(child: &ChildOutcome) -> Option<(Hash, u64)> {
    child.result.filter(|_| child.state == TaskState::Succeeded).map(|hash| (hash, child.result_bytes))
}

fn wait(mind: &Mind) -> Move {
    let stage = u8::try_from(mind.journal.stages.len().saturating_sub(1)).unwrap_or(u8::MAX);
    Move::Commit(Box::new(mind.draft(Decision::Waited { stage }, NextMove::WaitChildren)))
}

/// The second stage: one agent has every result as an input, under the name of the input it came from.
fn merge(mind: &Mind, team: &TeamDefinition, found: &[&ChildOutcome], results: &[(Hash, u64)]) -> Move {
    let names = mind.facts.inputs.iter().map(|(name, _)| name);
    let inputs = names.zip(found).zip(results).map(|((name, child), (hash, _))| {
        let name = if name.is_empty() { &child.result_name } else { name };
        (name.clone(), *hash)
    });
    let plan = child(mind, &team.then, inputs.collect());
    Move::Do(Doing::Spawn(vec![plan]))
}

fn finish(mind: &Mind, results: &[(Hash, u64)]) -> Move {
    let Some(&(result, bytes)) = results.first() else { return Move::Nothing };
    let decision = Decision::Finished { result, bytes, finish: None, call: 0, generated_tokens: 0 };
    let draft: Draft = mind.draft(decision, NextMove::Done { result, bytes });
    Move::Commit(Box::new(draft))
}

fn unknown_child(uid: TaskUid) -> Trouble {
    let message = format!(
        "child {uid} was started by this task and is not known now; look at it with `quorate task get {uid}` and resume this task"
    );
    Trouble { reason: "CHILD_UNKNOWN".to_string(), message, retriable: true }
}

/// Names every child without a result, and on what it worked.
fn failed_children(mind: &Mind, found: &[&ChildOutcome]) -> Trouble {
    let one = |(index, child): (usize, &&ChildOutcome)| {
        let input = mind.facts.inputs.get(index).filter(|_| mind.journal.stages.len() == 1);
        let on = input.map(|(name, _)| format!(" on {name:?}")).unwrap_or_default();
        let why = child.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        format!("{}{on}, {}, is {}{why}", child.agent, child.uid, child.state.name())
    };
    let bad: Vec<String> =
        found.iter().enumerate().filter(|(_, child)| result(child).is_none()).map(one).collect();
    let message = format!(
        "{} of {} children gave no result: {}; look at them with `quorate task get`, then create the task again",
        bad.len(),
        found.len(),
        bad.join("; ")
    );
    Trouble::last("CHILD_FAILED", message)
}
