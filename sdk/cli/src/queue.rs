//! `queue`: what waits, about in the order in which it will be looked at.

use crate::failure::{Exit, Failure};
use crate::output::{Out, table};
use crate::values::{self, now_ms};
use futures::TryStreamExt;
use quorate_sdk::data::Task;
use quorate_sdk::{Class, Client};
use std::cmp::Reverse;

#[derive(clap::Args, Debug)]
pub struct Queue {
    /// Only this class
    #[arg(long, value_parser = values::class)]
    class: Option<Class>,
}

pub(crate) async fn perform(it: Queue, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let class = it.class.map(|class| format!(" AND class={}", class.name())).unwrap_or_default();
    let filter = format!("state=PENDING{class}");
    let mut waiting: Vec<Task> =
        client.tasks().list().filter(filter).page_size(1000).all().try_collect().await?;
    waiting.sort_by_key(order);
    let now_ms = now_ms()?;
    out.many(&waiting, |tasks| queue_table(tasks, now_ms))?;
    Ok(Exit::Ok)
}

/// Urgent classes first, in a class by priority, then what was begun before, then age. The cluster itself counts how
/// long a task has waited against its class, too, and takes turns between projects.
fn order(task: &Task) -> (Class, Reverse<u32>, bool, u64) {
    (task.class, Reverse(task.priority), task.step == 0, task.create_time.0)
}

pub(crate) fn queue_table(tasks: &[Task], now_ms: u64) -> String {
    let row = |task: &Task| {
        vec![
            task.class.name().to_string(),
            task.priority.to_string(),
            task.id.clone(),
            task.agent.clone(),
            values::age(now_ms.saturating_sub(task.create_time.0)),
            task.step.to_string(),
            task.state_reason.clone(),
        ]
    };
    let rows: Vec<_> = tasks.iter().map(row).collect();
    table(&["CLASS", "PRIORITY", "ID", "AGENT", "AGE", "STEP", "REASON"], &rows)
}
