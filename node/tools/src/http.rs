//! Requests to the outside, for agents: only to hosts that the operator named, only to addresses that were checked,
//! and never more of an answer than is wanted.

mod address;
mod allow;
mod exchange;
mod resolve;

use crate::config::{ConfigError, HttpConfig};
use crate::{Call, CancellationToken, Outcome, Policy, Tool, ToolSpec, reason};
pub(crate) use allow::Allowed;
use exchange::{Exchange, Request};
use futures::future::{BoxFuture, FutureExt};
pub use resolve::{Resolve, SystemResolver};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;

/// `http.get` and `http.request`, where the operator allows any host.
pub(crate) fn tools(
    config: &HttpConfig,
    resolver: Arc<dyn Resolve>,
) -> Result<Vec<Arc<dyn Tool>>, ConfigError> {
    let parsed: Result<Vec<Allowed>, String> =
        config.allow.iter().map(|entry| Allowed::parse(entry)).collect();
    let allowed = parsed.map_err(|problem| ConfigError { key: "tools.http.allow".into(), problem })?;
    if allowed.is_empty() {
        return Ok(Vec::new());
    }
    let exchange =
        Exchange { allowed, refuse: config.refuse.clone(), resolver, body_bytes: config.body_bytes };
    let http = Arc::new(Http { exchange, places: Semaphore::new(config.concurrent) });
    Ok([get(config), request(config)]
        .map(|spec| -> Arc<dyn Tool> { Arc::new(HttpTool { spec, http: Arc::clone(&http) }) })
        .into())
}

struct Http {
    exchange: Exchange,
    places: Semaphore,
}

struct HttpTool {
    spec: ToolSpec,
    http: Arc<Http>,
}

impl Tool for HttpTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn call<'a>(&'a self, call: &'a Call, stop: CancellationToken) -> BoxFuture<'a, Outcome> {
        async move {
            let place = tokio::select! {
                biased;
                place = self.http.places.acquire() => place.expect("never closed"),
                () = stop.cancelled() => return busy(),
            };
            let outcome = match request_of(call) {
                Ok(request) => self.http.exchange.run(request).await,
                Err(problem) => crate::toolbox::invalid_arguments(&call.tool, &problem),
            };
            drop(place);
            outcome
        }
        .boxed()
    }
}

fn busy() -> Outcome {
    Outcome::refused(
        reason::TOOL_BUSY,
        "Too many requests run on this node. This one was not made; try again later.",
    )
}

fn spec(config: &HttpConfig, name: &str, policy: Policy, description: &str, parameters: Value) -> ToolSpec {
    ToolSpec {
        name: name.into(),
        description: format!("{description} Reachable hosts: {}.", config.allow.join(", ")),
        parameters,
        policy,
        timeout_ms: config.timeout_ms,
        output_bytes: config.output_bytes,
    }
}

fn get(config: &HttpConfig) -> ToolSpec {
    let parameters = json!({
        "type": "object", "required": ["url"], "additionalProperties": false,
        "properties": { "url": url_schema(), "headers": headers_schema() }
    });
    let description = "Reads an address by HTTP GET; answers with the status, some headers and the text.";
    spec(config, "http.get", Policy::Idempotent, description, parameters)
}

fn request(config: &HttpConfig) -> ToolSpec {
    let parameters = json!({
        "type": "object", "required": ["method", "url"], "additionalProperties": false,
        "properties": {
            "method": { "type": "string", "enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] },
            "url": url_schema(), "headers": headers_schema(),
            "body": { "type": "string", "description": "Sent as it is; say what it is with a content-type header." }
        }
    });
    let description = "Makes an HTTP request; answers with the status, some headers and the text.";
    spec(config, "http.request", Policy::AtMostOnce, description, parameters)
}

fn url_schema() -> Value {
    json!({ "type": "string", "maxLength": 8192, "description": "An absolute address, http or https." })
}

fn headers_schema() -> Value {
    json!({ "type": "object", "maxProperties": 32, "additionalProperties": { "type": "string", "maxLength": 8192 } })
}

fn request_of(call: &Call) -> Result<Request, String> {
    let text = |key: &str| call.arguments.get(key).and_then(Value::as_str);
    let method = text("method").unwrap_or("GET");
    let mut request = Request {
        method: method.parse().map_err(|_| format!("{method:?} is no method"))?,
        url: text("url").unwrap_or_default().into(),
        headers: Default::default(),
        body: text("body").map(str::to_string),
    };
    for (name, value) in call.arguments.get("headers").and_then(Value::as_object).into_iter().flatten() {
        request.add_header(name, value.as_str().unwrap_or_default())?;
    }
    request.add_operation(&call.operation);
    Ok(request)
}

/// A client as all of ours are made: certificates of the machine, ring, no proxy from the environment, no redirect
/// followed unseen, no cookies, no decompression.
pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(TLS.clone())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("quorate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(std::time::Duration::from_secs(10))
}

/// Read once: the machine's certificates are some hundred files.
static TLS: LazyLock<rustls::ClientConfig> = LazyLock::new(|| {
    use rustls_platform_verifier::BuilderVerifierExt;
    let builder = || {
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3")
    };
    match builder().with_platform_verifier() {
        Ok(verified) => verified.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(%error, "this machine has no certificates: https addresses will not be reached");
            builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        }
    }
});
