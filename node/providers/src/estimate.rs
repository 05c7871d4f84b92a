//! How many tokens a prompt has, before a provider counts them. Pure.
//!
//! Two numbers, for two questions. *Likely* is for choosing and for windows: it follows what the provider reported, in
//! tokens a byte. *Worst* is for money: no prompt has more, so that what is reserved covers what is billed.
//!
//! Why worst holds: tokenizers of today's providers work on bytes or fall back to bytes, so that a text has no more
//! tokens than bytes; templates add a bounded frame around messages and tools ([`bounds`](crate::bounds)). A learned
//! ratio would not hold (one page of another script breaks it), so worst never uses it. What makes worst near the truth
//! in long conversations is memory: where the provider counted a conversation's beginning, that count stands, and only
//! what came since is taken by bytes. A provider that reports more than worst is told as overage, and all memory of
//! its counts is dropped.

use crate::bounds::{FRAME_TOKENS, MESSAGE_TOKENS, REMEMBERED_PROMPTS, TOOL_TOKENS, TOOLS_TOKENS};
use crate::request::{Message, Request, Tool};
use std::collections::{BTreeMap, VecDeque};
use types::Hash;

/// Before anything was reported: four bytes a token.
const FIRST_RATIO_MILLI: u64 = 250;
/// Likely stays between one token for 16 bytes and one for each.
const LEAST_RATIO_MILLI: u64 = 62;
const MOST_RATIO_MILLI: u64 = 1000;
/// Frames would blur the ratio of shorter prompts.
const LEARNED_BYTES: u64 = 256;

/// Tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// For windows and choices.
    pub likely: u64,
    /// For reservations: no fewer than will be billed.
    pub worst: u64,
    /// Of the beginning, counted by the provider in an earlier call: it may still be in its cache.
    pub remembered: u64,
}

/// Learns one endpoint's counts.
#[derive(Debug)]
pub(crate) struct Estimator {
    ratio_milli: u64,
    counted: BTreeMap<Hash, u64>,
    order: VecDeque<Hash>,
}

impl Default for Estimator {
    fn default() -> Self {
        Estimator { ratio_milli: FIRST_RATIO_MILLI, counted: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl Estimator {
    pub(crate) fn estimate(&self, request: &Request) -> Estimate {
        let keys = prefix_keys(request);
        // keys[n] stands for the tools and n messages.
        let found = (1..keys.len()).rev().find_map(|n| Some((n, *self.counted.get(&keys[n])?)));
        let (known_messages, remembered) = found.unwrap_or((0, 0));
        let fresh = &request.messages[known_messages..];
        let bytes: u64 = fresh.iter().map(Message::bytes).sum();
        let frames = MESSAGE_TOKENS * fresh.len() as u64;
        let (base, base_bytes) =
            if known_messages > 0 { (remembered, 0) } else { (frame(request), tool_bytes(request)) };
        let worst = base + base_bytes + bytes + frames;
        let likely = remembered + (bytes + base_bytes) * self.ratio_milli / 1000 + frames / 2 + 1;
        Estimate { likely: likely.min(worst), worst, remembered }
    }

    /// The provider counted this prompt, and the count was believed.
    pub(crate) fn learn(&mut self, request: &Request, prompt_tokens: u64) {
        let bytes = tool_bytes(request) + message_bytes(request);
        if bytes >= LEARNED_BYTES {
            let ratio = (prompt_tokens * 1000 / bytes).clamp(LEAST_RATIO_MILLI, MOST_RATIO_MILLI);
            self.ratio_milli = (self.ratio_milli * 7 + ratio).div_ceil(8);
        }
        let Some(key) = prefix_keys(request).pop() else { return };
        if self.counted.insert(key, prompt_tokens).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED_PROMPTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.counted.remove(&oldest);
        }
    }

    /// The provider counts otherwise than it did: nothing that it counted holds.
    pub(crate) fn forget(&mut self) {
        self.counted.clear();
        self.order.clear();
    }
}

/// Bytes that every provider's tokenizer sees. Tools are not in it: some templates leave them out.
pub(crate) fn message_bytes(request: &Request) -> u64 {
    request.messages.iter().map(Message::bytes).sum()
}

fn tool_bytes(request: &Request) -> u64 {
    request.tools.iter().map(bytes_of_tool).sum()
}

fn bytes_of_tool(tool: &Tool) -> u64 {
    (tool.name.len() + tool.description.len() + tool.schema.to_string().len()) as u64
}

/// What stands around messages.
fn frame(request: &Request) -> u64 {
    let tools = request.tools.len() as u64;
    // Schemas are rendered anew, with more white space than we send.
    let rendered = if tools > 0 { TOOLS_TOKENS + tools * TOOL_TOKENS + tool_bytes(request) } else { 0 };
    FRAME_TOKENS + rendered
}

/// For each beginning of the conversation its name, that of no message first.
fn prefix_keys(request: &Request) -> Vec<Hash> {
    let tools =
        request.tools.iter().map(|tool| format!("{}\0{}\0{}\0", tool.name, tool.description, tool.schema));
    let mut keys = vec![Hash::of(tools.collect::<String>().as_bytes())];
    for message in &request.messages {
        let before = keys[keys.len() - 1];
        keys.push(next_key(before, message));
    }
    keys
}

fn next_key(before: Hash, message: &Message) -> Hash {
    let role = [message.role as u8];
    let calls = message.calls.iter().map(|call| format!("{}\0{}\0{}\0", call.id, call.name, call.arguments));
    let calls: String = calls.collect();
    let call_id = message.call_id.as_deref().unwrap_or_default();
    let lengths = [message.text.len() as u64, calls.len() as u64].map(u64::to_le_bytes).concat();
    Hash::of_parts(&[
        &before.0,
        &role,
        &lengths,
        message.text.as_bytes(),
        calls.as_bytes(),
        call_id.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(texts: &[&str]) -> Request {
        let roles = |n: usize| if n.is_multiple_of(2) { Message::user } else { Message::assistant };
        let messages = texts.iter().enumerate().map(|(n, text)| roles(n)(text.to_string())).collect();
        Request { messages, max_tokens: 10, ..Request::default() }
    }

    #[test]
    fn worst_is_a_token_a_byte_and_the_frames() {
        let estimate = Estimator::default().estimate(&request(&["0123456789", "日本"]));
        assert_eq!(estimate.worst, 64 + 10 + 6 + 2 * 16);
        assert!(estimate.likely < estimate.worst);
        assert_eq!(estimate.remembered, 0);
        let tool = Tool { name: "t".into(), description: "d".into(), schema: json!({}) };
        let with_tool = Request { tools: vec![tool], ..request(&["0123456789", "日本"]) };
        assert_eq!(Estimator::default().estimate(&with_tool).worst, estimate.worst + 800 + 32 + 2 * 4);
    }

    #[test]
    fn what_the_provider_counted_stands_and_the_rest_is_taken_by_bytes() {
        let mut estimator = Estimator::default();
        let long = "word ".repeat(1000);
        estimator.learn(&request(&[&long]), 1007);
        let next = estimator.estimate(&request(&[&long, "0123456789", "more"]));
        assert_eq!((next.worst, next.remembered), (1007 + 10 + 4 + 2 * 16, 1007));
        assert!(next.likely >= 1007 && next.likely <= next.worst);
        let other = estimator.estimate(&request(&["another", "0123456789", "more"]));
        assert_eq!(other.remembered, 0, "another beginning");
        let tool = Tool { name: "t".into(), description: "d".into(), schema: json!({}) };
        let tools = estimator.estimate(&Request { tools: vec![tool], ..request(&[&long]) });
        assert_eq!(tools.remembered, 0, "other tools, another prompt");
        estimator.forget();
        assert_eq!(estimator.estimate(&request(&[&long])).remembered, 0);
    }

    #[test]
    fn likely_follows_reports_within_reason_and_worst_does_not_follow() {
        let mut estimator = Estimator::default();
        let asked = request(&["fresh text that was never counted, but long enough to tell"]);
        let before = estimator.estimate(&asked);
        for n in 0..50 {
            estimator.learn(&request(&[&format!("{n} {}", "x".repeat(1000))]), 500);
        }
        let after = estimator.estimate(&asked);
        assert!(after.likely > before.likely && after.worst == before.worst, "{before:?} {after:?}");
        for n in 0..50 {
            estimator.learn(&request(&[&format!("{n} {}", "y".repeat(1000))]), 0);
        }
        assert!(estimator.ratio_milli >= LEAST_RATIO_MILLI);
    }

    #[test]
    fn memory_is_bounded() {
        let mut estimator = Estimator::default();
        for n in 0..REMEMBERED_PROMPTS + 10 {
            estimator.learn(&request(&[&n.to_string()]), 5);
        }
        assert_eq!(estimator.counted.len(), REMEMBERED_PROMPTS);
        assert_eq!(estimator.order.len(), REMEMBERED_PROMPTS);
    }
}
