//! Signs of life of one agent: what is under way, and how long it may be silent. Pure, but for [`Pulse`].
//!
//! A piece of work that waits for something on purpose says so (it rests, or gives a sign with every try). What gives no
//! sign for longer than its kind ever needs hangs: the agent is then started anew from its journal.

use super::course::WorkId;
use mind::Effect;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The longest time that a tool may take where nothing shorter is said.
const TOOL_MS: u64 = 3_600_000;

/// How long may be silent what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Between two looks.
    pub beat_ms: u64,
    /// An actor that does not answer a beat.
    pub actor_ms: u64,
    /// A model call without a new token, and the loading of a task.
    pub call_ms: u64,
    /// What a tool call may take beyond its own time.
    pub tool_grace_ms: u64,
    /// Everything that asks the ledger or the stores.
    pub ask_ms: u64,
}

impl Default for Silence {
    /// Half an hour for a prompt on a slow machine, with a queue before it.
    fn default() -> Silence {
        Silence {
            beat_ms: 5_000,
            actor_ms: 30_000,
            call_ms: 1_800_000,
            tool_grace_ms: 60_000,
            ask_ms: 300_000,
        }
    }
}

impl Silence {
    fn of(&self, effect: &Effect) -> (&'static str, u64) {
        match effect {
            Effect::Infer { .. } => ("a model call", self.call_ms),
            Effect::CallTool { timeout_ms, .. } => {
                ("a tool call", timeout_ms.unwrap_or(TOOL_MS).min(TOOL_MS) + self.tool_grace_ms)
            }
            Effect::Load { .. } => ("the loading of segments", self.call_ms),
            Effect::Commit { .. } => ("a commit", self.ask_ms),
            Effect::ListTools { .. } => ("the list of tools", self.ask_ms),
            Effect::Spawn { .. } => ("the start of children", self.ask_ms),
            Effect::CheckResult { .. } => ("the check of a result", self.ask_ms),
            Effect::AskChildren => ("a question for children", self.ask_ms),
            Effect::Stop | Effect::CutShort => ("the end", self.ask_ms),
        }
    }
}

/// The newest sign of life, set by hands and read at beats.
#[derive(Debug)]
pub(crate) struct Pulse {
    began: Instant,
    at_ms: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse { began: Instant::now(), at_ms: AtomicU64::new(0) }
    }
}

impl Pulse {
    /// Set while something waits for its turn, which may take any time.
    const RESTING: u64 = u64::MAX;

    pub(crate) fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub(crate) fn touch(&self) {
        self.at_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    pub(crate) fn rest(&self) {
        self.at_ms.store(Self::RESTING, Ordering::Relaxed);
    }

    pub(crate) fn last_ms(&self) -> u64 {
        self.at_ms.load(Ordering::Relaxed)
    }
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    watched: BTreeMap<WorkId, Watched>,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    what: &'static str,
    since_ms: u64,
    silent_ms: u64,
}

impl Vigil {
    pub(crate) fn performs(&mut self, id: WorkId, effect: &Effect, silence: &Silence, now_ms: u64) {
        let (what, silent_ms) = silence.of(effect);
        self.watched.insert(id, Watched { what, since_ms: now_ms, silent_ms });
    }

    pub(crate) fn loads(&mut self, id: WorkId, silence: &Silence, now_ms: u64) {
        let watched =
            Watched { what: "the loading of the task", since_ms: now_ms, silent_ms: silence.call_ms };
        self.watched.insert(id, watched);
    }

    pub(crate) fn ended(&mut self, id: WorkId) {
        self.watched.remove(&id);
    }

    /// Nothing is asked of anybody now: all time so far is forgiven.
    pub(crate) fn excuse(&mut self, now_ms: u64) {
        self.watched.values_mut().for_each(|watched| watched.since_ms = now_ms);
    }

    /// What has been silent for too long, in words. `heard_ms` is the newest sign of life of any work.
    pub(crate) fn overdue(&self, heard_ms: u64, now_ms: u64) -> Option<String> {
        self.watched.values().find_map(|watched| {
            let silent_ms = now_ms.saturating_sub(watched.since_ms.max(heard_ms));
            (silent_ms > watched.silent_ms).then(|| {
                format!(
                    "{} gave no sign for {} ms, at most {} are normal",
                    watched.what, silent_ms, watched.silent_ms
                )
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Silence = Silence { beat_ms: 1, actor_ms: 5, call_ms: 100, tool_grace_ms: 10, ask_ms: 50 };

    fn tool(timeout_ms: Option<u64>) -> Effect {
        Effect::CallTool {
            step: 1,
            index: 0,
            tool: "t".into(),
            arguments: "{}".into(),
            attempt: 0,
            timeout_ms,
            output_bytes: None,
        }
    }

    #[test]
    fn each_kind_of_work_has_its_own_time() {
        let mut vigil = Vigil::default();
        vigil.performs(1, &tool(Some(30)), &SILENCE, 1_000);
        vigil.performs(2, &Effect::AskChildren, &SILENCE, 1_000);
        assert_eq!(vigil.overdue(0, 1_040), None);
        assert!(vigil.overdue(0, 1_041).unwrap().contains("a tool call gave no sign for 41 ms"));
        vigil.ended(1);
        assert_eq!(vigil.overdue(0, 1_050), None);
        assert!(vigil.overdue(0, 1_051).unwrap().contains("children"));
    }

    #[test]
    fn signs_rest_and_excuses_count() {
        let mut vigil = Vigil::default();
        vigil.loads(1, &SILENCE, 0);
        assert!(vigil.overdue(0, 101).is_some());
        assert_eq!(vigil.overdue(50, 150), None);
        assert_eq!(vigil.overdue(Pulse::RESTING, 1 << 40), None, "who rests is never late");
        vigil.excuse(200);
        assert_eq!(vigil.overdue(50, 300), None);
        assert!(vigil.overdue(50, 301).is_some());
    }

    #[test]
    fn a_tool_without_a_time_has_the_longest() {
        let mut vigil = Vigil::default();
        vigil.performs(1, &tool(None), &Silence::default(), 0);
        assert_eq!(vigil.overdue(0, TOOL_MS + 60_000), None);
        assert!(vigil.overdue(0, TOOL_MS + 60_001).is_some());
    }
}
