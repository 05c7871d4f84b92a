//! Answers on tape.

use crate::server::{Server, answer, stream};
use crate::support::*;
use providers::{Client, Destinations, Endpoint, Limits, Message, Reason, Request};
use std::path::Path;

fn taped(kind: &str, url: &str, mode: &str, folder: &Path) -> Client {
    let cassette =
        format!("key_file = '/nowhere'\ncassette = {{ mode = '{mode}', folder = '{}' }}", folder.display());
    let mut taped: Endpoint = endpoint(kind, url, &cassette);
    if mode == "record" {
        taped.key_file = None;
    }
    Client::open(taped, &Destinations::new(7)).expect("it opens, and a replay needs no key")
}

#[tokio::test]
async fn what_was_recorded_is_played_without_a_provider() {
    for (kind, acts) in [("openai", stream(&hello())), ("anthropic", answer(200, &[], &whole("anthropic")))] {
        let folder = tempfile::tempdir().expect("a folder");
        let tapes = folder.path().join("tapes");
        let server = Server::always(acts).await;
        let recorded = ask(&taped(kind, &server.url(), "record", &tapes)).await;
        assert_eq!(recorded.answer().wire_attempts, 1);
        drop(server);
        // Another address, another time: the request is the same.
        let client = taped(kind, "http://127.0.0.1:9/v1", "replay", &tapes);
        for _ in 0..2 {
            let played = ask(&client).await;
            assert_eq!(
                (&played.answer().heard, played.answer().usage),
                (&recorded.answer().heard, recorded.answer().usage)
            );
            assert_eq!((played.shown(), played.answer().wire_attempts), (recorded.shown(), 0));
        }
        assert_eq!(
            std::fs::read_dir(&tapes).expect("a folder").count(),
            1,
            "one file a request, nothing unfinished"
        );
    }
}

#[tokio::test]
async fn a_request_that_was_never_made_is_refused_with_the_file_that_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::always(stream(&hello())).await;
    ask(&taped("openai", &server.url(), "record", folder.path())).await.answer();
    let client = taped("openai", &server.url(), "replay", folder.path());
    for changed in [
        Request { max_tokens: 21, ..request() },
        Request { seed: Some(1), ..request() },
        Request { messages: vec![Message::user("another")], ..request() },
    ] {
        let called = call(&client, &changed, &Limits::default()).await;
        let failure = called.failure();
        assert_eq!((failure.reason, failure.retriable, failure.unknown), (Reason::NotRecorded, false, false));
        let named = failure.message.split_whitespace().find(|word| word.ends_with(".jsonl")).expect("a file");
        assert!(Path::new(named).parent() == Some(folder.path()) && !Path::new(named).exists(), "{failure}");
    }
    // The idempotency key is no part of the request.
    let again =
        call(&client, &Request { idempotency_key: "other".into(), ..request() }, &Limits::default()).await;
    assert_eq!((again.shown().as_str(), server.seen().len()), ("Hello", 1));
}

#[tokio::test]
async fn only_whole_answers_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|n, _| match n {
        0 => stream(&chunk("Hel")),
        _ => answer(400, &[], "{}"),
    })
    .await;
    let client = taped("openai", &server.url(), "record", folder.path());
    for _ in 0..2 {
        ask(&client).await.failure();
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}
