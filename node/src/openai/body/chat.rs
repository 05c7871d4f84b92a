//! Bodies of `POST /v1/chat/completions`.

use super::super::error::Failure;
use super::pieces::Content;
use super::settings::{Settings, checked_logprobs, checked_schema};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Messages of one conversation.
const MESSAGES_MAX: usize = 4096;
/// Tools of one request, and bytes of all of them as the model is told of them.
const TOOLS_MAX: usize = 128;
const TOOLS_BYTES_MAX: usize = 256 << 10;
const NAME_BYTES_MAX: usize = 128;

/// A checked body.
#[derive(Debug, Clone, PartialEq)]
pub struct Chat {
    pub model: Option<String>,
    /// At least one.
    pub messages: Vec<Said>,
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    pub settings: Settings,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    pub content: String,
    pub name: Option<String>,
    pub tool_calls: Vec<ToolCall>,
    pub tool_call_id: Option<String>,
}

/// A call that the assistant made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// A JSON object.
    pub arguments: String,
}

/// A function that the assistant may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    pub name: String,
    /// A JSON schema; None takes nothing.
    pub parameters: Option<String>,
    /// The tool as the client wrote it, for the model's template.
    pub json: String,
}

/// Whether tools are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    Auto,
    None,
    /// One of them.
    Required,
    /// This one.
    Named(String),
}

#[derive(Deserialize)]
struct Fields<'a> {
    model: Option<String>,
    messages: Option<Vec<Message>>,
    #[serde(borrow)]
    tools: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    tool_choice: Option<&'a RawValue>,
    logprobs: Option<bool>,
    top_logprobs: Option<u32>,
    #[serde(default)]
    functions: Option<IgnoredAny>,
    #[serde(default)]
    audio: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
    name: Option<String>,
    tool_calls: Option<Vec<Called>>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
struct Called {
    #[serde(default)]
    id: String,
    function: CalledFunction,
}

#[derive(Deserialize)]
struct CalledFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Deserialize)]
struct Offered<'a> {
    r#type: Option<String>,
    #[serde(borrow)]
    function: OfferedFunction<'a>,
}

#[derive(Deserialize)]
struct OfferedFunction<'a> {
    name: String,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct NamedChoice {
    function: NamedFunction,
}

#[derive(Deserialize)]
struct NamedFunction {
    name: String,
}

impl Chat {
    /// Reads and checks a body.
    pub fn parse(body: &[u8]) -> Result<Chat, Failure> {
        let mut settings = Settings::parse(body)?;
        let fields: Fields<'_> = super::from_json(body)?;
        refuse_the_old(&fields)?;
        settings.logprobs = match fields.logprobs {
            Some(true) => checked_logprobs("top_logprobs", Some(fields.top_logprobs.unwrap_or(0)))?,
            _ if fields.top_logprobs.is_some_and(|top| top > 0) => {
                return Err(Failure::field("top_logprobs", "top_logprobs needs logprobs: true"));
            }
            _ => None,
        };
        let tools = tools(fields.tools.unwrap_or_default())?;
        let choice = choice(fields.tool_choice, &tools)?;
        Ok(Chat { model: fields.model, messages: messages(fields.messages)?, tools, choice, settings })
    }
}

fn refuse_the_old(fields: &Fields<'_>) -> Result<(), Failure> {
    if fields.functions.is_some() {
        return Err(Failure::unsupported("functions", "functions is the old way; send tools"));
    }
    if fields.audio.is_some() {
        return Err(Failure::unsupported("audio", "only text is made here; leave audio out"));
    }
    Ok(())
}

fn messages(given: Option<Vec<Message>>) -> Result<Vec<Said>, Failure> {
    let messages = given.unwrap_or_default();
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        let why = format!("there are {} messages; send 1 to {MESSAGES_MAX}", messages.len());
        return Err(Failure::field("messages", why));
    }
    messages.into_iter().map(message).collect()
}

fn message(given: Message) -> Result<Said, Failure> {
    let role = match given.role.as_str() {
        // What OpenAI's newer models call it.
        "developer" => "system".to_owned(),
        "system" | "user" | "assistant" | "tool" => given.role,
        other => {
            let why = format!("the role {other:?} is unknown; there are system, user, assistant and tool");
            return Err(Failure::field("messages", why));
        }
    };
    let tool_calls: Vec<ToolCall> =
        given.tool_calls.unwrap_or_default().into_iter().map(ToolCall::from).collect();
    if given.content.is_none() && (role != "assistant" || tool_calls.is_empty()) {
        return Err(Failure::field("messages", format!("a message of {role} has no content; give it some")));
    }
    let content = given.content.unwrap_or_default().0;
    Ok(Said { role, content, name: given.name, tool_calls, tool_call_id: given.tool_call_id })
}

impl From<Called> for ToolCall {
    fn from(called: Called) -> ToolCall {
        ToolCall { id: called.id, name: called.function.name, arguments: called.function.arguments }
    }
}

fn tools(given: Vec<&RawValue>) -> Result<Vec<Tool>, Failure> {
    let bytes: usize = given.iter().map(|tool| tool.get().len()).sum();
    if given.len() > TOOLS_MAX || bytes > TOOLS_BYTES_MAX {
        let why = format!(
            "there are {} tools of {bytes} bytes; at most {TOOLS_MAX} of {TOOLS_BYTES_MAX} bytes together are possible",
            given.len()
        );
        return Err(Failure::field("tools", why));
    }
    given.into_iter().map(tool).collect()
}

fn tool(given: &RawValue) -> Result<Tool, Failure> {
    let wrong = |why: String| Failure::field("tools", why);
    let offered: Offered<'_> = serde_json::from_str(given.get())
        .map_err(|error| wrong(format!("a tool is not as expected: {error}")))?;
    if offered.r#type.as_deref().is_some_and(|kind| kind != "function") {
        return Err(wrong("only tools of type function are there".into()));
    }
    let name = offered.function.name;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
        return Err(wrong(format!(
            "{name:?} is no name for a tool: letters, digits, _ - . up to {NAME_BYTES_MAX}"
        )));
    }
    let parameters = offered.function.parameters.map(|schema| checked_schema("tools", schema)).transpose()?;
    Ok(Tool { name, parameters, json: given.get().to_owned() })
}

fn choice(given: Option<&RawValue>, tools: &[Tool]) -> Result<ToolChoice, Failure> {
    let wrong = |why: String| Failure::field("tool_choice", why);
    let choice = match given.map_or("null", |choice| choice.get().trim()) {
        "null" if tools.is_empty() => ToolChoice::None,
        "null" | "\"auto\"" => ToolChoice::Auto,
        "\"none\"" => ToolChoice::None,
        "\"required\"" => ToolChoice::Required,
        other => {
            let named: NamedChoice = serde_json::from_str(other)
                .map_err(|_| wrong("tool_choice is auto, none, required or names a function".into()))?;
            ToolChoice::Named(named.function.name)
        }
    };
    match &choice {
        ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
            Err(wrong(format!("tool_choice names {name:?}, which is not among the tools")))
        }
        ToolChoice::Required if tools.is_empty() => {
            Err(wrong("tool_choice is required and there are no tools".into()))
        }
        _ => Ok(choice),
    }
}
