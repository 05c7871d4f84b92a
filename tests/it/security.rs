//! Who gets in: certificates between nodes, keys at the door, projects that are not one's own.

use crate::submit::refused;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, Code, Credentials};
use quorate_tests::cluster::binary;
use quorate_tests::process::Ports;
use quorate_tests::{Cluster, Process, Secured, Spec, ports, until};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Handshakes may take 5 s; the rest is a busy machine.
const REFUSED: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_secured_cluster_serves_those_who_may() -> anyhow::Result<()> {
    let slow = reply("slow", &words(2000), "tokens_per_second = 20");
    let spec = Spec { workers: 1, secured: true, ..spec(&[reply("quick", "Understood.", ""), slow]) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?.with_project("a")?;
        apply(&client, &["quick", "slow"]).await?;
        client.tasks().create("quick").input("a secret of a").task_id("first").send().await?;
        succeeded(&client, "first").await?;
        roles_and_projects(cluster).await?;
        strangers_are_refused(cluster).await?;
        figures_need_a_key(cluster).await?;
        keys_are_read_again(cluster).await?;
        certificates_are_read_again(cluster).await?;
        a_node_of_another_ca_does_not_join(cluster).await?;
        it_goes_on_without_its_leader(cluster).await?;
        no_key_is_written_anywhere(cluster)
    })
    .await
}

fn secured(cluster: &Cluster) -> anyhow::Result<&Secured> {
    cluster.secured.as_ref().context("a secured cluster")
}

/// Makes keys, and waits until every node knows them.
async fn keys(cluster: &Cluster, wanted: &[(&str, &str, &str)]) -> anyhow::Result<Vec<String>> {
    let make = |(project, role, subject): &(&str, &str, &str)| secured(cluster)?.key(project, role, subject);
    let made = wanted.iter().map(make).collect::<anyhow::Result<Vec<_>>>()?;
    reload(cluster)?;
    for key in &made {
        known_everywhere(cluster, key, true).await?;
    }
    Ok(made)
}

fn reload(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.nodes.iter().filter(|node| node.pid().is_some()).try_for_each(Process::reload)
}

async fn known_everywhere(cluster: &Cluster, key: &str, known: bool) -> anyhow::Result<()> {
    let credentials = secured(cluster)?.credentials(key)?;
    for node in cluster.nodes.iter().filter(|node| node.pid().is_some()) {
        let client = Client::connect_with(&[node.address()], &credentials)?;
        until("the node has read its keys again", PATIENCE, || async {
            match client.cluster().models().await {
                Ok(_) => known.then_some(()),
                Err(error) => (error.code == Code::Unauthenticated && !known).then_some(()),
            }
        })
        .await?;
    }
    Ok(())
}

async fn roles_and_projects(cluster: &Cluster) -> anyhow::Result<()> {
    let made =
        keys(cluster, &[("a", "viewer", "ci"), ("b", "admin", "ci"), ("a", "submitter", "ci")]).await?;
    let [viewer, other, submitter] = [0, 1, 2].map(|n| cluster.client_with(&made[n]));
    let (viewer, other, submitter) = (viewer?.with_project("a")?, other?, submitter?.with_project("a")?);
    let first = viewer.tasks().get("first").await?;
    refused(viewer.tasks().create("quick").input("x").send().await, Code::PermissionDenied, "ROLE_TOO_LOW")?;
    submitter.tasks().create("quick").input("x").task_id("second").send().await?;
    succeeded(&submitter, "second").await?;

    // Another project's name is refused, whether there is such a task or not; its ids lead nowhere.
    let in_a = other.clone().with_project("a")?;
    for id in ["first", "nothing", &first.uid] {
        refused(in_a.tasks().get(id).await, Code::PermissionDenied, "PROJECT_DENIED")?;
        refused(in_a.tasks().cancel(id).await, Code::PermissionDenied, "PROJECT_DENIED")?;
    }
    let in_b = other.with_project("b")?;
    for id in ["first", &first.uid] {
        refused(in_b.tasks().get(id).await, Code::NotFound, "NOT_FOUND")?;
        refused(in_b.tasks().cancel(id).await, Code::NotFound, "NOT_FOUND")?;
        refused(in_b.context().get(id, true).await, Code::NotFound, "NOT_FOUND")?;
    }
    let result = first.result_hash.clone().context("a result")?;
    ensure!(viewer.context().read_text(&result).await? == "Understood.");
    ensure!(in_b.context().read_text(&result).await.is_err(), "a segment of another project is given");
    ensure!(in_b.tasks().list().page(None).await?.items.is_empty());

    // A project's admin is no admin of the cluster.
    refused(in_b.cluster().status().await, Code::PermissionDenied, "PROJECT_DENIED")?;
    refused(in_b.quotas().get("cluster").await, Code::PermissionDenied, "PROJECT_DENIED")?;
    refused(in_b.quotas().get("projects/a").await, Code::PermissionDenied, "PROJECT_DENIED")?;
    in_b.quotas().set("projects/b").limit("running", Some(3)).send().await?;
    let seen: Vec<String> = in_b.quotas().list().await?.into_iter().map(|quota| quota.path).collect();
    ensure!(seen == ["projects/b"], "{seen:?}");

    // One subject and one request id in two projects are two requests.
    apply(&in_b, &["quick"]).await?;
    let ours = submitter.tasks().create("quick").input("same").request_id("r1").send().await?;
    let theirs = in_b.tasks().create("quick").input("same").request_id("r1").send().await?;
    ensure!(ours.uid != theirs.uid && theirs.project == "b", "{theirs:?}");
    through_the_command_line(cluster, &made[0]).await
}

async fn through_the_command_line(cluster: &Cluster, key: &str) -> anyhow::Result<()> {
    let file = cluster.folder().join("viewer.key");
    std::fs::write(&file, format!("{key}\n"))?;
    let (file, ca) = (file.display().to_string(), secured(cluster)?.ca_file().display().to_string());
    let at = cluster.node("worker-1")?.address();
    let with = ["--ca", &ca, "--api-key-file", &file, "--project", "a", "-o", "json"];
    let said = cli(&at, &[&with[..], &["task", "get", "first"]].concat()).await?;
    ensure!(said.status.success(), "{said:?}");
    let said = cli(&at, &[&with[..], &["task", "cancel", "first"]].concat()).await?;
    ensure!(
        said.status.code() == Some(4) && String::from_utf8_lossy(&said.stderr).contains("ROLE_TOO_LOW"),
        "{said:?}"
    );
    let said = cli(&at, &["--ca", &ca, "task", "list"]).await?;
    ensure!(said.status.code() == Some(4), "without a key: {said:?}");
    let said = cli(&format!("https://{at}"), &["task", "list"]).await?;
    ensure!(
        said.status.code() == Some(2) && String::from_utf8_lossy(&said.stderr).contains("--ca"),
        "{said:?}"
    );
    std::fs::remove_file(&file)?;
    Ok(())
}

async fn strangers_are_refused(cluster: &Cluster) -> anyhow::Result<()> {
    for key in ["", "qk_nobodys"] {
        let client = cluster.client_with(key)?;
        refused(client.tasks().list().page(None).await, Code::Unauthenticated, "UNAUTHENTICATED")?;
        refused(client.cluster().init().await, Code::Unauthenticated, "UNAUTHENTICATED")?;
    }
    // In clear: an error, not a hang, on both ports.
    let node = cluster.node("coordinator-1")?;
    for port in [node.ports.clients, node.ports.internal] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        let mut answer = Vec::new();
        let ended = timeout(REFUSED, stream.read_to_end(&mut answer)).await;
        ensure!(ended.is_ok(), "plain text to port {port} hangs");
    }
    let begun = Instant::now();
    let plain = Client::connect(&[node.endpoint()])?.with_timeout(Duration::from_secs(3));
    let error = plain.cluster().status().await.err().context("it answers in clear")?;
    ensure!(error.next.as_ref().is_some_and(|next| next.contains("--ca")), "{error:?}");
    ensure!(begun.elapsed() < REFUSED, "a client in clear waits {:?}", begun.elapsed());
    // A silent connection is closed when the time for its handshake is over.
    let begun = Instant::now();
    let mut silent = TcpStream::connect(("127.0.0.1", node.ports.internal)).await?;
    let ended = timeout(REFUSED, silent.read_to_end(&mut Vec::new())).await;
    ensure!(ended.is_ok(), "a silent connection is kept");
    figure("handshake_timeout_ms", begun.elapsed().as_millis());
    // Clients' certificates of the right CA open the public port, and not the internal one.
    let dir = secured(cluster)?.ca_file().parent().context("a folder")?.to_path_buf();
    let made =
        ["cert", "client", "--dir", &dir.display().to_string(), "--name", "visitor", "--role", "admin"];
    let said = cli("", &[&made[..], &["--project", "*"]].concat()).await?;
    ensure!(said.status.success(), "{said:?}");
    let visitor = Credentials::default()
        .with_ca_file(&secured(cluster)?.ca_file())?
        .with_certificate_files(&dir.join("visitor.crt"), &dir.join("visitor.key"))?;
    Client::connect_with(&[node.address()], &visitor)?.cluster().status().await?;
    let inside = Client::connect_with(&[format!("127.0.0.1:{}", node.ports.internal)], &visitor)?;
    let error = inside.with_timeout(Duration::from_secs(2)).cluster().status().await.err();
    let error = error.context("a client is taken for a node")?;
    ensure!(error.code != Code::Unimplemented, "it got through the handshake: {error:?}");
    Ok(())
}

async fn figures_need_a_key(cluster: &Cluster) -> anyhow::Result<()> {
    let made = keys(cluster, &[("*", "viewer", "prometheus"), ("a", "admin", "curious")]).await?;
    let port = cluster.node("worker-1")?.ports.http;
    for (path, key, says) in [
        ("/healthz", "", "200"),
        ("/readyz", "", "200"),
        ("/metrics", "", "401"),
        ("/metrics", "qk_nobodys", "401"),
        ("/metrics", &made[1], "403"),
        ("/metrics", &made[0], "200"),
    ] {
        let answer = timeout(PATIENCE, http(port, path, key)).await??;
        ensure!(answer.split_whitespace().nth(1) == Some(says), "{path} answers {answer:.60}, not {says}");
    }
    let text = http(port, "/metrics", &made[0]).await?;
    ensure!(
        text.contains("quorate_tls_cert_expiry_seconds 1") && text.contains("quorate_requests_refused_total")
    );
    Ok(())
}

async fn http(port: u16, path: &str, key: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let authorization =
        if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{authorization}\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn keys_are_read_again(cluster: &Cluster) -> anyhow::Result<()> {
    let old = keys(cluster, &[("a", "viewer", "leaving")]).await?.remove(0);
    let admin = cluster.client()?.with_project("a")?;
    admin.tasks().create("slow").input("x").task_id("long").send().await?;
    let mut watch = cluster.client_with(&old)?.with_project("a")?.tasks().watch("long");
    watch_until(&mut watch, "it runs", |event| runs_on(event).is_some()).await?;
    let file = secured(cluster)?.keys_file();
    let text = std::fs::read_to_string(&file)?;
    let kept: Vec<&str> = text.split("[[keys]]").filter(|entry| !entry.contains("\"leaving\"")).collect();
    let before = kept.join("[[keys]]");
    // A broken file changes nothing.
    std::fs::write(&file, format!("{before}\n[[keys]]\nhash = 1\n"))?;
    reload(cluster)?;
    let node = cluster.node("coordinator-1")?;
    until("the node says what is wrong", PATIENCE, || async {
        node.log().contains("the API keys stay as they were").then_some(())
    })
    .await?;
    known_everywhere(cluster, &old, true).await?;
    std::fs::write(&file, before)?;
    let begun = Instant::now();
    let new = keys(cluster, &[("a", "viewer", "joining")]).await?.remove(0);
    known_everywhere(cluster, &old, false).await?;
    figure("keys_reloaded_on_all_nodes_ms", begun.elapsed().as_millis());
    // What was opened with the old key ends, too.
    let ended = timeout(REFUSED, async {
        loop {
            match watch.next().await {
                Ok(Some(_)) => {}
                ended => return ended,
            }
        }
    });
    refused(ended.await.context("the stream goes on")?, Code::Unauthenticated, "UNAUTHENTICATED")?;
    admin.tasks().cancel("long").await?;
    known_everywhere(cluster, &new, true).await
}

async fn certificates_are_read_again(cluster: &Cluster) -> anyhow::Result<()> {
    let dir = secured(cluster)?.ca_file().parent().context("a folder")?.to_path_buf();
    for node in &cluster.nodes {
        for ending in ["crt", "key"] {
            std::fs::remove_file(dir.join(format!("{}.{ending}", node.name)))?;
        }
        secured(cluster)?.node(&node.name)?;
    }
    reload(cluster)?;
    for node in &cluster.nodes {
        let new = fingerprint(&dir.join(format!("{}.crt", node.name)))?;
        until("the node shows its new certificate", PATIENCE, || async {
            shown(node).await.is_some_and(|shown| shown == new).then_some(())
        })
        .await?;
    }
    let client = cluster.client()?.with_project("a")?;
    client.tasks().create("quick").input("x").task_id("after-certificates").send().await?;
    succeeded(&client, "after-certificates").await?;
    Ok(())
}

/// The bytes of a certificate, as text.
fn fingerprint(file: &Path) -> anyhow::Result<String> {
    let pem = std::fs::read_to_string(file)?;
    Ok(pem.lines().filter(|line| !line.starts_with("-----")).collect())
}

/// The certificate that a node shows, as another implementation of TLS sees it.
async fn shown(node: &Process) -> Option<String> {
    const ASK: &str = "import ssl, sys; print(ssl.get_server_certificate(('127.0.0.1', int(sys.argv[1]))))";
    let mut python = tokio::process::Command::new("python3");
    let asked = python.args(["-c", ASK, &node.ports.clients.to_string()]).kill_on_drop(true).output();
    let text = String::from_utf8(timeout(PATIENCE, asked).await.ok()?.ok()?.stdout).ok()?;
    Some(text.lines().filter(|line| !line.starts_with("-----")).collect())
}

/// It trusts the cluster, so that it is the cluster that must refuse it.
async fn a_node_of_another_ca_does_not_join(cluster: &Cluster) -> anyhow::Result<()> {
    let members = cluster.client()?.cluster().nodes().await?.len();
    let stranger = Secured::make(&binary()?, cluster.folder().join("stranger-pki"))?;
    let tls = stranger.node("stranger")?;
    let both = [secured(cluster)?.ca_file(), stranger.ca_file()].map(std::fs::read_to_string);
    let [ours, theirs] = both;
    std::fs::write(stranger.ca_file(), ours? + &theirs?)?;
    let at = Ports { clients: ports::free(), internal: ports::free(), http: ports::free() };
    let join = cluster.node("coordinator-1")?.ports.internal;
    let (data, config) = (cluster.folder().join("stranger"), cluster.folder().join("stranger.toml"));
    std::fs::write(
        &config,
        format!(
            "name = \"stranger\"\nroles = [\"worker\"]\ndata_dir = {data:?}\njoin = [\"127.0.0.1:{join}\"]\n[listen]\n\
             clients = \"127.0.0.1:{}\"\ninternal = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n[engine]\nmodels = []\n{tls}",
            at.clients, at.internal, at.http
        ),
    )?;
    let mut node = Process::new("stranger", at, &binary()?, config, cluster.folder().join("stranger.log"));
    node.start()?;
    let coordinator = cluster.node("coordinator-1")?;
    until("the stranger is refused", PATIENCE, || async {
        let tried = node.log().contains("not joined yet");
        (tried && coordinator.log().contains("a connection was refused")).then_some(())
    })
    .await
    .with_context(|| node.log())?;
    ensure!(coordinator.log().contains("invalid peer certificate"), "{}", coordinator.log());
    ensure!(cluster.client()?.cluster().nodes().await?.len() == members, "the stranger became a member");
    node.kill()
}

async fn it_goes_on_without_its_leader(cluster: &mut Cluster) -> anyhow::Result<()> {
    let leader = cluster.leader().await?;
    cluster.node_mut(&leader)?.kill()?;
    let client = cluster.client()?.with_project("a")?;
    client.tasks().create("quick").input("x").task_id("without-leader").send().await?;
    succeeded(&client, "without-leader").await?;
    Ok(())
}

/// Not in a log, not in the Raft log, not in a segment, not in a configuration.
fn no_key_is_written_anywhere(cluster: &Cluster) -> anyhow::Result<()> {
    let key = secured(cluster)?.admin_key().as_bytes();
    let mut folders = vec![cluster.folder().to_path_buf()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            ensure!(
                !bytes.windows(key.len()).any(|window| window == key),
                "the key is in {}",
                path.display()
            );
            files += 1;
        }
    }
    ensure!(files > 20, "only {files} files were looked at");
    Ok(())
}
