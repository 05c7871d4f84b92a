//! Tool calls: through the seam, with the operation's id.

use super::Hands;
use crate::agents::course::Outcome;
use crate::agents::seams::ToolUse;
use mind::{Effect, Event};
use tokio_util::sync::CancellationToken;

impl Hands {
    pub(super) async fn list_tools(&self, patterns: Vec<String>) -> Outcome {
        match self.shared.seams.tools.list(self.project(), patterns).await {
            Ok(specs) => Outcome::Happened(Event::Tools { specs }),
            Err(message) => {
                let reason = "TOOLS_UNAVAILABLE".to_string();
                Outcome::Happened(Event::ModelFailed { reason, message, retriable: true })
            }
        }
    }

    pub(super) async fn call_tool(&self, effect: Effect, stop: CancellationToken) -> Outcome {
        let Effect::CallTool { step, index, tool, arguments, attempt, timeout_ms, output_bytes } = effect
        else {
            return Outcome::Broke("not a tool call".into());
        };
        let task = self.lease.task;
        let operation = format!("{task}/{step}/{index}");
        tracing::info!(%task, operation, tool, attempt, "a tool call begins");
        let call = ToolUse {
            operation,
            attempt,
            project: self.project().clone(),
            task,
            tree: self.known().tree.unwrap_or(task),
            agent: self.lease.row.agent.to_string(),
            tool,
            arguments,
            timeout_ms,
            output_bytes,
            needs: self.lease.row.needs.clone().unwrap_or_default(),
        };
        let told = self.begin_tool(&call, (step, index));
        let outcome = self.shared.seams.tools.call(call, stop).await;
        self.tell_tool(told, outcome.as_ref());
        match outcome {
            Some(outcome) => Outcome::Happened(Event::CallEnded { step, index, outcome }),
            None => Outcome::Nothing,
        }
    }
}
