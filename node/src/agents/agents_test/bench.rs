//! Tools that note every call, and do what their names say.

use crate::agents::seams::{ToolUse, Tools};
use futures::future::BoxFuture;
use mind::CallOutcome;
use std::sync::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use types::ProjectName;

const SPECS: &str = r#"[
    {"name": "sink.put", "policy": "idempotent", "parameters": {"type": "object"}},
    {"name": "sink.hold", "policy": "idempotent", "parameters": {"type": "object"}},
    {"name": "mail.send", "policy": "at_most_once", "parameters": {"type": "object"}},
    {"name": "mail.hold", "policy": "at_most_once", "parameters": {"type": "object"}}
]"#;

#[derive(Default)]
pub(crate) struct Bench {
    calls: Mutex<Vec<ToolUse>>,
    /// A permit lets one holding call go on.
    release: Held,
}

struct Held(Semaphore);

impl Default for Held {
    fn default() -> Self {
        Held(Semaphore::new(0))
    }
}

impl Bench {
    /// Every call so far, in order.
    pub(crate) fn calls(&self) -> Vec<ToolUse> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn release(&self) {
        self.release.0.add_permits(1);
    }
}

impl Tools for Bench {
    fn list(&self, _project: &ProjectName, _patterns: Vec<String>) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(std::future::ready(Ok(SPECS.to_string())))
    }

    fn call(&self, call: ToolUse, stop: CancellationToken) -> BoxFuture<'_, Option<CallOutcome>> {
        self.calls.lock().unwrap().push(call.clone());
        Box::pin(async move {
            if call.tool.ends_with(".hold") {
                let held = stop.run_until_cancelled(self.release.0.acquire()).await?;
                held.expect("it is never closed").forget();
            }
            Some(CallOutcome::Answered { text: format!("done {}", call.arguments), is_error: false })
        })
    }
}
