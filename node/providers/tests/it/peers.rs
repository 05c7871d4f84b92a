//! Against real servers: `QUORATE_PROVIDER_PEERS` names them as `NAME=URL=MODEL`, several with spaces between them;
//! `tests/providers-peers.sh` starts ours and llama.cpp's and sets it. Without it nothing is asked, and that is said.

use crate::support::*;
use providers::{
    Client, Destinations, Endpoint, Finish, Limits, Message, Reason, Request, Reserved, Tool, bill,
};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

struct Peer {
    name: String,
    endpoint: Endpoint,
}

fn peers() -> Vec<Peer> {
    let listed = std::env::var("QUORATE_PROVIDER_PEERS").unwrap_or_default();
    let peers: Vec<Peer> = listed.split_whitespace().map(peer).collect();
    if peers.is_empty() {
        println!("skipped: QUORATE_PROVIDER_PEERS names no server; tests/providers-peers.sh starts some");
    }
    peers
}

fn peer(listed: &str) -> Peer {
    let parts: Vec<&str> = listed.splitn(3, '=').collect();
    let [name, url, model] = parts[..] else { panic!("{listed} is not NAME=URL=MODEL") };
    let text = format!(
        "name = '{name}'\nkind = 'openai'\nurl = '{url}'\nmodel = '{model}'\nwindow = 2048\nmax_output = 512\n"
    );
    Peer { name: name.into(), endpoint: toml::from_str(&text).expect("an endpoint") }
}

impl Peer {
    fn client(&self, change: impl Fn(&mut Endpoint)) -> Client {
        let mut endpoint = self.endpoint.clone();
        change(&mut endpoint);
        Client::open(endpoint, &Destinations::new(7)).expect("it opens")
    }
}

fn asked(max_tokens: u32) -> Request {
    let messages =
        vec![Message::system("You are a helpful assistant."), Message::user("Tell me about the sea.")];
    Request { messages, max_tokens, temperature_milli: Some(0), seed: Some(3), ..Request::default() }
}

/// The answer is there, within its limits, and its bill within what was set aside.
fn check(peer: &Peer, what: &str, client: &Client, request: &Request, worst: u64, called: &Called) {
    let answer = called.outcome.as_ref().unwrap_or_else(|failure| panic!("{} {what}: {failure}", peer.name));
    let usage = answer.usage;
    println!("{} {what}: {:?} {usage:?}, worst {worst}", peer.name, answer.finish);
    assert!(!answer.heard.text.is_empty() && called.shown() == answer.heard.text, "{} {what}", peer.name);
    let reserved = Reserved { prompt: worst, generated: request.max_tokens.into() };
    let bill = bill(&called.outcome, reserved);
    assert_eq!(bill.over, Default::default(), "{} {what}: worst was not the worst", peer.name);
    assert!(bill.prompt > 0 && bill.generated > 0 && !usage.overage, "{} {what}", peer.name);
    let remembered = client.estimate(request).remembered;
    assert_eq!(remembered, if usage.prompt_counted { 0 } else { usage.prompt }, "{} {what}", peer.name);
}

#[tokio::test]
async fn streams_and_whole_answers_are_within_what_was_set_aside() {
    for peer in peers() {
        for stream in [true, false] {
            for max_tokens in [1, 12] {
                let (client, request) = (peer.client(|endpoint| endpoint.stream = stream), asked(max_tokens));
                let worst = client.estimate(&request).worst;
                let called = call(&client, &request, &Limits::default()).await;
                check(
                    &peer,
                    &format!("stream {stream}, {max_tokens} tokens"),
                    &client,
                    &request,
                    worst,
                    &called,
                );
                assert_eq!(called.answer().finish, Finish::Length, "{}", peer.name);
            }
        }
    }
}

#[tokio::test]
async fn a_conversation_that_grows_stays_within_what_was_set_aside() {
    for peer in peers() {
        let client = peer.client(|_| ());
        let mut request = asked(16);
        for turn in 0..4 {
            let worst = client.estimate(&request).worst;
            let called = call(&client, &request, &Limits::default()).await;
            check(&peer, &format!("turn {turn}"), &client, &request, worst, &called);
            request.messages.push(Message::assistant(called.answer().heard.text.clone()));
            request.messages.push(Message::user("Go on, and tell of \u{65e5}\u{672c} and \u{1f30a} too."));
        }
    }
}

#[tokio::test]
async fn a_stop_ends_a_stream() {
    for peer in peers() {
        let (client, request, stop) = (peer.client(|_| ()), asked(400), CancellationToken::new());
        let limits = Limits { stop: stop.clone(), ..Limits::default() };
        let mut show = |_| stop.cancel();
        let outcome =
            tokio::time::timeout(Duration::from_secs(60), client.call(&request, &limits, &mut show)).await;
        let failure = outcome.expect("in time").expect_err("stopped");
        assert_eq!((failure.reason, failure.unknown), (Reason::Stopped, true), "{}", peer.name);
        assert!(failure.heard.is_some_and(|heard| !heard.text.is_empty()), "{}", peer.name);
    }
}

#[tokio::test]
async fn tools_are_taken() {
    let schema = json!({"type": "object", "properties": {"zone": {"type": "string", "maxLength": 20}}, "required": ["zone"],
        "additionalProperties": false});
    let tool = Tool { name: "time.now".into(), description: "Tells the time in a zone.".into(), schema };
    for peer in peers() {
        let client = peer.client(|_| ());
        let request = Request { tools: vec![tool.clone()], ..asked(60) };
        let worst = client.estimate(&request).worst;
        let called = call(&client, &request, &Limits::default()).await;
        let answer = called.outcome.as_ref().unwrap_or_else(|failure| panic!("{}: {failure}", peer.name));
        let bill = bill(&called.outcome, Reserved { prompt: worst, generated: 60 });
        println!("{} with a tool: {:?} {:?}, worst {worst}", peer.name, answer.finish, answer.usage);
        assert_eq!(bill.over, Default::default(), "{}", peer.name);
        assert!(!answer.heard.is_empty(), "{}", peer.name);
    }
}

#[tokio::test]
async fn a_prompt_beyond_the_window_is_told_as_that() {
    let long = "one two three four five six seven eight nine ten ".repeat(1500);
    let request = Request { messages: vec![Message::user(long)], ..asked(5) };
    for peer in peers() {
        for stream in [false, true] {
            let client = peer.client(|endpoint| endpoint.stream = stream);
            let called = call(&client, &request, &Limits::default()).await;
            let failure = called.outcome.as_ref().expect_err("too long for every peer");
            println!("{} stream {stream}: {failure}", peer.name);
            // llama-cpp-python begins its stream before it looks, and then can only cut it.
            let cut = stream && (failure.reason, failure.unknown) == (Reason::Cut, true);
            assert!(
                cut || (failure.reason, failure.retriable) == (Reason::ContextTooLong, false),
                "{}",
                peer.name
            );
        }
    }
}

#[tokio::test]
async fn many_at_the_same_time() {
    for peer in peers() {
        let client = peer.client(|_| ());
        let calls: Vec<_> = (0..12u64)
            .map(|n| {
                let client = client.clone();
                let request = Request { seed: Some(n), temperature_milli: Some(900), ..asked(8) };
                tokio::spawn(async move { call(&client, &request, &Limits::default()).await.outcome })
            })
            .collect();
        for call in calls {
            let outcome = call.await.expect("no panic");
            outcome.unwrap_or_else(|failure| panic!("{}: {failure}", peer.name));
        }
        let state = client.destination().state();
        assert_eq!((state.running, state.waiting), (0, 0), "{}", peer.name);
    }
}
