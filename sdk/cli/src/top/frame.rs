//! One look as lines of a screen. Pure: what was seen and the size of the screen in, lines out. No line obeys what a name
//! or a reason has in it, and none is wider than the screen.

use super::seen::{Near, Queue, Seen};
use crate::failure::Failure;
use crate::output::{bytes, printable};
use crate::values::age;
use quorate_sdk::Time;
use quorate_sdk::data::{Node, Task};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// How a line looks where the screen can show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Title,
    Head,
    Plain,
    Warning,
    Faint,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) look: Look,
    pub(super) text: String,
}

/// Rows of a part that are shown on any screen, and of all parts but the tasks at most.
const LEAST: usize = 3;
const MOST: usize = 12;

/// The frame as text without looks.
pub(super) fn text(seen: &Seen, trouble: Option<&Failure>, size: Size) -> String {
    lines(Some(seen), trouble, size).into_iter().map(|line| format!("{}\n", line.text.trim_end())).collect()
}

pub(super) fn lines(seen: Option<&Seen>, trouble: Option<&Failure>, size: Size) -> Vec<Line> {
    let mut frame = Vec::new();
    if let Some(seen) = seen {
        whole(seen, size, &mut frame);
    }
    if let Some(Failure::Error(error) | Failure::TaskFailed(error)) = trouble {
        frame.insert(0, line(Look::Warning, format!("not up to date: {}", error.message)));
    }
    frame.truncate(size.rows);
    frame.iter_mut().for_each(|line| line.text = cut(&line.text, size.columns));
    frame
}

fn whole(seen: &Seen, size: Size, frame: &mut Vec<Line>) {
    frame.extend(head(seen));
    let nodes: Vec<Vec<String>> = seen.nodes.iter().map(|it| node(it, seen)).collect();
    part(frame, &NODES, &nodes, MOST, "");
    let queue: Vec<Vec<String>> = seen.queue.iter().map(queue).collect();
    part(frame, &QUEUE, &queue, MOST, "");
    let near: Vec<Vec<String>> = seen.near.iter().map(near).collect();
    let stuck: Vec<Vec<String>> = seen.stuck.iter().map(|it| task(it, seen.at_ms)).collect();
    let after =
        [&near, &stuck].into_iter().filter(|rows| !rows.is_empty()).map(|rows| rows.len().min(MOST) + 3);
    let left = size.rows.saturating_sub(frame.len() + 4 + after.sum::<usize>()).max(LEAST);
    let running: Vec<Vec<String>> = seen.running.iter().map(|it| task(it, seen.at_ms)).collect();
    part(frame, &RUNNING, &running, left, "nothing runs");
    if !stuck.is_empty() {
        part(frame, &STUCK, &stuck, MOST, "");
    }
    if !near.is_empty() {
        part(frame, &NEAR, &near, MOST, "");
    }
}

fn head(seen: &Seen) -> Vec<Line> {
    let at = Time(seen.at_ms).to_string();
    let clock = at.get(11..19).unwrap_or_default();
    let Some(cluster) = &seen.cluster else {
        return vec![line(Look::Title, format!("quorate top   project {}   {clock} UTC", seen.project))];
    };
    let leader = cluster.leader.as_deref().unwrap_or("nobody");
    let title = format!(
        "quorate top   {leader} leads, term {}   {} voters   entry {}   project {}   {clock} UTC",
        cluster.term,
        cluster.voters.len(),
        cluster.applied_index,
        seen.project
    );
    let states = cluster.tasks_by_state.iter().filter(|(_, count)| **count > 0);
    let states: Vec<String> =
        states.map(|(state, count)| format!("{count} {}", state.to_lowercase().replace('_', " "))).collect();
    let tasks = if states.is_empty() { "no tasks".to_string() } else { states.join("   ") };
    let mut head = vec![line(Look::Title, title), line(Look::Plain, tasks)];
    head.extend(cluster.warnings.iter().map(|words| line(Look::Warning, words.clone())));
    head
}

/// A column's title and whether it is of numbers.
type Columns = [(&'static str, bool)];

const NODES: [(&str, bool); 8] = [
    ("NODE", false),
    ("STATE", false),
    ("ROLES", false),
    ("SLOTS", true),
    ("KV BLOCKS", true),
    ("TOKENS/S", true),
    ("MEMORY", true),
    ("CPU WAIT", true),
];

fn node(it: &Node, seen: &Seen) -> Vec<String> {
    let memory = it.device.memory_bytes.zip(it.device.memory_free_bytes);
    let kv = if it.kv.blocks > 0 { format!("{}/{}", it.kv.blocks_used, it.kv.blocks) } else { String::new() };
    vec![
        it.name.clone(),
        it.state.clone(),
        it.roles.join(","),
        if it.slots > 0 { format!("{}/{}", it.running, it.slots) } else { String::new() },
        kv,
        seen.tokens_second.get(&it.name).map(u64::to_string).unwrap_or_default(),
        memory
            .map(|(all, free)| format!("{}/{}", bytes(all.saturating_sub(free)), bytes(all)))
            .unwrap_or_default(),
        it.device.cpu_pressure_milli.map(|m| format!("{}.{} %", m / 10, m % 10)).unwrap_or_default(),
    ]
}

const QUEUE: [(&str, bool); 4] = [("QUEUE", false), ("WAITING", true), ("OLDEST", true), ("WHY", false)];

fn queue(it: &Queue) -> Vec<String> {
    let more = if it.more { "+" } else { "" };
    vec![
        it.class.to_string(),
        format!("{}{more}", it.waiting),
        it.oldest_ms.map(age).unwrap_or_default(),
        it.reason.clone(),
    ]
}

const TASK: [(&str, bool); 7] = [
    ("STATE", false),
    ("AGENT", false),
    ("NODE OR REASON", false),
    ("STEP", true),
    ("TOKENS", true),
    ("CACHED", true),
    ("AGE", true),
];
const RUNNING: [(&str, bool); 8] = task_columns("AT WORK");
const STUCK: [(&str, bool); 8] = task_columns("STANDS STILL");

const fn task_columns(title: &'static str) -> [(&'static str, bool); 8] {
    [(title, false), TASK[0], TASK[1], TASK[2], TASK[3], TASK[4], TASK[5], TASK[6]]
}

fn task(it: &Task, now_ms: u64) -> Vec<String> {
    let usage = &it.usage;
    vec![
        it.id.clone(),
        it.state.name().to_lowercase().replace('_', " "),
        it.agent.clone(),
        it.node.clone().unwrap_or_else(|| it.state_reason.clone()),
        it.step.to_string(),
        usage.prompt_tokens.saturating_add(usage.generated_tokens).to_string(),
        usage.cached_tokens.to_string(),
        age(now_ms.saturating_sub(it.create_time.0)),
    ]
}

const NEAR: [(&str, bool); 5] =
    [("NEAR THE LIMIT", false), ("KEY", false), ("", false), ("USED", true), ("LIMIT", true)];

fn near(it: &Near) -> Vec<String> {
    let used = it.limit.used.saturating_add(it.limit.reserved);
    let filled = (it.percent.min(100) / 10) as usize;
    let bar = format!("{}{} {} %", "#".repeat(filled), ".".repeat(10 - filled), it.percent);
    let limit = it.limit.limit.map(|limit| limit.to_string()).unwrap_or_default();
    vec![it.path.clone(), it.key.clone(), bar, used.to_string(), limit]
}

/// Names of people's making are cut here, so that one of them does not push the rest off the screen.
const CELL: usize = 32;

/// A table of as many rows as there is room for; says how many are not shown.
fn part(frame: &mut Vec<Line>, columns: &Columns, rows: &[Vec<String>], most: usize, none: &str) {
    let clean =
        |row: &Vec<String>| -> Vec<String> { row.iter().map(|cell| cut(&printable(cell), CELL)).collect() };
    let shown: Vec<Vec<String>> = rows.iter().take(most).map(clean).collect();
    let width = |at: usize| {
        let cells = shown.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([columns[at].0.len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    frame.push(line(Look::Plain, String::new()));
    let titles: Vec<String> = columns.iter().map(|(title, _)| title.to_string()).collect();
    frame.push(line(Look::Head, aligned(&titles, columns, &widths)));
    frame.extend(shown.iter().map(|row| line(Look::Plain, aligned(row, columns, &widths))));
    if rows.is_empty() && !none.is_empty() {
        frame.push(line(Look::Faint, none.to_string()));
    }
    if rows.len() > shown.len() {
        frame.push(line(Look::Faint, format!("and {} more", rows.len() - shown.len())));
    }
}

fn aligned(cells: &[String], columns: &Columns, widths: &[usize]) -> String {
    let cell = |((cell, (_, number)), width): ((&String, &(&str, bool)), &usize)| match number {
        true => format!("{cell:>width$}"),
        false => format!("{cell:<width$}"),
    };
    cells.iter().zip(columns).zip(widths).map(cell).collect::<Vec<_>>().join("  ")
}

fn line(look: Look, text: String) -> Line {
    Line { look, text: printable(&text) }
}

fn cut(text: &str, columns: usize) -> String {
    match text.char_indices().nth(columns) {
        Some(_) => text.chars().take(columns.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_wide_is_cut_and_says_so() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("äöüß", 4), "äöüß");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn a_part_says_what_it_leaves_out_and_obeys_no_name() {
        let mut frame = Vec::new();
        let rows = vec![vec!["a\u{1b}[2Jb".to_string(), "7".into(), "1s".into(), String::new()]; 5];
        part(&mut frame, &QUEUE, &rows, 2, "");
        let text: Vec<&str> = frame.iter().map(|line| line.text.trim_end()).collect();
        assert_eq!(
            text,
            [
                "",
                "QUEUE   WAITING  OLDEST  WHY",
                "a [2Jb        7      1s",
                "a [2Jb        7      1s",
                "and 3 more"
            ]
        );
        assert_eq!(frame[1].look, Look::Head);
    }
}
