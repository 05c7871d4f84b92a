//! `quorate doctor` on this machine: healthy nodes have no failing check, and every fault that is staged here, on real
//! files, ports, clocks, limits and nodes, is found by the check that is meant to.

use crate::support::*;
use anyhow::{Context, ensure};
use quorate_tests::cluster::binary;
use quorate_tests::{Clocks, Cluster, Secured, Spec, ports};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const DAY_MS: i64 = 86_400_000;

/// A secured coordinator that has never started.
struct Node {
    folder: TempDir,
    pki: Secured,
    ports: [u16; 3],
    more: String,
    environment: Vec<(String, String)>,
    /// What the program is started behind.
    before: Vec<String>,
}

impl Node {
    fn new() -> anyhow::Result<Node> {
        let folder = tempfile::Builder::new().prefix("quorate-").tempdir()?;
        let pki = Secured::make(&binary()?, folder.path().join("pki"))?;
        pki.node("n1")?;
        std::fs::create_dir(folder.path().join("data"))?;
        std::fs::set_permissions(folder.path().join("data"), std::fs::Permissions::from_mode(0o700))?;
        let ports = [ports::free(), ports::free(), ports::free()];
        Ok(Node { folder, pki, ports, more: String::new(), environment: vec![], before: vec![] })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.path("node.toml"), text)?)
    }

    /// The configuration of a node on which all is well.
    fn config(&self) -> String {
        let [clients, internal, http] = self.ports;
        format!(
            "name = \"n1\"\nroles = [\"coordinator\", \"worker\"]\ndata_dir = \"data\"\nmodels_dir = \"models\"\n\
             keys = \"pki/keys.toml\"\n[tls]\nca = \"pki/ca.crt\"\ncert = \"pki/n1.crt\"\nkey = \"pki/n1.key\"\n[listen]\n\
             clients = \"127.0.0.1:{clients}\"\ninternal = \"127.0.0.1:{internal}\"\nhttp = \"127.0.0.1:{http}\"\n\
             [engine]\nmodels = []\n{}",
            self.more
        )
    }

    async fn findings(&self) -> anyhow::Result<Vec<Value>> {
        if !self.path("node.toml").exists() {
            self.write(&self.config())?;
        }
        let program = binary()?.display().to_string();
        let file = self.path("node.toml").display().to_string();
        let line = ["-o", "json", "doctor", "--config", &file];
        let words: Vec<&str> =
            self.before.iter().map(String::as_str).chain([program.as_str()]).chain(line).collect();
        let mut command = tokio::process::Command::new(words[0]);
        command.args(&words[1..]).envs(self.environment.iter().cloned()).kill_on_drop(true);
        judged(tokio::time::timeout(PATIENCE, command.output()).await??)
    }
}

/// The findings; the exit code must be 1 exactly where one of them failed.
fn judged(output: std::process::Output) -> anyhow::Result<Vec<Value>> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_str(&out).with_context(|| format!("no JSON: {out} {err}"))?;
    let findings = value["findings"].as_array().context("findings")?.clone();
    let failed = findings.iter().any(|finding| finding["state"] == "fail");
    ensure!(output.status.code() == Some(i32::from(failed)), "{:?}: {out} {err}", output.status);
    ensure!(value["ok"] == !failed, "{out}");
    Ok(findings)
}

fn failing(findings: &[Value]) -> Vec<&Value> {
    findings.iter().filter(|finding| finding["state"] == "fail").collect()
}

/// The one that is wrong, with what it says; `ok` findings never count.
fn found(findings: &[Value], check: &str, words: &str) -> anyhow::Result<()> {
    let of_check: Vec<&Value> =
        findings.iter().filter(|it| it["check"] == check && it["state"] != "ok").collect();
    let said = of_check.iter().find(|it| it["what"].as_str().is_some_and(|what| what.contains(words)));
    let finding = said.with_context(|| format!("{check} does not say {words:?}: {findings:#?}"))?;
    for field in ["why", "next"] {
        ensure!(finding[field].as_str().is_some_and(|text| text.len() > 10), "no {field}: {finding}");
    }
    Ok(())
}

#[tokio::test]
async fn faults_of_files_and_configurations_are_found() -> anyhow::Result<()> {
    let node = Node::new()?;
    let healthy = node.findings().await?;
    ensure!(failing(&healthy).is_empty(), "a healthy node fails: {healthy:#?}");
    let text = node.config();

    node.write(&format!("colour = 1\n{text}"))?;
    found(&node.findings().await?, "config", "colour")?;
    node.write(&text.replace("name = \"n1\"", "name = \"n2\""))?;
    found(&node.findings().await?, "certificate", "\"n1\"")?;
    node.write(&text.replace("[tls]", "[advertise]\nclients = \"10.9.8.7:7400\"\n[tls]"))?;
    found(&node.findings().await?, "certificate", "others are told 10.9.8.7")?;
    node.write(&text.replace("models = []", "models = [\"smollm2\"]"))?;
    found(&node.findings().await?, "model", "not on this machine")?;
    node.write(&text.replace("[tls]", "join = [\"127.0.0.1:1\"]\n[tls]"))?;
    found(&node.findings().await?, "cluster", "127.0.0.1:1")?;
    node.write(&text)?;

    let key = node.path("pki/n1.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;
    found(&node.findings().await?, "key file", "others may read")?;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
    let keys = node.pki.keys_file();
    let entries = std::fs::read_to_string(&keys)?;
    std::fs::write(&keys, entries.replace("admin", "emperor"))?;
    found(&node.findings().await?, "API keys", "entry 1")?;
    std::fs::write(&keys, entries)?;
    let theirs = Secured::make(&binary()?, node.path("theirs"))?;
    let ca = std::fs::read(node.pki.ca_file())?;
    std::fs::copy(theirs.ca_file(), node.pki.ca_file())?;
    found(&node.findings().await?, "certificate", "not accepted")?;
    std::fs::write(node.pki.ca_file(), ca)?;

    let taken = std::net::TcpListener::bind(("127.0.0.1", node.ports[1]))?;
    found(&node.findings().await?, "ports", "listen.internal")?;
    drop(taken);
    std::fs::set_permissions(node.path("data"), std::fs::Permissions::from_mode(0o755))?;
    found(&node.findings().await?, "data folder", "mode 755")?;
    std::fs::set_permissions(node.path("data"), std::fs::Permissions::from_mode(0o700))?;
    let tomorrow = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
    std::fs::File::create(node.path("data/from-tomorrow"))?.set_modified(tomorrow)?;
    found(&node.findings().await?, "clock", "in the future")?;
    std::fs::remove_file(node.path("data/from-tomorrow"))?;
    std::fs::write(node.path("data/identity"), b"junk")?;
    found(&node.findings().await?, "identity", "damaged")?;
    std::fs::write(node.path("data/identity"), [0x86, 9, 9, 0x61, b'a', 0, 0, 0])?;
    found(&node.findings().await?, "identity", "format 9")?;
    std::fs::remove_file(node.path("data/identity"))?;
    std::fs::remove_dir(node.path("data"))?;
    std::fs::write(node.path("data"), "a file")?;
    found(&node.findings().await?, "data folder", "not a folder")
}

#[tokio::test]
async fn faults_of_the_machine_are_found() -> anyhow::Result<()> {
    let mut node = Node::new()?;
    node.write(&node.config())?;
    let behind = |script: &str| vec!["bash".into(), "-c".into(), format!("{script} && exec \"$0\" \"$@\"")];
    node.before = behind("ulimit -n 128");
    found(&node.findings().await?, "open files", "128 files")?;

    let data = node.path("data").display().to_string();
    let mounted = |script: String| {
        let start = ["unshare", "--user", "--map-root-user", "--mount"].map(String::from);
        start.into_iter().chain(behind(&script)).collect::<Vec<String>>()
    };
    node.before = mounted(format!("mount --bind {data} {data} && mount -o remount,bind,ro {data}"));
    found(&node.findings().await?, "data folder", "read-only")?;
    node.before = mounted(format!(
        "mount -t tmpfs -o size=1m,mode=700 none {data} && (head -c 2M /dev/zero > {data}/ballast; true) 2>/dev/null"
    ));
    found(&node.findings().await?, "data folder", "full")?;
    node.before = mounted(format!("mount -t tmpfs -o size=100m,mode=700 none {data}"));
    let small = node.findings().await?;
    found(&small, "disk space", "100.0 MiB")?;
    found(&small, "fsync", "in memory")?;
    node.before.clear();

    let clocks =
        Clocks::make(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("it/clock.c"), node.folder.path())?;
    node.environment = clocks.environment("n1")?;
    clocks.set("n1", -2 * DAY_MS)?;
    found(&node.findings().await?, "certificate", "holds only in")?;
    clocks.set("n1", 360 * DAY_MS)?;
    found(&node.findings().await?, "certificate", "ends in")?;
    clocks.set("n1", 400 * DAY_MS)?;
    found(&node.findings().await?, "certificate", "ended")
}

#[tokio::test]
async fn the_disk_that_does_not_keep_what_it_is_given_is_found() -> anyhow::Result<()> {
    let mut node = Node::new()?;
    let shim = node.path("fsync.so");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("it/fsync.c");
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&shim)
        .arg(source)
        .output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    node.environment =
        vec![("LD_PRELOAD".into(), shim.display().to_string()), ("QUORATE_TEST_FSYNC".into(), "fail".into())];
    found(&node.findings().await?, "data folder", "does not become durable")?;
    node.environment[1].1 = "400".into();
    found(&node.findings().await?, "fsync", "durable after 4")
}

/// The model's bytes changed after it was taken in, by a bit that no date tells of.
#[tokio::test]
async fn a_model_that_changed_is_found() -> anyhow::Result<()> {
    let node = Node::new()?;
    let models = node.path("models");
    std::fs::create_dir(&models)?;
    let file = models.join("tiny.gguf");
    std::fs::write(&file, b"GGUF and then some")?;
    let note = format!(
        "{{\"format\":1,\"min_reader\":1,\"bytes\":18,\"modified_ns\":1,\"digest\":\"{}\",\"sha256\":\"\"}}",
        "ab".repeat(32)
    );
    std::fs::write(models.join("tiny.json"), note)?;
    node.write(&node.config().replace("models = []", "models = [\"tiny\"]"))?;
    found(&node.findings().await?, "model", "not what was taken in")?;
    node.write(&node.config().replace("models = []", "models = [\"tiny\"]\nkv_bytes = 1000000000000000"))?;
    found(&node.findings().await?, "memory", "TiB")
}

/// Nodes of a running cluster are healthy, and what is wrong between nodes is seen from one of them.
#[tokio::test]
async fn nodes_of_a_cluster_are_judged_together() -> anyhow::Result<()> {
    let shim = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("it/clock.c");
    let spec = Spec {
        coordinators: 1,
        workers: 2,
        clock_shim: Some(shim),
        ..spec(&[reply("quick", "Understood.", "")])
    };
    on_cluster(spec, async |cluster| {
        for node in ["coordinator-1", "worker-1"] {
            let findings = of(cluster, node, &[]).await?;
            ensure!(failing(&findings).is_empty(), "{node}: {findings:#?}");
            let members = findings.iter().find(|it| it["check"] == "members").context("members")?;
            ensure!(members["state"] == "ok", "{members}");
        }
        let clocks = cluster.clocks.as_ref().context("clocks")?;
        clocks.set("worker-1", DAY_MS)?;
        let ahead = of(cluster, "worker-1", &clocks.environment_as_is("worker-1")).await?;
        found(&ahead, "clock", "ahead of the leader's")?;
        clocks.set("worker-1", 0)?;

        // Worker 1 is stopped; a process on a copy of its folder would run as it.
        let data = cluster.folder().join("worker-2");
        cluster.node_mut("worker-2")?.kill()?;
        let findings = of(cluster, "worker-1", &[]).await?;
        found(&findings, "members", "worker-2").or_else(|_| lease_not_over(&findings))?;
        std::fs::rename(&data, cluster.folder().join("kept"))?;
        copy(&cluster.folder().join("worker-1"), &data)?;
        found(&of(cluster, "worker-2", &[]).await?, "identity", "worker-1")?;
        Ok(())
    })
    .await
}

/// Right after a node's end the leader may still wait for its lease.
fn lease_not_over(findings: &[Value]) -> anyhow::Result<()> {
    ensure!(failing(findings).is_empty(), "{findings:#?}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    ensure!(std::process::Command::new("cp").arg("-r").arg(from).arg(to).status()?.success(), "cp");
    Ok(())
}

async fn of(cluster: &Cluster, node: &str, environment: &[(String, String)]) -> anyhow::Result<Vec<Value>> {
    let config = cluster.node(node)?.config().display().to_string();
    let mut command = tokio::process::Command::new(binary()?);
    command
        .args(["-o", "json", "doctor", "--config", &config])
        .envs(environment.iter().cloned())
        .kill_on_drop(true);
    judged(tokio::time::timeout(PATIENCE, command.output()).await??)
}

/// What `quorate dev` starts, before its first start; the table for people says the same.
#[tokio::test]
async fn a_node_of_dev_is_healthy() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let models = Path::new(&std::env::var("HOME")?).join(".local/share/quorate/models");
    if !models.join("smollm2.gguf").exists() {
        println!("skipped: smollm2 is not pulled");
        return Ok(());
    }
    std::os::unix::fs::symlink(models, home.path().join("models"))?;
    let run = async |line: &[&str]| {
        let mut command = tokio::process::Command::new(binary()?);
        command.args(line).env("QUORATE_HOME", home.path()).kill_on_drop(true);
        anyhow::Ok(tokio::time::timeout(PATIENCE, command.output()).await??)
    };
    let findings = judged(run(&["-o", "json", "doctor"]).await?)?;
    // Somebody else's node may hold the ports of `dev` on this machine.
    let failing = failing(&findings);
    ensure!(failing.iter().all(|it| it["check"] == "ports"), "{failing:#?}");
    let table = run(&["doctor"]).await?;
    let text = String::from_utf8_lossy(&table.stdout);
    ensure!(text.contains("ok    config") && text.contains("smollm2, digest"), "{text}");
    Ok(())
}
