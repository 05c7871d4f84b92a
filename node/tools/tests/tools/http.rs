//! Requests to a server that does what servers should not.

use crate::common::{call, failed, made, refused, said, soon, unknown};
use futures::future::{BoxFuture, FutureExt};
use serde_json::json;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tools::{Config, Outcome, Resolve, Toolbox};

/// A server on a free port of this machine that keeps the heads of all requests.
struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&kept)));
            }
        });
        Server { port, heads }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn last_head(&self) -> String {
        self.heads.lock().expect("heads").last().cloned().unwrap_or_default()
    }

    fn requests(&self) -> usize {
        self.heads.lock().expect("heads").len()
    }
}

async fn serve(mut stream: TcpStream, heads: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    heads.lock().expect("heads").push(head.clone());
    let path = head.split(' ').nth(1).unwrap_or("/").to_string();
    answer(&mut stream, &path).await
}

async fn answer(stream: &mut TcpStream, path: &str) -> io::Result<()> {
    let (route, rest) =
        path.trim_start_matches('/').split_once('?').unwrap_or((path.trim_start_matches('/'), ""));
    match route {
        "redirect" => {
            stream
                .write_all(
                    format!("HTTP/1.1 302 Found\r\nlocation: {rest}\r\ncontent-length: 0\r\n\r\n").as_bytes(),
                )
                .await
        }
        "keep" => {
            stream
                .write_all(
                    format!("HTTP/1.1 307 Keep\r\nlocation: {rest}\r\ncontent-length: 0\r\n\r\n").as_bytes(),
                )
                .await
        }
        // What a gigabyte of zeros begins with; the test must not care how it goes on.
        "bomb" => {
            plain(
                stream,
                "content-encoding: gzip\r\ncontent-type: text/plain\r\n",
                &[0x1f, 0x8b, 8, 0].repeat(2500),
            )
            .await
        }
        "binary" => plain(stream, "content-type: image/png\r\n", &[0xff; 5000]).await,
        "big" => plain(stream, "content-type: text/plain\r\n", &vec![b'x'; 10_000_000]).await,
        "endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            loop {
                stream.write_all(b"1000\r\n").await?;
                stream.write_all(&[b'y'; 4096]).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        "slow" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await?;
            std::future::pending().await
        }
        "silent" => std::future::pending().await,
        "cut" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await,
        "gone" => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\nnothing").await,
        _ => plain(stream, "content-type: text/plain\r\nset-cookie: a=b\r\n", b"hello\x1b[31m").await,
    }
}

async fn plain(stream: &mut TcpStream, headers: &str, body: &[u8]) -> io::Result<()> {
    let head =
        format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await
}

/// Answers from a list, the last one again and again, and counts.
struct Scripted {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Scripted> {
        let parse =
            |list: &&[&str]| list.iter().map(|address| address.parse().expect("an address")).collect();
        Arc::new(Scripted { answers: answers.iter().map(parse).collect(), asked: AtomicUsize::new(0) })
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let number = self.asked.fetch_add(1, Ordering::AcqRel);
        let answer = self.answers[number.min(self.answers.len() - 1)].clone();
        async move { Ok(answer) }.boxed()
    }
}

fn config(allow: &[&str]) -> Config {
    let mut config = Config::default();
    config.http.allow = allow.iter().map(|entry| entry.to_string()).collect();
    config
}

fn desk(server: &Server, more: &[&str]) -> Toolbox {
    let this = format!("127.0.0.1:{}", server.port);
    let allow: Vec<&str> = more.iter().copied().chain([this.as_str()]).collect();
    Toolbox::new(&config(&allow)).expect("a toolbox")
}

async fn get(toolbox: &Toolbox, url: &str) -> Outcome {
    soon(url, made(toolbox, call("http.get", json!({"url": url}), Path::new("unused")))).await
}

async fn post(toolbox: &Toolbox, url: &str, headers: serde_json::Value) -> Outcome {
    let arguments = json!({"method": "POST", "url": url, "headers": headers, "body": "text"});
    soon(url, made(toolbox, call("http.request", arguments, Path::new("unused")))).await
}

#[tokio::test]
async fn an_allowed_address_is_read_with_the_operation_id() {
    let server = Server::start().await;
    let toolbox = desk(&server, &[]);
    let text = said(get(&toolbox, &server.url("/hello")).await);
    assert!(
        text.starts_with("HTTP 200 OK") && text.ends_with("hello^[[31m") && !text.contains("set-cookie"),
        "{text}"
    );
    let head = server.last_head().to_lowercase();
    assert!(
        head.contains("idempotency-key: t_0000000001k00000/3/0") && !head.contains("accept-encoding"),
        "{head}"
    );
    let text = said(post(&toolbox, &server.url("/x"), json!({"content-type": "text/plain"})).await);
    assert!(text.contains("hello") && server.last_head().starts_with("POST /x"), "{text}");
    assert!(failed(get(&toolbox, &server.url("/gone")).await).contains("404"));
}

#[tokio::test]
async fn without_a_list_there_are_no_http_tools() {
    let toolbox = Toolbox::new(&Config::default()).expect("a toolbox");
    assert_eq!(refused(get(&toolbox, "http://example.com/").await).0, "TOOL_NOT_FOUND");
    assert!(toolbox.specs(&["http.*".into()]).await.is_err());
}

#[tokio::test]
async fn addresses_of_this_machine_and_its_house_are_refused_however_they_are_written() {
    let server = Server::start().await;
    // A list that has every name, and a resolver that answers loopback: only the addresses are left to refuse.
    let resolver = Scripted::new(&[&["127.0.0.1"]]);
    let toolbox = Toolbox::with_resolver(&config(&["*"]), resolver).expect("a toolbox");
    for url in [
        "http://127.0.0.1/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://017700000001/",
        "http://127.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://localhost./",
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://192.168.0.1/",
        "http://[fd00:ec2::254]/",
        "http://100.64.0.1/",
        "http://0/",
        "http://rebind.example.com/",
        "http://user:word@example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://example.com:22/",
        "gopher://127.0.0.1/",
        "not an address",
        "",
        "http://",
    ] {
        let (reason, message) = refused(get(&toolbox, url).await);
        assert_eq!(reason, "EGRESS_DENIED", "{url}: {message}");
    }
    let port = server.port;
    assert_eq!(refused(get(&toolbox, &format!("http://127.0.0.1:{port}/")).await).0, "EGRESS_DENIED");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn one_private_address_among_public_ones_refuses_all() {
    let resolver = Scripted::new(&[&["93.184.216.34", "10.0.0.7"]]);
    let toolbox = Toolbox::with_resolver(&config(&["api.example.com"]), resolver).expect("a toolbox");
    let (reason, message) = refused(get(&toolbox, "http://api.example.com/").await);
    assert!(reason == "EGRESS_DENIED" && message.contains("10.0.0.7"), "{message}");
}

#[tokio::test]
async fn a_name_is_resolved_once_and_the_connection_goes_there() {
    let server = Server::start().await;
    let named = format!("internal.example.com:{}", server.port);
    // The second answer would be another machine: it must never be asked for.
    let resolver = Scripted::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let toolbox = Toolbox::with_resolver(&config(&[&named]), resolver.clone()).expect("a toolbox");
    said(get(&toolbox, &format!("http://{named}/")).await);
    assert_eq!(resolver.asked.load(Ordering::Acquire), 1);
    assert!(server.last_head().to_lowercase().contains(&format!("host: {named}")));
}

#[tokio::test]
async fn refused_addresses_are_refused_though_they_are_listed() {
    let server = Server::start().await;
    let mut config = config(&[&format!("127.0.0.1:{}", server.port)]);
    config.http.refuse = vec!["127.0.0.1".parse().expect("an address")];
    let toolbox = Toolbox::new(&config).expect("a toolbox");
    assert_eq!(refused(get(&toolbox, &server.url("/")).await).0, "EGRESS_DENIED");
}

#[tokio::test]
async fn redirects_are_checked_like_first_addresses() {
    let server = Server::start().await;
    let toolbox = desk(&server, &[]);
    let text = said(get(&toolbox, &server.url("/redirect?/hello")).await);
    assert!(text.contains("hello"), "{text}");
    for target in [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:9/",
        "file:///etc/passwd",
        "http://[::1]/",
    ] {
        let text = failed(get(&toolbox, &server.url(&format!("/redirect?{target}"))).await);
        assert!(text.contains("EGRESS_DENIED") && text.contains("302"), "{target}: {text}");
    }
    let round = server.url("/redirect?/redirect?/redirect?/redirect?/redirect?/redirect?/redirect?/hello");
    let before = server.requests();
    assert!(failed(get(&toolbox, &round).await).contains("redirects"));
    assert!(server.requests() - before <= 6);
}

#[tokio::test]
async fn keys_do_not_follow_to_another_host() {
    let (server, other) = (Server::start().await, Server::start().await);
    let toolbox = desk(&server, &[&format!("127.0.0.1:{}", other.port)]);
    let secret = json!({"authorization": "Bearer secret", "x-plain": "yes"});
    said(post(&toolbox, &server.url(&format!("/keep?{}", other.url("/x"))), secret.clone()).await);
    let head = other.last_head().to_lowercase();
    assert!(head.starts_with("post /x") && head.contains("x-plain: yes"), "{head}");
    assert!(!head.contains("secret") && !head.contains("idempotency-key"), "{head}");
    said(post(&toolbox, &server.url("/keep?/x"), secret).await);
    assert!(server.last_head().to_lowercase().contains("bearer secret"));
}

#[tokio::test]
async fn headers_of_the_connection_are_not_a_models_to_set() {
    let server = Server::start().await;
    let toolbox = desk(&server, &[]);
    for name in
        ["Host", "content-length", "Transfer-Encoding", "idempotency-key", "accept-encoding", "bad name"]
    {
        let (reason, message) = refused(post(&toolbox, &server.url("/"), json!({name: "1"})).await);
        assert_eq!(reason, "INVALID_ARGUMENTS", "{name}: {message}");
    }
    let (reason, _) = refused(post(&toolbox, &server.url("/"), json!({"x-a": "1\r\nx-b: 2"})).await);
    assert_eq!(reason, "INVALID_ARGUMENTS");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn packed_and_binary_bodies_are_not_shown() {
    let server = Server::start().await;
    let toolbox = desk(&server, &[]);
    let text = said(get(&toolbox, &server.url("/bomb")).await);
    assert!(text.contains("packed with gzip, not unpacked"), "{text}");
    let text = said(get(&toolbox, &server.url("/binary")).await);
    assert!(text.contains("[5000 bytes of image/png, not text, not shown]"), "{text}");
}

#[tokio::test]
async fn bodies_are_read_only_as_far_as_wanted() {
    let server = Server::start().await;
    let toolbox = desk(&server, &[]);
    for (path, told) in [
        ("/big", "[only 1048576 of 10000000 bytes were read]"),
        ("/endless", "[only the first 1048576 bytes were read]"),
    ] {
        let outcome = get(&toolbox, &server.url(path)).await;
        let Outcome::Answered { text, cut_bytes, is_error: false } = outcome else { panic!("{outcome:?}") };
        assert!(text.ends_with(told) && cut_bytes > 900_000 && text.len() <= 64 << 10, "{cut_bytes}");
    }
}

#[tokio::test]
async fn slow_silent_and_broken_answers_end_in_time_and_are_unknown() {
    let server = Server::start().await;
    let toolbox = desk(&server, &[]);
    for path in ["/slow", "/silent"] {
        let mut call = call("http.get", json!({"url": server.url(path)}), Path::new("unused"));
        call.timeout_ms = Some(200);
        let begun = Instant::now();
        assert_eq!(unknown(made(&toolbox, call).await).0, "TOOL_TIMEOUT");
        assert!(begun.elapsed() < Duration::from_secs(2), "{path} {:?}", begun.elapsed());
    }
    assert_eq!(unknown(get(&toolbox, &server.url("/cut")).await).0, "TOOL_CRASHED");
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_sent() {
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let toolbox = Toolbox::new(&config(&[&format!("127.0.0.1:{closed}")])).expect("a toolbox");
    let (reason, message) = refused(get(&toolbox, &format!("http://127.0.0.1:{closed}/")).await);
    assert_eq!(reason, "UNREACHABLE", "{message}");
    let (reason, _) = refused(get(&toolbox, &format!("https://127.0.0.1:{closed}/")).await);
    assert_eq!(reason, "UNREACHABLE");
}
