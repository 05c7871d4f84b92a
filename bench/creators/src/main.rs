//! Durable creations a second beside etcd's puts: three members of each on this machine, on the same disk, asked in
//! turns by the same client. Ours: one unary `CreateTask` each with an input of 256 bytes, answered when the input is
//! durable on the task's home set and the task in the log of a majority. Theirs: one unary `Put` of 256 bytes.
//!
//! Read: this file (turns and tables), `load` (the clients), `ours`, `etcd`, `syncs` (how often the disk was asked).

mod etcd;
mod load;
mod ours;
mod syncs;

use clap::Parser;
use load::Figures;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
struct Options {
    /// Our binary, optimised
    #[arg(long, default_value = "target/release/quorate")]
    quorate: PathBuf,
    /// Debian's etcd-server
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Clients that create at the same time, each the next when the last is acknowledged
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    clients: Vec<usize>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
}

/// Whom the clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Etcd,
}

impl Side {
    const BOTH: [Side; 2] = [Side::Ours, Side::Etcd];

    fn name(self) -> &'static str {
        match self {
            Side::Ours => "quorate",
            Side::Etcd => "etcd",
        }
    }
}

/// One turn.
struct Turn {
    side: Side,
    clients: usize,
    figures: Figures,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let ours = ours::Ours::start(&options.quorate).await?;
    let etcd = etcd::Etcd::start(&options.etcd).await?;
    let measure = async |side, clients, seconds| match side {
        Side::Ours => load::run(clients, seconds, ours.clients(clients).await?).await,
        Side::Etcd => load::run(clients, seconds, etcd.clients(clients).await?).await,
    };
    let syncs = async |side| match side {
        Side::Ours => ours.syncs().await,
        Side::Etcd => etcd.syncs().await,
    };
    for side in Side::BOTH {
        measure(side, 16, 2.0).await?;
    }
    let mut turns = Vec::new();
    println!("turn        clients  ops/s  p50 ms  p90 ms  p99 ms  max ms  errors  syncs/s  syncs/op");
    for round in 0..options.rounds {
        for &clients in &options.clients {
            // Who begins changes, so that nobody always comes second.
            let mut sides = Side::BOTH;
            sides.rotate_left(round % 2);
            for side in sides {
                let before = syncs(side).await?;
                let figures = measure(side, clients, options.seconds).await?;
                let synced = (syncs(side).await? - before) as f64;
                let (a_second, an_operation) = (synced / options.seconds, synced / figures.all as f64);
                let row = figures.row();
                println!(
                    "{:<8} {round} {clients:>9}  {row}  {a_second:>7.0}  {an_operation:>8.2}",
                    side.name()
                );
                turns.push(Turn { side, clients, figures });
            }
        }
    }
    ratios(&options.clients, &turns);
    tokio::time::timeout(Duration::from_secs(20), etcd.stop()).await?
}

/// Medians over the rounds, and ours by theirs.
fn ratios(clients: &[usize], turns: &[Turn]) {
    println!("\nmedians      quorate                      etcd                         quorate / etcd");
    println!("clients      ops/s  p50 ms  p99 ms        ops/s  p50 ms  p99 ms        ops/s   p50    p99");
    for &count in clients {
        let of = |side, figure: fn(&Figures) -> f64| {
            let turns = turns.iter().filter(|turn| turn.side == side && turn.clients == count);
            median(turns.map(|turn| figure(&turn.figures)).collect())
        };
        let all = |side| [of(side, |f| f.rate), of(side, |f| f.p50_ms), of(side, |f| f.p99_ms)];
        let (ours, theirs) = (all(Side::Ours), all(Side::Etcd));
        println!(
            "{count:<9} {:>8.0}  {:>6.2}  {:>6.2}     {:>8.0}  {:>6.2}  {:>6.2}        {:>5.2}  {:>5.2}  {:>5.2}",
            ours[0],
            ours[1],
            ours[2],
            theirs[0],
            theirs[1],
            theirs[2],
            ours[0] / theirs[0],
            ours[1] / theirs[1],
            ours[2] / theirs[2]
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
