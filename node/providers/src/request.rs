//! What is asked of a model, as the gateway says it.

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    System,
    User,
    Assistant,
    /// What a tool answered.
    Tool,
}

/// One message of the conversation.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    pub text: String,
    /// Tools that an assistant's message calls.
    pub calls: Vec<ToolCall>,
    /// Which call a tool's message answers.
    pub call_id: Option<String>,
}

/// A tool that is called.
#[derive(Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The provider's name for this call, unique in its answer.
    pub id: String,
    /// The tool's own name, such as `files.read`.
    pub name: String,
    /// JSON as the model wrote it: not checked, and possibly no JSON at all where the answer was cut.
    pub arguments: String,
}

/// A tool that is offered.
#[derive(Clone, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: String,
    /// JSON schema of the arguments.
    pub schema: serde_json::Value,
}

/// Whether tools must be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    #[default]
    Auto,
    /// Some tool must be called.
    Required,
    /// This tool must be called.
    Named(String),
    /// No tool may be called.
    Never,
}

/// One call of a model.
#[derive(Clone, PartialEq, Default)]
pub struct Request {
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    /// Tokens of the answer at most; never more than what was set aside.
    pub max_tokens: u32,
    /// None: the provider's own.
    pub temperature_milli: Option<u32>,
    /// Passed on where the provider knows seeds, its lower 31 bits.
    pub seed: Option<u64>,
    pub stop: Vec<String>,
    /// The same for every wire attempt of this call; sent as `Idempotency-Key`.
    pub idempotency_key: String,
}

impl Message {
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Message { role, text: text.into(), calls: Vec::new(), call_id: None }
    }

    pub fn system(text: impl Into<String>) -> Self {
        Message::new(Role::System, text)
    }

    pub fn user(text: impl Into<String>) -> Self {
        Message::new(Role::User, text)
    }

    pub fn assistant(text: impl Into<String>) -> Self {
        Message::new(Role::Assistant, text)
    }

    /// An assistant's message that calls tools.
    pub fn calling(text: impl Into<String>, calls: Vec<ToolCall>) -> Self {
        Message { calls, ..Message::assistant(text) }
    }

    /// What a tool answered.
    pub fn outcome(call_id: impl Into<String>, text: impl Into<String>) -> Self {
        Message { call_id: Some(call_id.into()), ..Message::new(Role::Tool, text) }
    }

    /// Bytes that a tokenizer sees.
    pub(crate) fn bytes(&self) -> u64 {
        let calls = self.calls.iter().map(|call| call.id.len() + call.name.len() + call.arguments.len());
        (self.text.len() + calls.sum::<usize>() + self.call_id.as_ref().map_or(0, String::len)) as u64
    }
}

// Prompts are never logged: what shows here is sizes.

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({:?}, {} bytes, {} calls)", self.role, self.text.len(), self.calls.len())
    }
}

impl std::fmt::Debug for ToolCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ToolCall { id, name, arguments } = self;
        write!(f, "ToolCall(id {}, name {}, arguments {} bytes)", id.len(), name.len(), arguments.len())
    }
}

impl std::fmt::Debug for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tool({})", self.name)
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("messages", &self.messages)
            .field("tools", &self.tools)
            .field("choice", &self.choice)
            .field("max_tokens", &self.max_tokens)
            .field("idempotency_key", &self.idempotency_key)
            .finish_non_exhaustive()
    }
}
