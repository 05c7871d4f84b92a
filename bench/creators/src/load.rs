//! Many clients, each with one call under way at a time.

use futures::future::BoxFuture;
use std::time::{Duration, Instant};

/// Makes one call; the number is never given twice.
pub(crate) type Call = Box<dyn Fn(u64) -> BoxFuture<'static, Result<(), tonic::Status>> + Send>;

/// Calls before this are not counted.
const WARM: Duration = Duration::from_millis(500);

/// What one turn measured.
pub(crate) struct Figures {
    /// Acknowledged, the uncounted ones of the beginning too.
    pub(crate) all: u64,
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    p90_ms: f64,
    pub(crate) p99_ms: f64,
    max_ms: f64,
    errors: u64,
}

impl Figures {
    pub(crate) fn row(&self) -> String {
        let Figures { rate, p50_ms, p90_ms, p99_ms, max_ms, errors, .. } = self;
        format!("{rate:>5.0}  {p50_ms:>6.2}  {p90_ms:>6.2}  {p99_ms:>6.2}  {max_ms:>6.1}  {errors:>6}")
    }
}

pub(crate) async fn run(clients: usize, seconds: f64, calls: Vec<Call>) -> anyhow::Result<Figures> {
    anyhow::ensure!(calls.len() == clients, "a call for each client");
    let counted = Instant::now() + WARM;
    let end = counted + Duration::from_secs_f64(seconds);
    let clients = calls.into_iter().enumerate().map(|(client, call)| {
        tokio::spawn(async move {
            let (mut micros, mut all, mut errors) = (Vec::new(), 0u64, 0u64);
            loop {
                let begun = Instant::now();
                if begun >= end {
                    return (micros, all, errors);
                }
                match call(((client as u64) << 32) | (all + errors)).await {
                    Ok(()) => all += 1,
                    Err(_) => errors += 1,
                }
                if begun >= counted {
                    micros.push(begun.elapsed().as_micros() as u64);
                }
            }
        })
    });
    let (mut micros, mut all, mut errors) = (Vec::new(), 0, 0);
    for done in futures::future::try_join_all(clients).await? {
        micros.extend(done.0);
        all += done.1;
        errors += done.2;
    }
    micros.sort_unstable();
    let at = |share: f64| {
        let index = ((micros.len().max(1) - 1) as f64 * share) as usize;
        micros.get(index).map_or(f64::NAN, |micros| *micros as f64 / 1000.0)
    };
    Ok(Figures {
        all,
        rate: micros.len() as f64 / seconds,
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        max_ms: at(1.0),
        errors,
    })
}

/// As many connections as are worth it: one carries only so many calls.
pub(crate) fn connections(clients: usize) -> usize {
    clients.clamp(1, 4)
}
