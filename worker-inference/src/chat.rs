//! Chat templates: what a model's template adds for one more message.
//!
//! Chains of tokens only ever grow, so a template is asked for the *new* text alone, and it is checked that
//! rendering the earlier messages gives a prefix. A template that rewrites earlier text is refused for that
//! conversation with the place where it differs.

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value, context};

/// A template longer than this is no template.
const TEMPLATE_BYTES_MAX: usize = 1 << 20;

/// Work that one rendering may do: instructions, and 64 bytes of text each. A message takes about fifty and its
/// length, so that thousands of messages and megabytes fit; a template from a stranger can't hold the node up.
const FUEL: u64 = 2_000_000;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    pub content: String,
}

impl Message {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// Why a template can't be used here.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error("the model file has no chat template; use an instruction-tuned model")]
    Absent,
    #[error("the model's chat template is not usable: {0}; use another conversion of the model")]
    Template(String),
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    #[error(
        "the model's chat template does too much work: it hardly ends, or the conversation is far too long; \
         shorten the conversation or use another conversion of the model"
    )]
    Endless,
    #[error(
        "the model's chat template rewrites earlier messages (first difference at byte {at} of {len}); \
         start a new conversation or use a model whose template only appends"
    )]
    Rewrites { at: usize, len: usize },
}

/// Text that a template added, and which bytes of it came from the message instead of the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// Bytes that somebody wrote; control tokens there are plain text.
    pub content: Range<usize>,
}

/// A model's chat template.
#[derive(Debug)]
pub struct Chat {
    environment: Environment<'static>,
    bos: String,
    eos: String,
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
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, template.to_owned())
            .map_err(|error| ChatError::Template(error.to_string()))?;
        Ok(Chat { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// What the template adds for one more message (and, with `add_generation_prompt`, the opening of the
    /// answer). The first message brings whatever the template puts in front, such as a default system text.
    pub fn render_next(
        &self,
        prior: &[Message],
        next: &Message,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        self.next_rendered(prior, next, add_generation_prompt).map(|rendered| rendered.text)
    }

    /// Like [`Chat::render_next`], telling template text from message text.
    pub fn next_rendered(
        &self,
        prior: &[Message],
        next: &Message,
        add_generation_prompt: bool,
    ) -> Result<Rendered, ChatError> {
        let before = self.opening(prior)?;
        let text = self.suffix(&before, prior, next, add_generation_prompt)?;
        let content = self.content_range(&before, prior, next, add_generation_prompt, &text);
        Ok(Rendered { text, content })
    }

    /// What the template adds after an answer's content (usually the end-of-turn token and a newline): the
    /// text that closes a generated answer before the next message. `prior` ends before the answer.
    pub fn after_answer(&self, prior: &[Message], answer: &str) -> Result<String, ChatError> {
        let opened = self.render(prior, true)?;
        let next = Message::new("assistant", answer);
        let closed = self.suffix(&opened, prior, &next, false)?;
        let differs = || ChatError::Rewrites { at: opened.len(), len: opened.len() + answer.len() };
        closed.strip_prefix(answer).map(str::to_owned).ok_or_else(differs)
    }

    fn opening(&self, prior: &[Message]) -> Result<String, ChatError> {
        // Many templates look at the first message, so "no messages" is never rendered.
        if prior.is_empty() { Ok(String::new()) } else { self.render(prior, false) }
    }

    fn suffix(
        &self,
        before: &str,
        prior: &[Message],
        next: &Message,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let mut messages = prior.to_vec();
        messages.push(next.clone());
        let whole = self.render(&messages, add_generation_prompt)?;
        match whole.strip_prefix(before) {
            Some(suffix) => Ok(suffix.to_owned()),
            None => Err(ChatError::Rewrites { at: common_prefix(before, &whole), len: before.len() }),
        }
    }

    /// Where the message's content lies in the new text. It is found by rendering the same message with two
    /// other contents: what they share in front and behind is the template's. A template that also looks
    /// *into* the content gets everything marked as written by somebody.
    fn content_range(
        &self,
        before: &str,
        prior: &[Message],
        next: &Message,
        add_generation_prompt: bool,
        text: &str,
    ) -> Range<usize> {
        let probe = |content: &str| {
            let message = Message::new(next.role.clone(), content);
            self.suffix(before, prior, &message, add_generation_prompt).ok()
        };
        let range = match (probe("\u{1}"), probe("\u{2}")) {
            (Some(one), Some(two)) if one.len() == two.len() && one != two => {
                let front = common_prefix(&one, &two);
                let behind = one.len() - front - 1;
                let fits = one.is_char_boundary(front)
                    && one.ends_with(&two[front + 1..])
                    && text.len() >= front + behind
                    && text.starts_with(&one[..front])
                    && text.ends_with(&one[front + 1..]);
                fits.then(|| front..text.len() - behind)
            }
            _ => None,
        };
        range.unwrap_or(0..text.len())
    }

    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME).map_err(refused)?;
        template
            .render(context! {
                messages => messages.iter().map(as_value).collect::<Vec<Value>>(),
                add_generation_prompt => add_generation_prompt,
                bos_token => &self.bos,
                eos_token => &self.eos,
            })
            .map_err(refused)
    }
}

fn as_value(message: &Message) -> Value {
    context! { role => &message.role, content => &message.content }
}

fn common_prefix(left: &str, right: &str) -> usize {
    left.bytes().zip(right.bytes()).take_while(|(a, b)| a == b).count()
}

fn refused(error: Error) -> ChatError {
    match error.kind() {
        ErrorKind::OutOfFuel => ChatError::Endless,
        _ => ChatError::Refused(error.detail().map_or_else(|| error.to_string(), str::to_owned)),
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// JSON as Python's `json.dumps` writes it inside these templates: with spaces, not escaped for HTML.
fn to_json(value: &Value, indent: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let _python_has_it_and_we_always_keep_unicode: Option<bool> = kwargs.get("ensure_ascii")?;
    let json = minijinja::filters::tojson(value, indent, kwargs)?;
    Ok(Value::from_safe_string(without_html_escapes(json.as_str().unwrap_or_default())))
}

/// Undoes the four escapes that the filter makes for HTML; all other escapes stay.
fn without_html_escapes(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let plain = [("\\u003c", "<"), ("\\u003e", ">"), ("\\u0026", "&"), ("\\u0027", "'")];
        match plain.iter().find(|(escape, _)| rest[at..].starts_with(escape)) {
            Some((escape, character)) => {
                text.push_str(character);
                rest = &rest[at + escape.len()..];
            }
            None => {
                let end = (at + 2).min(rest.len());
                text.push_str(&rest[at..end]);
                rest = &rest[end..];
            }
        }
    }
    text + rest
}

#[cfg(test)]
#[path = "chat/chat_test.rs"]
mod chat_test;
