//! `cluster init|status|add-voter|remove-voter|transfer-leader`.

use crate::failure::{Exit, Failure};
use crate::output::{Out, fields, or_empty, printable};
use quorate_sdk::Client;
use quorate_sdk::data::ClusterStatus;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Found a cluster on the node at the first endpoint: once, ever
    Init,
    /// Leader, voters, warnings
    Status,
    /// Let a member vote
    AddVoter(One),
    /// Take a coordinator out of the cluster for good
    RemoveVoter(One),
    /// Make a voter the leader
    TransferLeader(One),
}

#[derive(clap::Args, Debug)]
pub struct One {
    /// Id like n7, or its name
    node: String,
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let cluster = client.cluster();
    let status = match command {
        Command::Init => cluster.init().await?,
        Command::Status => cluster.status().await?,
        Command::AddVoter(it) => cluster.add_voter(&it.node).await?,
        Command::RemoveVoter(it) => cluster.remove_voter(&it.node).await?,
        Command::TransferLeader(it) => cluster.transfer_leader(&it.node).await?,
    };
    out.one(&status, in_full)?;
    Ok(Exit::Ok)
}

pub(crate) fn in_full(status: &ClusterStatus) -> String {
    let tasks: Vec<String> =
        status.tasks_by_state.iter().map(|(state, count)| format!("{state}={count}")).collect();
    let leader = or_empty(&status.leader);
    let mut text = fields(&[
        ("cluster", status.cluster_id.clone()),
        ("leader", if leader.is_empty() { "none".to_string() } else { leader }),
        ("term", status.term.to_string()),
        ("voters", status.voters.join(", ")),
        ("learners", status.learners.join(", ")),
        ("committed", status.committed_index.to_string()),
        ("applied", format!("{} on {}", status.applied_index, status.answered_by)),
        ("state hash", format!("{} at {}", status.state_hash, status.state_hash_index)),
        ("copies", status.copies.to_string()),
        ("feature level", status.feature_level.to_string()),
        ("tasks", tasks.join(" ")),
    ]);
    for warning in &status.warnings {
        text += &format!("warning: {}\n", printable(warning));
    }
    text
}
