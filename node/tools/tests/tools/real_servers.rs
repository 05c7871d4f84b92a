//! Calls of MCP servers as their makers publish them. `make tool-servers` installs them.

use crate::common::{call, failed, made, refused, runs, said, soon, toolbox, unknown, until};
use serde_json::json;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tools::{Policy, Toolbox};

/// Where `tests/tool-servers.sh` put a server.
fn server(path: &str) -> PathBuf {
    let folder = std::env::var("QUORATE_TOOL_SERVERS").unwrap_or_else(|_| {
        panic!("QUORATE_TOOL_SERVERS is not set: run `make tool-servers` and set it to .tools/tool-servers, as `make unit` does")
    });
    let server = Path::new(&folder).join(path);
    assert!(server.exists(), "{} is not there: run `make tool-servers`", server.display());
    server
}

fn one_server(name: &str, path: &str, arguments: &[&str], more: &str) -> Toolbox {
    let program = server(path).display().to_string();
    let command: Vec<String> = std::iter::once(program.as_str())
        .chain(arguments.iter().copied())
        .map(|s| format!("{s:?}"))
        .collect();
    toolbox(&format!("[mcp.{name}]\ncommand = [{}]\n{more}", command.join(", ")))
}

struct Desk {
    toolbox: Toolbox,
    folder: TempDir,
}

impl Desk {
    fn new(toolbox: Toolbox) -> Desk {
        Desk { toolbox, folder: tempfile::tempdir().expect("a folder") }
    }

    async fn call(&self, tool: &str, arguments: serde_json::Value) -> tools::Outcome {
        soon(tool, made(&self.toolbox, call(tool, arguments, self.folder.path()))).await
    }

    async fn names(&self, pattern: &str) -> Vec<String> {
        let specs = soon("specs", self.toolbox.specs(&[pattern.into()])).await.expect("specs");
        assert!(self.toolbox.left_out().is_empty(), "{:#?}", self.toolbox.left_out());
        specs.into_iter().map(|spec| spec.name).collect()
    }
}

#[tokio::test]
async fn time() {
    let desk = Desk::new(one_server("time", "python/bin/mcp-server-time", &["--local-timezone", "UTC"], ""));
    assert_eq!(desk.names("time.*").await, ["time.convert_time", "time.get_current_time"]);
    let specs = desk.toolbox.specs(&["time.get_current_time".into()]).await.expect("specs");
    assert_eq!(specs[0].policy, Policy::Idempotent);
    let now = said(desk.call("time.get_current_time", json!({"timezone": "Europe/Berlin"})).await);
    assert!(now.contains("Europe/Berlin"), "{now}");
    let wrong = failed(desk.call("time.get_current_time", json!({"timezone": "Mars/Base"})).await);
    assert!(wrong.to_lowercase().contains("timezone"), "{wrong}");
    assert_eq!(refused(desk.call("time.get_current_time", json!({"zone": 7})).await).0, "INVALID_ARGUMENTS");
    assert_eq!(refused(desk.call("time.stop", json!({})).await).0, "TOOL_NOT_FOUND");
}

#[tokio::test]
async fn git() {
    let repository = tempfile::tempdir().expect("a folder");
    let path = repository.path().display().to_string();
    let git = |arguments: &[&str]| {
        let done = Command::new("git").arg("-C").arg(&path).args(arguments).output().expect("git runs");
        assert!(done.status.success(), "{done:?}");
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["config", "user.email", "a@example.com"]);
    git(&["config", "user.name", "A"]);
    std::fs::write(repository.path().join("a.txt"), "one\n").expect("written");
    let desk = Desk::new(one_server("git", "python/bin/mcp-server-git", &["--repository", &path], ""));
    assert!(desk.names("git.git_*").await.contains(&"git.git_commit".to_string()));
    said(desk.call("git.git_add", json!({"repo_path": path, "files": ["a.txt"]})).await);
    said(desk.call("git.git_commit", json!({"repo_path": path, "message": "first"})).await);
    let log = said(desk.call("git.git_log", json!({"repo_path": path, "max_count": 5})).await);
    assert!(log.contains("first"), "{log}");
    failed(desk.call("git.git_status", json!({"repo_path": "no/such/repository"})).await);
    let specs = desk.toolbox.specs(&["git.git_commit".into(), "git.git_log".into()]).await.expect("specs");
    assert_eq!((specs[0].policy, specs[1].policy), (Policy::AtMostOnce, Policy::Idempotent));
}

#[tokio::test]
async fn fetch_is_listed_and_its_errors_are_answers() {
    let desk = Desk::new(one_server("fetch", "python/bin/mcp-server-fetch", &["--ignore-robots-txt"], ""));
    assert_eq!(desk.names("fetch.*").await, ["fetch.fetch"]);
    // Nothing listens there; a machine without any network gives the same answer.
    failed(desk.call("fetch.fetch", json!({"url": "http://127.0.0.1:9/"})).await);
    assert_eq!(refused(desk.call("fetch.fetch", json!({"url": ""})).await).0, "INVALID_ARGUMENTS");
    assert_eq!(refused(desk.call("fetch.fetch", json!({})).await).0, "INVALID_ARGUMENTS");
}

#[tokio::test]
async fn filesystem() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().canonicalize().expect("a path").display().to_string();
    let desk = Desk::new(one_server("fs", "node/node_modules/.bin/mcp-server-filesystem", &[&root], ""));
    assert!(desk.names("fs.*").await.len() > 8);
    said(desk.call("fs.write_file", json!({"path": format!("{root}/a.txt"), "content": "hello"})).await);
    let text = said(desk.call("fs.read_text_file", json!({"path": format!("{root}/a.txt")})).await);
    assert_eq!(text, "hello");
    failed(desk.call("fs.read_text_file", json!({"path": "/etc/hostname"})).await);
    let large = "x".repeat(1_500_000);
    said(desk.call("fs.write_file", json!({"path": format!("{root}/large.txt"), "content": large})).await);
    let outcome = desk.call("fs.read_text_file", json!({"path": format!("{root}/large.txt")})).await;
    assert!(
        matches!(&outcome, tools::Outcome::Answered { cut_bytes, .. } if *cut_bytes > 1_400_000),
        "{:?}",
        outcome.reason()
    );
}

#[tokio::test]
async fn everything_over_standard_input_and_output() {
    let desk = Desk::new(one_server(
        "every",
        "node/node_modules/.bin/mcp-server-everything",
        &[],
        "env = { SECRET_OF_NODE = \"no\" }",
    ));
    everything(&desk).await;
    let environment = said(desk.call("every.get-env", json!({})).await);
    assert!(
        environment.contains("SECRET_OF_NODE") && !environment.contains("CARGO_MANIFEST_DIR"),
        "{environment}"
    );
}

/// What holds over either transport.
async fn everything(desk: &Desk) {
    assert!(desk.names("every.*").await.contains(&"every.echo".to_string()));
    assert!(said(desk.call("every.echo", json!({"message": "hello"})).await).contains("hello"));
    assert!(said(desk.call("every.get-sum", json!({"a": 2, "b": 3})).await).contains('5'));
    let weather = said(desk.call("every.get-structured-content", json!({"location": "Chicago"})).await);
    assert!(!weather.contains("outputSchema"), "{weather}");
    let image = said(desk.call("every.get-tiny-image", json!({})).await);
    assert!(image.contains("[image image/png") && image.len() < 1000, "{image}");
    assert_eq!(refused(desk.call("every.get-sum", json!({"a": "two"})).await).0, "INVALID_ARGUMENTS");
    let mut long =
        call("every.trigger-long-running-operation", json!({"duration": 60, "steps": 2}), desk.folder.path());
    long.timeout_ms = Some(400);
    let begun = Instant::now();
    assert_eq!(unknown(soon("a long one", made(&desk.toolbox, long)).await).0, "TOOL_TIMEOUT");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(said(desk.call("every.echo", json!({"message": "again"})).await).contains("again"));
}

/// The server of everything as an HTTP server of its own; ended when dropped.
struct OverHttp {
    child: Child,
    port: u16,
}

impl OverHttp {
    async fn start(port: u16) -> OverHttp {
        let program = server("node/node_modules/.bin/mcp-server-everything");
        let child = Command::new(program)
            .arg("streamableHttp")
            .env("PORT", port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let server = OverHttp { child, port };
        until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        server
    }
}

impl Drop for OverHttp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

#[tokio::test]
async fn everything_over_http_lost_and_found() {
    let server = OverHttp::start(free_port()).await;
    let port = server.port;
    let desk = Desk::new(toolbox(&format!(
        "[mcp.every]\nurl = 'http://127.0.0.1:{port}/mcp'\nrestart = {{ first_ms = 10, most_ms = 10 }}"
    )));
    everything(&desk).await;
    let long = json!({"duration": 60, "steps": 60});
    let (outcome, ()) =
        tokio::join!(desk.call("every.trigger-long-running-operation", long.clone()), async {
            until("the call runs", || desk.toolbox.servers()[0].calls_in_flight == 1).await;
            drop(server);
        });
    assert!(
        matches!(outcome.reason(), Some("TOOL_CRASHED" | "TOOL_TIMEOUT" | "TOOL_UNAVAILABLE")),
        "{outcome:?}"
    );
    let (reason, message) = refused(desk.call("every.echo", json!({"message": "a"})).await);
    assert_eq!(reason, "TOOL_UNAVAILABLE", "{message}");
    let _again = OverHttp::start(port).await;
    let give_up = Instant::now() + crate::common::PATIENCE;
    while desk.call("every.echo", json!({"message": "a"})).await.reason().is_some() {
        assert!(Instant::now() < give_up, "the server is never found again");
    }
}

#[tokio::test]
async fn killed_servers_are_started_again() {
    let desk = Desk::new(one_server("time", "python/bin/mcp-server-time", &["--local-timezone", "UTC"], ""));
    let now = json!({"timezone": "UTC"});
    for _ in 0..3 {
        said(desk.call("time.get_current_time", now.clone()).await);
        let process_id = desk.toolbox.servers()[0].process_id.expect("it runs");
        let killed = Command::new("kill").args(["-9", &process_id.to_string()]).status().expect("kill runs");
        assert!(killed.success());
        until("it is dead", || !runs(process_id)).await;
        until("its end is seen", || !desk.toolbox.servers()[0].is_up).await;
    }
    said(desk.call("time.get_current_time", now).await);
    let state = desk.toolbox.servers().remove(0);
    assert_eq!((state.starts, state.failures), (4, 0));
}
