//! What a task asks of people, and what they say to it: verdicts on tool calls, answers, messages.
//!
//! What was said is kept in the row until the task's journal has it: a task hears everything once, in order, however
//! often it moves. Texts are segments, here are their hashes.

use crate::change::{Change, check_name, check_text, invalid, not_found};
use crate::command::{Next, RequestKey};
use crate::effect::Effect;
use crate::reply::{Refusal, Reply};
use crate::requests::Memory;
use crate::rows::TaskRow;
use crate::stop::wrong_state;
use minicbor::{Decode, Encode};
use types::{Hash, NodeId, ProjectName, TaskState, TaskUid, limits};

/// What is open between a task and people. A task that never asked and was never told anything has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Talk {
    /// Open questions, in the order in which they were asked.
    #[n(0)]
    pub asks: Vec<Ask>,
    /// What was said and is not in the journal yet, in order.
    #[n(1)]
    pub inbox: Vec<Signal>,
    /// The number of the newest signal.
    #[n(2)]
    pub said: u64,
}

/// An open question. Its id is the task's step and the call's place in it (`3.0`), so it is asked once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ask {
    #[n(0)]
    pub id: String,
    #[n(1)]
    pub kind: AskKind,
    /// The tool, where it is about one.
    #[n(2)]
    pub about: String,
    /// The exact arguments, or the question.
    #[n(3)]
    pub text: Option<Hash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum AskKind {
    /// May this call be made?
    #[n(0)]
    Approval,
    #[n(1)]
    Question,
    /// The call was made and nobody knows how it ended; it is never made again.
    #[n(2)]
    Unknown,
    /// The same, of a call that may be made again if a person says so.
    #[n(3)]
    UnknownMayRepeat,
    /// The task has answered and waits for the next message.
    #[n(4)]
    Message,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Signal {
    #[n(0)]
    pub number: u64,
    #[n(1)]
    pub kind: SignalKind,
    /// The question that it answers; empty for a message.
    #[n(2)]
    pub ask: String,
    #[n(3)]
    pub text: Option<Hash>,
    #[n(4)]
    pub author: String,
    #[n(5)]
    pub at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SignalKind {
    #[n(0)]
    Approve,
    /// Also of an unknown outcome: the call counts as failed.
    #[n(1)]
    Reject,
    /// The answer to a question, or how an unknown call ended.
    #[n(2)]
    Answer,
    /// Make the call again.
    #[n(3)]
    Repeat,
    /// Only to a task that waits for one.
    #[n(4)]
    Message,
    /// A message that waits for its turn.
    #[n(5)]
    Enqueue,
    /// A message that stops what the task does now, and keeps it.
    #[n(6)]
    Interrupt,
    /// A message in place of what the task did since the last one.
    #[n(7)]
    Rollback,
}

impl SignalKind {
    fn answers(self, kind: AskKind) -> bool {
        match self {
            SignalKind::Approve => kind == AskKind::Approval,
            SignalKind::Reject => kind != AskKind::Message,
            SignalKind::Answer => {
                matches!(kind, AskKind::Question | AskKind::Unknown | AskKind::UnknownMayRepeat)
            }
            SignalKind::Repeat => kind == AskKind::UnknownMayRepeat,
            SignalKind::Message | SignalKind::Enqueue | SignalKind::Interrupt | SignalKind::Rollback => false,
        }
    }

    /// A message that does not wait for its turn.
    fn stops(self) -> bool {
        matches!(self, SignalKind::Interrupt | SignalKind::Rollback)
    }

    fn is_message(self) -> bool {
        matches!(
            self,
            SignalKind::Message | SignalKind::Enqueue | SignalKind::Interrupt | SignalKind::Rollback
        )
    }
}

impl Signal {
    /// Whether a task that waits for answers to these goes on because of it. Another message waits with it.
    fn stirs(&self, asked: &[Ask]) -> bool {
        let answers =
            |ask: &Ask| ask.id == self.ask || (ask.kind == AskKind::Message && self.kind.is_message());
        self.kind.stops() || asked.iter().any(answers)
    }
}

pub(crate) struct Said<'a> {
    pub project: &'a ProjectName,
    pub task: TaskUid,
    pub kind: SignalKind,
    pub ask: &'a str,
    pub text: Option<Hash>,
    pub home: &'a [NodeId],
    pub request: &'a RequestKey,
}

/// Keeps what was said and wakes the task. The reply is the task.
pub(crate) fn signal(change: &mut Change<'_>, said: &Said<'_>) -> Result<Reply, Refusal> {
    let scope = format!("projects/{}", said.project);
    if let Some(reply) = change.recall(said.request, &scope)? {
        return Ok(reply);
    }
    let row = change.find(said.task)?;
    if row.project != *said.project {
        return Err(not_found("task", &said.task.to_string()));
    }
    check_said(row, said)?;
    if said.text.is_some() {
        change.durable_home(said.home)?;
    }
    let asked = row_asks(change.row(said.task));
    let heard = change.members(said.home);
    let at_ms = change.state.wall_ms();
    change.update(said.task, |row| {
        let more = heard.iter().filter(|node| !row.home.contains(node)).copied();
        row.home = row.home.iter().copied().chain(more).collect::<Vec<_>>().into();
        let talk = row.talk.get_or_insert_default();
        talk.said += 1;
        talk.asks.retain(|ask| said.ask.is_empty() || ask.id != said.ask);
        talk.inbox.push(Signal {
            number: talk.said,
            kind: said.kind,
            ask: said.ask.to_string(),
            text: said.text,
            author: said.request.author.clone(),
            at_ms,
        });
    });
    change.wake(said.task, &asked);
    change.remember(said.request, &scope, Memory::Task(said.task));
    Ok(Reply::Task(Box::new(change.row(said.task).clone())))
}

fn row_asks(row: &TaskRow) -> Vec<Ask> {
    row.talk.as_deref().map_or_else(Vec::new, |talk| talk.asks.clone())
}

fn check_said(row: &TaskRow, said: &Said<'_>) -> Result<(), Refusal> {
    if row.state.is_final() || row.state == TaskState::Cancelling {
        return Err(wrong_state(row.state));
    }
    let none = Talk::default();
    let talk = row.talk.as_deref().unwrap_or(&none);
    if talk.inbox.len() >= limits::TASK_INBOX {
        let why = format!("holds {} signals that were not heard yet; wait for the task", talk.inbox.len());
        return Err(invalid("inbox", why));
    }
    if said.kind.is_message() {
        return check_message(row, talk, said);
    }
    check_text("ask", said.ask)?;
    if talk.inbox.iter().any(|signal| signal.ask == said.ask) {
        return Err(Refusal::Answered { ask: said.ask.to_string() });
    }
    match talk.asks.iter().find(|ask| ask.id == said.ask) {
        None => Err(not_found("open question", said.ask)),
        Some(ask) if !said.kind.answers(ask.kind) => {
            let why = format!("{:?} does not answer a question of the kind {:?}", said.kind, ask.kind);
            Err(invalid("kind", why))
        }
        Some(_) if said.kind == SignalKind::Answer && said.text.is_none() => {
            Err(invalid("text", "is missing: an answer has one"))
        }
        Some(_) => Ok(()),
    }
}

fn check_message(row: &TaskRow, talk: &Talk, said: &Said<'_>) -> Result<(), Refusal> {
    if !said.ask.is_empty() {
        return Err(invalid("ask", "is given, but a message answers no question"));
    }
    if said.text.is_none() {
        return Err(invalid("text", "is missing: a message has one"));
    }
    let waits = talk.asks.iter().any(|ask| ask.kind == AskKind::Message) && talk.inbox.is_empty();
    if said.kind == SignalKind::Message && !waits {
        return Err(Refusal::Busy { state: row.state.name().to_string() });
    }
    Ok(())
}

/// What a step may ask.
pub(crate) fn check_asks(asks: &[Ask]) -> Result<(), Refusal> {
    if asks.len() > limits::TASK_ASKS {
        return Err(invalid("asks", format!("{} given, at most {}", asks.len(), limits::TASK_ASKS)));
    }
    asks.iter().try_for_each(|ask| {
        check_name("ask", &ask.id)?;
        check_text("ask about", &ask.about)
    })
}

/// What must hold of a row.
pub(crate) fn check(row: &TaskRow) -> Result<(), String> {
    let talk = row.talk.as_deref();
    let asks = talk.is_some_and(|talk| !talk.asks.is_empty());
    if row.state == TaskState::WaitingInput && !asks {
        return Err("who waits for people has asked them".to_string());
    }
    let heard = |talk: &Talk| talk.said - talk.inbox.len() as u64;
    let in_order =
        |talk: &Talk| talk.inbox.iter().map(|signal| signal.number).eq(heard(talk) + 1..=talk.said);
    if talk.is_some_and(|talk| !in_order(talk)) {
        return Err("signals are numbered without a gap".to_string());
    }
    Ok(())
}

impl Change<'_> {
    /// A step says up to where the task has heard, and what it asks from now on.
    pub(crate) fn hear(&mut self, uid: TaskUid, next: &Next) {
        let (heard, asks) = match next {
            Next::GoOn { heard } | Next::WaitFor { heard, .. } | Next::WaitBudget { heard, .. } => {
                (*heard, &[][..])
            }
            Next::WaitTool { heard, asks, .. } | Next::WaitInput { heard, asks } => (*heard, asks.as_slice()),
            Next::Continue
            | Next::WaitChildren
            | Next::Done { .. }
            | Next::Failed { .. }
            | Next::PausedError { .. } => (0, &[][..]),
        };
        if self.row(uid).talk.is_none() && asks.is_empty() {
            return;
        }
        self.update(uid, |row| {
            let talk = row.talk.get_or_insert_default();
            talk.inbox.retain(|signal| signal.number > heard);
            let open = |ask: &&Ask| !talk.inbox.iter().any(|signal| signal.ask == ask.id);
            talk.asks = asks.iter().filter(open).cloned().collect();
        });
    }

    /// Stands still for people, unless they spoke meanwhile.
    pub(crate) fn wait_for_people(&mut self, uid: TaskUid, asked: &[Ask]) {
        let talk = self.row(uid).talk.as_deref().cloned().unwrap_or_default();
        match talk.asks.first() {
            Some(ask) if !talk.inbox.iter().any(|signal| signal.stirs(asked)) => {
                let reason = match ask.kind {
                    AskKind::Approval => "approval",
                    AskKind::Question => "question",
                    AskKind::Unknown | AskKind::UnknownMayRepeat => "UNKNOWN",
                    AskKind::Message => "message",
                };
                self.enter(uid, TaskState::WaitingInput, reason);
            }
            _ => self.enter(uid, TaskState::Pending, "signalled"),
        }
    }

    /// Something was said: a task that waits for people goes on, the holder of another one hears of it.
    fn wake(&mut self, uid: TaskUid, asked: &[Ask]) {
        let row = self.row(uid);
        let newest = row.talk.as_deref().and_then(|talk| talk.inbox.last());
        let stirs = newest.is_some_and(|signal| signal.stirs(asked));
        match (row.state, row.node, row.epoch) {
            (TaskState::WaitingInput, ..) if !stirs => {}
            (TaskState::WaitingInput, ..) => self.enter(uid, TaskState::Pending, "signalled"),
            (_, Some(node), Some(epoch)) => self.effect(Effect::Signalled { task: uid, node, epoch }),
            _ => {}
        }
    }
}
