//! Tools that must be called: the form of the one call that the answer is then.

use super::super::body::{Chat, Tool, ToolChoice};
use crate::call_schema::call_schema;

/// The schema of the answer when a tool must be called; None where the model may do as it likes.
pub(super) fn forced(asked: &Chat) -> Option<String> {
    let allowed: Vec<&Tool> = match &asked.choice {
        ToolChoice::Auto | ToolChoice::None => return None,
        ToolChoice::Required => asked.tools.iter().collect(),
        ToolChoice::Named(name) => asked.tools.iter().filter(|tool| tool.name == *name).take(1).collect(),
    };
    let arguments = |tool: &Tool| serde_json::from_str(tool.parameters.as_deref()?).ok();
    Some(call_schema(allowed.into_iter().map(|tool| (tool.name.clone(), arguments(tool))).collect()))
}
