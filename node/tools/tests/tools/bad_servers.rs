//! Calls of a server that errs, hangs, crashes, lies and talks nonsense.

use crate::common::{call, failed, made, refused, runs, said, soon, toolbox, unknown, until};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tools::{CancellationToken, Policy, Toolbox};

struct Fake {
    toolbox: Toolbox,
    folder: TempDir,
}

impl Fake {
    fn new(mode: &str, more: &str) -> Fake {
        let folder = tempfile::tempdir().expect("a folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_mcp.py");
        let log = folder.path().join("log");
        let command = ["python3", &script.display().to_string(), &log.display().to_string(), mode]
            .map(|s| format!("{s:?}"));
        let toml = format!("[mcp.fake]\ncommand = [{}]\n{more}", command.join(", "));
        Fake { toolbox: toolbox(&toml), folder }
    }

    fn log(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_string).collect()
    }

    fn has(&self, beginning: &str) -> bool {
        self.log().iter().any(|line| line.starts_with(beginning))
    }

    async fn call(&self, tool: &str, arguments: serde_json::Value) -> tools::Outcome {
        soon(tool, made(&self.toolbox, call(&format!("fake.{tool}"), arguments, self.folder.path()))).await
    }

    async fn call_for(&self, tool: &str, timeout_ms: u64) -> tools::Outcome {
        let mut call = call(&format!("fake.{tool}"), json!({}), self.folder.path());
        call.timeout_ms = Some(timeout_ms);
        soon(tool, made(&self.toolbox, call)).await
    }

    async fn echo(&self) {
        assert_eq!(said(self.call("echo", json!({"text": "hello"})).await), "hello");
    }

    fn process_id(&self) -> Option<u32> {
        self.toolbox.servers()[0].process_id
    }
}

#[tokio::test]
async fn tools_are_listed_over_pages_and_nothing_starts_before() {
    let fake = Fake::new("", "allow = ['e*', 'grow', 'break_*']");
    assert!(fake.log().is_empty(), "nothing was asked yet");
    assert!(fake.toolbox.specs(&["files.*".into()]).await.is_ok());
    assert!(fake.log().is_empty(), "files are no reason to start it");
    let specs = fake.toolbox.specs(&["fake.*".into(), "files.read".into()]).await.expect("specs");
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["fake.break_promise", "fake.echo", "fake.grow", "files.read"]);
    assert_eq!((specs[1].policy, specs[2].policy), (Policy::Idempotent, Policy::AtMostOnce));
    let error = fake.toolbox.specs(&["fake.missing".into()]).await.expect_err("missing");
    assert!(error.reason() == "TOOL_NOT_FOUND" && error.to_string().contains("fake.echo"), "{error}");
    assert_eq!(refused(fake.call("hang", json!({})).await).0, "TOOL_NOT_FOUND", "not allowed is not there");
}

#[tokio::test]
async fn the_operation_id_arrives_and_arguments_off_schema_do_not() {
    let fake = Fake::new("", "");
    fake.echo().await;
    assert!(fake.has("call echo t_0000000001k00000/3/0"), "{:?}", fake.log());
    for wrong in [json!({}), json!({"text": 7}), json!({"text": "a", "more": 1}), json!("text"), json!(null)]
    {
        let (reason, message) = refused(fake.call("echo", wrong).await);
        assert_eq!(reason, "INVALID_ARGUMENTS", "{message}");
    }
    assert_eq!(fake.log().iter().filter(|line| line.starts_with("call")).count(), 1);
}

#[tokio::test]
async fn errors_of_a_tool_are_its_answers() {
    let fake = Fake::new("", "");
    assert_eq!(failed(fake.call("fail", json!({})).await), "the disk is full");
    assert!(failed(fake.call("rpc_error", json!({})).await).contains("out of cheese"));
    assert!(failed(fake.call("odd", json!({})).await).contains("hologram"));
    assert_eq!(said(fake.call("nothing", json!({})).await), "");
}

#[tokio::test]
async fn a_hanging_call_ends_at_its_time_and_holds_no_place() {
    let fake = Fake::new("", "concurrent = 1");
    fake.echo().await;
    let before = fake.process_id();
    let begun = Instant::now();
    let (reason, message) = unknown(fake.call_for("hang", 300).await);
    assert_eq!(reason, "TOOL_TIMEOUT", "{message}");
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    fake.echo().await;
    until("the server was told", || fake.has("cancelled")).await;
    assert_eq!(fake.process_id(), before, "others go on with the same server");
    assert_eq!(fake.toolbox.servers()[0].calls_in_flight, 0);
}

#[tokio::test]
async fn a_call_that_finds_no_place_in_its_time_did_not_happen() {
    let fake = Fake::new("", "concurrent = 1");
    fake.echo().await;
    let (long, short) = tokio::join!(fake.call_for("hang", 1500), async {
        until("the first call arrived", || fake.has("call hang")).await;
        fake.call_for("quiet", 200).await
    });
    assert_eq!(unknown(long).0, "TOOL_TIMEOUT");
    assert_eq!(refused(short).0, "TOOL_BUSY");
    assert!(!fake.has("call quiet"));
}

#[tokio::test]
async fn other_calls_go_on_beside_a_hanging_one() {
    let fake = Fake::new("", "");
    let stop = CancellationToken::new();
    let hanging = fake.toolbox.call(call("fake.hang", json!({}), fake.folder.path()), stop.clone());
    let others = async {
        until("the call arrived", || fake.has("call hang")).await;
        for _ in 0..20 {
            fake.echo().await;
        }
        stop.cancel();
    };
    let (outcome, ()) = soon("both", async { tokio::join!(hanging, others) }).await;
    assert_eq!(unknown(outcome).0, "TOOL_STOPPED");
    until("the server was told", || fake.has("cancelled")).await;
}

#[tokio::test]
async fn a_server_that_answers_nothing_any_more_is_replaced() {
    let fake = Fake::new("", "");
    fake.echo().await;
    let before = fake.process_id().expect("it runs");
    assert_eq!(unknown(fake.call_for("freeze", 200).await).0, "TOOL_TIMEOUT");
    until("the stuck process is gone", || !runs(before)).await;
    fake.echo().await;
    assert_ne!(fake.process_id(), Some(before));
}

#[tokio::test]
async fn a_crash_in_mid_call_is_unknown_and_the_server_comes_back() {
    let fake = Fake::new("", "");
    fake.echo().await;
    let before = fake.process_id();
    let (reason, message) = unknown(fake.call("crash", json!({})).await);
    assert_eq!(reason, "TOOL_CRASHED");
    assert!(message.contains("the moon is round"), "{message}");
    assert!(fake.toolbox.servers()[0].failures > 0);
    fake.echo().await;
    assert_ne!(fake.process_id(), before);
    assert_eq!(fake.toolbox.servers()[0].failures, 0);
    assert_eq!(
        fake.log().iter().filter(|line| line.starts_with("call crash")).count(),
        1,
        "nothing is repeated here"
    );
}

#[tokio::test]
async fn a_server_that_crashes_again_and_again_is_left_alone() {
    let fake = Fake::new("exit", "restart = { first_ms = 5000, most_ms = 60000 }");
    let (reason, message) = refused(fake.call("echo", json!({"text": "a"})).await);
    assert!(reason == "TOOL_UNAVAILABLE" && message.contains("no licence found"), "{message}");
    for _ in 0..10 {
        let (reason, message) = refused(fake.call("echo", json!({"text": "a"})).await);
        assert!(reason == "TOOL_UNAVAILABLE" && message.contains("left alone"), "{message}");
    }
    assert_eq!(fake.log().len(), 1, "one start: {:?}", fake.log());
    let error = fake.toolbox.specs(&["fake.*".into()]).await.expect_err("unavailable");
    assert_eq!(error.reason(), "TOOL_UNAVAILABLE");
}

#[tokio::test]
async fn a_server_that_never_gets_ready_is_ended() {
    let fake = Fake::new("never-ready", "start_timeout_ms = 700");
    let (reason, message) = refused(fake.call("echo", json!({"text": "a"})).await);
    assert!(reason == "TOOL_UNAVAILABLE" && message.contains("700 ms"), "{message}");
    let started: u32 = fake.log()[0].trim_start_matches("start ").parse().expect("a number");
    until("its process is gone", || !runs(started)).await;
}

#[tokio::test]
async fn a_call_shorter_than_the_start_is_refused_and_the_start_goes_on() {
    let fake = Fake::new("", "");
    assert_eq!(refused(fake.call_for("quiet", 1).await).0, "TOOL_UNAVAILABLE");
    until("the start was finished without a caller", || fake.toolbox.servers()[0].is_up).await;
    assert_eq!(fake.toolbox.servers()[0].starts, 1);
    fake.echo().await;
}

#[tokio::test]
async fn many_callers_start_one_server() {
    let fake = Fake::new("", "concurrent = 64");
    let calls = (0..64).map(|_| fake.echo());
    soon("all", futures::future::join_all(calls)).await;
    assert_eq!(fake.log().iter().filter(|line| line.starts_with("start")).count(), 1);
}

#[tokio::test]
async fn a_command_that_is_not_there_is_said_so() {
    let toolbox = toolbox("[mcp.gone]\ncommand = ['quorate-no-such-command']");
    let folder = tempfile::tempdir().expect("a folder");
    let (reason, message) = refused(made(&toolbox, call("gone.x", json!({}), folder.path())).await);
    assert!(reason == "TOOL_UNAVAILABLE" && message.contains("quorate-no-such-command"), "{message}");
}

#[tokio::test]
async fn ten_megabytes_are_cut_and_counted() {
    let fake = Fake::new("", "output_bytes = 10000");
    fake.echo().await;
    let begun = Instant::now();
    let outcome = fake.call("big", json!({"bytes": 10_000_000})).await;
    println!("figure ten_megabytes_ms {}", begun.elapsed().as_millis());
    let tools::Outcome::Answered { text, is_error: false, cut_bytes } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(text.len() <= 10_000 && text.contains("bytes cut]"), "{}", text.len());
    assert!(cut_bytes > 9_990_000, "{cut_bytes}");
    fake.echo().await;
}

#[tokio::test]
async fn a_thousand_calls_are_answered() {
    let fake = Fake::new("", "");
    fake.echo().await;
    let mut times_us: Vec<u128> = Vec::new();
    for _ in 0..1000 {
        let begun = Instant::now();
        fake.echo().await;
        times_us.push(begun.elapsed().as_micros());
    }
    times_us.sort_unstable();
    println!("figure tool_call_us {} p99 {}", times_us[500], times_us[990]);
    assert_eq!(fake.log().iter().filter(|line| line.starts_with("call echo")).count(), 1001);
}

#[tokio::test]
async fn a_message_over_the_bound_is_dropped_and_the_server_goes_on() {
    let fake = Fake::new("", "message_bytes = 100000");
    fake.echo().await;
    let text = failed(fake.call("big", json!({"bytes": 1_000_000})).await);
    assert!(text.contains("was dropped"), "{text}");
    fake.echo().await;
}

#[tokio::test]
async fn nonsense_on_standard_output_is_no_answer() {
    let fake = Fake::new("garbage", "");
    assert_eq!(said(fake.call("garbage", json!({})).await), "still here");
    fake.echo().await;
}

#[tokio::test]
async fn lies_about_schemas_are_left_out_and_results_off_schema_are_said() {
    let fake = Fake::new("lies", "");
    fake.echo().await;
    fake.toolbox.specs(&["fake.*".into()]).await.expect("specs");
    let left_out = fake.toolbox.left_out();
    for name in ["broken_schema", "no_schema", "text_schema", "outside", "echo", "bad name!"] {
        let left = left_out.iter().find(|left| left.tool == format!("fake.{name}"));
        assert!(left.is_some_and(|left| !left.reason.is_empty()), "{name}: {left_out:#?}");
    }
    let (reason, message) = refused(fake.call("broken_schema", json!({})).await);
    assert!(reason == "TOOL_NOT_FOUND" && message.contains("left out"), "{message}");
    assert_eq!(said(fake.call("promise", json!({})).await), "warm");
    let broken = said(fake.call("break_promise", json!({})).await);
    assert!(broken.starts_with("[this result is not what") && broken.ends_with("warm"), "{broken}");
}

#[tokio::test]
async fn tools_that_appear_are_found() {
    let fake = Fake::new("", "");
    assert_eq!(refused(fake.call("grown_0", json!({})).await).0, "TOOL_NOT_FOUND");
    said(fake.call("grow", json!({})).await);
    let give_up = Instant::now() + crate::common::PATIENCE;
    while fake.toolbox.specs(&["fake.grown_0".into()]).await.is_err() {
        assert!(Instant::now() < give_up, "the list was never asked for again");
    }
    assert_eq!(said(fake.call("grown_0", json!({})).await), "done");
    assert_eq!(fake.toolbox.servers()[0].starts, 1);
}

#[tokio::test]
async fn a_closed_toolbox_leaves_no_process() {
    let fake = Fake::new("", "");
    let grandchild: u32 = said(fake.call("spawn", json!({})).await).parse().expect("a number");
    let server = fake.process_id().expect("it runs");
    assert!(runs(server) && runs(grandchild));
    let log = fake.folder;
    drop(fake.toolbox);
    until("server and what it started are gone", || !runs(server) && !runs(grandchild)).await;
    drop(log);
}

#[tokio::test]
async fn closing_ends_running_calls() {
    let fake = Fake::new("", "");
    fake.echo().await;
    let (outcome, ()) = tokio::join!(fake.call("hang", json!({})), async {
        until("the call arrived", || fake.has("call hang")).await;
        fake.toolbox.close();
    });
    assert_eq!(unknown(outcome).0, "TOOL_CRASHED");
    assert_eq!(refused(fake.call("echo", json!({"text": "a"})).await).0, "TOOL_UNAVAILABLE");
}
