//! `cluster init|status|add-voter|remove-voter|transfer-leader|raise-level|snapshot`. `restore`, `verify` and `up` are about this
//! machine: they are understood here and performed by the program that a node is.

mod snapshot;

use crate::failure::{self, Exit, Failure};
use crate::output::{Out, fields, or_empty, printable};
use quorate_sdk::Client;
use quorate_sdk::data::ClusterStatus;
use std::path::PathBuf;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Found a cluster on the node at the first endpoint: once, ever
    Init,
    /// Leader, voters, warnings
    Status,
    /// Let a member vote
    AddVoter(One),
    /// Take a coordinator out of the cluster for good; one that leads hands over first
    RemoveVoter(Leaving),
    /// Make a voter the leader
    TransferLeader(One),
    /// Begin the newest feature level that every node knows: the last step of an upgrade, after which no node can go back
    RaiseLevel {
        /// Why, for whoever reads it later
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Write a backup while the cluster works: the ledger and every segment that it names
    Snapshot(snapshot::Snapshot),
    /// Make this machine's empty data folder a founder's of a new cluster that begins from a backup; the node must not run
    Restore(Restore),
    /// Look at every byte of a backup, without a cluster
    Verify(Verify),
    /// Run a cluster of several processes on this machine, until Ctrl-C
    Up(Up),
}

#[derive(clap::Args, Debug)]
pub struct Up {
    /// So many coordinators, all on this machine
    #[arg(long, value_name = "N", value_parser = ["1", "3", "5"])]
    pub local: String,
    /// So many workers beside them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3))]
    pub workers: u32,
    /// Where everything is kept; a second run goes on there [default: local in QUORATE_HOME]
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// The first port to try; ports are chosen once for a folder
    #[arg(long, value_name = "PORT", default_value_t = 7400)]
    pub port: u16,
    /// A pulled model for the workers; may be given several times; `none`: without one
    #[arg(short, long, default_value = "smollm2")]
    pub model: Vec<String>,
    /// Replies of a scripted model, which agents call `scripted`
    #[arg(long, value_name = "FILE")]
    pub replies: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub struct Restore {
    /// A file of `cluster snapshot`
    pub file: PathBuf,
    /// The node's configuration: its name, address and empty data_dir
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// A coordinator that the new cluster begins with, this one too; the same list on each [default: this node alone]
    #[arg(long, value_name = "NAME=HOST:PORT")]
    pub member: Vec<String>,
    /// Another number for a second cluster of the same file and members, so that the two stay apart
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub round: u64,
    /// The configuration may listen beyond this machine without TLS
    #[arg(long)]
    pub insecure: bool,
}

#[derive(clap::Args, Debug)]
pub struct Verify {
    /// A file of `cluster snapshot`
    pub file: PathBuf,
}

#[derive(clap::Args, Debug)]
pub struct One {
    /// Id like n7, or its name
    node: String,
}

#[derive(clap::Args, Debug)]
pub struct Leaving {
    /// Id like n7, or its name
    pub(crate) node: String,
    /// Why, for whoever reads it later
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let cluster = client.cluster();
    let status = match command {
        Command::Init => cluster.init().await?,
        Command::Status => cluster.status().await?,
        Command::AddVoter(it) => cluster.add_voter(&it.node).await?,
        Command::RemoveVoter(it) => cluster.remove_voter(&it.node, &it.reason).await?,
        Command::RaiseLevel { reason } => cluster.raise_level(&reason).await?,
        Command::TransferLeader(it) => cluster.transfer_leader(&it.node).await?,
        Command::Snapshot(it) => return snapshot::perform(&it, client, out).await,
        Command::Restore(_) | Command::Verify(_) | Command::Up(_) => {
            let next = "run it with `quorate` on the machine that it is about";
            return Err(failure::usage("USAGE", "this is done by the program of a node", next));
        }
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
