//! The tools of this node, for its agents: a toolbox, the shell, memories, the board of a task tree, where a task's files are, and what programs of
//! users serve (`crate::served`). Names that are the toolbox's own win.

mod board;
mod memory;
mod shell;

use crate::agents::seams::{ToolUse, Tools};
use crate::boards::Boards;
use crate::config;
use crate::memories::Memories;
use crate::served::Served;
use ::tools::{Call, CancellationToken, Outcome, ToolSpec, Toolbox};
use futures::future::BoxFuture;
use ledger::keys::Holding;
use mind::CallOutcome;
use shell::Shell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use types::{ProjectName, TaskUid};

/// Everything that agents can call here.
pub(crate) struct NodeTools {
    toolbox: Toolbox,
    /// Below it a folder for each task that uses files.
    folder: PathBuf,
    needs: Arc<Needs>,
    served: Served,
}

/// Whose the calls under way are, and what their tasks hold of the node, by operation.
#[derive(Default)]
pub(crate) struct Needs(Mutex<BTreeMap<String, Caller>>);

struct Caller {
    agent: String,
    /// The root of its task tree.
    tree: TaskUid,
    holds: Vec<(Holding, u64)>,
}

impl Needs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Caller>> {
        self.0.lock().expect("nothing panics while it holds the needs")
    }

    fn of(&self, operation: &str) -> Vec<(Holding, u64)> {
        self.lock().get(operation).map(|caller| caller.holds.clone()).unwrap_or_default()
    }

    /// Who calls, and in which tree.
    fn member(&self, operation: &str) -> Option<(String, TaskUid)> {
        self.lock().get(operation).map(|caller| (caller.agent.clone(), caller.tree))
    }

    fn agent(&self, operation: &str) -> Option<String> {
        self.lock().get(operation).map(|caller| caller.agent.clone())
    }
}

impl NodeTools {
    /// `data_dir` is the node's own folder. Nothing is started yet.
    pub(crate) fn new(
        config: &config::Tools,
        data_dir: &Path,
        memories: &Arc<Memories>,
        boards: &Boards,
        served: Served,
    ) -> anyhow::Result<NodeTools> {
        let config::Tools { mcp, http, files, shell } = config.clone();
        let taken = [memory::NAMED, board::NAMED].map(|name| mcp.contains_key(name));
        let mut toolbox = Toolbox::new(&::tools::Config { mcp, http, files })?;
        let needs = Arc::new(Needs::default());
        // An operator's own server of that name is what agents mean by it.
        let memory = (!taken[0]).then(|| memory::tools(memories, &needs));
        let board = (!taken[1]).then(|| board::tools(boards, &needs));
        for tool in memory.into_iter().chain(board).flatten() {
            toolbox.add(tool)?;
        }
        if shell.enabled {
            toolbox.add(Arc::new(Shell::new(shell, needs.clone())))?;
        }
        Ok(NodeTools { toolbox, folder: data_dir.join("work"), needs, served })
    }

    fn folder_of(&self, project: &ProjectName, task: TaskUid) -> PathBuf {
        self.folder.join(project.as_str().replace('/', "__")).join(task.to_string())
    }

    async fn made(&self, call: ToolUse, stop: CancellationToken) -> Option<CallOutcome> {
        let arguments = match serde_json::from_str(&call.arguments) {
            Ok(arguments) => arguments,
            Err(error) => return Some(not_json(&error)),
        };
        if !self.toolbox.has(&call.tool) {
            let outcome = self.served.call(&call, &arguments, &stop).await;
            return (!stop.is_cancelled()).then(|| told(outcome));
        }
        let operation = call.operation.clone();
        let caller = Caller { agent: call.agent, tree: call.tree, holds: call.needs };
        self.needs.lock().insert(operation.clone(), caller);
        let call = Call {
            operation: call.operation,
            attempt: call.attempt,
            project: call.project.clone(),
            tool: call.tool,
            arguments,
            timeout_ms: call.timeout_ms,
            output_bytes: call.output_bytes.and_then(|bytes| usize::try_from(bytes).ok()),
            folder: self.folder_of(&call.project, call.task),
        };
        let outcome = self.toolbox.call(call, stop.clone()).await;
        self.needs.lock().remove(&operation);
        (!stop.is_cancelled()).then(|| told(outcome))
    }
}

fn not_json(error: &serde_json::Error) -> CallOutcome {
    let message = format!("the arguments are not JSON: {error}");
    CallOutcome::Refused { reason: "INVALID_ARGUMENTS".to_string(), message }
}

fn told(outcome: Outcome) -> CallOutcome {
    match outcome {
        Outcome::Answered { text, is_error, .. } => CallOutcome::Answered { text, is_error },
        Outcome::Refused { reason, message } => CallOutcome::Refused { reason: reason.to_string(), message },
        Outcome::Unknown { reason, message } => CallOutcome::Unknown { reason: reason.to_string(), message },
    }
}

fn described(spec: &ToolSpec) -> serde_json::Value {
    serde_json::json!({
        "name": spec.name,
        "description": spec.description,
        "parameters": spec.parameters,
        "policy": spec.policy,
    })
}

impl Tools for NodeTools {
    fn list(&self, project: &ProjectName, patterns: Vec<String>) -> BoxFuture<'_, Result<String, String>> {
        let project = project.clone();
        Box::pin(async move {
            // Some names are of tools that the mind sees to itself: what names nothing here, it finds out.
            let mut specs: BTreeMap<String, serde_json::Value> = BTreeMap::new();
            for pattern in patterns {
                let (own, served) = match self.toolbox.specs(std::slice::from_ref(&pattern)).await {
                    Ok(own) => (own, self.served.specs(&project, &pattern)),
                    Err(::tools::SpecsError::NotFound { .. }) => {
                        (Vec::new(), self.served.specs_awaited(&project, &pattern).await)
                    }
                    Err(error) => return Err(error.to_string()),
                };
                let served = served.into_iter().filter(|spec| !self.toolbox.has(&spec.name));
                specs.extend(
                    own.iter().cloned().chain(served).map(|spec| (spec.name.clone(), described(&spec))),
                );
            }
            Ok(serde_json::Value::Array(specs.into_values().collect()).to_string())
        })
    }

    fn call(&self, call: ToolUse, stop: CancellationToken) -> BoxFuture<'_, Option<CallOutcome>> {
        Box::pin(self.made(call, stop))
    }
}
