//! Runs a node until it is told to stop: SIGTERM and SIGINT stop it in order, SIGHUP reads the log level,
//! certificates and API keys again.

use super::home;
use crate::config::{Config, ConfigError, Exposure, INSECURE_BANNER, LogFormat, Role};
use crate::node::{Node, StartOptions};
use crate::security::Security;
use crate::telemetry::{self, LogHandle};
use anyhow::Context;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The model of `dev` where nobody names one.
const DEV_MODEL: &str = "smollm2";
/// How often recorded histograms are folded together.
const UPKEEP: std::time::Duration = std::time::Duration::from_secs(5);

pub struct DevOptions {
    /// Keep nothing: the data goes with the process.
    pub ephemeral: bool,
    /// A pulled model, or a GGUF file.
    pub model: String,
    pub data: Option<PathBuf>,
}

/// Runs a node from its configuration file.
pub fn start(file: &Path, insecure: bool) -> anyhow::Result<()> {
    super::up::live_with_parent()?;
    let exposure = if insecure { Exposure::Insecure } else { Exposure::LoopbackOnly };
    let config = Config::load(file, exposure)?;
    if insecure {
        eprintln!("{INSECURE_BANNER}");
    }
    serve(config, StartOptions { found: false, insecure }, Some((file.to_path_buf(), exposure)))
}

/// Runs a whole cluster in one process: one voter that is also the worker, one copy of everything.
pub fn dev(options: DevOptions) -> anyhow::Result<()> {
    let kept = options.data.map_or_else(|| home().map(|home| home.join("dev")), Ok)?;
    let ephemeral = options.ephemeral.then(|| Ephemeral::make(&kept)).transpose()?;
    let folder = ephemeral.as_ref().map_or(kept, |folder| folder.0.clone());
    let model = model_name(&options.model)?;
    let mut config = Config::parse("dev", &dev_config(&folder, &model), Exposure::LoopbackOnly)?;
    config.log.format = LogFormat::Human;
    eprintln!(
        "quorate dev: clients at {}, model {model}, data in {}",
        config.listen.clients,
        folder.display()
    );
    eprintln!(
        "try: quorate agent apply -f examples/agents/reader.toml && quorate run --agent reader --input \"…\""
    );
    serve(config, StartOptions { found: true, insecure: false }, None)
}

/// The name under which agents call the model; a file is taken in first.
fn model_name(model: &str) -> anyhow::Result<String> {
    let models = super::models()?;
    if models.resolve(model).is_ok() || !Path::new(model).exists() {
        return Ok(models.resolve(model).map(|file| file.name)?);
    }
    Ok(models.pull(model, &crate::models::Silent)?.name)
}

/// What `dev` starts without options.
pub(super) fn config_of_dev(folder: &Path) -> Result<Config, ConfigError> {
    Config::parse("dev", &dev_config(folder, DEV_MODEL), Exposure::LoopbackOnly)
}

fn dev_config(folder: &Path, model: &str) -> String {
    let data = toml::Value::String(folder.display().to_string());
    let model = toml::Value::String(model.to_string());
    format!(
        "name = \"dev\"\nroles = [\"coordinator\", \"worker\"]\ndata_dir = {data}\n[engine]\nmodels = [{model}]\n"
    )
}

/// A folder that goes with the process. A killed process leaves it to the next cleaning of the temporary folder.
struct Ephemeral(PathBuf);

impl Ephemeral {
    fn make(kept: &Path) -> anyhow::Result<Self> {
        let base = std::env::temp_dir();
        let folder = base.join(format!("quorate-dev-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| {
            format!("making {} (without --ephemeral data goes to {})", folder.display(), kept.display())
        })?;
        Ok(Ephemeral(folder))
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn serve(
    mut config: Config,
    options: StartOptions,
    reload: Option<(PathBuf, Exposure)>,
) -> anyhow::Result<()> {
    let log = telemetry::start(&config.log)?;
    config.traces = config.traces.or_of_environment(
        std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok(),
        std::env::var("OTEL_EXPORTER_OTLP_CERTIFICATE").ok(),
    );
    if config.roles.contains(&Role::Worker) {
        super::sandbox::log_what_holds();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("node").build()?;
    let served = runtime.block_on(async move {
        let stop = CancellationToken::new();
        let metrics = telemetry::metrics();
        let security = Security::load(&config)?;
        let reload = reload.map(|(file, exposure)| Reload { file, exposure, security: security.clone() });
        listen_to_signals(stop.clone(), log, reload)?;
        tokio::spawn(upkeep(metrics.clone()));
        let node = Node::start(config, options, security, metrics, stop.clone()).await;
        match node {
            Ok(node) => node.run().await,
            // Told to stop on the way up: that is an end as it should be.
            Err(_) if stop.is_cancelled() => Ok(()),
            Err(error) => Err(error),
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    served
}

pub(super) async fn upkeep(metrics: telemetry::Metrics) {
    let mut tick = tokio::time::interval(UPKEEP);
    loop {
        tick.tick().await;
        metrics.upkeep();
    }
}

/// What SIGHUP reads again.
pub(super) struct Reload {
    file: PathBuf,
    exposure: Exposure,
    security: Security,
}

pub(super) fn listen_to_signals(
    stop: CancellationToken,
    log: LogHandle,
    reload: Option<Reload>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => if let Some(reload) = &reload {
                    reload_log(&log, reload);
                    reload.security.reload();
                },
            }
        }
        stop.cancel();
    });
    Ok(())
}

fn reload_log(log: &LogHandle, source: &Reload) {
    match Config::load(&source.file, source.exposure) {
        Ok(config) => match log.set_level(&config.log.level) {
            Ok(()) => tracing::info!(
                level = config.log.level,
                "log level read again; other settings need a restart"
            ),
            Err(error) => tracing::error!(%error, "the log level stays as it was"),
        },
        Err(error) => tracing::error!(%error, "the configuration cannot be read again; nothing changes"),
    }
}
