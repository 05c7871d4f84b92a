//! The verbs of the command line that talk to a cluster: one file a noun, written with the SDK only.
//!
//! It is no daemon and knows no engine: `start`, `dev`, `engine` and the local half of `model` live elsewhere. Results
//! go to stdout, everything about them to stderr; [`Exit`] says the rest to scripts.
//!
//! Read: `globals`, `failure` (errors and exit codes), `output`, then `task` and `follow`, then the other nouns.

mod agent;
mod audit;
mod cluster;
mod context;
mod cost;
mod failure;
mod follow;
mod globals;
mod inputs;
mod memory;
mod model;
mod node;
mod output;
mod price;
mod queue;
mod quota;
mod schedule;
mod shell;
mod task;
mod top;
mod values;

pub use cluster::{Command as ClusterCommand, Restore, Up, Verify};
pub use context::Evaluate;
pub use failure::{Exit, Failure, report, usage_error};
pub use globals::Globals;
pub use output::Format;
pub use shell::{Completions, Man};

use output::Out;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// The verbs, by noun.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Define agents and teams
    #[command(subcommand)]
    Agent(agent::Command),
    /// Create, follow and stop tasks
    #[command(subcommand)]
    Task(task::Command),
    /// Create a task and follow it to its end: its text goes to stdout
    Run(task::NewTask),
    /// Create tasks again and again
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// What agents remember: look, add, forget
    #[command(subcommand)]
    Memory(memory::Command),
    /// Look at limits and change them
    #[command(subcommand)]
    Quota(quota::Command),
    /// What waits for a place, the most urgent first
    Queue(queue::Queue),
    /// Say why a task waits: the same as `task explain`
    Explain(task::Explain),
    /// What models cost
    #[command(subcommand)]
    Price(price::Command),
    /// What was spent
    #[command(subcommand)]
    Cost(cost::Command),
    /// Who changed limits, prices and nodes, when and why
    Audit(audit::Audit),
    /// Look at the cluster's machines, close and open them
    #[command(subcommand)]
    Node(node::Command),
    /// The cluster on one screen: nodes, queue, tasks at work, limits nearly used up
    Top(top::Top),
    /// Found a cluster, look at its consensus, change its voters
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Models that some node of the cluster holds: `model list --cluster`.
    #[command(skip)]
    Models,
    /// A live task's context: `context eval|suggest --task`.
    #[command(skip)]
    Evaluate(context::Evaluate),
}

/// Runs one verb to its end on this thread.
pub fn run(command: Command, globals: &Globals) -> ExitCode {
    let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr().lock());
    let terminal = stdout.is_terminal();
    run_with(command, globals, &mut stdout, &mut stderr, terminal).into()
}

/// The same with given streams, for tests.
fn run_with(
    command: Command,
    globals: &Globals,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
    terminal: bool,
) -> Exit {
    let done = {
        let mut out = Out::new(globals.output, stdout, stderr, terminal);
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failure::no_runtime)
            .and_then(|runtime| runtime.block_on(perform(command, globals, &mut out)))
    };
    match done {
        Ok(exit) => exit,
        Err(failure) => report(&failure, globals.output, stderr),
    }
}

async fn perform(command: Command, globals: &Globals, out: &mut Out<'_>) -> Result<Exit, Failure> {
    if globals.output == Format::Csv && !matches!(command, Command::Cost(_)) {
        let next = "ask for table, json or jsonl";
        return Err(failure::usage("USAGE", "only `cost report` prints comma-separated values", next));
    }
    let client = globals.client()?;
    match command {
        Command::Agent(it) => agent::perform(it, &client, out).await,
        Command::Task(it) => task::perform(it, &client, out).await,
        Command::Run(it) => task::run(it, &client, out).await,
        Command::Schedule(it) => schedule::perform(it, &client, out).await,
        Command::Memory(it) => memory::perform(it, &client, out).await,
        Command::Quota(it) => quota::perform(it, &client, out).await,
        Command::Queue(it) => queue::perform(it, &client, out).await,
        Command::Explain(it) => task::explain(it, &client, out).await,
        Command::Price(it) => price::perform(it, &client, out).await,
        Command::Cost(it) => cost::perform(it, &client, out).await,
        Command::Audit(it) => audit::perform(it, &client, out).await,
        Command::Node(it) => node::perform(it, &client, out).await,
        Command::Top(it) => top::perform(it, &client, out).await,
        Command::Cluster(it) => cluster::perform(it, &client, out).await,
        Command::Models => model::list(&client, out).await,
        Command::Evaluate(it) => context::evaluate(it, &client, out).await,
    }
}

#[cfg(test)]
mod tests;
