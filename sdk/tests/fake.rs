//! The client against nodes that misbehave: a server in this process whose answers each test scripts.

#[path = "fake/node.rs"]
mod node;

use node::{Answer, Fake, Step, task};
use proto::v1;
use quorate_sdk::data::{EventKind, RecordedCall, RecordedSegment, TaskState};
use quorate_sdk::{Client, Code, limits};
use std::time::Duration;
use tonic_types::{ErrorDetails, StatusExt};

fn client(fakes: &[&Fake]) -> Client {
    let endpoints: Vec<String> = fakes.iter().map(|fake| fake.address()).collect();
    Client::connect(&endpoints).unwrap().with_timeout(Duration::from_secs(10))
}

/// An address that refuses connections: its port was taken, and is free again.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

fn unavailable() -> Answer {
    Answer::Refuse(tonic::Status::unavailable("no leader"))
}

#[tokio::test]
async fn a_create_is_repeated_elsewhere_with_the_same_request_id() {
    let (sick, lossy, well) = (Fake::start().await, Fake::start().await, Fake::start().await);
    sick.answers([unavailable()]);
    lossy.answers([Answer::BreakConnection]);
    let made = client(&[&sick, &lossy, &well]).tasks().create("reader").input("hi").send().await.unwrap();
    assert_eq!(made.id, "t_1");
    let ids: Vec<String> = [&sick, &lossy, &well].iter().flat_map(|fake| fake.request_ids()).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids[0].starts_with("r_") && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn two_creates_have_two_request_ids() {
    let fake = Fake::start().await;
    let client = client(&[&fake]);
    client.tasks().create("reader").send().await.unwrap();
    client.tasks().create("reader").send().await.unwrap();
    client.tasks().create("reader").request_id("mine").send().await.unwrap();
    let ids = fake.request_ids();
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[2], "mine");
}

#[tokio::test]
async fn a_dead_node_in_the_list_costs_nothing_but_a_try() {
    let well = Fake::start().await;
    let client = Client::connect(&[nobody().await, well.address()]).unwrap();
    assert_eq!(client.tasks().get("t_1").await.unwrap().state, TaskState::Running);
    client.tasks().get("t_1").await.unwrap();
    assert_eq!(well.calls(), 2, "the second call went straight to the node that works");
}

/// An address where every connection is taken and cut after the first bytes, as by a node killed under a call.
async fn cutter() -> String {
    use tokio::io::AsyncReadExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 24]).await;
        }
    });
    address
}

#[tokio::test]
async fn a_node_killed_under_a_call_is_replaced_by_the_next() {
    let well = Fake::start().await;
    let client = Client::connect(&[cutter().await, well.address()]).unwrap();
    client.tasks().create("reader").send().await.unwrap();
    assert_eq!(well.calls(), 1);
}

#[tokio::test]
async fn a_call_lost_with_its_connection_has_an_unknown_outcome() {
    let client = Client::connect(&[cutter().await]).unwrap().with_timeout(Duration::from_millis(300));
    let error = client.tasks().create("reader").send().await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable, "UNKNOWN_OUTCOME"), "{error:?}");
}

#[tokio::test]
async fn an_unreachable_cluster_is_named_with_what_to_check() {
    let address = nobody().await;
    let client = Client::connect(&[&address]).unwrap().with_connect_timeout(Duration::from_millis(200));
    let error = client.tasks().get("t_1").await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable, "UNREACHABLE"));
    assert!(error.message.contains(&address), "{error:?}");
    assert!(error.next.unwrap().contains("QUORATE_ENDPOINT"));
    assert!(error.cause.is_some());
}

#[tokio::test]
async fn a_node_without_cluster_is_passed_over_and_named_when_it_is_the_only_one() {
    let stranger = || {
        let mut details = ErrorDetails::new();
        details.set_error_info("NOT_INITIALISED", "quorate", std::collections::HashMap::new());
        Answer::Refuse(tonic::Status::with_error_details(tonic::Code::Unavailable, "no cluster yet", details))
    };
    let (alone, well) = (Fake::start().await, Fake::start().await);
    alone.answers([stranger()]);
    client(&[&alone, &well]).tasks().get("t_1").await.unwrap();
    alone.answers((0..50).map(|_| stranger()));
    let impatient = client(&[&alone]).with_connect_timeout(Duration::from_millis(150));
    let error = impatient.tasks().get("t_1").await.unwrap_err();
    assert_eq!((error.reason.as_str(), error.message.as_str()), ("NOT_INITIALISED", "no cluster yet"));
}

#[tokio::test]
async fn a_silent_node_leaves_the_outcome_unknown_and_names_the_request_id() {
    let fake = Fake::start().await;
    fake.answers([Answer::Silence]);
    let client = client(&[&fake]).with_timeout(Duration::from_millis(300));
    let error = client.tasks().create("reader").request_id("again").send().await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::DeadlineExceeded, "UNKNOWN_OUTCOME"));
    assert!(error.next.unwrap().contains("again"));
}

#[tokio::test]
async fn final_answers_are_not_repeated_and_keep_their_details() {
    let fake = Fake::start().await;
    let mut details = ErrorDetails::new();
    let told = [("next".to_string(), "apply it first".to_string())];
    details.set_error_info("AGENT_NOT_FOUND", "quorate", told);
    let refusal =
        tonic::Status::with_error_details(tonic::Code::NotFound, "there is no agent \"x\"", details);
    fake.answers([Answer::Refuse(refusal)]);
    let error = client(&[&fake]).tasks().create("x").send().await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::NotFound, "AGENT_NOT_FOUND"));
    assert_eq!(error.next.as_deref(), Some("apply it first"));
    assert_eq!(fake.calls(), 1);
}

#[tokio::test]
async fn an_overloaded_node_is_left_in_peace_for_as_long_as_it_asks() {
    let fake = Fake::start().await;
    let mut details = ErrorDetails::new();
    details.set_error_info("OVERLOADED", "quorate", std::collections::HashMap::new());
    details.set_retry_info(Some(Duration::from_millis(150)));
    let busy = tonic::Status::with_error_details(tonic::Code::ResourceExhausted, "queue full", details);
    fake.answers([Answer::Refuse(busy)]);
    let begun = std::time::Instant::now();
    client(&[&fake]).tasks().create("reader").send().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert_eq!(fake.calls(), 2);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_here() {
    let fake = Fake::start().await;
    let client = client(&[&fake]);
    let mut create = client.tasks().create("reader");
    for _ in 0..3 {
        create = create.input("x".repeat(limits::SEGMENT_BYTES));
    }
    let error = create.send().await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, "REQUEST_TOO_LARGE"));
    assert!(error.message.contains(&limits::REQUEST_BYTES.to_string()));
    assert_eq!(fake.calls(), 0, "nothing was sent");
}

#[tokio::test]
async fn init_goes_to_the_first_node_alone_and_is_never_repeated_blindly() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    first.answers([Answer::BreakConnection]);
    let error = client(&[&first, &second]).cluster().init().await.unwrap_err();
    assert_eq!(error.reason, "UNKNOWN_OUTCOME");
    assert_eq!((first.calls(), second.calls()), (1, 0));
}

/// Everything shown of a task, as the numbers of its committed events and the text that stands in the end.
async fn follow(client: &Client) -> (Vec<u64>, String) {
    let (mut sequences, mut text) = (vec![], String::new());
    let mut watch = client.tasks().watch("t_1");
    while let Some(event) = watch.next().await.unwrap() {
        match event.kind {
            EventKind::Token { text: more, .. } => text.push_str(&more),
            EventKind::Retract { .. } => text.clear(),
            EventKind::Gap { first, last } => panic!("gap {first}..{last}"),
            EventKind::State { .. } | EventKind::Step { .. } => sequences.push(event.sequence),
        }
    }
    (sequences, text)
}

fn whole_life() -> Vec<v1::TaskEvent> {
    let text = ["A", " quorum", " is", " enough", "."];
    let mut events = vec![node::state(1, v1::TaskState::Pending), node::state(2, v1::TaskState::Running)];
    events.extend((0u64..).zip(text).map(|(at, piece)| node::token(1, "1.5.0", at, 1, piece)));
    events.extend([node::step(3, 1), node::state(4, v1::TaskState::Succeeded)]);
    events
}

#[tokio::test]
async fn a_watch_cut_anywhere_reads_as_if_it_was_not() {
    let life = whole_life();
    let (a, b) = (Fake::start().await, Fake::start().await);
    let client = client(&[&a, &b]);
    for cut in 0..life.len() {
        let dies = if cut % 2 == 0 { Step::End } else { Step::Break };
        let first: Vec<Step> = life[..cut].iter().cloned().map(Step::Send).chain([dies]).collect();
        let script = [first, life.iter().cloned().map(Step::Send).collect()];
        node::share(&[&a, &b], script);
        assert_eq!(
            follow(&client).await,
            (vec![1, 2, 3, 4], "A quorum is enough.".to_string()),
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn a_watch_asks_for_what_it_has_not_seen() {
    let fake = Fake::start().await;
    let life = whole_life();
    let first = life[..2].iter().cloned().map(Step::Send).chain([Step::End]).collect();
    node::share(&[&fake], [first, life[2..].iter().cloned().map(Step::Send).collect()]);
    follow(&client(&[&fake])).await;
    assert_eq!(fake.watched_from(), vec![1, 3]);
}

#[tokio::test]
async fn the_text_of_a_lost_attempt_is_taken_back() {
    let fake = Fake::start().await;
    let first = vec![
        Step::Send(node::state(1, v1::TaskState::Running)),
        Step::Send(node::token(1, "1.5.0", 0, 1, "lost")),
        Step::Break,
    ];
    let second = vec![
        Step::Send(node::state(2, v1::TaskState::Running)),
        Step::Send(node::token(1, "1.6.0", 0, 1, "kept")),
        Step::Send(node::step(3, 1)),
        Step::Send(node::state(4, v1::TaskState::Succeeded)),
    ];
    node::share(&[&fake], [first, second]);
    assert_eq!(follow(&client(&[&fake])).await, (vec![1, 2, 3, 4], "kept".to_string()));
}

#[tokio::test]
async fn a_watch_from_beyond_the_end_of_a_finished_task_ends() {
    let fake = Fake::start().await;
    fake.holds(v1::Task { state: v1::TaskState::Failed.into(), sequence: 4, ..task() });
    node::share(&[&fake], [vec![Step::End]]);
    let client = client(&[&fake]);
    assert_eq!(client.tasks().watch("t_1").from(5).next().await, Ok(None));
}

#[tokio::test]
async fn watching_nothing_says_so() {
    let fake = Fake::start().await;
    node::share(&[&fake], [vec![Step::Refuse(tonic::Status::not_found("there is no task \"t_1\""))]]);
    let error = client(&[&fake]).tasks().watch("t_1").next().await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

#[tokio::test]
async fn all_tasks_are_read_page_by_page() {
    use futures::TryStreamExt;
    let fake = Fake::start().await;
    let client = client(&[&fake]);
    let all: Vec<_> =
        client.tasks().list().filter("state=RUNNING").page_size(2).all().try_collect().await.unwrap();
    let ids: Vec<&str> = all.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["t_1", "t_2", "t_3", "t_4", "t_5"]);
    assert_eq!(fake.calls(), 3);
}

#[tokio::test]
async fn a_large_result_is_read_whole_though_its_node_dies() {
    let (a, b) = (Fake::start().await, Fake::start().await);
    let client = client(&[&a, &b]);
    let done = v1::Task { state: v1::TaskState::Succeeded.into(), result_hash: "abc".into(), ..task() };
    a.holds(done.clone());
    b.holds(done);
    node::share_chunks(&[&a, &b], [vec![Ok("one "), Ok("two "), Err(())], vec![Ok("one two th"), Ok("ree")]]);
    let task = client.tasks().get("t_1").await.unwrap();
    assert_eq!(client.tasks().result(&task).await.unwrap(), "one two three");
}

#[tokio::test]
async fn a_task_without_result_says_why() {
    let fake = Fake::start().await;
    fake.holds(v1::Task { state: v1::TaskState::Failed.into(), error: "CONTEXT_TOO_LONG".into(), ..task() });
    let client = client(&[&fake]);
    let task = client.tasks().get("t_1").await.unwrap();
    let error = client.tasks().result(&task).await.unwrap_err();
    assert_eq!(error.cause.as_deref(), Some("CONTEXT_TOO_LONG"));
}

/// Compiles only if calls can be spawned on a runtime of many threads.
#[test]
fn futures_are_send() {
    fn send<T: Send>(_: T) {}
    let client = Client::connect(&["127.0.0.1:1"]).unwrap();
    send(client.tasks().create("a").send());
    send(client.tasks().wait("t"));
    send(client.cluster().nodes());
    send(client.tasks().watch("t").into_stream());
    send(client.context().read_text("h"));
}

#[tokio::test]
async fn a_backup_without_its_summary_is_none() {
    let fake = Fake::start().await;
    let client = client(&[&fake]);
    let mut archive = client.cluster().snapshot(false).await.unwrap();
    assert_eq!(archive.next().await.unwrap().as_deref(), Some(&b"part"[..]));
    let cut = archive.next().await.unwrap_err();
    assert_eq!((cut.reason.as_str(), archive.summary()), ("CUT_OFF", None));
}

#[tokio::test]
async fn an_evaluation_has_its_own_patience_and_is_repeated_elsewhere() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    sick.answers([unavailable()]);
    let client = client(&[&sick, &well]).with_timeout(Duration::from_millis(1));
    let asked = client.context().evaluate("t_1").step(3).model("m").budget_tokens(9).suggest();
    let found = asked.patience(Duration::from_secs(20)).send().await.unwrap();
    assert!(found.report.contains("task: \"t_1\", step: 3, team: false"), "{}", found.report);
    assert_eq!((found.model.as_str(), found.tokens_spent), ("m", 9));
    assert_eq!(found.suggested, "false true false");
    let segment = RecordedSegment { id: "a1".into(), owner: "anna".into(), ..RecordedSegment::default() };
    let call = RecordedCall { segments: vec![segment], reader: "bert".into(), ..RecordedCall::default() };
    let asked = client.context().evaluate_calls(vec![call]).audit_all().page();
    let found = asked.patience(Duration::from_secs(20)).send().await.unwrap();
    assert!(found.report.contains("owner: \"anna\"") && found.suggested == "true false true");
    assert_eq!(sick.calls() + well.calls(), 3);
}
