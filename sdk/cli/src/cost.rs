//! `cost report`.

use crate::failure::{Exit, Failure};
use crate::output::{Format, Out, table};
use crate::values::{self, When, usd};
use quorate_sdk::Client;
use quorate_sdk::data::{CostGroup, CostLine, CostReport};

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// What tasks used, summed; ended tasks are kept for 7 days
    Report(Report),
}

#[derive(clap::Args, Debug)]
pub struct Report {
    /// What the lines sum
    #[arg(long, value_enum, default_value_t = By::Project)]
    by: By,
    /// Tasks whose last step is younger than this, such as 7d, or than a time such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = values::when)]
    since: Option<When>,
    /// Only the project that --project names, not all of them
    #[arg(long)]
    only_project: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub(crate) enum By {
    Project,
    Agent,
    Model,
    Task,
    Day,
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let Command::Report(it) = command;
    let mut question = client.prices().cost(group(it.by));
    if let Some(since) = it.since {
        question = question.since_ms(since.ago_ms()?);
    }
    if it.only_project {
        question = question.project(client.project());
    }
    let report = question.send().await?;
    match out.format {
        Format::Csv => out.text(&csv(&report))?,
        Format::Table | Format::Json | Format::Jsonl => out.one(&report, report_table)?,
    }
    Ok(Exit::Ok)
}

fn group(by: By) -> CostGroup {
    match by {
        By::Project => CostGroup::Project,
        By::Agent => CostGroup::Agent,
        By::Model => CostGroup::Model,
        By::Task => CostGroup::Task,
        By::Day => CostGroup::Day,
    }
}

pub(crate) fn report_table(report: &CostReport) -> String {
    let row = |it: &CostLine| {
        let mut cells = vec![it.key.clone(), usd(it.usage.micro_usd)];
        cells.extend(counts(it).map(|count| count.to_string()));
        cells
    };
    let rows: Vec<_> = report.lines.iter().chain([&report.total]).map(row).collect();
    let head = [
        "KEY",
        "COST",
        "TASKS",
        "STEPS",
        "NEW TOKENS",
        "KNOWN",
        "PROMPT",
        "CACHED",
        "GENERATED",
        "KV BLOCK-S",
        "TOOL CALLS",
    ];
    table(&head, &rows)
}

fn counts(it: &CostLine) -> [u64; 9] {
    let usage = it.usage;
    [
        it.tasks,
        it.steps,
        it.new_tokens,
        it.known_tokens,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.generated_tokens,
        it.kv_block_seconds,
        it.tool_calls,
    ]
}

/// RFC 4180: one line each, the total last.
pub(crate) fn csv(report: &CostReport) -> String {
    let mut text =
        "key,micro_usd,tasks,steps,new_tokens,known_tokens,prompt_tokens,cached_tokens,generated_tokens,\
                    kv_block_seconds,tool_calls\r\n"
            .to_string();
    for line in report.lines.iter().chain([&report.total]) {
        let numbers = [line.usage.micro_usd].into_iter().chain(counts(line)).map(|number| number.to_string());
        let cells: Vec<String> = std::iter::once(quoted(&line.key)).chain(numbers).collect();
        text += &format!("{}\r\n", cells.join(","));
    }
    text
}

fn quoted(cell: &str) -> String {
    match cell.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cells_cannot_break_out() {
        assert_eq!(quoted("projects/a"), "projects/a");
        assert_eq!(quoted("a\",b\n"), "\"a\"\",b\n\"");
    }
}
