//! More requests than an engine can answer: what gets done then. Time is virtual, a function of the rows computed,
//! so that a run is the same on every machine.

use worker_inference::{Engine, SubmitError};

use super::common::{Random, ended, request};

/// What a step costs beside its rows, in rows.
const STEP_ROWS: f64 = 16.0;

/// Requests that always wait where the capacity is found: enough that the engine never wants for work.
const WAITING: usize = 8;

/// One agent's request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) shared: usize,
    pub(crate) private: usize,
    pub(crate) answer: usize,
    /// Requests that would keep the engine busy for the whole run.
    pub(crate) requests: usize,
}

/// What came of one offered load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Answered tokens of whole requests, in a thousand rows of time.
    pub(crate) goodput: f64,
    pub(crate) finished: usize,
    pub(crate) refused: usize,
}

/// Requests in a thousand rows of time when there is always another.
pub(crate) fn capacity(engine: &mut Engine, shape: Shape) -> Result<f64, SubmitError> {
    let mut run = Run::new(engine, shape, 1);
    while run.finished < shape.requests {
        while run.engine.observe().waiting < WAITING && run.arrived < shape.requests {
            run.arrive()?;
        }
        run.step();
    }
    Ok(run.finished as f64 / run.now)
}

/// Requests arrive evenly, at `offered` times the capacity, for as long as `shape.requests` would take at it.
pub(crate) fn run(
    engine: &mut Engine,
    shape: Shape,
    capacity: f64,
    offered: f64,
) -> Result<Outcome, SubmitError> {
    let until = shape.requests as f64 / capacity;
    let mut run = Run::new(engine, shape, (offered * 100.0) as u64);
    let mut next = 0.0;
    while run.now < until {
        while next <= run.now {
            run.arrive()?;
            next += 1.0 / (capacity * offered);
        }
        if run.live() == 0 {
            run.now = next;
        }
        run.step();
    }
    let (finished, refused, now) = (run.finished, run.refused, run.now);
    run.cancel();
    let goodput = (finished * shape.answer) as f64 / now;
    Ok(Outcome { goodput, finished, refused })
}

struct Run<'a> {
    engine: &'a mut Engine,
    shape: Shape,
    random: Random,
    background: Vec<u32>,
    /// In thousands of rows.
    now: f64,
    arrived: usize,
    refused: usize,
    finished: usize,
    ids: Vec<worker_inference::SequenceId>,
}

impl<'a> Run<'a> {
    fn new(engine: &'a mut Engine, shape: Shape, seed: u64) -> Run<'a> {
        engine.clear_cache();
        let mut random = Random(seed);
        let background = random.tokens(engine, shape.shared);
        Run {
            engine,
            shape,
            random,
            background,
            now: 0.0,
            arrived: 0,
            refused: 0,
            finished: 0,
            ids: Vec::new(),
        }
    }

    fn live(&self) -> usize {
        self.arrived - self.refused - self.finished
    }

    fn arrive(&mut self) -> Result<(), SubmitError> {
        let own = self.random.tokens(self.engine, self.shape.private);
        let tokens = [self.background.as_slice(), &own].concat();
        self.arrived += 1;
        match self.engine.submit(request(tokens, [5; 32], self.shape.answer)) {
            Ok(id) => self.ids.push(id),
            // What an overloaded engine must say.
            Err(SubmitError::Busy { .. }) => self.refused += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn step(&mut self) {
        let before = self.engine.observe().tokens_computed;
        let events = self.engine.step();
        let rows = self.engine.observe().tokens_computed - before;
        self.now += (STEP_ROWS + rows as f64) / 1000.0;
        self.finished += ended(events).count();
    }

    fn cancel(mut self) {
        for id in std::mem::take(&mut self.ids) {
            self.engine.cancel(id);
        }
        while !self.engine.is_idle() {
            self.engine.step();
        }
    }
}
