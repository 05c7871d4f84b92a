//! What is served, and how much of it at the same time.

use super::error::Failure;
use crate::engine_thread::real::LoadedModel;
use crate::telemetry::{Metrics, names};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use worker_inference::{Grammar, GrammarError, Grammars};

/// What clients may take together; beyond, they are told to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections that are served. As many again may wait to be told that there is no room.
    pub connections: usize,
    /// Answers in the making, waiting ones included.
    pub answers: usize,
    /// Bytes of one body.
    pub body_bytes: usize,
    /// Bytes of all bodies that are being read or tokenised.
    pub bodies_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        // An answer's memory is its window's tokens: 512 of 8,192 tokens are some tens of megabytes.
        Bounds { connections: 1024, answers: 512, body_bytes: 4 << 20, bodies_bytes: 64 << 20 }
    }
}

/// The loaded models and their bounds. Cheap to clone.
#[derive(Clone)]
pub struct Face(Arc<Inside>);

/// A model, and what is made of it when it is first needed.
pub(super) struct Served {
    pub(super) loaded: LoadedModel,
    grammars: OnceLock<Result<Grammars, GrammarError>>,
}

impl Served {
    /// A grammar for a JSON schema. `param` is the request's field that it comes from.
    pub(super) fn grammar(&self, param: &'static str, schema: &str) -> Result<Grammar, Failure> {
        let make = || Grammars::new(&self.loaded.text.tokenizer, self.loaded.info.vocab);
        let grammars = self.grammars.get_or_init(make).as_ref();
        let grammar = grammars.map_err(Clone::clone).and_then(|grammars| grammars.schema(schema));
        grammar.map_err(|error| Failure::schema(param, error.to_string()))
    }
}

struct Inside {
    models: Vec<Served>,
    /// One model alone answers to every name.
    any_name: bool,
    bounds: Bounds,
    answers: Arc<Semaphore>,
    /// In KiB.
    bodies: Arc<Semaphore>,
    /// Requests that are turned into tokens now: work for a core each.
    text: Semaphore,
    metrics: Metrics,
    stop: CancellationToken,
    begun: u64,
}

impl Face {
    /// Serves these models.
    ///
    /// # Panics
    /// Without a model.
    pub fn new(models: Vec<LoadedModel>, bounds: Bounds, metrics: Metrics) -> Face {
        assert!(!models.is_empty(), "a face serves at least one model");
        Face::of(models, true, bounds, metrics)
    }

    /// Serves these models, if any, each under its own name alone.
    pub(crate) fn by_name(models: Vec<LoadedModel>, bounds: Bounds, metrics: Metrics) -> Face {
        Face::of(models, false, bounds, metrics)
    }

    fn of(models: Vec<LoadedModel>, any_name: bool, bounds: Bounds, metrics: Metrics) -> Face {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let served = |loaded| Served { loaded, grammars: OnceLock::new() };
        Face(Arc::new(Inside {
            models: models.into_iter().map(served).collect(),
            any_name,
            bounds,
            answers: Arc::new(Semaphore::new(bounds.answers)),
            bodies: Arc::new(Semaphore::new(kib(bounds.bodies_bytes))),
            text: Semaphore::new(cores),
            metrics,
            stop: CancellationToken::new(),
            begun: now_seconds(),
        }))
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.0.bounds
    }

    /// Fires when answers in the making are to end.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Ends all answers in the making.
    pub(crate) fn cut_off(&self) {
        self.0.stop.cancel();
    }

    pub(super) fn models(&self) -> impl Iterator<Item = &LoadedModel> {
        self.0.models.iter().map(|model| &model.loaded)
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Answers in the making.
    pub(super) fn answering(&self) -> usize {
        self.0.bounds.answers - self.0.answers.available_permits()
    }

    /// A model of this name is loaded.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.models().any(|model| model.name == name)
    }

    /// The model that a request means. One model answers to every name.
    pub(super) fn model(&self, asked: Option<&str>) -> Result<&Served, Failure> {
        let found = match (&self.0.models[..], asked) {
            ([only], _) if self.0.any_name => Ok(only),
            (_, None) => Err(Failure::field("model", "name the model that is to answer")),
            (several, Some(name)) => {
                let named = several.iter().find(|model| model.loaded.name == name);
                named.ok_or_else(|| Failure::no_model(name, &self.names()))
            }
        }?;
        match found.loaded.thread.is_alive() {
            true => Ok(found),
            false => Err(Failure::gone("the model's engine has failed; restart the process")),
        }
    }

    /// Places for so many answers.
    pub(crate) fn places(&self, answers: usize) -> Result<Vec<OwnedSemaphorePermit>, Failure> {
        let place = |_| self.0.answers.clone().try_acquire_owned();
        (0..answers).map(place).collect::<Result<_, _>>().map_err(|_| {
            Failure::busy(format!("{} answers are in the making; try again later", self.0.bounds.answers))
        })
    }

    /// Room for a body.
    pub(crate) fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let wanted = u32::try_from(kib(bytes)).unwrap_or(u32::MAX);
        self.0
            .bodies
            .clone()
            .try_acquire_many_owned(wanted)
            .map_err(|_| Failure::busy("too many large bodies are being read; try again later"))
    }

    /// Waits for a core to turn text into tokens on.
    pub(super) async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
        self.0.text.acquire().await.map_err(|_| Failure::gone("the process ends"))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.models().map(|model| model.name.clone()).collect()
    }

    pub(super) fn list(&self) -> Value {
        let models: Vec<Value> = self.models().map(|model| self.one(model)).collect();
        json!({ "object": "list", "data": models })
    }

    pub(crate) fn describe(&self, name: &str) -> Option<Value> {
        self.models().find(|model| model.name == name).map(|model| self.one(model))
    }

    fn one(&self, model: &LoadedModel) -> Value {
        json!({
            "id": model.name, "object": "model", "created": self.0.begun, "owned_by": "quorate",
            "max_model_len": model.window(),
        })
    }

    pub(super) fn is_well(&self) -> bool {
        self.models().all(|model| model.thread.is_alive())
    }

    pub(crate) fn count(&self, method: &'static str, status: StatusCode) {
        let code = status.as_u16().to_string();
        metrics::counter!(names::REQUESTS_TOTAL, "method" => method, "code" => code).increment(1);
    }
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}

/// Seconds since 1970.
pub(crate) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
