//! The command line: its verbs, their arguments, and what those mean to `node::local`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use cli::{Command, Completions, Format, Globals, Man};
use node::config::Speculation;
use node::local::{
    BenchOptions, CA_DAYS, CLIENT_DAYS, ChaosOptions, Costs, Form, Harm, NODE_DAYS, Recorded, ReplayOptions,
    Rules, ServeOptions, TraceFormat,
};

/// Runs fleets of long-lived LLM agents on your own machines.
#[derive(Parser)]
#[command(name = "quorate", version, arg_required_else_help = true)]
pub(crate) struct Line {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Run a node of a cluster until it is told to stop
    Start {
        /// Its configuration; deploy/ has commented ones
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Listen beyond this machine without TLS: for closed networks only
        #[arg(long)]
        insecure: bool,
    },
    /// Run a whole cluster in one process on this machine
    Dev(Dev),
    #[command(flatten)]
    Cluster(Command),
    /// Measure and score models on this machine
    #[command(subcommand)]
    Engine(Engine),
    /// What of agents' contexts mattered, from recorded calls
    #[command(subcommand)]
    Context(Context),
    /// Models on this machine
    #[command(subcommand)]
    Model(Model),
    /// Certificates: a cluster's CA, its nodes, its clients
    #[command(subcommand)]
    Cert(Cert),
    /// API keys for the file that a node's `keys` names
    #[command(subcommand)]
    Key(Key),
    /// Where commands of agents run on this machine
    #[command(subcommand)]
    Sandbox(Sandbox),
    /// Look at this machine and this node, and say what is wrong, why, and what to do. Changes nothing
    Doctor {
        /// The node's configuration [default: the node of `quorate dev`]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// As it will be started with --insecure
        #[arg(long)]
        insecure: bool,
    },
    /// Configurations of nodes
    #[command(subcommand)]
    Config(Config),
    /// Print what a shell needs to complete words of this command line
    Completions(Completions),
    /// Write the manual, one page a verb
    Man(Man),
}

#[derive(Subcommand)]
pub(crate) enum Config {
    /// Say whether a node could start with it: its keys, its certificates, its API keys. Starts nothing
    Check {
        file: PathBuf,
        /// As it will be started with --insecure
        #[arg(long)]
        insecure: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Context {
    /// Score each segment of each call: what mattered, what was there twice, what was for nothing
    Eval {
        #[command(flatten)]
        from: Source,
        /// Write a page of it, which needs nothing else
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// The smallest context of each call that keeps what was done as likely, and the rules that would give it
    Suggest {
        #[command(flatten)]
        from: Source,
    },
}

/// Where recorded calls are.
#[derive(Args)]
#[group(skip)]
pub(crate) struct Source {
    /// Recorded calls, one a line: {"segments":[{"id","owner","kind","text"}],"reader","probe","action"}
    #[arg(long, value_name = "FILE.jsonl", required_unless_present_any = ["openai", "task"])]
    #[arg(conflicts_with_all = ["openai", "task"])]
    calls: Option<PathBuf>,
    /// OpenAI's chat logs, one a line: {"messages":[...],"response":{...}}
    #[arg(long, value_name = "LOG.jsonl", conflicts_with = "task")]
    openai: Option<PathBuf>,
    /// A task of the cluster: its last model call, computed by a node that has the model
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// The task's step that called the model, in place of the last one that did
    #[arg(long, value_name = "N", requires = "task", conflicts_with = "team")]
    step: Option<u64>,
    /// All calls of the task and of every task below it
    #[arg(long, requires = "task")]
    team: bool,
    /// A pulled model, or a GGUF file (smollm2, where nothing is said); with --task a model that a node has loaded
    /// (the task's own)
    #[arg(short, long)]
    model: Option<String>,
    /// Engine threads; 0 lets the engine choose
    #[arg(short, long, default_value_t = 0, conflicts_with = "task")]
    threads: usize,
    /// Compute removals anew for every call, not for one in twenty
    #[arg(long)]
    audit_all: bool,
    /// Compute the removal of every segment anew, too: exact leave-one-out, with its cost, beside masking
    #[arg(long, conflicts_with_all = ["audit_all", "task"])]
    exact: bool,
    /// Let the model read each segment by itself: masking is then removing, but the model understands less
    #[arg(long, conflicts_with = "task")]
    independent: bool,
    /// Read the first tokens of each segment once more, behind all before it: some of what the model lost comes back
    #[arg(long, value_name = "TOKENS", default_value_t = 0, requires = "independent")]
    again: usize,
    /// Compute at most so many tokens; calls beyond that are listed as skipped
    #[arg(long, value_name = "TOKENS")]
    budget: Option<u64>,
}

impl Source {
    /// What is asked of a cluster: none where files are evaluated here.
    pub(crate) fn live(&self, suggest: bool, html: Option<PathBuf>) -> Option<cli::Evaluate> {
        Some(cli::Evaluate {
            task: self.task.clone()?,
            step: self.step,
            team: self.team,
            model: self.model.clone(),
            budget_tokens: self.budget,
            audit_all: self.audit_all,
            suggest,
            html,
        })
    }

    pub(crate) fn recorded(self, json: bool) -> Recorded {
        let openai = self.openai.is_some();
        Recorded {
            model: self.model.unwrap_or_else(|| "smollm2".into()),
            file: self.calls.or(self.openai).unwrap_or_default(),
            openai,
            threads: self.threads,
            audit_all: self.audit_all,
            exact: self.exact,
            independent: self.independent.then_some(self.again),
            budget_tokens: self.budget,
            json,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Sandbox {
    /// Run a command that does nothing, and say what holds: every layer and limit, and what can't be enforced
    Check,
}

#[derive(Subcommand)]
pub(crate) enum Cert {
    /// Make a CA: ca.crt for every node, ca.key to sign with
    Init {
        /// Where to write; made if it is not there
        #[arg(long, value_name = "FOLDER")]
        dir: PathBuf,
        /// The cluster's name
        #[arg(long, value_name = "NAME")]
        cluster: String,
        #[arg(long, default_value_t = CA_DAYS, value_parser = days())]
        days: u32,
    },
    /// Make a node's key and certificate
    Node {
        /// Where the CA is, and the files are written
        #[arg(long, value_name = "FOLDER")]
        dir: PathBuf,
        /// The node's name, as in its configuration
        #[arg(long)]
        name: String,
        /// Host names and addresses under which nodes and clients reach it
        #[arg(long, value_name = "HOST", value_delimiter = ',', required = true)]
        addr: Vec<String>,
        #[arg(long, default_value_t = NODE_DAYS, value_parser = days())]
        days: u32,
    },
    /// Make a client's key and certificate, for the project of --project (`*`: every project)
    Client {
        /// Where the CA is, and the files are written
        #[arg(long, value_name = "FOLDER")]
        dir: PathBuf,
        /// Who it is; also the name of the files
        #[arg(long, value_name = "SUBJECT")]
        name: String,
        /// viewer, submitter, operator or admin
        #[arg(long)]
        role: String,
        #[arg(long, default_value_t = CLIENT_DAYS, value_parser = days())]
        days: u32,
    },
    /// From this CA to a new one, in three steps; after each, copy the files it names to the nodes and reload them
    Rotate {
        #[command(subcommand)]
        step: Rotate,
        /// Where the CA is and what it signed
        #[arg(long, value_name = "FOLDER", global = true, default_value = "pki")]
        dir: PathBuf,
    },
    /// What a certificate says: whose it is, where it answers, until when it holds
    Show { file: PathBuf },
}

#[derive(Subcommand)]
pub(crate) enum Rotate {
    /// First: make the new CA in next/, and trust both
    Trust {
        #[arg(long, default_value_t = CA_DAYS, value_parser = days())]
        days: u32,
    },
    /// Second: let the new CA issue every certificate of the folder again
    Issue,
    /// Third: trust the new CA alone
    Finish,
}

/// Longer than any machine: what is meant to hold so long was not meant.
fn days() -> clap::builder::RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=20_000)
}

#[derive(Subcommand)]
pub(crate) enum Key {
    /// Make a key for the project of --project (`*`: every project). It is shown this once
    New {
        /// viewer, submitter, operator or admin
        #[arg(long)]
        role: String,
        /// Who will use it: shown as the author of changes
        #[arg(long)]
        subject: String,
        /// Until when it holds, such as 2027-01-31 or 2027-01-31T12:00:00Z
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// Append its entry to this file of keys, instead of printing it
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Dev {
    #[command(subcommand)]
    pub(crate) verb: Option<DevVerb>,
    /// Keep nothing: its data goes with the process
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// A pulled model, or a GGUF file
    #[arg(short, long, default_value = "smollm2")]
    pub(crate) model: String,
    /// Where its data is kept [default: the data folder of QUORATE_HOME]
    #[arg(long, value_name = "FOLDER", conflicts_with = "ephemeral")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum DevVerb {
    /// Hurt a node of a cluster of `cluster up`, to see it heal
    #[command(subcommand)]
    Chaos(Chaos),
}

#[derive(Subcommand)]
pub(crate) enum Chaos {
    /// End a worker's process; it is started again a few seconds later
    KillWorker(Target),
    /// End the process of the coordinator that leads
    KillLeader {
        /// Where that cluster is [default: local in QUORATE_HOME]
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
    /// Let a node's process stand still, its connections open
    Pause(Spell),
    /// Cut a node off from all other nodes
    Partition(Spell),
}

#[derive(Args)]
pub(crate) struct Target {
    /// Its name [default: the busiest worker]
    node: Option<String>,
    /// Where that cluster is [default: local in QUORATE_HOME]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Spell {
    #[command(flatten)]
    target: Target,
    /// For so long
    #[arg(long, value_name = "SECONDS", default_value_t = 8, value_parser = value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

impl From<Chaos> for ChaosOptions {
    fn from(chaos: Chaos) -> Self {
        let of = |harm: Harm, Target { node, folder }: Target| ChaosOptions { harm, node, folder };
        let time = |spell: &Spell| Duration::from_secs(spell.seconds);
        match chaos {
            Chaos::KillWorker(target) => of(Harm::KillWorker, target),
            Chaos::KillLeader { folder } => of(Harm::KillLeader, Target { node: None, folder }),
            Chaos::Pause(spell) => of(Harm::Pause(time(&spell)), spell.target),
            Chaos::Partition(spell) => of(Harm::Partition(time(&spell)), spell.target),
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Engine {
    /// Tokens a second of prompts and of answers, every repetition computed anew
    Bench(Bench),
    /// Serve models to OpenAI's clients over HTTP, without a cluster, until it is told to stop
    Serve(Serve),
    /// Mean log-likelihood of a text, in windows as perplexity tools use them
    Score {
        /// A pulled model, or a GGUF file
        #[arg(short, long)]
        model: String,
        /// A UTF-8 text
        #[arg(long)]
        file: PathBuf,
        /// Tokens of a window
        #[arg(long, default_value_t = 512)]
        window: usize,
        /// Tokens at each window's beginning that are not scored
        #[arg(long, default_value_t = 256)]
        skip: usize,
    },
    /// Recorded traffic through the engine's decisions, in virtual time
    Replay(Replay),
}

#[derive(Args)]
pub(crate) struct Replay {
    /// The form of the trace
    #[arg(long, value_enum)]
    format: TraceForm,
    /// A file, or for miniswe a folder of .jsonl files
    trace: PathBuf,
    /// Blocks of the KV pool, of 512 tokens for mooncake, else of 16 [default: 5000 for mooncake, half of the
    /// working set for miniswe, room for 16 of the largest requests for azure]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    blocks: Vec<usize>,
    /// Whose tokenizer is used for the text of miniswe [default: four bytes are a token]
    #[arg(short, long)]
    model: Option<String>,
    /// Tokens that fit into one call of miniswe; a session ends before the first that doesn't
    #[arg(long, default_value_t = 8192)]
    window: usize,
    /// Which tool calls of miniswe take 10 to 120 s longer
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prompt tokens that the engine computes a second
    #[arg(long, value_name = "TOKENS", default_value_t = 1000.0)]
    prefill_tok_s: f64,
    /// Steps a second in which every running answer gets a token
    #[arg(long, value_name = "TOKENS", default_value_t = 100.0)]
    decode_tok_s: f64,
    /// Bytes a second from the host and disk tiers
    #[arg(long, value_name = "BYTES", default_value_t = 1e9)]
    restore_bytes_s: f64,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum TraceForm {
    /// Chains of block hashes
    Mooncake,
    /// Arrivals and sizes
    Azure,
    /// Agent sessions with their text
    Miniswe,
}

#[derive(Args)]
pub(crate) struct Serve {
    /// A pulled model, or a GGUF file; may be given several times
    #[arg(short, long, default_value = "smollm2")]
    model: Vec<String>,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Compute threads of each model; 0 means all cores
    #[arg(short, long, default_value_t = 0)]
    threads: usize,
    /// Memory for the KV cache of each model
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    kv_bytes: usize,
    /// Memory of each model for KV that left the cache
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    host_kv_bytes: u64,
    /// A folder for KV that left memory; it is found again after a restart. It tells the texts that it was made from
    #[arg(long, value_name = "FOLDER")]
    disk_kv_dir: Option<PathBuf>,
    /// Bytes of each model in that folder
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30, requires = "disk_kv_dir")]
    disk_kv_bytes: u64,
    /// Whether tokens are guessed and run before they are known: where that is quicker (auto) or never (off); answers are the same
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "off"])]
    speculation: String,
    /// Answers that are generated at the same time by each model; others wait
    #[arg(long, default_value_t = 128)]
    running: usize,
    /// Listen beyond this machine, without encryption and without keys: for closed networks only
    #[arg(long)]
    insecure: bool,
}

/// Lists, as in `-d 0,512`, are measured in every combination.
#[derive(Args)]
pub(crate) struct Bench {
    /// A pulled model, or a GGUF file
    #[arg(short, long, default_value = "smollm2")]
    model: String,
    /// Tokens of a prompt; 0: no prompts
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', default_value = "512", value_parser = tokens())]
    prompt: Vec<u32>,
    /// Tokens of an answer; 0: no answers
    #[arg(short = 'n', long, value_name = "LIST", value_delimiter = ',', default_value = "128", value_parser = tokens())]
    generate: Vec<u32>,
    /// Tokens of context before what is measured
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', default_value = "0", value_parser = tokens())]
    depth: Vec<u32>,
    /// Sequences that are answered together
    #[arg(short = 'b', long, value_name = "LIST", value_delimiter = ',', default_value = "1,8",
          value_parser = value_parser!(u32).range(1..=1024))]
    parallel: Vec<u32>,
    /// Compute threads; 0: all cores that this process may use
    #[arg(short, long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=1024))]
    threads: u32,
    /// Repetitions that count
    #[arg(short, long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1000))]
    repeats: u32,
}

/// A number of tokens; the model's own window is looked at once it is loaded.
fn tokens() -> clap::builder::RangedI64ValueParser<u32> {
    value_parser!(u32).range(0..=1 << 24)
}

impl Bench {
    pub(crate) fn measures_nothing(&self) -> bool {
        self.prompt.iter().chain(&self.generate).all(|&tokens| tokens == 0)
    }

    pub(crate) fn options(self, output: Format) -> BenchOptions {
        let numbers = |list: Vec<u32>| list.into_iter().map(|number| number as usize).collect();
        BenchOptions {
            model: self.model,
            prompt: numbers(self.prompt),
            generate: numbers(self.generate),
            depth: numbers(self.depth),
            parallel: numbers(self.parallel),
            threads: self.threads as usize,
            repeats: self.repeats as usize,
            form: match output {
                Format::Table | Format::Csv => Form::Table,
                Format::Json => Form::Json,
                Format::Jsonl => Form::Lines,
            },
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Model {
    /// Take a model in: a known name, or a GGUF file of your own
    Pull { source: String },
    /// Models on this machine, or with --cluster those that its nodes hold
    List {
        #[arg(long)]
        cluster: bool,
    },
    /// What a model file says of itself
    Inspect { model: String },
}

impl From<Serve> for ServeOptions {
    fn from(serve: Serve) -> Self {
        ServeOptions {
            models: serve.model,
            listen: serve.listen,
            threads: serve.threads,
            kv_bytes: serve.kv_bytes,
            host_kv_bytes: serve.host_kv_bytes,
            disk_kv: serve.disk_kv_dir.map(|folder| (folder, serve.disk_kv_bytes)),
            speculation: if serve.speculation == "off" { Speculation::Off } else { Speculation::Auto },
            running: serve.running,
            insecure: serve.insecure,
        }
    }
}

impl Replay {
    pub(crate) fn options(self, json: bool) -> ReplayOptions {
        let costs = Costs {
            prefill_tokens_s: self.prefill_tok_s,
            decode_steps_s: self.decode_tok_s,
            restore_bytes_s: self.restore_bytes_s,
            ..Costs::default()
        };
        ReplayOptions {
            format: match self.format {
                TraceForm::Mooncake => TraceFormat::Mooncake,
                TraceForm::Azure => TraceFormat::Azure,
                TraceForm::Miniswe => TraceFormat::Miniswe,
            },
            trace: self.trace,
            blocks: self.blocks,
            model: self.model,
            rules: Rules { window: self.window, seed: self.seed },
            costs,
            json,
        }
    }
}
