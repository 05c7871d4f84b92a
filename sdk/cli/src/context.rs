//! `context eval|suggest --task`: what of a live task's context mattered, computed by a node of the cluster.

use crate::failure::{self, Exit, Failure};
use crate::output::{Format, Out};
use quorate_sdk::Client;
use quorate_sdk::data::Evaluation;
use std::path::PathBuf;

/// What to evaluate. Parsed with the verbs of this machine, which evaluate files.
#[derive(Clone, Debug, Default)]
pub struct Evaluate {
    pub task: String,
    pub step: Option<u64>,
    pub team: bool,
    /// None: the task's own.
    pub model: Option<String>,
    pub budget_tokens: Option<u64>,
    pub audit_all: bool,
    /// Print what the calls could have done without, not what mattered.
    pub suggest: bool,
    pub html: Option<PathBuf>,
}

pub(crate) async fn evaluate(it: Evaluate, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let asked = client.context().evaluate(&it.task).step(it.step.unwrap_or(0));
    let asked = if it.team { asked.team() } else { asked };
    let asked = if it.audit_all { asked.audit_all() } else { asked };
    let asked = if it.suggest { asked.suggest() } else { asked };
    let mut asked = if it.html.is_some() { asked.page() } else { asked };
    if let Some(model) = it.model {
        asked = asked.model(model);
    }
    let found = asked.budget_tokens(it.budget_tokens.unwrap_or(0)).send().await?;
    if let Some(file) = it.html {
        std::fs::write(&file, &found.page).map_err(|error| {
            let what = format!("cannot write {}: {error}", file.display());
            failure::usage("NOT_WRITTEN", what, "name a file in a folder that is there")
        })?;
    }
    out.text(&said(&found, it.suggest, out.format))?;
    Ok(Exit::Ok)
}

/// The report byte for byte, or lines for people.
fn said(found: &Evaluation, suggest: bool, format: Format) -> String {
    let json = matches!(format, Format::Json | Format::Jsonl);
    match (suggest, json) {
        (false, true) => found.report.clone(),
        (true, true) => found.suggestions.iter().map(|line| format!("{line}\n")).collect(),
        (false, false) => {
            format!("{}\ncomputed by {} on {}\n", found.table, found.model, found.node)
        }
        (true, false) => found.suggested.clone(),
    }
}
