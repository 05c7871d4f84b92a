//! One request with its redirects: checked, pinned, sent, read as far as wanted.

use super::address::is_public;
use super::allow::{Allowed, Grant, grant};
use super::resolve::Resolve;
use crate::{Outcome, reason};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const REDIRECTS: usize = 5;
/// Headers of an answer that are worth a model's tokens.
const SHOWN: &[&str] =
    &["content-type", "content-encoding", "location", "retry-after", "etag", "last-modified"];
/// Headers that are ours or the connection's to set.
const OURS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "accept-encoding",
    "idempotency-key",
    "proxy-authorization",
    "proxy-connection",
];

pub(super) struct Exchange {
    pub(super) allowed: Vec<Allowed>,
    pub(super) refuse: Vec<IpAddr>,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) body_bytes: usize,
}

#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<String>,
}

/// Where one request goes: the address as it was asked for, and what was checked for it.
struct Way {
    url: Url,
    host: String,
    addresses: Vec<SocketAddr>,
}

/// Why a request does not go where it should.
enum Denied {
    Egress(String),
    Unresolved(String),
}

impl Request {
    pub(super) fn add_header(&mut self, name: &str, value: &str) -> Result<(), String> {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header"))?;
        if OURS.contains(&name.as_str()) {
            return Err(format!("the header {name} is set by the node; leave it out"));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value of {name} has characters none may have"))?;
        self.headers.append(name, value);
        Ok(())
    }

    /// So that a server that can does a repeated request once.
    pub(super) fn add_operation(&mut self, operation: &str) {
        if let Ok(operation) = HeaderValue::from_str(operation) {
            self.headers.insert("idempotency-key", operation);
        }
    }

    /// What is sent after a redirect: credentials and keys stay with the host they were meant for.
    fn redirected(mut self, status: StatusCode, is_same_host: bool) -> Request {
        let keeps_body = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !keeps_body && self.method != Method::HEAD {
            self.method = Method::GET;
            self.body = None;
            self.headers.remove("content-type");
        }
        if !is_same_host {
            for secret in ["authorization", "cookie", "idempotency-key", "x-api-key"] {
                self.headers.remove(secret);
            }
        }
        self
    }
}

impl Exchange {
    pub(super) async fn run(&self, mut request: Request) -> Outcome {
        let mut way = match self.first_way(&request.url).await {
            Ok(way) => way,
            Err(denied) => return denied.outcome(&request.url),
        };
        for _ in 0..=REDIRECTS {
            let response = match send(&way, &request).await {
                Ok(response) => response,
                Err(error) => return lost(&way.url, &error),
            };
            let Some(target) = redirect_target(&way.url, &response) else {
                return self.answer(&way.url, response).await;
            };
            let next = match self.way(target.clone()).await {
                Ok(next) => next,
                Err(denied) => return denied.stopped(response.status(), &target),
            };
            request = request
                .redirected(response.status(), next.host == way.host && next.url.port() == way.url.port());
            way = next;
        }
        Outcome::failed(format!(
            "More than {REDIRECTS} redirects, the last to {}. Ask for the final address.",
            way.url
        ))
    }

    async fn first_way(&self, url: &str) -> Result<Way, Denied> {
        let url = Url::parse(url)
            .map_err(|error| Denied::Egress(format!("it is no absolute address ({error})")))?;
        self.way(url).await
    }

    /// Checks the name against the list and every address it resolves to. One bad address refuses all: the connection
    /// might take that one.
    async fn way(&self, url: Url) -> Result<Way, Denied> {
        let grant = grant(&self.allowed, &url).map_err(Denied::Egress)?;
        let addresses = self.addresses(&grant).await?;
        for address in &addresses {
            if self.refuse.contains(&address.to_canonical()) {
                return Err(Denied::Egress(format!(
                    "{} leads to {address}, which is refused by the operator",
                    grant.host
                )));
            }
            if !grant.may_be_private && !is_public(*address) {
                return Err(Denied::Egress(format!(
                    "{} leads to {address}, which is not a public address",
                    grant.host
                )));
            }
        }
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, grant.port)).collect();
        Ok(Way { url, host: grant.host, addresses })
    }

    async fn addresses(&self, grant: &Grant) -> Result<Vec<IpAddr>, Denied> {
        let literal = grant.host.trim_start_matches('[').trim_end_matches(']').parse();
        if let Ok(address) = literal {
            return Ok(vec![address]);
        }
        let host = &grant.host;
        let addresses = self.resolver.resolve(host).await;
        let addresses =
            addresses.map_err(|error| Denied::Unresolved(format!("{host} has no address ({error})")))?;
        if addresses.is_empty() {
            Err(Denied::Unresolved(format!("{host} has no address")))
        } else {
            Ok(addresses)
        }
    }

    async fn answer(&self, url: &Url, response: Response) -> Outcome {
        let status = response.status();
        let mut text = head(url, &response);
        match self.body(response).await {
            Ok(body) => text.push_str(&body),
            Err(error) => return lost(url, &error),
        }
        Outcome::Answered {
            text,
            is_error: status.is_client_error() || status.is_server_error(),
            cut_bytes: 0,
        }
    }

    /// The body as text, as much of it as is wanted. What is packed stays packed: a few bytes may become gigabytes.
    async fn body(&self, mut response: Response) -> reqwest::Result<String> {
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let coding = header("content-encoding").unwrap_or("identity").to_string();
        let kind = header("content-type").unwrap_or("an unknown kind").to_string();
        if coding != "identity" {
            return Ok(format!("[a body packed with {coding}, not unpacked]"));
        }
        let length = response.content_length();
        let mut body = Vec::new();
        while body.len() <= self.body_bytes
            && let Some(piece) = response.chunk().await?
        {
            body.extend_from_slice(&piece[..piece.len().min(self.body_bytes + 1 - body.len())]);
        }
        let is_whole = body.len() <= self.body_bytes;
        body.truncate(self.body_bytes);
        Ok(shown(&body, &kind, is_whole, length))
    }
}

fn shown(body: &[u8], kind: &str, is_whole: bool, length: Option<u64>) -> String {
    let text = String::from_utf8_lossy(body);
    let odd = text.chars().filter(|c| matches!(*c, char::REPLACEMENT_CHARACTER | '\0')).count();
    if odd > 1 + body.len() / 100 {
        return format!("[{} bytes of {kind}, not text, not shown]", body.len());
    }
    match (is_whole, length) {
        (true, _) => text.into_owned(),
        (false, Some(length)) => format!("{text}\n[only {} of {length} bytes were read]", body.len()),
        (false, None) => format!("{text}\n[only the first {} bytes were read]", body.len()),
    }
}

fn head(url: &Url, response: &Response) -> String {
    let mut text = format!("HTTP {} from {url}\n", response.status());
    for name in SHOWN {
        if let Some(value) = response.headers().get(*name) {
            text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    text.push('\n');
    text
}

/// Sends over a connection of its own, to the addresses that were checked and no others.
async fn send(way: &Way, request: &Request) -> reqwest::Result<Response> {
    let name = way.url.host_str().unwrap_or_default();
    let client =
        super::client_builder().pool_max_idle_per_host(0).resolve_to_addrs(name, &way.addresses).build()?;
    let mut wire = client.request(request.method.clone(), way.url.clone()).headers(request.headers.clone());
    if let Some(body) = &request.body {
        wire = wire.body(body.clone());
    }
    wire.send().await
}

fn redirect_target(from: &Url, response: &Response) -> Option<Url> {
    let followed = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| followed)?;
    from.join(location.to_str().ok()?).ok()
}

/// A request whose connection was never made did nothing; of any other nobody knows.
fn lost(url: &Url, error: &reqwest::Error) -> Outcome {
    let why = causes(error);
    if error.is_connect() || error.is_builder() {
        let message =
            format!("{url} cannot be reached, so nothing was sent: {why}. Check the address or try later.");
        return Outcome::refused(reason::UNREACHABLE, message);
    }
    let message = format!(
        "The connection to {url} was lost before the answer was whole: {why}. It may have been done."
    );
    Outcome::unknown(reason::TOOL_CRASHED, message)
}

fn causes(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl Denied {
    /// Nothing was sent yet.
    fn outcome(self, url: &str) -> Outcome {
        let url = crate::output::head(url, 200);
        match self {
            Denied::Egress(why) => {
                let next = "Use an address the operator allows.";
                Outcome::refused(
                    reason::EGRESS_DENIED,
                    format!("The request to {url} was not made: {why}. {next}"),
                )
            }
            Denied::Unresolved(why) => {
                Outcome::refused(reason::UNREACHABLE, format!("The request to {url} was not made: {why}."))
            }
        }
    }

    /// A server was asked, and its redirect is not followed: that is its answer.
    fn stopped(self, status: StatusCode, target: &Url) -> Outcome {
        let (word, why) = match self {
            Denied::Egress(why) => (reason::EGRESS_DENIED, why),
            Denied::Unresolved(why) => (reason::UNREACHABLE, why),
        };
        Outcome::failed(format!("HTTP {status}: the redirect to {target} was not followed ({word}): {why}."))
    }
}
