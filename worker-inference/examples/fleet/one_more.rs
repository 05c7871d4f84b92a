//! One agent more than there is room for: every round each of them appends something and asks again.

use worker_inference::{Engine, SubmitError};

use super::common::{Random, ask, percentile, request};

/// The shape of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) agents: usize,
    /// Tokens of each agent's beginning, which no other shares.
    pub(crate) begin: usize,
    /// Tokens that each round adds before the agent asks.
    pub(crate) added: usize,
    pub(crate) answer: usize,
    pub(crate) rounds: usize,
}

impl Shape {
    /// Tokens of an agent after the last round.
    pub(crate) fn longest(&self) -> usize {
        self.begin + self.rounds * (self.added + self.answer)
    }
}

/// One agent's turn in a round after the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) round: usize,
    pub(crate) agent: usize,
    /// Rows computed again that had been computed before, to those of a cold start.
    pub(crate) again: f64,
    /// Time to the first token beyond that in a pool with room for all, to that of a cold start.
    pub(crate) waited: f64,
}

/// Runs the rounds several times; for every turn the median of what it cost, as a busy moment of the machine looks like
/// a turn that waited.
pub(crate) fn medians(
    tight: &mut Engine,
    roomy: &mut Engine,
    shape: Shape,
    runs: usize,
) -> Result<Vec<Turn>, SubmitError> {
    let runs = (0..runs as u64).map(|seed| run(tight, roomy, shape, seed)).collect::<Result<Vec<_>, _>>()?;
    let median = |turn: usize, of: fn(&Turn) -> f64| {
        percentile(&runs.iter().map(|turns| of(&turns[turn])).collect::<Vec<_>>(), 0.5)
    };
    let turns = runs[0].iter().enumerate();
    Ok(turns
        .map(|(index, turn)| Turn {
            again: median(index, |turn| turn.again),
            waited: median(index, |turn| turn.waited).max(0.0),
            ..*turn
        })
        .collect())
}

/// Runs the rounds, one agent after the other, each turn in both pools.
fn run(tight: &mut Engine, roomy: &mut Engine, shape: Shape, seed: u64) -> Result<Vec<Turn>, SubmitError> {
    let mut random = Random(17 + seed);
    let seconds_a_row = seconds_a_row(roomy, &mut random, shape.begin)?;
    tight.clear_cache();
    roomy.clear_cache();
    let mut chains: Vec<Vec<u32>> = (0..shape.agents).map(|_| random.tokens(tight, shape.begin)).collect();
    let mut turns = Vec::new();
    for round in 0..shape.rounds {
        for (agent, chain) in chains.iter_mut().enumerate() {
            let known = if round == 0 { 0 } else { chain.len() };
            chain.extend(random.tokens(tight, shape.added));
            let at_ease = ask(roomy, request(chain.clone(), [1; 32], shape.answer))?;
            let asked = ask(tight, request(chain.clone(), [1; 32], shape.answer))?;
            assert_eq!(asked.tokens, at_ease.tokens, "an answer depends on the room");
            chain.extend(&asked.tokens);
            if round > 0 {
                // The last answered token was never run, and at most 15 tokens of the tail fill no block.
                let fresh = asked.usage.prompt - known + asked.usage.generated;
                let again = asked.usage.computed.saturating_sub(fresh) as f64 / asked.usage.prompt as f64;
                let cold = asked.usage.prompt as f64 * seconds_a_row;
                let waited = (asked.first.as_secs_f64() - at_ease.first.as_secs_f64()) / cold;
                turns.push(Turn { round, agent, again, waited });
            }
        }
    }
    Ok(turns)
}

/// Of a cold prompt of that length; the second of two, so that memory is there.
fn seconds_a_row(engine: &mut Engine, random: &mut Random, rows: usize) -> Result<f64, SubmitError> {
    let mut seconds = 0.0;
    for _ in 0..2 {
        let tokens = random.tokens(engine, rows);
        seconds = ask(engine, request(tokens, [2; 32], 1))?.first.as_secs_f64();
    }
    Ok(seconds / rows as f64)
}
