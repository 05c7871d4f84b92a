//! An answer as it comes: shown piece by piece, then settled.

use super::{
    Ask, Counted, EndOfSpeech, Generated, LivePiece, LiveSink, Lost, ModelFailure, ModelOutcome, Plan,
    Provider, ProviderFacts, Said, Waits,
};
use context::Role;
use ledger::keys::Amounts;
use mind::Finish;
use types::Spent;

/// How much of an answer was shown.
#[derive(Default)]
struct Shown {
    tokens: u64,
    bytes: usize,
    /// Tokens whose text has not come yet.
    unseen: u32,
}

impl Shown {
    fn show(&mut self, text: &str, live: LiveSink<'_>) {
        if text.is_empty() || self.unseen == 0 {
            return;
        }
        live(LivePiece { offset: self.tokens, tokens: self.unseen, text });
        self.bytes += text.len();
        self.tokens += u64::from(std::mem::take(&mut self.unseen));
    }
}

/// Generates, passing pieces on as they come.
pub(super) async fn speak(provider: &dyn Provider, plan: Plan, ask: Ask, live: LiveSink<'_>) -> ModelOutcome {
    let mut chain = if provider.facts().numerics.is_some() { ask.prompt.ids.clone() } else { Vec::new() };
    let chain_head = head_tokens(&ask);
    let mut said = match provider.answer(ask).await {
        Ok(said) => said,
        Err(failure) => return ModelOutcome::Failed(failure),
    };
    let mut shown = Shown::default();
    loop {
        match said.recv().await {
            Some(Said::Token { text, .. }) => {
                shown.unseen += 1;
                shown.show(&text, live);
            }
            Some(Said::End { why, text, token_ids, cached_tokens, calls, counted, waited_ms, .. }) => {
                // Text that was held back while it could still have become something else.
                shown.show(text.get(shown.bytes..).unwrap_or(""), live);
                let settled = settle(plan, provider.facts(), why, text, token_ids, cached_tokens);
                let settled =
                    counted.map_or(settled.clone(), |counted| counted_by_others(settled, plan, counted));
                if !chain.is_empty() {
                    chain.extend(&settled.token_ids);
                }
                let waits = Waits { line_ms: waited_ms, ..settled.waits };
                let generated = Generated { calls, chain, chain_head, waits, ..settled };
                return match why {
                    EndOfSpeech::Stopped => ModelOutcome::Stopped(Some(generated)),
                    EndOfSpeech::Stop | EndOfSpeech::Length => ModelOutcome::Generated(generated),
                };
            }
            Some(Said::Failed(failure)) => {
                let whole = Lost { new_tokens: plan.new_tokens, generated_tokens: plan.max_new.into() };
                let lost = failure.lost.map(|_| whole);
                return ModelOutcome::Failed(ModelFailure { lost, ..failure });
            }
            None => return ModelOutcome::Failed(gone()),
        }
    }
}

/// Tokens of the messages before the first that is a task's own.
fn head_tokens(ask: &Ask) -> usize {
    let own = ask.messages.iter().take_while(|message| message.role == Role::System);
    let counts: u64 = own.zip(&ask.prompt.counts).map(|(_, count)| *count).sum();
    usize::try_from(counts).unwrap_or(usize::MAX).min(ask.prompt.ids.len())
}

/// What was set aside is the most that is settled; what is above it is told as an overage.
fn counted_by_others(said: Generated, plan: Plan, counted: Counted) -> Generated {
    let prompt_tokens = counted.prompt.min(plan.prompt_tokens);
    let generated_tokens = counted.generated.min(plan.max_new.into());
    let known_tokens = plan.prompt_tokens - plan.new_tokens;
    let over = (counted.prompt - prompt_tokens) + (counted.generated - generated_tokens);
    let cached_tokens = said.spent.cached_tokens.min(prompt_tokens);
    Generated {
        spent: Spent { prompt_tokens, cached_tokens, generated_tokens, micro_usd: 0 },
        billed_tokens: prompt_tokens.saturating_sub(known_tokens) + generated_tokens,
        chain_tokens: prompt_tokens + generated_tokens,
        extra: Amounts { tokens: over, ..said.extra },
        ..said
    }
}

fn gone() -> ModelFailure {
    ModelFailure::passing("ENGINE_GONE", "the model ended without a word; the call is made again")
}

fn settle(
    plan: Plan,
    facts: ProviderFacts,
    why: EndOfSpeech,
    text: String,
    token_ids: Vec<u32>,
    cached_tokens: u64,
) -> Generated {
    let generated_tokens = token_ids.len() as u64;
    let finish = match why {
        EndOfSpeech::Stop => Finish::Stop,
        EndOfSpeech::Length if plan.cut_by_budget => Finish::Budget,
        EndOfSpeech::Length => Finish::Length,
        EndOfSpeech::Stopped => Finish::Budget,
    };
    let cached_tokens = cached_tokens.min(plan.prompt_tokens);
    Generated {
        text,
        token_ids,
        tokenizer: facts.tokenizer,
        finish,
        spent: Spent { prompt_tokens: plan.prompt_tokens, cached_tokens, generated_tokens, micro_usd: 0 },
        billed_tokens: plan.new_tokens + generated_tokens,
        chain_tokens: plan.prompt_tokens + generated_tokens,
        extra: Amounts::NONE,
        numerics: facts.numerics,
        chain: Vec::new(),
        chain_head: 0,
        calls: None,
        route: None,
        waits: Waits::default(),
    }
}
