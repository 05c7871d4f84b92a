//! Agent sessions with their full text (`timestamp` in µs, `input`, `output`, and `session_id` where a file has
//! several): every line is one call to a model.
//!
//! The sessions start together and run beside each other. A call comes after the end of the one before it, later by
//! the trace's own gap between the two; with a chance of 5 % (seeded) the tool takes 10 to 120 s longer. The answer
//! is the recorded one, token by token. A session ends before its first call whose prompt and answer together don't
//! fit into the window: nobody's context is cut in the middle, as that would change what can be shared.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use serde::Deserialize;

use super::drive::{Answer, Call, Costs, Drive, Prompt, SCOPE, Setup, WAITING_MAX, naming};
use super::lines::each_line;
use super::seen::Seen;
use super::{ReplayError, Row};
use crate::blocks::BLOCK_TOKENS;
use crate::scheduler::Limits;
use crate::tokenizer::Tokenizer;

/// Of 100 gaps so many get a tail.
const TAIL_PERCENT: u64 = 5;
const TAIL_US: std::ops::RangeInclusive<u64> = 10_000_000..=120_000_000;

/// Names of what is replayed with and without tiers.
const POLICIES: [(&str, &str, bool); 3] =
    [("lru", "lru", false), ("ours", "ours", false), ("ours+hints", "ours", true)];

/// How text becomes tokens.
#[derive(Debug, Clone, Copy)]
pub enum Words<'a> {
    /// As the model would have it.
    Model(&'a Tokenizer),
    /// Without a model: every four bytes are a token. Real tokenizers make about as many of code.
    FourBytes,
}

/// How sessions are cut and spread.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Tokens of a call, answer included.
    pub window: usize,
    pub seed: u64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { window: 8192, seed: 1 }
    }
}

#[derive(Debug, Deserialize)]
struct Line {
    timestamp: u64,
    #[serde(default)]
    session_id: String,
    input: String,
    output: String,
}

struct Turn {
    at_us: u64,
    prompt: Vec<u32>,
    answer: Vec<u32>,
}

/// All sessions, cut to the window.
#[derive(Debug, Clone)]
pub struct Sessions {
    calls: Vec<Call>,
    first: BTreeSet<(u64, usize)>,
    window: usize,
    /// Whole blocks that the prompts have, each counted once.
    pub working_set: usize,
    /// Calls that did not fit into the window.
    pub cut: usize,
}

impl Sessions {
    /// Reads files of one call a line; their names are for errors.
    pub fn read<R: BufRead>(
        files: impl IntoIterator<Item = (String, R)>,
        words: Words<'_>,
        rules: Rules,
    ) -> Result<Sessions, ReplayError> {
        let mut turns: BTreeMap<(String, String), Vec<Turn>> = BTreeMap::new();
        for (name, from) in files {
            each_line(from, &name, |_, text| {
                let line: Line = serde_json::from_str(text).map_err(|cause| cause.to_string())?;
                let turn = turn(&line, words)?;
                turns.entry((name.clone(), line.session_id)).or_default().push(turn);
                Ok(())
            })?;
        }
        let sessions = Sessions::build(turns.into_values(), rules);
        if sessions.calls.is_empty() {
            return Err(ReplayError::Empty { what: "the folder or file, cut to the window,".to_owned() });
        }
        Ok(sessions)
    }

    fn build(all: impl Iterator<Item = Vec<Turn>>, rules: Rules) -> Sessions {
        let mut sessions = Sessions {
            calls: Vec::new(),
            first: BTreeSet::new(),
            window: rules.window,
            working_set: 0,
            cut: 0,
        };
        let mut random = rules.seed;
        let mut seen = Seen::default();
        for mut turns in all {
            turns.sort_by_key(|turn| turn.at_us);
            let fits = |turn: &Turn| turn.prompt.len() + turn.answer.len() <= rules.window;
            let kept = turns.iter().take_while(|turn| fits(turn)).count();
            sessions.cut += turns.len() - kept;
            turns.truncate(kept);
            for turn in &turns {
                seen.show(&naming(), &SCOPE, &turn.prompt);
            }
            sessions.add(turns, &mut random);
        }
        sessions.working_set = seen.blocks();
        sessions
    }

    fn add(&mut self, turns: Vec<Turn>, random: &mut u64) {
        let begin = self.calls.len();
        if !turns.is_empty() {
            self.first.insert((0, begin));
        }
        let times: Vec<u64> = turns.iter().map(|turn| turn.at_us).collect();
        let mut paused_us = None;
        for (index, turn) in turns.into_iter().enumerate() {
            let gap = times.get(index + 1).map(|next| next - turn.at_us);
            let pause_us = gap.map(|gap| gap.saturating_add(tail_us(random)));
            let (prompt, answer) = (Prompt::Given(turn.prompt), Answer::Given(turn.answer));
            let then = pause_us.map(|pause_us| (pause_us, begin + index + 1));
            self.calls.push(Call { prompt, answer, then, paused_us });
            paused_us = pause_us;
        }
    }

    /// Half of the working set, and enough for the largest call.
    pub fn half(&self) -> usize {
        let most = self.calls.iter().map(|call| match &call.prompt {
            Prompt::Given(tokens) => tokens.len() + call.answer.len(),
            Prompt::Unique(len) => *len,
        });
        (self.working_set / 2).max(most.max().unwrap_or(0).div_ceil(BLOCK_TOKENS))
    }

    /// Calls that are replayed.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Replays them with a pool of so many blocks, first with tiers below it that together hold all, then without:
    /// LRU, ours, and ours told what a runtime knows (a session waits for a tool, a session is over).
    pub fn replay(&self, blocks: usize, costs: Costs) -> Result<Vec<Row>, ReplayError> {
        costs.check()?;
        let tiers = [(blocks, 2 * self.working_set), (0, 0)];
        let all = tiers.into_iter().flat_map(|tiers| POLICIES.into_iter().map(move |policy| (tiers, policy)));
        all.map(|((host_blocks, disk_blocks), (label, policy, hints))| {
            let limits = self.limits();
            let setup = Setup { limits, costs, host_blocks, disk_blocks, hints };
            Drive::new(&self.calls, self.first.clone(), setup, super::pool(policy, blocks)?).run(label)
        })
        .collect()
    }

    fn limits(&self) -> Limits {
        Limits { step_tokens: 512, chunk_tokens: 256, running: 64, waiting: WAITING_MAX, window: self.window }
    }
}

fn turn(line: &Line, words: Words<'_>) -> Result<Turn, String> {
    let prompt = tokens(&line.input, words)?;
    if prompt.is_empty() {
        return Err("its input is empty".to_owned());
    }
    Ok(Turn { at_us: line.timestamp, prompt, answer: tokens(&line.output, words)? })
}

fn tokens(text: &str, words: Words<'_>) -> Result<Vec<u32>, String> {
    match words {
        Words::Model(tokenizer) => tokenizer.encode(text, false).map_err(|cause| cause.to_string()),
        Words::FourBytes => Ok(text.as_bytes().chunks(4).map(four_bytes).collect()),
    }
}

fn four_bytes(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |token, &byte| token << 8 | u32::from(byte))
}

/// A tail for one gap of twenty.
fn tail_us(random: &mut u64) -> u64 {
    if next(random) % 100 >= TAIL_PERCENT {
        return 0;
    }
    TAIL_US.start() + next(random) % (TAIL_US.end() - TAIL_US.start() + 1)
}

/// SplitMix64: the same numbers everywhere.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
