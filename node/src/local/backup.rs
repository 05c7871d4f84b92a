//! `cluster restore|verify`: backups on this machine. No cluster is asked.

use crate::backup::read::verify;
use crate::backup::restore::{self, FounderName, Restored};
use crate::backup::write::Summary;
use crate::config::{Config, Exposure};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What to make of a backup.
pub struct RestoreOptions {
    pub file: PathBuf,
    /// The node's configuration.
    pub config: PathBuf,
    /// `NAME=HOST:PORT` of every founder; none: this node alone.
    pub members: Vec<String>,
    /// Tells clusters apart that begin from the same file with the same members.
    pub round: u64,
    pub insecure: bool,
    pub json: bool,
}

pub fn cluster_verify(file: &Path, json: bool) -> anyhow::Result<()> {
    let verified = verify(file)?;
    let pairs = described(&verified.summary);
    told(&pairs, json);
    if verified.summary.end.missing > 0 {
        eprintln!("some segments are missing: tasks that need them cannot go on after a restore");
    }
    Ok(())
}

pub fn cluster_restore(options: RestoreOptions) -> anyhow::Result<()> {
    let exposure = if options.insecure { Exposure::Insecure } else { Exposure::LoopbackOnly };
    let config = Config::load(&options.config, exposure)?;
    let members = options.members.iter().map(|text| FounderName::parse(text));
    let members = members.collect::<Result<Vec<_>, _>>().map_err(|why| anyhow::anyhow!("--member: {why}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let restored = runtime.block_on(restore::restore(&options.file, &config, &members, options.round))?;
    told(&restored_pairs(&restored), options.json);
    eprintln!(
        "next: the same on every other member, then start them all; workers join with an empty data_dir"
    );
    Ok(())
}

type Pairs = Vec<(&'static str, String)>;

fn described(summary: &Summary) -> Pairs {
    let Summary { head, end, bytes } = summary;
    vec![
        ("cluster_id", head.cluster.to_string()),
        ("incarnation", head.incarnation.to_string()),
        ("applied_index", head.applied_index.to_string()),
        ("state_hash", head.state_hash.to_string()),
        ("wall_ms", head.wall_ms.to_string()),
        ("tasks", end.tasks.to_string()),
        ("segments", end.segments.to_string()),
        ("missing", end.missing.to_string()),
        ("bytes", bytes.to_string()),
        ("version", head.version.clone()),
    ]
}

fn restored_pairs(restored: &Restored) -> Pairs {
    let mut pairs = described(&restored.summary);
    pairs.extend([
        ("restored_state_hash", restored.state_hash.to_string()),
        ("new_cluster_id", restored.cluster.to_string()),
        ("node_id", restored.node.to_string()),
        ("begins_at", restored.begins_at.to_string()),
        ("begins_with", restored.begins_with.to_string()),
    ]);
    pairs
}

fn told(pairs: &Pairs, json: bool) {
    if json {
        let object: serde_json::Map<String, serde_json::Value> =
            pairs.iter().map(|(key, text)| (key.to_string(), number_or_text(text))).collect();
        say!("{}", serde_json::Value::Object(object));
        return;
    }
    for (key, text) in pairs {
        say!("{:<20} {text}", key.replace('_', " "));
    }
}

/// Counts are numbers; ids that happen to be of digits alone are not short enough to be one.
fn number_or_text(text: &str) -> serde_json::Value {
    match text.parse::<u64>() {
        Ok(number) if text.len() < 20 => json!(number),
        _ => json!(text),
    }
}
