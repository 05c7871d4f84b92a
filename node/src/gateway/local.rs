//! The engine beside us, as a provider.

use super::render::Renderer;
use super::spoken::{forced, spoken};
use super::{Ask, EndOfSpeech, ModelFailure, Prompt, Provider, ProviderFacts, Said};
use crate::engine_thread::hints::Hint;
use crate::engine_thread::kv::Chain;
use crate::engine_thread::{EngineThread, Job, JobEnd, JobEvent, RefusedJob, RunningJob, real::LoadedModel};
use context::{Message, Role};
use futures::future::BoxFuture;
use mind::ToolChoice;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;
use types::{Class, Hash, ProjectName};
use worker_inference::text::TextModel;
use worker_inference::{Grammar, GrammarError, Grammars, Sampling};

/// A model that is loaded in this process.
pub struct Local {
    engine: EngineThread,
    renderer: Arc<Renderer>,
    facts: ProviderFacts,
    grammars: Arc<OnceLock<Result<Grammars, GrammarError>>>,
    text: Arc<TextModel>,
    vocabulary: usize,
}

impl Local {
    pub fn new(model: &LoadedModel) -> Self {
        // The tokenizer is named after the model file: ids made by another one are never fed to this model.
        let tokenizer = model.info.model_digest;
        let facts =
            ProviderFacts { window: model.window(), tokenizer, numerics: Some(model.info.numerics_id) };
        let renderer = Arc::new(Renderer::new(model.text.clone(), tokenizer));
        let (engine, text) = (model.thread.clone(), model.text.clone());
        Local { engine, renderer, facts, grammars: Arc::default(), text, vocabulary: model.info.vocab }
    }

    /// What an answer must look like that has to be a call. An answer that goes on has a part of it behind it.
    fn grammar(&self, ask: &Ask) -> Result<Option<Grammar>, ModelFailure> {
        let Some(tools) = ask.tools.as_ref().filter(|_| ask.choice == ToolChoice::Required) else {
            return Ok(None);
        };
        let refused = |error: GrammarError| {
            let message = format!("the tools' schemas cannot be followed: {error}");
            ModelFailure::lasting("BAD_TOOL_SCHEMA", message)
        };
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.text.tokenizer, self.vocabulary));
        let grammars = grammars.as_ref().map_err(|error| refused(error.clone()))?;
        let mut grammar = grammars.schema(&forced(tools)).map_err(refused)?;
        let open = ask.messages.last().filter(|message| message.open && message.role == Role::Assistant);
        let said = open
            .and_then(|message| message.tokens.as_ref())
            .filter(|it| it.tokenizer == self.facts.tokenizer);
        for id in said.into_iter().flat_map(|tokens| &tokens.ids) {
            if !grammar.take(*id) {
                let message = "the answer that is continued is no tool call so far; retry the task";
                return Err(ModelFailure::lasting("NOT_A_TOOL_CALL", message));
            }
        }
        Ok(Some(grammar))
    }
}

/// Separates the cached blocks of one project from another's, so that nobody learns from a hit or a miss.
pub fn scope_of(project: &ProjectName) -> [u8; 32] {
    Hash::keyed(project.as_str(), b"kv scope").0
}

pub(crate) fn class_number(class: Class) -> u8 {
    match class {
        Class::System => 0,
        Class::Interactive => 1,
        Class::Batch => 2,
        Class::BestEffort => 3,
    }
}

impl Provider for Local {
    fn facts(&self) -> ProviderFacts {
        self.facts.clone()
    }

    fn prompt<'a>(
        &'a self,
        messages: &'a Arc<Vec<Message>>,
        tools: Option<&'a Arc<str>>,
    ) -> BoxFuture<'a, Result<Prompt, ModelFailure>> {
        let (renderer, messages, tools) = (self.renderer.clone(), messages.clone(), tools.cloned());
        Box::pin(async move {
            let render = move || renderer.prompt(&spoken(&messages, tools.as_deref()));
            let rendered = tokio::task::spawn_blocking(render).await;
            rendered.unwrap_or_else(|_| {
                Err(ModelFailure::lasting(
                    "CANNOT_RENDER",
                    "rendering the conversation failed; this is a bug, report it",
                ))
            })
        })
    }

    fn foresee(&self, project: &ProjectName, class: Class, prompt: &Prompt) {
        let (scope, class) = (scope_of(project), class_number(class));
        self.engine.hint(Chain { scope, class, tokens: prompt.ids.as_slice().into() }, Hint::Prefetch);
    }

    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<mpsc::Receiver<Said>, ModelFailure>> {
        let (said, heard) = mpsc::channel(ask.max_new as usize + 2);
        let grammar = match self.grammar(&ask) {
            Ok(grammar) => grammar,
            Err(failure) => return Box::pin(std::future::ready(Err(failure))),
        };
        let job = Job {
            grammar,
            tokens: ask.prompt.ids,
            scope: scope_of(&ask.project),
            max_new: ask.max_new,
            min_new: ask.min_new,
            sampling: Sampling {
                temperature: ask.temperature_milli as f32 / 1000.0,
                seed: ask.seed,
                ..Sampling::default()
            },
            class: class_number(ask.class),
            ..Job::default()
        };
        let running = self.engine.run(job, &ask.stop).map_err(failure);
        Box::pin(async move {
            tokio::spawn(translate(running?, said));
            Ok(heard)
        })
    }
}

async fn translate(mut job: RunningJob, said: mpsc::Sender<Said>) {
    while let Some(event) = job.events.recv().await {
        let sent = said.try_send(match event {
            JobEvent::Token { token, text, .. } => Said::Token { id: token, text },
            JobEvent::End { why, text, tokens, prompt_tokens, cached_tokens, waited_ms } => Said::End {
                why: end_of(why),
                text,
                token_ids: tokens,
                prompt_tokens,
                cached_tokens,
                calls: None,
                counted: None,
                waited_ms: Some(waited_ms),
            },
            JobEvent::Refused(refused) => Said::Failed(failure(refused)),
            JobEvent::Scored(_) => Said::Failed(ModelFailure::lasting(
                "ENGINE_BROKEN",
                "the engine scored a call that was to be answered; this is a bug, report it",
            )),
        });
        if sent.is_err() {
            // Nobody listens: dropping the job cancels the job.
            return;
        }
    }
}

fn failure(refused: RefusedJob) -> ModelFailure {
    match refused.retriable {
        true => ModelFailure::passing("ENGINE_BUSY", refused.why),
        false => ModelFailure::lasting("ENGINE_REFUSED", refused.why),
    }
}

fn end_of(why: JobEnd) -> EndOfSpeech {
    match why {
        JobEnd::Stop => EndOfSpeech::Stop,
        JobEnd::Length => EndOfSpeech::Length,
        JobEnd::Cancelled => EndOfSpeech::Stopped,
    }
}

#[cfg(test)]
#[path = "local_calls_test.rs"]
mod local_calls_test;
#[cfg(test)]
#[path = "local_test.rs"]
pub(crate) mod local_test;
