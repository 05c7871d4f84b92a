//! An answer as server-sent events: a line of JSON for each piece, then `[DONE]`.

use super::super::error::Failure;
use super::choice::{Choice, Usage};
use super::{Asked, Told, shape};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use std::collections::VecDeque;
use std::convert::Infallible;

/// Streams an answer of which the first event is known. When the client goes away the stream is dropped, and its jobs
/// with it.
pub(super) fn answer(asked: Asked, index: usize, event: Told) -> Response {
    let mut telling = Telling::new(asked);
    telling.hear(index, event);
    let frames = futures::stream::unfold(telling, async |mut telling| {
        let frame = telling.next().await?;
        Some((Ok::<Bytes, Infallible>(frame), telling))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, Body::from_stream(frames)).into_response()
}

struct Telling {
    asked: Asked,
    /// Choices that have not ended, by index.
    open: Vec<Option<Choice>>,
    total: Usage,
    frames: VecDeque<Bytes>,
    /// Nothing comes any more but the frames.
    closed: bool,
}

impl Telling {
    fn new(mut asked: Asked) -> Telling {
        let open: Vec<Option<Choice>> = std::mem::take(&mut asked.choices).into_iter().map(Some).collect();
        let mut telling =
            Telling { asked, open, total: Usage::default(), frames: VecDeque::new(), closed: false };
        (0..telling.open.len()).for_each(|index| telling.say(shape::opening(&telling.asked.about, index)));
        telling
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if self.closed {
                return None;
            }
            match self.asked.events.next().await {
                Some((index, event)) => self.hear(index, event),
                None => self.fail(&Failure::gone("the engine ended without a word; try again")),
            }
        }
    }

    fn hear(&mut self, index: usize, event: Told) {
        let Some(mut choice) = self.open[index].take() else { return };
        if let Err(failure) = choice.take(event) {
            return self.fail(&failure);
        }
        let about = &self.asked.about;
        let news = choice.news().map(|news| shape::piece(about, index, &news));
        self.say(news);
        match choice.is_over() {
            false => self.open[index] = Some(choice),
            true => self.end(choice),
        }
    }

    fn end(&mut self, choice: Choice) {
        let index = choice.index;
        let (ending, usage) = choice.ending();
        shape::add(&mut self.total, usage);
        let about = &self.asked.about;
        let rest = &ending.news;
        let rest =
            (!rest.text.is_empty() || !rest.likelihoods.is_empty()).then(|| shape::piece(about, index, rest));
        let last = shape::ends(about, index, &ending);
        self.say(rest);
        self.say(last);
        if self.open.iter().all(Option::is_none) {
            self.close();
        }
    }

    fn close(&mut self) {
        let about = &self.asked.about;
        let cost = about.include_usage.then(|| shape::cost(about, self.total));
        self.say(cost);
        self.frames.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.closed = true;
    }

    /// An error inside a stream stands where the next piece would: the status went out long ago.
    fn fail(&mut self, failure: &Failure) {
        self.say([failure.body()]);
        self.closed = true;
    }

    fn say(&mut self, objects: impl IntoIterator<Item = serde_json::Value>) {
        for object in objects {
            self.frames.push_back(format!("data: {object}\n\n").into());
        }
    }
}
