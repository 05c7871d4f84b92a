//! The `[tools]` table of a node's configuration. Values are the operator's: whatever is not named here, no agent gets.

use crate::{Policy, ToolSpec};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// MCP servers by the name that becomes the first part of their tools' names.
    pub mcp: BTreeMap<String, McpConfig>,
    pub http: HttpConfig,
    pub files: FilesConfig,
}

/// One MCP server: a command that speaks over its standard input and output, or the address of a running one.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct McpConfig {
    pub command: Vec<String>,
    pub url: Option<String>,
    /// Variables of the command beside the few it gets anyway (`PATH`, `HOME`, `LANG`, `TMPDIR`, `USER`).
    pub env: Secrets,
    /// Names of variables that are handed on from the node's own environment.
    pub inherit_env: Vec<String>,
    /// Headers of every request to `url`.
    pub headers: Secrets,
    /// The variable of the node's environment that holds a bearer token for `url`.
    pub bearer_env: Option<String>,
    /// Where the command runs; the node's own folder when absent.
    pub folder: Option<PathBuf>,
    /// Patterns of the server's own names (`get_*`) that agents may use.
    pub allow: Vec<String>,
    /// The operator's word on repeating, over what the server says of its tools.
    pub policy: BTreeMap<String, Policy>,
    pub timeout_ms: u64,
    pub output_bytes: usize,
    /// Calls that run at once; more wait within their own time.
    pub concurrent: usize,
    /// How long a start and a listing may take.
    pub start_timeout_ms: u64,
    /// The longest message that is read from the server.
    pub message_bytes: usize,
    pub restart: RestartConfig,
}

/// How long a server that crashed or could not be started is left alone: doubling from `first_ms` to `most_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartConfig {
    pub first_ms: u64,
    pub most_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// `api.example.com` (ports 80 and 443), `host:port` (that one alone, private addresses too), `*.example.com`,
    /// `*` (every public host). Empty: there are no http tools.
    pub allow: Vec<String>,
    /// Addresses never to be reached, whatever `allow` says; the node's own public ones belong here.
    pub refuse: Vec<IpAddr>,
    pub timeout_ms: u64,
    pub output_bytes: usize,
    /// How much of a body is read.
    pub body_bytes: usize,
    pub concurrent: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesConfig {
    pub enabled: bool,
    pub timeout_ms: u64,
    pub output_bytes: usize,
    /// The largest file that is written or edited.
    pub file_bytes: usize,
    pub concurrent: usize,
}

/// Names and values of which the values are shown to nobody.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secrets(pub BTreeMap<String, String>);

/// What is wrong with a configuration, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    pub key: String,
    pub problem: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Arguments, addresses and values may hold keys: only names are shown.
impl std::fmt::Debug for McpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("McpConfig");
        shown.field("program", &self.command.first()).field("env", &self.env).field("headers", &self.headers);
        shown.field("allow", &self.allow).field("timeout_ms", &self.timeout_ms).finish_non_exhaustive()
    }
}

impl Default for McpConfig {
    fn default() -> Self {
        McpConfig {
            command: Vec::new(),
            url: None,
            env: Secrets::default(),
            inherit_env: Vec::new(),
            headers: Secrets::default(),
            bearer_env: None,
            folder: None,
            allow: vec!["*".into()],
            policy: BTreeMap::new(),
            timeout_ms: ToolSpec::DEFAULT_TIMEOUT_MS,
            output_bytes: ToolSpec::DEFAULT_OUTPUT_BYTES,
            concurrent: 8,
            start_timeout_ms: 30_000,
            message_bytes: 16 << 20,
            restart: RestartConfig::default(),
        }
    }
}

impl Default for RestartConfig {
    fn default() -> Self {
        RestartConfig { first_ms: 200, most_ms: 30_000 }
    }
}

impl RestartConfig {
    /// How long to wait after that many failures in a row, in ms.
    pub fn wait_ms(self, failures: u32) -> u64 {
        match failures {
            0 => 0,
            failures => (self.first_ms << (failures - 1).min(32)).min(self.most_ms),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            allow: Vec::new(),
            refuse: Vec::new(),
            timeout_ms: 30_000,
            output_bytes: ToolSpec::DEFAULT_OUTPUT_BYTES,
            body_bytes: 1 << 20,
            concurrent: 16,
        }
    }
}

impl Default for FilesConfig {
    fn default() -> Self {
        FilesConfig {
            enabled: true,
            timeout_ms: 10_000,
            output_bytes: ToolSpec::DEFAULT_OUTPUT_BYTES,
            file_bytes: 1 << 20,
            concurrent: 8,
        }
    }
}

/// Names that tools of the node itself begin with.
const RESERVED: &[&str] = &["http", "files", "shell", "memory", "agent", "task"];

impl Config {
    /// Finds what cannot work, before anything is started.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, server) in &self.mcp {
            check_server_name(name)?;
            server.check(name)?;
        }
        for entry in &self.http.allow {
            crate::http::Allowed::parse(entry).map_err(|problem| wrong("tools.http.allow", problem))?;
        }
        check_bounds("tools.http", self.http.timeout_ms, self.http.output_bytes, self.http.concurrent)?;
        check_bounds("tools.files", self.files.timeout_ms, self.files.output_bytes, self.files.concurrent)
    }
}

fn check_server_name(name: &str) -> Result<(), ConfigError> {
    let key = format!("tools.mcp.{name}");
    if RESERVED.contains(&name) {
        return Err(wrong(&key, "this name belongs to tools of the node itself; choose another"));
    }
    if !ToolSpec::is_name(name) || name.contains('.') || name.len() > 32 {
        return Err(wrong(&key, "a server's name is 1 to 32 letters, digits, - or _"));
    }
    Ok(())
}

impl McpConfig {
    fn check(&self, name: &str) -> Result<(), ConfigError> {
        let key = format!("tools.mcp.{name}");
        match (&self.command[..], &self.url) {
            ([], None) => {
                return Err(wrong(&key, "give a `command` to run or the `url` of a running server"));
            }
            ([], Some(url)) => check_url(&format!("{key}.url"), url)?,
            (_, Some(_)) => return Err(wrong(&key, "`command` and `url` exclude each other; keep one")),
            (_, None) => {}
        }
        if self.start_timeout_ms == 0 || self.message_bytes < 1024 {
            return Err(wrong(&key, "start_timeout_ms must be above 0 and message_bytes at least 1024"));
        }
        check_bounds(&key, self.timeout_ms, self.output_bytes, self.concurrent)
    }
}

/// Shorter values are no keys, and hiding them would spoil what is said.
const KEY_BYTES: usize = 8;

impl McpConfig {
    /// A message without what the operator gave this server to keep.
    pub(crate) fn hide(&self, mut message: String) -> String {
        for key in self.keys().filter(|key| key.len() >= KEY_BYTES) {
            if message.contains(key.as_str()) {
                message = message.replace(key.as_str(), "[hidden]");
            }
        }
        message
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        let query = self.url.iter().filter_map(|url| Some(url.split_once('?')?.1.to_string()));
        let written = self.env.0.values().chain(self.headers.0.values()).cloned();
        let named =
            self.inherit_env.iter().chain(&self.bearer_env).filter_map(|name| std::env::var(name).ok());
        query.chain(written).chain(named)
    }
}

fn check_url(key: &str, url: &str) -> Result<(), ConfigError> {
    let url = reqwest::Url::parse(url).map_err(|error| wrong(key, format!("not an address: {error}")))?;
    let clean = url.username().is_empty() && url.password().is_none();
    match url.scheme() {
        "http" | "https" if clean => Ok(()),
        "http" | "https" => {
            Err(wrong(key, "put credentials into bearer_env or headers, not into the address"))
        }
        _ => Err(wrong(key, "the address must begin with http:// or https://")),
    }
}

fn check_bounds(
    key: &str,
    timeout_ms: u64,
    output_bytes: usize,
    concurrent: usize,
) -> Result<(), ConfigError> {
    if timeout_ms == 0 || timeout_ms > ToolSpec::MAX_TIMEOUT_MS {
        return Err(wrong(key, format!("timeout_ms is 1 to {}", ToolSpec::MAX_TIMEOUT_MS)));
    }
    let (least, most) = (ToolSpec::MIN_OUTPUT_BYTES, ToolSpec::MAX_OUTPUT_BYTES);
    if !(least..=most).contains(&output_bytes) {
        return Err(wrong(key, format!("output_bytes is {least} to {most}")));
    }
    if concurrent == 0 || concurrent > 1024 {
        return Err(wrong(key, "concurrent is 1 to 1024"));
    }
    Ok(())
}

fn wrong(key: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError { key: key.into(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        toml::from_str(text).expect("TOML")
    }

    #[test]
    fn a_whole_table_is_read() {
        let config = parse(
            r#"
            [mcp.time]
            command = ["mcp-server-time", "--local-timezone", "UTC"]
            env = { TOKEN = "secret" }
            allow = ["get_current_time"]
            policy = { get_current_time = "ask" }
            timeout_ms = 5000
            restart = { first_ms = 50 }
            [http]
            allow = ["api.example.com", "127.0.0.1:8080"]
            [files]
            enabled = false
            "#,
        );
        assert_eq!(config.check(), Ok(()));
        let time = &config.mcp["time"];
        assert_eq!((time.timeout_ms, time.restart.first_ms, time.restart.most_ms), (5000, 50, 30_000));
        assert_eq!(time.policy["get_current_time"], Policy::Ask);
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (text, key) in [
            ("[mcp.http]\ncommand = ['x']", "tools.mcp.http"),
            ("[mcp.\"a.b\"]\ncommand = ['x']", "tools.mcp.a.b"),
            ("[mcp.a]", "tools.mcp.a"),
            ("[mcp.a]\ncommand = ['x']\nurl = 'http://h'", "tools.mcp.a"),
            ("[mcp.a]\nurl = 'http://user:word@h'", "tools.mcp.a.url"),
            ("[mcp.a]\nurl = 'ftp://h'", "tools.mcp.a.url"),
            ("[mcp.a]\ncommand = ['x']\ntimeout_ms = 0", "tools.mcp.a"),
            ("[http]\nallow = ['http://h/']", "tools.http.allow"),
            ("[files]\nconcurrent = 0", "tools.files"),
        ] {
            assert_eq!(parse(text).check().expect_err(text).key, key, "{text}");
        }
        assert!(toml::from_str::<Config>("[mcp.a]\ncomand = ['x']").is_err());
    }

    #[test]
    fn keys_are_in_no_message_and_no_debug_form() {
        let config = parse(
            "[mcp.a]\nurl = 'https://h/mcp?key=canary-in-query'\nheaders = { x-key = 'canary-in-header' }\n\
             [mcp.b]\ncommand = ['x', '--key=canary-in-argument']\nenv = { KEY = 'canary-in-env', SHORT = 'abc' }",
        );
        assert!(!format!("{config:?}").contains("canary"));
        let message = "lost https://h/mcp?key=canary-in-query after x-key: canary-in-header".to_string();
        assert!(!config.mcp["a"].hide(message).contains("canary"));
        let message = "login with canary-in-env failed: abc".to_string();
        assert_eq!(config.mcp["b"].hide(message), "login with [hidden] failed: abc");
    }

    #[test]
    fn waiting_doubles_up_to_its_bound() {
        let restart = RestartConfig { first_ms: 100, most_ms: 1000 };
        let waits: Vec<u64> = (0..7).map(|failures| restart.wait_ms(failures)).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(restart.wait_ms(u32::MAX), 1000);
    }
}
