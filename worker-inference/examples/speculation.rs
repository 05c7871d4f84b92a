//! What guessing tokens brings on agents' sessions, measured on a real model:
//!
//! ```text
//! speculation MODEL FOLDER    miniswe sessions (`*.jsonl` with `input` and `output`)
//! ```
//!
//! Two things are measured. *Own*: the model answers the sessions' calls itself, greedily, 1, 2, 4 and 8 at a time, with
//! guesses and without, in turns; every token must be the same. *Recorded*: the answers that the sessions' own, far
//! larger model gave are guessed token by token, with the odds of the engine and what passes cost here: how much
//! quicker that model's words would come at this model's costs. `THREADS` (2), `CALLS` (8), `NEW` (96),
//! `PROMPT` (1500 tokens of each, from its end).

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use worker_inference::drafts::{Costs, Drafts, ROWS_MAX};
use worker_inference::{Engine, EngineConfig, Event, Request, SequenceId, Speculation};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SCOPE: [u8; 32] = [1; 32];

#[derive(Deserialize)]
struct Line {
    input: String,
    output: String,
}

struct Call {
    prompt: Vec<u32>,
    recorded: Vec<u32>,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder] = &arguments[..] else { return Err("give MODEL and FOLDER".into()) };
    let mut engines = [load(model, Speculation::Off)?, load(model, Speculation::Auto)?];
    let calls = calls(&engines[0], folder.as_ref())?;
    for together in [1, 2, 4, 8] {
        own(&mut engines, &calls, together)?;
    }
    recorded(&mut engines[0], &calls)
}

fn number(name: &str, default: usize) -> Outcome<usize> {
    Ok(std::env::var(name).ok().map_or(Ok(default), |text| text.parse())?)
}

fn load(model: &str, speculation: Speculation) -> Outcome<Engine> {
    let threads = number("THREADS", 2)?;
    let kv_bytes = 512 << 20;
    let config =
        EngineConfig { threads, kv_bytes, low_priority: false, speculation, ..EngineConfig::default() };
    Ok(Engine::load(model, config)?)
}

/// Calls from the middle of sessions, one of each session in turn.
fn calls(engine: &Engine, folder: &Path) -> Outcome<Vec<Call>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    files.sort_by_key(std::fs::DirEntry::path);
    let sessions = files.iter().map(|file| session(engine, &file.path())).collect::<Outcome<Vec<_>>>()?;
    let wanted = number("CALLS", 8)?;
    let longest = sessions.iter().map(Vec::len).max().unwrap_or(0);
    let mut turns: Vec<_> = sessions.into_iter().map(Vec::into_iter).collect();
    let calls = (0..longest).flat_map(|_| turns.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>());
    Ok(calls.take(wanted).collect())
}

fn session(engine: &Engine, file: &Path) -> Outcome<Vec<Call>> {
    let text = std::fs::read_to_string(file)?;
    let lines = text.lines().skip(3).take(4);
    lines.map(|line| call(engine, &serde_json::from_str(line)?)).collect()
}

fn call(engine: &Engine, line: &Line) -> Outcome<Call> {
    let text = engine.text();
    let most = number("PROMPT", 1500)?;
    // A token has seldom more than six characters; whole sessions take seconds to encode.
    let end = line.input.char_indices().rev().take(most * 6).last().map_or(0, |(at, _)| at);
    let mut prompt = text.tokenizer.encode(&line.input[end..], false)?;
    prompt.drain(..prompt.len().saturating_sub(most));
    Ok(Call { prompt, recorded: text.tokenizer.encode(&line.output, false)? })
}

/// The model's own answers: tokens a second without guesses and with them.
fn own(engines: &mut [Engine; 2], calls: &[Call], together: usize) -> Outcome<()> {
    let mut seconds = [0.0; 2];
    let mut tokens = 0;
    for group in calls.chunks(together).filter(|group| group.len() == together) {
        let mut answers = Vec::new();
        for (engine, seconds) in engines.iter_mut().zip(&mut seconds) {
            let (answer, spent) = answer(engine, group)?;
            *seconds += spent;
            answers.push(answer);
        }
        if answers[0] != answers[1] {
            return Err("an answer depends on guesses".into());
        }
        tokens += answers[0].iter().map(|answer| answer.len() - 1).sum::<usize>();
    }
    if tokens == 0 {
        return Ok(());
    }
    let rate = seconds.map(|seconds| tokens as f64 / seconds);
    let observed = engines[1].observe();
    println!(
        "own, {together} together: {:.1} tokens/s without, {:.1} with: {:.2} times; so far {} of {} guesses came true",
        rate[0],
        rate[1],
        rate[1] / rate[0],
        observed.tokens_accepted,
        observed.tokens_drafted
    );
    Ok(())
}

/// Answers calls together, from the step on in which the last of them has begun.
fn answer(engine: &mut Engine, calls: &[Call]) -> Outcome<(Vec<Vec<u32>>, f64)> {
    let max_new = number("NEW", 96)?;
    let ids = calls
        .iter()
        .map(|call| {
            let tokens = call.prompt.clone();
            engine.submit(Request {
                tokens,
                scope: SCOPE,
                max_new,
                min_new: max_new,
                ignore_eos: true,
                ..Request::default()
            })
        })
        .collect::<Result<Vec<SequenceId>, _>>()?;
    let mut answers = vec![Vec::new(); ids.len()];
    let mut began = None;
    while !engine.is_idle() {
        for event in engine.step() {
            if let Event::Token { id, token, .. } = event {
                answers[ids.iter().position(|other| *other == id).ok_or("a stranger")?].push(token);
            }
        }
        if began.is_none() && answers.iter().all(|answer| !answer.is_empty()) {
            began = Some(Instant::now());
        }
    }
    Ok((answers, began.ok_or("nothing was answered")?.elapsed().as_secs_f64()))
}

/// The recorded answers, guessed as the engine would: tokens a pass, and how much quicker they come.
fn recorded(engine: &mut Engine, calls: &[Call]) -> Outcome<()> {
    let (costs, seconds) = measure(engine, &calls[0].prompt)?;
    let table: Vec<String> = seconds.iter().map(|cost| format!("{:.2}", cost / seconds[0])).collect();
    println!("a pass over 1 to {ROWS_MAX} rows, in passes over 1: {}", table.join(" "));
    let mut drafts = Drafts::default();
    let (mut plain, mut guessed, mut tokens, mut passes) = (0.0, 0.0, 0, 0);
    for (number, call) in calls.iter().enumerate() {
        let id = SequenceId(number as u64);
        let whole = [&call.prompt[..], &call.recorded].concat();
        let mut at = call.prompt.len();
        while at < whole.len() {
            let draft = drafts.draft(id, &SCOPE, &whole[..at], (whole.len() - at - 1).min(ROWS_MAX - 1));
            let odds = drafts.odds(id).ok_or("just drafted")?;
            let chances = (0..draft.tokens.len()).map(|index| odds.chance(draft.matched + index));
            let tried = costs.worth(1, 1.0, chances).guesses;
            let pairs = draft.tokens[..tried].iter().zip(&whole[at..]);
            let accepted = pairs.take_while(|(one, other)| one == other).count();
            match tried {
                0 if draft.tokens.is_empty() => {}
                0 => odds.fade(draft.matched),
                _ => odds.learn(draft.matched, tried, accepted),
            }
            (passes, guessed) = (passes + 1, guessed + seconds[tried]);
            at += 1 + accepted;
        }
        tokens += call.recorded.len();
        plain += call.recorded.len() as f64 * seconds[0];
        drafts.end(id, &SCOPE, &whole, call.prompt.len());
    }
    println!(
        "recorded, alone: {tokens} tokens in {passes} passes ({:.2} a pass): {:.2} times as quick",
        tokens as f64 / f64::from(passes),
        plain / guessed
    );
    Ok(())
}

/// What passes over few rows cost behind a prompt: the least of several, so that neighbours count little.
fn measure(engine: &mut Engine, prompt: &[u32]) -> Outcome<(Costs, Vec<f64>)> {
    let (mut costs, mut seconds) = (Costs::default(), Vec::new());
    for rows in 1..=ROWS_MAX {
        let mut least = f64::INFINITY;
        for round in 0..12 {
            // The prompt's whole blocks are cached; its last rows run, and each tells its logits.
            let from = prompt.len() / 16 * 16 - 16;
            let mut tokens = prompt[..from].to_vec();
            tokens.extend((0..rows).map(|row| ((row * 977 + round * 131 + 1) % 40_000) as u32));
            let last = tokens.len() - 1;
            let scored: Vec<u32> = tokens.drain(from..=last).collect();
            let start = Instant::now();
            worker_inference::score(engine, SCOPE, &tokens, &scored)?;
            least = least.min(start.elapsed().as_secs_f64());
        }
        costs.learn(rows, std::time::Duration::from_secs_f64(least));
        seconds.push(least);
    }
    Ok((costs, seconds))
}
