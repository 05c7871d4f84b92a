//! One `quorate start` process.

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub clients: u16,
    pub internal: u16,
    pub http: u16,
}

/// A node: its config, its data folder, and the process while it runs. Dropping it ends the process.
pub struct Process {
    pub name: String,
    pub ports: Ports,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// Beside what this process has.
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Process {
    pub fn new(name: &str, ports: Ports, binary: &Path, config: PathBuf, log: PathBuf) -> Self {
        Process {
            name: name.into(),
            ports,
            binary: binary.into(),
            config,
            log,
            environment: vec![],
            child: None,
        }
    }

    /// For its next start.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    /// Another build, for its next start.
    pub fn set_binary(&mut self, binary: &Path) {
        self.binary = binary.into();
    }

    /// What it runs, or will.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.binary)
            .args(["start", "--config"])
            .arg(&self.config)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.clients)
    }

    /// The same without a scheme, for clients that know by themselves how it is spoken to.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.clients)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// True while the process has not ended by itself.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How the process ended by itself; None while it runs.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// The process gone as if the machine had lost power, but for the disk cache.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, then waits for the end.
    pub fn stop(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        signal(pid, Signal::TERM)?;
        Ok(self.child.take().expect("it has a pid").wait()?)
    }

    /// SIGHUP: it reads its log level, certificates and keys again.
    pub fn reload(&self) -> anyhow::Result<()> {
        signal(self.pid().context("it does not run")?, Signal::HUP)
    }

    /// SIGSTOP: the process stands still, its sockets stay open.
    pub fn freeze(&self) -> anyhow::Result<()> {
        signal(self.pid().context("it does not run")?, Signal::STOP)
    }

    pub fn thaw(&self) -> anyhow::Result<()> {
        signal(self.pid().context("it does not run")?, Signal::CONT)
    }

    /// What the node said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident bytes and CPU ticks (user and system) of the process.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let pid = self.pid().context("it does not run")?;
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let after_name = stat.rsplit(')').next().context("a stat line")?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        Ok(Usage {
            rss_bytes: kib(&smaps, "Rss:") * 1024,
            pss_bytes: kib(&smaps, "Pss:") * 1024,
            cpu_ticks: ticks(11) + ticks(12),
        })
    }

    /// Resident bytes of mapped files whose names end so.
    pub fn resident_of(&self, ending: &str) -> anyhow::Result<u64> {
        let pid = self.pid().context("it does not run")?;
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
        let (mut ours, mut bytes) = (false, 0);
        for line in smaps.lines() {
            // Attributes begin with a capital letter, mappings with their address.
            if !line.starts_with(|first: char| first.is_ascii_uppercase()) {
                ours = line.ends_with(ending);
            } else if ours && line.starts_with("Rss:") {
                bytes += kib(line, "Rss:") * 1024;
            }
        }
        Ok(bytes)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub rss_bytes: u64,
    /// As `rss_bytes`, but a page that n processes share counts for an nth in each.
    pub pss_bytes: u64,
    /// Hundredths of a second on Linux.
    pub cpu_ticks: u64,
}

fn kib(smaps: &str, key: &str) -> u64 {
    let line = smaps.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(pid as i32).context("a process id")?;
    Ok(kill_process(pid, signal)?)
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
