//! Live tokens of the tasks that run on this node: from the agents that make them to the doors that show them.
//!
//! It is a display, not a record: nothing here is durable and nothing waits for a slow watcher. The text of
//! the current step is kept whole, so that a late watcher gets it in one piece, and a slow one whose buffer
//! ran over gets what it missed in one piece, instead of a gap. The text of the steps before is kept for a while, for
//! watchers whose connection broke in the meantime.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::Stream;
use tokio::sync::broadcast::{self, error::RecvError};
use types::{ProjectName, TaskUid, limits};

/// Tasks that are watched here before they run here: a door may ask first. More are refused.
const WAITING_TASKS: usize = 4096;
/// Text kept for one step. A step's text is far below; beyond it late watchers miss the beginning.
const TEXT_BYTES: usize = 4 << 20;
/// Earlier steps kept of one task: as many as the ledger has events, and no more than so much text.
const STEPS: usize = limits::EVENTS_PER_TASK;
const STEPS_BYTES: usize = 256 << 10;
/// Tasks that ended here, or went elsewhere, whose text is kept, and how much of it.
const ENDED_TASKS: usize = 4096;
const ENDED_BYTES: usize = 32 << 20;

/// A piece of generated text. `offset` is the index of its first token among the tokens of the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveChunk {
    pub step: u64,
    /// The lease's epoch as text: another attempt starts again at offset 0.
    pub attempt: String,
    pub offset: u64,
    pub tokens: u32,
    pub text: String,
}

/// The task has all the watchers a node allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many watchers of live tokens on this node; close some, or watch through another node")]
pub struct TooManyWatchers;

/// The hub; clones are the same hub.
#[derive(Clone, Default)]
pub struct LiveTokens {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<Key, Arc<Topic>>,
    /// Tasks that run here, with the projects they belong to.
    running: BTreeMap<TaskUid, ProjectName>,
    /// Tasks that do not run here any more, the newest last, and the bytes of their texts.
    ended: VecDeque<(Key, Arc<Topic>)>,
    ended_bytes: usize,
}

type Key = (ProjectName, TaskUid);

/// What the watchers of one task share. It outlives its place in the hub while someone reads the rest.
struct Topic {
    text: Mutex<Text>,
    news: broadcast::Sender<()>,
}

#[derive(Default)]
struct Text {
    /// Steps and attempts before, the newest last.
    before: VecDeque<Step>,
    now: Option<Step>,
    ended: bool,
}

/// The step that is being generated, with all of its text.
#[derive(Default)]
struct Step {
    step: u64,
    attempt: String,
    tokens: u64,
    text: String,
    /// Where each chunk begins: its first token, and its first byte in `text`.
    marks: Vec<(u64, usize)>,
}

impl LiveTokens {
    /// A step begins, or begins again under another attempt: its text starts at offset 0.
    pub fn begin(&self, project: &ProjectName, task: TaskUid, step: u64, attempt: &str) {
        let mut state = self.lock();
        state.running.insert(task, project.clone());
        let topic = state.topics.entry((project.clone(), task)).or_insert_with(Topic::new);
        topic.change(|text| {
            text.keep();
            text.now = Some(Step { step, attempt: attempt.to_string(), ..Step::default() });
        });
    }

    /// Text was generated. A chunk that does not continue the step is dropped: the display waits for the next
    /// `begin` rather than show a hole.
    pub fn push(&self, task: TaskUid, offset: u64, tokens: u32, text: &str) {
        let Some(topic) = self.lock().running_topic(task) else { return };
        topic.change(|all| {
            if let Some(step) = all.now.as_mut().filter(|step| step.tokens == offset) {
                step.append(tokens, text);
            }
        });
    }

    /// The task does not run here any more. Its watchers' streams end when they have read the rest.
    pub fn end(&self, task: TaskUid) {
        let mut state = self.lock();
        let Some(project) = state.running.remove(&task) else { return };
        let key = (project, task);
        if let Some(topic) = state.topics.remove(&key) {
            topic.change(|text| text.ended = true);
            state.keep(key, topic);
        }
    }

    /// What was said here in a step, from a token of an attempt on; of another attempt than that, everything. None: not
    /// known, or nothing more than that.
    pub fn said(
        &self,
        project: &ProjectName,
        task: TaskUid,
        step: u64,
        after: &Said<'_>,
    ) -> Option<LiveChunk> {
        let key = (project.clone(), task);
        let state = self.lock();
        let old = state.ended.iter().rev().filter(|(other, _)| *other == key).map(|(_, topic)| topic);
        state.topics.get(&key).into_iter().chain(old).find_map(|topic| topic.text().said(step, after))
    }

    /// Watches a task of a project, from the beginning of the current step on. A task that does not run here
    /// yet is waited for; the stream ends when the task stops running here.
    pub fn subscribe(&self, project: &ProjectName, task: TaskUid) -> Result<LiveStream, TooManyWatchers> {
        let key = (project.clone(), task);
        let mut state = self.lock();
        if !state.topics.contains_key(&key) && state.topics.len() >= WAITING_TASKS + state.running.len() {
            return Err(TooManyWatchers);
        }
        let topic = state.topics.entry(key.clone()).or_insert_with(Topic::new).clone();
        if topic.news.receiver_count() >= limits::WATCHERS_PER_TASK {
            return Err(TooManyWatchers);
        }
        let (news, cursor) = (Some(topic.news.subscribe()), topic.text().cursor());
        Ok(Box::pin(watch(Watcher { hub: self.clone(), key, topic, news, cursor })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no call of the hub panics")
    }
}

impl State {
    /// Keeps the text of a task that ended, and forgets the oldest when that is too much.
    fn keep(&mut self, key: Key, topic: Arc<Topic>) {
        self.ended_bytes += topic.text().bytes();
        self.ended.push_back((key, topic));
        while self.ended.len() > ENDED_TASKS || self.ended_bytes > ENDED_BYTES {
            let Some((_, oldest)) = self.ended.pop_front() else { return };
            self.ended_bytes = self.ended_bytes.saturating_sub(oldest.text().bytes());
        }
    }

    fn running_topic(&mut self, task: TaskUid) -> Option<Arc<Topic>> {
        let project = self.running.get(&task)?;
        self.topics.get(&(project.clone(), task)).cloned()
    }
}

impl Topic {
    fn new() -> Arc<Self> {
        Arc::new(Topic { text: Mutex::default(), news: broadcast::channel(1).0 })
    }

    fn text(&self) -> MutexGuard<'_, Text> {
        self.text.lock().expect("no call of the hub panics")
    }

    fn change(&self, change: impl FnOnce(&mut Text)) {
        change(&mut self.text());
        // Without watchers there is nobody to tell, which is the normal case.
        let _nobody_watches = self.news.send(());
    }
}

/// How much of a step somebody has: tokens of an attempt.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said<'a> {
    pub attempt: &'a str,
    pub tokens: u64,
}

/// How far a watcher has read: a step, its attempt, and the first token not yet seen.
type Cursor = (u64, String, u64);

impl Text {
    /// Where a new watcher begins. None: with the first step that appears.
    fn cursor(&self) -> Option<Cursor> {
        self.now.as_ref().map(|now| (now.step, now.attempt.clone(), 0))
    }

    /// The current step becomes one of those before it.
    fn keep(&mut self) {
        self.before.extend(self.now.take());
        let mut bytes = self.bytes();
        while self.before.len() > STEPS || (bytes > STEPS_BYTES && self.before.len() > 1) {
            bytes -= self.before.pop_front().map_or(0, |step| step.text.len());
        }
    }

    fn bytes(&self) -> usize {
        self.before.iter().chain(&self.now).map(|step| step.text.len()).sum()
    }

    fn said(&self, step: u64, after: &Said<'_>) -> Option<LiveChunk> {
        let last = self.before.iter().chain(&self.now).rev().find(|kept| kept.step == step)?;
        last.since(if last.attempt == after.attempt { after.tokens } else { 0 })
    }

    /// What comes after a cursor. One that is not known goes on with the last step but one.
    fn after(&self, cursor: &Option<Cursor>) -> Look {
        let mut steps: Vec<(&Step, u64)> = self.before.iter().chain(&self.now).map(|s| (s, 0)).collect();
        let at = cursor.as_ref().and_then(|(step, attempt, _)| {
            steps.iter().rposition(|(kept, _)| kept.step == *step && kept.attempt == *attempt)
        });
        let oldest = steps.len().saturating_sub(1 + usize::from(self.now.is_some()));
        steps.drain(..at.unwrap_or(oldest));
        if let (Some(_), Some((_, _, offset)), Some(first)) = (at, cursor, steps.first_mut()) {
            first.1 = *offset;
        }
        match steps.into_iter().find_map(|(step, offset)| step.since(offset)) {
            Some(chunk) => Look::Chunk(chunk),
            None if self.ended => Look::Ended,
            None => Look::Nothing,
        }
    }
}

impl Step {
    fn append(&mut self, tokens: u32, text: &str) {
        let room = self.text.len() + text.len() <= TEXT_BYTES;
        if !room {
            self.text.clear();
            self.marks.clear();
        }
        self.marks.push((self.tokens, self.text.len()));
        self.text.push_str(text);
        self.tokens += u64::from(tokens);
    }

    /// Everything from a token on. A watcher's offset is always the end of a chunk that it got.
    fn since(&self, offset: u64) -> Option<LiveChunk> {
        let first = self.marks.partition_point(|mark| mark.0 < offset);
        let &(offset, byte) = self.marks.get(first)?;
        let tokens = u32::try_from(self.tokens - offset).unwrap_or(u32::MAX);
        let text = self.text[byte..].to_string();
        Some(LiveChunk { step: self.step, attempt: self.attempt.clone(), offset, tokens, text })
    }
}

/// Chunks in order; every one begins where the one before ended, or at the beginning of a step.
pub type LiveStream = std::pin::Pin<Box<dyn Stream<Item = LiveChunk> + Send>>;

struct Watcher {
    hub: LiveTokens,
    key: Key,
    topic: Arc<Topic>,
    /// None only while the watcher is dropped.
    news: Option<broadcast::Receiver<()>>,
    cursor: Option<Cursor>,
}

enum Look {
    Chunk(LiveChunk),
    Nothing,
    Ended,
}

fn watch(watcher: Watcher) -> impl Stream<Item = LiveChunk> + Send {
    futures::stream::unfold(watcher, |mut watcher| async move {
        loop {
            let look = watcher.topic.text().after(&watcher.cursor);
            match look {
                Look::Chunk(chunk) => {
                    watcher.cursor =
                        Some((chunk.step, chunk.attempt.clone(), chunk.offset + u64::from(chunk.tokens)));
                    return Some((chunk, watcher));
                }
                Look::Nothing => watcher.wait().await?,
                Look::Ended => return None,
            }
        }
    })
}

impl Watcher {
    /// Waits for something new.
    async fn wait(&mut self) -> Option<()> {
        match self.news.as_mut()?.recv().await {
            // Missed announcements are one announcement: the text is read from the step, not from the channel.
            Ok(()) | Err(RecvError::Lagged(_)) => Some(()),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The receiver goes first, so that the last watcher of a task that never came cleans up.
        self.news = None;
        let mut state = self.hub.lock();
        let ours = state.topics.get(&self.key).is_some_and(|topic| Arc::ptr_eq(topic, &self.topic));
        if ours && !state.running.contains_key(&self.key.1) && self.topic.news.receiver_count() == 0 {
            state.topics.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt};

    const TASK: TaskUid = TaskUid { index: 5, position: 1 };

    fn project(name: &str) -> ProjectName {
        ProjectName::parse(name).unwrap()
    }

    fn now(stream: &mut LiveStream) -> Option<Option<LiveChunk>> {
        stream.next().now_or_never()
    }

    fn text(stream: &mut LiveStream) -> (u64, u64, u32, String) {
        let chunk = now(stream).expect("ready").expect("not ended");
        (chunk.step, chunk.offset, chunk.tokens, chunk.text)
    }

    #[test]
    fn a_late_and_a_slow_watcher_miss_nothing() {
        let (hub, a) = (LiveTokens::default(), project("a"));
        hub.begin(&a, TASK, 1, "1.2.0");
        hub.push(TASK, 0, 2, "ab");
        let mut late = hub.subscribe(&a, TASK).unwrap();
        hub.push(TASK, 2, 1, "c");
        assert_eq!(text(&mut late), (1, 0, 3, "abc".into()));
        assert_eq!(now(&mut late), None);
        for i in 0..1000 {
            hub.push(TASK, 3 + i, 1, "x");
        }
        assert_eq!(text(&mut late), (1, 3, 1000, "x".repeat(1000)));
        hub.push(TASK, 7, 1, "does not continue");
        assert_eq!(now(&mut late), None);
    }

    #[test]
    fn a_new_step_and_a_new_attempt_start_at_zero() {
        let (hub, a) = (LiveTokens::default(), project("a"));
        let mut early = hub.subscribe(&a, TASK).unwrap();
        assert_eq!(now(&mut early), None);
        for (step, attempt, word) in [(1, "1.2.0", "one"), (1, "1.9.0", "again"), (2, "1.9.0", "two")] {
            hub.begin(&a, TASK, step, attempt);
            hub.push(TASK, 0, 1, word);
            assert_eq!(text(&mut early), (step, 0, 1, word.into()));
        }
        hub.push(TASK, 1, 1, " last");
        hub.begin(&a, TASK, 3, "1.9.0");
        hub.push(TASK, 0, 1, "three");
        hub.end(TASK);
        assert_eq!(text(&mut early), (2, 1, 1, " last".into()), "the last words are not lost");
        assert_eq!(text(&mut early), (3, 0, 1, "three".into()));
        assert_eq!(now(&mut early), Some(None));
    }

    #[test]
    fn what_was_said_before_is_kept_for_a_while() {
        let (hub, a) = (LiveTokens::default(), project("a"));
        let said = |task, step, attempt: &str, tokens| {
            hub.said(&a, task, step, &Said { attempt, tokens }).map(|chunk| (chunk.offset, chunk.text))
        };
        for step in 1..=3 {
            hub.begin(&a, TASK, step, "1.2.0");
            hub.push(TASK, 0, 1, &format!("step {step}"));
            hub.push(TASK, 1, 1, ", over");
        }
        assert_eq!(said(TASK, 1, "", 0), Some((0, "step 1, over".into())));
        assert_eq!(said(TASK, 1, "1.2.0", 1), Some((1, ", over".into())));
        assert_eq!(said(TASK, 1, "1.2.0", 2), None, "nothing more");
        assert_eq!(said(TASK, 1, "1.1.0", 2), Some((0, "step 1, over".into())), "of another attempt");
        hub.end(TASK);
        assert_eq!(said(TASK, 3, "", 0), Some((0, "step 3, over".into())));
        assert_eq!(hub.said(&project("b"), TASK, 3, &Said::default()), None);
        let many = |index| TaskUid { index, position: 0 };
        for index in 100..100 + ENDED_TASKS as u64 {
            hub.begin(&a, many(index), 1, "1.2.0");
            hub.end(many(index));
        }
        assert_eq!(said(TASK, 3, "", 0), None, "the oldest are forgotten");
        let (long, first) = ("x".repeat(STEPS_BYTES / 4), many(7));
        for step in 1..=8 {
            hub.begin(&a, first, step, "1.2.0");
            hub.push(first, 0, 1, &long);
        }
        let kept = (1..=8).filter(|step| said(first, *step, "", 0).is_some()).count();
        assert!((4..=6).contains(&kept), "{kept} long steps are kept");
    }

    #[test]
    fn another_project_hears_nothing() {
        let (hub, a, b) = (LiveTokens::default(), project("a"), project("b"));
        let mut spy = hub.subscribe(&b, TASK).unwrap();
        hub.begin(&a, TASK, 1, "1.2.0");
        hub.push(TASK, 0, 1, "secret");
        assert_eq!(now(&mut spy), None);
    }

    #[test]
    fn watchers_are_bounded_and_leave_nothing_behind() {
        let (hub, a) = (LiveTokens::default(), project("a"));
        let streams: Vec<_> =
            (0..limits::WATCHERS_PER_TASK).map(|_| hub.subscribe(&a, TASK).unwrap()).collect();
        assert_eq!(hub.subscribe(&a, TASK).err(), Some(TooManyWatchers));
        drop(streams);
        assert!(hub.lock().topics.is_empty());
        for index in 0..WAITING_TASKS as u64 {
            std::mem::forget(hub.subscribe(&a, TaskUid { index, position: 0 }).unwrap());
        }
        assert_eq!(hub.subscribe(&a, TaskUid { index: 1 << 40, position: 0 }).err(), Some(TooManyWatchers));
        hub.begin(&a, TaskUid { index: 1 << 40, position: 0 }, 1, "1.2.0");
    }
}
