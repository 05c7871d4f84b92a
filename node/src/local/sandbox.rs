//! `sandbox check`: what this machine enforces on commands of agents, and what it can't.

use sandbox::{Layer, Level, Report, Sandbox};
use serde_json::json;

/// Call this first thing in `main`: the exit code where this process was started as a stage of a sandbox.
pub fn sandbox_stage() -> Option<std::process::ExitCode> {
    sandbox::stage(std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()))
}

/// Runs a command that does nothing. Fails only where no command can be run.
pub fn sandbox_check(json: bool) -> anyhow::Result<()> {
    let report = Sandbox::ours().probe();
    if json {
        say!("{}", as_json(&report));
    } else {
        report.layers.iter().for_each(|layer| say!("{}", row(layer)));
        say!("{:<20} {}", "level", report.level());
    }
    match (report.level(), report.broken) {
        (Level::Nothing, why) => anyhow::bail!(
            "no command can be run in a sandbox here: {}; agents with the tool `shell` need another node",
            why.unwrap_or_else(|| "no layer answered".into())
        ),
        _ => Ok(()),
    }
}

/// Says the same in the log, beside the start: nothing waits for it.
pub(super) fn log_what_holds() {
    std::thread::spawn(|| {
        let report = Sandbox::ours().probe();
        let missing: Vec<String> = report.missing().map(ToString::to_string).collect();
        let (level, missing) = (report.level().name(), missing.join("; "));
        match report.broken {
            Some(why) => tracing::warn!(level, why, "no command of an agent can be run on this machine"),
            None => tracing::info!(level, missing, "commands of agents run in a sandbox"),
        }
    });
}

fn row(layer: &Layer) -> String {
    let state = if layer.enforced { "enforced" } else { "NOT enforced" };
    format!("{:<20} {state:<13} {}", layer.name, layer.note)
}

fn as_json(report: &Report) -> serde_json::Value {
    let layer = |layer: &Layer| json!({ "name": layer.name, "enforced": layer.enforced, "note": layer.note });
    json!({
        "level": report.level().name(),
        "layers": report.layers.iter().map(layer).collect::<Vec<_>>(),
        "why": report.broken,
    })
}
