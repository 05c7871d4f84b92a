//! What the tests share: endpoints, calls, answers.

use providers::{Answer, Client, Destinations, Endpoint, Failure, Limits, Message, Piece, Request};
use serde_json::json;
use std::time::Duration;

/// Short times, so that silence is noticed soon; long enough for a busy machine.
pub(crate) const FIRST_MS: u64 = 1500;
pub(crate) const IDLE_MS: u64 = 700;

pub(crate) fn endpoint(kind: &str, url: &str, more: &str) -> Endpoint {
    let text = format!(
        "name = 'm'\nkind = '{kind}'\nurl = '{url}'\nmodel = 'm-1'\nwindow = 100000\nmax_output = 1000\n{more}\n\
         [timeouts]\nfirst_ms = {FIRST_MS}\nidle_ms = {IDLE_MS}\ntotal_ms = 8000\n"
    );
    toml::from_str(&text).expect("an endpoint")
}

pub(crate) fn client(kind: &str, url: &str) -> Client {
    Client::open(endpoint(kind, url, ""), &Destinations::new(7)).expect("it opens")
}

pub(crate) fn request() -> Request {
    let messages = vec![Message::system("be brief"), Message::user("say hello to everybody here, please")];
    Request { messages, max_tokens: 20, idempotency_key: "t_1/2/0".into(), ..Request::default() }
}

/// What a call gave, with the pieces that were shown.
pub(crate) struct Called {
    pub(crate) outcome: Result<Answer, Failure>,
    pub(crate) pieces: Vec<Piece>,
}

impl Called {
    pub(crate) fn shown(&self) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Call(call) => format!("[{}]", call.name),
        };
        self.pieces.iter().map(text).collect()
    }

    #[track_caller]
    pub(crate) fn answer(&self) -> &Answer {
        self.outcome.as_ref().unwrap_or_else(|failure| panic!("{failure}"))
    }

    #[track_caller]
    pub(crate) fn failure(&self) -> &Failure {
        self.outcome.as_ref().expect_err("no answer")
    }
}

pub(crate) async fn call(client: &Client, request: &Request, limits: &Limits) -> Called {
    let mut pieces = Vec::new();
    let outcome = client.call(request, limits, &mut |piece| pieces.push(piece)).await;
    Called { outcome, pieces }
}

pub(crate) async fn ask(client: &Client) -> Called {
    let (asked, limits) = (request(), Limits::default());
    let called = call(client, &asked, &limits);
    tokio::time::timeout(Duration::from_secs(30), called).await.expect("every call ends")
}

/// A chunk of OpenAI's stream.
pub(crate) fn chunk(text: &str) -> String {
    let chunk =
        json!({"id": "c-1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
    format!("data: {chunk}\n\n")
}

pub(crate) fn finish() -> String {
    let chunk = json!({"id": "c-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    format!("data: {chunk}\n\n")
}

pub(crate) fn usage(usage: serde_json::Value) -> String {
    format!("data: {}\n\n", json!({"id": "c-1", "choices": [], "usage": usage}))
}

pub(crate) fn done() -> String {
    "data: [DONE]\n\n".into()
}

/// A good stream.
pub(crate) fn hello() -> String {
    let counted = usage(json!({"prompt_tokens": 12, "completion_tokens": 3}));
    [chunk("Hel"), chunk("lo"), finish(), counted, done()].concat()
}

/// A good whole answer in either form.
pub(crate) fn whole(kind: &str) -> String {
    let openai = json!({"id": "c-1", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "Hello"}}], "usage": {"prompt_tokens": 12, "completion_tokens": 3}});
    let anthropic = json!({"type": "message", "id": "c-1", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Hello"}], "usage": {"input_tokens": 12, "output_tokens": 3}});
    if kind == "openai" { openai.to_string() } else { anthropic.to_string() }
}
