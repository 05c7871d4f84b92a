//! What a bench measures: its rows, and the room that they need. Decides, and measures nothing.

use worker_inference::blocks::BLOCK_TOKENS;
use worker_inference::{EngineConfig, Speculation};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    pub model: String,
    /// Tokens of prompts; 0 is left out.
    pub prompt: Vec<usize>,
    /// Tokens of each answer; 0 is left out.
    pub generate: Vec<usize>,
    /// Tokens that come before what is measured.
    pub depth: Vec<usize>,
    /// Sequences that are answered at the same time.
    pub parallel: Vec<usize>,
    /// 0: all cores that this process may use.
    pub threads: usize,
    pub repeats: usize,
    pub form: Form,
}

/// How the rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Table,
    /// A list of objects.
    Json,
    /// An object a line, each as soon as it is known.
    Lines,
}

/// One line of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// A prompt behind `depth` tokens, alone.
    Prefill { prompt: usize, depth: usize },
    /// `parallel` answers together, each behind its own `depth` tokens.
    Decode { generate: usize, depth: usize, parallel: usize },
}

/// Every combination, prompts first.
pub(super) fn rows(options: &BenchOptions) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &depth in &options.depth {
        let prompts = options.prompt.iter().filter(|&&prompt| prompt > 0);
        rows.extend(prompts.map(|&prompt| Row::Prefill { prompt, depth }));
        for &generate in options.generate.iter().filter(|&&generate| generate > 0) {
            rows.extend(options.parallel.iter().map(|&parallel| Row::Decode { generate, depth, parallel }));
        }
    }
    anyhow::ensure!(
        !rows.is_empty(),
        "-p and -n are both 0: nothing is left to measure; give one of them a number"
    );
    Ok(rows)
}

impl Row {
    pub(super) fn parallel(self) -> usize {
        match self {
            Row::Prefill { .. } => 1,
            Row::Decode { parallel, .. } => parallel,
        }
    }

    pub(super) fn depth(self) -> usize {
        match self {
            Row::Prefill { depth, .. } | Row::Decode { depth, .. } => depth,
        }
    }

    /// Tokens of the longest sequence: context, what is measured, and the token at each end of it.
    pub(super) fn sequence_tokens(self) -> usize {
        match self {
            Row::Prefill { prompt, depth } => depth + prompt + 1,
            Row::Decode { generate, depth, .. } => depth + generate + 2,
        }
    }

    /// KV blocks for the contexts, which stay, and for what every repetition adds to them. Each of these is found in
    /// no cache, so that all of them take room.
    pub(super) fn blocks(self, repeats: usize) -> usize {
        let whole = self.depth() / BLOCK_TOKENS;
        let added = (self.sequence_tokens() - whole * BLOCK_TOKENS).div_ceil(BLOCK_TOKENS);
        let context = self.depth().div_ceil(BLOCK_TOKENS) + 1;
        // One more repetition than asked for, as the first is not counted.
        self.parallel() * (context + added * (repeats + 1))
    }

    pub(super) fn name(self) -> String {
        let behind = |depth| if depth > 0 { format!(" behind {depth}") } else { String::new() };
        match self {
            Row::Prefill { prompt, depth } => format!("prompt of {prompt}{}", behind(depth)),
            Row::Decode { generate, depth, parallel } => {
                format!("answers of {generate}{}, {parallel} together", behind(depth))
            }
        }
    }
}

/// Settings with room for every row, given the bytes of one block. At normal priority, so that another engine that is
/// measured beside gets no more of the machine.
pub(super) fn settings(options: &BenchOptions, rows: &[Row], block_bytes: usize) -> EngineConfig {
    let usual = EngineConfig::default();
    let blocks = rows.iter().map(|row| row.blocks(options.repeats)).max().unwrap_or(0);
    let parallel = rows.iter().map(|row| row.parallel()).max().unwrap_or(1);
    let running = usual.running.max(parallel);
    EngineConfig {
        isa: std::env::var("QUORATE_KERNELS").ok(),
        threads: options.threads,
        kv_bytes: usual.kv_bytes.max((blocks + 2) * block_bytes),
        step_tokens: usual.step_tokens.max(running + BLOCK_TOKENS),
        running,
        low_priority: false,
        // Every token is computed by a step of its own: what is measured is the engine, not the luck of guesses.
        speculation: Speculation::Off,
        ..usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> BenchOptions {
        BenchOptions {
            model: String::new(),
            prompt: vec![512],
            generate: vec![128],
            depth: vec![0, 512],
            parallel: vec![1, 32],
            threads: 2,
            repeats: 5,
            form: Form::Json,
        }
    }

    #[test]
    fn every_combination_is_a_row() {
        let rows = rows(&options()).expect("rows");
        assert_eq!(rows.len(), 6);
        assert_eq!(rows[0], Row::Prefill { prompt: 512, depth: 0 });
        assert_eq!(rows[5], Row::Decode { generate: 128, depth: 512, parallel: 32 });
        assert_eq!(rows[5].name(), "answers of 128 behind 512, 32 together");
    }

    #[test]
    fn nothing_to_measure_is_refused() {
        let nothing = BenchOptions { prompt: vec![0], generate: vec![0], ..options() };
        assert!(rows(&nothing).expect_err("refused").to_string().contains("-p and -n"));
        let prompts = BenchOptions { generate: vec![0], ..options() };
        assert_eq!(rows(&prompts).expect("rows").len(), 2);
    }

    #[test]
    fn the_pool_holds_every_repetition() {
        let row = Row::Decode { generate: 128, depth: 512, parallel: 32 };
        // 33 blocks of context; 130 more tokens in 9 blocks, six times.
        assert_eq!(row.blocks(5), 32 * (33 + 9 * 6));
        let config = settings(&options(), &[row], 1000);
        assert_eq!(config.kv_bytes, EngineConfig::default().kv_bytes.max((row.blocks(5) + 2) * 1000));
        let many = Row::Decode { generate: 1, depth: 0, parallel: 300 };
        assert_eq!(settings(&options(), &[many], 1000).step_tokens, 316);
    }
}
