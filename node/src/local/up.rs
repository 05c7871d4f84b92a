//! `cluster up --local N`: a whole cluster of real processes on loopback, in one folder, until Ctrl-C.
//!
//! Each node is a child process with a configuration, a log and a data folder of its own. Between them run cables
//! (`cable`) that `dev chaos partition` can cut. A node that ends is started again after a while, long enough to watch
//! the others notice. The folder keeps everything: a second run goes on where the first was.
//!
//! Read: `plan` (which nodes, which ports, what they are told), `folder` (what is kept), `cable`; then this file.

mod cable;
pub(super) mod folder;
pub(super) mod plan;
pub(super) mod talk;

use super::home;
use crate::store::DataLock;
use anyhow::{Context, bail};
use folder::Folder;
use plan::{Layout, NodePlan};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A cold start loads a model on a busy machine.
const READY: Duration = Duration::from_secs(90);
/// A worker may take 20 s to bring its tasks to a step boundary.
const STOP: Duration = Duration::from_secs(40);
/// Longer than a lease and an election, so that what the others do about it can be watched.
pub(super) const DOWN: Duration = Duration::from_secs(6);
/// How often children and the file of cuts are looked at.
const LOOK: Duration = Duration::from_millis(100);

pub struct UpOptions {
    /// Coordinators.
    pub local: u32,
    pub workers: u32,
    pub folder: Option<PathBuf>,
    /// The first port to try.
    pub port: u16,
    /// Names of pulled models; `none` alone means none.
    pub models: Vec<String>,
    /// The replies of a scripted model.
    pub replies: Option<PathBuf>,
    pub json: bool,
}

/// Names the process that a node of a local cluster doesn't outlive.
const LIVES_WITH: &str = "QUORATE_LIVES_WITH";

/// Of a node that `cluster up` started: it ends with that process, also where nothing is left to stop it. At once,
/// because a node that stands still (`dev chaos pause`) hears nothing gentler; its data is safe as at any kill.
pub(super) fn live_with_parent() -> anyhow::Result<()> {
    let Some(wanted) = std::env::var(LIVES_WITH).ok().and_then(|pid| pid.parse::<i32>().ok()) else {
        return Ok(());
    };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("ending with the parent")?;
    // It may be gone already, and then no signal comes.
    match rustix::process::getppid() == Pid::from_raw(wanted) {
        true => Ok(()),
        false => bail!("`quorate cluster up` (process {wanted}), which started this node, is gone"),
    }
}

/// Where a local cluster is when nobody says.
pub(super) fn default_folder() -> anyhow::Result<PathBuf> {
    Ok(home()?.join("local"))
}

/// Runs until SIGINT or SIGTERM, then stops every node in order.
pub fn cluster_up(options: UpOptions) -> anyhow::Result<()> {
    let path = options.folder.clone().map_or_else(default_folder, Ok)?;
    let folder = Folder::make(&path)?;
    let _lock = lock(&folder)?;
    let layout = match folder.layout()? {
        Some(layout) => kept(layout, &options, &folder)?,
        None => planned(&options, &folder)?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("up").build()?;
    runtime.block_on(run(folder, layout, options.json))
}

fn lock(folder: &Folder) -> anyhow::Result<DataLock> {
    if let Some(owner) = DataLock::owner_of(folder.path()) {
        bail!(
            "a local cluster runs in {} already ({owner}); use it, stop it with Ctrl-C where it runs, or give this one \
             its own --folder",
            folder.path().display()
        );
    }
    Ok(DataLock::take(folder.path())?)
}

/// What the folder has stays: its ports are in the nodes' membership.
fn kept(layout: Layout, options: &UpOptions, folder: &Folder) -> anyhow::Result<Layout> {
    let (coordinators, workers) = (layout.coordinators().count() as u32, layout.workers().count() as u32);
    if (coordinators, workers) != (options.local, options.workers) {
        bail!(
            "the cluster in {} has {coordinators} coordinators and {workers} workers, and {} and {} are asked for; \
             repeat it with --local {coordinators} --workers {workers}, or take another --folder",
            folder.path().display(),
            options.local,
            options.workers
        );
    }
    // Whatever an earlier run left behind would hold the ports.
    for node in &layout.nodes {
        if let Some(pid) = folder.pid(&node.name) {
            eprintln!("{} still runs from an earlier time (process {pid}): stopping it", node.name);
            folder.end(&node.name, STOP)?;
        }
    }
    match still_taken(&layout, STOP) {
        Some(port) => bail!(
            "port {port} of the cluster in {} is in use by another program; stop that one (`ss -ltnp` names it), or take \
             another --folder",
            folder.path().display()
        ),
        None => Ok(layout),
    }
}

fn planned(options: &UpOptions, folder: &Folder) -> anyhow::Result<Layout> {
    let models = wanted_models(&options.models)?;
    let replies = options.replies.as_ref().map(std::fs::canonicalize).transpose().context("--replies")?;
    let layout = Layout::plan(options.local, options.workers, options.port, is_free).with_context(|| {
        format!(
            "no {} ports in a row are free from {} on; choose others with --port",
            plan::SPAN,
            options.port
        )
    })?;
    let threads = (sys::allowed_cores().len() as u32 / options.workers.max(1)).max(1);
    for node in &layout.nodes {
        let told = plan::Told { models: &models, replies: replies.as_deref(), threads };
        folder.write_config(&node.name, &layout.config(node, folder.path(), &told))?;
    }
    folder.keep(&layout)?;
    Ok(layout)
}

fn wanted_models(names: &[String]) -> anyhow::Result<Vec<String>> {
    if names == ["none"] {
        return Ok(Vec::new());
    }
    let models = super::models()?;
    names
        .iter()
        .try_for_each(|name| models.resolve(name).map(|_| ()))
        .context("--model none starts without one")?;
    Ok(names.to_vec())
}

/// A node that was killed a moment ago holds its ports until its last thread has ended.
fn still_taken(layout: &Layout, patience: Duration) -> Option<u16> {
    let deadline = Instant::now() + patience;
    loop {
        match layout.ports().find(|port| !is_free(*port)) {
            Some(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            taken => return taken,
        }
    }
}

fn is_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}

async fn run(folder: Folder, layout: Layout, json: bool) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let cables = cable::lay(&layout, &folder).await?;
    let mut fleet = Fleet { folder, nodes: layout.nodes.iter().cloned().map(Kept::new).collect() };
    let up = async {
        fleet.start_all(&layout).await?;
        tell(&fleet.folder, &layout, json);
        Ok(())
    };
    let begun: anyhow::Result<()> = tokio::select! {
        begun = up => begun,
        () = stop.cancelled() => Ok(()),
    };
    if begun.is_ok() {
        fleet.keep_up(&stop, &cables).await;
    }
    eprintln!("stopping, workers first; Ctrl-C again kills");
    cables.heal();
    let again = stop_signal()?;
    fleet.stop_all(&again).await;
    begun
}

/// Fires at the next SIGINT or SIGTERM.
fn stop_signal() -> anyhow::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let fired = CancellationToken::new();
    let firing = fired.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        firing.cancel();
    });
    Ok(fired)
}

fn tell(folder: &Folder, layout: &Layout, json: bool) {
    let endpoint = layout.endpoint();
    let path = folder.path().display();
    if json {
        let nodes: Vec<_> = layout
            .nodes
            .iter()
            .map(|node| json!({"name": node.name, "client": node.client(), "http": node.http()}))
            .collect();
        say!("{}", json!({"endpoint": endpoint, "folder": folder.path(), "nodes": nodes}));
        return;
    }
    let metrics = layout.nodes[0].http();
    say!("export QUORATE_ENDPOINT={endpoint}\nexport QUORATE_METRICS={metrics}/metrics");
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let coordinators = many(layout.coordinators().count(), "coordinator");
    let workers = many(layout.workers().count(), "worker");
    eprintln!("{coordinators} and {workers} up; data and logs in {path}; Ctrl-C stops them in order");
    eprintln!("try, in another terminal, after the two lines above:");
    eprintln!("  quorate cluster status && quorate node list && curl -s $QUORATE_METRICS | head");
    eprintln!(
        "  quorate agent apply -f examples/agents/reader.toml && quorate run --agent reader --input \"…\""
    );
    eprintln!("  quorate dev chaos kill-leader --folder {path}     # or kill-worker, pause, partition");
}

/// One node and what it is doing.
struct Kept {
    plan: NodePlan,
    child: Option<Child>,
    /// When it ended by itself.
    ended: Option<Instant>,
}

impl Kept {
    fn new(plan: NodePlan) -> Self {
        Kept { plan, child: None, ended: None }
    }

    /// How the process ended, once.
    fn reap(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        (self.child, self.ended) = (None, Some(Instant::now()));
        Some(status)
    }
}

struct Fleet {
    folder: Folder,
    nodes: Vec<Kept>,
}

impl Fleet {
    /// The first coordinator founds the cluster, once; then all others come up together.
    async fn start_all(&mut self, layout: &Layout) -> anyhow::Result<()> {
        start(&self.folder, &mut self.nodes[0])?;
        if !self.folder.is_founded() {
            self.until("coordinator-1 founds the cluster", async |fleet| {
                talk::found(&fleet.nodes[0].plan).await
            })
            .await?;
            self.folder.founded()?;
        }
        for index in 1..self.nodes.len() {
            start(&self.folder, &mut self.nodes[index])?;
        }
        let all = layout.nodes.len();
        let voters = layout.coordinators().count();
        self.until("every node to be ready", async |fleet| {
            let first = &fleet.nodes[0].plan;
            talk::ready_nodes(first).await >= all && talk::voters(first).await >= voters
        })
        .await
    }

    /// A node that ends on the way up says why in its log.
    async fn until(&mut self, what: &str, mut done: impl AsyncFnMut(&Fleet) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tick.tick().await;
            if done(self).await {
                return Ok(());
            }
            for node in &mut self.nodes {
                if let Some(status) = node.reap() {
                    bail!("{} ended ({status}): {}", node.plan.name, self.folder.last_words(&node.plan.name));
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "waited {READY:?} in vain for {what}; the logs are in {}",
                    self.folder.path().display()
                );
            }
        }
    }

    /// Starts again what ended, and cuts what is to be cut, until told to stop.
    async fn keep_up(&mut self, stop: &CancellationToken, cables: &cable::Cables) {
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            cables.cut(self.folder.cut_off());
            for node in &mut self.nodes {
                if let Some(status) = node.reap() {
                    eprintln!("{} ended ({status}); it is started again in {DOWN:?}", node.plan.name);
                }
                if node.ended.is_some_and(|ended| ended.elapsed() > DOWN) {
                    match start(&self.folder, node) {
                        Ok(()) => eprintln!("{} is started again", node.plan.name),
                        Err(error) => eprintln!("{error:#}"),
                    }
                }
            }
        }
    }

    /// Workers first, while there is a leader to give their leases back to; the first coordinator last.
    async fn stop_all(&mut self, kill: &CancellationToken) {
        let workers = self.nodes.iter().filter(|node| !node.plan.coordinator).count();
        let coordinators = self.nodes.len() - workers;
        for range in [coordinators..self.nodes.len(), 1..coordinators, 0..1] {
            let nodes = &mut self.nodes[range];
            nodes.iter().for_each(|node| send(node, &[Signal::CONT, Signal::TERM]));
            wait_for(nodes, kill).await;
            nodes.iter().for_each(|node| self.folder.forget(&node.plan.name));
        }
    }
}

async fn wait_for(nodes: &mut [Kept], kill: &CancellationToken) {
    let deadline = Instant::now() + STOP;
    let mut tick = tokio::time::interval(LOOK);
    while nodes.iter_mut().any(|node| node.child.is_some() && node.reap().is_none()) {
        tick.tick().await;
        if kill.is_cancelled() || Instant::now() > deadline {
            nodes.iter().for_each(|node| send(node, &[Signal::KILL]));
        }
    }
}

/// Each child leads a group of its own: Ctrl-C in the terminal must not reach all of them at once.
fn start(folder: &Folder, node: &mut Kept) -> anyhow::Result<()> {
    let name = &node.plan.name;
    let log = File::options().create(true).append(true).open(folder.log(name))?;
    let program = std::env::current_exe().context("where this program is")?;
    let child = Command::new(&program)
        .args(["start", "--config"])
        .arg(folder.config(name))
        .env(LIVES_WITH, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {name} with {}", program.display()))?;
    folder.remember(name, child.id())?;
    (node.child, node.ended) = (Some(child), None);
    Ok(())
}

fn send(node: &Kept, signals: &[Signal]) {
    let pid = node.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32));
    for signal in signals {
        // A child that has ended meanwhile is what was wanted.
        let _ = pid.map(|pid| kill_process_group(pid, *signal));
    }
}
