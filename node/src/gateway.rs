//! One door for model calls: every token of every agent comes through here.
//!
//! A call is counted, reserved, generated, and told apart: what was new, what it cost, why it ended. Nothing is
//! computed before the ledger set the tokens aside, and nothing beyond what it set aside: a local engine stops at
//! exactly the token where the budget ends. Which model answers is a [`Provider`]'s business.
//!
//! This is not the place of retries or of what to say: that is `mind`. Prices are the ledger's.
//!
//! Read: this file, then `provider` (whom it asks, in which words), `local` (the engine beside us), `render` (messages to
//! tokens), `spoken` (tools as text), `scripted` (replies from a file), `external` (programs of users), `pace` (what a call
//! will occupy), `route` (one of several models, by what `rates` says of them), `speak` (an answer as it comes).

pub(crate) mod external;
pub mod local;
mod pace;
mod provider;
mod rates;
pub mod remote;
mod render;
pub mod route;
pub mod scripted;
mod speak;
mod spoken;

#[cfg(test)]
pub(crate) mod gateway_test;

use crate::served::Served;
use crate::telemetry::names;
use crate::traces::now_ns;
use context::Message;
use external::External;
use futures::future::BoxFuture;
use ledger::command::Route;
use ledger::keys::Amounts;
use ledger::reply::Refusal;
use ledger::rows::Want;
use mind::{Finish, SaidCall, ToolChoice};
use pace::{Paces, kv_block_seconds};
pub use provider::{Ask, Counted, EndOfSpeech, OWN, Prompt, Provider, ProviderFacts, Said, Standing};
use rates::Rates;
use route::Routing;
use speak::speak;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use types::{Class, Hash, ProjectName, Spent};

/// What is asked of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCall {
    pub model: String,
    /// Name of the agent that asks; scripts may look at it.
    pub agent: String,
    pub project: ProjectName,
    /// The view, in order; see `context::View::messages`.
    pub messages: Vec<Message>,
    /// The tools of the view, as JSON.
    pub tools: Option<Arc<str>>,
    pub choice: ToolChoice,
    /// Tokens of the chain at the task's last committed step: paid for already.
    pub known_tokens: u64,
    pub max_tokens: u32,
    /// The model may not stop before.
    pub min_tokens: u32,
    pub temperature_milli: u32,
    pub seed: u64,
    pub class: Class,
    /// 0 for the first try of a step, then 1, 2, …
    pub call: u32,
    /// A prompt of more thousandths of the window is measured and not asked.
    pub full_at_milli: Option<u32>,
    /// The models of which one answers, in place of `model`.
    pub routing: Option<Routing>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelOutcome {
    Generated(Generated),
    Failed(ModelFailure),
    /// The ledger did not set the tokens aside.
    Refused(Refusal),
    /// Interrupted from outside; with what there was by then, if generating had begun. `finish` is `Budget` there:
    /// the answer was cut and can be continued.
    Stopped(Option<Generated>),
    /// The prompt takes more of the window than the call allowed. Nothing was set aside.
    NearlyFull(Fullness),
}

/// How full a window is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fullness {
    pub window: u64,
    /// The whole prompt.
    pub tokens: u64,
    /// Tokens of each message of the call.
    pub counts: Vec<u64>,
}

/// What a model said.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    pub text: String,
    pub token_ids: Vec<u32>,
    pub tokenizer: Hash,
    pub finish: Finish,
    pub spent: Spent,
    /// Prompt tokens that were not in the chain before, and the generated ones.
    pub billed_tokens: u64,
    /// Tokens of the whole chain, with the new ones.
    pub chain_tokens: u64,
    /// What the call used beside tokens.
    pub extra: Amounts,
    pub numerics: Option<Hash>,
    /// The prompt and the answer, from an engine beside us, which has blocks of them; else nothing.
    pub chain: Vec<u32>,
    /// How many of them are of the first messages, which the agent has in all of its tasks.
    pub chain_head: usize,
    /// Tool calls, from a provider that says them apart from the text.
    pub calls: Option<Vec<SaidCall>>,
    /// Which of several models it was, and why.
    pub route: Option<mind::Route>,
    pub waits: Waits,
}

/// Where the time before the first token went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// When the model was asked, all being set aside: Unix nanoseconds.
    pub asked_ns: u64,
    /// In the line of an engine beside us, from there on.
    pub line_ms: Option<u64>,
}

/// Why a model said nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct ModelFailure {
    /// A stable word, such as `CONTEXT_TOO_LONG`.
    pub reason: String,
    /// What happened, why, what to do next, with numbers.
    pub message: String,
    pub retriable: bool,
    /// The provider may have worked for it: all that was set aside counts as used.
    pub lost: Option<Lost>,
}

/// What a call of which nobody knows the outcome used at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// New tokens of the prompt.
    pub new_tokens: u64,
    pub generated_tokens: u64,
}

impl Lost {
    pub(crate) fn tokens(self) -> u64 {
        self.new_tokens + self.generated_tokens
    }

    pub(crate) fn plus(self, other: Lost) -> Lost {
        Lost {
            new_tokens: self.new_tokens + other.new_tokens,
            generated_tokens: self.generated_tokens + other.generated_tokens,
        }
    }
}

impl ModelFailure {
    pub(crate) fn lasting(reason: &str, message: impl Into<String>) -> Self {
        ModelFailure { reason: reason.into(), message: message.into(), retriable: false, lost: None }
    }

    pub(crate) fn passing(reason: &str, message: impl Into<String>) -> Self {
        ModelFailure { reason: reason.into(), message: message.into(), retriable: true, lost: None }
    }
}

/// Sets tokens of the budget aside.
pub trait Reserve: Send + Sync {
    /// At least `min_tokens`, at most `max_tokens`; answers how many. `want` says what of the minimum is prompt, and
    /// what else the call uses; `route` which of several models it is for.
    fn reserve(
        &self,
        min_tokens: u64,
        max_tokens: u64,
        want: Want,
        route: Option<Route>,
    ) -> BoxFuture<'_, Result<u64, Refusal>>;
}

/// A piece of text as it is generated. Live only: it may be said again after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivePiece<'a> {
    /// Tokens of this call before this piece.
    pub offset: u64,
    /// Tokens of this piece; at least one.
    pub tokens: u32,
    pub text: &'a str,
}

/// Takes live pieces; must not block.
pub type LiveSink<'a> = &'a (dyn Fn(LivePiece<'_>) + Send + Sync);

/// The door. Cheap to clone.
#[derive(Clone, Default)]
pub struct Gateway {
    providers: Arc<BTreeMap<String, Arc<dyn Provider>>>,
    served: Option<Served>,
    paces: Paces,
    rates: Rates,
}

impl Gateway {
    /// Providers by the model names that agents use.
    pub fn new(providers: impl IntoIterator<Item = (String, Arc<dyn Provider>)>) -> Self {
        Gateway { providers: Arc::new(providers.into_iter().collect()), ..Gateway::default() }
    }

    /// Also models that programs of users serve here.
    pub(crate) fn with_served(self, served: Served) -> Self {
        Gateway { served: Some(served), ..self }
    }

    /// Who computes a model's answers, as traces name it.
    pub(crate) fn maker(&self, model: &str) -> &'static str {
        self.provider(model).map_or(OWN, |provider| provider.maker())
    }

    pub(crate) fn provider(&self, model: &str) -> Option<Arc<dyn Provider>> {
        let external = || {
            let name = model.strip_prefix(external::PREFIX)?.to_string();
            let served = self.served.clone()?;
            Some(Arc::new(External { served, name }) as Arc<dyn Provider>)
        };
        self.providers.get(model).cloned().or_else(external)
    }

    /// What a call of a model occupies at most, by the pace of earlier ones, in block-seconds.
    pub(crate) fn will_occupy(&self, model: &str, chain_tokens: u64, new_tokens: u64) -> u64 {
        kv_block_seconds(chain_tokens, new_tokens.saturating_mul(self.paces.micros_a_token(model)))
    }

    /// What a call occupied, which is learnt from.
    pub(crate) fn occupied(&self, model: &str, chain_tokens: u64, new_tokens: u64, took: Duration) -> u64 {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.paces.learn(model, micros, new_tokens);
        kv_block_seconds(chain_tokens, micros)
    }

    /// Models that can be called here, sorted.
    pub fn models(&self) -> Vec<String> {
        self.providers.keys().cloned().collect()
    }

    /// Calls a model. `stop` interrupts at any point; the future ends when the provider has stopped.
    pub async fn call(
        &self,
        mut call: ModelCall,
        reserve: &dyn Reserve,
        live: LiveSink<'_>,
        stop: &CancellationToken,
    ) -> ModelOutcome {
        if let Some(routing) = call.routing.take() {
            return self.routed(call, routing, reserve, live, stop).await;
        }
        let Some(provider) = self.provider(&call.model) else {
            return ModelOutcome::Failed(self.no_such_model(&call.model));
        };
        let model = call.model.clone();
        let messages = Arc::new(std::mem::take(&mut call.messages));
        let prompt = stop.run_until_cancelled(provider.prompt(&messages, call.tools.as_ref())).await;
        let asked = match prompt {
            None => Err(ModelOutcome::Stopped(None)),
            Some(Err(failure)) => Err(ModelOutcome::Failed(failure)),
            Some(Ok(prompt)) => {
                let asked = Asked { messages, prompt, route: None };
                self.ask(provider.as_ref(), call, asked, reserve, stop).await
            }
        };
        self.answered(&model, provider.as_ref(), asked, live).await
    }

    /// Lets the provider speak, and learns from how it went.
    async fn answered(
        &self,
        model: &str,
        provider: &dyn Provider,
        asked: Result<(Plan, Ask), ModelOutcome>,
        live: LiveSink<'_>,
    ) -> ModelOutcome {
        let outcome = match asked {
            Ok((plan, ask)) => {
                let (begun, asked_ns, first) = (Instant::now(), now_ns(), OnceLock::new());
                let timed = |piece: LivePiece<'_>| {
                    first.get_or_init(|| first_token(model, begun.elapsed()));
                    live(piece);
                };
                let (project, agent) = (ask.project.clone(), ask.agent.clone());
                let mut outcome = speak(provider, plan, ask, &timed).await;
                if let ModelOutcome::Generated(said) | ModelOutcome::Stopped(Some(said)) = &mut outcome {
                    said.waits.asked_ns = asked_ns;
                    let whole = begun.elapsed();
                    let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
                    self.paces.learn(model, micros, said.billed_tokens);
                    if !said.token_ids.is_empty() {
                        said.extra.kv_block_seconds = kv_block_seconds(said.chain_tokens, micros);
                    }
                    let generated = said.spent.generated_tokens;
                    self.rates.learn(model, first.get().copied().unwrap_or(whole), whole, generated);
                    self.rates.answered(&project, &agent, generated);
                }
                outcome
            }
            Err(outcome) => outcome,
        };
        let labels = [("model", model.to_string()), ("outcome", outcome.word().to_string())];
        metrics::counter!(names::MODEL_CALLS_TOTAL, &labels).increment(1);
        outcome
    }

    fn no_such_model(&self, model: &str) -> ModelFailure {
        let known = self.models().join(", ");
        let here = if known.is_empty() { "none is loaded".into() } else { format!("this node has {known}") };
        let next = "name one of them in the agent, or add the model to [engine] models of a worker";
        ModelFailure::lasting("NO_SUCH_MODEL", format!("model {model:?} is not on this node: {here}; {next}"))
    }
}

fn first_token(model: &str, after: Duration) -> Duration {
    let seconds = after.as_secs_f64();
    metrics::histogram!(names::MODEL_FIRST_TOKEN_SECONDS, "model" => model.to_string()).record(seconds);
    after
}

impl ModelOutcome {
    /// For figures.
    fn word(&self) -> &'static str {
        match self {
            ModelOutcome::Generated(_) => "generated",
            ModelOutcome::Failed(_) => "failed",
            ModelOutcome::Refused(_) => "refused",
            ModelOutcome::Stopped(_) => "stopped",
            ModelOutcome::NearlyFull(_) => "nearly_full",
        }
    }
}

/// What was decided before the first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    prompt_tokens: u64,
    new_tokens: u64,
    max_new: u32,
    /// Fewer tokens were granted than the agent wants.
    cut_by_budget: bool,
}

/// A conversation, counted.
struct Asked {
    messages: Arc<Vec<Message>>,
    prompt: Prompt,
    /// The model of several that it is for.
    route: Option<Route>,
}

impl Gateway {
    /// Checks the window, reserves.
    async fn ask(
        &self,
        provider: &dyn Provider,
        call: ModelCall,
        asked: Asked,
        reserve: &dyn Reserve,
        stop: &CancellationToken,
    ) -> Result<(Plan, Ask), ModelOutcome> {
        let micros_a_token = self.paces.micros_a_token(&call.model);
        ask(provider, call, asked, micros_a_token, reserve, stop).await
    }
}

async fn ask(
    provider: &dyn Provider,
    call: ModelCall,
    Asked { messages, prompt, route }: Asked,
    micros_a_token: u64,
    reserve: &dyn Reserve,
    stop: &CancellationToken,
) -> Result<(Plan, Ask), ModelOutcome> {
    let prompt_tokens = prompt.tokens();
    let window = provider.facts().window;
    if let Some(fullness) = nearly_full(window, call.full_at_milli, &prompt) {
        return Err(ModelOutcome::NearlyFull(fullness));
    }
    let wanted = wanted_tokens(window, call.max_tokens, &prompt, &messages).map_err(ModelOutcome::Failed)?;
    let new_tokens = prompt_tokens.saturating_sub(call.known_tokens);
    let most = new_tokens + u64::from(wanted);
    let kv = kv_block_seconds(prompt_tokens + u64::from(wanted), most.saturating_mul(micros_a_token));
    let want = Want {
        fresh_tokens: new_tokens,
        known_tokens: prompt_tokens - new_tokens,
        extra: Amounts { kv_block_seconds: kv, ..Amounts::NONE },
    };
    // What lies in lower tiers is on its way while the ledger is asked.
    provider.foresee(&call.project, call.class, &prompt);
    let reserving = reserve.reserve(new_tokens + 1, most, want, route);
    let granted = stop.run_until_cancelled(reserving).await.ok_or(ModelOutcome::Stopped(None))?;
    let granted = granted.map_err(ModelOutcome::Refused)?;
    let max_new = wanted.min(u32::try_from(granted.saturating_sub(new_tokens)).unwrap_or(u32::MAX));
    let plan = Plan { prompt_tokens, new_tokens, max_new, cut_by_budget: max_new < wanted };
    let ask = Ask {
        prompt,
        max_new,
        min_new: call.min_tokens.min(max_new),
        temperature_milli: call.temperature_milli,
        seed: call.seed,
        project: call.project,
        class: call.class,
        agent: call.agent,
        call: call.call,
        messages,
        tools: call.tools,
        choice: call.choice,
        stop: stop.clone(),
    };
    Ok((plan, ask))
}

fn nearly_full(window: u64, full_at_milli: Option<u32>, prompt: &Prompt) -> Option<Fullness> {
    let (tokens, mark) = (prompt.room(), u64::from(full_at_milli?));
    let full = tokens.saturating_mul(1000) > window.saturating_mul(mark);
    full.then(|| Fullness { window, tokens, counts: prompt.counts.clone() })
}

/// Tokens that the agent's limit and the window leave for the answer; at least one.
fn wanted_tokens(
    window: u64,
    max_tokens: u32,
    prompt: &Prompt,
    messages: &[Message],
) -> Result<u32, ModelFailure> {
    let used = prompt.room();
    if used >= window {
        return Err(too_long(window, used, prompt, messages));
    }
    let room = u32::try_from(window - used).unwrap_or(u32::MAX);
    Ok(max_tokens.max(1).min(room))
}

fn too_long(window: u64, used: u64, prompt: &Prompt, messages: &[Message]) -> ModelFailure {
    let mut parts: Vec<(u64, &str)> =
        prompt.counts.iter().copied().zip(messages.iter().map(|message| message.label.as_str())).collect();
    parts.sort_by_key(|(tokens, _)| std::cmp::Reverse(*tokens));
    let largest: Vec<String> =
        parts.iter().take(3).map(|(tokens, what)| format!("{what} ({tokens} tokens)")).collect();
    let message = format!(
        "the prompt has {used} tokens, the model's window is {window}, and at least 1 token of answer must fit: {} too \
         many. The largest parts are {}. Give the agent less text, split the input, or use a model with a larger window",
        used + 1 - window,
        largest.join(", "),
    );
    ModelFailure::lasting("CONTEXT_TOO_LONG", message)
}
