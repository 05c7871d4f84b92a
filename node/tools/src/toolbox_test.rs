//! The bounds of calls, with tools made for it.

use super::*;
use futures::future::BoxFuture;
use serde_json::{Value, json};

type Work = Box<dyn Fn(Call, CancellationToken) -> BoxFuture<'static, Outcome> + Send + Sync>;

struct Made {
    spec: ToolSpec,
    work: Work,
}

impl Tool for Made {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn call<'a>(&'a self, call: &'a Call, stop: CancellationToken) -> BoxFuture<'a, Outcome> {
        (self.work)(call.clone(), stop)
    }
}

fn tool<F>(name: &str, work: impl Fn(Call, CancellationToken) -> F + Send + Sync + 'static) -> Arc<dyn Tool>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let spec = ToolSpec {
        name: name.into(),
        description: String::new(),
        parameters: json!({"type": "object", "properties": {"n": {"type": "integer"}}}),
        policy: crate::Policy::Idempotent,
        timeout_ms: 100,
        output_bytes: 1000,
    };
    Arc::new(Made { spec, work: Box::new(move |call, stop| work(call, stop).boxed()) })
}

fn toolbox(tools: Vec<Arc<dyn Tool>>) -> Toolbox {
    let mut toolbox = Toolbox::new(&Config::default()).expect("a toolbox");
    for tool in tools {
        toolbox.add(tool).expect("added");
    }
    toolbox
}

fn call(tool: &str, arguments: Value) -> Call {
    Call {
        operation: "t/0/0".into(),
        attempt: 0,
        project: Default::default(),
        tool: tool.into(),
        arguments,
        timeout_ms: None,
        output_bytes: None,
        folder: "unused".into(),
    }
}

async fn made(toolbox: &Toolbox, call: Call) -> Outcome {
    toolbox.call(call, CancellationToken::new()).await
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_never_answers_ends_at_its_time_and_is_dropped() {
    struct Flag(Arc<std::sync::atomic::AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::Release);
        }
    }
    let dropped = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let toolbox = toolbox(vec![tool("hang", move |_, _| {
        let flag = Flag(Arc::clone(&flag));
        async move {
            let _flag = flag;
            std::future::pending().await
        }
    })]);
    let begun = tokio::time::Instant::now();
    let outcome = made(&toolbox, call("hang", json!({}))).await;
    assert_eq!(outcome.reason(), Some(reason::TOOL_TIMEOUT));
    assert!(begun.elapsed() <= Duration::from_millis(100 + GRACE_MS + 1), "{:?}", begun.elapsed());
    assert!(dropped.load(std::sync::atomic::Ordering::Acquire));
}

#[tokio::test(start_paused = true)]
async fn a_call_may_ask_for_more_or_less_time() {
    let toolbox = toolbox(vec![tool("slow", |_, _| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Outcome::answered("done")
    })]);
    let with = |ms| Call { timeout_ms: Some(ms), ..call("slow", json!({})) };
    assert_eq!(made(&toolbox, with(1000)).await, Outcome::answered("done"));
    assert_eq!(made(&toolbox, with(10)).await.reason(), Some(reason::TOOL_TIMEOUT));
}

#[tokio::test(start_paused = true)]
async fn what_a_stopped_tool_knows_is_believed_only_when_certain() {
    let when_stopped = |name: &str, outcome: Outcome| {
        tool(name, move |_, stop: CancellationToken| {
            let outcome = outcome.clone();
            async move {
                stop.cancelled().await;
                outcome
            }
        })
    };
    let toolbox = toolbox(vec![
        when_stopped("waited", Outcome::refused(reason::TOOL_BUSY, "did not begin")),
        when_stopped("finished", Outcome::answered("just in time")),
        when_stopped("lost", Outcome::unknown(reason::TOOL_CRASHED, "?")),
    ]);
    assert_eq!(made(&toolbox, call("waited", json!({}))).await.reason(), Some(reason::TOOL_BUSY));
    assert_eq!(made(&toolbox, call("finished", json!({}))).await, Outcome::answered("just in time"));
    assert_eq!(made(&toolbox, call("lost", json!({}))).await.reason(), Some(reason::TOOL_TIMEOUT));
    let outcome = stopped_soon(&toolbox, "waited").await;
    assert_eq!(outcome, Outcome::refused(reason::TOOL_STOPPED, "did not begin"));
    let outcome = stopped_soon(&toolbox, "lost").await;
    assert!(matches!(outcome, Outcome::Unknown { reason: reason::TOOL_STOPPED, .. }), "{outcome:?}");
    let stopped = CancellationToken::new();
    stopped.cancel();
    let outcome = toolbox.call(call("finished", json!({})), stopped).await;
    assert!(matches!(outcome, Outcome::Refused { reason: reason::TOOL_STOPPED, .. }), "{outcome:?}");
}

async fn stopped_soon(toolbox: &Toolbox, tool: &str) -> Outcome {
    let stop = CancellationToken::new();
    let (outcome, ()) = tokio::join!(toolbox.call(call(tool, json!({})), stop.clone()), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        stop.cancel();
    });
    outcome
}

#[tokio::test]
async fn a_panicking_tool_is_an_unknown_outcome() {
    async fn broken() -> Outcome {
        panic!("a mistake in a tool")
    }
    let toolbox = toolbox(vec![tool("broken", |_, _| broken())]);
    assert_eq!(made(&toolbox, call("broken", json!({}))).await.reason(), Some(reason::TOOL_CRASHED));
}

#[tokio::test]
async fn answers_are_cleaned_and_cut() {
    let toolbox = toolbox(vec![tool("loud", |_, _| async { Outcome::answered("\x1b[2J".repeat(1000)) })]);
    let outcome = made(&toolbox, call("loud", json!({}))).await;
    let Outcome::Answered { text, cut_bytes, .. } = outcome else { panic!("{outcome:?}") };
    assert!(text.len() <= 1000 && cut_bytes > 3900 && !text.contains('\x1b'), "{cut_bytes} {text}");
    let short = Call { output_bytes: Some(300), ..call("loud", json!({})) };
    assert!(made(&toolbox, short).await.text().len() <= 300);
}

#[tokio::test]
async fn arguments_are_checked_before_the_tool_sees_them() {
    let toolbox = toolbox(vec![tool("count", |_, _| async { panic!("called") })]);
    let large = json!({"text": "x".repeat(ToolSpec::ARGUMENTS_BYTES)});
    for wrong in [json!({"n": "one"}), json!([]), json!(null), large] {
        assert_eq!(made(&toolbox, call("count", wrong)).await.reason(), Some(reason::INVALID_ARGUMENTS));
    }
}

#[tokio::test]
async fn names_are_taken_once_and_unknown_ones_are_refused() {
    let one = || tool("one", |_, _| async { Outcome::answered("") });
    let mut toolbox = toolbox(vec![one()]);
    assert!(toolbox.add(one()).is_err());
    assert!(toolbox.add(tool("bad name", |_, _| async { Outcome::answered("") })).is_err());
    let outcome = made(&toolbox, call("two\x1b", json!({}))).await;
    assert!(
        outcome.reason() == Some(reason::TOOL_NOT_FOUND) && outcome.text().contains("one"),
        "{outcome:?}"
    );
    assert!(!outcome.text().contains('\x1b'));
    let specs = toolbox.specs(&["*".into()]).await.expect("specs");
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["files.edit", "files.list", "files.read", "files.write", "one"]);
}
