//! `quorate context eval` and `suggest` as people run them, with the real model and no cluster.

use crate::support::*;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const NEEDLE: &str = "The access code of the vault in the cellar is 7391.\n";
const HAY: [&str; 4] = [
    "The harvest of this year was better than that of the last, and the barns are full.\n",
    "Our office opens at nine in the morning and closes at five, except on holidays.\n",
    "The train to the coast leaves from the second platform and takes two hours.\n",
    "Paint the door green, and leave the windows as they are until the spring.\n",
];

fn segment(id: &str, owner: &str, text: &str) -> Value {
    json!({ "id": id, "owner": owner, "kind": "message", "text": text })
}

fn call(segments: &[Value]) -> String {
    let call = json!({
        "segments": segments,
        "reader": "guard",
        "probe": "Question: what is the access code of the vault?\nAnswer: the access code of the vault is",
        "action": " 7391.",
    });
    format!("{call}\n")
}

/// The needle once, and then twice, among hay.
fn calls() -> String {
    let hay: Vec<Value> =
        HAY.iter().enumerate().map(|(n, text)| segment(&format!("h{n}"), "clerk", text)).collect();
    let needle = |id: &str| segment(id, "keeper", NEEDLE);
    let once = [&hay[..2], &[needle("n1")], &hay[2..]].concat();
    let twice = [&[needle("n1")], &hay[..2], &[needle("n2")], &hay[2..]].concat();
    call(&once) + &call(&twice)
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let file = folder.join(name);
    std::fs::write(&file, text)?;
    Ok(file)
}

async fn eval(file: &Path, more: &[&str]) -> anyhow::Result<String> {
    let file = file.display().to_string();
    let arguments = [&["-o", "json", "context", "eval", "--calls", &file, "-m", "smollm2"], more].concat();
    let said = cli("", &arguments).await?;
    ensure!(said.status.success(), "{said:?}");
    Ok(String::from_utf8(said.stdout)?)
}

fn verdict<'a>(report: &'a Value, call: usize, id: &str) -> anyhow::Result<&'a str> {
    let segments = report["calls"][call]["segments"].as_array().context("segments")?;
    let segment = segments.iter().find(|segment| segment["id"] == id).context("the segment")?;
    segment["verdict"].as_str().context("a verdict")
}

#[tokio::test]
async fn recorded_calls_say_what_mattered_the_same_every_time() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), "calls.jsonl", &calls())?;
    let page = folder.path().join("page.html");
    let first =
        eval(&file, &["--threads", "1", "--audit-all", "--html", &page.display().to_string()]).await?;
    let again = eval(&file, &["--threads", "2", "--audit-all"]).await?;
    ensure!(first == again, "threads change the report");
    let report: Value = serde_json::from_str(&first)?;
    ensure!(report["model_sha256"].as_str().is_some_and(|sha| sha.len() == 64), "{first}");
    ensure!(verdict(&report, 0, "n1")? == "essential", "{first}");
    // Each of the two alone can go, both together can't.
    ensure!(verdict(&report, 1, "n1")? == "redundant-with", "{first}");
    for segment in report["calls"][1]["segments"].as_array().context("segments")? {
        let needle = segment["owner"] == "keeper";
        ensure!(segment["cluster_out"].as_f64().is_some_and(|nats| nats > 5.0) == needle, "{segment}");
        ensure!((segment["dup_of"] == "n1") == (segment["id"] == "n2"), "{segment}");
    }
    ensure!(report["calls"][0]["segments"].as_array().is_some_and(|all| all.len() == 5), "{first}");
    let page = std::fs::read_to_string(page)?;
    ensure!(page.contains("7391") && !page.contains("http://") && !page.contains("https://"), "the page");

    let suggested = cli("", &["context", "suggest", "--calls", &file.display().to_string()]).await?;
    let suggested = String::from_utf8(suggested.stdout)?;
    ensure!(suggested.contains("call 1:") && suggested.contains("call 2:"), "{suggested}");
    Ok(())
}

#[tokio::test]
async fn chat_logs_are_read_and_what_is_no_call_is_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let messages = json!([
        { "role": "system", "content": "You guard the vault." },
        { "role": "user", "content": NEEDLE },
        { "role": "assistant", "content": "Understood." },
        { "role": "user", "content": "What is the access code of the vault?" },
    ]);
    let response =
        json!({ "choices": [{ "message": { "role": "assistant", "content": "The code is 7391." } }] });
    let log = format!("{}\n", json!({ "messages": messages, "response": response }));
    let file = write(folder.path(), "log.jsonl", &log)?.display().to_string();
    let said = cli("", &["-o", "json", "context", "eval", "--openai", &file]).await?;
    ensure!(said.status.success(), "{said:?}");
    let report: Value = serde_json::from_slice(&said.stdout)?;
    ensure!(report["calls"].as_array().is_some_and(|calls| calls.len() == 1), "{report}");

    for (text, says) in [
        ("{}\n", "line 1"),
        ("", "no recorded call"),
        ("\n{\"segments\": 3}\n", "line 2"),
        ("not json\n", "line 1"),
    ] {
        let file = write(folder.path(), "bad.jsonl", text)?.display().to_string();
        let said = cli("", &["context", "eval", "--calls", &file]).await?;
        let error = String::from_utf8_lossy(&said.stderr);
        ensure!(!said.status.success() && error.contains(says), "{text:?}: {error}");
    }
    let both = cli("", &["context", "eval"]).await?;
    ensure!(both.status.code() == Some(2), "neither file: {both:?}");
    Ok(())
}
