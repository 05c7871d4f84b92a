//! Answers of an engine beside us. Its events pass through here on their way to the client, and are counted.

use super::{Inside, refused};
use crate::accounts::{Account, Caller, Need};
use crate::engine_thread::{JobEvent, RunningJob};
use crate::gateway::Gateway;
use crate::gateway::local::scope_of;
use crate::openai::told::{self, Kind, Told, Usage};
use crate::openai::{Failure, made};
use crate::traces::requests::{Answering, Ended};
use axum::body::Bytes;
use axum::response::Response;
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Counts, reserves, generates at most what was granted, settles.
pub(super) async fn answer(
    inside: &Inside,
    kind: Kind,
    caller: &Caller,
    body: Bytes,
    room: OwnedSemaphorePermit,
    told: &mut Option<Answering>,
) -> Result<Response, Failure> {
    let mut prepared = match kind {
        Kind::Completion => made::completion(&inside.face, body, room).await?,
        Kind::Chat => made::chat(&inside.face, body, room).await?,
    };
    prepared.within(scope_of(&caller.project));
    let (model, prompts) = (prepared.model().to_owned(), prepared.prompts());
    let (prompt_tokens, most) = (prompts.iter().sum(), prepared.wanted());
    let gateway = inside.gateway.clone();
    let need = Need {
        kv_block_seconds: gateway.will_occupy(&model, prompt_tokens + most, prompt_tokens + most),
        model: model.clone(),
        prompt_tokens,
        least: prompts.len() as u64,
        most,
        destination: None,
    };
    let account = inside.accounts.begin(caller, need).await.map_err(refused::not_begun)?;
    prepared.cut(account.granted().saturating_sub(prompt_tokens));
    told.iter().for_each(Answering::model_is_asked);
    let started = prepared.start(account.stop())?;
    let choices = prompts.len();
    let counted = Counted { gateway, model, meter: Meter::new(prompts), account, told: told.take() };
    let events = counted.pass_on(started.running);
    told::answer(started.asked.tell_from(choices, &started.tooling, events)).await
}

/// Jobs that run at a project's expense.
struct Counted {
    gateway: Gateway,
    model: String,
    meter: Meter,
    account: Account,
    told: Option<Answering>,
}

impl Counted {
    /// Everything that the jobs say. When nobody listens any more they are stopped, and what they made is settled. The
    /// very last word is passed on when it is settled.
    fn pass_on(self, jobs: Vec<RunningJob>) -> BoxStream<'static, (usize, Told)> {
        let (out, heard) = mpsc::unbounded_channel();
        tokio::spawn(self.pump(jobs, out));
        UnboundedReceiverStream::new(heard).boxed()
    }

    async fn pump(mut self, jobs: Vec<RunningJob>, out: mpsc::UnboundedSender<(usize, Told)>) {
        let mut events: SelectAll<_> = jobs.into_iter().enumerate().map(|(at, job)| said(at, job)).collect();
        let mut gone = false;
        let last = loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = out.closed(), if !gone => {
                    gone = true;
                    self.account.stop().cancel();
                    continue;
                }
            };
            let Some((index, event)) = event else { break None };
            if matches!(event, JobEvent::Token { .. }) {
                self.told.iter().for_each(Answering::first_token);
            }
            self.meter.hear(index, &event);
            if self.meter.is_over() {
                break Some((index, event));
            }
            let _ = out.send((index, Told::Job(event)));
        };
        let used = self.meter.used();
        let (chain, new) = (used.prompt + used.generated, used.prompt - used.cached + used.generated);
        let occupied = self.gateway.occupied(&self.model, chain, new, self.account.took());
        self.account.end(used, occupied).await;
        self.told.take().into_iter().for_each(|told| told.end(&self.meter.ended(used)));
        if let Some((index, event)) = last {
            let _ = out.send((index, Told::Job(event)));
        }
    }
}

fn said(index: usize, job: RunningJob) -> BoxStream<'static, (usize, JobEvent)> {
    let events = futures::stream::unfold(job, async |mut job| {
        let event = job.events.recv().await?;
        Some((event, job))
    });
    events.map(move |event| (index, event)).boxed()
}

/// What jobs used so far.
#[derive(Debug)]
struct Meter(Vec<Metered>);

#[derive(Debug, Default)]
struct Metered {
    /// Tokens of the prompt.
    prompt: u64,
    heard: u64,
    over: Option<Usage>,
    /// In line, and how it ended, in a word.
    waited_ms: Option<u64>,
    finish: Option<&'static str>,
}

impl Meter {
    fn new(prompts: Vec<u64>) -> Meter {
        Meter(prompts.into_iter().map(|prompt| Metered { prompt, ..Metered::default() }).collect())
    }

    fn hear(&mut self, index: usize, event: &JobEvent) {
        let job = &mut self.0[index];
        match event {
            JobEvent::Token { .. } => job.heard += 1,
            JobEvent::End { why, tokens, prompt_tokens, cached_tokens, waited_ms, .. } => {
                (job.waited_ms, job.finish) = (Some(*waited_ms), Some(why.word()));
                let (prompt, cached) = (*prompt_tokens, (*cached_tokens).min(*prompt_tokens));
                job.over = Some(Usage { prompt, cached, generated: tokens.len() as u64 });
            }
            // An answer is no score.
            JobEvent::Scored(_) => {}
            // The engine did not take it, or lost it on the way.
            JobEvent::Refused(_) if job.heard == 0 => job.over = Some(Usage::default()),
            JobEvent::Refused(_) => job.over = Some(job.so_far()),
        }
    }

    fn is_over(&self) -> bool {
        self.0.iter().all(|job| job.over.is_some())
    }

    /// For a trace. Prompts of one request stand in line together.
    fn ended(&self, used: Usage) -> Ended {
        let finish = self.0.iter().find_map(|job| job.finish);
        Ended {
            prompt_tokens: used.prompt,
            cached_tokens: used.cached,
            generated_tokens: used.generated,
            waited_ms: self.0.iter().filter_map(|job| job.waited_ms).min(),
            finish,
            error: finish.is_none().then_some("ENGINE_REFUSED"),
        }
    }

    fn used(&self) -> Usage {
        let each = self.0.iter().map(|job| job.over.unwrap_or_else(|| job.so_far()));
        each.fold(Usage::default(), |sum, one| Usage {
            prompt: sum.prompt + one.prompt,
            cached: sum.cached + one.cached,
            generated: sum.generated + one.generated,
        })
    }
}

impl Metered {
    fn so_far(&self) -> Usage {
        Usage { prompt: self.prompt, cached: 0, generated: self.heard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_thread::{JobEnd, RefusedJob};

    fn token() -> JobEvent {
        JobEvent::Token { token: 1, text: "a".into(), logprobs: None }
    }

    fn end(tokens: usize, cached_tokens: u64) -> JobEvent {
        let (text, tokens) = (String::new(), vec![1; tokens]);
        JobEvent::End { why: JobEnd::Stop, text, tokens, prompt_tokens: 10, cached_tokens, waited_ms: 0 }
    }

    #[test]
    fn what_was_made_is_counted_however_it_ends() {
        let mut meter = Meter::new(vec![10, 20, 30]);
        meter.hear(0, &token());
        meter.hear(1, &token());
        meter.hear(1, &token());
        assert_eq!(meter.used(), Usage { prompt: 60, cached: 0, generated: 3 }, "cut off in the middle");
        meter.hear(0, &end(3, 8));
        let refused = || JobEvent::Refused(RefusedJob { why: String::new(), retriable: true });
        meter.hear(1, &refused());
        assert!(!meter.is_over());
        meter.hear(2, &refused());
        assert!(meter.is_over());
        assert_eq!(meter.used(), Usage { prompt: 30, cached: 8, generated: 5 });
    }
}
