//! `quorate context eval` and `suggest` as people run them, with the real model and no cluster.

use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, RecordedCall, RecordedSegment};
use quorate_tests::Spec;
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

/// Segments that know nothing of each other, and whose beginnings are read again.
#[tokio::test]
async fn segments_are_read_apart_and_their_beginnings_again() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), "calls.jsonl", &calls())?;
    let mut spent = Vec::new();
    for again in ["0", "8"] {
        let apart = ["--independent", "--again", again, "--exact", "--threads"];
        let one = eval(&file, &[&apart[..], &["1"]].concat()).await?;
        let two = eval(&file, &[&apart[..], &["2"]].concat()).await?;
        ensure!(one == two, "threads change the report");
        let report: Value = serde_json::from_str(&one)?;
        ensure!(verdict(&report, 0, "n1")? == "essential", "{one}");
        ensure!(verdict(&report, 1, "n1")? == "redundant-with", "{one}");
        for segment in report["calls"][0]["segments"].as_array().context("segments")? {
            ensure!(segment["necessity"] == segment["exact"], "to leave out is to remove: {segment}");
            ensure!(segment["attention"].is_null() && segment["bits"].is_number(), "{segment}");
        }
        spent.push(report["calls"][0]["tokens_spent"].as_u64().context("tokens")?);
    }
    ensure!(spent[1] > spent[0], "what is read again is counted: {spent:?}");
    let alone = cli("", &["context", "eval", "--calls", &file.display().to_string(), "--again", "8"]).await?;
    ensure!(
        !alone.status.success() && String::from_utf8_lossy(&alone.stderr).contains("--independent"),
        "{alone:?}"
    );
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

/// A small slice of `bench/evaluator.sh`: questions whose evidence is labelled, so that the ranking can be wrong. Exact
/// removal beside each takes a minute in a debug build; `make prove` asks more of them (QUORATE_QUESTIONS).
#[tokio::test]
async fn labelled_evidence_is_found_among_its_neighbours() -> anyhow::Result<()> {
    crate::real_model::model_file()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let data = std::env::var("QUORATE_TEST_DATA").unwrap_or_else(|_| "../shared/data".to_owned());
    let data = if Path::new(&data).is_absolute() { PathBuf::from(&data) } else { root.join(&data) };
    if !data.join("bfcl-memory").is_dir() {
        eprintln!("SKIPPED: bfcl-memory is not in {}; set QUORATE_TEST_DATA", data.display());
        return Ok(());
    }
    let out = tempfile::tempdir()?;
    let questions: u64 = std::env::var("QUORATE_QUESTIONS").map_or(Ok(1), |text| text.parse())?;
    let ran = tokio::process::Command::new("python3")
        .arg(root.join("bench/evaluator.py"))
        .args(["bfcl", "--wording", "notes", "--sample", &questions.to_string(), "--exact", "--quorate"])
        .arg(quorate_tests::cluster::binary()?)
        .arg("--data")
        .arg(&data)
        .arg("--out")
        .arg(out.path())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&ran.stdout);
    ensure!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    let found: Value = serde_json::from_str(said.lines().last().context("a result")?)?;
    let figure =
        |way: &str, what: &str| found[way][what].as_f64().with_context(|| format!("{way} {what}: {found}"));
    ensure!(found["calls"] == questions, "{found}");
    let evidence = figure("max(needed, enough)", "auroc_within")?;
    ensure!(evidence > 0.9, "{found}");
    let (spent, exact) = (figure("tokens", "spent")?, figure("tokens", "exact")?);
    ensure!(spent < exact / 2.0, "masking costs {spent} tokens a call, exact removal {exact}");
    Ok(())
}

/// What of a live task's context mattered is found by whichever node has the model, for those who may ask.
#[tokio::test]
async fn live_tasks_and_teams_are_evaluated_where_the_model_is() -> anyhow::Result<()> {
    crate::real_model::model_file()?;
    let spec = Spec { models: vec!["smollm2".into()], workers: 1, slots: 2, ..Spec::default() };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        let guard = "name = \"guard\"\nmodel = \"smollm2\"\nsystem = \"You guard the vault.\"\nmax_tokens = 12\ntemperature = 0\n";
        client.agents().apply(guard).send().await?;
        let team = "name = \"guards\"\nbackground = \"The vault is in the cellar.\"\n[fan_out]\nover = \"inputs\"\nagent = \"guard\"\n[then]\nagent = \"guard\"\n";
        client.agents().apply(team).send().await?;
        let task = client.tasks().create("guard").input(format!("{NEEDLE}What is the code?")).send().await?;
        succeeded(&client, &task.uid).await?;
        // Any node answers: a coordinator has no engine and asks the one that has.
        for node in ["coordinator-1", "worker-1"] {
            let client = cluster.client_of(node)?;
            let found = client.context().evaluate(&task.uid).suggest().page().audit_all().send().await?;
            let report: Value = serde_json::from_str(&found.report)?;
            let call = &report["calls"][0];
            ensure!(call["call"] == format!("{}/1", task.uid), "{report}");
            ensure!(call["segments"][0]["kind"] == "system", "{report}");
            ensure!((found.node.as_str(), found.model.as_str()) == ("worker-1", "smollm2"), "{found:?}");
            ensure!(found.tokens_spent > 0 && found.page.contains("You guard the vault."), "{found:?}");
            ensure!(found.suggestions.len() == 1 && !found.table.is_empty(), "{found:?}");
        }
        let endpoint = cluster.client_of("coordinator-1")?;
        let first = endpoint.context().evaluate(&task.uid).send().await?;
        let again = cluster.client_of("worker-1")?.context().evaluate(&task.uid).step(1).send().await?;
        ensure!(first.report == again.report, "two doors, two reports");
        refusals(&endpoint, &task.uid).await?;
        the_project_pays(&client, &task.uid).await?;

        let team = client.tasks().create("guards").input(NEEDLE).input(HAY[0]).send().await?;
        succeeded(&client, &team.uid).await?;
        let found = client.context().evaluate(&team.uid).team().send().await?;
        let report: Value = serde_json::from_str(&found.report)?;
        ensure!(report["calls"].as_array().is_some_and(|calls| calls.len() == 3), "two readers and one after: {report}");
        Ok(())
    })
    .await
}

/// What is computed is on the project's account; what the project doesn't have isn't computed.
async fn the_project_pays(client: &Client, task: &str) -> anyhow::Result<()> {
    const PATH: &str = "projects/default";
    let account = async || {
        crate::front::idle(client, PATH).await?;
        let quota = client.quotas().get(PATH).await?;
        let tokens = quota.limits.get("tokens_total").context("a project that used tokens")?;
        anyhow::Ok((tokens.used, tokens.reserved))
    };
    let (before, _) = account().await?;
    let found = client.context().evaluate(task).audit_all().send().await?;
    let (after, reserved) = account().await?;
    ensure!(after - before == found.tokens_spent, "{before} and {found:?} are {after}");
    ensure!(reserved == 0, "{reserved} are set aside for nothing");
    client.quotas().set(PATH).limit("tokens_total", Some(after + 5)).reason("test").send().await?;
    let refused = client.context().evaluate(task).send().await;
    ensure!(refused.as_ref().is_err_and(|error| error.reason == "QUOTA_EXCEEDED"), "{refused:?}");
    ensure!(account().await? == (after, 0), "what was refused was computed");
    client.quotas().set(PATH).limit("tokens_total", None).reason("test").send().await?;
    Ok(())
}

/// Each says why, by a stable reason.
async fn refusals(client: &Client, task: &str) -> anyhow::Result<()> {
    let evaluate = |task: &str| client.context().evaluate(task);
    let segment =
        |text: String| RecordedSegment { id: "s".into(), owner: "o".into(), text, ..Default::default() };
    let call = |text: String| RecordedCall {
        segments: vec![segment(text)],
        reader: "r".into(),
        probe: "p".into(),
        action: "a".into(),
        ..Default::default()
    };
    let nameless = RecordedCall { reader: String::new(), ..call("x".into()) };
    let calls = |call: RecordedCall| client.context().evaluate_calls(vec![call]);
    for (asked, reason) in [
        (evaluate(task).model("nobody-has-it"), "NO_SUCH_MODEL"),
        (evaluate(task).step(9), "NOT_FOUND"),
        (evaluate("t_nobody"), "NOT_FOUND"),
        (evaluate(task).budget_tokens(3), "EVALUATION_BUDGET"),
        (calls(call("word ".repeat(20_000))), "CONTEXT_TOO_LONG"),
        (calls(nameless), "INVALID_ARGUMENT"),
    ] {
        let refused = asked.send().await;
        ensure!(refused.as_ref().is_err_and(|error| error.reason == reason), "{reason}: {refused:?}");
    }
    Ok(())
}
