//! What a cluster costs when nothing happens.

use crate::support::*;
use anyhow::ensure;
use quorate_tests::{Cluster, until};
use std::time::Duration;
use tokio::time::Instant;

/// Long enough for everything that is done from time to time.
const WINDOW: Duration = Duration::from_secs(10);
/// Measured at the most so often.
const WINDOWS: usize = 4;
/// Of one core, in thousandths, all five processes together. Without optimisation everything costs several times
/// as much; `tests/prove.sh` measures the optimised binary.
const CPU_MILLI: u64 = if cfg!(debug_assertions) { 250 } else { 50 };
/// Of all five together, less mapped model files, repacked weights and KV. The code of a binary that is not optimised is
/// some 65 MiB and the same pages in all: there it counts once.
const RESIDENT_BYTES: u64 = 400 << 20;
/// Ticks of /proc/PID/stat in a second on Linux.
const TICKS: u64 = 100;

#[tokio::test]
async fn five_idle_processes_cost_little() -> anyhow::Result<()> {
    on_cluster(spec(&[reply("quick", "Understood.", "")]), async |cluster| {
        // Something was done before: caches are filled, connections are open.
        let client = cluster.client()?;
        apply(&client, &["quick"]).await?;
        let task = client.tasks().create("quick").input("x").send().await?;
        succeeded(&client, &task.uid).await?;
        drop(client);
        let cost = Cost::quietest(cluster).await?;
        figure("idle_cpu_milli", cost.cpu_milli);
        figure("idle_resident_mib", cost.resident_bytes >> 20);
        cost.check(0)
    })
    .await
}

pub(crate) struct Cost {
    pub(crate) cpu_milli: u64,
    pub(crate) resident_bytes: u64,
}

impl Cost {
    /// What else the machine does only adds: the quietest of a few windows is the cluster's own.
    pub(crate) async fn quietest(cluster: &Cluster) -> anyhow::Result<Cost> {
        let mut cost = Cost::of(cluster).await?;
        for _ in 1..WINDOWS {
            if cost.cpu_milli < CPU_MILLI {
                break;
            }
            let next = Cost::of(cluster).await?;
            cost.cpu_milli = cost.cpu_milli.min(next.cpu_milli);
        }
        Ok(cost)
    }

    /// Measures all processes of a cluster that nobody asks for anything.
    async fn of(cluster: &Cluster) -> anyhow::Result<Cost> {
        let (begun, before) = (Instant::now(), ticks(cluster)?);
        until("the end of the window", WINDOW * 2, async || (begun.elapsed() >= WINDOW).then_some(()))
            .await?;
        let took = begun.elapsed().as_millis() as u64;
        let mut cost = Cost { cpu_milli: 0, resident_bytes: 0 };
        for (node, before) in cluster.nodes.iter().zip(before) {
            let now = node.usage()?;
            let cpu_milli = (now.cpu_ticks - before) * 1_000_000 / TICKS / took;
            let resident_bytes = if cfg!(debug_assertions) { now.pss_bytes } else { now.rss_bytes };
            eprintln!("{}: {cpu_milli} thousandths of a core, {} MiB", node.name, resident_bytes >> 20);
            cost.cpu_milli += cpu_milli;
            cost.resident_bytes += resident_bytes;
        }
        Ok(cost)
    }

    /// `models` are bytes of the workers that the limit does not speak of.
    pub(crate) fn check(&self, models: u64) -> anyhow::Result<()> {
        let own = self.resident_bytes.saturating_sub(models);
        ensure!(
            own < RESIDENT_BYTES,
            "{} MiB resident, {} MiB less models and KV",
            self.resident_bytes >> 20,
            own >> 20
        );
        ensure!(self.cpu_milli < CPU_MILLI, "{} thousandths of a core in idleness", self.cpu_milli);
        Ok(())
    }
}

fn ticks(cluster: &Cluster) -> anyhow::Result<Vec<u64>> {
    cluster.nodes.iter().map(|node| Ok(node.usage()?.cpu_ticks)).collect()
}
