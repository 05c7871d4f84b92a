//! A view: the chain that one agent is allowed to see, in the order in which views share the most.
//!
//! A view with a segment that its reader may not see cannot be built, so nothing after this point has to ask again.

use crate::{Chain, Kind, Segment, Tokens, Visibility};
use std::sync::Arc;
use types::{Hash, limits};

/// Where a segment stands in a view. The order is the point: what most agents share comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    System,
    /// Shared by a team.
    Background,
    /// Shared notes of the task tree.
    TaskState,
    /// What the task was given.
    Input,
    /// What happened since.
    Private,
}

/// One place of a chain: which segment, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainItem {
    pub hash: Hash,
    pub part: Part,
    /// An input's name for people; empty for everything else.
    pub name: String,
}

/// Who reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    pub agent: String,
    /// Id of the root task.
    pub tree: String,
}

/// A chain that its reader may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    #[error(
        "agent {agent:?} may not see segment {} by {author:?}, which is visible to its {visible} only; \
         give the agent something it may see", .hash.short()
    )]
    Hidden { hash: Hash, agent: String, author: String, visible: &'static str },
    #[error("segment {} is a {} and cannot stand in the {part:?} part of a view", .hash.short(), .kind.name())]
    OutOfPlace { hash: Hash, kind: Kind, part: Part },
    #[error("the view has {given} segments, at most {limit} are allowed; give the agent fewer inputs")]
    TooMany { given: usize, limit: usize },
}

/// The view does not fit the model's window. Says by how much, and what takes the room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the context has {tokens} tokens and {new_tokens} more are to be generated, but the model's window is {window}: \
     {over} too many; the largest parts are {}", describe(.largest)
)]
pub struct TooLong {
    pub tokens: u64,
    pub new_tokens: u64,
    pub window: u64,
    pub over: u64,
    /// What it is, and its tokens; at most three, the largest first.
    pub largest: Vec<(String, u64)>,
}

fn describe(largest: &[(String, u64)]) -> String {
    let parts: Vec<String> = largest.iter().map(|(what, tokens)| format!("{what} ({tokens})")).collect();
    parts.join(", ")
}

/// Who is speaking, as chat templates call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    System,
    User,
    Assistant,
    /// What a tool said.
    Tool,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One message to render.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    pub text: String,
    /// The ids the model generated, all of them by one tokenizer; use these instead of the text.
    pub tokens: Option<Tokens>,
    /// To be continued: render it without its end of turn. Only the last message can be.
    pub open: bool,
    /// The segments it was made of.
    pub segments: Vec<Hash>,
    /// What it is, for people.
    pub label: String,
    /// Tools that the assistant calls.
    pub calls: Vec<MessageCall>,
    /// The id of the call that this is the result of.
    pub answers: Option<String>,
}

/// A tool call as a part of an assistant's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageCall {
    /// Unique in the conversation.
    pub id: String,
    pub name: String,
    /// A JSON object.
    pub arguments: String,
}

/// Whether a reader may have this segment in its view.
pub fn may_see(reader: &Reader, segment: &Segment) -> bool {
    match segment.visibility {
        Visibility::Agent => {
            segment.author == reader.agent && (segment.tree.is_empty() || segment.tree == reader.tree)
        }
        Visibility::Task => !segment.tree.is_empty() && segment.tree == reader.tree,
        Visibility::Project => true,
    }
}

/// What one agent sees, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    reader: Reader,
    /// Shared with whoever opened them: a view of a long history copies no text.
    items: Vec<(ChainItem, Arc<Segment>)>,
}

impl View {
    /// Puts the parts in order, keeping the order within each part.
    ///
    /// # Errors
    /// The first segment that the reader may not see, or that cannot stand where it was put.
    pub fn build<S: Into<Arc<Segment>>>(
        reader: Reader,
        items: Vec<(ChainItem, S)>,
    ) -> Result<View, ViewError> {
        let shared = |(item, segment): (ChainItem, S)| (item, segment.into());
        let mut items: Vec<(ChainItem, Arc<Segment>)> = items.into_iter().map(shared).collect();
        let (given, limit) = (items.len(), limits::CHAIN_SEGMENTS);
        if given > limit {
            return Err(ViewError::TooMany { given, limit });
        }
        for (item, segment) in &items {
            check_place(item, segment)?;
            check_visible(&reader, item, segment)?;
        }
        items.sort_by_key(|(item, _)| item.part);
        Ok(View { reader, items })
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    pub fn items(&self) -> &[(ChainItem, Arc<Segment>)] {
        &self.items
    }

    /// The chain of names. It cannot be too long: [`View::build`] counted.
    pub fn chain(&self) -> Chain {
        Chain::from_segments(self.items.iter().map(|(item, _)| item.hash))
            .expect("counted when the view was built")
    }

    /// The view as messages, ready for a template. An answer that was cut and continued is one message again.
    pub fn messages(&self) -> Vec<Message> {
        let inputs = self.items.iter().filter(|(item, _)| item.part == Part::Input).count();
        let mut messages: Vec<Message> = Vec::new();
        for (item, segment) in &self.items {
            match segment.kind {
                Kind::Tools => continue,
                Kind::ToolCall => {
                    self.call(item, segment, &mut messages);
                    continue;
                }
                _ => {}
            }
            let next = self.message(item, segment, inputs > 1);
            match messages.last_mut() {
                Some(last) if last.open && next.role == Role::Assistant => last.continue_with(next),
                Some(_) | None => messages.push(next),
            }
        }
        close_all_but_last(&mut messages);
        messages
    }

    fn message(&self, item: &ChainItem, segment: &Segment, headed: bool) -> Message {
        let role = self.role(item, segment);
        let header = headed && item.part == Part::Input && !item.name.is_empty();
        Message {
            role,
            text: if header { with_header(&item.name, &segment.text) } else { segment.text.clone() },
            tokens: segment.tokens.clone().filter(|_| role == Role::Assistant),
            open: segment.open && role == Role::Assistant,
            segments: vec![item.hash],
            label: label(item, segment),
            calls: Vec::new(),
            answers: (role == Role::Tool).then(|| item.name.clone()),
        }
    }

    /// A call belongs to the message that made it.
    fn call(&self, item: &ChainItem, segment: &Segment, messages: &mut Vec<Message>) {
        let call = MessageCall::read(&item.name, &segment.text);
        match messages.last_mut() {
            Some(last) if last.role == Role::Assistant => {
                last.calls.push(call);
                last.segments.push(item.hash);
            }
            Some(_) | None => {
                let silent = Segment::new(Kind::Message, segment.author.clone(), segment.visibility, "");
                let message = self.message(item, &silent, false);
                messages.push(Message { role: Role::Assistant, answers: None, calls: vec![call], ..message });
            }
        }
    }

    /// The tools of the view, as JSON.
    pub fn tools(&self) -> Option<&str> {
        let listed = self.items.iter().find(|(_, segment)| segment.kind == Kind::Tools);
        listed.map(|(_, segment)| segment.text.as_str())
    }

    fn role(&self, item: &ChainItem, segment: &Segment) -> Role {
        match item.part {
            Part::System => Role::System,
            Part::Background | Part::TaskState | Part::Input => Role::User,
            // A named segment is the result of the call of that name, whoever said it.
            Part::Private if !item.name.is_empty() && segment.kind != Kind::ToolCall => Role::Tool,
            Part::Private if segment.author != self.reader.agent => Role::User,
            // A summary is told to the agent, not said by it.
            Part::Private if matches!(segment.kind, Kind::ToolResult | Kind::Summary) => Role::User,
            Part::Private => Role::Assistant,
        }
    }

    /// Tells whether the view and `new_tokens` more fit a window. `counts` has the tokens of each message of
    /// [`View::messages`], as rendered. Answers the tokens of the view.
    ///
    /// # Errors
    /// The numbers of what does not fit.
    pub fn fits(&self, window: u64, new_tokens: u64, counts: &[u64]) -> Result<u64, TooLong> {
        let tokens = counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
        let total = tokens.saturating_add(new_tokens);
        if total <= window {
            return Ok(tokens);
        }
        let labels = self.messages().into_iter().map(|message| message.label);
        let mut largest: Vec<(String, u64)> = labels.zip(counts.iter().copied()).collect();
        largest.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        largest.truncate(3);
        Err(TooLong { tokens, new_tokens, window, over: total - window, largest })
    }
}

impl MessageCall {
    fn read(id: &str, text: &str) -> MessageCall {
        let call: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let field = |name: &str| call.get(name).cloned().unwrap_or_default();
        MessageCall {
            id: id.to_string(),
            name: field("name").as_str().unwrap_or_default().to_string(),
            arguments: field("arguments").to_string(),
        }
    }
}

impl Message {
    fn continue_with(&mut self, next: Message) {
        self.text.push_str(&next.text);
        self.tokens = match (self.tokens.take(), next.tokens) {
            (Some(mut so_far), Some(more)) if so_far.tokenizer == more.tokenizer => {
                so_far.ids.extend(more.ids);
                Some(so_far)
            }
            // Ids of two tokenizers cannot stand side by side; the text is tokenised anew.
            (Some(_), Some(_)) | (Some(_), None) | (None, _) => None,
        };
        self.open = next.open;
        self.segments.extend(next.segments);
    }
}

fn check_place(item: &ChainItem, segment: &Segment) -> Result<(), ViewError> {
    let unreadable = matches!(segment.kind, Kind::Record | Kind::Definition);
    let opens = matches!(segment.kind, Kind::System | Kind::Tools);
    let misplaced = opens != (item.part == Part::System);
    if unreadable || misplaced {
        return Err(ViewError::OutOfPlace { hash: item.hash, kind: segment.kind, part: item.part });
    }
    Ok(())
}

fn check_visible(reader: &Reader, item: &ChainItem, segment: &Segment) -> Result<(), ViewError> {
    if may_see(reader, segment) {
        return Ok(());
    }
    let visible = match segment.visibility {
        Visibility::Agent => "author",
        Visibility::Task => "task tree",
        Visibility::Project => "project",
    };
    let (agent, author) = (reader.agent.clone(), segment.author.clone());
    Err(ViewError::Hidden { hash: item.hash, agent, author, visible })
}

/// What comes after an open message has closed it, even when that was not its author.
fn close_all_but_last(messages: &mut [Message]) {
    if let Some((_, earlier)) = messages.split_last_mut() {
        earlier.iter_mut().for_each(|message| message.open = false);
    }
}

/// A name comes from outside: it must stay one line.
fn with_header(name: &str, text: &str) -> String {
    let line: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("# {line}\n\n{text}")
}

fn label(item: &ChainItem, segment: &Segment) -> String {
    match item.part {
        Part::Input if !item.name.is_empty() => format!("input {:?}", item.name),
        Part::Input => "the input".to_string(),
        Part::System => "the system prompt".to_string(),
        Part::Background | Part::TaskState | Part::Private => {
            format!("{} by {:?}", segment.kind.name(), segment.author)
        }
    }
}
