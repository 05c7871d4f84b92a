//! The page of results: tables, and bars that show what grows and what does not.

use super::{PlanRow, Row};
use crate::report::Report;
use ledger::rows::{Event, TaskRow};

const BAR: usize = 40;

/// In Markdown. `machine` is what the figures were measured on.
pub fn page(rows: &[Row], plans: &[PlanRow], machine: &str) -> anyhow::Result<String> {
    let mut text = format!(
        "# Growth of the ledger\n\n\
         `cargo run --release -p replay -- growth --write FILE`, on {machine}. Each line is a process of its own. \
         Bytes are resident memory by task; times of commands are medians of ten groups; plans are medians of nine.\n\n\
         {}\n",
        Report::of(rows)?.table()
    );
    text += &format!(
        "A task's row has {} bytes and an event {} before what they point to.\n\n",
        size_of::<TaskRow>(),
        size_of::<Event>()
    );
    text += &bars("Bytes by task, waiting", rows, |row| row.waiting_bytes as f64);
    text += &bars("Bytes by task, done", rows, |row| row.done_bytes as f64);
    text += &bars("Creation, p99, microseconds", rows, |row| row.create_p99_us);
    text += &bars("Lease, reservation, step, p99, microseconds", rows, |row| row.step_p99_us);
    text += &format!("## Planning\n\n{}", Report::of(plans)?.table());
    Ok(text)
}

fn bars(title: &str, rows: &[Row], of: impl Fn(&Row) -> f64) -> String {
    let most = rows.iter().map(&of).fold(1e-9, f64::max);
    let bar = |row: &Row| {
        let length = (of(row) / most * BAR as f64).round() as usize;
        format!("{:>9}  {:<BAR$}  {:.1}\n", row.tasks, "#".repeat(length), of(row))
    };
    format!("{title}\n\n```text\n{}```\n\n", rows.iter().map(bar).collect::<String>())
}
