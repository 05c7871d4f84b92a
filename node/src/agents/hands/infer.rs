//! Model calls: the chain to messages, through the gateway, live tokens on the way.

use super::{Hands, Trouble};
use crate::agents::course::Outcome;
use crate::gateway::{Fullness, Generated, LivePiece, ModelCall, ModelOutcome, Reserve};
use context::{ChainItem, Kind, Reader, Segment, View};
use futures::future::BoxFuture;
use ledger::command::Command;
use ledger::reply::{Refusal, Reply};
use ledger::rows::Want;
use mind::{Effect, Event, Measured};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use types::Hash;

impl Hands {
    pub(super) async fn infer(&self, effect: Effect, stop: CancellationToken) -> Outcome {
        let Effect::Infer {
            step,
            call,
            model,
            chain,
            fresh,
            reader,
            known_tokens,
            max_tokens,
            min_tokens,
            temperature_milli,
            seed,
            wait_ms,
            choice,
            full_at_milli,
            summary,
        } = effect
        else {
            return Outcome::Broke("not a model call".into());
        };
        let pause = tokio::time::sleep(Duration::from_millis(wait_ms));
        if wait_ms > 0 && stop.run_until_cancelled(pause).await.is_none() {
            return Outcome::Nothing;
        }
        let view = match self.view(reader, &chain, &fresh).await {
            Ok(view) => view,
            Err(failed) => return Outcome::Happened(failed),
        };
        self.shared.counters.full_context(self.chain_bytes(&chain, &fresh));
        let call = ModelCall {
            model,
            agent: self.lease.row.agent.to_string(),
            project: self.project().clone(),
            messages: view.messages(),
            tools: view.tools().map(Into::into),
            choice,
            known_tokens,
            max_tokens,
            min_tokens,
            temperature_milli,
            seed,
            class: self.lease.row.class,
            call,
            full_at_milli,
        };
        self.call(step, call, (&chain, &view), summary, &stop).await
    }

    async fn call(
        &self,
        step: u64,
        call: ModelCall,
        (chain, view): (&[ChainItem], &View),
        summary: bool,
        stop: &CancellationToken,
    ) -> Outcome {
        // Others may be busy for hours.
        self.pulse.rest();
        let slot = stop.run_until_cancelled(self.shared.slots.acquire()).await;
        self.pulse.touch();
        let Some(Ok(_slot)) = slot else { return Outcome::Nothing };
        let task = self.lease.task;
        let live = &self.shared.seams.live;
        // Who watches sees that this is not the answer.
        let of_summary = if summary { "/summary" } else { "" };
        let attempt = format!("{}/{}{of_summary}", self.lease.epoch, call.call);
        live.begin(self.project(), task, step, &attempt);
        let begun = self.begin_chat(&call, step);
        let show = |piece: LivePiece<'_>| {
            self.pulse.touch();
            begun.first_token();
            live.push(task, piece.offset, piece.tokens, piece.text);
        };
        let reserve = StepReservation { hands: self, step };
        let model = call.model.clone();
        let outcome = self.shared.gateway.call(call, &reserve, &show, stop).await;
        self.tell_chat(begun, &outcome);
        match outcome {
            ModelOutcome::Generated(mut generated) | ModelOutcome::Stopped(Some(mut generated)) => {
                let mut known = self.known();
                known.used = (step, generated.extra);
                known.chain = Some((step, model, std::mem::take(&mut generated.chain)));
                drop(known);
                Outcome::Happened(told(generated))
            }
            ModelOutcome::Stopped(None) => Outcome::Nothing,
            ModelOutcome::NearlyFull(fullness) => {
                tracing::info!(%task, step, fullness.tokens, fullness.window, "the window is nearly full");
                Outcome::Happened(measured(chain, view, &fullness))
            }
            ModelOutcome::Failed(failure) => {
                self.lose(step, failure.lost.unwrap_or_default());
                tracing::info!(%task, step, reason = failure.reason, "a model call failed");
                let (reason, message, retriable) = (failure.reason, failure.message, failure.retriable);
                Outcome::Happened(Event::ModelFailed { reason, message, retriable })
            }
            ModelOutcome::Refused(Refusal::OverQuota { path, resource, requested, available, .. }) => {
                tracing::info!(%task, step, path, resource, requested, available, "out of budget");
                Outcome::Happened(Event::BudgetRefused)
            }
            ModelOutcome::Refused(Refusal::Unpriced { model }) => {
                tracing::info!(%task, step, model, "no price where money is limited");
                Outcome::Happened(Event::BudgetRefused)
            }
            ModelOutcome::Refused(refusal @ (Refusal::Fenced { .. } | Refusal::WrongState { .. })) => {
                self.fenced("reservation", &refusal)
            }
            ModelOutcome::Refused(refusal) => Outcome::Broke(format!("a reservation was refused: {refusal}")),
        }
    }

    async fn view(
        &self,
        reader: Reader,
        chain: &[ChainItem],
        fresh: &[(Hash, Segment)],
    ) -> Result<View, Event> {
        let mut items = Vec::with_capacity(chain.len());
        for item in chain {
            let new = fresh.iter().find(|(hash, _)| *hash == item.hash);
            let segment = match new {
                Some((_, segment)) => Arc::new(segment.clone()),
                None => self.segment(item.hash).await.map_err(unavailable)?,
            };
            items.push((item.clone(), segment));
        }
        let refused = |message: String| failed("VIEW_REFUSED", message, false);
        View::build(reader, items).map_err(|error| refused(error.to_string()))
    }

    fn chain_bytes(&self, chain: &[ChainItem], fresh: &[(Hash, Segment)]) -> u64 {
        let new: u64 = fresh.iter().map(|(_, segment)| segment.text.len() as u64).sum();
        let stored =
            chain.iter().map(|item| item.hash).filter(|hash| !fresh.iter().any(|(new, _)| new == hash));
        self.stored_bytes(stored) + new
    }
}

/// Tokens of each piece of a chain, in its order: those of a message are parted by the bytes of what it is made of.
fn measured(chain: &[ChainItem], view: &View, fullness: &Fullness) -> Event {
    let kinds: BTreeMap<Hash, Kind> =
        view.items().iter().map(|(item, segment)| (item.hash, segment.kind)).collect();
    let bytes: BTreeMap<Hash, u64> =
        view.items().iter().map(|(item, segment)| (item.hash, segment.text.len() as u64 + 1)).collect();
    let mut tokens: BTreeMap<Hash, u64> = BTreeMap::new();
    for (message, count) in view.messages().iter().zip(&fullness.counts) {
        let of_message = |hash: &Hash| bytes.get(hash).copied().unwrap_or(1);
        let all: u64 = message.segments.iter().map(of_message).sum();
        for hash in &message.segments {
            tokens.insert(*hash, (count * of_message(hash)).div_ceil(all.max(1)));
        }
    }
    // What is no message: the tools take what the messages leave.
    let rest = fullness.tokens.saturating_sub(fullness.counts.iter().sum());
    let piece = |item: &ChainItem| Measured {
        kind: kinds.get(&item.hash).copied().unwrap_or(Kind::Message),
        tokens: tokens.get(&item.hash).copied().unwrap_or(rest),
    };
    Event::NearlyFull { window_tokens: fullness.window, pieces: chain.iter().map(piece).collect() }
}

fn unavailable(trouble: Trouble) -> Event {
    match trouble {
        Trouble::Missing(why) => failed("SEGMENT_UNAVAILABLE", why, true),
        Trouble::Corrupt(why) => failed("CORRUPT_SEGMENT", why, false),
    }
}

fn failed(reason: &str, message: String, retriable: bool) -> Event {
    Event::ModelFailed { reason: reason.into(), message, retriable }
}

fn told(generated: Generated) -> Event {
    Event::Generated {
        text: generated.text,
        token_ids: generated.token_ids,
        tokenizer: generated.tokenizer,
        finish: generated.finish,
        spent: generated.spent,
        billed_tokens: generated.billed_tokens,
        chain_tokens: generated.chain_tokens,
        numerics: generated.numerics,
        calls: generated.calls,
    }
}

/// The step's reservation in the ledger. A second one for the same step replaces the first.
struct StepReservation<'a> {
    hands: &'a Hands,
    step: u64,
}

impl Reserve for StepReservation<'_> {
    fn reserve(&self, min_tokens: u64, max_tokens: u64, want: Want) -> BoxFuture<'_, Result<u64, Refusal>> {
        // What was lost before stays set aside, beside what the call needs.
        let lost = self.hands.lost(self.step);
        let command = Command::Reserve {
            task: self.hands.lease.task,
            epoch: self.hands.lease.epoch,
            node: self.hands.node(),
            step: self.step,
            min_tokens: min_tokens + lost.tokens(),
            max_tokens: max_tokens + lost.tokens(),
            want: Some(Want { fresh_tokens: want.fresh_tokens + lost.new_tokens, ..want }),
        };
        Box::pin(async move {
            match self.hands.shared.seams.ledger.request(command).await {
                Reply::Reserved(granted) => Ok(granted.saturating_sub(lost.tokens())),
                Reply::Refused(refusal) => Err(refusal),
                other => {
                    let why = format!("{other:?} does not answer a reservation");
                    Err(Refusal::Invalid { what: "the leader's answer".into(), why })
                }
            }
        })
    }
}
