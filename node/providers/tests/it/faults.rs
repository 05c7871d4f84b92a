//! Faults of a provider, one by one: what is tried again, what is told, how long it takes.

use crate::server::{Act, Server, answer, stream, stream_head};
use crate::support::*;
use providers::{Client, Destinations, Finish, Limits, Reason};
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

fn good() -> Vec<Act> {
    stream(&hello())
}

/// First one thing, then another for every later request.
async fn first_then(first: Vec<Act>, later: Vec<Act>) -> Server {
    Server::start(move |n, _| if n == 0 { first.clone() } else { later.clone() }).await
}

#[tokio::test]
async fn a_good_stream_and_a_good_whole_answer_in_both_forms() {
    for kind in ["openai", "anthropic"] {
        let server = Server::always(answer(200, &[], &whole(kind))).await;
        let called = ask(&client(kind, &server.url())).await;
        assert_eq!((called.shown().as_str(), called.answer().finish), ("Hello", Finish::Stop));
        assert_eq!((called.answer().usage.prompt, called.answer().usage.generated), (12, 3));
        let seen = &server.seen()[0];
        assert_eq!(seen.header("idempotency-key"), Some("t_1/2/0"));
        let path = if kind == "openai" { "POST /v1/chat/completions " } else { "POST /v1/messages " };
        assert!(seen.head.starts_with(path), "{}", seen.head);
        assert_eq!(seen.header("anthropic-version").is_some(), kind == "anthropic");
    }
    let server = Server::always(good()).await;
    let called = ask(&client("openai", &server.url())).await;
    assert_eq!((called.shown().as_str(), called.pieces.len()), ("Hello", called.pieces.len()));
    assert_eq!((called.answer().wire_attempts, called.answer().provider_id.as_deref()), (1, Some("c-1")));
}

/// A client that used a connection twice would find it closed and could not say whether its request was worked on.
#[tokio::test]
async fn a_server_that_promises_to_keep_its_connection_and_closes_it_costs_nothing() {
    let body = whole("openai");
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: keep-alive\r\ncontent-length:";
    let server = Server::always(vec![Act::Write(format!("{head} {}\r\n\r\n{body}", body.len()))]).await;
    let client = client("openai", &server.url());
    for _ in 0..50 {
        assert_eq!(ask(&client).await.shown(), "Hello");
    }
    assert_eq!(server.seen().len(), 50);
}

#[tokio::test]
async fn retry_after_in_seconds_and_as_a_date_is_kept() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3));
    for (value, least, most) in [("1", 1000, 2500), (date.as_str(), 1000, 4500)] {
        let server = first_then(answer(429, &[("Retry-After", value)], "{}"), good()).await;
        let called = ask(&client("openai", &server.url())).await;
        assert_eq!((called.shown().as_str(), called.answer().wire_attempts), ("Hello", 2));
        let seen = server.seen();
        let waited = seen[1].at.duration_since(seen[0].at).as_millis();
        assert!(waited >= least && waited <= most, "{value}: {waited} ms");
        assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
        assert_eq!(seen[0].body, seen[1].body);
    }
}

#[tokio::test]
async fn a_long_retry_after_is_told_and_keeps_others_away() {
    let server = Server::always(answer(429, &[("Retry-After", "3600")], "{}")).await;
    let client = client("openai", &server.url());
    let called = ask(&client).await;
    assert_eq!((called.failure().reason, called.failure().retriable), (Reason::RateLimited, true));
    assert_eq!((called.failure().retry_after_ms, called.failure().unknown), (Some(3_600_000), false));
    let next = ask(&client).await;
    assert_eq!((next.failure().reason, next.failure().wire_attempts), (Reason::RateLimited, 0));
    assert!(next.failure().retry_after_ms.is_some_and(|ms| ms > 3_590_000));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_500_is_tried_again_and_many_are_told() {
    let server = first_then(answer(500, &[], "oops"), good()).await;
    let called = ask(&client("openai", &server.url())).await;
    assert_eq!((called.shown().as_str(), called.answer().wire_attempts), ("Hello", 2));

    let server = Server::always(answer(500, &[("retry-after-ms", "1")], "oops")).await;
    let called = ask(&client("openai", &server.url())).await;
    let failure = called.failure();
    assert_eq!((failure.reason, failure.retriable, failure.unknown), (Reason::ProviderError, true, false));
    assert_eq!((failure.wire_attempts as usize, server.seen().len()), (4, 4), "{failure}");
}

#[tokio::test]
async fn a_cut_is_never_tried_again_and_is_told_as_unknown_with_what_there_was() {
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let part = chunk("Hel");
    let in_chunk = format!("{chunked}{:x}\r\n{part}\r\n40\r\ndata: {{\"id\"", part.len());
    for (what, acts, heard) in [
        ("no answer at all", vec![], ""),
        ("half a head", vec![Act::Write("HTTP/1.1 200 OK\r\ncontent-ty".into())], ""),
        ("before the first text", vec![stream_head()], ""),
        ("after text", stream(&[chunk("Hel"), chunk("lo")].concat()), "Hello"),
        ("in the middle of an event", stream(&format!("{}data: {{\"id\":", chunk("Hel"))), "Hel"),
        ("in the middle of a chunk", vec![Act::Write(in_chunk)], "Hel"),
    ] {
        let server = Server::always(acts).await;
        let called = ask(&client("openai", &server.url())).await;
        let failure = called.failure();
        assert_eq!(
            (failure.reason, failure.unknown, failure.retriable),
            (Reason::Cut, true, true),
            "{what}: {failure}"
        );
        assert_eq!((called.shown().as_str(), server.seen().len()), (heard, 1), "{what}");
        assert_eq!(failure.heard.as_ref().map_or("", |heard| heard.text.as_str()), heard, "{what}");
    }
}

#[tokio::test]
async fn silence_and_trickles_end_in_time() {
    let soon = Duration::from_millis(50);
    let ping = Act::Trickle(": still here\n\n".into(), soon);
    let letters = Act::Trickle("x".into(), soon);
    let half = Act::Write(format!("{}data: ", chunk("Hel")));
    for (what, acts, least, heard) in [
        ("no head", vec![Act::Hold], FIRST_MS, ""),
        ("a head, then nothing", vec![stream_head(), Act::Hold], FIRST_MS, ""),
        ("comments only", vec![stream_head(), ping.clone()], FIRST_MS, ""),
        ("text, then nothing", vec![stream_head(), Act::Write(chunk("Hel")), Act::Hold], IDLE_MS, "Hel"),
        ("text, then comments", vec![stream_head(), Act::Write(chunk("Hel")), ping], IDLE_MS, "Hel"),
        ("text, then a line letter by letter", vec![stream_head(), half, letters], IDLE_MS, "Hel"),
    ] {
        let server = Server::always(acts).await;
        let begun = Instant::now();
        let called = ask(&client("openai", &server.url())).await;
        let took = begun.elapsed().as_millis() as u64;
        let failure = called.failure();
        assert_eq!((failure.reason, failure.unknown), (Reason::TimedOut, true), "{what}: {failure}");
        assert!(took >= least && took < least + 1500, "{what}: {took} ms");
        assert_eq!((called.shown().as_str(), server.seen().len()), (heard, 1), "{what}");
    }
}

#[tokio::test]
async fn an_answer_that_trickles_on_and_on_ends_at_its_total_time() {
    let server =
        Server::always(vec![stream_head(), Act::Trickle(chunk("x"), Duration::from_millis(20))]).await;
    let mut endpoint = endpoint("openai", &server.url(), "");
    endpoint.timeouts.total_ms = 2000;
    let client = Client::open(endpoint, &Destinations::new(7)).expect("it opens");
    let begun = Instant::now();
    let called = ask(&client).await;
    assert_eq!(called.failure().reason, Reason::TimedOut);
    assert!((2000..3500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert!(called.shown().len() > 10);
}

#[tokio::test]
async fn what_is_no_answer_is_unknown_and_not_tried_again() {
    let giant = format!("data: {}", "x".repeat(2 << 20));
    let endless = Act::Trickle(format!(": {}\n", "x".repeat(1 << 19)), Duration::from_millis(1));
    for (what, acts, reason) in [
        ("wrong JSON", stream(&format!("{}data: {{\"a\":]\n\n", chunk("Hel"))), Reason::BrokenAnswer),
        ("a giant line", stream(&giant), Reason::BrokenAnswer),
        ("endless comments", vec![stream_head(), endless], Reason::TooLarge),
        (
            "an error in the middle",
            stream("data: {\"error\":{\"message\":\"worker died\"}}\n\n"),
            Reason::ProviderError,
        ),
        ("a page of HTML", answer(200, &[], "<html>please log in</html>"), Reason::BrokenAnswer),
        ("no bytes", answer(200, &[], ""), Reason::BrokenAnswer),
    ] {
        let server = Server::always(acts).await;
        let mut endpoint = endpoint("openai", &server.url(), "");
        endpoint.timeouts.first_ms = 6000;
        let called = ask(&Client::open(endpoint, &Destinations::new(7)).expect("it opens")).await;
        let failure = called.failure();
        assert_eq!((failure.reason, failure.unknown), (reason, true), "{what}: {failure}");
        assert_eq!(server.seen().len(), 1, "{what}");
    }
}

#[tokio::test]
async fn lasting_refusals_are_asked_once_and_say_what_to_do() {
    for (status, reason, next) in [
        (400, Reason::BadRequest, "see its words"),
        (401, Reason::KeyRefused, "SIGHUP"),
        (402, Reason::NoCredit, "pay at the provider"),
        (403, Reason::Forbidden, "another key"),
        (404, Reason::NoSuchModel, "check model = \"m-1\""),
    ] {
        let server = Server::always(answer(status, &[], "{\"error\":{\"message\":\"no\"}}")).await;
        let called = ask(&client("openai", &server.url())).await;
        let failure = called.failure();
        assert_eq!((failure.reason, failure.retriable, failure.unknown), (reason, false, false));
        assert!(failure.message.contains(next), "{failure}");
        assert_eq!(server.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let called = ask(&client("openai", &format!("http://127.0.0.1:{port}/v1"))).await;
    let failure = called.failure();
    assert_eq!((failure.reason, failure.retriable, failure.unknown), (Reason::Unreachable, true, false));
    assert!(failure.wire_attempts > 1 && failure.message.contains("cannot reach"), "{failure}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Server::always(good()).await;
    let location = format!("{}/chat/completions", other.url());
    for status in [301, 302, 307, 308] {
        let server = Server::always(answer(status, &[("Location", &location)], "")).await;
        let called = ask(&client("openai", &server.url())).await;
        assert_eq!((called.failure().reason, called.failure().retriable), (Reason::Redirected, false));
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn deadlines_are_kept_while_waiting_pausing_and_hearing() {
    for (what, acts, unknown) in [
        ("hearing", vec![stream_head(), Act::Write(chunk("Hel")), Act::Hold], true),
        ("pausing", answer(429, &[("Retry-After", "20")], "{}"), false),
    ] {
        let server = Server::always(acts).await;
        let deadline = Some(tokio::time::Instant::now() + Duration::from_millis(400));
        let limits = Limits { deadline, ..Limits::default() };
        let begun = Instant::now();
        let called = call(&client("openai", &server.url()), &request(), &limits).await;
        assert!(begun.elapsed() < Duration::from_millis(1500), "{what}: {:?}", begun.elapsed());
        assert_eq!(called.failure().unknown, unknown, "{what}: {}", called.failure());
    }
    let server = Server::always(vec![Act::Hold]).await;
    let client = client("openai", &server.url());
    client.destination().set_ceiling(Some(0));
    let deadline = Some(tokio::time::Instant::now() + Duration::from_millis(300));
    let called = call(&client, &request(), &Limits { deadline, ..Limits::default() }).await;
    let failure = called.failure();
    assert_eq!(
        (failure.reason, failure.unknown, failure.wire_attempts),
        (Reason::DeadlineExceeded, false, 0)
    );
    assert!(server.seen().is_empty() && client.destination().state().waiting == 0);
}

#[tokio::test]
async fn a_stop_ends_the_call_with_what_was_heard_and_frees_its_place() {
    let server = Server::always(vec![stream_head(), Act::Write(chunk("Hel")), Act::Hold]).await;
    let client = client("openai", &server.url());
    let stop = CancellationToken::new();
    let limits = Limits { stop: stop.clone(), ..Limits::default() };
    let asked = request();
    let mut show = |_| stop.cancel();
    let outcome = client.call(&asked, &limits, &mut show);
    let failure =
        tokio::time::timeout(Duration::from_secs(5), outcome).await.expect("at once").expect_err("stopped");
    assert_eq!((failure.reason, failure.unknown, failure.retriable), (Reason::Stopped, true, false));
    assert_eq!(failure.heard.expect("something").text, "Hel");
    assert_eq!(client.destination().state().running, 0);
}

#[tokio::test]
async fn retries_are_a_tenth_of_the_load_however_much_fails() {
    let server = Server::always(answer(429, &[("retry-after-ms", "0")], "{}")).await;
    let client = client("openai", &server.url());
    for _ in 0..200 {
        assert_eq!(ask(&client).await.failure().reason, Reason::RateLimited);
    }
    let extra = server.seen().len() - 200;
    println!("200 calls that were all refused: {extra} retries");
    assert!((15..=23).contains(&extra), "{extra}");
}

#[tokio::test]
async fn a_destination_that_fails_on_and_on_is_left_alone() {
    let server = Server::always(answer(500, &[("retry-after-ms", "1")], "oops")).await;
    let client = client("openai", &server.url());
    let mut open = None;
    for _ in 0..10 {
        let called = ask(&client).await;
        if called.failure().reason == Reason::CircuitOpen {
            open = Some(called.failure().clone());
        }
    }
    let open = open.expect("it opened");
    assert!(open.retriable && !open.unknown && open.wire_attempts == 0, "{open}");
    assert!(open.retry_after_ms.is_some_and(|ms| ms <= 5000), "{open:?}");
    assert_eq!(server.seen().len(), 5, "as many as open it");
}

#[tokio::test]
async fn the_limit_adapts_to_what_the_provider_takes() {
    const ROOM: usize = 3;
    let server = Server::start(|_, seen| match seen.at_work {
        ..=ROOM => [vec![Act::Work(Duration::from_millis(30))], good()].concat(),
        _ => answer(429, &[("retry-after-ms", "5")], "{}"),
    })
    .await;
    let client = client("openai", &server.url());
    let before = client.destination().state().limit;
    let calls: Vec<_> = (0..120)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { ask(&client).await.outcome.is_ok() })
        })
        .collect();
    let mut good = 0;
    for call in calls {
        good += usize::from(call.await.expect("no panic"));
    }
    let refused = server.seen().iter().filter(|seen| seen.at_work > ROOM).count();
    let state = client.destination().state();
    println!(
        "120 calls, room for {ROOM}: {good} answered, {refused} refusals, limit {before} -> {}",
        state.limit
    );
    assert!(good >= 90 && refused <= 60, "{good} answered, {refused} refusals");
    assert!(state.limit < before && state.running == 0 && state.waiting == 0, "{state:?}");
}

#[tokio::test]
async fn a_ceiling_from_outside_holds_at_once() {
    let work = || [vec![Act::Work(Duration::from_millis(10))], good()].concat();
    let server = Server::always(work()).await;
    let destinations = Destinations::new(7);
    let client = Client::open(endpoint("openai", &server.url(), ""), &destinations).expect("it opens");
    let name = client.destination().name().to_string();
    assert!(
        destinations.set_ceiling(&name, Some(2)) && !destinations.set_ceiling("https://nowhere", Some(2))
    );
    let run = |n: usize| {
        let calls: Vec<_> = (0..n)
            .map(|_| {
                tokio::spawn({
                    let client = client.clone();
                    async move { ask(&client).await.outcome.is_ok() }
                })
            })
            .collect();
        async move {
            for call in calls {
                assert!(call.await.expect("no panic"));
            }
        }
    };
    run(20).await;
    let most = |from: usize| server.seen()[from..].iter().map(|seen| seen.at_work).max();
    assert_eq!(most(0), Some(2));
    destinations.set_ceiling(&name, None);
    run(20).await;
    assert!(most(20) > Some(2));
}

#[tokio::test]
async fn repeated_chunks_repeat_text_and_nothing_else() {
    let counted = usage(json!({"prompt_tokens": 12, "completion_tokens": 3}));
    let events = [chunk("Hel"), chunk("Hel"), finish(), finish(), counted.clone(), counted, done()].concat();
    let server = Server::always(stream(&events)).await;
    let called = ask(&client("openai", &server.url())).await;
    assert_eq!(called.shown(), "HelHel");
    assert_eq!((called.answer().usage.prompt, called.answer().usage.generated), (12, 3), "counted once");
}

#[tokio::test]
async fn tools_travel_and_come_back_by_their_own_names() {
    let called_tool = json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "x",
        "function": {"name": "time__now", "arguments": "{}"}}]}, "finish_reason": "tool_calls"}]});
    let server = Server::always(stream(&format!("data: {called_tool}\n\n{}", done()))).await;
    let tool = providers::Tool {
        name: "time.now".into(),
        description: "the time".into(),
        schema: json!({"type": "object"}),
    };
    let asked = providers::Request { tools: vec![tool], ..request() };
    let called = call(&client("openai", &server.url()), &asked, &Limits::default()).await;
    assert_eq!((called.shown().as_str(), called.answer().finish), ("[time.now]", Finish::Calls));
    assert!(server.seen()[0].body.contains("\"time__now\""));
    let without = Client::open(endpoint("openai", &server.url(), "tools = false"), &Destinations::new(1))
        .expect("it opens");
    let refused = call(&without, &asked, &Limits::default()).await;
    assert_eq!((refused.failure().reason, server.seen().len()), (Reason::NoTools, 1));
}

#[tokio::test]
async fn anthropics_streams_break_the_same_way() {
    let event = |event: serde_json::Value| format!("event: x\ndata: {event}\n\n");
    let begin = event(
        json!({"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 12, "output_tokens": 1}}}),
    );
    let text = event(
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
    );
    let end = event(
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}),
    );
    let stop = event(json!({"type": "message_stop"}));
    let error = event(json!({"type": "error", "error": {"type": "overloaded_error", "message": "later"}}));
    let ping = Act::Trickle(event(json!({"type": "ping"})), Duration::from_millis(50));
    let heard = [begin.clone(), text].concat();
    for (what, acts, reason) in [
        ("cut", stream(&heard), Reason::Cut),
        ("an error in the middle", stream(&[heard.clone(), error].concat()), Reason::Overloaded),
        ("pings", vec![stream_head(), Act::Write(heard.clone()), ping], Reason::TimedOut),
    ] {
        let server = Server::always(acts).await;
        let called = ask(&client("anthropic", &server.url())).await;
        let failure = called.failure();
        assert_eq!((failure.reason, failure.unknown), (reason, true), "{what}: {failure}");
        assert_eq!((called.shown().as_str(), server.seen().len()), ("Hello", 1), "{what}");
    }
    let whole = [heard, end, stop].concat();
    let server = first_then(answer(529, &[("retry-after", "1")], "{}"), stream(&whole)).await;
    let called = ask(&client("anthropic", &server.url())).await;
    assert_eq!((called.shown().as_str(), called.answer().wire_attempts), ("Hello", 2));
    assert_eq!((called.answer().usage.prompt, called.answer().usage.generated), (12, 3));
    assert_eq!(called.answer().usage.doubt, None);
}

#[tokio::test]
async fn a_proxy_that_is_named_is_used() {
    let proxy = Server::always(stream(&hello())).await;
    let mut proxied = endpoint("openai", "http://127.0.0.1:9/v1", "");
    proxied.proxy = Some(format!("http://127.0.0.1:{}", proxy.port));
    let called = ask(&Client::open(proxied, &Destinations::new(7)).expect("it opens")).await;
    assert_eq!(called.shown(), "Hello");
    let head = proxy.seen()[0].head.clone();
    assert!(head.starts_with("POST http://127.0.0.1:9/v1/chat/completions "), "{head}");
}
