//! What was run for a conversation, so that its next turn begins with the very same tokens.
//!
//! A client of the HTTP face sends its whole conversation as text every time. Rendering and tokenising it again
//! rarely gives the tokens that the model generated: it cut its words differently, or the template strips its
//! thinking. So the chain of every answer is remembered under the conversation that led to it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use blake3::{Hash, Hasher};

use super::{TextError, TextModel};
use crate::chat::{ChatOptions, Message};

/// Remembered chains, bounded by their tokens; the oldest is forgotten first.
#[derive(Debug)]
pub struct Chains {
    tokens_max: usize,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    chains: HashMap<Hash, Arc<[u32]>>,
    order: VecDeque<Hash>,
    tokens: usize,
}

impl Chains {
    /// A chain of a thousand tokens takes four kilobytes.
    pub fn new(tokens_max: usize) -> Chains {
        Chains { tokens_max, memory: Mutex::default() }
    }

    /// Keeps the tokens that were run for `messages`, of which the last is the generated answer as the client
    /// got it. `chain` is the prompt and the answer's tokens. Only conversations of the same `scope` (a project)
    /// find it again: what one client's model thought is nobody else's.
    pub fn remember(&self, scope: &[u8], messages: &[Message], options: &ChatOptions, chain: &[u32]) {
        let Some(key) = keys(scope, messages, options).pop().filter(|_| chain.len() <= self.tokens_max)
        else {
            return;
        };
        let mut memory = self.memory();
        memory.tokens += chain.len();
        match memory.chains.insert(key, chain.into()) {
            Some(former) => memory.tokens -= former.len(),
            None => memory.order.push_back(key),
        }
        while memory.tokens > self.tokens_max {
            let Some(oldest) = memory.order.pop_front() else { break };
            memory.tokens -= memory.chains.remove(&oldest).map_or(0, |chain| chain.len());
        }
    }

    /// The longest beginning of the conversation that ends with a remembered answer.
    fn longest(&self, keys: &[Hash], messages: &[Message]) -> Option<(usize, Arc<[u32]>)> {
        let memory = self.memory();
        let answers = (0..messages.len()).rev().filter(|&index| messages[index].role == "assistant");
        answers.filter_map(|index| Some((index, memory.chains.get(&keys[index])?.clone()))).next()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("nothing panics while it holds the memory")
    }
}

impl TextModel {
    /// Like [`TextModel::encode_chat`], but what was generated earlier is what it was: the tokens begin with the
    /// chain of the last answer that is remembered, whatever the template would make of its text today.
    pub fn encode_chat_onto(
        &self,
        chains: &Chains,
        scope: &[u8],
        messages: &[Message],
        options: &ChatOptions,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TextError> {
        let keys = keys(scope, messages, options);
        let grown = chains.longest(&keys, messages).filter(|(answer, _)| answer + 1 < messages.len());
        let grown = grown.map(|(answer, chain)| {
            let more = self.encode_behind_answer(messages, answer, options, add_generation_prompt)?;
            Ok::<_, TextError>([self.without_end(&chain), &more[..]].concat())
        });
        match grown {
            Some(Ok(tokens)) => Ok(tokens),
            // A template that can't go on from there can still render the whole; only the reuse is lost.
            Some(Err(_)) | None => self.encode_chat(messages, options, add_generation_prompt),
        }
    }

    fn encode_behind_answer(
        &self,
        messages: &[Message],
        answer: usize,
        options: &ChatOptions,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TextError> {
        let mut tokens = self.encode_closing(&messages[..answer], options)?;
        let (prior, new) = messages.split_at(answer + 1);
        tokens.extend(self.encode_more(prior, new, options, add_generation_prompt)?);
        Ok(tokens)
    }

    /// The end of an answer was sampled but belongs to the template's closing.
    fn without_end<'a>(&self, chain: &'a [u32]) -> &'a [u32] {
        let ends = chain.iter().rev().take_while(|&&token| self.tokenizer.is_end(token)).count();
        &chain[..chain.len() - ends]
    }
}

/// One key for each beginning of the conversation. Thinking is not part of it, because clients don't send it
/// back, nor are the ids of calls, because some renumber them.
fn keys(scope: &[u8], messages: &[Message], options: &ChatOptions) -> Vec<Hash> {
    let mut key = start(scope, options);
    let grow = |message: &Message| {
        let mut hasher = Hasher::new();
        hasher.update(key.as_bytes());
        part(&mut hasher, &message.role);
        part(&mut hasher, &message.content);
        for call in &message.tool_calls {
            part(&mut hasher, &call.name);
            part(&mut hasher, &canonical(&call.arguments));
        }
        key = hasher.finalize();
        key
    };
    messages.iter().map(grow).collect()
}

fn start(scope: &[u8], options: &ChatOptions) -> Hash {
    let mut hasher = Hasher::new();
    hasher.update(&(scope.len() as u64).to_le_bytes());
    hasher.update(scope);
    part(&mut hasher, &options.tools.as_ref().map(|tools| tools.to_json()).unwrap_or_default());
    part(&mut hasher, &format!("{:?} {:?}", options.now_unix_s, options.thinking));
    hasher.finalize()
}

fn part(hasher: &mut Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// Arguments without the freedom of JSON: clients may write them anew.
fn canonical(arguments: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(arguments) {
        Ok(mut value) => {
            value.sort_all_objects();
            value.to_string()
        }
        Err(_) => arguments.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ToolCall;

    fn conversation(answer: &str, arguments: &str) -> Vec<Message> {
        let call = ToolCall { id: "1".into(), name: "f".into(), arguments: arguments.into() };
        vec![Message::new("user", "q"), Message::new("assistant", answer).with_calls(vec![call])]
    }

    fn found(chains: &Chains, scope: &[u8], messages: &[Message]) -> bool {
        chains.longest(&keys(scope, messages, &ChatOptions::default()), messages).is_some()
    }

    #[test]
    fn an_answer_is_found_in_its_scope_however_its_arguments_are_written() {
        let chains = Chains::new(100);
        let options = ChatOptions::default();
        chains.remember(b"a", &conversation("x", "{\"k\": 1, \"j\": 2}"), &options, &[1, 2, 3]);
        assert!(found(&chains, b"a", &conversation("x", "{\"j\":2,\"k\":1}")));
        assert!(!found(&chains, b"b", &conversation("x", "{\"k\": 1, \"j\": 2}")));
        assert!(!found(&chains, b"a", &conversation("y", "{\"k\": 1, \"j\": 2}")));
        assert!(!found(&chains, b"a", &conversation("x", "{\"k\": 1}")));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let chains = Chains::new(100);
        let options = ChatOptions::default();
        for answer in ["1", "2", "3", "2"] {
            chains.remember(b"", &conversation(answer, "{}"), &options, &[0; 40]);
        }
        let known: Vec<bool> =
            ["1", "2", "3"].map(|answer| found(&chains, b"", &conversation(answer, "{}"))).into();
        assert_eq!(known, [false, true, true]);
        chains.remember(b"", &conversation("4", "{}"), &options, &[0; 101]);
        assert!(
            !found(&chains, b"", &conversation("4", "{}")) && found(&chains, b"", &conversation("3", "{}"))
        );
        assert_eq!(chains.memory().tokens, 80);
    }
}
