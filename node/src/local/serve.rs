//! `engine serve`: the OpenAI face alone, on this machine, without a cluster.

use super::daemon::{listen_to_signals, upkeep};
use super::model_path;
use crate::config::{INSECURE_BANNER, Log, LogFormat, Speculation};
use crate::engine_thread::real::LoadedModel;
use crate::openai::{self, Bounds, Face};
use crate::telemetry;
use anyhow::{Context, bail, ensure};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use worker_inference::{DiskKv, EngineConfig};

/// Sequences that wait inside an engine. The face lets fewer in.
const WAITING: usize = 1024;

/// What the disk tier may write a second: nothing else waits for this disk.
const DISK_KV_BYTES_S: u64 = 256 << 20;

pub struct ServeOptions {
    /// Pulled models, or GGUF files.
    pub models: Vec<String>,
    pub listen: SocketAddr,
    /// Compute threads of each model; 0 means all cores.
    pub threads: usize,
    pub kv_bytes: usize,
    /// Memory of each model for KV that left the cache.
    pub host_kv_bytes: u64,
    /// A folder for KV that left memory, and its bytes for each model.
    pub disk_kv: Option<(PathBuf, u64)>,
    /// Whether tokens are guessed and run before they are known.
    pub speculation: Speculation,
    /// Sequences of each model that run at the same time.
    pub running: usize,
    /// Listen beyond this machine.
    pub insecure: bool,
}

/// Serves until SIGTERM or SIGINT, then lets what runs come to its end.
pub fn engine_serve(options: ServeOptions) -> anyhow::Result<()> {
    if !options.listen.ip().is_loopback() && !options.insecure {
        bail!(
            "{} can be reached from other machines, and this server asks for no keys; listen at 127.0.0.1, or say \
             --insecure in a closed network",
            options.listen
        );
    }
    if options.insecure {
        eprintln!("{INSECURE_BANNER}");
    }
    let log = telemetry::start(&Log { level: "warn".into(), format: LogFormat::Human })?;
    let metrics = telemetry::metrics();
    let models = load(&options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("face").build()?;
    let served = runtime.block_on(async {
        let stop = CancellationToken::new();
        listen_to_signals(stop.clone(), log, None)?;
        tokio::spawn(upkeep(metrics.clone()));
        let listener = TcpListener::bind(options.listen).await;
        let listener = listener.with_context(|| format!("listening at {}", options.listen))?;
        let address = listener.local_addr()?;
        let face = Face::new(models, Bounds::default(), metrics);
        eprintln!(
            "serving OpenAI's API at http://{address}/v1 (also /health and /metrics); stop with Ctrl-C"
        );
        openai::serve(listener, face, stop).await;
        Ok(())
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    served
}

fn load(options: &ServeOptions) -> anyhow::Result<Vec<LoadedModel>> {
    ensure!(!options.models.is_empty(), "no model is named; give one with -m");
    let mut names = BTreeSet::new();
    let one = |model: &String| {
        let name = name_of(model);
        ensure!(names.insert(name.clone()), "two models have the name {name:?}; rename one of the files");
        let loaded = LoadedModel::load(&name, &model_path(model)?, config(options, &name))?;
        state(&loaded);
        Ok(loaded)
    };
    options.models.iter().map(one).collect()
}

/// The name that clients use: of the pulled model, or of the file without its ending.
fn name_of(model: &str) -> String {
    let stem = Path::new(model).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    match Path::new(model).extension().is_some_and(|end| end == "gguf") {
        true => stem.unwrap_or_else(|| model.to_owned()),
        false => Path::new(model)
            .file_name()
            .map_or_else(|| model.to_owned(), |name| name.to_string_lossy().into_owned()),
    }
}

fn config(options: &ServeOptions, model: &str) -> EngineConfig {
    let defaults = EngineConfig::default();
    EngineConfig {
        kv_bytes: options.kv_bytes,
        host_kv_bytes: options.host_kv_bytes,
        disk_kv: options.disk_kv.as_ref().map(|(folder, bytes)| DiskKv {
            folder: folder.join(model),
            bytes: *bytes,
            bytes_s: DISK_KV_BYTES_S,
        }),
        speculation: options.speculation.into(),
        threads: options.threads,
        isa: std::env::var("QUORATE_KERNELS").ok(),
        running: options.running,
        waiting: WAITING,
        step_tokens: defaults.step_tokens.max(options.running + 16),
        ..defaults
    }
}

/// Says in plain words what was loaded and which kernels run it, and why.
fn state(model: &LoadedModel) {
    let info = &model.info;
    let threads = if info.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", info.threads) };
    eprintln!(
        "model {}: {}, {} tokens, window {}, KV room for {} tokens",
        model.name,
        info.architecture,
        info.vocab,
        model.window(),
        info.kv_blocks * 16,
    );
    eprintln!("kernels {} on {threads}: {}", info.isa, why(&info.isa));
}

fn why(isa: &str) -> String {
    let here = worker_inference::kernels_here().join(", ");
    match std::env::var("QUORATE_KERNELS") {
        Ok(_) => format!("QUORATE_KERNELS={isa} is set (this processor can run {here})"),
        Err(_) => {
            format!("the best of those that this processor can run ({here}); QUORATE_KERNELS names another")
        }
    }
}
