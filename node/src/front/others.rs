//! Answers of models that others compute: commercial providers, programs of users, scripts.
//!
//! They count themselves, and afterwards: the prompt is set aside at its worst. An answer of which nobody knows whether
//! it was worked on counts at everything that was set aside.

use super::{Inside, refused};
use crate::accounts::{Account, Caller, Need};
use crate::engine_thread::{JobEnd, JobEvent};
use crate::gateway::{Ask, EndOfSpeech, ModelFailure, Prompt, Provider, Said};
use crate::openai::Failure;
use crate::openai::body::{Chat, Form, Said as Message, Settings, Tool, ToolChoice};
use crate::openai::told::{self, Asked, Kind, Told, Tooling, Usage};
use crate::traces::requests::{Answering, Ended};
use axum::response::Response;
use context::{MessageCall, Role};
use futures::StreamExt;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use types::Class;
use worker_inference::ToolCall;

/// Tokens of an answer whose request does not say how many: money is set aside for all of them.
const ANSWER_TOKENS: u32 = 4_096;

pub(super) async fn answer(
    inside: &Inside,
    caller: &Caller,
    model: &str,
    provider: Arc<dyn Provider>,
    body: &[u8],
    told: &mut Option<Answering>,
) -> Result<Response, Failure> {
    let chat = Chat::parse(body)?;
    refuse_what_others_lack(&chat.settings)?;
    let place = inside.face.places(1)?;
    let (tools, choice) = offered(&chat)?;
    let messages: Arc<Vec<context::Message>> = Arc::new(chat.messages.iter().map(message).collect());
    let prompt = provider.prompt(&messages, tools.as_ref()).await.map_err(|error| failure(&error))?;
    let most = wanted(&chat.settings, &prompt, provider.facts().window)?;
    let prompt_tokens = prompt.tokens();
    let need = Need {
        model: model.to_owned(),
        prompt_tokens,
        least: 1,
        most: most.into(),
        kv_block_seconds: 0,
        destination: provider.destination(),
    };
    let account = inside.accounts.begin(caller, need).await.map_err(refused::not_begun)?;
    let granted = account.granted().saturating_sub(prompt_tokens);
    let ask = Ask {
        prompt,
        max_new: most.min(u32::try_from(granted).unwrap_or(u32::MAX)),
        min_new: 0,
        temperature_milli: (chat.settings.sampling.temperature * 1000.0).round() as u32,
        seed: chat.settings.sampling.seed,
        project: caller.project.clone(),
        class: Class::Interactive,
        agent: String::new(),
        call: 0,
        messages,
        tools,
        choice,
        stop: account.stop().clone(),
    };
    let (out, heard) = mpsc::unbounded_channel();
    told.iter().for_each(Answering::model_is_asked);
    let answer = Answer { account, prompt_tokens, out, told: told.take(), _place: place };
    tokio::spawn(answer.run(provider, ask));
    let asked = Asked::new(Kind::Chat, model.to_owned(), None, &chat.settings);
    let events = UnboundedReceiverStream::new(heard).map(|event| (0, event)).boxed();
    told::answer(asked.tell_from(1, &Tooling::None, events)).await
}

/// Settings that do not travel are refused by name: an answer that ignores them would be another one.
fn refuse_what_others_lack(settings: &Settings) -> Result<(), Failure> {
    let sampling = &settings.sampling;
    let lacking = [
        ("top_p", sampling.top_p < 1.0),
        ("top_k", sampling.top_k > 0),
        ("min_p", sampling.min_p > 0.0),
        ("frequency_penalty", sampling.frequency_penalty != 0.0),
        ("presence_penalty", sampling.presence_penalty != 0.0),
        ("min_tokens", settings.min_tokens > 0),
        ("ignore_eos", settings.ignore_eos),
        ("logprobs", settings.logprobs.is_some()),
        ("stop", !settings.stop.is_empty()),
        ("response_format", settings.form != Form::Text),
    ];
    match lacking.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((field, _)) => {
            let why = format!("this model is computed by others, and {field} does not travel; leave it out");
            Err(Failure::unsupported(field, why))
        }
    }
}

fn message(said: &Message) -> context::Message {
    let call = |call: &crate::openai::body::ToolCall| MessageCall {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
    };
    context::Message {
        role: match said.role.as_str() {
            "system" => Role::System,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            _ => Role::User,
        },
        text: said.content.clone(),
        tokens: None,
        open: false,
        segments: Vec::new(),
        label: said.role.clone(),
        calls: said.tool_calls.iter().map(call).collect(),
        answers: said.tool_call_id.clone(),
    }
}

/// The tools in the gateway's form, and whether they must be called.
fn offered(chat: &Chat) -> Result<(Option<Arc<str>>, mind::ToolChoice), Failure> {
    let (choice, only) = match &chat.choice {
        ToolChoice::None => return Ok((None, mind::ToolChoice::None)),
        ToolChoice::Auto => (mind::ToolChoice::Auto, None),
        ToolChoice::Required => (mind::ToolChoice::Required, None),
        ToolChoice::Named(name) => (mind::ToolChoice::Required, Some(name)),
    };
    let chosen = chat.tools.iter().filter(|tool| only.is_none_or(|name| *name == tool.name));
    let tools: Vec<Value> = chosen.map(function).collect::<Result<_, _>>()?;
    let tools = (!tools.is_empty()).then(|| Value::Array(tools).to_string().into());
    Ok((tools, choice))
}

fn function(tool: &Tool) -> Result<Value, Failure> {
    let json: Value = serde_json::from_str(&tool.json)
        .map_err(|error| Failure::field("tools", format!("the tool {:?} is no JSON: {error}", tool.name)))?;
    Ok(json.get("function").cloned().unwrap_or_default())
}

/// Tokens of the answer at most.
fn wanted(settings: &Settings, prompt: &Prompt, window: u64) -> Result<u32, Failure> {
    let left = window.saturating_sub(prompt.room());
    let wanted = u64::from(settings.max_tokens.unwrap_or(ANSWER_TOKENS));
    let fits = if settings.max_tokens.is_some() { wanted <= left } else { left > 0 };
    match fits {
        true => Ok(u32::try_from(wanted.min(left)).unwrap_or(u32::MAX)),
        false => {
            let prompt = usize::try_from(prompt.room()).unwrap_or(usize::MAX);
            Err(Failure::too_long("messages", prompt, wanted, window))
        }
    }
}

/// An answer that is being made.
struct Answer {
    account: Account,
    prompt_tokens: u64,
    out: mpsc::UnboundedSender<Told>,
    told: Option<Answering>,
    _place: Vec<OwnedSemaphorePermit>,
}

impl Answer {
    async fn run(self, provider: Arc<dyn Provider>, ask: Ask) {
        let last = match provider.answer(ask).await {
            Ok(said) => self.listen(said).await,
            Err(error) => self.end(Said::Failed(error)).await,
        };
        if let Some((out, last)) = last {
            let _ = out.send(last);
        }
    }

    /// Passes on what is said, and settles at the end; answers the last word. Whoever went away stops the answer.
    async fn listen(self, mut said: mpsc::Receiver<Said>) -> Option<(mpsc::UnboundedSender<Told>, Told)> {
        let mut gone = false;
        loop {
            let event = tokio::select! {
                event = said.recv() => event,
                () = self.out.closed(), if !gone => {
                    gone = true;
                    self.account.stop().cancel();
                    continue;
                }
            };
            match event {
                Some(Said::Token { text, .. }) => {
                    self.told.iter().for_each(Answering::first_token);
                    let _ = self.out.send(Told::Job(JobEvent::Token { token: 0, text, logprobs: None }));
                }
                Some(end) => return self.end(end).await,
                None => {
                    return self.lose(Failure::upstream("the model ended without a word; try again")).await;
                }
            }
        }
    }

    async fn end(self, end: Said) -> Option<(mpsc::UnboundedSender<Told>, Told)> {
        match end {
            Said::Token { .. } => None,
            Said::Failed(error) if error.lost.is_some() => self.lose(failure(&error)).await,
            Said::Failed(error) => {
                self.account.end(Usage::default(), 0).await;
                let failure = failure(&error);
                tell(self.told, Usage::default(), Err(failure.word()));
                Some((self.out, Told::Failed(failure)))
            }
            Said::End { why, text, token_ids, prompt_tokens, cached_tokens, calls, counted, .. } => {
                let prompt = counted.map_or(prompt_tokens, |counted| counted.prompt);
                let generated = counted.map_or(token_ids.len() as u64, |counted| counted.generated);
                let usage = Usage { prompt, cached: cached_tokens.min(prompt), generated };
                self.account.end(usage, 0).await;
                tell(self.told, usage, Ok(end_of(why).word()));
                let calls = calls.unwrap_or_default().into_iter().map(|call| ToolCall {
                    id: String::new(),
                    name: call.name,
                    arguments: call.arguments,
                });
                let told = Told::Ended { why: end_of(why), text, calls: calls.collect(), usage };
                Some((self.out, told))
            }
        }
    }

    async fn lose(self, failure: Failure) -> Option<(mpsc::UnboundedSender<Told>, Told)> {
        self.account.lose(self.prompt_tokens, 0).await;
        tell(self.told, Usage::default(), Err(failure.word()));
        Some((self.out, Told::Failed(failure)))
    }
}

fn tell(told: Option<Answering>, used: Usage, how: Result<&'static str, &'static str>) {
    let ended = Ended {
        prompt_tokens: used.prompt,
        cached_tokens: used.cached,
        generated_tokens: used.generated,
        waited_ms: None,
        finish: how.ok(),
        error: how.err(),
    };
    told.into_iter().for_each(|told| told.end(&ended));
}

fn end_of(why: EndOfSpeech) -> JobEnd {
    match why {
        EndOfSpeech::Stop => JobEnd::Stop,
        EndOfSpeech::Length => JobEnd::Length,
        EndOfSpeech::Stopped => JobEnd::Cancelled,
    }
}

/// A model's failure in OpenAI's words: the caller's own, or one that passes, or somebody else's.
fn failure(error: &ModelFailure) -> Failure {
    let message = format!("{}: {}", error.reason, error.message);
    match error.reason.as_str() {
        "CONTEXT_TOO_LONG" => {
            Failure { code: Some("context_length_exceeded"), ..Failure::field("messages", message) }
        }
        "BAD_REQUEST" | "NO_TOOLS" | "BAD_TOOL_SCHEMA" | "CANNOT_RENDER" => Failure::bad(message),
        "RATE_LIMITED" | "OVERLOADED" | "CIRCUIT_OPEN" | "BUSY" | "ENGINE_BUSY" => Failure::gone(message),
        _ => Failure::upstream(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    fn chat(more: &str) -> Chat {
        let body = format!(r#"{{"messages": [{{"role": "user", "content": "hi"}}]{more}}}"#);
        Chat::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn settings_that_do_not_travel_are_refused_by_name() {
        assert!(refuse_what_others_lack(&chat("").settings).is_ok());
        let fine = chat(r#", "temperature": 0.3, "seed": 4, "max_tokens": 9, "top_p": 1"#);
        assert!(refuse_what_others_lack(&fine.settings).is_ok());
        for (field, value) in [
            ("top_p", "0.5"),
            ("stop", r#""x""#),
            ("logprobs", "true"),
            ("response_format", r#"{"type": "json_object"}"#),
            ("presence_penalty", "1"),
        ] {
            let refused = refuse_what_others_lack(&chat(&format!(r#", "{field}": {value}"#)).settings);
            let refused = refused.expect_err(field);
            assert_eq!((refused.param, refused.code), (Some(field), Some("unsupported_parameter")));
        }
    }

    #[test]
    fn tools_travel_in_the_gateways_form() {
        let tools = r#", "tools": [{"type": "function", "function": {"name": "a"}}, {"type": "function", "function": {"name": "b", "parameters": {"type": "object"}}}]"#;
        let (all, choice) = offered(&chat(tools)).unwrap();
        assert_eq!(choice, mind::ToolChoice::Auto);
        assert_eq!(serde_json::from_str::<Value>(&all.unwrap()).unwrap()[1]["parameters"]["type"], "object");
        let named = format!(r#"{tools}, "tool_choice": {{"type": "function", "function": {{"name": "b"}}}}"#);
        let (one, choice) = offered(&chat(&named)).unwrap();
        assert_eq!(
            (one.as_deref(), choice),
            (Some(r#"[{"name":"b","parameters":{"type":"object"}}]"#), mind::ToolChoice::Required)
        );
        let (none, _) = offered(&chat(&format!(r#"{tools}, "tool_choice": "none""#))).unwrap();
        assert_eq!(none, None);
    }

    #[test]
    fn answers_have_room_or_are_refused() {
        let prompt = Prompt { bound: 500, likely: 90, ..Prompt::default() };
        assert_eq!(wanted(&chat("").settings, &prompt, 100).unwrap(), 10);
        assert_eq!(wanted(&chat("").settings, &prompt, 1 << 20).unwrap(), ANSWER_TOKENS);
        assert_eq!(wanted(&chat(r#", "max_tokens": 10"#).settings, &prompt, 100).unwrap(), 10);
        for (more, window) in [(r#", "max_tokens": 11"#, 100), ("", 90)] {
            let refused = wanted(&chat(more).settings, &prompt, window).expect_err(more);
            assert_eq!(refused.code, Some("context_length_exceeded"));
        }
    }

    #[test]
    fn failures_are_told_apart() {
        let of = |reason: &str| failure(&ModelFailure::passing(reason, "x")).status;
        assert_eq!(of("CONTEXT_TOO_LONG"), StatusCode::BAD_REQUEST);
        assert_eq!(of("OVERLOADED"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(of("KEY_REFUSED"), StatusCode::BAD_GATEWAY);
    }
}
