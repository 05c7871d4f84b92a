//! The suffix-stable rule: what one more message adds to a chain that is never rendered again.
//!
//! 1. Where rendering the longer conversation begins with rendering the shorter one, the rest is the new text.
//! 2. Templates that change *earlier* messages (they strip the thinking of former answers, repeat the tools in
//!    front of the newest question) still say what they put behind the last of them. That message's content is
//!    replaced by a stand-in, and what follows it in the longer rendering, without what follows it in the
//!    shorter one, is the new text. The chain keeps what it has: former thinking stays until its owner drops
//!    the segment, tools stay where they were.
//! 3. Templates that put the results of several calls into one turn would have to reopen it for one result
//!    more. Such a result gets a turn of its own, as if it were the first. Results given together share one.
//! 4. A leading system message that a template refuses to render alone is rendered with the next message.
//! 5. Everything else is an error that says where the rewriting begins.

use minijinja::Value;

use super::guard::{Rendered, STAND_IN};
use super::message::{ChatOptions, Message};
use super::{Chat, ChatError, check_role};

/// Rendered text still in hidden form, and whether ordinary text stands in front of it.
struct Suffix {
    hidden: String,
    behind: String,
}

impl Chat {
    /// What the template adds for one more message (and, with `add_generation_prompt`, the opening of the
    /// answer). The first message brings whatever the template puts in front, such as a default system text.
    pub fn render_next(
        &self,
        prior: &[Message],
        next: &Message,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let next = std::slice::from_ref(next);
        let (rendered, _) = self.grown(prior, next, &ChatOptions::default(), add_generation_prompt)?;
        Ok(rendered.text)
    }

    /// What the template adds for some new messages, and the end of the text that it is added to.
    pub(crate) fn grown(
        &self,
        prior: &[Message],
        new: &[Message],
        options: &ChatOptions,
        add_generation_prompt: bool,
    ) -> Result<(Rendered, String), ChatError> {
        prior.iter().chain(new).try_for_each(check_role)?;
        let growth = Growth { chat: self, options, add_generation_prompt };
        let Suffix { hidden, behind } = growth.suffix(prior, new)?;
        Ok((self.guard.reveal(&hidden), behind))
    }

    /// What the template adds after an answer's content (usually the end-of-turn token and a newline): the
    /// text that closes a generated answer before the next message. `prior` ends before the answer. The answer
    /// itself is not looked at: its tokens are what the model generated.
    pub fn after_answer(&self, prior: &[Message], _answer: &str) -> Result<String, ChatError> {
        self.closing(prior, &ChatOptions::default())
    }

    pub(crate) fn closing(&self, prior: &[Message], options: &ChatOptions) -> Result<String, ChatError> {
        prior.iter().try_for_each(check_role)?;
        let mut messages = self.values().messages(prior);
        messages.push(self.values().stand_in(&Message::new("assistant", "")));
        let hidden = self.render(&messages, options, false)?;
        let behind = behind_stand_in(&hidden).ok_or(ChatError::Rewrites { at: 0, len: hidden.len() })?;
        Ok(self.guard.reveal(behind).text)
    }
}

struct Growth<'a> {
    chat: &'a Chat,
    options: &'a ChatOptions,
    add_generation_prompt: bool,
}

impl Growth<'_> {
    fn suffix(&self, prior: &[Message], new: &[Message]) -> Result<Suffix, ChatError> {
        let refusal = match self.appended(prior, new) {
            Ok(suffix) => return Ok(suffix),
            Err(ChatError::Refused(_)) if is_lone_system(prior, new) => return Ok(Suffix::empty()),
            Err(error @ (ChatError::Rewrites { .. } | ChatError::Refused(_))) => error,
            Err(error) => return Err(error),
        };
        let anchored = || self.anchored(prior, new).ok();
        let own_turn = || self.in_own_turn(prior, new).ok();
        anchored().or_else(own_turn).ok_or(refusal)
    }

    /// Rule 1.
    fn appended(&self, prior: &[Message], new: &[Message]) -> Result<Suffix, ChatError> {
        let mut messages = self.chat.values().messages(prior);
        let before = self.before(prior, &messages)?;
        messages.extend(self.chat.values().messages(new));
        let whole = self.whole(&messages)?;
        cut(&before, &whole)
    }

    /// Rule 2.
    fn anchored(&self, prior: &[Message], new: &[Message]) -> Result<Suffix, ChatError> {
        let (last, earlier) = prior.split_last().ok_or(ChatError::Absent)?;
        let mut messages = self.chat.values().messages(earlier);
        messages.push(self.chat.values().stand_in(last));
        let shorter = self.chat.render(&messages, self.options, false)?;
        messages.extend(self.chat.values().messages(new));
        let longer = self.whole(&messages)?;
        match (behind_stand_in(&shorter), behind_stand_in(&longer)) {
            (Some(before), Some(whole)) => cut(before, whole),
            _ => Err(ChatError::Rewrites { at: 0, len: shorter.len() }),
        }
    }

    /// Rule 3.
    fn in_own_turn(&self, prior: &[Message], new: &[Message]) -> Result<Suffix, ChatError> {
        let is_result = |message: &Message| message.role == "tool";
        let results = prior.iter().rev().take_while(|message| is_result(message)).count();
        let without = &prior[..prior.len() - results];
        if results == 0 || !new.first().is_some_and(is_result) {
            return Err(ChatError::Absent);
        }
        self.appended(without, new).or_else(|_| self.anchored(without, new))
    }

    fn before(&self, prior: &[Message], values: &[Value]) -> Result<String, ChatError> {
        // Many templates look at the first message, so "no messages" is never rendered.
        if prior.is_empty() {
            return Ok(String::new());
        }
        match self.chat.render(values, self.options, false) {
            // Rule 4: nothing of it has been rendered yet.
            Err(ChatError::Refused(_)) if is_lone_system(&[], prior) => Ok(String::new()),
            other => other,
        }
    }

    fn whole(&self, messages: &[Value]) -> Result<String, ChatError> {
        self.chat.render(messages, self.options, self.add_generation_prompt)
    }
}

impl Suffix {
    fn empty() -> Suffix {
        Suffix { hidden: String::new(), behind: String::new() }
    }
}

fn cut(before: &str, whole: &str) -> Result<Suffix, ChatError> {
    match whole.strip_prefix(before) {
        Some(hidden) => Ok(Suffix { hidden: hidden.to_owned(), behind: before.to_owned() }),
        None => Err(ChatError::Rewrites { at: common_prefix(before, whole), len: before.len() }),
    }
}

fn is_lone_system(prior: &[Message], new: &[Message]) -> bool {
    let is_system = |message: &Message| matches!(message.role.as_str(), "system" | "developer");
    !new.is_empty() && prior.iter().chain(new).all(is_system)
}

fn behind_stand_in(text: &str) -> Option<&str> {
    text.rsplit_once(STAND_IN).map(|(_, behind)| behind)
}

fn common_prefix(left: &str, right: &str) -> usize {
    left.bytes().zip(right.bytes()).take_while(|(a, b)| a == b).count()
}
