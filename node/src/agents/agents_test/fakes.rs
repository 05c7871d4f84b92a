//! Models, a live display and an engine's ears that tests can look into.

use super::world::SCRIPTED;
use crate::agents::seams::{KvDoor, Live};
use crate::engine_thread::hints::Hint;
use crate::engine_thread::kv::Chain;
use crate::gateway::scripted::Scripted;
use crate::gateway::{Ask, ModelFailure, Prompt, Provider, ProviderFacts, Said};
use context::Message;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use types::{Hash, NodeId, ProjectName, TaskUid};

/// What was shown live, by task.
#[derive(Default)]
pub(super) struct Heard(Mutex<BTreeMap<TaskUid, Shown>>);

#[derive(Default)]
struct Shown {
    text: String,
    tokens: u64,
    ended: bool,
}

impl Heard {
    /// All text of a task since its last attempt began, and whether it ended.
    pub(super) fn of(&self, task: TaskUid) -> (String, bool) {
        let heard = self.0.lock().unwrap();
        heard.get(&task).map(|shown| (shown.text.clone(), shown.ended)).unwrap_or_default()
    }
}

impl Live for Heard {
    fn begin(&self, _project: &ProjectName, task: TaskUid, _step: u64, _attempt: &str) {
        self.0.lock().unwrap().insert(task, Default::default());
    }

    fn push(&self, task: TaskUid, offset: u64, tokens: u32, text: &str) {
        let mut heard = self.0.lock().unwrap();
        let shown = heard.entry(task).or_default();
        assert_eq!(shown.tokens, offset, "pieces join");
        shown.text.push_str(text);
        shown.tokens += u64::from(tokens);
    }

    fn end(&self, task: TaskUid) {
        self.0.lock().unwrap().entry(task).or_default().ended = true;
    }
}

/// A scripted model that panics at its first calls for one agent, and counts who is speaking.
pub(super) struct Trouble {
    script: Scripted,
    agent_text: &'static str,
    panics_left: AtomicUsize,
    pub(super) asked: AtomicUsize,
}

impl Trouble {
    /// Panics `panics` times when a message contains `text`.
    pub(super) fn new(script: &str, text: &'static str, panics: usize) -> Arc<Trouble> {
        let script = Scripted::parse(SCRIPTED, "test.toml", script).unwrap();
        Arc::new(Trouble {
            script,
            agent_text: text,
            panics_left: AtomicUsize::new(panics),
            asked: AtomicUsize::new(0),
        })
    }
}

impl Provider for Trouble {
    fn facts(&self) -> ProviderFacts {
        self.script.facts()
    }

    fn prompt<'a>(
        &'a self,
        messages: &'a Arc<Vec<Message>>,
        tools: Option<&'a Arc<str>>,
    ) -> BoxFuture<'a, Result<Prompt, ModelFailure>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let here = messages.iter().any(|message| message.text.contains(self.agent_text));
        let take_one = |left: usize| left.checked_sub(1);
        if here && self.panics_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one).is_ok() {
            panic!("a planted panic");
        }
        self.script.prompt(messages, tools)
    }

    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<mpsc::Receiver<Said>, ModelFailure>> {
        self.script.answer(ask)
    }
}

pub(super) fn scripted(script: &str) -> Arc<dyn Provider> {
    Arc::new(Scripted::parse(SCRIPTED, "test.toml", script).unwrap())
}

/// What an engine would hear: how many tokens of a conversation, and what of them.
#[derive(Default)]
pub(super) struct Hinted(Mutex<Vec<(usize, Hint)>>);

impl Hinted {
    pub(super) fn all(&self) -> Vec<(usize, Hint)> {
        self.0.lock().unwrap().clone()
    }
}

/// Blocks stay where they are.
impl KvDoor for Hinted {
    fn holders(&self, _model: &str) -> Vec<NodeId> {
        Vec::new()
    }

    fn follow(&self, _model: &str, _chain: Chain, _keepers: &[NodeId]) {}

    fn hint(&self, _model: &str, chain: Chain, hint: Hint) {
        self.0.lock().unwrap().push((chain.tokens.len(), hint));
    }
}

/// Replies of a script, said as an engine on this node says them.
struct Beside(Scripted);

impl Provider for Beside {
    fn facts(&self) -> ProviderFacts {
        ProviderFacts { numerics: Some(Hash::of(b"numerics")), ..self.0.facts() }
    }

    fn prompt<'a>(
        &'a self,
        messages: &'a Arc<Vec<Message>>,
        tools: Option<&'a Arc<str>>,
    ) -> BoxFuture<'a, Result<Prompt, ModelFailure>> {
        self.0.prompt(messages, tools)
    }

    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<mpsc::Receiver<Said>, ModelFailure>> {
        self.0.answer(ask)
    }
}

pub(super) fn beside(script: &str) -> Arc<dyn Provider> {
    Arc::new(Beside(Scripted::parse(SCRIPTED, "test.toml", script).unwrap()))
}
