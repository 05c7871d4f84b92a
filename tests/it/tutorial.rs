//! `docs/tutorial.md`, executed: every block as it stands, in order, in one home folder, within five minutes.

use crate::real_model::model_file;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_tests::cluster::binary;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

const PAGE: &str = include_str!("../../docs/tutorial.md");
/// From the first block to the last, the build and the model left out.
const WHOLE: Duration = Duration::from_secs(300);
const FIRST_ANSWER: Duration = Duration::from_secs(60);
const BLOCK: Duration = Duration::from_secs(150);

/// A block's commands, and what its first comments say about running it.
#[derive(Debug, Default)]
struct Block {
    script: String,
    expected: Vec<String>,
    skipped: bool,
    own_terminal: bool,
    after_interrupt: bool,
}

fn blocks(page: &str) -> Vec<Block> {
    page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).map(block).collect()
}

fn block(text: &str) -> Block {
    let mut block = Block { script: text.to_string(), ..Block::default() };
    for line in text.lines().take_while(|line| line.starts_with("# ")) {
        match line {
            "# in a terminal of its own" => block.own_terminal = true,
            "# after Ctrl-C" => block.after_interrupt = true,
            line if line.starts_with("# not run: ") => block.skipped = true,
            line => block.expected.extend(line.strip_prefix("# expect ").map(str::to_string)),
        }
    }
    block
}

/// One reader of the page: a home, two terminals.
struct Reader {
    home: TempDir,
    exported: Vec<(String, String)>,
    cluster: Option<Child>,
}

impl Reader {
    fn new() -> anyhow::Result<Reader> {
        let home = tempfile::Builder::new().prefix("quorate-").tempdir()?;
        let models = model_file()?.parent().context("a folder of models")?.to_path_buf();
        std::os::unix::fs::symlink(models, home.path().join("models"))?;
        Ok(Reader { home, exported: vec![], cluster: None })
    }

    fn bash(&self, script: &str) -> anyhow::Result<Command> {
        let program = binary()?.parent().context("a folder")?.display().to_string();
        let path = format!("{program}:{}", std::env::var("PATH")?);
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(root()).env("PATH", path);
        command
            .env("QUORATE_HOME", self.home.path())
            .env_remove("QUORATE_PROJECT")
            .env_remove("QUORATE_ENDPOINT");
        command.envs(self.exported.iter().cloned()).stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// What it prints as `export NAME=VALUE` is pasted into the other terminal.
    async fn start(&mut self, script: &str) -> anyhow::Result<()> {
        // One process: bash makes way, so that Ctrl-C reaches the program itself.
        let last = script.lines().last().context("a command")?;
        let mut child =
            self.bash(&format!("exec {last}"))?.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        while self.exported.len() < 2 {
            let line = timeout(BLOCK, lines.next_line()).await.context("it did not come up")??;
            let line = line.context("it ended before it was up")?;
            let pair = line.strip_prefix("export ").and_then(|pair| pair.split_once('='));
            self.exported.extend(pair.map(|(name, value)| (name.to_string(), value.to_string())));
        }
        self.cluster = Some(child);
        Ok(())
    }

    async fn run(&self, block: &Block) -> anyhow::Result<()> {
        let output = timeout(BLOCK, self.bash(&block.script)?.output()).await;
        let output = output.with_context(|| format!("it did not end: {}", block.script))??;
        let said = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .join("\n");
        ensure!(output.status.success(), "{}\nended {}:\n{said}", block.script, output.status);
        for text in &block.expected {
            ensure!(said.contains(text), "{}\ndid not say {text:?}:\n{said}", block.script);
        }
        Ok(())
    }

    async fn interrupt(&mut self) -> anyhow::Result<()> {
        let mut child = self.cluster.take().context("the first terminal")?;
        let pid = Pid::from_raw(child.id().context("it runs")? as i32).context("a pid")?;
        kill_process(pid, Signal::INT)?;
        let status = timeout(BLOCK, child.wait()).await.context("it did not stop")??;
        ensure!(status.success(), "it ended {status}");
        Ok(())
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[tokio::test]
async fn the_tutorial_does_what_it_says_in_five_minutes() -> anyhow::Result<()> {
    let mut reader = Reader::new()?;
    let (begun, mut up) = (Instant::now(), None);
    for block in blocks(PAGE).iter().filter(|block| !block.skipped) {
        let started = Instant::now();
        if block.own_terminal {
            reader.start(&block.script).await?;
            up = Some(Instant::now());
        } else {
            if block.after_interrupt {
                reader.interrupt().await?;
            }
            reader.run(block).await?;
        }
        eprintln!(
            "{:>6} ms: {}",
            started.elapsed().as_millis(),
            block.script.lines().last().unwrap_or_default()
        );
        if block.script.contains("quorate run --agent reader --input \"A quorum") {
            let waited = up.context("a cluster before the first answer")?.elapsed();
            figure("tutorial_first_answer_ms", waited.as_millis());
            ensure!(waited < FIRST_ANSWER, "the first answer came after {waited:?}");
        }
    }
    figure("tutorial_ms", begun.elapsed().as_millis());
    ensure!(begun.elapsed() < WHOLE, "it took {:?}", begun.elapsed());
    ensure!(!reader.home.path().join("local").exists(), "the folder is still there");
    Ok(())
}

#[test]
fn blocks_are_read_with_what_they_ask_for() {
    let page =
        "text\n```sh\n# expect a b\n# expect c\nrun\n```\n```json\n{}\n```\n```sh\n# not run: why\nx\n```\n";
    let read = blocks(page);
    assert_eq!(read.len(), 2);
    assert_eq!(
        (read[0].expected.clone(), read[0].skipped, read[1].skipped),
        (vec!["a b".into(), "c".into()], false, true)
    );
    assert!(blocks(PAGE).iter().filter(|block| !block.skipped && !block.own_terminal).count() >= 8);
}
