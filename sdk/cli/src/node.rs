//! `node list|get|cordon|uncordon|drain|remove`.

use crate::failure::{Exit, Failure};
use crate::output::{Out, bytes, fields, table};
use crate::values;
use quorate_sdk::Client;
use quorate_sdk::data::{Device, Engine, Gpu, Node};
use std::time::Duration;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// All members of the cluster
    List,
    /// One member
    Get {
        /// Id like n7, or its name
        node: String,
    },
    /// Give a node nothing new; what runs there goes on
    Cordon(Close),
    /// Take a cordon or a drain back
    Uncordon(Close),
    /// Give a node nothing new, and move its tasks at their next step
    Drain {
        #[command(flatten)]
        close: Close,
        /// Move tasks in the middle of a step after this time
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
        grace: Duration,
    },
    /// Take a worker that is lost for good out of the cluster; refused while it is attached or has leases
    Remove(crate::cluster::Leaving),
}

#[derive(clap::Args, Debug)]
pub struct Close {
    /// Id like n7, or its name
    node: String,
    /// Why, for whoever reads it later
    #[arg(long, default_value = "")]
    reason: String,
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    match command {
        Command::List => out.many(&client.cluster().nodes().await?, list_table)?,
        Command::Get { node } => out.one(&client.cluster().node(&node).await?, in_full)?,
        Command::Cordon(it) => {
            let change = client.cluster().cordon(&it.node).reason(it.reason);
            out.one(&change.send().await?, in_full)?;
        }
        Command::Uncordon(it) => {
            let change = client.cluster().uncordon(&it.node).reason(it.reason);
            out.one(&change.send().await?, in_full)?;
        }
        Command::Drain { close, grace } => {
            let change = client.cluster().drain(&close.node).reason(close.reason);
            let change = change.grace_ms(grace.as_millis() as u64);
            out.one(&change.send().await?, in_full)?;
        }
        Command::Remove(it) => {
            let status = client.cluster().remove_node(&it.node, &it.reason).await?;
            out.one(&status, crate::cluster::in_full)?;
        }
    }
    Ok(Exit::Ok)
}

pub(crate) fn list_table(nodes: &[Node]) -> String {
    let row = |node: &Node| {
        let models: Vec<&str> = node.engines.iter().map(|engine| engine.model.as_str()).collect();
        vec![
            node.id.clone(),
            node.name.clone(),
            node.state.clone(),
            node.roles.join(","),
            format!("{}/{}", node.running, node.slots),
            models.join(","),
            format!("{}/{}", node.kv.blocks_used, node.kv.blocks),
            node.fenced_commits.to_string(),
            node.client_addr.clone(),
        ]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    table(&["ID", "NAME", "STATE", "ROLES", "RUNNING", "MODELS", "KV BLOCKS", "FENCED", "ADDRESS"], &rows)
}

pub(crate) fn in_full(node: &Node) -> String {
    let mut shown = vec![
        ("id", node.id.clone()),
        ("name", node.name.clone()),
        ("state", node.state.clone()),
        ("roles", node.roles.join(", ")),
        ("clients", node.client_addr.clone()),
        ("internal", node.internal_addr.clone()),
        ("version", node.version.clone()),
        ("running", format!("{} of {} slots", node.running, node.slots)),
        ("fenced commits", node.fenced_commits.to_string()),
        ("copies", node.copies.to_string()),
        ("segments", format!("{} ({})", node.segments, bytes(node.segment_bytes))),
        ("context received", bytes(node.context_bytes_received)),
        ("context sent", bytes(node.context_bytes_sent)),
        ("instead of", bytes(node.context_bytes_full)),
    ];
    shown.extend(device(&node.device));
    let mut text = fields(&shown);
    if !node.engines.is_empty() {
        text += &engines(&node.engines);
    }
    text
}

fn device(device: &Device) -> [(&'static str, String); 7] {
    let size = |count: Option<u64>| count.map(bytes).unwrap_or_default();
    let share = |milli: Option<u32>| milli.map(|m| format!("{}.{} %", m / 10, m % 10)).unwrap_or_default();
    let gpus: Vec<String> = device.gpus.iter().map(gpu).collect();
    [
        ("cpus", crate::output::or_empty(&device.cpus)),
        ("memory", size(device.memory_bytes)),
        ("memory free", size(device.memory_free_bytes)),
        ("process", size(device.rss_bytes)),
        ("cpu pressure", share(device.cpu_pressure_milli)),
        ("memory pressure", share(device.memory_pressure_milli)),
        ("gpus", gpus.join("; ")),
    ]
}

/// Its name, and what is known of its memory and its work.
fn gpu(gpu: &Gpu) -> String {
    let memory = gpu.memory_used_bytes.zip(gpu.memory_total_bytes);
    let memory = memory.map(|(used, total)| format!("{} of {}", bytes(used), bytes(total)));
    let busy = gpu.utilization_percent.map(|percent| format!("{percent} % busy"));
    let name = gpu.name.clone().unwrap_or_else(|| "unnamed".to_string());
    [Some(name), memory, busy].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn engines(engines: &[Engine]) -> String {
    let row = |it: &Engine| {
        vec![
            it.model.clone(),
            it.kernels.clone(),
            it.window.to_string(),
            format!("{}/{}", it.kv_blocks_used, it.kv_blocks),
            bytes(it.kv_bytes),
            it.tokens_computed.to_string(),
            it.tokens_cached.to_string(),
            it.tokens_generated.to_string(),
        ]
    };
    let rows: Vec<_> = engines.iter().map(row).collect();
    table(&["MODEL", "KERNELS", "WINDOW", "KV BLOCKS", "KV", "COMPUTED", "CACHED", "GENERATED"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_says_what_is_known_of_it() {
        let whole = Gpu {
            name: Some("NVIDIA H200".into()),
            memory_total_bytes: Some(150_754_820_096),
            memory_used_bytes: Some(4_847_370_240),
            utilization_percent: Some(5),
            ..Gpu::default()
        };
        assert_eq!(gpu(&whole), "NVIDIA H200, 4.5 GiB of 140.4 GiB, 5 % busy");
        assert_eq!(gpu(&Gpu { memory_used_bytes: None, ..whole }), "NVIDIA H200, 5 % busy");
        assert_eq!(gpu(&Gpu::default()), "unnamed");
    }
}
