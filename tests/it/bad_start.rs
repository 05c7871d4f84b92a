//! Nodes that can't start, or shouldn't: the real binary says what is wrong and what to do next, and nothing is damaged.
//! Each mistake is staged as it happens to people: on real disks, ports, clocks, certificates and copied folders.

use crate::bad_input::says_all;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_tests::cluster::binary;
use quorate_tests::{Clocks, Cluster, Process, Secured, Spec, ports, until};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const DAY_MS: i64 = 86_400_000;

/// One node's folder, configuration and environment.
struct Staged {
    folder: TempDir,
    more: String,
    top: String,
    environment: Vec<(String, String)>,
}

impl Staged {
    fn new() -> anyhow::Result<Staged> {
        let folder = tempfile::Builder::new().prefix("quorate-").tempdir()?;
        Ok(Staged { folder, more: String::new(), top: String::new(), environment: vec![] })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> anyhow::Result<PathBuf> {
        let file = self.path("node.toml");
        let port = || format!("127.0.0.1:{}", ports::free());
        let listen = match self.more.contains("[listen]") {
            true => String::new(),
            false => format!(
                "[listen]\nclients = \"{}\"\ninternal = \"{}\"\nhttp = \"{}\"\n",
                port(),
                port(),
                port()
            ),
        };
        let text = format!(
            "name = \"n1\"\nroles = [\"coordinator\"]\ndata_dir = \"data\"\n{}{listen}{}",
            self.top, self.more
        );
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Starts the node, which must end by itself with exit code 1; what it said.
    async fn refused(&self) -> anyhow::Result<String> {
        let config = self.config()?.display().to_string();
        self.run(&[], &["start", "--config", &config]).await
    }

    /// The same behind another program, such as `unshare`.
    async fn run(&self, before: &[&str], arguments: &[&str]) -> anyhow::Result<String> {
        let program = binary()?.display().to_string();
        let words: Vec<&str> =
            before.iter().copied().chain([program.as_str()]).chain(arguments.iter().copied()).collect();
        let mut command = tokio::process::Command::new(words[0]);
        command.args(&words[1..]).envs(self.environment.iter().cloned()).kill_on_drop(true);
        let output =
            tokio::time::timeout(PATIENCE, command.output()).await.context("it went on running")??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{:?}: {said}", output.status);
        Ok(said)
    }

    /// Certificates of a CA of its own; those of the node come with `issue`.
    fn secured(&self) -> anyhow::Result<Secured> {
        Secured::make(&binary()?, self.path("pki"))
    }
}

/// Every file below a folder, with its bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            // The lock says who had the folder last; it is no data.
            false if path.ends_with("LOCK") => {}
            false => found.push((path.clone(), std::fs::read(&path).unwrap_or_default())),
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn an_unknown_key_is_named_with_those_that_exist() -> anyhow::Result<()> {
    let mut staged = Staged::new()?;
    staged.more = "[log]\nlevle = \"info\"\n".into();
    says_all(&staged.refused().await?, &["levle", "line", "level", "correct the spelling"])?;
    ensure!(!staged.path("data").exists(), "it made its data folder");
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_key() -> anyhow::Result<()> {
    let mut staged = Staged::new()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    staged.more =
        format!("[listen]\nclients = \"{address}\"\ninternal = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n");
    says_all(
        &staged.refused().await?,
        &["listen.clients", &address.to_string(), "in use", "set another in the config"],
    )
}

#[tokio::test]
async fn another_cas_certificate_is_refused_at_home() -> anyhow::Result<()> {
    let mut staged = Staged::new()?;
    let (ours, theirs) = (staged.secured()?, Secured::make(&binary()?, staged.path("theirs"))?);
    staged.more = theirs
        .node("n1")?
        .replace(&theirs.ca_file().display().to_string(), &ours.ca_file().display().to_string());
    says_all(&staged.refused().await?, &["n1.crt", "not accepted", "ca.crt", "quorate cert node"])?;
    ensure!(!staged.path("data").exists(), "it made its data folder");
    Ok(())
}

/// A clock that is a day behind makes a good certificate one of tomorrow, and one that is years ahead an old one.
#[tokio::test]
async fn certificates_out_of_their_time_are_told_with_the_clock() -> anyhow::Result<()> {
    let mut staged = Staged::new()?;
    staged.more = staged.secured()?.node("n1")?;
    let clocks = Clocks::make(&shim(), staged.folder.path())?;
    staged.environment = clocks.environment("n1")?;
    clocks.set("n1", -2 * DAY_MS)?;
    says_all(
        &staged.refused().await?,
        &["n1.crt", "holds only from", "this machine's clock says", "set the clock"],
    )?;
    clocks.set("n1", 400 * DAY_MS)?;
    says_all(
        &staged.refused().await?,
        &["n1.crt", "expired", "this machine's clock says", "quorate cert node"],
    )?;
    ensure!(!staged.path("data").exists(), "it made its data folder");
    Ok(())
}

fn shim() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("it/clock.c")
}

/// Below a mount namespace of its own, where the file system really is read-only, or really full.
async fn on_a_mount(staged: &Staged, mount: &str) -> anyhow::Result<String> {
    let config = staged.config()?.display().to_string();
    let script = format!("cd {} && {mount} && exec \"$0\" \"$@\"", staged.folder.path().display());
    staged
        .run(
            &["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", &script],
            &["start", "--config", &config],
        )
        .await
}

#[tokio::test]
async fn a_read_only_data_folder_is_told_as_what_it_is() -> anyhow::Result<()> {
    let staged = Staged::new()?;
    std::fs::create_dir(staged.path("data"))?;
    let said = on_a_mount(&staged, "mount --bind data data && mount -o remount,bind,ro data").await?;
    says_all(&said, &["data folder", "read-only", "mount it for writing"])?;
    ensure!(contents(&staged.path("data")).is_empty(), "it wrote");
    Ok(())
}

#[tokio::test]
async fn a_full_disk_is_told_as_what_it_is_and_keeps_what_it_has() -> anyhow::Result<()> {
    let staged = Staged::new()?;
    std::fs::create_dir(staged.path("data"))?;
    let full =
        "mount -t tmpfs -o size=64k none data && (head -c 1M /dev/zero > data/ballast; true) 2>/dev/null";
    says_all(&on_a_mount(&staged, full).await?, &["data folder", "No space left", "make room"])?;
    // Full only once the node has begun to write: the log or the segments can't grow.
    let nearly = "mount -t tmpfs -o size=200k none data";
    let said = on_a_mount(&staged, nearly).await?;
    says_all(&said, &["No space left"])
}

#[tokio::test]
async fn a_file_in_the_place_of_the_folder_is_told() -> anyhow::Result<()> {
    let staged = Staged::new()?;
    std::fs::write(staged.path("data"), "not a folder")?;
    says_all(&staged.refused().await?, &["data folder", "a folder of this node's own"])?;
    ensure!(std::fs::read(staged.path("data"))? == b"not a folder", "it changed the file");
    Ok(())
}

/// A small cluster whose worker is stopped, so that its folder can be tampered with.
fn spec_small() -> Spec {
    Spec { coordinators: 1, workers: 1, ..spec(&[reply("quick", "Understood.", "")]) }
}

#[tokio::test]
async fn a_newer_folder_is_left_as_it_is() -> anyhow::Result<()> {
    on_cluster(spec_small(), async |cluster| {
        cluster.node_mut("coordinator-1")?.stop()?;
        let data = cluster.folder().join("coordinator-1");
        let config = cluster.node("coordinator-1")?.config().display().to_string();
        // The first of each file's numbers is its format, the second the oldest reader that understands it.
        let identity = std::fs::read(data.join("identity"))?;
        let mut newer = identity.clone();
        (newer[1], newer[2]) = (9, 9);
        std::fs::write(data.join("identity"), &newer)?;
        let before = contents(&data);
        let said = start_alone(&config).await?;
        says_all(&said, &["identity", "format 9", "start the newer version again"])?;
        ensure!(contents(&data) == before, "a folder of a newer version was changed");
        Ok(())
    })
    .await
}

async fn start_alone(config: &str) -> anyhow::Result<String> {
    let output = tokio::time::timeout(PATIENCE, cli("127.0.0.1:1", &["start", "--config", config])).await??;
    ensure!(output.status.code() == Some(1), "{:?}: {}", output.status, text(&output));
    Ok(text(&output))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A data folder that was copied to make "another node" of it.
#[tokio::test]
async fn a_copied_folder_makes_no_second_node() -> anyhow::Result<()> {
    on_cluster(spec_small(), async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["quick"]).await?;
        for name in ["worker-1", "coordinator-1"] {
            let said = start_copy(cluster, name).await?;
            says_all(&said, &["another process runs as this node", "empty data_dir", "never copied"])?;
        }
        // Where others find the two is as it was, and they work on.
        let task = client.tasks().create("quick").input("x").send().await?.uid;
        succeeded(&client, &task).await?;
        let own = cluster.node("worker-1")?.ports.internal;
        let listed = client.cluster().node("worker-1").await?;
        ensure!(listed.state == "ready" && listed.internal_addr.ends_with(&own.to_string()), "{listed:?}");
        Ok(())
    })
    .await
}

/// The same configuration with other ports, on a copy of the folder; beside the running original.
async fn start_copy(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let (data, copy) = (cluster.folder().join(name), cluster.folder().join(format!("{name}-copy")));
    ensure!(Command::new("cp").arg("-r").arg(&data).arg(&copy).status()?.success(), "cp");
    let node = cluster.node(name)?;
    let mut text = std::fs::read_to_string(node.config())?;
    for port in [node.ports.clients, node.ports.internal, node.ports.http] {
        text = text.replace(&format!("\"127.0.0.1:{port}\""), &format!("\"127.0.0.1:{}\"", ports::free()));
    }
    // What it joins stays as it is.
    let join = std::fs::read_to_string(node.config())?
        .lines()
        .find(|line| line.starts_with("join"))
        .map(str::to_string);
    let lines = text.lines().map(|line| match (&join, line.starts_with("join")) {
        (Some(join), true) => join.clone(),
        _ => line.to_string(),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let text = text.replace(&data.display().to_string(), &copy.display().to_string());
    let config = cluster.folder().join(format!("{name}-copy.toml"));
    std::fs::write(&config, text)?;
    start_alone(&config.display().to_string()).await
}

/// The same name on an empty disk: the cluster refuses it, and says what to do.
#[tokio::test]
async fn a_known_name_with_another_disk_is_refused() -> anyhow::Result<()> {
    on_cluster(spec_small(), async |cluster| {
        let data = cluster.folder().join("worker-1");
        cluster.node_mut("worker-1")?.kill()?;
        std::fs::rename(&data, cluster.folder().join("lost"))?;
        let config = cluster.node("worker-1")?.config().display().to_string();
        says_all(&start_alone(&config).await?, &["worker-1", "disk was another one", "another `name`"])?;
        std::fs::remove_dir_all(&data)?;
        std::fs::rename(cluster.folder().join("lost"), &data)?;
        cluster.node_mut("worker-1")?.start()?;
        cluster.wait_ready(2).await
    })
    .await
}

/// Good at home, and of another CA than the cluster's: it can't know more, and its log says what is tried.
#[tokio::test]
async fn a_stranger_of_another_ca_does_not_join() -> anyhow::Result<()> {
    let spec = Spec { secured: true, ..spec_small() };
    on_cluster(spec, async |cluster| {
        let theirs = Secured::make(&binary()?, cluster.folder().join("theirs"))?;
        let mut stranger = outsider(cluster, "stranger", &theirs.node("stranger")?)?;
        stranger.start()?;
        let told = async || {
            let log = stranger.log();
            (log.contains("not joined yet") && log.contains("ca.crt")).then_some(log)
        };
        until("the stranger's log says why it has not joined", PATIENCE, told)
            .await
            .with_context(|| stranger.log())?;
        ensure!(cluster.client()?.cluster().nodes().await?.len() == 2, "the stranger is a member");
        Ok(())
    })
    .await
}

fn outsider(cluster: &Cluster, name: &str, more: &str) -> anyhow::Result<Process> {
    let ports = quorate_tests::process::Ports {
        clients: ports::free(),
        internal: ports::free(),
        http: ports::free(),
    };
    let config = cluster.folder().join(format!("{name}.toml"));
    let seed = cluster.node("coordinator-1")?.ports.internal;
    let text = format!(
        "name = {name:?}\nroles = [\"worker\"]\ndata_dir = \"{name}\"\njoin = [\"127.0.0.1:{seed}\"]\n[listen]\n\
         clients = \"127.0.0.1:{}\"\ninternal = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n[engine]\nmodels = []\n{more}",
        ports.clients, ports.internal, ports.http
    );
    std::fs::write(&config, text)?;
    Ok(Process::new(name, ports, &binary()?, config, cluster.folder().join(format!("{name}.log"))))
}

/// Without certificates a wrong clock keeps nobody out; it is told, and the cluster's time stays right.
#[tokio::test]
async fn a_clock_that_is_a_day_off_is_told_and_changes_no_time() -> anyhow::Result<()> {
    let spec = Spec { clock_shim: Some(shim()), ..spec_small() };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["quick"]).await?;
        let clocks = cluster.clocks.clone().context("clocks that can be set")?;
        cluster.node_mut("worker-1")?.stop()?;
        clocks.set("worker-1", DAY_MS)?;
        cluster.node_mut("worker-1")?.start()?;
        let worker = cluster.node("worker-1")?;
        let told = async || {
            let log = worker.log();
            (log.contains("clock and the leader's differ") && log.contains("quorate doctor")).then_some(())
        };
        until("the worker's log tells of its clock", PATIENCE, told).await.with_context(|| worker.log())?;
        let ahead = metric(worker, "quorate_clock_ahead_seconds ").await?.context("the metric")?;
        ensure!((ahead - 86_400.0).abs() < 60.0, "{ahead}");
        let task = client.tasks().create("quick").input("x").send().await?.uid;
        let done = succeeded(&client, &task).await?;
        let made = done.create_time;
        let now = String::from_utf8(Command::new("date").args(["-u", "+%Y-%m-%d"]).output()?.stdout)?;
        ensure!(made.to_string().contains(now.trim()), "{made} is not of today, {now}");
        Ok(())
    })
    .await
}

/// A key that others may read starts, and is told; the folder that the node makes is its owner's alone.
#[tokio::test]
async fn a_key_that_others_may_read_is_told() -> anyhow::Result<()> {
    let mut staged = Staged::new()?;
    staged.more = staged.secured()?.node("n1")?;
    let key = staged.path("pki/n1.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;
    let config = staged.config()?;
    let port = ports::free();
    let mut node = Process::new(
        "n1",
        quorate_tests::process::Ports { clients: port, internal: port, http: port },
        &binary()?,
        config,
        staged.path("n1.log"),
    );
    node.start()?;
    let told = async || node.log().contains("waiting for").then(|| node.log());
    let log = until("the node listens", PATIENCE, told).await.with_context(|| node.log())?;
    says_all(&log, &["others may read this node's key", "chmod 600"])?;
    let mode = staged.path("data").metadata()?.permissions().mode() & 0o777;
    ensure!(mode == 0o700, "the data folder has mode {mode:o}");
    Ok(())
}
