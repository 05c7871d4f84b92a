//! What a server answered, made into text.

use super::listing::Listed;
use crate::{Outcome, output, reason};
use rmcp::model::{CallToolResult, ContentBlock, ResourceContents, ServerResult};
use rmcp::service::ServiceError;
use serde_json::Value;

/// The outcome of a call that a server answered, or that was lost on the way to it.
pub(super) fn outcome(server: &str, listed: &Listed, answer: Result<ServerResult, ServiceError>) -> Outcome {
    match answer {
        Ok(ServerResult::CallToolResult(result)) => result_outcome(listed, result),
        Ok(ServerResult::EmptyResult(_)) => Outcome::answered(""),
        Ok(ServerResult::InputRequiredResult(_)) => Outcome::failed(format!(
            "The server {server} wants to ask a person something first, which is not supported here."
        )),
        Ok(ServerResult::CustomResult(other)) => Outcome::failed(format!(
            "The server {server} answered with something that is no tool result: {}",
            output::head(&other.0.to_string(), 500)
        )),
        Ok(_) => {
            Outcome::failed(format!("The server {server} answered with something that is no tool result."))
        }
        Err(ServiceError::McpError(error)) => Outcome::failed(format!(
            "The server {server} answered with error {}: {}",
            error.code.0, error.message
        )),
        Err(error) => lost(server, &error),
    }
}

fn result_outcome(listed: &Listed, result: CallToolResult) -> Outcome {
    let is_error = result.is_error.unwrap_or(false);
    let mut parts: Vec<String> = Vec::new();
    if let Some(lie) = lie(listed, &result, is_error) {
        parts.push(lie);
    }
    parts.extend(result.content.iter().map(block_text));
    if result.content.is_empty() {
        parts.extend(result.structured_content.as_ref().map(Value::to_string));
    }
    Outcome::Answered { text: parts.join("\n"), is_error, cut_bytes: 0 }
}

/// What the server promised of its results and did not keep. Errors need not keep it.
fn lie(listed: &Listed, result: &CallToolResult, is_error: bool) -> Option<String> {
    let schema = listed.results.as_ref().filter(|_| !is_error)?;
    let problem = match &result.structured_content {
        Some(content) => schema.check(content).err()?,
        None => "there is no structured content".into(),
    };
    Some(format!("[this result is not what the server's outputSchema promises: {problem}]"))
}

fn block_text(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(image) => left_out("image", &image.mime_type, image.data.len()),
        ContentBlock::Audio(audio) => left_out("audio", &audio.mime_type, audio.data.len()),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => format!("[{uri}]\n{text}"),
            ResourceContents::BlobResourceContents { uri, blob, .. } => left_out("resource", uri, blob.len()),
            _ => "[a resource of an unknown kind, not shown]".into(),
        },
        ContentBlock::ResourceLink(link) => format!("[resource {}: {}]", link.name, link.uri),
        _ => "[content of an unknown kind, not shown]".into(),
    }
}

fn left_out(kind: &str, what: &str, base64_bytes: usize) -> String {
    format!("[{kind} {what}, {} bytes, not shown]", base64_bytes / 4 * 3)
}

/// The way to the server broke. Only a connection that was never made is certain to have done nothing.
fn lost(server: &str, error: &ServiceError) -> Outcome {
    if was_not_sent(error) {
        return Outcome::refused(
            reason::TOOL_UNAVAILABLE,
            format!("The server {server} cannot be reached, so the call was not made. Try again later."),
        );
    }
    Outcome::unknown(
        reason::TOOL_CRASHED,
        format!(
            "The server {server} was lost before it answered ({}). Whether the call happened is not known: look before \
             you call again.",
            output::head(&crate::clean(&error.to_string()), 300)
        ),
    )
}

fn was_not_sent(error: &ServiceError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = match error {
        ServiceError::TransportSend(error) => Some(error.error.as_ref()),
        _ => None,
    };
    while let Some(error) = cause {
        if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect) {
            return true;
        }
        cause = error.source();
    }
    false
}
