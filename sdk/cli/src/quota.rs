//! `quota get|set|tree`.

use crate::failure::{Exit, Failure};
use crate::output::{Out, table};
use crate::values;
use quorate_sdk::Client;
use quorate_sdk::data::Quota;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Limits of one place, and what is used of them
    Get {
        /// `cluster` or `projects/NAME`
        path: String,
    },
    /// Change limits; every node obeys at once
    Set(Set),
    /// All places with limits
    Tree,
}

#[derive(clap::Args, Debug)]
pub struct Set {
    /// `cluster` or `projects/NAME`
    path: String,
    /// running, tokens_minute or tokens_total, with a number or `none`; other keys stay as they are
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = values::limit)]
    limits: Vec<(String, Option<u64>)>,
    /// Why, for whoever reads it later
    #[arg(long)]
    reason: Option<String>,
    /// Refuse unless this is the etag in force
    #[arg(long)]
    etag: Option<String>,
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Get { path } => out.one(&client.quotas().get(&path).await?, one_table)?,
        Command::Set(it) => out.one(&set(it, client).await?, one_table)?,
        Command::Tree => out.many(&client.quotas().list().await?, tree_table)?,
    }
    Ok(Exit::Ok)
}

async fn set(it: Set, client: &Client) -> Result<Quota, quorate_sdk::Error> {
    let mut change = client.quotas().set(&it.path);
    for (key, limit) in it.limits {
        change = change.limit(key, limit);
    }
    if let Some(reason) = it.reason {
        change = change.reason(reason);
    }
    if let Some(etag) = it.etag {
        change = change.etag(etag);
    }
    change.send().await
}

fn one_table(quota: &Quota) -> String {
    tree_table(std::slice::from_ref(quota))
}

/// One line for each limit, a place without any on a line of its own, all in the order of the tree.
pub(crate) fn tree_table(quotas: &[Quota]) -> String {
    let mut sorted: Vec<&Quota> = quotas.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let rows: Vec<_> = sorted.into_iter().flat_map(rows).collect();
    table(&["PATH", "KEY", "LIMIT", "USED", "RESERVED", "ETAG", "REASON"], &rows)
}

fn rows(quota: &Quota) -> Vec<Vec<String>> {
    let row = |key: &str, figures: [String; 3]| {
        let [limit, used, reserved] = figures;
        vec![quota.path.clone(), key.into(), limit, used, reserved, quota.etag.clone(), quota.reason.clone()]
    };
    if quota.limits.is_empty() {
        return vec![row("", Default::default())];
    }
    let limit = |limit: Option<u64>| limit.map_or("none".to_string(), |limit| limit.to_string());
    let of = quota.limits.iter();
    of.map(|(key, it)| row(key, [limit(it.limit), it.used.to_string(), it.reserved.to_string()])).collect()
}
