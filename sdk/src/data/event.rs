//! What happens to a task, as it is watched.

use super::{TaskState, Usage};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// One event. Committed ones (`state`, `step`) carry a sequence above 0 and come exactly once; the others are live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub task: String,
    pub sequence: u64,
    pub at_ms: u64,
    pub kind: EventKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    State {
        state: TaskState,
        reason: String,
        node: Option<String>,
        epoch: Option<String>,
    },
    /// Step number `step` is committed; its text will not change any more.
    Step {
        step: u64,
        head: String,
        usage: Usage,
        /// Where the agent names several models: the one that was called.
        route: Option<StepRoute>,
    },
    /// New text of a step that is not committed yet. `offset` counts the step's tokens before this text.
    Token {
        step: u64,
        attempt: String,
        offset: u64,
        tokens: u32,
        text: String,
    },
    /// The text shown for this step and attempt was not committed: forget it.
    Retract {
        step: u64,
        attempt: String,
    },
    /// Events `first..=last` are no longer kept.
    Gap {
        first: u64,
        last: u64,
    },
}

/// Which of several models a step called, and a stable word for why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepRoute {
    pub model: String,
    pub reason: String,
}

impl EventKind {
    pub fn name(&self) -> &'static str {
        match self {
            EventKind::State { .. } => "state",
            EventKind::Step { .. } => "step",
            EventKind::Token { .. } => "token",
            EventKind::Retract { .. } => "retract",
            EventKind::Gap { .. } => "gap",
        }
    }
}

impl Event {
    /// The final state this event brings, if it brings one.
    pub fn final_state(&self) -> Option<TaskState> {
        match self.kind {
            EventKind::State { state, .. } if state.is_final() => Some(state),
            _ => None,
        }
    }
}

/// `task sequence kind at_ms`, then a field named as the kind: the state's name, the step's number, or an object.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("task", &self.task)?;
        map.serialize_entry("sequence", &self.sequence)?;
        map.serialize_entry("kind", self.kind.name())?;
        map.serialize_entry("at_ms", &self.at_ms)?;
        write_kind(&self.kind, &mut map)?;
        map.end()
    }
}

fn write_kind<M: SerializeMap>(kind: &EventKind, map: &mut M) -> Result<(), M::Error> {
    match kind {
        EventKind::State { state, reason, node, epoch } => {
            map.serialize_entry("state", state)?;
            map.serialize_entry("state_reason", reason)?;
            map.serialize_entry("node", node)?;
            map.serialize_entry("epoch", epoch)
        }
        EventKind::Step { step, head, usage, route } => {
            map.serialize_entry("step", step)?;
            map.serialize_entry("head", head)?;
            map.serialize_entry("usage", usage)?;
            route.as_ref().map_or(Ok(()), |route| map.serialize_entry("route", route))
        }
        EventKind::Token { step, attempt, offset, tokens, text } => map.serialize_entry(
            "token",
            &Token { step: *step, attempt, offset: *offset, tokens: *tokens, text },
        ),
        EventKind::Retract { step, attempt } => {
            map.serialize_entry("retract", &Retract { step: *step, attempt })
        }
        EventKind::Gap { first, last } => map.serialize_entry("gap", &Gap { first: *first, last: *last }),
    }
}

#[derive(Serialize)]
struct Token<'a> {
    step: u64,
    attempt: &'a str,
    offset: u64,
    text: &'a str,
    tokens: u32,
}

#[derive(Serialize)]
struct Retract<'a> {
    step: u64,
    attempt: &'a str,
}

#[derive(Serialize)]
struct Gap {
    first: u64,
    last: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(sequence: u64, kind: EventKind) -> String {
        serde_json::to_string(&Event { task: "t".into(), sequence, at_ms: 5, kind }).unwrap()
    }

    #[test]
    fn events_have_their_public_shape() {
        let state = EventKind::State {
            state: TaskState::Running,
            reason: "".into(),
            node: Some("n4".into()),
            epoch: Some("1.2.0".into()),
        };
        assert_eq!(
            json(2, state),
            r#"{"task":"t","sequence":2,"kind":"state","at_ms":5,"state":"RUNNING","state_reason":"","node":"n4","epoch":"1.2.0"}"#
        );
        let token =
            EventKind::Token { step: 1, attempt: "1.2.0".into(), offset: 16, tokens: 2, text: "a\n".into() };
        assert_eq!(
            json(0, token),
            r#"{"task":"t","sequence":0,"kind":"token","at_ms":5,"token":{"step":1,"attempt":"1.2.0","offset":16,"text":"a\n","tokens":2}}"#
        );
        assert_eq!(
            json(0, EventKind::Gap { first: 1, last: 3 }),
            r#"{"task":"t","sequence":0,"kind":"gap","at_ms":5,"gap":{"first":1,"last":3}}"#
        );
    }
}
