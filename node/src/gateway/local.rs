//! The engine beside us, as a provider.

use super::render::Renderer;
use super::{Ask, EndOfSpeech, ModelFailure, Prompt, Provider, ProviderFacts, Said};
use crate::engine_thread::{EngineThread, Job, JobEnd, JobEvent, RefusedJob, RunningJob, real::LoadedModel};
use context::Message;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::mpsc;
use types::{Class, Hash, ProjectName};
use worker_inference::Sampling;

/// A model that is loaded in this process.
pub struct Local {
    engine: EngineThread,
    renderer: Arc<Renderer>,
    facts: ProviderFacts,
}

impl Local {
    pub fn new(model: &LoadedModel) -> Self {
        // The tokenizer is named after the model file: ids made by another one are never fed to this model.
        let tokenizer = model.info.model_digest;
        let facts =
            ProviderFacts { window: model.window(), tokenizer, numerics: Some(model.info.numerics_id) };
        let renderer = Arc::new(Renderer::new(model.text.clone(), tokenizer));
        Local { engine: model.thread.clone(), renderer, facts }
    }
}

/// Separates the cached blocks of one project from another's, so that nobody learns from a hit or a miss.
pub fn scope_of(project: &ProjectName) -> [u8; 32] {
    Hash::keyed(project.as_str(), b"kv scope").0
}

fn class_number(class: Class) -> u8 {
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

    fn prompt<'a>(&'a self, messages: &'a Arc<Vec<Message>>) -> BoxFuture<'a, Result<Prompt, ModelFailure>> {
        let (renderer, messages) = (self.renderer.clone(), messages.clone());
        Box::pin(async move {
            let rendered = tokio::task::spawn_blocking(move || renderer.prompt(&messages)).await;
            rendered.unwrap_or_else(|_| {
                Err(ModelFailure::lasting(
                    "CANNOT_RENDER",
                    "rendering the conversation failed; this is a bug, report it",
                ))
            })
        })
    }

    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<mpsc::Receiver<Said>, ModelFailure>> {
        let (said, heard) = mpsc::channel(ask.max_new as usize + 2);
        let job = Job {
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
            JobEvent::End { why, text, tokens, prompt_tokens, cached_tokens } => {
                Said::End { why: end_of(why), text, token_ids: tokens, prompt_tokens, cached_tokens }
            }
            JobEvent::Refused(refused) => Said::Failed(failure(refused)),
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
#[path = "local_test.rs"]
mod local_test;
