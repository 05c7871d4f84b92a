//! What tests of several files need.

use serde_json::Value;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};
use tools::{Call, CancellationToken, Config, Outcome, Toolbox};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn toolbox(toml: &str) -> Toolbox {
    let config: Config = toml::from_str(toml).expect("a configuration");
    Toolbox::new(&config).expect("a toolbox")
}

pub(crate) fn call(tool: &str, arguments: Value, folder: &Path) -> Call {
    Call {
        operation: "t_0000000001k00000/3/0".into(),
        attempt: 0,
        project: types::ProjectName::default(),
        tool: tool.into(),
        arguments,
        timeout_ms: None,
        output_bytes: None,
        folder: folder.into(),
    }
}

pub(crate) async fn made(toolbox: &Toolbox, call: Call) -> Outcome {
    toolbox.call(call, CancellationToken::new()).await
}

/// The text of an answer that is no error.
pub(crate) fn said(outcome: Outcome) -> String {
    match outcome {
        Outcome::Answered { text, is_error: false, .. } => text,
        other => panic!("not an answer: {other:?}"),
    }
}

pub(crate) fn failed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Answered { text, is_error: true, .. } => text,
        other => panic!("not an answered error: {other:?}"),
    }
}

pub(crate) fn refused(outcome: Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Refused { reason, message } => (reason, message),
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn unknown(outcome: Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Unknown { reason, message } => (reason, message),
        other => panic!("not unknown: {other:?}"),
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    while !is_so() {
        assert!(Instant::now() < give_up, "waited in vain for: {what}");
        ticks.tick().await;
    }
}

/// Within the time that any honest machine needs.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for: {what}"))
}

/// Whether a process runs: a zombie does not.
pub(crate) fn runs(process_id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}
