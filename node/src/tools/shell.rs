//! `shell`: one command in a sandbox, in the task's own folder, without a network.

use super::Needs;
use crate::config;
use ::tools::{Call, CancellationToken, Outcome, Policy, Tool, ToolSpec};
use futures::future::BoxFuture;
use ledger::keys::Holding;
use sandbox::{Ended, Handle, Level, Limits, Sandbox, Spec, Status, Why, shown};
use std::sync::Arc;

/// What the sandbox needs to end a command and say so, before the call's own time is over.
const ENDING_MS: u64 = 500;

pub(super) struct Shell {
    spec: ToolSpec,
    config: config::Shell,
    needs: Arc<Needs>,
}

/// Whoever drops the call ends the command.
struct EndOnDrop(Handle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl Shell {
    pub(super) fn new(config: config::Shell, needs: Arc<Needs>) -> Shell {
        let spec = ToolSpec {
            name: "shell".to_string(),
            description:
                "Runs a command with `sh -c` in a folder of this task's own, without a network. Says what it \
                          printed and how it ended."
                    .to_string(),
            parameters: serde_json::json!({
                "type": "object",
                "properties": { "command": { "type": "string", "minLength": 1, "maxLength": 32768 } },
                "required": ["command"],
                "additionalProperties": false,
            }),
            policy: Policy::AtMostOnce,
            timeout_ms: config.timeout_ms.saturating_add(ENDING_MS),
            output_bytes: config.output_bytes,
        };
        Shell { spec, config, needs }
    }

    /// What the node's operator allows, or less, where the task holds less of the quota tree.
    fn limits(&self, call: &Call) -> Limits {
        let needs = self.needs.of(&call.operation);
        let held = |wanted: &Holding| needs.iter().find(|(it, _)| it == wanted).map(|(_, amount)| *amount);
        let config = &self.config;
        let wall_ms = call.timeout_ms.map_or(config.timeout_ms, |ms| ms.saturating_sub(ENDING_MS));
        let cpu = held(&Holding::CpuMilli).and_then(|milli| u32::try_from(milli).ok());
        Limits {
            wall_ms: wall_ms.clamp(1, config.timeout_ms),
            cpu_milli: cpu.unwrap_or(config.cpu_milli).min(config.cpu_milli),
            memory_bytes: held(&Holding::MemoryBytes).unwrap_or(config.memory_bytes).min(config.memory_bytes),
            pids: config.pids,
            disk_bytes: held(&Holding::StorageBytes).unwrap_or(config.disk_bytes).min(config.disk_bytes),
            output_bytes: config.output_bytes,
            ..Limits::default()
        }
    }

    async fn run(&self, call: &Call, stop: CancellationToken) -> Outcome {
        let Some(command) = call.arguments.get("command").and_then(serde_json::Value::as_str) else {
            return Outcome::refused("INVALID_ARGUMENTS", "command is missing");
        };
        if let Err(error) = std::fs::create_dir_all(&call.folder) {
            return Outcome::refused(
                "TOOL_UNAVAILABLE",
                format!("the task's folder cannot be made: {error}"),
            );
        }
        let spec = Spec {
            limits: self.limits(call),
            require: Level::parse(&self.config.require).unwrap_or(Level::Full),
            ..Spec::shell(command, &call.folder)
        };
        let running = match Sandbox::ours().start(spec) {
            Ok(running) => running,
            Err(error) => return Outcome::refused("SANDBOX_REFUSED", error.to_string()),
        };
        let end = EndOnDrop(running.handle());
        let waiting = tokio::task::spawn_blocking(move || running.wait());
        let mut waiting = std::pin::pin!(waiting);
        let ended = match stop.run_until_cancelled(&mut waiting).await {
            Some(ended) => ended,
            None => {
                end.0.kill();
                waiting.await
            }
        };
        match ended {
            Ok(Ok(ended)) => told(&ended),
            Ok(Err(error)) => Outcome::refused("SANDBOX_REFUSED", error.to_string()),
            Err(_) => Outcome::unknown("TOOL_CRASHED", "the sandbox's thread ended without a word"),
        }
    }
}

fn told(ended: &Ended) -> Outcome {
    if ended.why == Why::Killed {
        return Outcome::refused("TOOL_STOPPED", "the command was ended; nothing that it wrote was kept");
    }
    let how = match (ended.why, ended.status) {
        (Why::TimedOut, _) => "ended: its time was over".to_string(),
        (Why::OutOfMemory, _) => "ended: it used more memory than it may".to_string(),
        (Why::TooManyProcesses, _) => "ended: it started more processes than it may".to_string(),
        (_, Some(Status::Code(code))) => format!("exit code {code}"),
        (_, Some(Status::Signal(signal))) => format!("ended by signal {signal}"),
        (_, None) => "ended".to_string(),
    };
    let mut text = shown(&ended.stdout);
    let errors = shown(&ended.stderr);
    for part in [errors.as_str(), how.as_str()] {
        if !text.is_empty() && !text.ends_with('\n') && !part.is_empty() {
            text.push('\n');
        }
        text += part;
    }
    if ended.is_success() { Outcome::answered(text) } else { Outcome::failed(text) }
}

impl Tool for Shell {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn call<'a>(&'a self, call: &'a Call, stop: CancellationToken) -> BoxFuture<'a, Outcome> {
        Box::pin(self.run(call, stop))
    }
}
