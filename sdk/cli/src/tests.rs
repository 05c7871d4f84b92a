//! What users see: help, tables and JSON from fixed values, and how verbs end.

use super::*;
use clap::{CommandFactory, Parser};
use quorate_sdk::Class;
use quorate_sdk::data::*;
use serde::Serialize;
use std::collections::BTreeMap;

/// Agents on your own machines
#[derive(Parser, Debug)]
#[command(name = "quorate")]
struct Line {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

fn parse(line: &str) -> Result<Line, clap::Error> {
    Line::try_parse_from(["quorate"].into_iter().chain(line.split_whitespace()))
}

/// Exit, stdout and stderr of a whole verb.
fn perform(line: &str) -> (Exit, String, String) {
    let Line { globals, command } = parse(line).unwrap();
    let (mut stdout, mut stderr) = (vec![], vec![]);
    let exit = run_with(command, &globals, &mut stdout, &mut stderr, false);
    (exit, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn refusing_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn help_is_as_documented() {
    let mut command = Line::command().term_width(100);
    command.build();
    let mut text = command.render_help().to_string();
    for noun in command.get_subcommands_mut().filter(|noun| noun.get_name() != "help") {
        text += &help_of(noun);
        noun.get_subcommands_mut()
            .filter(|verb| verb.get_name() != "help")
            .for_each(|verb| text += &help_of(verb));
    }
    insta::assert_snapshot!("help", text);
}

fn help_of(command: &mut clap::Command) -> String {
    let name = command.get_bin_name().unwrap_or_default().to_string();
    format!("\n=== {name}\n{}", command.render_help())
}

#[test]
fn every_documented_line_is_understood() {
    let lines = [
        "agent apply -f a.toml -f b.toml",
        "agent list -o json",
        "agent get reader",
        "task create --agent a --input hi --task-id x --request-id y --class batch --priority 9 --deadline 30m --label k=v --watch",
        "task create --agent a -f one.md -f two.md",
        "task create --agent a -f one.md two.md --label a=b --label c=d",
        "task get t -o json",
        "task list --filter state=RUNNING --page-size 10 -o jsonl",
        "task watch t --from 7",
        "task cancel t",
        "task pause t",
        "task resume t",
        "task explain t",
        "task approve t --ask 3.0",
        "task reject t",
        "task repeat t --ask 3.0",
        "task answer t blue --ask 3.0",
        "task signal t hello --busy interrupt",
        "task retry t",
        "task fork t --step 4",
        "schedule set nightly --cron @daily --agent a -i hi --class batch",
        "schedule list -o json",
        "schedule delete nightly",
        "memory remember hello --tag a --tag b --source mail --request-id r",
        "memory remember -f note.md --agent reader",
        "memory search door --agent reader --most 3 --by words --tag a -o json",
        "memory list --task t_1",
        "memory forget 0123456789ab --agent reader --reason USER_REQUEST",
        "memory forget --all --scope projects/p",
        "run --agent reader --input hello -o json",
        "run --agent reader -f -",
        "quota get projects/default",
        "quota set projects/default running=0 tokens_total=none --reason night --etag 3",
        "quota tree",
        "quota set tasks/t_1 micro_usd_total=2.5usd memory_bytes=4GiB --dry-run --request-id r",
        "quota usage",
        "quota usage projects/default",
        "quota watch projects/default -o jsonl",
        "price set large input=3usd cached=0.3usd output=15usd --reason list --etag 0",
        "price get large",
        "price list",
        "explain t --if projects/default running=8 --if cluster tokens_day=none",
        "queue --class batch",
        "top",
        "top --once --every 500ms -o json",
        "node drain n7 --grace 10s --reason disk",
        "node cordon n7",
        "node uncordon worker-a --reason done",
        "audit --after 3 --subject projects/default --follow",
        "cost report --by day --since 7d -o csv",
        "cost report --only-project -o json",
        "task create --agent a --input hi --limit tokens_total=20k --limit micro_usd_total=1usd --not-before 30m --after t_1 --dry-run",
        "node list",
        "node get n7 -o json",
        "cluster init",
        "cluster status --endpoint a:1,b:2 --project p --timeout 500ms",
        "cluster add-voter n2",
        "cluster remove-voter n2",
        "cluster transfer-leader n2",
        "cluster snapshot b --allow-missing -o json",
        "cluster verify b",
        "cluster restore b --config c.toml --member a=h:1 --member b=i:1 --round 2",
    ];
    for line in lines {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn wrong_lines_are_refused_as_usage() {
    let lines = [
        "task create --agent a",
        "task create --input hi",
        "task create --agent a --input hi --priority 10",
        "task create --agent a --input hi --class urgent",
        "task create --agent a --input hi --label k",
        "memory remember",
        "memory forget",
        "memory forget 0123456789ab --all",
        "memory search door --by colour",
        "memory list --agent a --task t",
        "task signal t",
        "quota set projects/default",
        "quota set projects/default running=many",
        "quota set projects/default memory_bytes=4apples",
        "price set large speed=3usd",
        "price set large",
        "cost report --since soon",
        "cost report --by colour",
        "task create --agent a --input hi --limit tokens_total=none",
        "explain t --if projects/default",
        "agent apply",
        "node list --timeout 5",
        "top --every soon",
        "node list -o yaml",
    ];
    for line in lines {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
        assert_eq!(usage_error(&error, true), ExitCode::from(Exit::Usage));
    }
}

#[test]
fn an_unreachable_cluster_is_exit_5_with_what_to_check() {
    let address = refusing_address();
    let (exit, stdout, stderr) = perform(&format!("node list --endpoint {address} --timeout 200ms"));
    assert_eq!((exit, stdout.as_str()), (Exit::Unavailable, ""));
    assert!(
        stderr.starts_with(&format!("error: no node of the cluster can be reached at {address}\n")),
        "{stderr}"
    );
    assert!(stderr.contains("next:") && stderr.contains("QUORATE_ENDPOINT"), "{stderr}");

    let (exit, _, stderr) =
        perform(&format!("run --agent a --input x --endpoint {address} --timeout 200ms -o json"));
    assert_eq!(exit, Exit::Unavailable);
    let error: serde_json::Value = serde_json::from_str(&stderr).unwrap();
    for key in ["code", "reason", "message", "cause", "next", "retry_after_ms"] {
        assert!(error["error"].get(key).is_some(), "{key} in {stderr}");
    }
    assert_eq!(error["error"]["code"], "UNAVAILABLE");
}

#[test]
fn mistakes_are_found_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        format!("task create --agent a -f {}", folder.path().display()),
        "task create --agent a -f /no/such/file".to_string(),
        "node list --endpoint https://a:1".to_string(),
        "node list --project A!".to_string(),
        format!("agent apply -f {}", folder.path().display()),
    ];
    for line in cases {
        let (exit, _, stderr) = perform(&line);
        assert_eq!(exit, Exit::Usage, "{line}: {stderr}");
        assert!(stderr.contains("next:"), "{line}: {stderr}");
    }
}

fn task_value() -> Task {
    Task {
        id: "report".into(),
        project: "default".into(),
        agent: "reader".into(),
        revision: "9f86d081".into(),
        labels: BTreeMap::from([("team".to_string(), "research".to_string())]),
        state: TaskState::Succeeded,
        state_reason: String::new(),
        node: Some("n4".into()),
        epoch: Some("1.42.0".into()),
        step: 1,
        sequence: 4,
        copies: 2,
        usage: Usage { prompt_tokens: 812, cached_tokens: 640, generated_tokens: 48, micro_usd: 0 },
        result: Some("A quorum is enough.\nAlways.".into()),
        error: None,
        pending: vec![],
        create_time: Time(1_772_366_400_250),
        end_time: Some(Time(1_772_366_402_500)),
        uid: "t_00000000015000000".into(),
        result_hash: Some("ab12".into()),
        parent: None,
        children: vec![],
        class: Class::Interactive,
        priority: 5,
        head: Some("cd34".into()),
        deadline_time: None,
        asks: vec![],
        forked_from: None,
        forked_steps: 0,
    }
}

fn waiting() -> Task {
    let blocker = Blocker {
        reason: "QUOTA_RUNNING".into(),
        resource: "projects/default running".into(),
        requested: 1,
        available: 0,
        limit: 0,
        message: "the project may run 0 tasks".into(),
        borrowed_by: vec![Borrower { path: "projects/night".into(), amount: 3 }],
    };
    Task {
        id: "t_1".into(),
        state: TaskState::Pending,
        state_reason: "QUOTA_RUNNING".into(),
        node: None,
        epoch: None,
        result: None,
        result_hash: None,
        end_time: None,
        usage: Usage::default(),
        pending: vec![blocker],
        ..task_value()
    }
}

fn node_value() -> Node {
    let engine = Engine {
        model: "smollm2".into(),
        model_digest: "d1".into(),
        numerics_id: "q8-v1".into(),
        window: 2048,
        kernels: "avx2".into(),
        kv_blocks: 1000,
        kv_blocks_used: 12,
        kv_bytes: 268_435_456,
        weight_bytes: 144_811_360,
        tokens_computed: 5000,
        tokens_cached: 4000,
        tokens_generated: 300,
        kv_tiers: BTreeMap::from([("memory".into(), 3_145_728), ("host".into(), 1_048_576)]),
    };
    Node {
        id: "n4".into(),
        name: "worker-a".into(),
        roles: vec!["worker".into()],
        state: "ready".into(),
        client_addr: "127.0.0.1:7403".into(),
        internal_addr: "127.0.0.1:7413".into(),
        running: 1,
        slots: 4,
        fenced_commits: 1,
        engines: vec![engine],
        copies: 2,
        kv: Kv { blocks: 1000, blocks_used: 12, bytes: 268_435_456 },
        segments: 20,
        segment_bytes: 40_960,
        context_bytes_received: 10_240,
        context_bytes_sent: 2_048,
        context_bytes_full: 1_048_576,
        device: Device {
            cpus: Some(2),
            memory_bytes: Some(8 << 30),
            rss_bytes: Some(300 << 20),
            ..Device::default()
        },
        version: "0.1.0".into(),
    }
}

fn quota_value() -> Quota {
    let limits = BTreeMap::from([
        (
            "running".to_string(),
            Limit { limit: Some(4), used: 3, kind: LimitKind::Holding, ..Limit::default() },
        ),
        (
            "running_guaranteed".to_string(),
            Limit { limit: Some(2), kind: LimitKind::Holding, ..Limit::default() },
        ),
        (
            "tokens_total".to_string(),
            Limit { used: 812, reserved: 100, kind: LimitKind::Budget, ..Limit::default() },
        ),
        (
            "micro_usd_day".to_string(),
            Limit {
                limit: Some(2_500_000),
                used: 1_300_000,
                kind: LimitKind::Budget,
                overage: 7,
                window_start: Some(Time(1_772_323_200_000)),
                window_end: Some(Time(1_772_409_600_000)),
                ..Limit::default()
            },
        ),
    ]);
    Quota {
        path: "projects/default".into(),
        limits,
        etag: "7".into(),
        reason: "night shift".into(),
        author: "local".into(),
        update_time: Some(Time(1_772_366_400_000)),
        would_wait: vec![],
    }
}

fn status_value() -> ClusterStatus {
    ClusterStatus {
        cluster_id: "00ff".into(),
        leader: Some("n1".into()),
        term: 3,
        applied_index: 41,
        committed_index: 42,
        voters: vec!["n1".into(), "n2".into(), "n3".into()],
        learners: vec!["n4".into()],
        answered_by: "n2".into(),
        state_hash: "beef".into(),
        state_hash_index: 41,
        copies: 2,
        feature_level: 1,
        tasks_by_state: BTreeMap::from([("RUNNING".to_string(), 2)]),
        warnings: vec!["one store only: losing this disk loses everything".into()],
    }
}

/// Table and JSON of one value, one below the other.
fn both<T: Serialize>(value: &T, table: impl Fn(&T) -> String) -> String {
    [Format::Table, Format::Json].map(|format| printed(format, |out| out.one(value, &table))).join("---\n")
}

fn printed(format: Format, print: impl FnOnce(&mut Out<'_>) -> Result<(), Failure>) -> String {
    let (mut stdout, mut stderr) = (vec![], vec![]);
    print(&mut Out::new(format, &mut stdout, &mut stderr, false)).unwrap();
    String::from_utf8(stdout).unwrap()
}

#[test]
fn things_look_as_documented() {
    let tasks = [task_value(), waiting()];
    insta::assert_snapshot!("task_list", task::list_table(&tasks));
    insta::assert_snapshot!("task", both(&task_value(), task::in_full));
    insta::assert_snapshot!("task_waiting", task::in_full(&waiting()));
    insta::assert_snapshot!("node_list", node::list_table(&[node_value()]));
    insta::assert_snapshot!("node", both(&node_value(), node::in_full));
    insta::assert_snapshot!("cluster", both(&status_value(), cluster::in_full));
    insta::assert_snapshot!(
        "quota",
        both(&quota_value(), |quota| quota::tree_table(std::slice::from_ref(quota)))
            + "---\n"
            + &quota::change_table(&Quota { would_wait: vec!["t_1".into(), "t_2".into()], ..quota_value() })
    );
}

#[test]
fn smaller_things_look_as_documented() {
    let agent = Agent {
        name: "reader".into(),
        project: "default".into(),
        kind: "agent".into(),
        model: "smollm2".into(),
        revision: "9f86d081884c7d65".into(),
        etag: "2".into(),
        update_time: Some(Time(1_772_366_400_000)),
        toml: "name = \"reader\"\nmodel = \"smollm2\"\n".into(),
    };
    insta::assert_snapshot!("agent", both(&agent, agent::in_full));
    let model = Model {
        name: "smollm2".into(),
        digest: "a".repeat(64),
        bytes: 144_811_360,
        holders: vec!["n4".into()],
    };
    insta::assert_snapshot!("model_list", model::list_table(&[model]));
    let explained = Explanation {
        blockers: waiting().pending,
        task: waiting(),
        tasks_ahead: 3,
        position: Some(4),
        eta_ms: Some(12_340),
        eta_error_ms: Some(5_000),
        nodes: vec![NodeVerdict { node: "n4".into(), eligible: false, reason: "no free slot".into() }],
    };
    insta::assert_snapshot!("explain", both(&explained, task::explanation));
}

#[test]
fn routes_look_as_documented() {
    let candidate = |model: &str, expected_micro_usd, expected_ms, verdict: &str| RouteCandidate {
        model: model.into(),
        expected_micro_usd,
        expected_ms,
        verdict: verdict.into(),
    };
    let candidates = vec![candidate("cheap", 120, 90_000, "LATE"), candidate("dear", 700, 2_000, "FITS")];
    let route = RoutedStep { step: 3, model: "dear".into(), reason: "IN_TIME".into(), candidates };
    insta::assert_snapshot!("task_routes", task::routes_table(&[route]));
}

#[test]
fn money_looks_as_documented() {
    let price = Price {
        model: "large".into(),
        input: 3_000_000,
        cached: 300_000,
        output: 15_000_000,
        etag: "2".into(),
        reason: "list of May".into(),
        author: "local".into(),
        update_time: Some(Time(1_772_366_400_000)),
    };
    insta::assert_snapshot!("price_list", price::list_table(&[price]));
    let line = CostLine {
        key: "projects/default".into(),
        tasks: 2,
        steps: 5,
        usage: task_value().usage,
        new_tokens: 90,
        known_tokens: 40,
        kv_block_seconds: 12,
        tool_calls: 0,
    };
    let total = CostLine { key: "total".into(), ..line.clone() };
    let report = CostReport { lines: vec![line], total };
    insta::assert_snapshot!("cost", both(&report, cost::report_table) + "---\n" + &cost::csv(&report));
    insta::assert_snapshot!("queue", queue::queue_table(&[waiting()], waiting().create_time.0 + 200_000));
    let event = AuditEvent {
        number: 7,
        time: Time(1_772_366_400_000),
        author: "local".into(),
        action: "quota.set".into(),
        subject: "projects/default".into(),
        change: "running 4 -> 8".into(),
        reason: "night".into(),
    };
    insta::assert_snapshot!("audit", quota::audit_line(&event));
}

#[test]
fn only_reports_are_comma_separated() {
    let (exit, stdout, stderr) = perform(&format!("node list -o csv --endpoint {}", refusing_address()));
    assert_eq!((exit, stdout.as_str()), (Exit::Usage, ""));
    assert!(stderr.contains("cost report"), "{stderr}");
}

#[test]
fn lists_are_one_array_or_one_line_each() {
    let print =
        |format| printed(format, |out| out.many(&[status_value(), status_value()], |_| String::new()));
    let array: Vec<serde_json::Value> = serde_json::from_str(&print(Format::Json)).unwrap();
    assert_eq!(array.len(), 2);
    let lines = print(Format::Jsonl);
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

/// The public field names, in their public order.
#[test]
fn a_task_has_the_documented_fields() {
    let json = serde_json::to_string(&task_value()).unwrap();
    let names = "id project agent revision labels state state_reason node epoch step sequence copies usage result \
                 error pending create_time end_time";
    let mut at = 0;
    for name in names.split_whitespace() {
        let found = json[at..].find(&format!("\"{name}\":"));
        at += found.unwrap_or_else(|| panic!("{name} is missing or out of order"));
    }
    let node = serde_json::to_value(node_value()).unwrap();
    for name in ["fenced_commits", "engines", "copies", "kv"] {
        assert!(node.get(name).is_some(), "{name}");
    }
}
