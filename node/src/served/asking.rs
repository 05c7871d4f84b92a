//! One question to a program: waiting until one serves it, asking, and what came of it.

use super::{Asked, Served, Told, Wanted};
use crate::agents::seams::ToolUse;
use ::tools::{CancellationToken, Outcome, ToolSpec, clean, cut, reason};
use proto::v1 as pb;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use types::ProjectName;

const LOOK: &str = "Whether it happened is not known: look before you call again.";

/// A question that was asked. Dropped before its answer, it is cancelled.
pub(super) struct Asking {
    served: Served,
    project: ProjectName,
    program: u64,
    id: u64,
    heard: oneshot::Receiver<Told>,
    is_over: bool,
}

impl Asking {
    pub(super) fn new(
        served: Served,
        project: ProjectName,
        program: u64,
        id: u64,
        heard: oneshot::Receiver<Told>,
    ) -> Asking {
        Asking { served, project, program, id, heard, is_over: false }
    }

    /// `None`: the program went before it answered.
    async fn answer(&mut self) -> Option<Told> {
        let told = (&mut self.heard).await.ok();
        self.is_over = true;
        told
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.served.close(&self.project, self.program, self.id, self.is_over);
    }
}

/// Why a question was never asked.
enum NotAsked {
    Nobody,
    Stopped,
}

impl Served {
    /// Calls a tool, once. Never an error: whatever goes wrong is an outcome.
    pub(crate) async fn call(&self, call: &ToolUse, arguments: &Value, stop: &CancellationToken) -> Outcome {
        let known = self.known(&call.project, &call.tool);
        if let Some(Err(problem)) = known.as_ref().map(|known| known.arguments.check(arguments)) {
            return off_schema(&call.tool, &problem);
        }
        let own_ms = known.map_or(ToolSpec::DEFAULT_TIMEOUT_MS, |known| known.spec.timeout_ms);
        let time_ms = call.timeout_ms.unwrap_or(own_ms).min(ToolSpec::MAX_TIMEOUT_MS);
        let until = Instant::now() + Duration::from_millis(time_ms);
        let question = |id| Asked::Call(served_call(call, id, until));
        let wanted = Wanted::Tool(&call.tool);
        let mut asking = match self.begin(&call.project, wanted, &question, until, stop).await {
            Ok(asking) => asking,
            Err(NotAsked::Stopped) => {
                let message = format!("The call of {} was stopped before it began.", call.tool);
                return Outcome::refused(reason::TOOL_STOPPED, message);
            }
            Err(NotAsked::Nobody) => return nobody(call),
        };
        let told = tokio::select! {
            biased;
            told = asking.answer() => told,
            () = stop.cancelled() => {
                return Outcome::unknown(reason::TOOL_STOPPED, format!("The call of {} was stopped. {LOOK}", call.tool));
            }
            () = sleep_until(until) => {
                let message = format!("{} did not answer within {time_ms} ms. {LOOK}", call.tool);
                return Outcome::unknown(reason::TOOL_TIMEOUT, message);
            }
        };
        match told {
            Some(Told::Result(result)) => answered(result, call.output_bytes),
            Some(_) | None => {
                let message =
                    format!("The process that served {} went in the middle of the call. {LOOK}", call.tool);
                Outcome::unknown(reason::TOOL_CRASHED, message)
            }
        }
    }

    /// Asks for a step of an agent. `Ok(None)`: it was stopped. The error says what happened and what to do next.
    pub(crate) async fn step(
        &self,
        project: &ProjectName,
        question: pb::ModelQuestion,
        patience: Duration,
        stop: &CancellationToken,
    ) -> Result<Option<pb::ModelAnswer>, (&'static str, String)> {
        let model = question.model.clone();
        let asked = |id| Asked::Question(pb::ModelQuestion { id, ..question.clone() });
        let until = Instant::now() + patience;
        let mut asking = match self.begin(project, Wanted::Model(&model), &asked, until, stop).await {
            Ok(asking) => asking,
            Err(NotAsked::Stopped) => return Ok(None),
            Err(NotAsked::Nobody) => {
                let message = format!(
                    "no process serves the model {model:?} in project {project} on this node; start it again"
                );
                return Err(("NO_PROCESS", message));
            }
        };
        match stop.run_until_cancelled(asking.answer()).await {
            None => Ok(None),
            Some(Some(Told::Answer(answer))) => Ok(Some(answer)),
            Some(_) => {
                Err(("PROCESS_GONE", format!("the process that served {model:?} went before it answered")))
            }
        }
    }

    async fn begin(
        &self,
        project: &ProjectName,
        wanted: Wanted<'_>,
        question: &(dyn Fn(u64) -> Asked + Sync),
        until: Instant,
        stop: &CancellationToken,
    ) -> Result<Asking, NotAsked> {
        let mut news = self.0.news.subscribe();
        loop {
            if stop.is_cancelled() {
                return Err(NotAsked::Stopped);
            }
            news.borrow_and_update();
            if let Some(asking) = self.ask(project, wanted, question) {
                return Ok(asking);
            }
            tokio::select! {
                _ = news.changed() => {}
                () = stop.cancelled() => return Err(NotAsked::Stopped),
                () = sleep_until(until) => return Err(NotAsked::Nobody),
            }
        }
    }
}

fn served_call(call: &ToolUse, id: u64, until: Instant) -> pb::ServedCall {
    let left = until.saturating_duration_since(Instant::now());
    pb::ServedCall {
        id,
        operation: call.operation.clone(),
        attempt: call.attempt,
        tool: call.tool.clone(),
        arguments: call.arguments.clone(),
        task: call.task.to_string(),
        agent: call.agent.clone(),
        timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
    }
}

fn answered(result: pb::ToolResult, output_bytes: Option<u64>) -> Outcome {
    let most =
        output_bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(ToolSpec::DEFAULT_OUTPUT_BYTES);
    let most = most.clamp(ToolSpec::MIN_OUTPUT_BYTES, ToolSpec::MAX_OUTPUT_BYTES);
    let (text, cut_bytes) = cut(clean(&result.text), most);
    Outcome::Answered { text, is_error: result.is_error, cut_bytes }
}

fn off_schema(tool: &str, problem: &str) -> Outcome {
    let message =
        format!("The arguments do not fit {tool}: {problem}. Correct them and call again; nothing was done.");
    Outcome::refused(reason::INVALID_ARGUMENTS, message)
}

fn nobody(call: &ToolUse) -> Outcome {
    let ToolUse { tool, project, .. } = call;
    let message = format!(
        "no process serves {tool} in project {project}. Nothing was done; it may be called again later."
    );
    Outcome::refused(reason::TOOL_UNAVAILABLE, message)
}
