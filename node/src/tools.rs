//! The tools of this node, for its agents.

use crate::agents::seams::{ToolUse, Tools};
use futures::future::BoxFuture;
use mind::CallOutcome;
use tokio_util::sync::CancellationToken;
use types::ProjectName;

/// Everything that agents can call here.
#[derive(Default)]
pub(crate) struct NodeTools {}

impl Tools for NodeTools {
    fn list(&self, _project: &ProjectName, _patterns: Vec<String>) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(std::future::ready(Ok("[]".to_string())))
    }

    fn call(&self, call: ToolUse, _stop: CancellationToken) -> BoxFuture<'_, Option<CallOutcome>> {
        let message = format!("there is no tool {:?} on this node", call.tool);
        let refused = CallOutcome::Refused { reason: "TOOL_NOT_FOUND".to_string(), message };
        Box::pin(std::future::ready(Some(refused)))
    }
}
