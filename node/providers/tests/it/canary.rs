//! A key that must not be seen: every output of every course is searched for it, whole and in parts.

use crate::server::{Act, Seen, Server, answer, stream};
use crate::support::*;
use providers::{Client, Destinations, Endpoint, Limits, bill};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use tracing_subscriber::fmt::MakeWriter;

const KEY: &str = "sk-canary-7f3a9c51d2e8b604-never-to-be-seen";
const HEADER: &str = "canary-header-5b1e77a0-nor-this";

/// Everything that is logged, by either way of logging, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _ = writeln!(self.clone(), "{} {}", record.target(), record.args());
    }

    fn flush(&self) {}
}

fn listen() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        log::set_boxed_logger(Box::new(log.clone())).expect("the only logger");
        log::set_max_level(log::LevelFilter::Trace);
        let everything =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
        tracing::subscriber::set_global_default(everything.finish()).expect("the only subscriber");
        log
    })
    .clone()
}

/// Whether a part of a secret that is long enough to matter is in the text.
fn shows(text: &str, secret: &str) -> bool {
    secret.as_bytes().windows(8).any(|part| text.contains(std::str::from_utf8(part).expect("letters")))
}

#[test]
fn a_part_of_a_secret_would_be_found() {
    assert!(shows(&format!("x {KEY} y"), KEY) && shows(&KEY[3..12], KEY) && shows("see 7f3a9c51 there", KEY));
    assert!(!shows("sk-can", KEY) && !shows("nothing", KEY));
}

#[track_caller]
fn assert_clean(what: &str, text: &str) {
    assert!(!shows(text, KEY) && !shows(text, HEADER), "{what} shows a secret: {text}");
}

fn endpoint_of(kind: &str, url: &str, folder: &Path, tapes: &Path) -> Endpoint {
    let key_file = folder.join("key");
    std::fs::write(&key_file, format!("{KEY}\n")).expect("written");
    let more = format!(
        "key_file = '{}'\ncassette = {{ mode = 'record', folder = '{}' }}\nheaders = {{ x-team = '{HEADER}' }}",
        key_file.display(),
        tapes.display()
    );
    endpoint(kind, url, &more)
}

/// Everything that the request showed, as a careless or hostile provider sends it back.
fn echo(seen: &Seen) -> String {
    seen.head.replace(['\r', '\n'], " ").replace('"', "'")
}

fn courses(n: usize, seen: &Seen) -> Vec<Act> {
    let echoed = echo(seen);
    let error = format!("{{\"error\":{{\"message\":\"you sent {echoed}\",\"code\":\"{echoed}\"}}}}");
    match n {
        0 => answer(401, &[], &error),
        1 => answer(400, &[], &echoed),
        2 => answer(500, &[("retry-after-ms", "1")], &error),
        3 => answer(302, &[("location", &format!("http://127.0.0.1:9/{KEY}"))], &error),
        4 => answer(404, &[("x-request", KEY)], &error),
        5 => stream(&format!("data: {error}\n\n")),
        6 => stream(&format!("{}data: {echoed}\n\n", chunk("Hel"))),
        7 => stream(&[chunk(&echoed), finish(), done()].concat()),
        8 => stream(&[chunk("Hello"), format!(": {echoed}\n\n"), finish(), done()].concat()),
        9 => vec![Act::Write(format!("HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n"))],
        10 => {
            let call = json!([{"index": 0, "id": echoed, "function": {"name": KEY, "arguments": echoed}}]);
            let delta = json!({"id": KEY, "choices": [{"delta": {"tool_calls": call}, "finish_reason": "tool_calls"}]});
            stream(&format!("data: {delta}\n\n{}", done()))
        }
        11 => {
            let usage = json!({"id": KEY, "type": KEY, "prompt_tokens": KEY, "input_tokens": KEY});
            answer(200, &[], &json!({"id": KEY, "usage": usage, "content": [], "choices": [{"message": {}, "finish_reason": KEY}]}).to_string())
        }
        12 => answer(200, &[("content-type", &format!("text/{KEY}"))], &echoed),
        _ => answer(403, &[("retry-after", KEY)], &error),
    }
}

const COURSES: usize = 14;

#[tokio::test]
async fn no_output_shows_a_key() {
    let log = listen();
    let folder = tempfile::tempdir().expect("a folder");
    let mut tapes_seen = 0;
    for kind in ["openai", "anthropic"] {
        let (tapes, arrived) = (folder.path().join(kind), Arc::new(Mutex::new(0)));
        let counted = arrived.clone();
        let server = Server::start(move |n, seen| {
            *counted.lock().expect("whole") +=
                usize::from(seen.head.contains(KEY) && seen.head.contains(HEADER));
            courses(n, seen)
        })
        .await;
        let destinations = Destinations::new(7);
        let client = Client::open(endpoint_of(kind, &server.url(), folder.path(), &tapes), &destinations)
            .expect("it opens");
        for n in 0..COURSES + 2 {
            let asked = providers::Request { seed: Some(n as u64), ..request() };
            let called = call(&client, &asked, &Limits::default()).await;
            let reserved = providers::Reserved { prompt: 1, generated: 1 };
            assert_clean(
                "the outcome",
                &format!("{:?} {:?}", called.outcome, bill(&called.outcome, reserved)),
            );
            assert_clean("the pieces", &format!("{:?}", called.pieces));
            if let Err(failure) = &called.outcome {
                assert_clean("the message", &format!("{failure} {failure:#?}"));
            }
        }
        assert!(*arrived.lock().expect("whole") >= 5, "the key and the header do reach the provider");
        assert_clean("the client", &format!("{client:?} {:?} {:?}", client.endpoint(), client.destination()));
        assert_clean("the destinations", &format!("{destinations:?}"));
        for file in std::fs::read_dir(&tapes).expect("a folder") {
            tapes_seen += 1;
            let text = std::fs::read_to_string(file.expect("readable").path()).expect("readable");
            assert_clean("the tape", &text);
        }
        std::fs::remove_file(folder.path().join("key")).expect("removed");
        assert_clean("a reload", &client.reload_key().expect_err("no file").to_string());
    }
    assert!(tapes_seen >= 2, "something was recorded");
    let text = String::from_utf8_lossy(&log.0.lock().expect("whole")).to_string();
    assert!(text.contains("not answered") && text.lines().count() > 50, "the log was listened to");
    assert_clean("the log", &text);
}

#[test]
fn endpoints_that_are_wrong_say_so_without_their_secrets() {
    let wrong = |change: &dyn Fn(&mut Endpoint)| {
        let mut endpoint = endpoint("openai", "https://api.example.com/v1", "");
        change(&mut endpoint);
        let error = Client::open(endpoint, &Destinations::new(1)).expect_err("refused");
        format!("{error} {error:?}")
    };
    assert_clean("a url with a key", &wrong(&|e| e.url = format!("https://{KEY}@api.example.com/v1")));
    assert_clean("a url with a query", &wrong(&|e| e.url = format!("https://api.example.com/v1?key={KEY}")));
    assert_clean("a header", &wrong(&|e| drop(e.headers.insert("x".into(), format!("{HEADER}\n")))));
    assert_clean("a proxy", &wrong(&|e| e.proxy = Some(format!("no url {KEY}"))));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    std::fs::write(&path, format!("{KEY} and more")).expect("written");
    assert_clean("two words", &wrong(&|e| e.key_file = Some(path.clone())));
}

#[tokio::test]
async fn a_new_key_is_read_on_demand() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    let server = Server::always(stream(&hello())).await;
    std::fs::write(&path, "the-old-key").expect("written");
    let with_key = endpoint("openai", &server.url(), &format!("key_file = '{}'", path.display()));
    let client = Client::open(with_key, &Destinations::new(7)).expect("it opens");
    ask(&client).await.answer();
    std::fs::write(&path, "the-new-key").expect("written");
    ask(&client).await.answer();
    client.reload_key().expect("readable");
    ask(&client).await.answer();
    std::fs::remove_file(&path).expect("removed");
    client.reload_key().expect_err("no file");
    ask(&client).await.answer();
    let keys: Vec<String> =
        server.seen().iter().map(|seen| seen.header("authorization").expect("a key").to_string()).collect();
    assert_eq!(
        keys,
        ["Bearer the-old-key", "Bearer the-old-key", "Bearer the-new-key", "Bearer the-new-key"]
    );
}
