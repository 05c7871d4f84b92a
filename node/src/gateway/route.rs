//! A call that one of several models answers: the candidates are looked at, ranked, and asked for a place in the budget
//! one after the other, until one has it.
//!
//! What decides is [`providers::route`]; here is what it is told: prices from the ledger's book, prompts as each model
//! counts them, queues, and what earlier calls took. An answer says which model it was, and why.

use super::{
    Asked, Gateway, LiveSink, ModelCall, ModelFailure, ModelOutcome, Prompt, Provider, Reserve, names,
};
use context::Message;
use ledger::command::Route as Wished;
use ledger::reply::Refusal;
use ledger::rows::Price;
use mind::{Route, RouteCandidate};
use providers::route::{Candidate, Ranking, Unfit, Wish, rank};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A worker before this one had set the step aside for this model.
const SAME_MODEL: &str = "SAME_MODEL";
/// A budget refused those that were better.
const OVER_BUDGET: &str = "OVER_BUDGET";

/// The models of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// With their prices, in the order of the agent.
    pub models: Vec<(String, Option<Price>)>,
    /// The one that has read what was paid for; the others read everything anew.
    pub read_by: Option<String>,
    /// The one that the step was for when its worker was lost.
    pub begun_by: Option<String>,
    /// Until the task's deadline.
    pub left_ms: Option<u64>,
}

/// One model for this call.
struct Looked {
    model: String,
    provider: Option<Arc<dyn Provider>>,
    prompt: Prompt,
    known_tokens: u64,
    price: Price,
    candidate: Candidate,
}

/// What a call needs at the least.
#[derive(Clone, Copy)]
struct Need {
    micro_usd: u64,
    tokens: u64,
}

impl Need {
    /// Where the other was refused, this one is refused, too.
    fn covers(self, other: Need) -> bool {
        self.micro_usd >= other.micro_usd && self.tokens >= other.tokens
    }
}

impl Looked {
    fn need(&self) -> Need {
        let (tokens, known) = (self.prompt.tokens(), self.known_tokens.min(self.prompt.tokens()));
        let fresh = tokens - known;
        Need { micro_usd: self.price.cost(fresh, known, 1), tokens: fresh + 1 }
    }
}

impl Gateway {
    pub(super) async fn routed(
        &self,
        mut call: ModelCall,
        routing: Routing,
        reserve: &dyn Reserve,
        live: LiveSink<'_>,
        stop: &CancellationToken,
    ) -> ModelOutcome {
        let messages = Arc::new(std::mem::take(&mut call.messages));
        let looked = match self.look(&call, &routing, &messages, stop).await {
            Ok(looked) => looked,
            Err(outcome) => return outcome,
        };
        let wish = Wish {
            answer_tokens: self.rates.answer_tokens(&call.project, &call.agent, call.max_tokens),
            tools: call.tools.is_some(),
            left_ms: routing.left_ms,
        };
        let ranking = ranked(&wish, &looked);
        if ranking.order.is_empty() {
            return ModelOutcome::Failed(none_fits(&looked, &ranking));
        }
        let mut tries = Tries::new(&looked, &ranking, routing.begun_by.as_deref());
        while let Some((index, wished)) = tries.next() {
            let (one, model) = (&looked[index], wished.model.clone());
            let Some(provider) = &one.provider else { continue };
            let of_it = ModelCall { model: model.clone(), known_tokens: one.known_tokens, ..call.clone() };
            let (reason, others) = (wished.reason.clone(), wished.others);
            let asked = Asked { messages: messages.clone(), prompt: one.prompt.clone(), route: Some(wished) };
            let asked = self.ask(provider.as_ref(), of_it, asked, reserve, stop).await;
            if let Err(ModelOutcome::Refused(Refusal::OverQuota { .. } | Refusal::Unpriced { .. })) = &asked
                && others
            {
                tries.refused(index);
                continue;
            }
            if asked.is_ok() {
                let labels = [("model", model.clone()), ("reason", reason.clone())];
                metrics::counter!(names::GATEWAY_ROUTES_TOTAL, &labels).increment(1);
            }
            let route = tries.told(model.clone(), reason);
            let outcome = self.answered(&model, provider.as_ref(), asked, live).await;
            return with_route(outcome, route);
        }
        ModelOutcome::Failed(none_fits(&looked, &ranking))
    }

    /// Counts the prompt for each model and asks how it stands.
    async fn look(
        &self,
        call: &ModelCall,
        routing: &Routing,
        messages: &Arc<Vec<Message>>,
        stop: &CancellationToken,
    ) -> Result<Vec<Looked>, ModelOutcome> {
        let mut all = Vec::with_capacity(routing.models.len());
        for (model, price) in &routing.models {
            let provider = self.provider(model);
            let prompt = match &provider {
                None => Prompt::default(),
                Some(provider) => {
                    let prompt = provider.prompt(messages, call.tools.as_ref());
                    let prompt = stop.run_until_cancelled(prompt).await;
                    prompt.ok_or(ModelOutcome::Stopped(None))?.map_err(ModelOutcome::Failed)?
                }
            };
            let read = routing.read_by.as_ref() == Some(model);
            let known_tokens = if read { call.known_tokens } else { 0 };
            all.push(self.looked(model, provider, prompt, known_tokens, *price));
        }
        Ok(all)
    }

    fn looked(
        &self,
        model: &str,
        provider: Option<Arc<dyn Provider>>,
        prompt: Prompt,
        known_tokens: u64,
        price: Option<Price>,
    ) -> Looked {
        let standing = provider.as_ref().map(|provider| provider.standing()).unwrap_or_default();
        let rate = self.rates.of(model);
        let candidate = Candidate {
            here: provider.is_some(),
            price: price.map(|it| providers::route::Price {
                input: it.input,
                cached: it.cached,
                output: it.output,
            }),
            prompt_tokens: prompt.room(),
            cached_tokens: known_tokens.min(prompt.room()),
            queue_ms: standing.queue_ms,
            first_piece_ms: rate.first_ms,
            micros_a_token: rate.micros_a_token,
            window: provider.as_ref().map_or(0, |provider| provider.facts().window),
            tools: standing.tools,
            closed_ms: standing.closed_ms,
            broken: standing.broken,
        };
        let price = price.unwrap_or_default();
        Looked { model: model.to_string(), provider, prompt, known_tokens, price, candidate }
    }
}

/// Where nothing but closed ones would be left they are taken: a short wait is the client's business, a long one it
/// refuses with its reason.
fn ranked(wish: &Wish, looked: &[Looked]) -> Ranking {
    let mut candidates: Vec<Candidate> = looked.iter().map(|one| one.candidate).collect();
    let ranking = rank(wish, &candidates);
    if !ranking.order.is_empty() {
        return ranking;
    }
    candidates.iter_mut().for_each(|candidate| candidate.closed_ms = 0);
    let reopened = rank(wish, &candidates);
    if reopened.order.is_empty() { ranking } else { reopened }
}

/// The order in which budgets are asked.
struct Tries<'a> {
    looked: &'a [Looked],
    left: std::collections::VecDeque<usize>,
    reason: String,
    refused: Vec<Need>,
    candidates: Vec<RouteCandidate>,
}

impl<'a> Tries<'a> {
    fn new(looked: &'a [Looked], ranking: &Ranking, begun_by: Option<&str>) -> Tries<'a> {
        let mut left: std::collections::VecDeque<usize> = ranking.order.iter().copied().collect();
        let mut reason = ranking.why.map_or("", |why| why.as_str());
        let begun = left.iter().position(|index| Some(looked[*index].model.as_str()) == begun_by);
        if let Some(index) = begun.and_then(|place| left.remove(place)) {
            left.push_front(index);
            reason = SAME_MODEL;
        }
        let candidate = |(one, verdict): (&Looked, &providers::route::Verdict)| RouteCandidate {
            model: one.model.clone(),
            micro_usd: verdict.micro_usd,
            ms: verdict.ms,
            verdict: verdict.as_str().to_string(),
        };
        let candidates = looked.iter().zip(&ranking.verdicts).map(candidate).collect();
        Tries { looked, left, reason: reason.to_string(), refused: Vec::new(), candidates }
    }

    /// The next model, and what the ledger is told of it. One that needs no less than a refused one is passed over.
    fn next(&mut self) -> Option<(usize, Wished)> {
        let index = self.left.pop_front()?;
        let mut refused = self.refused.clone();
        refused.push(self.looked[index].need());
        let looked = self.looked;
        let hopeless = |other: &usize| refused.iter().any(|need| looked[*other].need().covers(*need));
        self.left.retain(|other| !hopeless(other));
        let others = !self.left.is_empty();
        let (model, reason) = (looked[index].model.clone(), self.reason.clone());
        Some((index, Wished { model, reason, turn: 0, others }))
    }

    fn refused(&mut self, index: usize) {
        self.refused.push(self.looked[index].need());
        self.candidates[index].verdict = OVER_BUDGET.to_string();
        self.reason = OVER_BUDGET.to_string();
    }

    fn told(self, model: String, reason: String) -> Route {
        Route { model, reason, candidates: self.candidates }
    }
}

fn with_route(mut outcome: ModelOutcome, route: Route) -> ModelOutcome {
    if let ModelOutcome::Generated(said) | ModelOutcome::Stopped(Some(said)) = &mut outcome {
        said.route = Some(route);
    }
    outcome
}

fn none_fits(looked: &[Looked], ranking: &Ranking) -> ModelFailure {
    let unfit: Vec<Unfit> = ranking.verdicts.iter().filter_map(|verdict| verdict.unfit).collect();
    let each = looked.iter().zip(&ranking.verdicts).map(|(one, verdict)| {
        let numbers = match verdict.unfit {
            Some(Unfit::WindowTooSmall) => {
                format!(" ({} tokens of {})", one.candidate.prompt_tokens, one.candidate.window)
            }
            Some(Unfit::Closed) => format!(" (for {} ms)", one.candidate.closed_ms),
            _ => String::new(),
        };
        format!("{} {}{numbers}", one.model, verdict.as_str())
    });
    let each: Vec<String> = each.collect();
    let message = format!(
        "none of the agent's models can take this call: {}; a model that fits can be added to models",
        each.join(", ")
    );
    match unfit.iter().any(|unfit| unfit.passes()) {
        true => ModelFailure::passing("NO_MODEL_FITS", message),
        false if unfit.iter().all(|unfit| *unfit == Unfit::WindowTooSmall) => {
            ModelFailure::lasting("CONTEXT_TOO_LONG", message)
        }
        false => ModelFailure::lasting("NO_MODEL_FITS", message),
    }
}

#[cfg(test)]
#[path = "route_test.rs"]
mod route_test;
