//! Committing a step: segments before step, and the ledger's answer.

use super::{Hands, Patience, Spoken, Trouble, foresight};
use crate::agents::course::Outcome;
use crate::agents::seams::Segments;
use crate::engine_thread::kv::Chain;
use crate::gateway::local::{class_number, scope_of};
use ledger::command::{Command, Next};
use ledger::keys::Amounts;
use ledger::reply::{Refusal, Reply};
use ledger::rows::{Ask, AskKind, TaskError};
use mind::{Effect, Event, NextMove};
use tokio_util::sync::CancellationToken;
use types::{Hash, NodeId, Spent};

impl Hands {
    /// Tries until the ledger answers yes or no. When interrupted it offers the step once more without waiting for
    /// keepers: an agent that has lost its lease hears so that way.
    pub(super) async fn commit(&self, effect: Effect, stop: CancellationToken) -> Outcome {
        let Effect::Commit { step, head, record, segments, spent, billed_tokens, next } = effect else {
            return Outcome::Broke("not a commit".into());
        };
        let segments: Segments = segments.into_iter().map(|(hash, bytes)| (hash, bytes.into())).collect();
        let named = record.names();
        let next = translate(next);
        let lost = self.lost(step);
        let spent = spent.plus(Spent {
            prompt_tokens: lost.new_tokens,
            generated_tokens: lost.generated_tokens,
            ..Spent::default()
        });
        let billed_tokens = billed_tokens + lost.tokens();
        let mut patience = Patience::default();
        loop {
            self.pulse.touch();
            let last = stop.is_cancelled();
            let home = match self.keep_or_offer(&segments, &named, last).await {
                Ok(home) => home,
                Err(Trouble::Corrupt(why)) => return Outcome::Broke(why),
                Err(Trouble::Missing(why)) => {
                    tracing::warn!(task = %self.lease.task, step, why, "a step is not durable yet");
                    Vec::new()
                }
            };
            if last || home.len() >= self.shared.seams.stores.copies() {
                let command = Command::CommitStep {
                    task: self.lease.task,
                    epoch: self.lease.epoch,
                    node: self.node(),
                    step,
                    head,
                    home: home.clone(),
                    spent,
                    billed_tokens,
                    next: next.clone(),
                    extra: self.used(step),
                };
                if let Some(outcome) = self.propose_step(step, command, last).await {
                    if matches!(outcome, Outcome::Happened(Event::Committed { .. })) {
                        self.tell_engine(step, &home, &next);
                    }
                    return outcome;
                }
            }
            self.shared.seams.stores.refresh_members().await;
            patience.wait(&stop).await;
        }
    }

    async fn keep_or_offer(
        &self,
        segments: &Segments,
        named: &[Hash],
        last: bool,
    ) -> Result<Vec<NodeId>, Trouble> {
        let kept = self.keep(segments.clone(), named).await;
        match (kept, last) {
            // What can't be kept can still be offered, and refused.
            (Err(Trouble::Missing(_)), true) => Ok(vec![self.node()]),
            (kept, _) => kept,
        }
    }

    /// What the step's model call used beside tokens.
    fn used(&self, step: u64) -> Option<Amounts> {
        let (of_step, amounts) = self.known().used;
        (of_step == step && !amounts.is_none()).then_some(amounts)
    }

    /// The blocks that the engine has of a step go where its segments went, and it hears what will become of them.
    fn tell_engine(&self, step: u64, home: &[NodeId], next: &Next) {
        let spoken = self.known().spoken.take().filter(|it| it.step == step && !it.tokens.is_empty());
        let Some(Spoken { model, tokens, head, .. }) = spoken else { return };
        let last = self.known().last_chain.replace((model.clone(), tokens.clone()));
        let (scope, class) = (scope_of(self.project()), class_number(self.lease.row.class));
        let chain = |tokens: &[u32]| Chain { scope, class, tokens: tokens.into() };
        let kv = &self.shared.seams.kv;
        // An engine knows only what was said to its own model.
        let last = last.filter(|(same, _)| *same == model).map(|(_, tokens)| tokens).unwrap_or_default();
        if let Some(left) = foresight::superseded(&last, &tokens) {
            kv.hint(&model, chain(&last[..left.tokens]), left.hint);
        }
        for advice in foresight::after(next, tokens.len(), head) {
            kv.hint(&model, chain(&tokens[..advice.tokens]), advice.hint);
        }
        if !foresight::is_the_end(next) {
            kv.follow(&model, Chain { scope, class, tokens }, home);
        }
    }

    /// None: not yet, try again.
    async fn propose_step(&self, step: u64, command: Command, last: bool) -> Option<Outcome> {
        match self.shared.seams.ledger.request(command).await {
            Reply::Refused(refusal @ (Refusal::Fenced { .. } | Refusal::WrongState { .. })) => {
                Some(self.fenced("commit", &refusal))
            }
            Reply::Refused(Refusal::TooFewCopies { .. }) if last => Some(Outcome::Nothing),
            Reply::Refused(Refusal::TooFewCopies { given, needed }) => {
                tracing::info!(task = %self.lease.task, step, given, needed, "too few copies of a step; trying again");
                None
            }
            Reply::Refused(Refusal::OverQuota { path, resource, requested, available, .. }) => {
                let task = self.lease.task;
                tracing::info!(%task, step, path, resource, requested, available, "no room for more calls of tools");
                Some(Outcome::Happened(Event::CallsRefused))
            }
            Reply::Refused(refusal) => Some(Outcome::Broke(format!("step {step} was refused: {refusal}"))),
            _ => {
                self.shared.counters.step(self.project());
                Some(Outcome::Happened(Event::Committed { step }))
            }
        }
    }
}

fn translate(next: NextMove) -> Next {
    let error = |reason, message| TaskError { reason, text: Some(message) };
    match next {
        NextMove::Continue => Next::Continue,
        NextMove::WaitChildren => Next::WaitChildren,
        NextMove::Done { result, bytes } => Next::Done { result, bytes },
        NextMove::Failed { reason, message } => Next::Failed { error: error(reason, message) },
        NextMove::PausedError { reason, message } => Next::PausedError { error: error(reason, message) },
        NextMove::GoOn { heard } => Next::GoOn { heard },
        NextMove::WaitTool { heard, asks, begun } => {
            let asks = asks.into_iter().map(ask).collect();
            Next::WaitTool { heard, asks, begun: (begun > 0).then_some(begun) }
        }
        NextMove::WaitInput { heard, asks } => {
            Next::WaitInput { heard, asks: asks.into_iter().map(ask).collect() }
        }
        NextMove::WaitFor { heard, ms } => Next::WaitFor { heard, ms },
        NextMove::WaitBudget { heard, calls } => Next::WaitBudget { heard, calls },
    }
}

fn ask(ask: mind::Ask) -> Ask {
    let kind = match ask.kind {
        mind::AskKind::Approval => AskKind::Approval,
        mind::AskKind::Question => AskKind::Question,
        mind::AskKind::Unknown => AskKind::Unknown,
        mind::AskKind::UnknownMayRepeat => AskKind::UnknownMayRepeat,
        mind::AskKind::Message => AskKind::Message,
    };
    Ask { id: ask.id, kind, about: ask.tool, text: ask.text }
}
