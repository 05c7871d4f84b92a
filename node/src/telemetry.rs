//! Logs and metrics of one process.
//!
//! Logs go to standard error, for people or as JSON; their level changes while the process runs. No text of a
//! prompt or a reply is ever logged, at any level: only ids, counts and reasons. Metrics are kept for whoever
//! asks for `/metrics`; nothing is sent anywhere: traces are a room of their own. Read: this file, `names` (every metric).

pub mod names;

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat};
use names::Kind;

/// From half a millisecond, a good fsync, to ten seconds, a slow first token.
const SECONDS_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0];

/// Libraries that say little unless they are named in the level.
const QUIET: &str = "openraft=warn,sled=warn,h2=warn,hyper=warn,tonic=warn";

/// Why logging could not be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "the log level {level:?} is not understood ({why}); use error, warn, info, debug or trace, or directives like info,node::link=debug"
    )]
    Level { level: String, why: String },
    #[error("logging is started already; it can be started once in a process")]
    StartedTwice,
    #[error("the log level cannot be changed any more; the process is ending")]
    Gone,
}

/// Changes the level of a running log.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogHandle {
    /// Takes effect at once. On an error the old level stays.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        let filter = filter(level)?;
        self.filter.reload(filter).map_err(|_| TelemetryError::Gone)
    }
}

/// Starts logging to standard error. Once per process.
pub fn start(log: &Log) -> Result<LogHandle, TelemetryError> {
    let (subscriber, handle) = subscriber(log, std::io::stderr)?;
    subscriber.try_init().map_err(|_| TelemetryError::StartedTwice)?;
    Ok(handle)
}

type Subscriber = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(log: &Log, writer: W) -> Result<(Subscriber, LogHandle), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let lines = match log.format {
        LogFormat::Human => fmt::layer().with_ansi(false).with_writer(writer).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    Ok((Box::new(subscriber), LogHandle { filter: handle }))
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let refused = |why: String| TelemetryError::Level { level: level.to_string(), why };
    if level.trim().is_empty() {
        return Err(refused("it is empty".into()));
    }
    // A plain level is meant for our own rooms: the libraries below tell every heartbeat.
    let plain = matches!(level.trim(), "info" | "debug" | "trace");
    let directives = if plain { format!("{level},{QUIET}") } else { level.to_string() };
    EnvFilter::builder().parse(directives).map_err(|error| refused(error.to_string()))
}

/// Says why a log level is not understood.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    match filter(level) {
        Err(TelemetryError::Level { why, .. }) => Err(why),
        _ => Ok(()),
    }
}

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recorded samples together. Call it now and then (every few seconds), so that histograms do not
    /// grow while nobody asks for metrics.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Starts recording metrics in this process, at the first call, and answers where they are.
pub fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    let start = || {
        let recorder = recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("metrics are recorded elsewhere in this process; /metrics stays empty");
        }
        describe();
        Metrics { handle }
    };
    METRICS.get_or_init(start).clone()
}

fn recorder() -> PrometheusRecorder {
    let seconds = Matcher::Suffix("_seconds".into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, &SECONDS_BUCKETS);
    builder.expect("the buckets are not empty").build_recorder()
}

fn describe() {
    for metric in names::ALL {
        match metric.kind {
            Kind::Counter => {
                metrics::describe_counter!(metric.name, metric.help);
                // From the start on the page, so that its first rise is seen as one.
                if metric.labels.is_empty() {
                    metrics::counter!(metric.name).increment(0);
                }
            }
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn record(format: LogFormat, work: impl FnOnce(&LogHandle)) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let log = Log { level: "info".into(), format };
        let (subscriber, handle) = subscriber(&log, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || work(&handle));
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn the_level_changes_while_running_and_bad_ones_change_nothing() {
        let lines = record(LogFormat::Human, |handle| {
            tracing::debug!("hidden");
            handle.set_level("debug").unwrap();
            tracing::debug!("shown");
            let refused = handle.set_level("loud=x=y").unwrap_err().to_string();
            assert!(refused.contains("loud=x=y") && refused.contains("directives"), "{refused}");
            assert!(handle.set_level(" ").is_err());
            tracing::debug!("still shown");
        });
        assert!(
            !lines.contains("hidden") && lines.contains(" shown") && lines.contains("still shown"),
            "{lines}"
        );
    }

    #[test]
    fn json_lines_are_json() {
        let lines = record(LogFormat::Json, |_| tracing::info!(node = 7, "attached"));
        let line: serde_json::Value = serde_json::from_str(lines.trim()).unwrap();
        assert_eq!((line["message"].as_str(), line["node"].as_u64()), (Some("attached"), Some(7)));
    }

    #[test]
    fn metrics_come_out_with_their_help() {
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::counter!(names::FENCED_TOTAL, "kind" => "step").increment(3);
            metrics::histogram!(names::FSYNC_SECONDS, "what" => "segments").record(0.002);
        });
        let text = recorder.handle().render();
        for line in [
            "# HELP quorate_fenced_total Writes refused because their lease was no longer the task's",
            "# TYPE quorate_fenced_total counter",
            "quorate_fenced_total{kind=\"step\"} 3",
            "quorate_fsync_seconds_bucket{what=\"segments\",le=\"0.0025\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_process_has_one_recorder() {
        metrics();
        metrics::counter!(names::LINK_ATTACHES_TOTAL).increment(2);
        metrics().upkeep();
        assert!(metrics().render().contains("quorate_link_attaches_total"));
    }
}
