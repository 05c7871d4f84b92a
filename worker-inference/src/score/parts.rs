//! What a recorded call owes to parts of its context that know nothing of each other: each was read once, by itself.

use std::collections::{BTreeMap, VecDeque};

use super::ScoreError;
use crate::engine::{Engine, Event, PartsRequest, PartsSubmitted};
use crate::scheduler::SubmitError;
use crate::sequence::SequenceId;

/// What came of a call and its children.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parted {
    /// For each child natural logarithms, one a token of the action.
    pub children: Vec<Vec<f64>>,
    /// Rows that read parts by themselves; none for those that were known, from this call or another.
    pub read: usize,
    /// Rows of the children.
    pub computed: usize,
}

/// Scores a call behind those of its parts that each child keeps, by their numbers; a part without tokens is nothing. What a
/// child leaves out was never there: no part has seen another, but for what is read once more, which each child reads for
/// itself. Others' sequences go on meanwhile; their events come with the next [`Engine::step`].
///
/// A child costs the rows of what is read once more, of probe, and of action but the last. The bits of its results depend on
/// what it keeps, and on nothing else.
///
/// # Panics
/// For the number of a part that is not there.
pub fn score_parts(
    engine: &mut Engine,
    call: &PartsRequest,
    kept: &[Vec<usize>],
) -> Result<Parted, ScoreError> {
    let mut run = Run {
        call,
        children: BTreeMap::new(),
        reading: BTreeMap::new(),
        others: Vec::new(),
        found: Parted { children: vec![Vec::new(); kept.len()], ..Parted::default() },
    };
    let ended = run.score(engine, kept);
    if ended.is_err() {
        run.cancel(engine);
    }
    engine.keep_events(run.others);
    ended.map(|()| run.found)
}

struct Run<'a> {
    call: &'a PartsRequest,
    /// Which child a sequence is for.
    children: BTreeMap<SequenceId, usize>,
    /// Which part a sequence reads.
    reading: BTreeMap<SequenceId, usize>,
    others: Vec<Event>,
    found: Parted,
}

impl Run<'_> {
    fn score(&mut self, engine: &mut Engine, kept: &[Vec<usize>]) -> Result<(), ScoreError> {
        let mut next: VecDeque<usize> = (0..kept.len()).collect();
        let mut lost = 0;
        while !next.is_empty() || !self.children.is_empty() {
            while let Some(&child) = next.front() {
                let parts = self.parts_of(&kept[child]);
                match engine.submit_parts(self.request(&parts)) {
                    Ok(PartsSubmitted::Runs(id)) => {
                        self.children.insert(id, child);
                        next.pop_front();
                        lost = 0;
                    }
                    // What is read is kept until others need the room; more often than this and there is none.
                    Ok(PartsSubmitted::Missing(_)) if lost > 1 => {
                        return Err(ScoreError::Parts { blocks: engine.info().kv_blocks });
                    }
                    Ok(PartsSubmitted::Missing(_)) => {
                        lost += 1;
                        self.read(engine, &parts)?;
                    }
                    Err(SubmitError::NoRoom { .. } | SubmitError::Busy { .. })
                        if !self.children.is_empty() =>
                    {
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            self.step(engine)?;
        }
        Ok(())
    }

    /// Those of the kept parts that say anything.
    fn parts_of(&self, kept: &[usize]) -> Vec<usize> {
        kept.iter().copied().filter(|part| !self.call.parts[*part].is_empty()).collect()
    }

    fn request(&self, parts: &[usize]) -> PartsRequest {
        let parts = parts.iter().map(|part| self.call.parts[*part].clone()).collect();
        PartsRequest { parts, ..self.call.clone() }
    }

    /// Reads every part that is not known, each by itself, all together.
    fn read(&mut self, engine: &mut Engine, parts: &[usize]) -> Result<(), ScoreError> {
        for &part in parts {
            let tokens = [&self.call.start[..], &self.call.parts[part]].concat();
            if engine.knows(&self.call.scope, &tokens) {
                continue;
            }
            loop {
                match engine.submit_logits(self.call.scope, tokens.clone(), self.call.class) {
                    Ok(id) => {
                        self.reading.insert(id, part);
                        break;
                    }
                    Err(SubmitError::Busy { .. }) => self.step(engine)?,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        while !self.reading.is_empty() {
            self.step(engine)?;
        }
        Ok(())
    }

    fn step(&mut self, engine: &mut Engine) -> Result<(), ScoreError> {
        engine.step().into_iter().try_for_each(|event| self.take(event))
    }

    fn take(&mut self, event: Event) -> Result<(), ScoreError> {
        let (child, part) = (self.children.remove(&event.id()), self.reading.remove(&event.id()));
        match (event, child, part) {
            (event, None, None) => self.others.push(event),
            (Event::Scored { log_likelihood, usage, .. }, Some(child), _) => {
                self.found.computed += usage.computed;
                self.found.children[child] = log_likelihood;
            }
            (Event::Logits { usage, .. }, _, Some(_)) => self.found.read += usage.computed,
            _ => return Err(ScoreError::Cancelled),
        }
        Ok(())
    }

    /// Ends what runs. Their last events are still to come: nobody knows them any more.
    fn cancel(&mut self, engine: &mut Engine) {
        let children = std::mem::take(&mut self.children).into_keys();
        let reading = std::mem::take(&mut self.reading).into_keys();
        children.chain(reading).for_each(|id| _ = engine.cancel(id));
    }
}
