//! From logits to events: what one row's result means for its sequence.

use kernels::Cpu;

use super::request::{Event, FinishReason, Usage};
use super::{Engine, Outcome, Purpose};
use crate::sampler::sample;
use crate::sequence::{Sequence, SequenceId};

/// Reduces a row's logits to what its sequence wants to know. `position` is the row's; the next token's
/// position is one more. `ends` are the model's end tokens.
pub(super) fn read(cpu: &Cpu, purpose: &Purpose, position: usize, logits: &[f32], ends: &[u32]) -> Outcome {
    match purpose {
        Purpose::Generate(answer) if !answer.may_end() => {
            let mut open = logits.to_vec();
            for &end in ends {
                if let Some(logit) = open.get_mut(end as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
            Outcome::Token(sample(cpu, &open, &answer.sampling, position + 1))
        }
        Purpose::Generate(answer) => Outcome::Token(sample(cpu, logits, &answer.sampling, position + 1)),
        Purpose::Score { first, targets, .. } => {
            Outcome::LogLikelihood(cpu.log_softmax_at(logits, targets[position - first] as usize))
        }
        Purpose::Logits => Outcome::Logits(logits.to_vec()),
    }
}

impl Engine {
    pub(super) fn deliver(&mut self, id: SequenceId, outcome: Outcome, events: &mut Vec<Event>) {
        match outcome {
            Outcome::Token(token) => self.grow(id, token, events),
            Outcome::LogLikelihood(value) => events.extend(self.score(id, value)),
            Outcome::Logits(logits) => {
                let (_, usage) = self.end(id);
                events.push(Event::Logits { id, logits, usage });
            }
        }
    }

    /// One more generated token, or the model's end.
    fn grow(&mut self, id: SequenceId, token: u32, events: &mut Vec<Event>) {
        let tokenizer = &self.text.tokenizer;
        let Some(Purpose::Generate(answer)) = self.purposes.get_mut(&id) else { return };
        if tokenizer.is_end(token) && !answer.ignore_eos {
            events.push(self.finish(id, FinishReason::Eos));
            return;
        }
        let offset = answer.len();
        let grown = answer.push(token, tokenizer);
        let may_go_on = self.scheduler.append(id, token);
        self.totals.generated += 1;
        events.push(Event::Token { id, token, text: grown.text, offset });
        if grown.stopped {
            events.push(self.finish(id, FinishReason::StopString));
        } else if !may_go_on {
            events.push(self.finish(id, FinishReason::Length));
        }
    }

    /// One more scored token; the last one is the answer.
    fn score(&mut self, id: SequenceId, value: f64) -> Option<Event> {
        let Some(Purpose::Score { targets, found, .. }) = self.purposes.get_mut(&id) else { return None };
        found.push(value);
        if found.len() < targets.len() {
            return None;
        }
        let log_likelihood = std::mem::take(found);
        let (_, usage) = self.end(id);
        Some(Event::Scored { id, log_likelihood, usage })
    }

    /// Ends a sequence with what it has: a generating one, or any that is cancelled.
    pub(super) fn finish(&mut self, id: SequenceId, reason: FinishReason) -> Event {
        let (purpose, mut usage) = self.end(id);
        let (tokens, rest) = match purpose {
            Purpose::Generate(answer) if reason == FinishReason::StopString => {
                (answer.finish_before_stop(&self.text.tokenizer), String::new())
            }
            Purpose::Generate(answer) => answer.finish(),
            Purpose::Score { .. } | Purpose::Logits => (Vec::new(), String::new()),
        };
        usage.generated = tokens.len();
        Event::Finished { id, reason, usage, tokens, rest }
    }

    /// Takes a sequence out of the engine and frees its blocks.
    fn end(&mut self, id: SequenceId) -> (Purpose, Usage) {
        let purpose = self.purposes.remove(&id).expect("every sequence has a purpose until it ends");
        let sequence = self.scheduler.remove(id).expect("every purpose has a sequence until it ends");
        self.totals.add(&sequence);
        (purpose, usage_of(&sequence))
    }
}

fn usage_of(sequence: &Sequence) -> Usage {
    Usage {
        prompt: sequence.prompt(),
        cached: sequence.cached(),
        generated: sequence.generated().len(),
        computed: sequence.computed(),
    }
}
