//! Models that others compute, as providers: the wire is `providers`' business, here both sides' words are put into
//! the other's.
//!
//! Such a provider counts tokens itself and afterwards. Before a call the prompt is taken at its worst, so that what is
//! set aside covers what is billed; a call of which nobody knows whether it was worked on uses all of it.

use super::{Ask, Counted, EndOfSpeech, Lost, ModelFailure, Prompt, Provider, ProviderFacts, Said, Standing};
use context::{Message, Role};
use futures::future::BoxFuture;
use mind::{SaidCall, ToolChoice};
use providers::breaker::BreakerState;
use providers::{
    Answer, Client, Destinations, Endpoint, Failure, Finish, Limits, Piece, Request, SetupError,
};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::mpsc;
use types::Hash;

/// One model at one provider.
pub struct Remote {
    client: Client,
    facts: ProviderFacts,
    host: Option<String>,
    maker: &'static str,
}

impl Remote {
    /// Reads the key; asks nobody.
    pub fn open(endpoint: Endpoint, destinations: &Destinations) -> Result<Remote, SetupError> {
        let name = format!("{} {}", endpoint.url, endpoint.model);
        let facts = ProviderFacts {
            window: endpoint.window,
            tokenizer: Hash::of_parts(&[b"counted by others", name.as_bytes()]),
            numerics: None,
        };
        let host = host_of(&endpoint.url);
        let maker = match endpoint.kind {
            providers::Kind::OpenAi => "openai",
            providers::Kind::Anthropic => "anthropic",
        };
        Ok(Remote { client: Client::open(endpoint, destinations)?, facts, host, maker })
    }
}

/// The host of an address, with its port where it names one, as limits of connections write it.
fn host_of(url: &str) -> Option<String> {
    let host = url.split_once("://")?.1.split('/').next()?;
    (!host.is_empty()).then(|| host.to_string())
}

fn request(messages: &[Message], tools: Option<&str>) -> Request {
    Request {
        messages: messages.iter().map(message).collect(),
        tools: tools.map(offered).unwrap_or_default(),
        ..Request::default()
    }
}

fn message(message: &Message) -> providers::Message {
    let role = match message.role {
        Role::System => providers::Role::System,
        Role::User => providers::Role::User,
        Role::Assistant => providers::Role::Assistant,
        Role::Tool => providers::Role::Tool,
    };
    let call = |call: &context::MessageCall| providers::ToolCall {
        id: wire_id(&call.id),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
    };
    providers::Message {
        role,
        text: message.text.clone(),
        calls: message.calls.iter().map(call).collect(),
        call_id: message.answers.as_deref().map(wire_id),
    }
}

/// Ids of calls as all providers take them.
fn wire_id(id: &str) -> String {
    format!("call_{}", id.replace('.', "_"))
}

fn offered(tools: &str) -> Vec<providers::Tool> {
    let list: Vec<Value> = serde_json::from_str(tools).unwrap_or_default();
    let text =
        |tool: &Value, key: &str| tool.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
    let tool = |tool: &Value| providers::Tool {
        name: text(tool, "name"),
        description: text(tool, "description"),
        schema: tool.get("parameters").cloned().unwrap_or_else(|| serde_json::json!({ "type": "object" })),
    };
    list.iter().map(tool).collect()
}

impl Provider for Remote {
    fn facts(&self) -> ProviderFacts {
        self.facts.clone()
    }

    fn destination(&self) -> Option<String> {
        self.host.clone()
    }

    fn standing(&self) -> Standing {
        let state = self.client.destination().state();
        Standing {
            queue_ms: state.queue_ms - state.closed_ms,
            closed_ms: state.closed_ms,
            broken: matches!(state.breaker, BreakerState::Open { .. }),
            tools: self.client.endpoint().tools,
        }
    }

    fn maker(&self) -> &'static str {
        self.maker
    }

    fn prompt<'a>(
        &'a self,
        messages: &'a Arc<Vec<Message>>,
        tools: Option<&'a Arc<str>>,
    ) -> BoxFuture<'a, Result<Prompt, ModelFailure>> {
        let request = request(messages, tools.map(AsRef::as_ref));
        let estimate = self.client.estimate(&request);
        let (bound, likely) = (estimate.worst.max(1), estimate.likely);
        let counts = messages.iter().map(|message| message.text.len() as u64 / 4).collect();
        Box::pin(std::future::ready(Ok(Prompt { ids: Vec::new(), counts, bound, likely })))
    }

    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<mpsc::Receiver<Said>, ModelFailure>> {
        let (said, heard) = mpsc::channel(ask.max_new as usize + 2);
        tokio::spawn(perform(self.client.clone(), ask, said));
        Box::pin(std::future::ready(Ok(heard)))
    }
}

async fn perform(client: Client, ask: Ask, said: mpsc::Sender<Said>) {
    let request = Request {
        choice: match ask.choice {
            ToolChoice::Auto => providers::ToolChoice::Auto,
            ToolChoice::Required => providers::ToolChoice::Required,
            ToolChoice::None => providers::ToolChoice::Never,
        },
        max_tokens: ask.max_new,
        temperature_milli: Some(ask.temperature_milli),
        seed: Some(ask.seed),
        idempotency_key: format!("{}-{:016x}-{}", ask.project, ask.seed, ask.call),
        ..request(&ask.messages, ask.tools.as_deref())
    };
    let limits = Limits { stop: ask.stop.clone(), ..Limits::default() };
    let words = said.clone();
    let mut show = move |piece: Piece| {
        if let Piece::Text(text) = piece {
            // Whoever does not listen any more, or is told more pieces than tokens, misses live text and nothing else.
            let _ = words.try_send(Said::Token { id: 0, text });
        }
    };
    let outcome = client.call(&request, &limits, &mut show).await;
    let end = match outcome {
        Ok(answer) => ended(answer),
        Err(failure) => Said::Failed(failed(failure)),
    };
    // The agent may be gone.
    let _ = said.send(end).await;
}

fn ended(answer: Answer) -> Said {
    let calls = answer.heard.calls.into_iter();
    Said::End {
        why: match answer.finish {
            Finish::Length => EndOfSpeech::Length,
            Finish::Stop | Finish::Calls | Finish::Filtered => EndOfSpeech::Stop,
        },
        text: answer.heard.text,
        token_ids: Vec::new(),
        prompt_tokens: answer.usage.prompt,
        cached_tokens: answer.usage.cached,
        calls: Some(calls.map(|call| SaidCall { name: call.name, arguments: call.arguments }).collect()),
        counted: Some(Counted { prompt: answer.usage.prompt, generated: answer.usage.generated }),
        waited_ms: None,
    }
}

fn failed(failure: Failure) -> ModelFailure {
    ModelFailure {
        reason: failure.reason.to_string(),
        message: failure.message,
        // What is unknown is made again as a call of its own, with a reservation of its own.
        retriable: failure.retriable || failure.unknown,
        lost: failure.unknown.then(Lost::default),
    }
}
