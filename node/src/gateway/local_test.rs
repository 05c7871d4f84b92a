//! The real model through the door. Needs the model file: run `make model` when it is missing.

use super::*;
use crate::gateway::gateway_test::message;
use crate::gateway::{Gateway, LivePiece, ModelCall, ModelOutcome, Reserve};
use context::{Role, Tokens};
use ledger::reply::Refusal;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use worker_inference::EngineConfig;

pub(crate) fn model_file() -> PathBuf {
    if let Some(path) = std::env::var_os("QUORATE_MODEL") {
        return path.into();
    }
    let under = |name: &str, rest: &str| std::env::var_os(name).map(|home| PathBuf::from(home).join(rest));
    let home = under("QUORATE_HOME", "")
        .or_else(|| under("XDG_DATA_HOME", "quorate"))
        .or_else(|| under("HOME", ".local/share/quorate"))
        .unwrap_or_default();
    let file = home.join("models/smollm2.gguf");
    assert!(file.exists(), "{} is missing; run `make model`", file.display());
    file
}

pub(super) struct Generous;

impl Reserve for Generous {
    fn reserve(
        &self,
        _min_tokens: u64,
        max_tokens: u64,
        _want: ledger::rows::Want,
        _route: Option<ledger::command::Route>,
    ) -> BoxFuture<'_, Result<u64, Refusal>> {
        Box::pin(std::future::ready(Ok(max_tokens)))
    }
}

pub(super) fn call(messages: Vec<Message>) -> ModelCall {
    ModelCall {
        model: "smollm2".into(),
        agent: "reader".into(),
        project: ProjectName::default(),
        messages,
        tools: None,
        choice: mind::ToolChoice::None,
        known_tokens: 0,
        max_tokens: 24,
        min_tokens: 0,
        temperature_milli: 0,
        seed: 1,
        class: Class::Interactive,
        call: 0,
        full_at_milli: None,
        routing: None,
    }
}

async fn say(gateway: &Gateway, call: ModelCall) -> crate::gateway::Generated {
    let heard = Mutex::new(String::new());
    let live = |piece: LivePiece<'_>| heard.lock().unwrap().push_str(piece.text);
    match gateway.call(call, &Generous, &live, &CancellationToken::new()).await {
        ModelOutcome::Generated(generated) => {
            assert_eq!(heard.into_inner().unwrap(), generated.text);
            generated
        }
        other => panic!("{other:?}"),
    }
}

fn answered(before: &[Message], said: &crate::gateway::Generated, open: bool) -> Vec<Message> {
    let tokens = Some(Tokens { tokenizer: said.tokenizer, ids: said.token_ids.clone() });
    let answer = Message { tokens, open, ..message(Role::Assistant, &said.text) };
    [before.to_vec(), vec![answer]].concat()
}

/// One test, because loading the model takes longer than asking it.
#[tokio::test]
async fn the_real_model_answers_through_the_gateway() {
    let config = EngineConfig { kv_bytes: 64 << 20, ..EngineConfig::default() };
    let model = LoadedModel::load("smollm2", &model_file(), config).expect("the model loads");
    let local = Arc::new(Local::new(&model));
    let provider: Arc<dyn Provider> = local.clone();
    let gateway = Gateway::new([("smollm2".to_string(), provider)]);
    let system = message(Role::System, "You answer in one short sentence.");
    let question = vec![system, message(Role::User, "What is the capital of France?")];

    let first = say(&gateway, call(question.clone())).await;
    assert!(first.text.contains("Paris"), "{}", first.text);
    assert_eq!(first.numerics, Some(model.info.numerics_id));

    // The chain grows by appending: what was said keeps its exact ids, and the earlier prompt is a prefix.
    let more = [answered(&question, &first, false), vec![message(Role::User, "And of Italy?")]].concat();
    let prompts = [Arc::new(question.clone()), Arc::new(more.clone())];
    let [before, after] = [
        local.prompt(&prompts[0], None).await.expect("renders"),
        local.prompt(&prompts[1], None).await.expect("renders"),
    ];
    let expected = [before.ids.clone(), first.token_ids.clone()].concat();
    assert!(after.ids.starts_with(&expected), "{:?} does not begin with {expected:?}", after.ids);
    assert_eq!(after.counts.len(), 4);
    let second = say(&gateway, ModelCall { known_tokens: first.chain_tokens, ..call(more) }).await;
    assert!(second.spent.cached_tokens >= 16, "the prefix was kept: {:?}", second.spent);
    assert!(second.billed_tokens < second.spent.prompt_tokens, "only what is new is billed: {second:?}");

    // Cut after five tokens and continued, it says the same.
    let cut = say(&gateway, ModelCall { max_tokens: 5, ..call(question.clone()) }).await;
    let rest = say(&gateway, ModelCall { max_tokens: 19, ..call(answered(&question, &cut, true)) }).await;
    assert_eq!([cut.token_ids, rest.token_ids].concat(), first.token_ids);

    // What is known of its future reaches the engine, which counts it; its prompts were foreseen.
    let chain = Chain {
        scope: scope_of(&ProjectName::default()),
        class: class_number(Class::Interactive),
        tokens: first.chain.as_slice().into(),
    };
    assert!(0 < first.chain_head && first.chain_head < before.ids.len());
    model.thread.hint(chain.clone(), Hint::Retain { within_ms: 1_000, permille: 900 });
    model.thread.hint(chain, Hint::Drop { kept: first.chain_head, ended: true });
    let counted = |verb, outcome| {
        let verbs = model.thread.observe().verbs;
        verbs.iter().find(|(it, was, _)| (*it, *was) == (verb, outcome)).map_or(0, |(.., count)| *count)
    };
    let heard = async {
        while counted("retain", "done") + counted("drop", "done") < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), heard).await.expect("it hears");
    assert!(counted("prefetch", "already") + counted("prefetch", "unknown") >= 4);

    // It may not stop before it is allowed to.
    let long = say(&gateway, ModelCall { min_tokens: 40, max_tokens: 44, ..call(question.clone()) }).await;
    assert!(
        first.token_ids.len() < 24 && long.token_ids.len() >= 40,
        "{} {}",
        first.token_ids.len(),
        long.token_ids.len()
    );

    // Another project doesn't profit from the cache.
    let other = ModelCall { project: ProjectName::parse("other").expect("a name"), ..call(question) };
    assert_eq!(say(&gateway, other).await.spent.cached_tokens, 0);
}
