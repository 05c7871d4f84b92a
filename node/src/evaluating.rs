//! What of a context mattered, asked of this node's engines: the calls of the cluster's tasks, scored behind all other
//! work.
//!
//! It decides nothing about segments (that is the crate `evaluate`), and it stores nothing. One evaluation runs at a
//! time, few wait: what an engine does for nobody in particular must not fill its line.
//!
//! Read: this file, `recorded` (a task's journal as calls; pure), `scorer` (the engine behind the evaluator), `asked`
//! (requests and answers as messages), `bill` (who pays), `plane` (asked by other nodes), `sampled` (asked by nobody).

pub(crate) mod asked;
mod bill;
mod parts;
pub(crate) mod plane;
pub(crate) mod recorded;
pub(crate) mod sampled;
mod scorer;

pub(crate) use parts::PartsScorer;
pub(crate) use scorer::{EngineScorer, ScoreFailure, sha256};

use crate::accounts::{Accounts, NotBegun};
use crate::engine_thread::real::LoadedModel;
use crate::gateway::local::scope_of;
use bill::{Bill, Meter};
use evaluate::{Call, EvaluateError, NoSuggestion, Over, Report, Settings, Suggestion};
use scorer::Shared;
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use types::ProjectName;

/// Evaluations that run or wait on one node; beyond, callers are told that it is busy.
const LINE: usize = 8;
/// Computed tokens of one evaluation, where its caller names no budget: a few minutes of a small model.
pub(crate) const BUDGET_TOKENS: u64 = 1_000_000;
/// Calls of one evaluation.
pub(crate) const CALLS: usize = 256;

/// What is to be evaluated.
pub(crate) struct Order {
    /// A model of this node.
    pub(crate) model: String,
    /// Whose text it is: nothing computed for it is shared with another project.
    pub(crate) project: ProjectName,
    /// Checked.
    pub(crate) calls: Vec<Call>,
    pub(crate) settings: Settings,
    /// Also the smallest context of each call.
    pub(crate) suggest: bool,
    /// Who asked: the project pays. What nobody asked for is free.
    pub(crate) author: Option<String>,
}

/// The smallest context of a call; or the call, and why there is none.
pub(crate) type Suggested = Result<Suggestion, (String, NoSuggestion)>;

/// What came of it.
pub(crate) struct Evaluated {
    pub(crate) report: Report,
    /// One a call, where they were asked for.
    pub(crate) suggestions: Vec<Suggested>,
    /// The calls, for a page.
    pub(crate) calls: Vec<Call>,
}

impl Evaluated {
    /// What it took, whatever was in an engine's cache.
    pub(crate) fn tokens_spent(&self) -> u64 {
        let spent = |call: &evaluate::CallReport| call.costs.spent() + call.costs.audit;
        let searched = self.suggestions.iter().flatten().map(|found| found.tokens_spent);
        self.report.calls.iter().map(spent).sum::<u64>() + searched.sum::<u64>()
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("model {model:?} is not loaded here")]
    NoModel { model: String },
    #[error("{LINE} evaluations run or wait on this node already")]
    Busy,
    #[error("no call could be evaluated; {first}")]
    Nothing { over: Over, first: String },
    /// Nothing could be set aside.
    #[error(transparent)]
    NotBegun(#[from] NotBegun),
    /// The project has less than the evaluation was to have.
    #[error("of {wanted} tokens the project's quotas leave {granted}; {first}")]
    Short { granted: u64, wanted: u64, first: String },
    /// Masked and exact removal say different things.
    #[error("{0}")]
    Refused(String),
    #[error("the engine gave no scores: {0}")]
    Engine(String),
}

/// The evaluations of one node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Evaluations {
    models: Arc<Vec<(LoadedModel, OnceLock<String>)>>,
    line: Arc<Semaphore>,
    turn: Arc<Semaphore>,
    accounts: Accounts,
}

impl Evaluations {
    pub(crate) fn new(models: &[LoadedModel], accounts: Accounts) -> Evaluations {
        let models = models.iter().map(|model| (model.clone(), OnceLock::new())).collect();
        let (line, turn) = (Arc::new(Semaphore::new(LINE)), Arc::new(Semaphore::new(1)));
        Evaluations { models: Arc::new(models), line, turn, accounts }
    }

    /// Whether a model of this name is loaded here.
    pub(crate) fn has(&self, model: &str) -> bool {
        self.models.iter().any(|(loaded, _)| loaded.name == model)
    }

    /// Evaluates, in its turn. Dropping the future ends what is under way.
    pub(crate) async fn run(&self, mut order: Order) -> Result<Evaluated, Failed> {
        let _place = self.line.clone().try_acquire_owned().map_err(|_| Failed::Busy)?;
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| Failed::Busy)?;
        let bill = Bill::begin(&self.accounts, &mut order).await?;
        let (meter, stop) = (bill.meter.clone(), bill.stop.clone());
        let evaluations = self.clone();
        let _stops = stop.clone().drop_guard();
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            evaluations.compute(order, meter, stop)
        });
        let done =
            work.await.unwrap_or_else(|_| Err(Failed::Engine("evaluating panicked; report it".into())));
        bill.settle(done).await
    }

    fn compute(&self, order: Order, meter: Meter, stop: CancellationToken) -> Result<Evaluated, Failed> {
        let Order { model, project, calls, settings, suggest, .. } = order;
        let found = self.models.iter().find(|(loaded, _)| loaded.name == model);
        let (loaded, sha) = found.ok_or(Failed::NoModel { model })?;
        let sha = digest(loaded, sha)?;
        let broken = |failure: ScoreFailure| Failed::Engine(failure.to_string());
        let mut scorer =
            EngineScorer::shared(loaded, sha, scope_of(&project), meter, stop).map_err(broken)?;
        let report = evaluate::evaluate(&calls, &settings, &mut scorer).map_err(failed)?;
        if let (true, Some(first)) = (report.calls.is_empty(), report.skipped.first()) {
            let first = format!("call {}: {}", first.call, first.why);
            return Err(Failed::Nothing { over: report.skipped[0].over, first });
        }
        let evaluated = report.calls.iter().filter(|_| suggest).map(|call| &calls[call.index]);
        let suggestions = suggestions(evaluated, &settings, &mut scorer)?;
        Ok(Evaluated { report, suggestions, calls })
    }
}

fn digest(loaded: &LoadedModel, known: &OnceLock<String>) -> Result<String, Failed> {
    if let Some(known) = known.get() {
        return Ok(known.clone());
    }
    let found = sha256(&loaded.file)
        .map_err(|error| Failed::Engine(format!("reading {}: {error}", loaded.file.display())))?;
    Ok(known.get_or_init(|| found).clone())
}

fn suggestions<'c>(
    calls: impl Iterator<Item = &'c Call>,
    settings: &Settings,
    scorer: &mut EngineScorer<Shared>,
) -> Result<Vec<Suggested>, Failed> {
    let one = |call: &Call| {
        let found = evaluate::suggest(call, settings, scorer).map_err(failed)?;
        Ok(found.map_err(|why| (call.name.clone(), why)))
    };
    calls.map(one).collect()
}

fn failed(error: EvaluateError<ScoreFailure>) -> Failed {
    match error {
        EvaluateError::Refused { .. } => Failed::Refused(error.to_string()),
        EvaluateError::Scorer(failure) => Failed::Engine(failure.to_string()),
        EvaluateError::Scores { .. } | EvaluateError::Tokens { .. } => Failed::Engine(error.to_string()),
    }
}
