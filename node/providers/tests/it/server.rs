//! A provider that follows a script, byte by byte.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server does with one request, in order; then it closes the connection.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Write(String),
    /// Writes this again and again at this pace, until the client has gone.
    Trickle(String, Duration),
    /// Works for so long.
    Work(Duration),
    /// Says nothing until the client has gone.
    Hold,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) at: Instant,
    /// Requests that were in work when it came, with itself.
    pub(crate) at_work: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

type Script = dyn Fn(usize, &Seen) -> Vec<Act> + Send + Sync;

#[derive(Default)]
struct Record {
    seen: Vec<Seen>,
    at_work: usize,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    record: Arc<Mutex<Record>>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// `script` says what happens to the n-th request.
    pub(crate) async fn start(script: impl Fn(usize, &Seen) -> Vec<Act> + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let record: Arc<Mutex<Record>> = Arc::default();
        let (script, kept): (Arc<Script>, _) = (Arc::new(script), record.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), kept.clone()));
            }
        });
        Server { port, record, accepting }
    }

    /// The same for every request.
    pub(crate) async fn always(acts: Vec<Act>) -> Server {
        Server::start(move |_, _| acts.clone()).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.record.lock().expect("whole").seen.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, record: Arc<Mutex<Record>>) {
    let Some((head, body)) = read(&mut stream).await else { return };
    let acts = {
        let mut record = record.lock().expect("whole");
        record.at_work += 1;
        let seen = Seen { head, body, at: Instant::now(), at_work: record.at_work };
        let acts = script(record.seen.len(), &seen);
        record.seen.push(seen);
        acts
    };
    for act in acts {
        if perform(&mut stream, act).await.is_err() {
            break;
        }
    }
    record.lock().expect("whole").at_work -= 1;
    // Closed gently, so that what was written arrives.
    let _ = stream.shutdown().await;
    let _ = stream.read(&mut [0; 1024]).await;
}

async fn perform(stream: &mut TcpStream, act: Act) -> std::io::Result<()> {
    match act {
        Act::Write(text) => stream.write_all(text.as_bytes()).await,
        Act::Hold => gone(stream).await,
        Act::Work(how_long) => match tokio::time::timeout(how_long, gone(stream)).await {
            Ok(gone) => gone,
            Err(_) => Ok(()),
        },
        Act::Trickle(text, pace) => loop {
            stream.write_all(text.as_bytes()).await?;
            if let Ok(gone) = tokio::time::timeout(pace, gone(stream)).await {
                return gone;
            }
        },
    }
}

/// Ends when the client closes; it sends nothing more.
async fn gone(stream: &mut TcpStream) -> std::io::Result<()> {
    let read = stream.read(&mut [0; 1024]).await?;
    if read == 0 { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}

async fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().filter_map(|line| line.split_once(": "));
            let length = length.filter(|(key, _)| key.eq_ignore_ascii_case("content-length"));
            let length: usize = length.map(|(_, n)| n.parse().expect("a length")).next().unwrap_or(0);
            if body.len() >= length {
                return Some((head.to_string(), body.to_string()));
            }
        }
        let read = stream.read(&mut part).await.ok()?;
        if read == 0 {
            return None;
        }
        bytes.extend_from_slice(&part[..read]);
    }
}

/// A whole answer.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<Act> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    vec![Act::Write(format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
    ))]
}

/// The head of a stream that ends when the connection does.
pub(crate) fn stream_head() -> Act {
    Act::Write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".into())
}

pub(crate) fn stream(events: &str) -> Vec<Act> {
    vec![stream_head(), Act::Write(events.into())]
}
