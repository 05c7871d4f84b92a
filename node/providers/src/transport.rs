//! The HTTP client of one endpoint: where it goes, what it trusts, which key it shows.
//!
//! It follows no redirect and takes no proxy from the environment: either would carry the key to somebody else. Each
//! request has a connection of its own: a server that closes a used one just as the next request arrives would leave it
//! unknown whether that request was worked on, and an unknown call is paid in full. A handshake is cheaper.

use crate::endpoint::{CassetteMode, Endpoint, Kind};
use crate::key::{Key, KeySource};
use crate::setup::SetupError;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, ClientBuilder, Proxy, Response, Url, redirect};
use std::sync::{Arc, RwLock};
use std::time::Duration;

const ANTHROPIC_VERSION: &str = "2023-06-01";
const USER_AGENT: &str = concat!("quorate/", env!("CARGO_PKG_VERSION"));

pub(crate) struct Transport {
    provider: String,
    http: reqwest::Client,
    url: Url,
    kind: Kind,
    source: KeySource,
    key: RwLock<Option<Arc<Key>>>,
    /// Extra headers of the endpoint, marked sensitive.
    headers: HeaderMap,
    /// Their values, to be hidden where they show up.
    secrets: Vec<Key>,
}

impl Transport {
    pub(crate) fn open(endpoint: &Endpoint) -> Result<Self, SetupError> {
        let (headers, secrets) = headers(endpoint)?;
        let transport = Transport {
            provider: endpoint.name.clone(),
            http: http(endpoint)?,
            url: endpoint.call_url()?,
            kind: endpoint.kind,
            source: endpoint.key_source(),
            key: RwLock::new(None),
            headers,
            secrets,
        };
        let replays =
            endpoint.cassette.as_ref().is_some_and(|cassette| cassette.mode == CassetteMode::Replay);
        if !replays {
            transport.reload()?;
        }
        Ok(transport)
    }

    /// Reads the key again. The old one stays if that fails.
    pub(crate) fn reload(&self) -> Result<(), SetupError> {
        let wrong = |cause| SetupError::Key { provider: self.provider.clone(), cause };
        let key = self.source.read().map_err(wrong)?.map(Arc::new);
        *self.key.write().expect("nothing panics while it holds the key") = key;
        Ok(())
    }

    fn key(&self) -> Option<Arc<Key>> {
        self.key.read().expect("nothing panics while it holds the key").clone()
    }

    /// The text without traces of secrets.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let key = self.key();
        let secrets = key.as_deref().into_iter().chain(&self.secrets);
        secrets.fold(text.to_string(), |text, secret| secret.scrub(&text))
    }

    /// Sends one request; the answer's body is still to come.
    pub(crate) async fn send(&self, body: String, idempotency_key: &str) -> Result<Response, reqwest::Error> {
        let mut request = self.http.post(self.url.clone()).headers(self.headers.clone());
        request = request.header(CONTENT_TYPE, "application/json");
        if let Ok(value) = HeaderValue::from_str(idempotency_key)
            && !idempotency_key.is_empty()
        {
            request = request.header("idempotency-key", value);
        }
        if let Some((name, value)) = self.key().and_then(|key| key_header(self.kind, &key)) {
            request = request.header(name, value);
        }
        if self.kind == Kind::Anthropic && !self.headers.contains_key("anthropic-version") {
            request = request.header("anthropic-version", ANTHROPIC_VERSION);
        }
        request.body(body).send().await.map_err(reqwest::Error::without_url)
    }
}

fn key_header(kind: Kind, key: &Key) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = match kind {
        Kind::OpenAi => (AUTHORIZATION, zeroize::Zeroizing::new(format!("Bearer {}", key.expose()))),
        Kind::Anthropic => {
            (HeaderName::from_static("x-api-key"), zeroize::Zeroizing::new(key.expose().to_string()))
        }
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

fn headers(endpoint: &Endpoint) -> Result<(HeaderMap, Vec<Key>), SetupError> {
    let (mut headers, mut secrets) = (HeaderMap::new(), Vec::new());
    for (name, text) in &endpoint.headers {
        let wrong = || SetupError::Header { provider: endpoint.name.clone(), header: name.clone() };
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(text).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(header, value);
        secrets.extend(Key::of_header(text));
    }
    Ok((headers, secrets))
}

fn http(endpoint: &Endpoint) -> Result<reqwest::Client, SetupError> {
    // The whole process uses ring; where another part was first, this changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let encryption = |error: reqwest::Error| {
        let cause = error.without_url().to_string();
        SetupError::Encryption { provider: endpoint.name.clone(), cause }
    };
    let mut builder = ClientBuilder::new()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(Duration::from_millis(endpoint.timeouts.connect_ms))
        .pool_max_idle_per_host(0)
        .tcp_nodelay(true);
    if let Some(proxy) = &endpoint.proxy {
        let wrong = |_| endpoint.wrong("proxy", "it is not a URL", "write it like http://proxy:3128");
        builder = builder.proxy(Proxy::all(proxy).map_err(wrong)?);
    }
    if let Some(authorities) = authorities(endpoint)? {
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(encryption)
}

/// Whom to trust, if not whom the machine trusts. Without encryption nobody: a machine may have no authorities at all.
fn authorities(endpoint: &Endpoint) -> Result<Option<Vec<Certificate>>, SetupError> {
    let Some(path) = &endpoint.ca_file else {
        return Ok(endpoint.url.starts_with("http://").then(Vec::new));
    };
    let wrong = |cause: String| SetupError::Authorities {
        provider: endpoint.name.clone(),
        path: path.display().to_string(),
        cause,
    };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("it holds no certificate".into()));
    }
    Ok(Some(found))
}
