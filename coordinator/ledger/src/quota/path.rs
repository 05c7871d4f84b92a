//! Places of the quota tree and what lies above what.
//!
//! Above a task: `cluster`, every prefix of its project, its agent, then the tasks it descends from and itself, as far
//! as limits were set there. Always in this order.

use crate::change::invalid;
use crate::reply::Refusal;
use crate::rows::TaskRow;
use crate::state::State;
use types::{ProjectName, TaskUid};

pub(crate) const CLUSTER: &str = "cluster";

/// `cluster`, then the project's prefixes from the shortest on.
pub(crate) fn ancestors(project: &ProjectName) -> Vec<String> {
    let name = project.as_str();
    let cuts = name.match_indices('/').map(|(cut, _)| cut).chain([name.len()]);
    std::iter::once(CLUSTER.to_string()).chain(cuts.map(|cut| format!("projects/{}", &name[..cut]))).collect()
}

pub(crate) fn of_project(project: &ProjectName) -> String {
    format!("projects/{project}")
}

pub(crate) fn of_agent(project: &ProjectName, agent: &str) -> String {
    format!("projects/{project}/agents/{agent}")
}

pub(crate) fn of_task(uid: TaskUid) -> String {
    format!("tasks/{uid}")
}

/// The place a path belongs to; `None` at the top. Tasks hang beside the tree: their limits only narrow.
pub(crate) fn parent(path: &str) -> Option<String> {
    let rest = path.strip_prefix("projects/")?;
    if let Some((project, _)) = rest.rsplit_once("/agents/") {
        return Some(format!("projects/{project}"));
    }
    Some(rest.rsplit_once('/').map_or(CLUSTER.to_string(), |(above, _)| format!("projects/{above}")))
}

/// What a path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    Cluster,
    Project(ProjectName),
    Agent(ProjectName, String),
    Task(TaskUid),
}

pub(crate) fn read(path: &str) -> Result<Spot, Refusal> {
    let shown: String = path.chars().take(80).collect();
    let wrong = |why: String| invalid("quota path", why);
    if path == CLUSTER {
        return Ok(Spot::Cluster);
    }
    if let Some(uid) = path.strip_prefix("tasks/") {
        return TaskUid::parse(uid).map(Spot::Task).map_err(|error| wrong(error.to_string()));
    }
    let Some(name) = path.strip_prefix("projects/") else {
        return Err(wrong(format!(
            "{shown:?} is none of `cluster`, `projects/NAME`, `projects/NAME/agents/NAME`, `tasks/ID`"
        )));
    };
    let project = |text: &str| ProjectName::parse(text).map_err(|error| wrong(error.to_string()));
    match name.rsplit_once("/agents/") {
        Some((above, agent)) if !agent.is_empty() => {
            crate::change::check_name("agent name", agent)?;
            Ok(Spot::Agent(project(above)?, agent.to_string()))
        }
        _ => Ok(Spot::Project(project(name)?)),
    }
}

impl State {
    /// Every place at which the task's use counts.
    pub(crate) fn places(&self, row: &TaskRow) -> Vec<String> {
        let mut places = ancestors(&row.project);
        // A model call without a task has no agent either.
        if self.counts_finely() && !row.agent.is_empty() {
            places.push(of_agent(&row.project, &row.agent));
        }
        places.extend(self.lineage(row).into_iter().map(of_task).filter(|path| self.quotas.contains(path)));
        places
    }

    /// The task and those it descends from, the oldest first.
    fn lineage(&self, row: &TaskRow) -> Vec<TaskUid> {
        let mut line = vec![row.uid];
        let mut above = row.origin;
        while let Some(origin) = above {
            line.push(origin.parent);
            above = self.task(origin.parent).and_then(|row| row.origin);
        }
        line.reverse();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> ProjectName {
        ProjectName::parse(name).unwrap()
    }

    #[test]
    fn paths_are_read_and_have_parents() {
        let uid = TaskUid { index: 7, position: 0 };
        assert_eq!(read("cluster"), Ok(Spot::Cluster));
        assert_eq!(read("projects/a/b"), Ok(Spot::Project(project("a/b"))));
        assert_eq!(read("projects/a/b/agents/Reader"), Ok(Spot::Agent(project("a/b"), "Reader".into())));
        assert_eq!(read(&of_task(uid)), Ok(Spot::Task(uid)));
        for wrong in ["", "projects/", "project/a", "tasks/7", "projects//agents/x", "projects/A"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        let chain: Vec<Option<String>> =
            ["projects/a/b/agents/x", "projects/a/b", "projects/a", "cluster", "tasks/t_1"]
                .map(parent)
                .into();
        let expected = [Some("projects/a/b"), Some("projects/a"), Some("cluster"), None, None];
        assert_eq!(chain, expected.map(|path| path.map(str::to_string)));
    }
}
