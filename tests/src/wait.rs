//! Waiting for a condition, with a deadline and a name for what did not happen.

use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, interval};

/// Asks until the answer is `Some`; an error names what was waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    let mut tick = interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        anyhow::ensure!(Instant::now() < deadline, "{what} did not happen within {patience:?}");
    }
}
