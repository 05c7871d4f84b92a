//! Models and a live display that tests can look into.

use super::world::SCRIPTED;
use crate::agents::seams::Live;
use crate::gateway::scripted::Scripted;
use crate::gateway::{Ask, ModelFailure, Prompt, Provider, ProviderFacts, Said};
use context::Message;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use types::{ProjectName, TaskUid};

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
