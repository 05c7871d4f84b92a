//! One running server, spoken with by rmcp. When the last holder drops this, the server ends.

use super::answer;
use super::listing::{Listed, Listing, MOST_TOOLS, listing};
use super::measured::Measured;
use super::process::Process;
use crate::config::McpConfig;
use crate::{Call, CancellationToken, Outcome, reason};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientConfig, ClientRequest, Implementation, ListToolsRequest,
    PaginatedRequestParams, PingRequest, RequestMetaObject, ServerResult,
};
use rmcp::service::{
    NotificationContext, Peer, PeerRequestOptions, RequestHandle, RunningService, ServiceError,
    serve_client_with_ct,
};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransport, StreamableHttpClientTransportConfig,
};
use rmcp::{ClientHandler, RoleClient};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How long a server may take to say that it lives.
const PING: Duration = Duration::from_secs(2);

pub(super) struct Connection {
    peer: Peer<RoleClient>,
    process: Option<Process>,
    has_changed: Arc<AtomicBool>,
    /// How many messages of a server that was started here were too long to be read.
    dropped: Option<watch::Receiver<u64>>,
    calls: AtomicUsize,
    /// Ends rmcp's loop, and with it the standard input of the server.
    end: CancellationToken,
}

/// What we do when the server speaks first: note that its tools changed; everything else is politely refused by rmcp.
struct Ear {
    has_changed: Arc<AtomicBool>,
}

impl ClientHandler for Ear {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(Default::default(), Implementation::new("quorate", env!("CARGO_PKG_VERSION")))
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.has_changed.store(true, Ordering::Release);
    }
}

impl Connection {
    /// Starts or reaches the server and agrees on a protocol. The error says why not, with the end of what the server
    /// complained. Bounded by whoever calls.
    pub(super) async fn open(config: &McpConfig) -> Result<Connection, String> {
        let has_changed = Arc::new(AtomicBool::new(false));
        let ear = Ear { has_changed: Arc::clone(&has_changed) };
        let end = CancellationToken::new();
        let (process, dropped, running) = match &config.url {
            Some(url) => (None, None, reach(config, url, ear, end.clone()).await?),
            None => {
                let (process, dropped, running) = start(config, ear, end.clone()).await?;
                (Some(process), Some(dropped), running)
            }
        };
        let peer = running.peer().clone();
        tokio::spawn(running.waiting());
        Ok(Connection { peer, process, has_changed, dropped, calls: AtomicUsize::new(0), end })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.peer.is_transport_closed()
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::id)
    }

    /// What the server wrote to its standard error at last.
    pub(super) fn complaint(&self) -> String {
        self.process.as_ref().map(Process::complaint).unwrap_or_default()
    }

    /// Whether the server said that its tools changed since this was last asked.
    pub(super) fn take_changed(&self) -> bool {
        self.has_changed.swap(false, Ordering::AcqRel)
    }

    /// Ends the server now, whoever still waits for it.
    pub(super) fn kill(&self) {
        self.end.cancel();
        if let Some(process) = &self.process {
            process.kill();
        }
    }

    /// Asks for the tools, page by page.
    pub(super) async fn list(&self, server: &str, config: &McpConfig) -> Result<Listing, String> {
        let (mut raw, mut cursor) = (Vec::new(), None);
        loop {
            let (page, next) = self.page(cursor).await?;
            raw.extend(page);
            cursor = next;
            if cursor.is_none() || raw.len() > MOST_TOOLS {
                return Ok(listing(server, config, raw));
            }
        }
    }

    /// One page: entries as they came, so that one wrong entry does not hide the others.
    async fn page(&self, cursor: Option<String>) -> Result<(Vec<Value>, Option<String>), String> {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let request = ListToolsRequest::with_param(params);
        let answer = self.peer.send_request(ClientRequest::ListToolsRequest(request)).await;
        match answer.map_err(|error| format!("it does not list its tools: {error}"))? {
            ServerResult::ListToolsResult(page) => {
                let raw = page.tools.into_iter().filter_map(|tool| serde_json::to_value(tool).ok());
                Ok((raw.collect(), page.next_cursor))
            }
            ServerResult::CustomResult(page) => raw_page(page.0),
            _ => Err("it answers tools/list with something else".into()),
        }
    }

    /// One call. Dropped or stopped, it sends a cancel and is over.
    pub(super) async fn call(
        &self,
        server: &str,
        listed: &Listed,
        call: &Call,
        stop: CancellationToken,
    ) -> Outcome {
        let _counted = Counted::begin(&self.calls);
        let mut dropped = self.dropped.clone();
        dropped.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params(server, call)));
        let sent = self.peer.send_cancellable_request(request, PeerRequestOptions::no_options()).await;
        let mut sent = match sent {
            Ok(handle) => Sent(Some(handle)),
            Err(error) => return answer::outcome(server, listed, Err(error)),
        };
        tokio::select! {
            biased;
            answer = sent.answer() => self.with_last_words(answer::outcome(server, listed, answer)).await,
            () = self.too_long(dropped) => Outcome::failed(format!(
                "The server {server} answered with a longer message than is read here, and it was dropped. The call was \
                 made. Ask for less."
            )),
            () = stop.cancelled() => {
                Outcome::unknown(reason::TOOL_STOPPED, "The call was stopped after it had begun.")
            }
        }
    }

    /// Until a message was dropped that can only be the answer to the one call that runs.
    async fn too_long(&self, dropped: Option<watch::Receiver<u64>>) {
        let Some(mut dropped) = dropped else { return std::future::pending().await };
        while dropped.changed().await.is_ok() {
            if self.calls.load(Ordering::Acquire) == 1 {
                return;
            }
        }
        std::future::pending().await
    }

    /// Whether the server still answers anything.
    pub(super) async fn is_alive(&self) -> bool {
        let ping = self.peer.send_request(ClientRequest::PingRequest(PingRequest::default()));
        // An error is an answer, too; only silence and a lost connection are not.
        match tokio::time::timeout(PING, ping).await {
            Ok(Ok(_) | Err(ServiceError::McpError(_))) => true,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    async fn with_last_words(&self, outcome: Outcome) -> Outcome {
        let (Outcome::Unknown { reason, message }, Some(process)) = (&outcome, &self.process) else {
            return outcome;
        };
        let words = process.last_words().await;
        match crate::output::tail(&words, 500) {
            "" => outcome,
            last => Outcome::unknown(reason, format!("{message} Its last words: {last}")),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Counts a call for as long as it runs, however it ends.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    pub(super) fn begin(count: &AtomicUsize) -> Counted<'_> {
        count.fetch_add(1, Ordering::AcqRel);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request that was sent; when it is dropped without an answer, the server is told that nobody waits for it.
struct Sent(Option<RequestHandle<RoleClient>>);

impl Sent {
    async fn answer(&mut self) -> Result<ServerResult, ServiceError> {
        let handle = self.0.as_mut().expect("held until it is answered");
        let answer = (&mut handle.rx).await.unwrap_or(Err(ServiceError::TransportClosed));
        self.0 = None;
        answer
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // By a task of its own: a server that reads nothing must not hold up whoever stops waiting for it.
        if let (Some(handle), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(PING, handle.cancel(Some("no longer wanted".into()))));
        }
    }
}

fn params(server: &str, call: &Call) -> CallToolRequestParams {
    let own_name = call.tool[server.len() + 1..].to_string();
    let mut meta = RequestMetaObject::new();
    meta.0.insert("quorate/operation".into(), call.operation.clone().into());
    meta.0.insert("quorate/attempt".into(), call.attempt.into());
    let mut params = CallToolRequestParams::new(own_name);
    params.arguments = call.arguments.as_object().cloned();
    params.meta = Some(meta);
    params
}

fn raw_page(mut page: Value) -> Result<(Vec<Value>, Option<String>), String> {
    let next = page.get("nextCursor").and_then(Value::as_str).map(str::to_string);
    match page.get_mut("tools").map(Value::take) {
        Some(Value::Array(tools)) => Ok((tools, next)),
        _ => Err("it answers tools/list without a list of tools".into()),
    }
}

type Running = RunningService<RoleClient, Ear>;

type Started = (Process, watch::Receiver<u64>, Running);

async fn start(config: &McpConfig, ear: Ear, end: CancellationToken) -> Result<Started, String> {
    let (process, stdout, stdin) = Process::start(config)?;
    let (stdout, dropped) = Measured::new(stdout, config.message_bytes);
    let transport = AsyncRwTransport::new_client(stdout, stdin).with_max_line_length(config.message_bytes);
    match serve_client_with_ct(ear, transport, end).await {
        Ok(running) => Ok((process, dropped, running)),
        Err(error) => Err(match process.last_words().await {
            words if words.is_empty() => error.to_string(),
            words => format!("{error}. Its last words: {words}"),
        }),
    }
}

async fn reach(config: &McpConfig, url: &str, ear: Ear, end: CancellationToken) -> Result<Running, String> {
    // Without idle connections: one that is refused was never used, so that nothing can have happened.
    let client =
        crate::http::client_builder().pool_max_idle_per_host(0).build().map_err(|error| error.to_string())?;
    let mut transport = StreamableHttpClientTransportConfig::with_uri(url)
        .max_concurrent_requests(config.concurrent + 1)
        .custom_headers(headers(config)?);
    transport.max_json_response_size = config.message_bytes;
    transport.max_sse_event_size = config.message_bytes;
    if let Some(name) = &config.bearer_env {
        let token =
            std::env::var(name).map_err(|_| format!("the variable {name} of bearer_env is not set"))?;
        transport = transport.auth_header(token);
    }
    let transport = StreamableHttpClientTransport::with_client(client, transport);
    serve_client_with_ct(ear, transport, end).await.map_err(|error| error.to_string())
}

fn headers(
    config: &McpConfig,
) -> Result<HashMap<reqwest::header::HeaderName, reqwest::header::HeaderValue>, String> {
    let header = |(name, value): (&String, &String)| {
        let value = value.parse::<reqwest::header::HeaderValue>().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        match (name.parse(), value) {
            (Ok(name), Ok(value)) => Ok((name, value)),
            _ => Err(format!("the header {name:?} is none")),
        }
    };
    config.headers.0.iter().map(header).collect()
}
