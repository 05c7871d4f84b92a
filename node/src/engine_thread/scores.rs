//! Recorded calls that an engine scores among its other work: which run an event belongs to, and when one is done.

use super::{JobEvent, RefusedJob, Scores};
use std::collections::BTreeMap;
use worker_inference::{ChildrenRun, Engine, Event, ScoreError, SubmitError};

/// Runs are numbered from here on; sequences never get as far.
const FIRST: u64 = 1 << 63;

/// The runs of one engine.
#[derive(Default)]
pub(super) struct Runs {
    open: BTreeMap<u64, ChildrenRun>,
    /// How many there were.
    begun: u64,
    /// What ended without a result, to be told with the next step.
    failed: Vec<(u64, RefusedJob)>,
}

impl Runs {
    pub(super) fn add(&mut self, engine: &Engine, scores: Scores) -> Result<u64, RefusedJob> {
        let run = ChildrenRun::new(engine, scores.call, &scores.omits).map_err(|error| refused(&error))?;
        let id = FIRST + self.begun;
        self.begun += 1;
        self.open.insert(id, run);
        Ok(id)
    }

    /// False: it is no run's number.
    pub(super) fn cancel(&mut self, engine: &mut Engine, id: u64) -> bool {
        if let Some(mut run) = self.open.remove(&id) {
            run.cancel(engine);
            self.failed.push((id, refused(&ScoreError::Cancelled)));
        }
        id >= FIRST
    }

    /// Puts in line what may run now.
    pub(super) fn submit(&mut self, engine: &mut Engine) {
        for (id, run) in &mut self.open {
            if let Err(error) = run.submit(engine) {
                self.failed.push((*id, refused(&error)));
            }
        }
    }

    /// Keeps an event of a run; gives others' back.
    pub(super) fn take(&mut self, event: Event) -> Option<Event> {
        let mut event = event;
        for (id, run) in &mut self.open {
            match run.take(event) {
                Ok(Some(not_its)) => event = not_its,
                Ok(None) => return None,
                Err(error) => {
                    self.failed.push((*id, refused(&error)));
                    return None;
                }
            }
        }
        Some(event)
    }

    /// What has ended since the last step.
    pub(super) fn ended(&mut self, engine: &mut Engine) -> Vec<(u64, JobEvent)> {
        let mut told = Vec::new();
        for (id, why) in std::mem::take(&mut self.failed) {
            if let Some(mut run) = self.open.remove(&id) {
                run.cancel(engine);
            }
            told.push((id, JobEvent::Refused(why)));
        }
        let done: Vec<u64> = self.open.iter().filter(|(_, run)| run.is_done()).map(|(id, _)| *id).collect();
        let found = done.into_iter().filter_map(|id| Some((id, self.open.remove(&id)?.finish())));
        told.extend(found.map(|(id, found)| (id, JobEvent::Scored(Box::new(found)))));
        told
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.failed.is_empty()
    }
}

fn refused(error: &ScoreError) -> RefusedJob {
    let retriable = matches!(error, ScoreError::Cancelled | ScoreError::Submit(SubmitError::Busy { .. }));
    RefusedJob { why: error.to_string(), retriable }
}
