//! Calls through the door: what is reserved, what is billed, where it ends.

use super::scripted::Scripted;
use super::*;
use context::{Role, Tokens};
use futures::future::ready;
use std::sync::Mutex;
use std::time::Duration;

const WORDS: &str = "alpha beta gamma delta epsilon";

/// Grants at most so many tokens, and remembers what was asked.
struct Purse {
    tokens: u64,
    asked: Mutex<Vec<(u64, u64)>>,
}

impl Purse {
    fn of(tokens: u64) -> Purse {
        Purse { tokens, asked: Mutex::default() }
    }
}

impl Reserve for Purse {
    fn reserve(
        &self,
        min_tokens: u64,
        max_tokens: u64,
        _want: Want,
        _route: Option<Route>,
    ) -> BoxFuture<'_, Result<u64, Refusal>> {
        self.asked.lock().unwrap().push((min_tokens, max_tokens));
        let granted = self.tokens.min(max_tokens);
        let refusal = || Refusal::OverQuota {
            path: "projects/default".into(),
            resource: "tokens_total".into(),
            requested: min_tokens,
            available: self.tokens,
            limit: self.tokens,
        };
        Box::pin(ready(if granted < min_tokens { Err(refusal()) } else { Ok(granted) }))
    }
}

fn model(script: &str) -> Gateway {
    let provider: Arc<dyn Provider> = Arc::new(Scripted::parse("m", "test.toml", script).unwrap());
    Gateway::new([("m".to_string(), provider)])
}

fn said(text: &str) -> Gateway {
    model(&format!("[[reply]]\ntext = '{text}'\n"))
}

pub(crate) fn message(role: Role, text: &str) -> Message {
    let segments = vec![Hash::of(text.as_bytes())];
    Message {
        role,
        text: text.into(),
        tokens: None,
        open: false,
        segments,
        label: text.chars().take(9).collect(),
        calls: Vec::new(),
        answers: None,
    }
}

fn call(messages: Vec<Message>) -> ModelCall {
    ModelCall {
        model: "m".into(),
        agent: "writer".into(),
        project: ProjectName::default(),
        messages,
        tools: None,
        choice: mind::ToolChoice::None,
        known_tokens: 0,
        max_tokens: 100,
        min_tokens: 0,
        temperature_milli: 0,
        seed: 1,
        class: Class::Batch,
        call: 0,
        full_at_milli: None,
        routing: None,
    }
}

/// One question of three tokens: its role and two words.
fn question() -> Vec<Message> {
    vec![message(Role::User, "please speak")]
}

async fn ask(gateway: &Gateway, call: ModelCall, purse: &Purse) -> (ModelOutcome, String) {
    let heard = Mutex::new((String::new(), 0u64));
    let live = |piece: LivePiece<'_>| {
        let mut heard = heard.lock().unwrap();
        assert_eq!(piece.offset, heard.1, "pieces join");
        assert!(piece.tokens > 0);
        heard.0.push_str(piece.text);
        heard.1 += u64::from(piece.tokens);
    };
    let outcome = gateway.call(call, purse, &live, &CancellationToken::new()).await;
    (outcome, heard.into_inner().unwrap().0)
}

async fn generated(gateway: &Gateway, call: ModelCall, purse: &Purse) -> Generated {
    let (outcome, heard) = ask(gateway, call, purse).await;
    let ModelOutcome::Generated(generated) = outcome else { panic!("{outcome:?}") };
    assert_eq!(heard, generated.text, "what was shown is what was said");
    generated
}

async fn failure(gateway: &Gateway, call: ModelCall) -> ModelFailure {
    let (outcome, _) = ask(gateway, call, &Purse::of(1_000_000)).await;
    let ModelOutcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    failure
}

#[tokio::test]
async fn a_call_is_counted_reserved_and_billed() {
    let (gateway, purse) = (said(WORDS), Purse::of(1_000));
    let first = generated(&gateway, call(question()), &purse).await;
    assert_eq!((first.text.as_str(), first.finish), (WORDS, Finish::Stop));
    assert_eq!((first.billed_tokens, first.chain_tokens), (3 + 5, 8));
    assert_eq!((first.spent.prompt_tokens, first.spent.generated_tokens), (3, 5));
    let next = ModelCall { known_tokens: 2, max_tokens: 4, ..call(question()) };
    let next = generated(&gateway, next, &purse).await;
    assert_eq!((next.finish, next.billed_tokens), (Finish::Length, 1 + 4));
    assert_eq!(*purse.asked.lock().unwrap(), [(4, 103), (2, 5)]);
}

#[tokio::test]
async fn the_budget_ends_it_at_exactly_its_token_and_it_goes_on_there() {
    let gateway = said(WORDS);
    let first = generated(&gateway, call(question()), &Purse::of(5)).await;
    assert_eq!((first.text.as_str(), first.finish, first.billed_tokens), ("alpha beta ", Finish::Budget, 5));
    let tokens = Some(Tokens { tokenizer: first.tokenizer, ids: first.token_ids });
    let cut = Message { tokens, open: true, ..message(Role::Assistant, &first.text) };
    let more = ModelCall { known_tokens: first.chain_tokens, ..call([question(), vec![cut]].concat()) };
    let rest = generated(&gateway, more, &Purse::of(1_000)).await;
    assert_eq!(first.text + &rest.text, WORDS);
    let own_role = 1;
    assert_eq!(rest.billed_tokens, 3 + own_role, "nothing is paid for twice");
}

#[tokio::test]
async fn the_agents_own_limit_is_not_the_budget() {
    let exact = ModelCall { max_tokens: 2, ..call(question()) };
    assert_eq!(generated(&said(WORDS), exact, &Purse::of(5)).await.finish, Finish::Length);
}

#[tokio::test]
async fn nothing_is_said_that_was_not_reserved() {
    let (outcome, heard) = ask(&said(WORDS), call(question()), &Purse::of(3)).await;
    let ModelOutcome::Refused(Refusal::OverQuota { requested, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((requested, heard.as_str()), (4, ""));
}

#[tokio::test]
async fn an_over_long_prompt_fails_with_its_numbers() {
    let gateway = model(&format!("window = 10\n[[reply]]\ntext = '{WORDS}'\n"));
    let long = vec![message(Role::System, "one two"), message(Role::User, "a b c d e f g h i")];
    let failed = failure(&gateway, call(long)).await;
    assert_eq!((failed.reason.as_str(), failed.retriable), ("CONTEXT_TOO_LONG", false));
    for part in ["13 tokens", "window is 10", "4 too many", "a b c d e (10 tokens)"] {
        assert!(failed.message.contains(part), "{part:?} is not in {}", failed.message);
    }
    let fits = generated(&gateway, call(vec![message(Role::User, "a b c d e f")]), &Purse::of(99)).await;
    assert_eq!((fits.token_ids.len(), fits.finish), (3, Finish::Length), "the window leaves room for three");
}

#[tokio::test]
async fn the_first_matching_reply_counts() {
    let gateway = model(
        "[[reply]]\nwhen_agent = 'reader'\ntext = 'read'\n\
         [[reply]]\nwhen_contains = 'storm'\nwhen_call = 0\nfail = 'OVERLOADED'\nfail_message = 'wait'\n\
         [[reply]]\nwhen_contains = 'storm'\ntext = 'calm'\n\
         [[reply]]\nwhen_contains = 'broken'\nfail = 'BROKEN'\nretriable = false\n",
    );
    let purse = Purse::of(1_000);
    let reader = ModelCall { agent: "reader".into(), ..call(question()) };
    assert_eq!(generated(&gateway, reader, &purse).await.text, "read");
    let storm = call(vec![message(Role::User, "a storm")]);
    let failed = failure(&gateway, storm.clone()).await;
    assert_eq!(
        (failed.reason.as_str(), failed.message.as_str(), failed.retriable),
        ("OVERLOADED", "wait", true)
    );
    assert_eq!(generated(&gateway, ModelCall { call: 1, ..storm }, &purse).await.text, "calm");
    let broken = failure(&gateway, call(vec![message(Role::User, "a broken thing")])).await;
    assert!(!broken.retriable);
    let nothing = failure(&gateway, call(question())).await;
    assert_eq!(nothing.reason, "SCRIPT_NO_REPLY");
    assert!(nothing.message.contains("\"writer\"") && nothing.message.contains("add one"));
}

#[tokio::test]
async fn an_unknown_model_is_named_with_those_that_are_there() {
    let failed = failure(&said(WORDS), ModelCall { model: "giant".into(), ..call(question()) }).await;
    assert_eq!(failed.reason, "NO_SUCH_MODEL");
    assert!(failed.message.contains("\"giant\"") && failed.message.contains("this node has m"));
}

#[tokio::test]
async fn stopping_keeps_what_was_said() {
    let gateway =
        model(&format!("[[reply]]\ntokens_per_second = 1000\ntext = '{}'\n", "word ".repeat(5_000)));
    let stop = CancellationToken::new();
    let after_three = |piece: LivePiece<'_>| {
        if piece.offset == 2 {
            stop.cancel();
        }
    };
    let long = ModelCall { max_tokens: 5_000, ..call(question()) };
    let purse = Purse::of(1_000_000);
    let calling = gateway.call(long, &purse, &after_three, &stop);
    let outcome = tokio::time::timeout(Duration::from_secs(5), calling).await.expect("it stops at once");
    let ModelOutcome::Stopped(Some(cut)) = outcome else { panic!("{outcome:?}") };
    assert!((3..5_000).contains(&cut.token_ids.len()));
    assert_eq!((cut.finish, cut.billed_tokens), (Finish::Budget, 3 + cut.token_ids.len() as u64));
    let before = gateway.call(call(question()), &purse, &|_| {}, &stop).await;
    assert_eq!(before, ModelOutcome::Stopped(None));
}

#[tokio::test]
async fn a_program_decides_and_its_words_are_counted() {
    let served = crate::served::Served::default();
    let gateway = Gateway::default().with_served(served.clone());
    let register = proto::v1::Register { tools: vec![], models: vec!["own".into()] };
    let (place, mut asked) = served.join(&ProjectName::default(), &register).unwrap();
    let program = async {
        while let Some(request) = asked.recv().await {
            let Some(proto::v1::tool_server_request::Kind::Question(question)) = request.kind else {
                continue;
            };
            let calls = vec![proto::v1::StepCall { name: "look".into(), ..Default::default() }];
            let (id, text) = (question.id, WORDS.to_string());
            let answer = proto::v1::ModelAnswer { id, text, calls, ..Default::default() };
            place.answered(id, proto::v1::tool_server_message::Kind::Answer(answer));
        }
    };
    let asks = async {
        let own = |messages| ModelCall {
            model: "external:own".into(),
            choice: mind::ToolChoice::Auto,
            ..call(messages)
        };
        let whole = generated(&gateway, own(question()), &Purse::of(1_000)).await;
        assert_eq!((whole.text.as_str(), whole.token_ids.len(), whole.finish), (WORDS, 5, Finish::Stop));
        assert_eq!(whole.calls.map(|calls| calls.len()), Some(1));
        let first = generated(&gateway, own(question()), &Purse::of(5)).await;
        assert_eq!((first.finish, first.calls), (Finish::Budget, None), "a cut answer calls nothing yet");
        let cut = Message { open: true, ..message(Role::Assistant, &first.text) };
        let more = own([question(), vec![cut]].concat());
        let rest = generated(&gateway, more, &Purse::of(1_000)).await;
        assert_eq!(first.text + &rest.text, WORDS);
    };
    tokio::select! {
        () = program => panic!("the program is asked on"),
        () = asks => {}
    }
    let nobody = ModelCall { model: "own".into(), ..call(question()) };
    assert_eq!(failure(&gateway, nobody).await.reason, "NO_SUCH_MODEL");
}
