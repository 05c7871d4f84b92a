//! What is told of model calls and tool calls in the task's trace, where somebody keeps one.

use super::Hands;
use crate::agents::seams::ToolUse;
use crate::gateway::{ModelCall, ModelOutcome, OWN, Waits};
use crate::traces::now_ns;
use crate::traces::span::Times;
use crate::traces::work::{Chat, Holder, ToolRun, chat, tool};
use mind::{CallOutcome, Finish};
use std::sync::OnceLock;

/// A call that is under way; nothing where nobody keeps a trace.
pub(super) struct Told<T> {
    begun: Option<(Holder, T)>,
    begun_ns: u64,
    first_ns: OnceLock<u64>,
}

impl<T> Told<T> {
    pub(super) fn first_token(&self) {
        if self.begun.is_some() {
            self.first_ns.get_or_init(now_ns);
        }
    }
}

impl Hands {
    fn holder(&self) -> Option<Holder> {
        let root = self.known().tree.unwrap_or(self.lease.task);
        let place = self.shared.config.traces.place(&self.lease.row, root)?;
        Some(Holder { place, epoch: self.lease.epoch, node: self.node() })
    }

    fn begin<T>(&self, what: impl FnOnce() -> T) -> Told<T> {
        let begun = self.holder().map(|holder| (holder, what()));
        Told { begun, begun_ns: now_ns(), first_ns: OnceLock::new() }
    }

    pub(super) fn begin_chat(&self, call: &ModelCall, step: u64) -> Told<Chat> {
        self.begin(|| {
            let provider = self.shared.gateway.maker(&call.model);
            Chat {
                model: call.model.clone(),
                provider,
                local: provider == OWN,
                step,
                call: call.call,
                max_tokens: call.max_tokens,
                temperature_milli: call.temperature_milli,
                seed: call.seed,
                first_ns: None,
                waits: Waits::default(),
                ended: Err(String::new()),
            }
        })
    }

    /// Calls that were not made, for want of budget or of room, are told by nobody.
    pub(super) fn tell_chat(&self, told: Told<Chat>, outcome: &ModelOutcome) {
        let Some((holder, begun)) = told.begun else { return };
        let first_ns = told.first_ns.get().copied();
        let made = match outcome {
            ModelOutcome::Generated(said) | ModelOutcome::Stopped(Some(said)) => {
                // One of several models was asked: which one is known now.
                let model = said.route.as_ref().map_or(begun.model, |route| route.model.clone());
                let provider = self.shared.gateway.maker(&model);
                let ended = Ok((finish(said.finish), said.spent));
                let (local, waits) = (provider == OWN, said.waits);
                Chat { model, provider, local, first_ns, waits, ended, ..begun }
            }
            ModelOutcome::Failed(failure) => Chat { first_ns, ended: Err(failure.reason.clone()), ..begun },
            ModelOutcome::Stopped(None) | ModelOutcome::Refused(_) | ModelOutcome::NearlyFull(_) => return,
        };
        let times = Times { begun_ns: told.begun_ns, ended_ns: now_ns() };
        self.shared.config.traces.send(chat(&holder, times, &made));
    }

    pub(super) fn begin_tool(&self, call: &ToolUse, (step, index): (u64, u32)) -> Told<ToolRun> {
        self.begin(|| ToolRun {
            tool: call.tool.clone(),
            operation: call.operation.clone(),
            step,
            index,
            attempt: call.attempt,
            error: None,
        })
    }

    pub(super) fn tell_tool(&self, told: Told<ToolRun>, outcome: Option<&CallOutcome>) {
        let Some((holder, begun)) = told.begun else { return };
        let error = match outcome {
            Some(CallOutcome::Answered { is_error: false, .. }) => None,
            Some(CallOutcome::Answered { is_error: true, .. }) => Some("tool_error".to_string()),
            Some(CallOutcome::Refused { reason, .. } | CallOutcome::Unknown { reason, .. }) => {
                Some(reason.clone())
            }
            None => Some("stopped".to_string()),
        };
        let times = Times { begun_ns: told.begun_ns, ended_ns: now_ns() };
        self.shared.config.traces.send(vec![tool(&holder, times, &ToolRun { error, ..begun })]);
    }
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Budget => "budget",
    }
}
