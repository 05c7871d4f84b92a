//! Agents whose steps a program of the user decides: it is asked like a model, over its stream to this node.
//!
//! Tokens are words, as the scripted provider counts them, so that budgets hold. An answer that was cut is asked for
//! again, and goes on behind the words that are kept already.

use super::scripted::{id, prompt_of, said_before, tokenizer, words};
use super::{Ask, EndOfSpeech, ModelFailure, Prompt, Provider, ProviderFacts, Said};
use crate::served::Served;
use context::Message;
use futures::future::BoxFuture;
use mind::{SaidCall, ToolChoice};
use proto::v1 as pb;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Agents write `external:NAME` as their model.
pub(crate) const PREFIX: &str = "external:";
/// A program has its own memory; this only bounds what is sent to it.
const WINDOW: u64 = 1 << 20;
/// A program that lost its stream is back sooner.
const PATIENCE: Duration = Duration::from_secs(5);

/// One such model.
pub(super) struct External {
    pub(super) served: Served,
    /// Without the prefix.
    pub(super) name: String,
}

impl Provider for External {
    fn facts(&self) -> ProviderFacts {
        ProviderFacts { window: WINDOW, tokenizer: tokenizer(), numerics: None }
    }

    fn maker(&self) -> &'static str {
        "external"
    }

    fn prompt<'a>(
        &'a self,
        messages: &'a Arc<Vec<Message>>,
        tools: Option<&'a Arc<str>>,
    ) -> BoxFuture<'a, Result<Prompt, ModelFailure>> {
        Box::pin(std::future::ready(Ok(prompt_of(messages, tools))))
    }

    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<mpsc::Receiver<Said>, ModelFailure>> {
        let (said, heard) = mpsc::channel(ask.max_new as usize + 1);
        tokio::spawn(perform(self.served.clone(), self.name.clone(), ask, said));
        Box::pin(std::future::ready(Ok(heard)))
    }
}

async fn perform(served: Served, name: String, ask: Ask, said: mpsc::Sender<Said>) {
    let answer = served.step(&ask.project, question(name, &ask), PATIENCE, &ask.stop).await;
    let told = match answer {
        Ok(Some(answer)) if answer.failure.is_empty() => speak(answer, &ask, &said),
        Ok(Some(answer)) => Said::Failed(refused(answer)),
        Ok(None) => end(EndOfSpeech::Stopped, String::new(), Vec::new(), None, &ask),
        Err((reason, message)) => Said::Failed(ModelFailure::passing(reason, message)),
    };
    // Nobody listens any more: the agent is gone.
    let _ = said.try_send(told);
}

fn speak(answer: pb::ModelAnswer, ask: &Ask, said: &mpsc::Sender<Said>) -> Said {
    let pb::ModelAnswer { text, calls, .. } = answer;
    let mut left = words(&text).skip(said_before(&ask.messages)).peekable();
    let (mut spoken, mut token_ids) = (String::new(), Vec::new());
    while let Some(word) = left.next_if(|_| token_ids.len() < ask.max_new as usize) {
        token_ids.push(id(word));
        spoken.push_str(word);
        let _ = said.try_send(Said::Token { id: id(word), text: word.into() });
    }
    let why = if left.peek().is_some() { EndOfSpeech::Length } else { EndOfSpeech::Stop };
    let ended = why == EndOfSpeech::Stop && ask.choice != ToolChoice::None;
    let call = |call: pb::StepCall| SaidCall { name: call.name, arguments: call.arguments };
    let calls = ended.then(|| calls.into_iter().map(call).collect());
    end(why, spoken, token_ids, calls, ask)
}

fn end(why: EndOfSpeech, text: String, token_ids: Vec<u32>, calls: Option<Vec<SaidCall>>, ask: &Ask) -> Said {
    let prompt_tokens = ask.prompt.ids.len() as u64;
    Said::End { why, text, token_ids, prompt_tokens, cached_tokens: 0, calls, counted: None, waited_ms: None }
}

fn refused(answer: pb::ModelAnswer) -> ModelFailure {
    let message = format!("the agent's own program said: {}", tools::clean(&answer.failure));
    if answer.lasting {
        ModelFailure::lasting("EXTERNAL_FAILED", message)
    } else {
        ModelFailure::passing("EXTERNAL_FAILED", message)
    }
}

fn question(model: String, ask: &Ask) -> pb::ModelQuestion {
    pb::ModelQuestion {
        id: 0,
        model,
        agent: ask.agent.clone(),
        attempt: ask.call,
        messages: ask.messages.iter().filter(|message| !message.open).map(message).collect(),
        tools: ask.tools.as_deref().unwrap_or_default().to_string(),
        max_tokens: ask.max_new,
        seed: ask.seed,
        must_call: ask.choice == ToolChoice::Required,
        may_not_call: ask.choice == ToolChoice::None,
    }
}

fn message(message: &Message) -> pb::StepMessage {
    let call = |call: &context::MessageCall| pb::StepCall {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
    };
    pb::StepMessage {
        role: message.role.as_str().into(),
        text: message.text.clone(),
        calls: message.calls.iter().map(call).collect(),
        answers: message.answers.clone().unwrap_or_default(),
    }
}
