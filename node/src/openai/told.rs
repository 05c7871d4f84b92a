//! Events of jobs as OpenAI's clients read them: one object at the end, or a stream of chunks.

mod choice;
mod shape;
mod stream;

use super::body::Settings;
use super::error::Failure;
use super::face::now_seconds;
use crate::engine_thread::{JobEnd, JobEvent, RunningJob};
use axum::Json;
use axum::response::{IntoResponse, Response};
use choice::Choice;
use futures::stream::{BoxStream, SelectAll, StreamExt};
use std::sync::Arc;
use worker_inference::{TextModel, ToolCall};

pub(crate) use choice::{Tooling, Usage};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Completion,
    Chat,
}

/// What becomes of a choice.
pub(crate) enum Told {
    /// As the engine beside us says it.
    Job(JobEvent),
    /// Its end, as somebody else says it.
    Ended {
        why: JobEnd,
        text: String,
        calls: Vec<ToolCall>,
        usage: Usage,
    },
    Failed(Failure),
}

/// A request whose jobs run: one for each choice of its answer.
pub(crate) struct Asked {
    about: About,
    choices: Vec<Choice>,
    events: SelectAll<BoxStream<'static, (usize, Told)>>,
}

/// What every object of an answer repeats.
pub(super) struct About {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    stream: bool,
    include_usage: bool,
    /// For telling tokens apart; none where others compute.
    text: Option<Arc<TextModel>>,
}

impl Asked {
    pub(crate) fn new(kind: Kind, model: String, text: Option<Arc<TextModel>>, settings: &Settings) -> Asked {
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
        self.events.push(events.map(move |event| (index, Told::Job(event))).boxed());
    }

    /// So many choices, of which somebody else tells.
    pub(crate) fn tell_from(
        mut self,
        choices: usize,
        tooling: &Tooling,
        events: BoxStream<'static, (usize, Told)>,
    ) -> Asked {
        self.choices.extend((0..choices).map(|index| Choice::new(index, tooling.clone())));
        self.events.push(events);
        self
    }
}

/// The answer. Nothing is said before it is sure that the engine takes the request: a refusal has its own status.
pub(crate) async fn answer(mut asked: Asked) -> Result<Response, Failure> {
    let first = asked.events.next().await;
    match first {
        Some((_, Told::Job(JobEvent::Refused(refused)))) => Err(refused.into()),
        Some((_, Told::Failed(failure))) => Err(failure),
        None => Err(Failure::gone("the engine ended without a word; try again")),
        Some((index, event)) if asked.about.stream => Ok(stream::answer(asked, index, event)),
        Some((index, event)) => whole(asked, index, event).await,
    }
}

async fn whole(mut asked: Asked, index: usize, event: Told) -> Result<Response, Failure> {
    let mut next = Some((index, event));
    while let Some((index, event)) = next {
        asked.choices[index].take(event)?;
        next = asked.events.next().await;
    }
    match asked.choices.iter().all(Choice::is_over) {
        true => Ok(Json(shape::whole(&asked.about, asked.choices)).into_response()),
        false => Err(Failure::gone("the engine ended without a word; try again")),
    }
}
