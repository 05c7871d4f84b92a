//! The filter of task lists: terms joined by ` AND `, such as `state=RUNNING AND label.team=vision`.

use crate::rows::TaskRow;
use types::{Class, TaskState, TaskUid};

const ALLOWED: &str = "terms are state=, agent=, class=, parent=, reason= and label.KEY=, joined by ` AND `; an empty filter takes all";
/// Far more terms than there are fields and labels.
const TERMS: usize = 32;
const STATES: [TaskState; 11] = [
    TaskState::Pending,
    TaskState::Running,
    TaskState::WaitingTool,
    TaskState::WaitingChild,
    TaskState::WaitingInput,
    TaskState::Paused(types::PauseReason::User),
    TaskState::Cancelling,
    TaskState::Succeeded,
    TaskState::Failed,
    TaskState::Cancelled,
    TaskState::Expired,
];

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter(Vec<Term>);

#[derive(Debug, PartialEq, Eq)]
enum Term {
    State(&'static str),
    Agent(String),
    Class(Class),
    Parent(TaskUid),
    Reason(String),
    Label(String, String),
}

impl Filter {
    /// The error says what was not understood and what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Filter, String> {
        if text.trim().is_empty() {
            return Ok(Filter(Vec::new()));
        }
        let terms: Vec<&str> = text.split(" AND ").collect();
        if terms.len() > TERMS {
            return Err(format!("the filter has {} terms, at most {TERMS} are allowed", terms.len()));
        }
        terms.into_iter().map(|term| parse_term(term.trim())).collect::<Result<_, _>>().map(Filter)
    }

    pub(crate) fn takes(&self, row: &TaskRow) -> bool {
        self.0.iter().all(|term| term.takes(row))
    }
}

fn parse_term(text: &str) -> Result<Term, String> {
    let shown: String = text.chars().take(80).collect();
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{shown:?} has no `=`; {ALLOWED}"))?;
    match key {
        "state" => {
            STATES.iter().map(|state| state.name()).find(|name| *name == value).map(Term::State).ok_or_else(
                || format!("{shown:?} names no state; use one of {}", STATES.map(TaskState::name).join(", ")),
            )
        }
        "agent" => Ok(Term::Agent(value.to_string())),
        "class" => Class::parse(value).map(Term::Class).ok_or_else(|| {
            format!("{shown:?} names no class; use one of {}", Class::ALL.map(Class::name).join(", "))
        }),
        "parent" => TaskUid::parse(value).map(Term::Parent).map_err(|error| format!("in {shown:?}: {error}")),
        "reason" => Ok(Term::Reason(value.to_string())),
        _ => match key.strip_prefix("label.") {
            Some(label) if !label.is_empty() => Ok(Term::Label(label.to_string(), value.to_string())),
            Some(_) | None => Err(format!("{shown:?} is not understood; {ALLOWED}")),
        },
    }
}

impl Term {
    fn takes(&self, row: &TaskRow) -> bool {
        match self {
            Term::State(name) => row.state.name() == *name,
            Term::Agent(name) => row.agent == *name,
            Term::Class(class) => row.class == *class,
            Term::Parent(uid) => row.origin.is_some_and(|origin| origin.parent == *uid),
            Term::Reason(reason) => row.reason == *reason,
            Term::Label(key, value) => row.labels.iter().any(|(k, v)| **k == **key && **v == **value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_and_mistakes_are_explained() {
        let filter = Filter::parse("state=RUNNING AND label.team=x=y AND class=batch").unwrap();
        assert_eq!(
            filter.0,
            [Term::State("RUNNING"), Term::Label("team".into(), "x=y".into()), Term::Class(Class::Batch)]
        );
        assert_eq!(Filter::parse("  "), Ok(Filter(vec![])));
        for (bad, hint) in [
            ("stat=RUNNING", "label.KEY="),
            ("state=running", "PENDING"),
            ("RUNNING", "no `=`"),
            ("class=fast", "best-effort"),
            ("parent=x", "task id"),
            ("label.=x", "label.KEY="),
        ] {
            let error = Filter::parse(bad).unwrap_err();
            assert!(error.contains(hint), "{bad}: {error}");
        }
        assert!(Filter::parse(&vec!["agent=a"; 33].join(" AND ")).is_err());
    }
}
