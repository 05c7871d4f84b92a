//! Events of jobs as OpenAI's clients read them: one object at the end, or a stream of chunks.

mod choice;
mod shape;
mod stream;

use super::body::Settings;
use super::error::Failure;
use super::face::now_seconds;
use crate::engine_thread::{JobEvent, RunningJob};
use axum::Json;
use axum::response::{IntoResponse, Response};
use choice::Choice;
use futures::stream::{BoxStream, SelectAll, StreamExt};
use std::sync::Arc;
use worker_inference::TextModel;

pub(super) use choice::Tooling;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Completion,
    Chat,
}

/// A request whose jobs run: one for each choice of its answer.
pub(super) struct Asked {
    about: About,
    choices: Vec<Choice>,
    events: SelectAll<BoxStream<'static, (usize, JobEvent)>>,
}

/// What every object of an answer repeats.
pub(super) struct About {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    stream: bool,
    include_usage: bool,
    text: Arc<TextModel>,
}

impl Asked {
    pub(super) fn new(kind: Kind, model: String, text: Arc<TextModel>, settings: &Settings) -> Asked {
        let about = About {
            kind,
            id: shape::new_id(kind),
            created: now_seconds(),
            model,
            stream: settings.stream,
            include_usage: settings.include_usage,
            text,
        };
        Asked { about, choices: Vec::new(), events: SelectAll::new() }
    }

    /// One more choice, which this job makes. Dropping the request cancels it.
    pub(super) fn add(&mut self, job: RunningJob, tooling: Tooling) {
        let index = self.choices.len();
        self.choices.push(Choice::new(index, tooling));
        let events = futures::stream::unfold(job, async |mut job| {
            let event = job.events.recv().await?;
            Some((event, job))
        });
        self.events.push(events.map(move |event| (index, event)).boxed());
    }
}

/// The answer. Nothing is said before it is sure that the engine takes the request: a refusal has its own status.
pub(super) async fn answer(mut asked: Asked) -> Result<Response, Failure> {
    let first = asked.events.next().await;
    match first {
        Some((_, JobEvent::Refused(refused))) => Err(refused.into()),
        None => Err(Failure::gone("the engine ended without a word; try again")),
        Some((index, event)) if asked.about.stream => Ok(stream::answer(asked, index, event)),
        Some((index, event)) => whole(asked, index, event).await,
    }
}

async fn whole(mut asked: Asked, index: usize, event: JobEvent) -> Result<Response, Failure> {
    let mut next = Some((index, event));
    while let Some((index, event)) = next {
        match event {
            JobEvent::Refused(refused) => return Err(refused.into()),
            event => asked.choices[index].take(event)?,
        }
        next = asked.events.next().await;
    }
    match asked.choices.iter().all(Choice::is_over) {
        true => Ok(Json(shape::whole(&asked.about, asked.choices)).into_response()),
        false => Err(Failure::gone("the engine ended without a word; try again")),
    }
}
