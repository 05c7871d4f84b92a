//! From a body to jobs: first counted, so that somebody may pay for them, then running.

mod tools;

use super::body::{self, Chat, Completion, Form, Prompt, Said, Settings, ToolChoice};
use super::error::Failure;
use super::face::Face;
use super::told::{Asked, Kind, Tooling};
use crate::engine_thread::real::LoadedModel;
use crate::engine_thread::{Job, RunningJob};
use axum::body::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use worker_inference::{ChatOptions, Grammar, Message, ToolCall, Tools};

/// What a completion generates when its request does not say: OpenAI's number.
const COMPLETION_TOKENS: u32 = 16;
/// Interactive: between the system's own calls and batches.
const CLASS: u8 = 1;
/// All requests of this face share prefixes with each other, and with nobody else.
const SCOPE: [u8; 32] = *b"quorate openai face, no projects";

/// What is to run: a job for each choice, but for the prompts.
struct Work {
    model: LoadedModel,
    settings: Settings,
    prompts: Vec<Vec<u32>>,
    grammar: Option<Grammar>,
    tooling: Tooling,
}

/// Jobs that are ready to run.
pub(crate) struct Prepared {
    kind: Kind,
    model: LoadedModel,
    settings: Settings,
    jobs: Vec<Job>,
    places: Vec<OwnedSemaphorePermit>,
    tooling: Tooling,
}

/// What a body of `/v1/completions` asks.
pub(crate) async fn completion(
    face: &Face,
    body: Bytes,
    room: OwnedSemaphorePermit,
) -> Result<Prepared, Failure> {
    let work = on_a_core(face, room, move |face| {
        let asked = Completion::parse(&body)?;
        let served = face.model(asked.model.as_deref())?;
        let model = served.loaded.clone();
        let tokens = asked.prompts.iter().map(|prompt| tokens(&model, prompt));
        let prompts = tokens.collect::<Result<_, _>>()?;
        let grammar = form(&asked.settings.form).map(|schema| served.grammar("response_format", schema));
        Ok(Work {
            prompts,
            grammar: grammar.transpose()?,
            settings: asked.settings,
            model,
            tooling: Tooling::None,
        })
    });
    prepared(face, Kind::Completion, work.await?)
}

/// What a body of `/v1/chat/completions` asks.
pub(crate) async fn chat(face: &Face, body: Bytes, room: OwnedSemaphorePermit) -> Result<Prepared, Failure> {
    let work = on_a_core(face, room, move |face| {
        let asked = Chat::parse(&body)?;
        let served = face.model(asked.model.as_deref())?;
        let prompts = vec![conversation(&served.loaded, &asked)?];
        let (tooling, grammar) = match tools::forced(&asked) {
            Some(schema) => (Tooling::Forced, Some(served.grammar("tools", &schema)?)),
            None => {
                let form = form(&asked.settings.form).map(|schema| served.grammar("response_format", schema));
                // An answer in a form can't also be a call in the model's own way.
                let free = asked.choice == ToolChoice::Auto && form.is_none();
                (tooling(&served.loaded, free), form.transpose()?)
            }
        };
        Ok(Work { prompts, grammar, settings: asked.settings, model: served.loaded.clone(), tooling })
    });
    prepared(face, Kind::Chat, work.await?)
}

/// A model without a chat template gets no conversation, so it does not matter how it would call.
fn tooling(model: &LoadedModel, free: bool) -> Tooling {
    let format = model.text.chat().map(|chat| chat.call_format()).ok().filter(|_| free);
    format.map_or(Tooling::None, Tooling::Free)
}

fn form(form: &Form) -> Option<&str> {
    match form {
        Form::Text => None,
        Form::JsonObject => Some(r#"{"type": "object"}"#),
        Form::JsonSchema(schema) => Some(schema),
    }
}

/// Parses and tokenises away from the connections' threads, on as many cores as there are. The body's room is given
/// back when it is done, even if nobody waits any more.
async fn on_a_core<T: Send + 'static>(
    face: &Face,
    room: OwnedSemaphorePermit,
    work: impl FnOnce(&Face) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let _turn = face.turn().await?;
    let face = face.clone();
    let done = tokio::task::spawn_blocking(move || {
        let _room = room;
        work(&face)
    });
    done.await.unwrap_or_else(|_| Err(Failure::bug("reading the request failed; this is a bug, report it")))
}

fn tokens(model: &LoadedModel, prompt: &Prompt) -> Result<Vec<u32>, Failure> {
    let tokenizer = &model.text.tokenizer;
    match prompt {
        Prompt::Tokens(tokens) => Ok(tokens.clone()),
        Prompt::Text(text) => {
            let mut tokens = Vec::from_iter(tokenizer.bos().filter(|_| tokenizer.adds_bos()));
            let text = tokenizer.encode(text, true);
            tokens.extend(text.map_err(|error| Failure::field("prompt", error.to_string()))?);
            Ok(tokens)
        }
    }
}

/// The whole conversation through the model's own template, with the tools that it may call.
fn conversation(model: &LoadedModel, asked: &Chat) -> Result<Vec<u32>, Failure> {
    let messages: Vec<Message> = asked.messages.iter().map(message).collect();
    let options = ChatOptions { tools: offered(asked)?, now_unix_s: Some(today()), thinking: None };
    let tokens = model.text.encode_chat(&messages, &options, true);
    tokens.map_err(|error| Failure::field("messages", error.to_string()))
}

fn message(said: &Said) -> Message {
    let call = |call: &body::ToolCall| ToolCall {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
    };
    Message {
        role: said.role.clone(),
        content: said.content.clone(),
        reasoning: None,
        tool_calls: said.tool_calls.iter().map(call).collect(),
        tool_call_id: said.tool_call_id.clone(),
        name: said.name.clone(),
    }
}

/// The tools as the client wrote them; none where they must not be called.
fn offered(asked: &Chat) -> Result<Option<Tools>, Failure> {
    if asked.tools.is_empty() || asked.choice == ToolChoice::None {
        return Ok(None);
    }
    let tools: Vec<&str> = asked.tools.iter().map(|tool| tool.json.as_str()).collect();
    let tools = Tools::from_json(&format!("[{}]", tools.join(",")));
    tools.map(Some).map_err(|why| Failure::field("tools", why))
}

/// The beginning of the day (UTC), for templates that name the date: any other time of the day would change the
/// tokens from one turn to the next.
fn today() -> i64 {
    const DAY_S: u64 = 86_400;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let day = since.map_or(0, |since| since.as_secs() / DAY_S * DAY_S);
    i64::try_from(day).unwrap_or(0)
}

fn prepared(face: &Face, kind: Kind, work: Work) -> Result<Prepared, Failure> {
    let Work { model, settings, prompts, grammar, tooling } = work;
    let jobs = prompts.into_iter().map(|tokens| job(kind, &model, &settings, tokens, grammar.clone()));
    let jobs: Vec<Job> = jobs.collect::<Result<_, _>>()?;
    let places = face.places(jobs.len())?;
    Ok(Prepared { kind, model, settings, jobs, places, tooling })
}

impl Prepared {
    /// The name of the model that answers.
    pub(crate) fn model(&self) -> &str {
        &self.model.name
    }

    /// Tokens of each prompt.
    pub(crate) fn prompts(&self) -> Vec<u64> {
        self.jobs.iter().map(|job| job.tokens.len() as u64).collect()
    }

    /// Tokens that all answers together may have.
    pub(crate) fn wanted(&self) -> u64 {
        self.jobs.iter().map(|job| u64::from(job.max_new)).sum()
    }

    /// Lets the answers together have no more than so many tokens: one each, then the first ones what they want.
    pub(crate) fn cut(&mut self, most: u64) {
        let mut left = most.saturating_sub(self.jobs.len() as u64);
        for job in &mut self.jobs {
            let more = u64::from(job.max_new.saturating_sub(1)).min(left);
            left -= more;
            job.max_new = u32::try_from(more + 1).unwrap_or(u32::MAX);
            job.min_new = job.min_new.min(job.max_new);
        }
    }

    /// Cached blocks are shared inside this scope alone.
    pub(crate) fn within(&mut self, scope: [u8; 32]) {
        self.jobs.iter_mut().for_each(|job| job.scope = scope);
    }

    /// Starts the jobs; each goes on until it ends or `stop` fires.
    pub(crate) fn start(self, stop: &CancellationToken) -> Result<Started, Failure> {
        let Prepared { kind, model, settings, jobs, places, tooling } = self;
        let asked = Asked::new(kind, model.name.clone(), Some(model.text.clone()), &settings);
        let run = |(job, place)| model.thread.run_in_place(job, Some(place), stop);
        let running = jobs.into_iter().zip(places).map(run).collect::<Result<_, _>>()?;
        Ok(Started { asked, running, tooling })
    }
}

/// Jobs that run, and what will tell of them.
pub(crate) struct Started {
    pub(crate) asked: Asked,
    pub(crate) running: Vec<RunningJob>,
    pub(crate) tooling: Tooling,
}

impl Started {
    /// Told as the engine says it. Dropping what tells cancels the jobs.
    pub(super) fn told(self) -> Asked {
        let Started { mut asked, running, tooling } = self;
        running.into_iter().for_each(|job| asked.add(job, tooling.clone()));
        asked
    }
}

fn job(
    kind: Kind,
    model: &LoadedModel,
    settings: &Settings,
    tokens: Vec<u32>,
    grammar: Option<Grammar>,
) -> Result<Job, Failure> {
    if tokens.is_empty() {
        return Err(Failure::field("prompt", "the prompt is empty; give at least one token"));
    }
    let window = model.window();
    let room = window.saturating_sub(tokens.len() as u64);
    let wanted = match (settings.max_tokens, kind) {
        (Some(tokens), _) => u64::from(tokens),
        (None, Kind::Completion) => u64::from(COMPLETION_TOKENS).min(room.max(1)),
        (None, Kind::Chat) => room.max(1),
    };
    if wanted > room {
        let param = match kind {
            Kind::Completion => "prompt",
            Kind::Chat => "messages",
        };
        return Err(Failure::too_long(param, tokens.len(), wanted, window));
    }
    let max_new = u32::try_from(wanted).unwrap_or(u32::MAX);
    Ok(Job {
        tokens,
        scope: SCOPE,
        max_new,
        min_new: settings.min_tokens.min(max_new),
        sampling: settings.sampling.clone(),
        stop: settings.stop.clone(),
        ignore_eos: settings.ignore_eos,
        logprobs: settings.logprobs,
        grammar,
        class: CLASS,
    })
}
