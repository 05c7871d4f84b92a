//! An answer while it comes, in either wire form. Pure.
//!
//! What is said twice about an answer as a whole (its beginning, end, usage, a call's name) counts once; the last usage
//! stands. Text cannot be told from its repetition, because no form numbers its pieces: it is taken as it comes.

use crate::answer::{Failure, Finish, Heard, Piece, Reason};
use crate::bounds::{ARGUMENT_BYTES, CALLS, NAME_BYTES, TEXT_BYTES};
use crate::request::ToolCall;
use crate::tool_names::ToolNames;
use crate::usage::Reported;

/// What came is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Broken {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Broken { reason: Reason::BrokenAnswer, message: message.into() }
    }

    fn too_large(what: &str, most: usize) -> Self {
        Broken { reason: Reason::TooLarge, message: format!("{what} of the answer is larger than {most}") }
    }

    /// The provider had accepted the call: it may have worked.
    pub(crate) fn failure(self, destination: &str) -> Failure {
        let next = "the call is settled at what was set aside, and may be made again";
        Failure::unknown(
            self.reason,
            format!("the answer of {destination} cannot be used: {}; {next}", self.message),
        )
    }
}

/// A call whose arguments are still coming.
#[derive(Debug, Default)]
struct OpenCall {
    index: u64,
    id: String,
    name: String,
    arguments: String,
    told: bool,
}

/// An answer while it comes.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    names: ToolNames,
    text: String,
    unseen_bytes: u64,
    calls: Vec<OpenCall>,
    pieces: Vec<Piece>,
    pub(crate) finish: Option<Finish>,
    pub(crate) reported: Reported,
    pub(crate) provider_id: Option<String>,
    /// The stream's own mark of its end was seen: nothing behind it counts.
    pub(crate) ended: bool,
    /// Something of the answer came since this was last asked.
    moved: bool,
}

impl Gather {
    pub(crate) fn new(names: ToolNames) -> Self {
        Gather { names, ..Gather::default() }
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<(), Broken> {
        if text.is_empty() {
            return Ok(());
        }
        self.moved = true;
        if self.text.len() + text.len() > TEXT_BYTES {
            return Err(Broken::too_large("the text", TEXT_BYTES));
        }
        self.text.push_str(text);
        match self.pieces.last_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            Some(Piece::Call(_)) | None => self.pieces.push(Piece::Text(text.into())),
        }
        Ok(())
    }

    /// Thinking that is shown beside the answer: counted, not kept.
    pub(crate) fn unseen(&mut self, text: &str) {
        self.moved |= !text.is_empty();
        self.unseen_bytes += text.len() as u64;
    }

    /// A call begins, or is named again; empty parts say nothing.
    pub(crate) fn call(&mut self, index: u64, id: &str, name: &str) -> Result<(), Broken> {
        if id.len() > NAME_BYTES || name.len() > NAME_BYTES {
            return Err(Broken::too_large("the name of a call", NAME_BYTES));
        }
        self.moved = true;
        let call = self.open(index)?;
        if call.id.is_empty() {
            call.id.push_str(id);
        }
        if call.name.is_empty() {
            call.name.push_str(name);
        }
        Ok(())
    }

    pub(crate) fn arguments(&mut self, index: u64, part: &str) -> Result<(), Broken> {
        self.moved |= !part.is_empty();
        let call = self.open(index)?;
        if call.arguments.len() + part.len() > ARGUMENT_BYTES {
            return Err(Broken::too_large("the arguments of a call", ARGUMENT_BYTES));
        }
        // What comes behind the call's end belongs to nothing.
        if !call.told {
            call.arguments.push_str(part);
        }
        Ok(())
    }

    /// The call of this index, or a new one.
    fn open(&mut self, index: u64) -> Result<&mut OpenCall, Broken> {
        let at = match self.calls.iter().position(|call| call.index == index) {
            Some(at) => at,
            None if self.calls.len() == CALLS => return Err(Broken::too_large("the number of calls", CALLS)),
            None => {
                self.calls.push(OpenCall { index, ..OpenCall::default() });
                self.calls.len() - 1
            }
        };
        Ok(&mut self.calls[at])
    }

    /// How many calls there are.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.len() as u64
    }

    /// Which call an id belongs to, for servers that do not number them.
    pub(crate) fn index_of(&self, id: &str) -> Option<u64> {
        self.calls.iter().find(|call| !id.is_empty() && call.id == id).map(|call| call.index)
    }

    /// The provider says that the call is complete. One that is no JSON is left to the answer's end: it may have been cut.
    pub(crate) fn end_call(&mut self, index: u64) -> Result<(), Broken> {
        let whole = |call: &OpenCall| call.arguments.is_empty() || is_json(&call.arguments);
        match self.calls.iter().position(|call| call.index == index && !call.told && whole(call)) {
            Some(at) => self.tell(at),
            None => Ok(()),
        }
    }

    /// The answer is complete, and so are its calls; unless it ended at its limit, which cuts in the middle.
    pub(crate) fn end_calls(&mut self) -> Result<(), Broken> {
        let cut = self.finish == Some(Finish::Length);
        for at in 0..self.calls.len() {
            if !self.calls[at].told && (!cut || is_json(&self.calls[at].arguments)) {
                self.tell(at)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, at: usize) -> Result<(), Broken> {
        if self.calls[at].name.is_empty() {
            return Err(Broken::new("a tool call has no name"));
        }
        self.calls[at].told = true;
        let call = self.told(&self.calls[at]);
        self.pieces.push(Piece::Call(call));
        Ok(())
    }

    fn told(&self, call: &OpenCall) -> ToolCall {
        let id = if call.id.is_empty() { format!("call_{}", call.index) } else { call.id.clone() };
        // No arguments at all are an empty object for both forms.
        let bare = call.arguments.trim().is_empty();
        let arguments = if bare { "{}".to_string() } else { call.arguments.clone() };
        ToolCall { id, name: self.names.own_name(&call.name), arguments }
    }

    /// Pieces since this was last asked.
    pub(crate) fn take_pieces(&mut self) -> Vec<Piece> {
        std::mem::take(&mut self.pieces)
    }

    /// Whether something of the answer came since this was last asked.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// What there is, with complete calls only.
    pub(crate) fn heard(&self) -> Heard {
        let calls = self.calls.iter().filter(|call| call.told).map(|call| self.told(call)).collect();
        let open = self.calls.iter().filter(|call| !call.told);
        let open_bytes: usize = open.map(|call| call.name.len() + call.arguments.len()).sum();
        Heard { text: self.text.clone(), calls, unseen_bytes: self.unseen_bytes + open_bytes as u64 }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_once_when_they_are_complete() {
        let mut gather = Gather::default();
        gather.text("let me ").expect("small");
        gather.text("see").expect("small");
        gather.call(0, "c1", "time__now").expect("small");
        gather.call(0, "c1", "time__now").expect("the same again");
        gather.arguments(0, "{\"zone\":").expect("small");
        assert_eq!(gather.take_pieces(), [Piece::Text("let me see".into())]);
        assert!(gather.heard().calls.is_empty(), "not complete");
        gather.arguments(0, "1}").expect("small");
        gather.end_calls().expect("named");
        gather.end_calls().expect("again");
        gather.arguments(0, "late").expect("ignored");
        let call = ToolCall { id: "c1".into(), name: "time.now".into(), arguments: "{\"zone\":1}".into() };
        assert_eq!(gather.take_pieces(), [Piece::Call(call.clone())]);
        assert_eq!(gather.heard().calls, [call]);
        assert!(gather.take_moved() && !gather.take_moved());
    }

    #[test]
    fn everything_is_bounded() {
        let mut gather = Gather::default();
        let large = "x".repeat(TEXT_BYTES);
        gather.text(&large).expect("just");
        assert_eq!(gather.text("x").expect_err("too much").reason, Reason::TooLarge);
        (0..CALLS as u64).for_each(|n| gather.call(n, "", "t").expect("just"));
        assert_eq!(gather.call(CALLS as u64, "", "t").expect_err("too many").reason, Reason::TooLarge);
        gather.arguments(0, &"x".repeat(ARGUMENT_BYTES)).expect("just");
        assert_eq!(gather.arguments(0, "x").expect_err("too much").reason, Reason::TooLarge);
        assert!(gather.call(0, &"x".repeat(NAME_BYTES + 1), "").is_err());
        assert!(gather.heard().bytes() > TEXT_BYTES as u64 + ARGUMENT_BYTES as u64);
    }

    #[test]
    fn a_call_that_the_limit_cut_is_none() {
        let mut gather = Gather::default();
        for (index, arguments) in [(0, "{\"a\":1}"), (1, "{\"a\":")] {
            gather.call(index, "", "t").expect("small");
            gather.arguments(index, arguments).expect("small");
            gather.end_call(index).expect("named");
        }
        gather.finish = Some(Finish::Length);
        gather.end_calls().expect("named");
        let heard = gather.heard();
        assert_eq!((heard.calls.len(), heard.unseen_bytes), (1, 6));
        gather.finish = Some(Finish::Calls);
        gather.end_calls().expect("named");
        assert_eq!(
            gather.heard().calls[1].arguments,
            "{\"a\":",
            "the model meant it: whoever calls says what is wrong"
        );
    }

    #[test]
    fn a_call_without_a_name_is_no_call() {
        let mut gather = Gather::default();
        gather.arguments(3, "{}").expect("small");
        assert!(gather.end_calls().is_err());
    }
}
