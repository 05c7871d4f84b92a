//! A cluster of processes: coordinators that vote, workers that run agents, all below one folder.

use crate::clocks::Clocks;
use crate::ports;
use crate::process::{Ports, Process};
use crate::secured::Secured;
use crate::wait::until;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, Credentials};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Nodes of a fresh cluster answer within this time, on a busy machine too.
pub const START: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    pub coordinators: usize,
    pub workers: usize,
    /// Tasks that one worker runs at the same time.
    pub slots: u32,
    /// Names of pulled models that workers load.
    pub models: Vec<String>,
    /// Scripted providers of the workers: name and TOML text.
    pub scripts: Vec<(String, String)>,
    /// Engine threads of a worker; 0 lets the node choose.
    pub threads: u32,
    /// More of the workers' `[engine]`.
    pub engine: String,
    /// More of the workers' configuration, such as `[tools]`.
    pub more: String,
    /// More of every node's configuration, behind all else, such as `[context]`.
    pub everywhere: String,
    /// Certificates for every node, and API keys for every caller.
    pub secured: bool,
    /// The source of the shim that makes wall clocks settable; none: nodes have the machine's.
    pub clock_shim: Option<PathBuf>,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            coordinators: 3,
            workers: 2,
            slots: 8,
            models: vec![],
            scripts: vec![],
            threads: 1,
            engine: String::new(),
            more: String::new(),
            everywhere: String::new(),
            secured: false,
            clock_shim: None,
        }
    }
}

pub struct Cluster {
    pub nodes: Vec<Process>,
    pub coordinators: usize,
    /// Where the spec asked for it.
    pub secured: Option<Secured>,
    /// Where the spec asked for it.
    pub clocks: Option<Clocks>,
    folder: TempDir,
}

impl Cluster {
    /// Starts every node and waits until all are members and attached.
    pub async fn start(binary: &Path, spec: Spec) -> anyhow::Result<Cluster> {
        let nodes = spec.coordinators + spec.workers;
        let mut cluster = Cluster::prepare(binary, spec)?;
        cluster.nodes[0].start()?;
        cluster.found().await?;
        for node in &mut cluster.nodes[1..] {
            node.start()?;
        }
        cluster.wait_ready(nodes).await?;
        Ok(cluster)
    }

    /// Configurations for every node, and nothing started.
    pub fn prepare(binary: &Path, spec: Spec) -> anyhow::Result<Cluster> {
        let folder = tempfile::Builder::new().prefix("quorate-").tempdir()?;
        let pki = folder.path().join("pki");
        let secured = spec.secured.then(|| Secured::make(binary, pki)).transpose()?;
        let clocks =
            spec.clock_shim.as_ref().map(|source| Clocks::make(source, folder.path())).transpose()?;
        let mut cluster =
            Cluster { nodes: Vec::new(), coordinators: spec.coordinators, secured, clocks, folder };
        for (index, (name, text)) in spec.scripts.iter().enumerate() {
            std::fs::write(cluster.script_path(index), text).with_context(|| format!("script {name}"))?;
        }
        for index in 0..spec.coordinators + spec.workers {
            cluster.add(binary, &spec, index)?;
        }
        Ok(cluster)
    }

    fn script_path(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("script-{index}.toml"))
    }

    fn add(&mut self, binary: &Path, spec: &Spec, index: usize) -> anyhow::Result<()> {
        let name = match index.checked_sub(spec.coordinators) {
            None => format!("coordinator-{}", index + 1),
            Some(worker) => format!("worker-{}", worker + 1),
        };
        let ports = Ports { clients: ports::free(), internal: ports::free(), http: ports::free() };
        let config = self.folder.path().join(format!("{name}.toml"));
        let mut text = self.config(spec, &name, index, ports);
        if let Some(secured) = &self.secured {
            text = format!("keys = {:?}\n{text}{}", secured.keys_file(), secured.node(&name)?);
        }
        std::fs::write(&config, text)?;
        let log = self.folder.path().join(format!("{name}.log"));
        let mut node = Process::new(&name, ports, binary, config, log);
        if let Some(clocks) = &self.clocks {
            node.set_environment(clocks.environment(&name)?);
        }
        self.nodes.push(node);
        Ok(())
    }

    fn config(&self, spec: &Spec, name: &str, index: usize, ports: Ports) -> String {
        let worker = index >= spec.coordinators;
        let role = if worker { "worker" } else { "coordinator" };
        // Every node knows the first coordinators, so that any of them may be down later.
        let seeds: Vec<String> =
            self.nodes.iter().take(spec.coordinators).map(|node| quoted(node.ports.internal)).collect();
        let data = self.folder.path().join(name);
        let mut text = format!(
            "name = \"{name}\"\nroles = [\"{role}\"]\ndata_dir = \"{}\"\njoin = [{}]\n\n[listen]\nclients = {}\n\
             internal = {}\nhttp = {}\n\n[log]\nlevel = {:?}\n",
            data.display(),
            seeds.join(", "),
            quoted(ports.clients),
            quoted(ports.internal),
            quoted(ports.http),
            log_level().unwrap_or("info".into()),
        );
        if worker {
            let models: Vec<String> = spec.models.iter().map(|model| format!("\"{model}\"")).collect();
            let _ = write!(
                text,
                "\n[worker]\nslots = {}\n\n[engine]\nmodels = [{}]\nthreads = {}\n{}",
                spec.slots,
                models.join(", "),
                spec.threads,
                spec.engine
            );
            for (script, (name, _)) in spec.scripts.iter().enumerate() {
                let file = self.script_path(script);
                let _ = write!(
                    text,
                    "\n[[provider]]\nname = \"{name}\"\nkind = \"scripted\"\nfile = \"{}\"\n",
                    file.display()
                );
            }
            let _ = write!(text, "\n{}\n", spec.more);
        }
        let _ = write!(text, "\n{}\n", spec.everywhere);
        text
    }

    /// Founds the cluster on the first node, as soon as it listens.
    async fn found(&mut self) -> anyhow::Result<()> {
        let client = self.connect(&self.nodes[..1], None)?.with_timeout(Duration::from_secs(5));
        let done = until("founding the cluster", START, || async {
            match client.cluster().init().await {
                Ok(_) => Some(()),
                Err(error) if error.reason == "ALREADY_INITIALISED" => Some(()),
                Err(_) => None,
            }
        });
        done.await.with_context(|| self.logs())
    }

    /// Waits until this many nodes are attached and the coordinators vote.
    pub async fn wait_ready(&mut self, nodes: usize) -> anyhow::Result<()> {
        let client = self.client()?;
        let voters =
            if self.coordinators.is_multiple_of(2) { self.coordinators - 1 } else { self.coordinators };
        let ready = until("all nodes attached", START, || async {
            let ready =
                client.cluster().nodes().await.ok()?.iter().filter(|node| node.state == "ready").count();
            let status = client.cluster().status().await.ok()?;
            (ready >= nodes && status.voters.len() >= voters.min(nodes)).then_some(())
        });
        ready.await.with_context(|| self.logs())?;
        for node in &mut self.nodes {
            ensure!(node.pid().is_none() || node.runs(), "{} ended by itself:\n{}", node.name, node.log());
        }
        Ok(())
    }

    /// A client that knows every node.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.connect(&self.nodes, None)
    }

    /// The same with a key of a secured cluster; an empty one means: none.
    pub fn client_with(&self, key: &str) -> anyhow::Result<Client> {
        self.connect(&self.nodes, Some(key))
    }

    /// Without a key it is the admin's, where the cluster asks for keys.
    fn connect(&self, nodes: &[Process], key: Option<&str>) -> anyhow::Result<Client> {
        let endpoints: Vec<String> = nodes.iter().map(Process::address).collect();
        let credentials = match (&self.secured, key) {
            (None, _) => Credentials::default(),
            (Some(secured), Some("")) => Credentials::default().with_ca_file(&secured.ca_file())?,
            (Some(secured), key) => secured.credentials(key.unwrap_or(secured.admin_key()))?,
        };
        Ok(Client::connect_with(&endpoints, &credentials)?)
    }

    /// A client that asks one node only.
    pub fn client_of(&self, name: &str) -> anyhow::Result<Client> {
        self.connect(std::slice::from_ref(self.node(name)?), None)
    }

    pub fn node(&self, name: &str) -> anyhow::Result<&Process> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("no node {name:?}"))
    }

    pub fn node_mut(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        self.nodes.iter_mut().find(|node| node.name == name).with_context(|| format!("no node {name:?}"))
    }

    /// Name of the node that leads.
    pub async fn leader(&self) -> anyhow::Result<String> {
        let client = self.client()?;
        until("a leader", START, || async {
            client.cluster().status().await.ok().and_then(|status| status.leader)
        })
        .await
    }

    /// The folder that holds every node's data; gone when the cluster is dropped.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The end of each node's log, for a failed test; all of it where `QUORATE_TEST_LOG` names a level.
    pub fn logs(&self) -> String {
        let lines = if log_level().is_some() { usize::MAX } else { 15 };
        let tail = |text: String| {
            text.lines()
                .rev()
                .take(lines)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
                .join("\n")
        };
        self.nodes.iter().map(|node| format!("--- {}\n{}\n", node.name, tail(node.log()))).collect()
    }
}

/// For finding out what a test's nodes do, such as `QUORATE_TEST_LOG=info,node=debug`.
fn log_level() -> Option<String> {
    std::env::var("QUORATE_TEST_LOG").ok().filter(|level| !level.is_empty())
}

fn quoted(port: u16) -> String {
    format!("\"127.0.0.1:{port}\"")
}

/// The `quorate` binary beside the running program: built by `make`, never by the harness.
pub fn binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("quorate")).find(|path| path.is_file());
    found.with_context(|| {
        format!("no `quorate` binary near {}: run `cargo build -p quorate` first", own.display())
    })
}
