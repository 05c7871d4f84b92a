//! Files in the task's own work folder, and nowhere else.

mod folder;

use crate::config::FilesConfig;
use crate::{Call, CancellationToken, Outcome, Policy, Tool, ToolSpec, reason};
use folder::{Denied, Folder};
use futures::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// `files.read`, `files.write`, `files.list`, `files.edit`, unless the operator turned them off.
pub(crate) fn tools(config: &FilesConfig) -> Vec<Arc<dyn Tool>> {
    if !config.enabled {
        return Vec::new();
    }
    let places = Arc::new(Semaphore::new(config.concurrent));
    let tool = |(kind, policy, description, parameters): (Kind, Policy, &str, Value)| -> Arc<dyn Tool> {
        let spec = ToolSpec {
            name: kind.name().into(),
            description: description.into(),
            parameters,
            policy,
            timeout_ms: config.timeout_ms,
            output_bytes: config.output_bytes,
        };
        Arc::new(FileTool { kind, spec, file_bytes: config.file_bytes, places: Arc::clone(&places) })
    };
    kinds().map(tool).into()
}

#[derive(Clone, Copy)]
enum Kind {
    Read,
    Write,
    List,
    Edit,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Read => "files.read",
            Kind::Write => "files.write",
            Kind::List => "files.list",
            Kind::Edit => "files.edit",
        }
    }
}

fn kinds() -> [(Kind, Policy, &'static str, Value); 4] {
    let path = || json!({ "type": "string", "minLength": 1, "maxLength": 1024, "description": "Relative to your folder." });
    let schema = |required: Value, properties: Value| json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties });
    let number = json!({ "type": "integer", "minimum": 0 });
    let read = json!({ "path": path(), "offset": number, "bytes": number });
    let write = json!({ "path": path(), "text": { "type": "string" } });
    let edit =
        json!({ "path": path(), "old": { "type": "string", "minLength": 1 }, "new": { "type": "string" } });
    [
        (Kind::Read, Policy::Idempotent, READ, schema(json!(["path"]), read)),
        (Kind::Write, Policy::Idempotent, WRITE, schema(json!(["path", "text"]), write)),
        (Kind::List, Policy::Idempotent, LIST, schema(json!([]), json!({ "path": path() }))),
        // Done twice, it may find its own result and change that.
        (Kind::Edit, Policy::AtMostOnce, EDIT, schema(json!(["path", "old", "new"]), edit)),
    ]
}

const READ: &str = "Reads a text file of your folder; offset and bytes (of the file) select a part.";
const WRITE: &str =
    "Writes a text file of your folder, whole: it is made or replaced; folders on the way are made.";
const LIST: &str = "Lists a folder of yours: one entry a line, folders end with /, files have their bytes.";
const EDIT: &str = "Replaces a piece of text that occurs exactly once in a file of your folder.";

struct FileTool {
    kind: Kind,
    spec: ToolSpec,
    file_bytes: usize,
    places: Arc<Semaphore>,
}

impl Tool for FileTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn call<'a>(&'a self, call: &'a Call, stop: CancellationToken) -> BoxFuture<'a, Outcome> {
        async move {
            let place = tokio::select! {
                biased;
                place = Arc::clone(&self.places).acquire_owned() => place.expect("never closed"),
                () = stop.cancelled() => return Outcome::refused(reason::TOOL_BUSY, BUSY),
            };
            self.on_a_thread(call.clone(), place).await
        }
        .boxed()
    }
}

const BUSY: &str = "Too many calls on files run on this node. This one was not made; try again later.";

impl FileTool {
    /// Disks block. The thread keeps its place, so that calls given up do not pile up behind a slow disk.
    async fn on_a_thread(&self, call: Call, place: OwnedSemaphorePermit) -> Outcome {
        let (kind, most_bytes) = (self.kind, self.file_bytes);
        let done = tokio::task::spawn_blocking(move || {
            let outcome = perform(kind, &call, most_bytes);
            drop(place);
            outcome
        });
        done.await.unwrap_or_else(|_| {
            Outcome::unknown(reason::TOOL_CRASHED, "The call broke off; look before you repeat it.")
        })
    }
}

fn perform(kind: Kind, call: &Call, most_bytes: usize) -> Outcome {
    let text = |key: &str| call.arguments.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| call.arguments.get(key).and_then(Value::as_u64);
    let path = text("path");
    let done = Folder::open(&call.folder).and_then(|folder| match kind {
        Kind::Read => {
            let most =
                number("bytes").unwrap_or(u64::MAX).min(call.output_bytes.unwrap_or(most_bytes) as u64);
            folder.read(path, number("offset").unwrap_or(0), most)
        }
        Kind::Write => folder.write(path, text("text"), most_bytes),
        Kind::List => folder.list(if path.is_empty() { "." } else { path }),
        Kind::Edit => folder.edit(path, text("old"), text("new"), most_bytes),
    });
    match done {
        Ok(text) => Outcome::answered(text),
        Err(Denied { reason, message }) => Outcome::refused(reason, message),
    }
}
