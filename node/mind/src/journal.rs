//! What is committed of a task: the records so far, summed up. Replay and a live commit both go through `take`.

use crate::record::FORMAT;
use crate::{CallEnd, Decision, Finish, StepRecord, ToolCall, condense};
use context::{ChainItem, Part};
use types::{Hash, Spent, TaskUid};

/// A record that is not the next of this journal. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("the journal is at step {at}, so the next record is {}, not {found}; load the records again", .at + 1)]
    OutOfOrder { at: u64, found: u64 },
    #[error("step {step} follows another record than the one before it; load the records again")]
    OtherPast { step: u64, expected: Option<Hash>, found: Option<Hash> },
    #[error(
        "step {step} has format {format} and needs a reader of {min_reader}, this one reads {FORMAT}; upgrade this node"
    )]
    TooNew { step: u64, format: u16, min_reader: u16 },
    #[error("step {step} comes after the end of the task")]
    AfterTheEnd { step: u64 },
    #[error("step {step} comes after the mind began to act")]
    Started { step: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Journal {
    /// The newest record, and how many there are.
    pub(crate) head: Option<Hash>,
    pub(crate) step: u64,
    /// The opening segments, then everything added.
    pub(crate) chain: Vec<ChainItem>,
    /// For each piece of the chain: model calls before it was there.
    pub(crate) joined: Vec<u32>,
    /// Hashes that steps bring in, but which open the chain: not to be added behind it.
    opening: Vec<Hash>,
    /// Steps that called the model.
    pub(crate) turns: u32,
    pub(crate) generated_tokens: u64,
    pub(crate) chain_tokens: u64,
    /// The model of several that has read the chain.
    pub(crate) model: Option<String>,
    pub(crate) spent: Spent,
    /// The answer that a budget cut, if one is waiting to be continued.
    pub(crate) answer: Option<Answer>,
    /// Children of each stage, in the order of the plan.
    pub(crate) stages: Vec<Vec<TaskUid>>,
    /// The segment that says which tools there are.
    pub(crate) tools: Option<Hash>,
    /// Signals up to this number are in here.
    pub(crate) heard: u64,
    /// The tool calls of the newest turn, until all have ended.
    pub(crate) turn: Option<Turn>,
    /// The chain's length when the task last took messages: a rollback goes back to it.
    pub(crate) mark: usize,
    /// The messages that it took then.
    pub(crate) asked: Vec<Hash>,
    /// What a child summarises now.
    pub(crate) condensing: Option<Condensing>,
    /// Model calls by the time that no summary could be had.
    pub(crate) gave_up: Option<u32>,
    /// Answers that did not fit the form of results.
    pub(crate) off_schema: u32,
    /// The model has answered, and nothing was said to the task since: the answer, and its step.
    pub(crate) answered: Option<(u64, Hash)>,
    pub(crate) ended: bool,
}

/// A part of the chain that a child summarises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condensing {
    pub(crate) from: u32,
    pub(crate) count: u32,
    pub(crate) tokens: u64,
    pub(crate) child: TaskUid,
}

/// The parts of an unfinished answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Tokens that the task generated before it: its sampling seed comes from there.
    pub(crate) before: u64,
    pub(crate) parts: Vec<Hash>,
    pub(crate) generated_tokens: u64,
}

impl Journal {
    /// `opening_added` are those of the opening's segments (or of what opens the children's chains) that the first
    /// step brings in.
    pub(crate) fn new(opening: Vec<ChainItem>, opening_added: Vec<Hash>) -> Self {
        let mark = opening.len();
        Journal {
            head: None,
            step: 0,
            joined: vec![0; opening.len()],
            chain: opening,
            opening: opening_added,
            turns: 0,
            generated_tokens: 0,
            chain_tokens: 0,
            model: None,
            spent: Spent::default(),
            answer: None,
            stages: Vec::new(),
            tools: None,
            heard: 0,
            turn: None,
            mark,
            asked: Vec::new(),
            condensing: None,
            gave_up: None,
            off_schema: 0,
            answered: None,
            ended: false,
        }
    }

    /// Whether a record is the next one.
    pub(crate) fn check(&self, record: &StepRecord) -> Result<(), ReplayError> {
        let (step, format, min_reader) = (record.n, record.format, record.min_reader);
        if min_reader > FORMAT {
            return Err(ReplayError::TooNew { step, format, min_reader });
        }
        if self.ended {
            return Err(ReplayError::AfterTheEnd { step });
        }
        if self.step.checked_add(1) != Some(step) {
            return Err(ReplayError::OutOfOrder { at: self.step, found: step });
        }
        if record.prev != self.head {
            return Err(ReplayError::OtherPast { step, expected: self.head, found: record.prev });
        }
        Ok(())
    }

    /// Takes in the next record.
    pub(crate) fn take(&mut self, hash: Hash, record: &StepRecord) {
        self.head = Some(hash);
        self.step = record.n;
        self.chain_tokens = record.chain_tokens;
        self.spent = self.spent.plus(record.spent);
        self.heard = record.heard.unwrap_or(self.heard);
        // Who writes a summary reads another chain.
        let of_chain = !matches!(record.decision, Decision::Condensed { .. });
        if let Some(route) = record.route.as_ref().filter(|_| of_chain) {
            self.model = Some(route.model.clone());
        }
        if let Some(tools) = record.tools {
            self.tools = Some(tools);
            self.opening.push(tools);
            // Behind the system prompt; where it stands among the others, the view says.
            self.chain.insert(0, item(tools, Part::System));
            self.joined.insert(0, 0);
            self.mark += 1;
        }
        if let Decision::Heard { rollback: true, .. } = record.decision {
            self.roll_back();
        }
        let added: Vec<Hash> =
            record.added.iter().copied().filter(|hash| !self.opening.contains(hash)).collect();
        let named = |(place, hash): (usize, &Hash)| ChainItem {
            hash: *hash,
            part: Part::Private,
            name: name_of(self, record, place),
        };
        let items: Vec<ChainItem> = added.iter().enumerate().map(named).collect();
        // A summary does not go to the end.
        if !matches!(record.decision, Decision::Condensed { .. }) {
            self.chain.extend(items);
        }
        self.take_decision(record, added);
        self.joined.resize(self.chain.len(), self.turns);
    }

    fn take_decision(&mut self, record: &StepRecord, added: Vec<Hash>) {
        match &record.decision {
            Decision::Called { finish, generated_tokens, .. } => {
                self.take_call(*finish, *generated_tokens, added)
            }
            Decision::Spawned { children, .. } => self.stages.push(children.clone()),
            Decision::Waited { .. } | Decision::Paused { .. } | Decision::Rested => {}
            Decision::Asked { finish, generated_tokens, calls, .. } => {
                self.take_call(*finish, *generated_tokens, added);
                self.turn = Some(Turn::new(record, calls));
            }
            Decision::Moved { begun, ended, spawned } => {
                let Some(turn) = &mut self.turn else { return };
                turn.take(record, begun, ended, spawned);
                self.turn.take_if(|turn| turn.is_over());
            }
            Decision::Heard { messages, .. } => {
                self.asked.clone_from(messages);
                self.answered = None;
                self.turn = None;
                self.mark = self.chain.len();
            }
            Decision::Answered { finish, generated_tokens, answer, .. } => {
                self.take_call(*finish, *generated_tokens, added);
                self.answered = Some((record.n, *answer));
            }
            Decision::OffSchema { finish, generated_tokens, .. } => {
                self.take_call(*finish, *generated_tokens, added);
                self.off_schema = self.off_schema.saturating_add(1);
            }
            Decision::Condensing { from, count, tokens, child } => {
                let (from, count, tokens, child) = (*from, *count, *tokens, *child);
                self.condensing = Some(Condensing { from, count, tokens, child });
            }
            Decision::Condensed { from, count, summary, generated_tokens, reason, .. } => {
                self.generated_tokens = self.generated_tokens.saturating_add(*generated_tokens);
                self.condensing = None;
                match summary {
                    Some(summary) => self.replace(*from as usize, *count as usize, *summary),
                    None if reason == condense::CUT_SHORT => {}
                    None => self.gave_up = Some(self.turns),
                }
            }
            Decision::Finished { finish, generated_tokens, .. } => {
                self.turns = self.turns.saturating_add(u32::from(finish.is_some()));
                self.generated_tokens = self.generated_tokens.saturating_add(*generated_tokens);
                self.ended = true;
            }
            Decision::Failed { generated_tokens, .. } => {
                self.generated_tokens = self.generated_tokens.saturating_add(*generated_tokens);
                self.ended = true;
            }
        }
    }

    /// Forgets what came after the last messages.
    fn roll_back(&mut self) {
        self.chain.truncate(self.mark);
        self.joined.truncate(self.mark);
        // A summary of what is taken back is for nobody.
        self.condensing.take_if(|it| it.from as usize + it.count as usize > self.mark);
        (self.turn, self.answer, self.answered) = (None, None, None);
    }

    /// A summary stands for a part of the chain, and is as old as the newest of it.
    fn replace(&mut self, from: usize, count: usize, summary: Hash) {
        let end = from + count;
        if count == 0 || end > self.chain.len() {
            return;
        }
        let joined = self.joined[end - 1];
        self.chain.splice(from..end, [item(summary, Part::Private)]);
        self.joined.splice(from..end, [joined]);
        if end <= self.mark {
            self.mark -= count - 1;
        }
    }

    fn take_call(&mut self, finish: Finish, generated_tokens: u64, added: Vec<Hash>) {
        self.turns = self.turns.saturating_add(1);
        let before = self.generated_tokens;
        self.generated_tokens = before.saturating_add(generated_tokens);
        match finish {
            Finish::Budget => {
                let fresh = || Answer { before, parts: Vec::new(), generated_tokens: 0 };
                let answer = self.answer.get_or_insert_with(fresh);
                answer.parts.extend(added);
                answer.generated_tokens = answer.generated_tokens.saturating_add(generated_tokens);
            }
            Finish::Stop | Finish::Length => self.answer = None,
        }
    }
}

/// Calls and their results are known by the turn's step and their place in it; the answer itself has no name.
fn name_of(journal: &Journal, record: &StepRecord, place: usize) -> String {
    match (&record.decision, &journal.turn) {
        (Decision::Asked { .. }, _) if place > 0 => call_id(record.n, place as u32 - 1),
        (Decision::Moved { ended, .. }, Some(turn)) => {
            ended.get(place).map_or_else(String::new, |end| call_id(turn.step, end.index))
        }
        _ => String::new(),
    }
}

/// With the task's uid the operation's id.
pub(crate) fn call_id(step: u64, index: u32) -> String {
    format!("{step}.{index}")
}

/// The tool calls of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The step in which the model asked.
    pub(crate) step: u64,
    pub(crate) calls: Vec<Call>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) made: ToolCall,
    pub(crate) state: CallState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallState {
    /// Nothing of it is under way.
    Waiting,
    /// It may be under way: the step that said so.
    Begun(u64),
    Spawned(TaskUid),
    Over,
}

impl Turn {
    fn new(record: &StepRecord, calls: &[ToolCall]) -> Turn {
        let call = |made: &ToolCall| Call {
            made: made.clone(),
            state: if made.begun { CallState::Begun(record.n) } else { CallState::Waiting },
        };
        Turn { step: record.n, calls: calls.iter().map(call).collect() }
    }

    fn take(&mut self, record: &StepRecord, begun: &[u32], ended: &[CallEnd], spawned: &[(u32, TaskUid)]) {
        for index in begun {
            self.set(*index, CallState::Begun(record.n));
        }
        for end in ended {
            self.set(end.index, CallState::Over);
        }
        for (index, uid) in spawned {
            self.set(*index, CallState::Spawned(*uid));
        }
    }

    fn set(&mut self, index: u32, state: CallState) {
        if let Some(call) = self.calls.get_mut(index as usize) {
            call.state = state;
        }
    }

    fn is_over(&self) -> bool {
        self.calls.iter().all(|call| call.state == CallState::Over)
    }
}

pub(crate) fn item(hash: Hash, part: Part) -> ChainItem {
    ChainItem { hash, part, name: String::new() }
}
