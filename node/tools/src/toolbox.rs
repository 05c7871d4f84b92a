//! All tools of a node: what there is, and calls within their bounds.

use crate::config::{Config, ConfigError, FilesConfig, HttpConfig};
use crate::mcp::{Server, ServerState};
use crate::patterns::may_name_server;
use crate::tool::GRACE_MS;
use crate::{
    Arguments, Call, CancellationToken, Outcome, Resolve, SystemResolver, Tool, ToolSpec, clean, files, http,
    matches, matches_any, output, reason,
};
use futures::FutureExt;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Messages of refusals and unknown outcomes are for one glance.
const MESSAGE_BYTES: usize = 4096;

/// The tools of a node. Dropped, it ends the servers that it started.
pub struct Toolbox {
    own: BTreeMap<String, Own>,
    servers: BTreeMap<String, Arc<Server>>,
    left_out: Mutex<BTreeMap<String, Vec<LeftOut>>>,
}

struct Own {
    tool: Arc<dyn Tool>,
    arguments: Arguments,
}

/// A tool that a server lists and nobody can use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    pub tool: String,
    pub reason: String,
}

/// Why tools cannot be listed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpecsError {
    #[error("no tool here is named by {pattern:?}; there are: {there}")]
    NotFound { pattern: String, there: String },
    #[error("the tool server {server} {problem}")]
    Unavailable { server: String, problem: String },
}

impl SpecsError {
    pub fn reason(&self) -> &'static str {
        match self {
            SpecsError::NotFound { .. } => reason::TOOL_NOT_FOUND,
            SpecsError::Unavailable { .. } => reason::TOOL_UNAVAILABLE,
        }
    }
}

impl Toolbox {
    /// Nothing is started yet: servers start when they are first listed or called.
    pub fn new(config: &Config) -> Result<Toolbox, ConfigError> {
        Toolbox::with_resolver(config, Arc::new(SystemResolver))
    }

    /// With another way from names to addresses.
    pub fn with_resolver(config: &Config, resolver: Arc<dyn Resolve>) -> Result<Toolbox, ConfigError> {
        config.check()?;
        let server = |(name, config): (&String, &crate::config::McpConfig)| {
            (name.clone(), Server::new(name, config.clone()))
        };
        let servers = config.mcp.iter().map(server).collect();
        let mut toolbox = Toolbox { own: BTreeMap::new(), servers, left_out: Mutex::default() };
        toolbox.add_own(&config.http, &config.files, resolver)?;
        Ok(toolbox)
    }

    fn add_own(
        &mut self,
        http: &HttpConfig,
        files: &FilesConfig,
        resolver: Arc<dyn Resolve>,
    ) -> Result<(), ConfigError> {
        for tool in http::tools(http, resolver)?.into_iter().chain(files::tools(files)) {
            self.add(tool)?;
        }
        Ok(())
    }

    /// Adds a tool of the embedding program. Its name must be new, and its schema one.
    pub fn add(&mut self, tool: Arc<dyn Tool>) -> Result<(), ConfigError> {
        let name = tool.spec().name.clone();
        let wrong = |problem: String| ConfigError { key: format!("tool {name}"), problem };
        if !ToolSpec::is_name(&name) {
            return Err(wrong("a tool's name is letters, digits, _ - and .".into()));
        }
        let server = name.split('.').next().unwrap_or("");
        if self.own.contains_key(&name) || self.servers.contains_key(server) {
            return Err(wrong("this name is taken".into()));
        }
        let arguments = Arguments::new(&tool.spec().parameters).map_err(wrong)?;
        self.own.insert(name, Own { tool, arguments });
        Ok(())
    }

    /// The tools that patterns name, sorted by name. Starts the servers that can be meant, and only those. A pattern
    /// that names nothing is an error, and so is a server that cannot be asked.
    pub async fn specs(&self, patterns: &[String]) -> Result<Vec<ToolSpec>, SpecsError> {
        let meant = |server: &&String| patterns.iter().any(|pattern| may_name_server(pattern, server));
        let names: Vec<&String> = self.servers.keys().filter(meant).collect();
        let lists = join_all(names.iter().map(|name| self.listed(name))).await;
        let mut specs: Vec<ToolSpec> = self.own.values().map(|own| own.tool.spec().clone()).collect();
        for list in lists {
            specs.extend(list?);
        }
        if let Some(pattern) = patterns.iter().find(|p| !specs.iter().any(|spec| matches(p, &spec.name))) {
            return Err(not_found(pattern, &specs));
        }
        specs.retain(|spec| matches_any(patterns, &spec.name));
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(specs)
    }

    /// Whether this name is one of ours: a tool of the node, or of a server that is configured.
    pub fn has(&self, name: &str) -> bool {
        let server = name.split_once('.').map_or("", |(server, _)| server);
        self.own.contains_key(name) || self.servers.contains_key(server)
    }

    async fn listed(&self, name: &str) -> Result<Vec<ToolSpec>, SpecsError> {
        let problem = |problem| SpecsError::Unavailable { server: name.into(), problem };
        let (specs, left_out) = self.servers[name].list().await.map_err(problem)?;
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), left_out);
        Ok(specs)
    }

    /// What the servers listed so far have that cannot be used, and why.
    pub fn left_out(&self) -> Vec<LeftOut> {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect()
    }

    /// The MCP servers, sorted by name.
    pub fn servers(&self) -> Vec<ServerState> {
        self.servers.values().map(|server| server.state()).collect()
    }

    /// Makes one call, within its time and bytes, unless its arguments are not what the tool takes. Never an error:
    /// whatever goes wrong is an outcome.
    pub async fn call(&self, mut call: Call, stop: CancellationToken) -> Outcome {
        if let Some(refusal) = refused_at_once(&call) {
            return refusal;
        }
        if let Some(own) = self.own.get(&call.tool) {
            let output_bytes =
                set_bounds(&mut call, own.tool.spec().timeout_ms, own.tool.spec().output_bytes);
            let work = |stop| own.call(&call, stop);
            return finished(bounded(&call, stop, work).await, output_bytes);
        }
        let Some(server) = call.tool.split_once('.').and_then(|(name, _)| self.servers.get(name)) else {
            return self.unknown_tool(&call);
        };
        let output_bytes = set_bounds(&mut call, server.config().timeout_ms, server.config().output_bytes);
        let work = |stop| server.call(&call, stop);
        finished(bounded(&call, stop, work).await, output_bytes)
    }

    fn unknown_tool(&self, call: &Call) -> Outcome {
        let own = self.own.keys().map(String::as_str);
        let servers = self.servers.keys().map(|name| format!("{name}.*"));
        let there: Vec<String> = own.map(str::to_string).chain(servers).collect();
        let name = output::head(&call.tool, ToolSpec::NAME_BYTES);
        let message = format!("There is no tool {name} on this node. There are: {}.", there.join(", "));
        finished(Outcome::refused(reason::TOOL_NOT_FOUND, message), MESSAGE_BYTES)
    }

    /// Ends the servers now; calls that run lose them.
    pub fn close(&self) {
        for server in self.servers.values() {
            server.close();
        }
    }
}

impl Drop for Toolbox {
    fn drop(&mut self) {
        self.close();
    }
}

impl Own {
    async fn call(&self, call: &Call, stop: CancellationToken) -> Outcome {
        match self.arguments.check(&call.arguments) {
            Ok(()) => self.tool.call(call, stop).await,
            Err(problem) => invalid_arguments(&call.tool, &problem),
        }
    }
}

pub(crate) fn invalid_arguments(tool: &str, problem: &str) -> Outcome {
    let message =
        format!("The arguments do not fit {tool}: {problem}. Correct them and call again; nothing was done.");
    Outcome::refused(reason::INVALID_ARGUMENTS, message)
}

fn not_found(pattern: &str, specs: &[ToolSpec]) -> SpecsError {
    let mut there: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    there.sort_unstable();
    SpecsError::NotFound { pattern: clean(output::head(pattern, 200)), there: there.join(", ") }
}

fn refused_at_once(call: &Call) -> Option<Outcome> {
    if !call.arguments.is_object() {
        return Some(invalid_arguments(
            output::head(&call.tool, ToolSpec::NAME_BYTES),
            "they are not a JSON object",
        ));
    }
    let bytes = call.arguments.to_string().len();
    (bytes > ToolSpec::ARGUMENTS_BYTES).then(|| {
        let problem = format!("they have {bytes} bytes, more than {}", ToolSpec::ARGUMENTS_BYTES);
        invalid_arguments(output::head(&call.tool, ToolSpec::NAME_BYTES), &problem)
    })
}

/// Fills in what the call leaves to the tool. Returns the bytes of output.
fn set_bounds(call: &mut Call, timeout_ms: u64, output_bytes: usize) -> usize {
    call.timeout_ms = Some(call.timeout_ms.unwrap_or(timeout_ms).min(ToolSpec::MAX_TIMEOUT_MS));
    let output_bytes = call.output_bytes.unwrap_or(output_bytes);
    let output_bytes = output_bytes.clamp(ToolSpec::MIN_OUTPUT_BYTES, ToolSpec::MAX_OUTPUT_BYTES);
    call.output_bytes = Some(output_bytes);
    output_bytes
}

/// Runs a call until it is done, stopped, or out of time. A call that breaks off gets a moment to say what it knows:
/// only that nothing happened, or what came of it, is believed.
async fn bounded<F>(
    call: &Call,
    stop: CancellationToken,
    work: impl FnOnce(CancellationToken) -> F,
) -> Outcome
where
    F: Future<Output = Outcome>,
{
    if stop.is_cancelled() {
        return Outcome::refused(
            reason::TOOL_STOPPED,
            format!("The call of {} was stopped before it began.", call.tool),
        );
    }
    let inner = CancellationToken::new();
    let time = Duration::from_millis(call.timeout_ms.unwrap_or(ToolSpec::DEFAULT_TIMEOUT_MS));
    let work =
        AssertUnwindSafe(work(inner.clone())).catch_unwind().map(|done| done.unwrap_or_else(|_| panicked()));
    let mut work = std::pin::pin!(work);
    let was_stopped = tokio::select! {
        biased;
        outcome = &mut work => return outcome,
        () = stop.cancelled() => true,
        () = tokio::time::sleep(time) => false,
    };
    inner.cancel();
    match tokio::time::timeout(Duration::from_millis(GRACE_MS), work).await {
        Ok(Outcome::Refused { message, .. }) if was_stopped => {
            Outcome::refused(reason::TOOL_STOPPED, message)
        }
        Ok(known @ (Outcome::Answered { .. } | Outcome::Refused { .. })) => known,
        Ok(Outcome::Unknown { .. }) | Err(_) => broken_off(call, was_stopped, time),
    }
}

fn broken_off(call: &Call, was_stopped: bool, time: Duration) -> Outcome {
    let next = "Whether it happened is not known: look before you call again.";
    if was_stopped {
        return Outcome::unknown(
            reason::TOOL_STOPPED,
            format!("The call of {} was stopped. {next}", call.tool),
        );
    }
    let message = format!("{} did not answer within {} ms. {next}", call.tool, time.as_millis());
    Outcome::unknown(reason::TOOL_TIMEOUT, message)
}

fn panicked() -> Outcome {
    Outcome::unknown(
        reason::TOOL_CRASHED,
        "The tool broke off by a mistake of its own. Whether it happened is not known.",
    )
}

/// What may be kept and shown.
fn finished(outcome: Outcome, output_bytes: usize) -> Outcome {
    let short = |message: String| output::fit(&message, MESSAGE_BYTES).0;
    match outcome {
        Outcome::Answered { text, is_error, cut_bytes } => {
            let (text, more) = output::fit(&text, output_bytes);
            Outcome::Answered { text, is_error, cut_bytes: cut_bytes + more }
        }
        Outcome::Refused { reason, message } => Outcome::Refused { reason, message: short(message) },
        Outcome::Unknown { reason, message } => Outcome::Unknown { reason, message: short(message) },
    }
}

#[cfg(test)]
#[path = "toolbox_test.rs"]
mod tests;
