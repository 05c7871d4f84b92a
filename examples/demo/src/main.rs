//! The main job, from one command: a team of agents reads documents on a real cluster with a real model, the worker
//! that runs the writer is killed in the middle of its answer, and another one finishes.
//!
//! Everything printed for people goes to stderr or above the last line; the last line on stdout is one JSON object.

mod documents;
mod report;
mod show;

use anyhow::Context;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Runs a team of agents over documents on a local cluster, and kills a worker on the way")]
struct Arguments {
    /// A text file, or a folder that is read recursively; empty: this repository's docs
    #[arg(long, default_value = "")]
    input: String,
    /// Where result.md is written
    #[arg(long, default_value = "demo-out")]
    output: PathBuf,
    /// Name of a pulled model
    #[arg(long, default_value = "smollm2")]
    model: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let input = match arguments.input.trim() {
        "" => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")),
        given => PathBuf::from(given),
    };
    let outcome = run(&input, &arguments).await;
    match &outcome {
        Ok(report) => println!("{}", report.json()),
        Err(error) => {
            eprintln!("demo failed: {error:#}");
            println!("{}", serde_json::json!({ "ok": false, "error": format!("{error:#}") }));
        }
    }
    if outcome.is_ok_and(|report| report.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(input: &std::path::Path, arguments: &Arguments) -> anyhow::Result<report::Report> {
    let binary = quorate_tests::cluster::binary()?;
    let tokenizer = show::tokenizer(&binary, &arguments.model)?;
    let documents = documents::collect(input, &tokenizer)?;
    report::print_documents(&documents);
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("making {}", arguments.output.display()))?;
    let report = show::run(&binary, &arguments.model, &documents).await?;
    let file = arguments.output.join("result.md");
    std::fs::write(&file, &report.result).with_context(|| format!("writing {}", file.display()))?;
    report.print_table(&file);
    Ok(report)
}
