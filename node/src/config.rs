//! The configuration file: one struct a section, every default in one text, checked once.
//!
//! Nothing here reads the environment or starts anything: after `validate` the values are handed down as plain
//! values. An unknown key is an error, because a misspelt one would otherwise be silently without effect.
//!
//! Read: this file, `check` (the rules between values), `error`.

mod check;
mod error;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ::config::{Config as Layers, File, FileFormat};
use serde::Deserialize;

pub(crate) use check::{collector, is_name};
pub use error::ConfigError;

/// Every default, as the file would say it. `name`, `roles` and `data_dir` have none: they must be chosen.
pub const DEFAULTS: &str = r#"
join = []
provider = []

[listen]
clients = "127.0.0.1:7400"
internal = "127.0.0.1:7401"
http = "127.0.0.1:7480"

[advertise]

[worker]
slots = 8

[engine]
models = ["smollm2"]
kv_bytes = 268435456
host_kv_bytes = 268435456
disk_kv_bytes = 0
kv_copies = 0
speculation = "auto"
threads = 0
evaluate_percent = 0

[tools]

[timings]
heartbeat_ms = 100
election_ms = 400
lease_ms = 3000
renew_ms = 500

[queue]
strategy = "llm"

[log]
level = "info"
format = "human"
"#;

/// Printed by whoever starts a node with [`Exposure::Insecure`].
pub const INSECURE_BANNER: &str = "\
**********************************************************************
  --insecure: this node listens beyond this machine WITHOUT encryption
  and WITHOUT authentication. Whoever reaches its ports can read every
  prompt and run tasks at your expense. Use it in a closed network only.
**********************************************************************";

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unique in the cluster, and kept for the life of the data folder.
    pub name: String,
    pub roles: Vec<Role>,
    /// Everything this node keeps.
    pub data_dir: PathBuf,
    /// Where models are; `models` under the data home of Quorate when absent.
    pub models_dir: Option<PathBuf>,
    /// Certificates; without them everything is in clear.
    pub tls: Option<TlsFiles>,
    /// The file of API keys; without it callers of this machine are admins.
    pub keys: Option<PathBuf>,
    /// Internal addresses of nodes that are members already. Empty for the first node.
    pub join: Vec<String>,
    pub listen: Listen,
    pub advertise: Advertise,
    pub worker: Worker,
    pub engine: Engine,
    pub provider: Vec<Provider>,
    pub tools: Tools,
    #[serde(default)]
    pub memory: Memory,
    #[serde(default)]
    pub context: Context,
    pub timings: Timings,
    pub queue: Queue,
    pub log: Log,
    #[serde(default)]
    pub traces: Traces,
}

/// Lets an enum be written as a word, with an error that names the words.
macro_rules! words {
    ($name:ident { $($word:literal => $variant:ident),* }) => {
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(word: String) -> Result<Self, String> {
                match word.as_str() {
                    $($word => Ok($name::$variant),)*
                    _ => Err(format!("{word:?} is not one of {:?}", [$($word),*])),
                }
            }
        }
    };
}
words!(Role { "coordinator" => Coordinator, "worker" => Worker });
words!(Strategy { "llm" => Llm, "compute" => Compute, "api" => Api, "storage" => Storage });
words!(Speculation { "auto" => Auto, "off" => Off });
words!(LogFormat { "human" => Human, "json" => Json });

/// What a node does. Every node keeps segments and answers clients, whatever its roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub enum Role {
    /// Votes, and may lead.
    Coordinator,
    /// Runs agents and models.
    Worker,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
        }
    }
}

/// Addresses to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Clients and administrators, gRPC.
    pub clients: SocketAddr,
    /// Other nodes.
    pub internal: SocketAddr,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub http: SocketAddr,
}

/// Files in PEM form.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The cluster's CA, or several.
    pub ca: PathBuf,
    /// This node's certificate.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Addresses that others are told, as `host:port`, where they differ from those listened on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advertise {
    pub clients: Option<String>,
    pub internal: Option<String>,
}

/// The worker's part.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Tasks that may run here at the same time.
    pub slots: u32,
}

/// The local engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Names of models to serve, as `model list` shows them.
    pub models: Vec<String>,
    /// Memory for the KV cache of each model, taken when first used.
    pub kv_bytes: u64,
    /// Memory of each model for blocks that left its KV cache; 0: none.
    pub host_kv_bytes: u64,
    /// Bytes on disk of each model for KV blocks, found again after a restart; 0: none.
    pub disk_kv_bytes: u64,
    /// 1: KV blocks of tasks follow their segments to a node with the same model; 0: none.
    pub kv_copies: u8,
    /// Whether tokens are guessed from the context and from past answers, and run before they are known: `auto`, where
    /// it is quicker, or `off`. Answers are the same.
    pub speculation: Speculation,
    /// Compute threads; 0 means: chosen from the cores.
    pub threads: u32,
    /// So many of a hundred steps are evaluated behind all other work, into metrics; 0: none.
    pub evaluate_percent: u8,
}

/// Whether tokens are guessed and run before they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Speculation {
    Auto,
    Off,
}

impl From<Speculation> for worker_inference::Speculation {
    fn from(speculation: Speculation) -> Self {
        match speculation {
            Speculation::Auto => Self::Auto,
            Speculation::Off => Self::Off,
        }
    }
}

/// A model that is not computed here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub enum Provider {
    /// Replies from a TOML file: for tests of agents.
    Scripted(Script),
    /// A server that speaks OpenAI's API, or Anthropic.
    Remote(Box<providers::Endpoint>),
}

/// A scripted model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The model's name for agents.
    pub name: String,
    /// Always `scripted`.
    pub kind: String,
    pub file: PathBuf,
}

impl Provider {
    /// The model's name for agents.
    pub fn name(&self) -> &String {
        match self {
            Provider::Scripted(script) => &script.name,
            Provider::Remote(endpoint) => &endpoint.name,
        }
    }
}

impl TryFrom<serde_json::Value> for Provider {
    type Error = String;

    fn try_from(table: serde_json::Value) -> Result<Self, String> {
        let kind = table.get("kind").and_then(serde_json::Value::as_str).unwrap_or_default();
        let read = match kind {
            "scripted" => serde_json::from_value(table).map(Provider::Scripted),
            "openai" | "anthropic" => serde_json::from_value(table).map(Box::new).map(Provider::Remote),
            "" => return Err("missing field `kind`".to_string()),
            other => {
                return Err(format!("{other:?} is not one of [\"scripted\", \"openai\", \"anthropic\"]"));
            }
        };
        read.map_err(|error| error.to_string())
    }
}

/// What agents can call here. Nothing that is not named here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tools {
    /// Servers of the Model Context Protocol, by the name that stands before their tools' names.
    pub mcp: BTreeMap<String, ::tools::config::McpConfig>,
    pub http: ::tools::config::HttpConfig,
    pub files: ::tools::config::FilesConfig,
    pub shell: Shell,
}

/// What agents remember.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// The folder of the encoder, as `make encoder` leaves it; without it memories are searched by words alone.
    pub encoder: Option<PathBuf>,
}

/// Segments between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Context {
    /// What this node moves over one link, with all transfers that it begins there; 0: no bound.
    pub link_bytes_second: u64,
    /// A node that is away for so long is taken for lost: what it kept is brought to another store.
    pub repair_after_ms: u64,
    /// What nothing names for so long is deleted here; 0: nothing is.
    pub sweep_after_ms: u64,
}

impl Default for Context {
    fn default() -> Self {
        Context { link_bytes_second: 0, repair_after_ms: 60_000, sweep_after_ms: 3_600_000 }
    }
}

/// The tool `shell`: commands in a sandbox, in the task's own folder, without a network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shell {
    pub enabled: bool,
    /// What the sandbox has to enforce: `full`, `partial` or `none`.
    pub require: String,
    pub timeout_ms: u64,
    /// The most for each command; an agent's `[needs]` may say less.
    pub cpu_milli: u32,
    pub memory_bytes: u64,
    pub pids: u32,
    pub disk_bytes: u64,
    pub output_bytes: usize,
}

impl Default for Shell {
    fn default() -> Self {
        let limits = sandbox::Limits::default();
        Shell {
            enabled: false,
            require: "partial".into(),
            timeout_ms: limits.wall_ms,
            cpu_milli: limits.cpu_milli,
            memory_bytes: limits.memory_bytes,
            pids: limits.pids,
            disk_bytes: limits.disk_bytes,
            output_bytes: limits.output_bytes,
        }
    }
}

/// How fast failures are noticed. The same on every node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timings {
    /// From leader to followers.
    pub heartbeat_ms: u64,
    /// The shortest wait of a follower before it asks for votes; the longest is half as much again.
    pub election_ms: u64,
    /// A node that is not heard of for so long loses its tasks.
    pub lease_ms: u64,
    /// How often a node renews its lease.
    pub renew_ms: u64,
}

/// How a leader gives out places. The same on every coordinator, or the way changes with the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub strategy: Strategy,
}

/// What the cluster is short of: so projects take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Strategy {
    Llm,
    Compute,
    Api,
    Storage,
}

/// What is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives like `info,node::link=debug`.
    pub level: String,
    pub format: LogFormat,
}

/// Where traces of tasks go; nowhere by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// The collector's address for OTLP over gRPC, such as `http://127.0.0.1:4317`. The same on every node; without
    /// it `OTEL_EXPORTER_OTLP_ENDPOINT` of the environment counts.
    pub otlp_endpoint: Option<String>,
    /// Certificates in PEM form by which a collector at `https://` is known, such as
    /// `/etc/ssl/certs/ca-certificates.crt`. Without it `OTEL_EXPORTER_OTLP_CERTIFICATE` counts.
    pub otlp_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One object a line.
    Json,
}

/// Whether listening beyond this machine without TLS is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    LoopbackOnly,
    /// The user said `--insecure`; print [`INSECURE_BANNER`].
    Insecure,
}

impl Traces {
    /// Where the file names no collector, the one of the environment, if it can be used: those variables may be meant
    /// for others.
    pub(crate) fn or_of_environment(self, endpoint: Option<String>, ca: Option<String>) -> Traces {
        let given = |text: &String| !text.is_empty();
        let Some(endpoint) = endpoint.filter(given).filter(|_| self.otlp_endpoint.is_none()) else {
            return self;
        };
        let otlp_ca = self.otlp_ca.clone().or(ca.filter(given).map(PathBuf::from));
        let theirs = Traces { otlp_endpoint: Some(endpoint), otlp_ca };
        match collector(&theirs) {
            Ok(_) => theirs,
            Err(error) => {
                tracing::warn!(%error, "OTEL_EXPORTER_OTLP_ENDPOINT of the environment is left aside; there are no traces");
                self
            }
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(file: &Path, exposure: Exposure) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|cause| ConfigError::Unreadable { file: file.to_path_buf(), cause })?;
        let config = Config::parse(&file.display().to_string(), &text, exposure)?;
        Ok(config.relative_to(file.parent().unwrap_or(Path::new(""))))
    }

    /// Reads and checks a text. `origin` names it in errors.
    pub fn parse(origin: &str, text: &str, exposure: Exposure) -> Result<Config, ConfigError> {
        let layers = Layers::builder()
            .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
            .add_source(File::from_str(text, FileFormat::Toml))
            .build()
            .map_err(|cause| error::explain(origin, text, cause))?;
        let config: Config = layers.try_deserialize().map_err(|cause| error::explain(origin, text, cause))?;
        config.validate(exposure)?;
        Ok(config)
    }

    /// Checks what the types cannot. Called by `load` and `parse`, and by whoever builds a configuration.
    pub fn validate(&self, exposure: Exposure) -> Result<(), ConfigError> {
        check::check(self, exposure)
    }

    /// A path in a file is meant from the file's folder.
    fn relative_to(mut self, folder: &Path) -> Config {
        self.data_dir = folder.join(&self.data_dir);
        self.models_dir = self.models_dir.map(|dir| folder.join(dir));
        self.memory.encoder = self.memory.encoder.map(|dir| folder.join(dir));
        self.keys = self.keys.map(|file| folder.join(file));
        self.traces.otlp_ca = self.traces.otlp_ca.map(|file| folder.join(file));
        if let Some(tls) = &mut self.tls {
            for file in [&mut tls.ca, &mut tls.cert, &mut tls.key] {
                *file = folder.join(&*file);
            }
        }
        for provider in &mut self.provider {
            match provider {
                Provider::Scripted(script) => script.file = folder.join(&script.file),
                Provider::Remote(endpoint) => endpoint.relative_to(folder),
            }
        }
        self
    }

    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// What others are told for clients.
    pub fn client_address(&self) -> String {
        self.advertise.clients.clone().unwrap_or_else(|| self.listen.clients.to_string())
    }

    /// What other nodes are told.
    pub fn internal_address(&self) -> String {
        self.advertise.internal.clone().unwrap_or_else(|| self.listen.internal.to_string())
    }
}

/// The folder of models and of `dev` data: `QUORATE_HOME`, or `quorate` in the user's data folder. The
/// environment is an argument.
pub fn home(env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, ConfigError> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("QUORATE_HOME")
        .or_else(|| Some(set("XDG_DATA_HOME").filter(|dir| dir.is_absolute())?.join("quorate")))
        .or_else(|| Some(set("HOME")?.join(".local/share/quorate")))
        .ok_or(ConfigError::NoHome)
}

/// Where models are when the configuration does not say.
pub fn models_dir(home: &Path) -> PathBuf {
    home.join("models")
}

#[cfg(test)]
mod tests;
