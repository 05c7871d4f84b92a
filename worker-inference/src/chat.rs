//! Chat templates: what a model's template makes of a conversation, and what it adds for one more message.
//!
//! Chains of tokens only ever grow: what a model generated is never rendered again. So a template is asked for
//! the *new* text alone (`grow` says how, and what happens with templates that rewrite history), or for a whole
//! conversation at once. What messages contain is kept apart from what the template says (`guard`).

mod calls;
mod functions;
mod grow;
mod guard;
mod message;
mod values;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

pub use calls::{CallFormat, text_before_calls, tool_calls};
pub use guard::Rendered;
pub use message::{ChatOptions, Message, ToolCall, Tools};

use guard::Guard;
use values::Values;

/// A template longer than this is no template.
const TEMPLATE_BYTES_MAX: usize = 1 << 20;

/// Work that one rendering may do: instructions, and 64 bytes of text each. A message takes about fifty and its
/// length, so that thousands of messages and megabytes fit; a template from a stranger can't hold the node up.
const FUEL: u64 = 2_000_000;

/// Roles are words: templates write them between control tokens.
const ROLE_BYTES_MAX: usize = 32;

/// Why a template can't be used here.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error("the model file has no chat template; use an instruction-tuned model")]
    Absent,
    #[error("the model's chat template is not usable: {0}; use another conversion of the model")]
    Template(String),
    #[error("the role {0:?} is not a word of letters and digits; use system, user, assistant or tool")]
    Role(String),
    #[error("the model's chat template writes today's date; give the time of the conversation")]
    NeedsTime,
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    #[error(
        "the model's chat template does too much work: it hardly ends, or the conversation is far too long; \
         shorten the conversation or use another conversion of the model"
    )]
    Endless,
    #[error(
        "the model's chat template rewrites earlier messages (first difference at byte {at} of {len}); \
         render the conversation as a whole, or use a model whose template only appends"
    )]
    Rewrites { at: usize, len: usize },
}

/// A model's chat template.
#[derive(Debug)]
pub struct Chat {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    guard: Guard,
    short_ids: bool,
    calls: CallFormat,
}

const NAME: &str = "chat";

impl Chat {
    /// Compiles a template; `bos` and `eos` are the texts of those tokens (empty if the model has none).
    pub fn new(template: &str, bos: &str, eos: &str) -> Result<Chat, ChatError> {
        if template.len() > TEMPLATE_BYTES_MAX {
            return Err(ChatError::Template(format!("it has {} bytes", template.len())));
        }
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        // Both as Python's renderers of these templates set them.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| ChatError::Template(error.to_string()))?);
        functions::register(&mut environment);
        environment
            .add_template_owned(NAME, template.to_owned())
            .map_err(|error| ChatError::Template(error.to_string()))?;
        let (bos, eos, guard) = (bos.to_owned(), eos.to_owned(), Guard::default());
        // Mistral's templates refuse ids of any other length; our callers' are longer.
        let short_ids = template.contains("length != 9");
        let calls = CallFormat::of_template(template);
        Ok(Chat { environment, bos, eos, guard, short_ids, calls })
    }

    /// The same, keeping these control tokens out of what messages contain.
    pub fn guarding(mut self, controls: Vec<String>) -> Chat {
        self.guard = Guard::new(controls);
        self
    }

    /// How this model writes calls of tools.
    pub fn call_format(&self) -> CallFormat {
        self.calls
    }

    /// A whole conversation.
    pub fn whole_rendered(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        add_generation_prompt: bool,
    ) -> Result<Rendered, ChatError> {
        messages.iter().try_for_each(check_role)?;
        let values = self.values().messages(messages);
        Ok(self.guard.reveal(&self.render(&values, options, add_generation_prompt)?))
    }

    fn values(&self) -> Values<'_> {
        Values { guard: &self.guard, short_ids: self.short_ids }
    }

    fn render(
        &self,
        messages: &[Value],
        options: &ChatOptions,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME).map_err(refused)?;
        let given = context! {
            messages => messages,
            tools => self.values().tools(options.tools.as_ref()),
            add_generation_prompt => add_generation_prompt,
            bos_token => &self.bos,
            eos_token => &self.eos,
        };
        // Templates ask whether these are defined, so they are left out rather than `none`.
        let mut optional = Vec::new();
        if let Some(now_unix_s) = options.now_unix_s {
            optional.push(("strftime_now", functions::strftime_now(now_unix_s)));
        }
        if let Some(thinking) = options.thinking {
            optional.push(("enable_thinking", Value::from(thinking)));
        }
        template.render(context! { ..given, ..Value::from_pairs(optional) }).map_err(refused)
    }
}

fn check_role(message: &Message) -> Result<(), ChatError> {
    let role = message.role.as_str();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match !role.is_empty() && role.len() <= ROLE_BYTES_MAX && role.bytes().all(is_word) {
        true => Ok(()),
        false => Err(ChatError::Role(role.chars().take(ROLE_BYTES_MAX).collect())),
    }
}

fn refused(error: Error) -> ChatError {
    let text = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    match error.kind() {
        ErrorKind::OutOfFuel => ChatError::Endless,
        ErrorKind::UnknownFunction if text.contains("strftime_now") => ChatError::NeedsTime,
        _ => ChatError::Refused(text),
    }
}

#[cfg(test)]
#[path = "chat/chat_test.rs"]
mod chat_test;
