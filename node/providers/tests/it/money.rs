//! What is billed, whatever the provider does: never more than was set aside, never twice, never nothing for an answer.

use crate::server::{Act, Server, answer, stream, stream_head};
use crate::support::*;
use providers::{Bill, Doubt, Limits, Message, Overage, Request, Reserved, bill};
use serde_json::{Value, json};

fn said_with(counted: Option<Value>) -> Vec<Act> {
    let counted = counted.map(usage).unwrap_or_default();
    stream(&[chunk("Hel"), chunk("lo"), finish(), counted, done()].concat())
}

/// What was set aside for the request, and what the bill says.
async fn billed(acts: Vec<Act>) -> (Reserved, Bill, Option<Doubt>) {
    let server = Server::always(acts).await;
    let client = client("openai", &server.url());
    let asked = request();
    let reserved = Reserved { prompt: client.estimate(&asked).worst, generated: asked.max_tokens.into() };
    let called = call(&client, &asked, &Limits::default()).await;
    let doubt = called.outcome.as_ref().ok().and_then(|answer| answer.usage.doubt);
    (reserved, bill(&called.outcome, reserved), doubt)
}

#[tokio::test]
async fn usage_is_believed_within_reason_only() {
    let report = |prompt: Value, generated: Value| {
        Some(json!({"prompt_tokens": prompt, "completion_tokens": generated}))
    };
    let heard = "Hello".len() as u64 + 1;
    for (what, counted, prompt, generated, doubt) in [
        ("honest", report(json!(12), json!(3)), Some(12), 3, None),
        ("absent", None, None, heard, Some(Doubt::Absent)),
        ("null", report(json!(null), json!(null)), None, heard, Some(Doubt::Absent)),
        ("negative", report(json!(-12), json!(-3)), None, heard, Some(Doubt::Nonsense)),
        ("text", report(json!("12"), json!({})), None, heard, Some(Doubt::Nonsense)),
        ("nothing", report(json!(0), json!(0)), None, heard, Some(Doubt::TooFew)),
        ("absurd", report(json!(u64::MAX), json!(1e18)), None, heard, Some(Doubt::Nonsense)),
        ("unseen thinking", report(json!(12), json!(20)), Some(12), 20, None),
    ] {
        let (reserved, bill, told) = billed(said_with(counted)).await;
        let expected = Bill { prompt: prompt.unwrap_or(reserved.prompt), generated, ..Bill::default() };
        assert_eq!((bill, told), (expected, doubt), "{what}");
        assert!(bill.prompt <= reserved.prompt && bill.generated <= reserved.generated, "{what}");
    }
}

#[tokio::test]
async fn more_than_was_set_aside_is_overage_beside_a_full_bill() {
    let (reserved, bill, _) =
        billed(said_with(Some(json!({"prompt_tokens": 200, "completion_tokens": 25})))).await;
    assert_eq!((bill.prompt, bill.generated), (reserved.prompt, reserved.generated));
    assert_eq!(bill.over, Overage { prompt: 200 - reserved.prompt, generated: 5 });
}

#[tokio::test]
async fn every_fault_has_one_bill() {
    let server_dies = stream(&chunk("Hel"));
    let stalls = vec![stream_head(), Act::Write(chunk("Hel")), Act::Hold];
    for (what, acts, unknown) in [
        ("cut", server_dies, true),
        ("stall", stalls, true),
        ("no answer", vec![], true),
        ("gateway timeout", answer(504, &[], ""), true),
        ("key refused", answer(401, &[], ""), false),
        ("always 500", answer(500, &[("retry-after-ms", "1")], ""), false),
        ("always 429", answer(429, &[("retry-after-ms", "1")], ""), false),
    ] {
        let (reserved, bill, _) = billed(acts).await;
        let maximum =
            Bill { prompt: reserved.prompt, generated: reserved.generated, unknown: true, ..Bill::default() };
        assert_eq!(bill, if unknown { maximum } else { Bill::default() }, "{what}");
    }
}

#[tokio::test]
async fn a_call_that_was_refused_first_is_billed_once() {
    let server = Server::start(|n, _| match n {
        0 => answer(500, &[("retry-after-ms", "1")], ""),
        1 => answer(429, &[("retry-after-ms", "1")], ""),
        _ => stream(&hello()),
    })
    .await;
    let called = ask(&client("openai", &server.url())).await;
    assert_eq!(called.answer().wire_attempts, 3);
    let bill = bill(&called.outcome, Reserved { prompt: 500, generated: 20 });
    assert_eq!((bill.prompt, bill.generated, bill.over), (12, 3, Overage::default()));
}

/// A budget that reserves at worst before each call and settles the bill after it.
#[tokio::test]
async fn a_budget_is_never_overshot_by_a_provider_that_does_what_it_likes() {
    let server = Server::start(|n, _| match n % 7 {
        0 => said_with(Some(json!({"prompt_tokens": 30, "completion_tokens": 3}))),
        1 => said_with(None),
        2 => stream(&chunk("Hel")),
        3 => answer(429, &[("retry-after-ms", "1")], ""),
        4 => said_with(Some(json!({"prompt_tokens": -5, "completion_tokens": 1_000_000}))),
        5 => answer(400, &[], ""),
        _ => said_with(Some(json!({"prompt_tokens": 500, "completion_tokens": 90}))),
    })
    .await;
    let client = client("openai", &server.url());
    let limit = 20_000u64;
    let (mut settled, mut over, mut calls, mut conversation) = (0, 0, 0, vec![Message::user("begin")]);
    loop {
        let asked = Request { messages: conversation.clone(), max_tokens: 20, ..Request::default() };
        let reserved = Reserved { prompt: client.estimate(&asked).worst, generated: 20 };
        // Overage blocks new reservations until it is covered.
        if settled + over + reserved.prompt + reserved.generated > limit {
            break;
        }
        let called = call(&client, &asked, &Limits::default()).await;
        let bill = bill(&called.outcome, reserved);
        assert!(bill.prompt <= reserved.prompt && bill.generated <= reserved.generated);
        settled += bill.prompt + bill.generated;
        over += bill.over.prompt + bill.over.generated;
        calls += 1;
        conversation.push(Message::assistant(called.shown()));
        conversation.push(Message::user(format!("number {calls}, and what is next?")));
        assert!(calls < 1000, "the budget must end");
    }
    println!("{calls} calls: settled {settled} of {limit}, {over} told as overage");
    assert!(settled <= limit && calls >= 7 && over > 0, "{calls} calls, {settled} settled, {over} over");
}
