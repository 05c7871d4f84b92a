//! From logits to events: what one row's result means for its sequence.

use kernels::Cpu;

use super::answer::{Answer, Grown};
use super::request::{Event, FinishReason, TokenLogprobs, Usage};
use super::scoring::Scoring;
use super::{Chosen, Engine, Outcome, Purpose};
use crate::sampler::sample;
use crate::sequence::{Sequence, SequenceId};
use crate::tokenizer::Tokenizer;

/// Reduces a row's logits to what its sequence wants to know. `position` is the row's; the next token's
/// position is one more.
pub(super) fn read(
    cpu: &Cpu,
    purpose: &mut Purpose,
    position: usize,
    logits: &[f32],
    tokenizer: &Tokenizer,
) -> Outcome {
    match purpose {
        Purpose::Generate(answer) => choose(cpu, answer, position, logits, tokenizer),
        Purpose::Score(scoring) => {
            Outcome::LogLikelihood(cpu.log_softmax_at(logits, scoring.target(position)))
        }
        Purpose::Logits => Outcome::Logits(logits.to_vec()),
    }
}

/// Chooses the next token and adds it to the answer: the rows of tokens that were guessed behind it want the answer with
/// it.
fn choose(cpu: &Cpu, answer: &mut Answer, position: usize, logits: &[f32], tokenizer: &Tokenizer) -> Outcome {
    let Some(choices) = answer.choices(logits, tokenizer.ends()) else {
        return Outcome::Over(FinishReason::Grammar);
    };
    let token = sample(cpu, &choices, &answer.sampling, position + 1);
    if tokenizer.is_end(token) && answer.ends_at_end() {
        return Outcome::Over(FinishReason::Eos);
    }
    let logprobs = answer.logprobs.map(|top| Box::new(logprobs(cpu, logits, token, top)));
    let offset = answer.len();
    let Grown { text, stopped } = answer.push(token, tokenizer);
    let follows = answer.follow(token);
    let over = match () {
        () if stopped => Some(FinishReason::StopString),
        () if answer.is_whole() => Some(FinishReason::Eos),
        () if !follows => Some(FinishReason::Grammar),
        () => None,
    };
    Outcome::Token(Box::new(Chosen { token, text, offset, logprobs, over }))
}

/// The likelihood of a token and of the `top` likeliest ones.
fn logprobs(cpu: &Cpu, logits: &[f32], token: u32, top: usize) -> TokenLogprobs {
    let logit = |token: u32| f64::from(logits[token as usize]);
    let likeliest = cpu.argmax(logits) as u32;
    let norm = logit(likeliest) - cpu.log_softmax_at(logits, likeliest as usize);
    let tokens = if top == 0 { Vec::new() } else { crate::sampler::likeliest(logits, top) };
    let top = tokens.into_iter().map(|token| (token, logit(token) - norm)).collect();
    TokenLogprobs { chosen: logit(token) - norm, top }
}

impl Engine {
    pub(super) fn deliver(&mut self, id: SequenceId, outcome: Outcome, events: &mut Vec<Event>) {
        match outcome {
            Outcome::Token(chosen) => self.grow(id, *chosen, events),
            Outcome::Over(reason) => events.push(self.finish(id, reason)),
            Outcome::LogLikelihood(value) => events.extend(self.score(id, value)),
            Outcome::Logits(logits) => {
                let (_, usage) = self.end(id);
                events.push(Event::Logits { id, logits, usage });
            }
        }
    }

    /// One more generated token.
    fn grow(&mut self, id: SequenceId, chosen: Chosen, events: &mut Vec<Event>) {
        let Chosen { token, text, offset, logprobs, over } = chosen;
        let may_go_on = self.scheduler.append(id, token);
        self.totals.generated += 1;
        events.push(Event::Token { id, token, text, offset, logprobs });
        let over = over.or((!may_go_on).then_some(FinishReason::Length));
        events.extend(over.map(|reason| self.finish(id, reason)));
    }

    /// One more scored token; the last one is the answer.
    fn score(&mut self, id: SequenceId, value: f64) -> Option<Event> {
        let Some(Purpose::Score(scoring)) = self.purposes.get_mut(&id) else { return None };
        scoring.found.push(value);
        if scoring.found.len() < scoring.targets.len() {
            return None;
        }
        let (log_likelihood, attention) = (std::mem::take(&mut scoring.found), scoring.mean_mass());
        let (_, usage) = self.end(id);
        Some(Event::Scored { id, log_likelihood, attention, usage })
    }

    /// Ends a sequence with what it has: a generating one, or any that is cancelled.
    pub(super) fn finish(&mut self, id: SequenceId, reason: FinishReason) -> Event {
        let (purpose, mut usage) = self.end(id);
        let (tokens, rest) = match purpose {
            Purpose::Generate(answer) if reason == FinishReason::StopString => {
                (answer.finish_before_stop(&self.text.tokenizer), String::new())
            }
            Purpose::Generate(answer) => answer.finish(),
            Purpose::Score(_) | Purpose::Logits => (Vec::new(), String::new()),
        };
        usage.generated = tokens.len();
        Event::Finished { id, reason, usage, tokens, rest }
    }

    /// Takes a sequence out of the engine and frees its blocks.
    fn end(&mut self, id: SequenceId) -> (Purpose, Usage) {
        let purpose = self.purposes.remove(&id).expect("every sequence has a purpose until it ends");
        let sequence = self.scheduler.remove(id).expect("every purpose has a sequence until it ends");
        if let Some(parts) = purpose.scoring().and_then(Scoring::parts) {
            self.let_go_of(parts);
        }
        self.totals.add(&sequence);
        self.speculation.end(id, &sequence);
        (purpose, usage_of(&sequence))
    }
}

fn usage_of(sequence: &Sequence) -> Usage {
    Usage {
        prompt: sequence.prompt(),
        cached: sequence.cached(),
        generated: sequence.generated().len(),
        computed: sequence.computed(),
        waited_ms: sequence.waited_ms(),
    }
}
