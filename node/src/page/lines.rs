//! A project's tasks in short: as pages of a list, newest first, and as trees. Pure: rows in, lines out.

use crate::door::state_reason;
use ledger::rows::{TaskRow, Text};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use types::{Class, NodeId, TaskState, TaskUid};

/// Lines of one page, and the most that one may ask for.
const PAGE: usize = 100;
const PAGE_MOST: usize = 500;
/// Lines of one tree that are shown.
const TREE: usize = 1000;

/// What a list knows of a task.
pub(crate) struct Line {
    pub(crate) uid: TaskUid,
    pub(crate) id: Box<str>,
    pub(crate) agent: Text,
    pub(crate) class: Class,
    pub(crate) priority: u8,
    pub(crate) state: TaskState,
    pub(crate) reason: Text,
    pub(crate) node: Option<NodeId>,
    pub(crate) step: u64,
    pub(crate) tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) micro_usd: u64,
    pub(crate) created_ms: u64,
    pub(crate) ended_ms: u64,
    pub(crate) parent: Option<TaskUid>,
    pub(crate) children: u32,
    labels: Vec<String>,
}

impl Line {
    fn of(row: &TaskRow) -> Line {
        Line {
            uid: row.uid,
            id: row.task_id.clone().unwrap_or_else(|| row.uid.to_string().into()),
            agent: row.agent.clone(),
            class: row.class,
            priority: row.priority,
            state: row.state,
            reason: row.reason.clone(),
            node: row.node,
            step: row.step,
            tokens: row.spent.prompt_tokens + row.spent.generated_tokens,
            cached_tokens: row.spent.cached_tokens,
            micro_usd: row.spent.micro_usd,
            created_ms: row.created_ms,
            ended_ms: row.ended_ms,
            parent: row.origin.map(|origin| origin.parent),
            children: row.children.len() as u32,
            labels: row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        }
    }

    pub(crate) fn reason(&self) -> String {
        state_reason(self.state, &self.reason)
    }

    fn says(&self, word: &str) -> bool {
        let has = |text: &str| text.to_lowercase().contains(word);
        has(&self.id) || has(&self.agent) || self.labels.iter().any(|label| has(label)) || {
            word.starts_with("t_") && self.uid.to_string().contains(word)
        }
    }
}

/// Every task of a project, newest first.
pub(crate) struct Digest {
    lines: Vec<Line>,
    by_state: BTreeMap<&'static str, usize>,
    by_uid: HashMap<TaskUid, usize>,
}

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Words that all have to be in the id, the agent or a label.
    pub(crate) text: String,
    /// A state, `open` for all that are not over, or nothing.
    pub(crate) state: String,
    /// Only those that no task started.
    pub(crate) roots: bool,
    pub(crate) order: Order,
    /// Counts from 0.
    pub(crate) page: usize,
    pub(crate) size: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    #[default]
    Newest,
    Oldest,
    Tokens,
    Cost,
    Steps,
}

/// One page, and how many lines there are in all.
pub(crate) struct View<'a> {
    pub(crate) lines: Vec<&'a Line>,
    pub(crate) matched: usize,
}

/// A line and how deep it stands.
#[derive(Clone, Copy)]
pub(crate) struct Leaf<'a> {
    pub(crate) depth: u32,
    pub(crate) line: &'a Line,
}

/// How many tasks are in which state.
#[derive(Serialize)]
pub(crate) struct Counts<'a> {
    pub(crate) all: usize,
    pub(crate) by_state: &'a BTreeMap<&'static str, usize>,
}

impl Digest {
    /// Rows come oldest first.
    pub(crate) fn of(rows: &[TaskRow]) -> Digest {
        let lines: Vec<Line> = rows.iter().rev().map(Line::of).collect();
        let mut by_state = BTreeMap::new();
        lines.iter().for_each(|line| *by_state.entry(line.state.name()).or_default() += 1);
        let by_uid = lines.iter().enumerate().map(|(at, line)| (line.uid, at)).collect();
        Digest { lines, by_state, by_uid }
    }

    pub(crate) fn counts(&self) -> Counts<'_> {
        Counts { all: self.lines.len(), by_state: &self.by_state }
    }

    pub(crate) fn view(&self, wanted: &Wanted) -> View<'_> {
        let words: Vec<String> = wanted.text.split_whitespace().map(str::to_lowercase).collect();
        let takes = |line: &&Line| {
            in_state(line.state, &wanted.state)
                && !(wanted.roots && line.parent.is_some())
                && words.iter().all(|word| line.says(word))
        };
        let mut found: Vec<&Line> = self.lines.iter().filter(takes).collect();
        order(&mut found, wanted.order);
        let matched = found.len();
        let size = if wanted.size == 0 { PAGE } else { wanted.size.min(PAGE_MOST) };
        let lines = found.into_iter().skip(wanted.page.saturating_mul(size)).take(size).collect();
        View { lines, matched }
    }

    /// The whole tree that a task stands in, from its root down, children in the order in which they were started.
    pub(crate) fn tree(&self, id: &str) -> Vec<Leaf<'_>> {
        let Some(mut root) = self.find(id) else { return Vec::new() };
        while let Some(parent) = root.parent.and_then(|uid| self.line(uid)) {
            root = parent;
        }
        let mut below: HashMap<TaskUid, Vec<&Line>> = HashMap::new();
        let children = self.lines.iter().filter_map(|line| Some((line.parent?, line)));
        children.for_each(|(parent, line)| below.entry(parent).or_default().push(line));
        // Lines are newest first, so that the oldest child is on top of the stack.
        let (mut stack, mut tree) = (vec![Leaf { depth: 0, line: root }], Vec::new());
        while let Some(leaf) = stack.pop() {
            tree.push(leaf);
            let children = below.get(&leaf.line.uid).into_iter().flatten();
            stack.extend(children.map(|line| Leaf { depth: leaf.depth + 1, line }));
            if tree.len() == TREE {
                break;
            }
        }
        tree
    }

    /// Those that wait for a place, about in the order in which they will be looked at.
    pub(crate) fn queue(&self) -> Vec<&Line> {
        let mut queue: Vec<&Line> =
            self.lines.iter().filter(|line| line.state == TaskState::Pending).collect();
        queue.sort_by_key(|line| {
            (line.class, std::cmp::Reverse(line.priority), line.step == 0, line.created_ms, line.uid)
        });
        queue
    }

    /// Those that stand still until somebody does something, oldest first.
    pub(crate) fn stuck(&self) -> Vec<&Line> {
        let stands = |state| matches!(state, TaskState::Paused(_) | TaskState::WaitingInput);
        self.lines.iter().rev().filter(|line| stands(line.state)).collect()
    }

    fn find(&self, id: &str) -> Option<&Line> {
        let uid = TaskUid::parse(id).ok().and_then(|uid| self.line(uid));
        uid.or_else(|| self.lines.iter().find(|line| *line.id == *id))
    }

    fn line(&self, uid: TaskUid) -> Option<&Line> {
        self.by_uid.get(&uid).map(|at| &self.lines[*at])
    }
}

fn in_state(state: TaskState, wanted: &str) -> bool {
    match wanted {
        "" => true,
        "open" => !state.is_final(),
        name => state.name() == name,
    }
}

fn order(lines: &mut [&Line], order: Order) {
    let most = std::cmp::Reverse::<u64>;
    match order {
        Order::Newest => {}
        Order::Oldest => lines.reverse(),
        Order::Tokens => lines.sort_by_key(|line| most(line.tokens)),
        Order::Cost => lines.sort_by_key(|line| most(line.micro_usd)),
        Order::Steps => lines.sort_by_key(|line| most(line.step)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::rows::Origin;

    fn row(index: u64, id: &str, state: TaskState, parent: Option<u64>) -> TaskRow {
        let uid = |index| TaskUid { index, position: 0 };
        let mut row = TaskRow::empty();
        row.uid = uid(index);
        row.task_id = Some(id.into());
        row.agent = "reader".into();
        row.state = state;
        row.spent.generated_tokens = 100 - index;
        row.rare.origin = parent.map(|parent| Origin { parent: uid(parent), step: 1, index: 0 });
        row
    }

    fn family() -> Digest {
        Digest::of(&[
            row(1, "team", TaskState::WaitingChild, None),
            row(2, "first", TaskState::Succeeded, Some(1)),
            row(3, "second", TaskState::Running, Some(1)),
            row(4, "below-first", TaskState::Pending, Some(2)),
            row(5, "alone", TaskState::Pending, None),
        ])
    }

    fn ids(view: &View<'_>) -> Vec<String> {
        view.lines.iter().map(|line| line.id.to_string()).collect()
    }

    #[test]
    fn lists_are_newest_first_filtered_and_cut_into_pages() {
        let digest = family();
        let of = |text: &str, state: &str, roots| {
            ids(&digest.view(&Wanted { text: text.into(), state: state.into(), roots, ..Wanted::default() }))
        };
        assert_eq!(of("", "", false), ["alone", "below-first", "second", "first", "team"]);
        assert_eq!(of("", "open", true), ["alone", "team"]);
        assert_eq!(of("FIRST reader", "", false), ["below-first", "first"]);
        assert_eq!(of("", "RUNNING", false), ["second"]);
        assert_eq!(of("nobody", "", false), Vec::<String>::new());
        let page = digest.view(&Wanted { size: 2, page: 1, ..Wanted::default() });
        assert_eq!((ids(&page), page.matched), (vec!["second".into(), "first".into()], 5));
        let most = digest.view(&Wanted { order: Order::Tokens, size: 1, ..Wanted::default() });
        assert_eq!(ids(&most), ["team"]);
        assert!(digest.view(&Wanted { page: usize::MAX, ..Wanted::default() }).lines.is_empty());
    }

    #[test]
    fn a_tree_is_shown_whole_from_any_of_its_tasks() {
        let digest = family();
        let shown = |id: &str| -> Vec<(u32, String)> {
            digest.tree(id).iter().map(|leaf| (leaf.depth, leaf.line.id.to_string())).collect()
        };
        let whole = [(0, "team"), (1, "first"), (2, "below-first"), (1, "second")];
        assert_eq!(shown("below-first"), whole.map(|(depth, id)| (depth, id.to_string())));
        assert_eq!(shown("team"), shown("second"));
        assert_eq!(shown("alone").len(), 1);
        assert!(shown("nobody").is_empty());
    }

    #[test]
    fn the_queue_goes_by_class_then_priority_then_age() {
        let mut rows: Vec<TaskRow> =
            (1..=4).map(|n| row(n, &format!("q{n}"), TaskState::Pending, None)).collect();
        rows[1].class = Class::System;
        rows[3].priority = 9;
        let digest = Digest::of(&rows);
        let order: Vec<&str> = digest.queue().iter().map(|line| &*line.id).collect();
        assert_eq!(order, ["q2", "q4", "q1", "q3"]);
        assert!(digest.stuck().is_empty());
    }
}
