//! The scripted provider: a model whose replies, usage and delays come from a TOML file.
//!
//! For tests of users' own agents and of ours. It is visible and deterministic: the same conversation gets the same
//! reply, word by word, on every node and after every restart. It never makes anything up: a conversation that no
//! `[[reply]]` matches is an error that says so.
//!
//! ```toml
//! window = 8192                  # tokens of prompt and answer; optional
//!
//! [[reply]]
//! when_agent = "writer"          # the agent's name; optional
//! when_contains = "merge"        # some message holds this text; optional
//! when_call = 0                  # only this try of a step (0 = first); optional
//! text = "All documents agree."  # what the model says …
//! delay_ms = 20                  # … after this long …
//! tokens_per_second = 50         # … at this pace
//! cached_tokens = 100            # usage to report; optional
//!
//! [[reply]]
//! when_results_below = 3         # fewer tool results than that are in the conversation; optional
//! when_message = 2               # only for the answer after so many messages of people; optional
//! text = "I look."               # may be left out beside calls
//! calls = [{ name = "files.read", arguments = '{"path": "page-{results}.md"}' }]
//!
//! `{results}` in a text or in arguments stands for the number of tool results so far, `{last}` in a text for the last.
//!
//! [[reply]]
//! when_contains = "overloaded"
//! fail = "OVERLOADED"            # instead of text: the call fails with this reason
//! fail_message = "try later"     # optional
//! retriable = true               # optional, default true
//! ```
//!
//! The first matching reply counts. A token is a word with the space behind it, at most 16 characters.

use super::{Ask, EndOfSpeech, ModelFailure, Prompt, Provider, ProviderFacts, Said};
use context::{Message, Role};
use futures::future::BoxFuture;
use mind::{SaidCall, ToolChoice};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use types::Hash;

const DEFAULT_WINDOW: u64 = 8192;
const TOKEN_CHARS: usize = 16;
/// A script is written by hand; larger is a mistake.
const SCRIPT_BYTES: u64 = 4 << 20;

/// A script that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error("cannot read the script {path}: {cause}; check [[provider]] file")]
    Unreadable { path: String, cause: std::io::Error },
    #[error(
        "the script {path} is too large ({bytes} bytes, at most {SCRIPT_BYTES}); split it over several providers"
    )]
    TooLarge { path: String, bytes: u64 },
    #[error("the script {path} is not right: {message}")]
    Malformed { path: String, message: String },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    window: Option<u64>,
    #[serde(default)]
    reply: Vec<Reply>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    when_agent: Option<String>,
    when_contains: Option<String>,
    when_call: Option<u32>,
    when_results_below: Option<u64>,
    when_message: Option<u64>,
    text: Option<String>,
    #[serde(default)]
    calls: Vec<ScriptedCall>,
    #[serde(default)]
    delay_ms: u64,
    tokens_per_second: Option<u64>,
    cached_tokens: Option<u64>,
    fail: Option<String>,
    fail_message: Option<String>,
    retriable: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptedCall {
    name: String,
    /// JSON, as a text.
    arguments: String,
}

/// Numbered prompts, by their segments and the length of their text.
type Counted = BTreeMap<(Vec<Hash>, usize), Arc<Vec<u32>>>;

/// A provider that reads its replies from a script.
pub struct Scripted {
    name: String,
    script: Script,
    /// Ids of messages by their segments: a long conversation is cut into words once.
    counted: Mutex<Counted>,
}

/// Messages that are remembered; the memory is emptied when it is full.
const COUNTED: usize = 8192;

impl Scripted {
    /// Reads a script file. `name` is the model's name, for messages.
    pub fn load(name: &str, file: &Path) -> Result<Self, ScriptError> {
        let path = file.display().to_string();
        let unreadable = |cause| ScriptError::Unreadable { path: path.clone(), cause };
        let bytes = std::fs::metadata(file).map_err(unreadable)?.len();
        if bytes > SCRIPT_BYTES {
            return Err(ScriptError::TooLarge { path, bytes });
        }
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        Self::parse(name, &path, &text)
    }

    /// Reads a script's text; `path` is for messages.
    pub fn parse(name: &str, path: &str, text: &str) -> Result<Self, ScriptError> {
        let malformed = |message: String| ScriptError::Malformed { path: path.into(), message };
        let script: Script = toml::from_str(text).map_err(|error| malformed(error.to_string()))?;
        for (index, reply) in script.reply.iter().enumerate() {
            reply.check().map_err(|why| malformed(format!("[[reply]] number {}: {why}", index + 1)))?;
        }
        if script.reply.is_empty() {
            return Err(malformed("it has no [[reply]]; write at least one".into()));
        }
        Ok(Scripted { name: name.into(), script, counted: Mutex::default() })
    }

    fn ids(&self, message: &Message) -> Arc<Vec<u32>> {
        // An open answer grows under the name of its first part.
        if message.segments.is_empty() || message.open {
            return Arc::new(ids_of(message));
        }
        let mut counted = self.counted.lock().expect("nothing panics while it holds the counts");
        if counted.len() >= COUNTED {
            counted.clear();
        }
        let key = (message.segments.clone(), message.text.len());
        counted.entry(key).or_insert_with(|| Arc::new(ids_of(message))).clone()
    }

    fn reply(&self, ask: &Ask) -> Result<&Reply, ModelFailure> {
        let found = self.script.reply.iter().find(|reply| reply.matches(ask));
        found.ok_or_else(|| {
            let message = format!(
                "no [[reply]] of the script of model {:?} matches agent {:?}, call {}; add one to the script (without \
                 when_ keys it matches everything)",
                self.name, ask.agent, ask.call
            );
            ModelFailure::lasting("SCRIPT_NO_REPLY", message)
        })
    }
}

impl Reply {
    fn check(&self) -> Result<(), String> {
        match (&self.text, &self.fail) {
            (Some(_), Some(_)) => Err("has both text and fail; keep one".into()),
            (None, Some(_)) if !self.calls.is_empty() => Err("has both calls and fail; keep one".into()),
            (None, None) if self.calls.is_empty() => Err("has neither text nor fail; write one".into()),
            _ if self.tokens_per_second == Some(0) => {
                Err("tokens_per_second = 0 never ends; leave it out".into())
            }
            (Some(text), None) if text.is_empty() => {
                Err("text is empty; a model says at least one word".into())
            }
            (None, Some(fail)) if fail.is_empty() => Err("fail is empty; write a reason".into()),
            _ => Ok(()),
        }
    }

    fn matches(&self, ask: &Ask) -> bool {
        self.when_agent.as_ref().is_none_or(|agent| *agent == ask.agent)
            && self.when_call.is_none_or(|call| call == ask.call)
            && self.when_results_below.is_none_or(|most| results(&ask.messages).count() < most as usize)
            && self.when_message.is_none_or(|nth| told(&ask.messages) == nth)
            && self
                .when_contains
                .as_ref()
                .is_none_or(|text| asked(&ask.messages).any(|m| m.text.contains(text)))
    }

    fn failure(&self) -> Option<ModelFailure> {
        let reason = self.fail.clone()?;
        let message = self.fail_message.clone().unwrap_or_else(|| "the script says so".into());
        Some(ModelFailure { reason, message, retriable: self.retriable.unwrap_or(true), lost: None })
    }
}

/// What tools said so far.
fn results(messages: &[Message]) -> impl Iterator<Item = &Message> {
    messages.iter().filter(|message| message.role == Role::Tool)
}

/// Messages of people so far.
fn told(messages: &[Message]) -> u64 {
    messages.iter().filter(|message| message.role == Role::User).count() as u64
}

/// Puts the conversation's facts into a text of the script.
fn filled(text: &str, ask: &Ask) -> String {
    if !text.contains('{') {
        return text.to_string();
    }
    let last = results(&ask.messages).last().map_or("", |message| message.text.as_str());
    text.replace("{results}", &results(&ask.messages).count().to_string()).replace("{last}", last)
}

/// The conversation without an answer that is being continued: a cut must not change which reply matches.
fn asked(messages: &[Message]) -> impl Iterator<Item = &Message> {
    messages.iter().filter(|message| !message.open)
}

/// Tokens of the answer that were said before it was cut.
pub(super) fn said_before(messages: &[Message]) -> usize {
    let open = messages.last().filter(|message| message.open);
    open.map_or(0, |message| tokens_of(message).len())
}

fn tokens_of(message: &Message) -> Vec<u32> {
    match &message.tokens {
        Some(tokens) if tokens.tokenizer == tokenizer() => tokens.ids.clone(),
        Some(_) | None => words(&message.text).map(id).collect(),
    }
}

pub(super) fn tokenizer() -> Hash {
    Hash::of(b"quorate scripted words 1")
}

pub(super) fn id(word: &str) -> u32 {
    let hash = Hash::of(word.as_bytes());
    u32::from_le_bytes([hash.0[0], hash.0[1], hash.0[2], hash.0[3]])
}

/// Cuts a text behind every run of white space and after at most 16 characters; the pieces join to the text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut after_space = false;
        let end = rest.char_indices().enumerate().find_map(|(count, (at, letter))| {
            let new_word = after_space && !letter.is_whitespace();
            after_space = letter.is_whitespace();
            (new_word || count == TOKEN_CHARS).then_some(at)
        });
        let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
        rest = behind;
        (!word.is_empty()).then_some(word)
    })
}

/// The role, what was said, and calls that are in no tokens yet.
fn ids_of(message: &Message) -> Vec<u32> {
    let calls = message.calls.iter().filter(|_| message.tokens.is_none());
    let calls = calls.flat_map(|call| words(&call.arguments)).map(id);
    [role_token(message.role)].into_iter().chain(tokens_of(message)).chain(calls).collect()
}

fn role_token(role: Role) -> u32 {
    id(role.as_str())
}

/// A conversation in words.
pub(super) fn prompt_of(messages: &[Message], tools: Option<&Arc<str>>) -> Prompt {
    conversation(tools, messages.iter().map(|message| Arc::new(ids_of(message))))
}

fn conversation(tools: Option<&Arc<str>>, messages: impl Iterator<Item = Arc<Vec<u32>>>) -> Prompt {
    let mut prompt = Prompt::default();
    prompt.ids.extend(tools.into_iter().flat_map(|tools| words(tools)).map(id));
    for ids in messages {
        prompt.ids.extend_from_slice(&ids);
        prompt.counts.push(ids.len() as u64);
    }
    prompt
}

impl Provider for Scripted {
    fn facts(&self) -> ProviderFacts {
        let window = self.script.window.unwrap_or(DEFAULT_WINDOW);
        ProviderFacts { window, tokenizer: tokenizer(), numerics: None }
    }

    fn prompt<'a>(
        &'a self,
        messages: &'a Arc<Vec<Message>>,
        tools: Option<&'a Arc<str>>,
    ) -> BoxFuture<'a, Result<Prompt, ModelFailure>> {
        Box::pin(std::future::ready(Ok(conversation(
            tools,
            messages.iter().map(|message| self.ids(message)),
        ))))
    }

    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<mpsc::Receiver<Said>, ModelFailure>> {
        Box::pin(async move {
            let reply = self.reply(&ask)?.clone();
            let (said, heard) = mpsc::channel(ask.max_new as usize + 1);
            tokio::spawn(perform(reply, ask, said));
            Ok(heard)
        })
    }
}

async fn perform(reply: Reply, ask: Ask, said: mpsc::Sender<Said>) {
    let told = match speak(&reply, &ask, &said).await {
        Ok(end) => said.try_send(end),
        Err(failure) => said.try_send(Said::Failed(failure)),
    };
    // Nobody listens any more: the agent is gone.
    drop(told);
}

async fn speak(reply: &Reply, ask: &Ask, said: &mpsc::Sender<Said>) -> Result<Said, ModelFailure> {
    let delayed = pause(ask, Duration::from_millis(reply.delay_ms)).await;
    if let Some(failure) = reply.failure() {
        return Err(failure);
    }
    let text = &filled(reply.text.as_deref().unwrap_or_default(), ask);
    let mut left = words(text).skip(said_before(&ask.messages)).peekable();
    let pace = reply
        .tokens_per_second
        .map_or(Duration::ZERO, |pace| Duration::from_secs(1) / pace.min(1_000_000) as u32);
    let (mut spoken, mut token_ids) = (String::new(), Vec::new());
    let mut going = delayed;
    while going && token_ids.len() < ask.max_new as usize {
        let Some(word) = left.next() else { break };
        going = pause(ask, pace).await;
        if !going {
            break;
        }
        token_ids.push(id(word));
        spoken.push_str(word);
        // The channel has room for every token; if it is closed nobody wants to know.
        let _ = said.try_send(Said::Token { id: id(word), text: word.into() });
    }
    let why = match (going, left.peek()) {
        (false, _) => EndOfSpeech::Stopped,
        (true, Some(_)) => EndOfSpeech::Length,
        (true, None) => EndOfSpeech::Stop,
    };
    let prompt_tokens = ask.prompt.ids.len() as u64;
    let cached_tokens = reply.cached_tokens.unwrap_or(0).min(prompt_tokens);
    // Calls come with the end of an answer; one that was cut has none yet.
    let ended = why == EndOfSpeech::Stop && ask.choice != ToolChoice::None;
    let call =
        |call: &ScriptedCall| SaidCall { name: call.name.clone(), arguments: filled(&call.arguments, ask) };
    let calls = ended.then(|| reply.calls.iter().map(call).collect());
    Ok(Said::End {
        why,
        text: spoken,
        token_ids,
        prompt_tokens,
        cached_tokens,
        calls,
        counted: None,
        waited_ms: None,
    })
}

/// Waits; false when the ask was stopped meanwhile.
async fn pause(ask: &Ask, how_long: Duration) -> bool {
    if how_long.is_zero() {
        return !ask.stop.is_cancelled();
    }
    ask.stop.run_until_cancelled(tokio::time::sleep(how_long)).await.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_join_to_the_text() {
        for text in [
            "",
            " ",
            "one",
            "one two  three\n",
            "  x",
            "überlangeswortohneende und mehr",
            "日本語のテキストは空白なしで続くものです",
        ] {
            let pieces: Vec<&str> = words(text).collect();
            assert_eq!(pieces.concat(), text);
            assert!(
                pieces.iter().all(|piece| piece.chars().count() <= TOKEN_CHARS && !piece.is_empty()),
                "{pieces:?}"
            );
        }
        assert_eq!(words("one two  three").collect::<Vec<_>>(), ["one ", "two  ", "three"]);
    }

    #[test]
    fn bad_scripts_are_refused_with_what_to_do() {
        let error = |text| Scripted::parse("m", "s.toml", text).err().expect("refused").to_string();
        assert!(error("[[reply]]\ntext = 'a'\ncolour = 1").contains("colour"));
        assert!(error("speed = 3").contains("speed"));
        assert!(error("").contains("no [[reply]]"));
        assert!(error("[[reply]]\ndelay_ms = 3").contains("number 1: has neither text nor fail"));
        assert!(error("[[reply]]\ntext = 'a'\nfail = 'B'").contains("keep one"));
        assert!(error("[[reply]]\ntext = 'a'\ntokens_per_second = 0").contains("never ends"));
        assert!(
            Scripted::load("m", Path::new("/nowhere/s.toml"))
                .err()
                .unwrap()
                .to_string()
                .contains("[[provider]]")
        );
    }
}
