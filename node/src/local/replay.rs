//! `engine replay`: recorded traffic through the engine's own decisions, in virtual time.

use super::model_path;
use anyhow::Context;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use worker_inference::Tokenizer;
use worker_inference::model::gguf::Gguf;
use worker_inference::replay::miniswe::{Rules, Sessions, Words};
use worker_inference::replay::{Costs, Row, azure, mooncake};

/// The form of a trace.
#[derive(Clone, Copy)]
pub enum TraceFormat {
    Mooncake,
    Azure,
    Miniswe,
}

pub struct ReplayOptions {
    pub format: TraceFormat,
    /// A file; for sessions also a folder of `.jsonl` files.
    pub trace: PathBuf,
    /// Pool sizes, in blocks; none: the format's own choice.
    pub blocks: Vec<usize>,
    /// Whose tokenizer is used for text.
    pub model: Option<String>,
    pub rules: Rules,
    pub costs: Costs,
    pub json: bool,
}

/// Pools of Mooncake's trace, in its blocks of 512 tokens.
const MOONCAKE_BLOCKS: [usize; 1] = [5_000];

/// Prints one row for every policy and pool size.
pub fn engine_replay(options: ReplayOptions) -> anyhow::Result<()> {
    let rows = match options.format {
        TraceFormat::Mooncake => replay_mooncake(&options)?,
        TraceFormat::Azure => replay_azure(&options)?,
        TraceFormat::Miniswe => replay_miniswe(&options)?,
    };
    if options.json {
        say!("{}", serde_json::to_string(&rows)?);
    } else {
        print!("{}", table(&rows));
    }
    Ok(())
}

fn replay_mooncake(options: &ReplayOptions) -> anyhow::Result<Vec<Row>> {
    let trace = mooncake::Trace::read(open(&options.trace)?, &name(&options.trace))?;
    let blocks = if options.blocks.is_empty() { &MOONCAKE_BLOCKS[..] } else { &options.blocks[..] };
    each(blocks, |blocks| Ok(trace.replay(blocks)?))
}

fn replay_azure(options: &ReplayOptions) -> anyhow::Result<Vec<Row>> {
    let trace = azure::Trace::read(open(&options.trace)?, &name(&options.trace))?;
    let own = [trace.blocks()];
    let blocks = if options.blocks.is_empty() { &own[..] } else { &options.blocks[..] };
    each(blocks, |blocks| Ok(trace.replay(blocks, options.costs)?))
}

fn replay_miniswe(options: &ReplayOptions) -> anyhow::Result<Vec<Row>> {
    let tokenizer = options.model.as_deref().map(tokenizer).transpose()?;
    let words = tokenizer.as_ref().map_or(Words::FourBytes, Words::Model);
    let files = files(&options.trace)?
        .into_iter()
        .map(|path| -> anyhow::Result<_> { Ok((name(&path), open(&path)?)) });
    let sessions = Sessions::read(files.collect::<anyhow::Result<Vec<_>>>()?, words, options.rules)?;
    if !options.json {
        say!("{}", told(&sessions, options));
    }
    let own = [sessions.half()];
    let blocks = if options.blocks.is_empty() { &own[..] } else { &options.blocks[..] };
    each(blocks, |blocks| Ok(sessions.replay(blocks, options.costs)?))
}

fn each(blocks: &[usize], replay: impl Fn(usize) -> anyhow::Result<Vec<Row>>) -> anyhow::Result<Vec<Row>> {
    let rows: Vec<Vec<Row>> = blocks.iter().map(|&blocks| replay(blocks)).collect::<anyhow::Result<_>>()?;
    Ok(rows.into_iter().flatten().collect())
}

/// The rules that the figures depend on.
fn told(sessions: &Sessions, options: &ReplayOptions) -> String {
    let words = match &options.model {
        Some(model) => format!("the tokenizer of {model}"),
        None => "four bytes a token (give -m for a model's tokenizer)".to_owned(),
    };
    format!(
        "{} calls, {} cut because they don't fit into {} tokens; {words}; working set {} blocks of 16 tokens",
        sessions.calls(),
        sessions.cut,
        options.rules.window,
        sessions.working_set
    )
}

fn tokenizer(model: &str) -> anyhow::Result<Tokenizer> {
    let path = model_path(model)?;
    let bytes = std::fs::read(&path).with_context(|| format!("reading the model {}", path.display()))?;
    let gguf = Gguf::parse(&bytes).with_context(|| format!("{} is not a usable model", path.display()))?;
    Ok(Tokenizer::from_gguf(&gguf)?)
}

/// A file as it is; of a folder its `.jsonl` files by name.
fn files(trace: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !trace.is_dir() {
        return Ok(vec![trace.to_path_buf()]);
    }
    let reading = || format!("reading the folder {}", trace.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(trace).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    anyhow::ensure!(!files.is_empty(), "{} has no .jsonl files; is it the right folder?", trace.display());
    files.sort();
    Ok(files)
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path)
        .with_context(|| format!("opening the trace {}: give an existing file", path.display()))?;
    Ok(BufReader::new(file))
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<12} {:>8} {:<9} {:>6} {:>12} {:>12} {:>8} {:>9} {:>13} {:>20}\n",
        "POLICY",
        "BLOCKS",
        "TIERS",
        "HIT",
        "REPREFILLED",
        "NEW",
        "COMP/NEW",
        "EVICTIONS",
        "RESTORED",
        "WAIT p50/p95/max s"
    );
    rows.iter().for_each(|row| text.push_str(&line(row)));
    text
}

fn line(row: &Row) -> String {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let waits = row.waits.map_or_else(
        || "-".to_owned(),
        |waits| {
            let (p50, p95, max) = (seconds(waits.p50_ms), seconds(waits.p95_ms), seconds(waits.max_ms));
            format!("{p50:.1}/{p95:.1}/{max:.1}")
        },
    );
    format!(
        "{:<12} {:>8} {:<9} {:>6.4} {:>12} {:>12} {:>8.3} {:>9} {:>13} {:>20}\n",
        row.policy,
        row.blocks,
        row.tiers,
        row.hit,
        row.reprefilled,
        row.new,
        row.computed_per_new,
        row.evictions,
        row.restored_bytes,
        waits
    )
}
