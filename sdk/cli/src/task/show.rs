//! Tasks as people read them.

use crate::output::{fields, or_empty, printable, printable_lines, table};
use quorate_sdk::data::{Blocker, Explanation, NodeVerdict, RouteCandidate, RoutedStep, Task, Usage};

pub(crate) fn list_table(tasks: &[Task]) -> String {
    let row = |task: &Task| {
        vec![
            task.id.clone(),
            state(task),
            task.agent.clone(),
            or_empty(&task.node),
            task.step.to_string(),
            task.usage.prompt_tokens.to_string(),
            task.usage.cached_tokens.to_string(),
            task.usage.generated_tokens.to_string(),
            task.create_time.to_string(),
        ]
    };
    let rows: Vec<_> = tasks.iter().map(row).collect();
    table(&["ID", "STATE", "AGENT", "NODE", "STEP", "PROMPT", "CACHED", "GENERATED", "CREATED"], &rows)
}

pub(crate) fn in_full(task: &Task) -> String {
    let labels: Vec<String> = task.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let uid = if task.uid == task.id { String::new() } else { task.uid.clone() };
    let mut text = fields(&[
        ("id", task.id.clone()),
        ("uid", uid),
        ("project", task.project.clone()),
        ("agent", task.agent.clone()),
        ("revision", task.revision.clone()),
        ("labels", labels.join(" ")),
        ("state", state(task)),
        ("node", or_empty(&task.node)),
        ("epoch", or_empty(&task.epoch)),
        ("step", task.step.to_string()),
        ("sequence", task.sequence.to_string()),
        ("copies", task.copies.to_string()),
        ("class", format!("{}, priority {}", task.class.name(), task.priority)),
        ("usage", usage(&task.usage)),
        ("parent", or_empty(&task.parent)),
        ("children", task.children.join(" ")),
        ("created", task.create_time.to_string()),
        ("deadline", or_empty(&task.deadline_time)),
        ("ended", or_empty(&task.end_time)),
        ("error", or_empty(&task.error)),
    ]);
    if !task.pending.is_empty() {
        text += &format!("waits for:\n{}", blockers(&task.pending));
    }
    for ask in &task.asks {
        let about = if ask.tool.is_empty() { String::new() } else { format!(" {}", printable(&ask.tool)) };
        let said = ask.text.as_deref().map(printable_lines).unwrap_or_default();
        text += &format!("asks {} {}{about}: {said}\n", printable(&ask.id), ask.kind.name());
    }
    match (&task.result, &task.result_hash) {
        (Some(result), _) => text += &format!("\n{}\n", printable_lines(result)),
        (None, Some(hash)) => text += &format!("result: segment {hash}\n"),
        (None, None) => {}
    }
    text
}

fn state(task: &Task) -> String {
    match task.state_reason.as_str() {
        "" => task.state.name().to_string(),
        reason => format!("{} ({reason})", task.state.name()),
    }
}

pub(crate) fn usage(usage: &Usage) -> String {
    let paid =
        if usage.micro_usd > 0 { format!(", {} micro-dollars", usage.micro_usd) } else { String::new() };
    let Usage { prompt_tokens, cached_tokens, generated_tokens, .. } = usage;
    format!("{prompt_tokens} prompt tokens ({cached_tokens} cached), {generated_tokens} generated{paid}")
}

/// A row for each model of each step; the reason stands in the row of the one that was called.
pub(crate) fn routes_table(routes: &[RoutedStep]) -> String {
    let row = |step: &RoutedStep, it: &RouteCandidate| {
        let called = it.model == step.model;
        vec![
            step.step.to_string(),
            printable(&it.model),
            if called { printable(&step.reason) } else { String::new() },
            it.expected_micro_usd.to_string(),
            it.expected_ms.to_string(),
            printable(&it.verdict),
        ]
    };
    let rows: Vec<_> =
        routes.iter().flat_map(|step| step.candidates.iter().map(move |it| row(step, it))).collect();
    table(&["STEP", "MODEL", "CALLED", "MICRO_USD", "MS", "VERDICT"], &rows)
}

pub(crate) fn explanation(it: &Explanation) -> String {
    let mut text = format!("task {} is {}\n", crate::output::printable(&it.task.id), state(&it.task));
    if it.blockers.is_empty() {
        text += "nothing holds it back\n";
    } else {
        text += &format!("it waits until all of these are gone:\n{}", blockers(&it.blockers));
    }
    for blocker in it.blockers.iter().filter(|blocker| !blocker.borrowed_by.is_empty()) {
        let by = blocker.borrowed_by.iter().map(|it| format!("{} ({})", it.path, it.amount));
        let by: Vec<String> = by.collect();
        text += &printable_lines(&format!("{} is borrowed by {}\n", blocker.resource, by.join(", ")));
    }
    if let Some(position) = it.position {
        text += &format!("place in the queue: {position}, {} tasks ahead\n", it.tasks_ahead);
    }
    if let Some(wait_ms) = it.eta_ms {
        let (wait, error) = (seconds(wait_ms), seconds(it.eta_error_ms.unwrap_or(0)));
        text +=
            &format!("starts in about {wait}, give or take {error}, if tasks go on starting as they did\n");
    }
    if !it.nodes.is_empty() {
        text += &verdicts(&it.nodes);
    }
    text
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

fn blockers(blockers: &[Blocker]) -> String {
    let row = |it: &Blocker| {
        let [requested, available, limit] = [it.requested, it.available, it.limit].map(|n| n.to_string());
        vec![it.reason.clone(), it.resource.clone(), requested, available, limit, it.message.clone()]
    };
    let rows: Vec<_> = blockers.iter().map(row).collect();
    table(&["REASON", "RESOURCE", "REQUESTED", "AVAILABLE", "LIMIT", "MESSAGE"], &rows)
}

fn verdicts(nodes: &[NodeVerdict]) -> String {
    let row = |it: &NodeVerdict| {
        let eligible = if it.eligible { "yes" } else { "no" };
        vec![it.node.clone(), eligible.to_string(), it.reason.clone()]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    table(&["NODE", "ELIGIBLE", "WHY"], &rows)
}
