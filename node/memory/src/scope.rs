//! Whose memory it is, named as quotas are.

use std::fmt;

use types::{ProjectName, TaskUid, limits};

/// A memory of its own: nothing is found across two of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Every agent of the project reads and writes it.
    Project(ProjectName),
    /// One agent's, over all its tasks.
    Agent(ProjectName, String),
    /// One task tree's; it goes when the task is deleted.
    Task(TaskUid),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is no memory scope; use `projects/NAME`, `projects/NAME/agents/NAME` or `tasks/ID`")]
pub struct ScopeError {
    shown: String,
}

impl Scope {
    /// Reads `projects/P` (names may nest, `a/b`), `projects/P/agents/A` or `tasks/ID`.
    pub fn parse(text: &str) -> Result<Scope, ScopeError> {
        read(text).ok_or_else(|| ScopeError { shown: text.chars().take(80).collect() })
    }
}

fn read(text: &str) -> Option<Scope> {
    if let Some(uid) = text.strip_prefix("tasks/") {
        return TaskUid::parse(uid).ok().map(Scope::Task);
    }
    let rest = text.strip_prefix("projects/")?;
    match rest.rsplit_once("/agents/") {
        Some((project, agent)) => {
            let named = !agent.is_empty() && agent.len() <= limits::NAME_BYTES && !agent.contains('/');
            named.then_some(())?;
            Some(Scope::Agent(ProjectName::parse(project).ok()?, agent.to_string()))
        }
        None => ProjectName::parse(rest).ok().map(Scope::Project),
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Project(project) => write!(f, "projects/{project}"),
            Scope::Agent(project, agent) => write!(f, "projects/{project}/agents/{agent}"),
            Scope::Task(uid) => write!(f, "tasks/{uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_printed() {
        let task = format!("tasks/{}", TaskUid { index: 7, position: 1 });
        for text in ["projects/a", "projects/a/b", "projects/a/b/agents/Reader", &task] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        let long = format!("projects/a/agents/{}", "x".repeat(limits::NAME_BYTES + 1));
        for text in ["", "a", "projects/", "projects/A", "projects/a/agents/", "tasks/7", "agents/a", &long] {
            assert!(Scope::parse(text).is_err(), "{text:?}");
        }
    }
}
