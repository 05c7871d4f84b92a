//! `replay mooncake|azure|growth`: JSON lines on standard output, a table on standard error.

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use replay::{Report, azure, growth, mooncake, read_azure, read_mooncake};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Parser)]
#[command(about = "Recorded traffic against the real ledger, in virtual time")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Where prompts go that share beginnings
    Mooncake {
        trace: PathBuf,
        /// Numbers of workers, one table each
        #[arg(long, value_delimiter = ',', default_value = "4,8")]
        workers: Vec<usize>,
        /// Blocks that each worker keeps
        #[arg(long, default_value_t = 5000)]
        blocks: usize,
    },
    /// The queue under recorded arrivals
    Azure {
        trace: PathBuf,
        /// Speeds beside that of the recording
        #[arg(long, value_delimiter = ',', default_value = "1,2,3,4,6")]
        speeds: Vec<f64>,
        #[arg(long, default_value_t = azure::Setup::default().workers)]
        workers: usize,
        #[arg(long, default_value_t = azure::Setup::default().slots)]
        slots: u32,
        /// Of a hundred requests, those of the top class
        #[arg(long, default_value_t = azure::Setup::default().system_percent)]
        system_percent: u64,
        #[arg(long, default_value_t = azure::Setup::default().seed)]
        seed: u64,
        /// Draws of classes for each speed
        #[arg(long, default_value_t = azure::Setup::default().draws)]
        draws: u64,
    },
    /// Memory and time with ever more tasks in the ledger
    Growth {
        #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
        tasks: Vec<u64>,
        /// The queue and the nodes of the plans
        #[arg(long, default_value_t = 100_000)]
        pending: u64,
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Writes the page of results there, too
        #[arg(long)]
        write: Option<PathBuf>,
        /// Measures one number of tasks in this process
        #[arg(long, hide = true)]
        here: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().verb {
        Verb::Mooncake { trace, workers, blocks } => {
            let prompts = read_mooncake(open(&trace)?).with_context(|| trace.display().to_string())?;
            let rows: Vec<_> =
                workers.iter().flat_map(|workers| mooncake::rows(&prompts, *workers, blocks)).collect();
            print(&Report::of(&rows)?);
        }
        Verb::Azure { trace, speeds, workers, slots, system_percent, seed, draws } => {
            let calls = read_azure(open(&trace)?).with_context(|| trace.display().to_string())?;
            let setup =
                azure::Setup { workers, slots, system_percent, seed, draws, ..azure::Setup::default() };
            let milli: Vec<u64> = speeds.iter().map(|speed| (speed * 1000.0) as u64).collect();
            print(&Report::of(&azure::rows(&calls, setup, &milli)?)?);
        }
        Verb::Growth { tasks, here: true, .. } => {
            for number in tasks {
                println!("{}", serde_json::to_string(&growth::measure(number)?)?);
            }
        }
        Verb::Growth { tasks, pending, nodes, write, .. } => grow(&tasks, pending, nodes, write.as_deref())?,
    }
    Ok(())
}

fn grow(tasks: &[u64], pending: u64, nodes: usize, write: Option<&Path>) -> anyhow::Result<()> {
    let rows: Vec<growth::Row> = tasks.iter().map(|number| apart(*number)).collect::<anyhow::Result<_>>()?;
    print(&Report::of(&rows)?);
    let plans = growth::plans(pending, nodes)?;
    print(&Report::of(&plans)?);
    if let Some(path) = write {
        let page = growth::page(&rows, &plans, &machine())?;
        std::fs::write(path, page).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Measures in a new process, whose memory nothing else used.
fn apart(tasks: u64) -> anyhow::Result<growth::Row> {
    let output = Command::new(std::env::current_exe()?)
        .args(["growth", "--here", "--tasks", &tasks.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "{tasks} tasks could not be measured");
    serde_json::from_slice(&output.stdout).context("the figures of the process")
}

fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    format!("{cpus} cores of {}", name.trim_start_matches([' ', '\t', ':']))
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    Ok(BufReader::new(
        File::open(path).with_context(|| format!("{}: give the trace's file", path.display()))?,
    ))
}

fn print(report: &Report) {
    report.lines().iter().for_each(|line| println!("{line}"));
    eprint!("{}", report.table());
}
