//! One of several models: which is asked, what happens when it is closed or too dear, what the answer says of it.

use super::super::gateway_test::message;
use super::super::scripted::Scripted;
use super::super::{Generated, Standing};
use super::*;
use crate::gateway::{Ask, ProviderFacts, Said};
use context::Role;
use futures::future::BoxFuture;
use ledger::rows::Want;
use std::sync::Mutex;
use tokio::sync::mpsc;
use types::{Class, ProjectName};

const CHEAP: Price = Price { input: 1_000_000, cached: 100_000, output: 2_000_000 };
const DEAR: Price = Price { input: 10_000_000, cached: 1_000_000, output: 20_000_000 };

/// A scripted model that stands as it is told.
struct Placed {
    script: Scripted,
    standing: Standing,
}

impl Provider for Placed {
    fn facts(&self) -> ProviderFacts {
        self.script.facts()
    }
    fn standing(&self) -> Standing {
        self.standing
    }
    fn prompt<'a>(
        &'a self,
        messages: &'a Arc<Vec<Message>>,
        tools: Option<&'a Arc<str>>,
    ) -> BoxFuture<'a, Result<Prompt, ModelFailure>> {
        self.script.prompt(messages, tools)
    }
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<mpsc::Receiver<Said>, ModelFailure>> {
        self.script.answer(ask)
    }
}

/// Pays up to so much for a call, and remembers which models came and whether others were to follow.
struct Money {
    micro_usd: u64,
    asked: Mutex<Vec<(String, String, bool)>>,
}

impl Money {
    fn of(micro_usd: u64) -> Money {
        Money { micro_usd, asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<(String, String, bool)> {
        self.asked.lock().unwrap().clone()
    }
}

fn price(model: &str) -> Price {
    if model == "dear" { DEAR } else { CHEAP }
}

impl Reserve for Money {
    fn reserve(
        &self,
        min_tokens: u64,
        max_tokens: u64,
        want: Want,
        route: Option<Wished>,
    ) -> BoxFuture<'_, Result<u64, Refusal>> {
        let Wished { model, reason, others, .. } = route.expect("a model is named");
        let needs = price(&model).cost(want.fresh_tokens, want.known_tokens, min_tokens - want.fresh_tokens);
        self.asked.lock().unwrap().push((model, reason, others));
        let (path, resource) = ("cluster".to_string(), "micro_usd_day".to_string());
        let (available, limit) = (self.micro_usd, self.micro_usd);
        let granted = match needs <= self.micro_usd {
            true => Ok(max_tokens),
            false => Err(Refusal::OverQuota { path, resource, requested: needs, available, limit }),
        };
        Box::pin(std::future::ready(granted))
    }
}

fn placed(name: &str, window: u64, standing: Standing) -> (String, Arc<dyn Provider>) {
    let script = format!("window = {window}\n[[reply]]\ntext = 'said by {name}'\n");
    let script = Scripted::parse(name, "test.toml", &script).unwrap();
    (name.to_string(), Arc::new(Placed { script, standing }))
}

fn two(cheap: Standing, dear: Standing) -> Gateway {
    Gateway::new([placed("cheap", 100, cheap), placed("dear", 100, dear)])
}

fn routing(models: &[&str]) -> Routing {
    let models = models.iter().map(|model| (model.to_string(), Some(price(model)))).collect();
    Routing { models, read_by: None, begun_by: None, left_ms: None }
}

fn call(routing: Routing) -> ModelCall {
    ModelCall {
        model: "cheap".into(),
        agent: "writer".into(),
        project: ProjectName::default(),
        messages: vec![message(Role::User, "please speak")],
        tools: None,
        choice: mind::ToolChoice::None,
        known_tokens: 0,
        max_tokens: 10,
        min_tokens: 0,
        temperature_milli: 0,
        seed: 1,
        class: Class::Batch,
        call: 0,
        full_at_milli: None,
        routing: Some(routing),
    }
}

async fn ask(gateway: &Gateway, routing: Routing, money: &Money) -> ModelOutcome {
    gateway.call(call(routing), money, &|_| {}, &CancellationToken::new()).await
}

async fn said(gateway: &Gateway, routing: Routing, money: &Money) -> Generated {
    match ask(gateway, routing, money).await {
        ModelOutcome::Generated(said) => said,
        other => panic!("{other:?}"),
    }
}

fn told(said: &Generated) -> (&str, &str, Vec<&str>) {
    let route = said.route.as_ref().expect("a route");
    assert_eq!(said.text, format!("said by {}", route.model));
    (&route.model, &route.reason, route.candidates.iter().map(|it| it.verdict.as_str()).collect())
}

fn closed() -> Standing {
    Standing { closed_ms: 20_000, ..Standing::default() }
}

#[tokio::test]
async fn the_cheap_one_is_taken_and_the_answer_says_why() {
    let (gateway, money) = (two(Standing::default(), Standing::default()), Money::of(1_000));
    let first = said(&gateway, routing(&["dear", "cheap"]), &money).await;
    assert_eq!(told(&first), ("cheap", "CHEAPER", vec!["FITS", "FITS"]));
    let costs: Vec<u64> = first.route.unwrap().candidates.iter().map(|it| it.micro_usd).collect();
    assert_eq!(costs, [3 * 10 + 10 * 20, 3 + 10 * 2], "of the prompt and all that may be said");
    assert_eq!(money.asked(), [("cheap".to_string(), "CHEAPER".to_string(), false)]);
}

#[tokio::test]
async fn the_dear_one_is_taken_where_the_cheap_one_would_be_late_or_is_closed() {
    let busy = Standing { queue_ms: 60_000, ..Standing::default() };
    let hurry = Routing { left_ms: Some(30_000), ..routing(&["cheap", "dear"]) };
    let in_time = said(&two(busy, Standing::default()), hurry, &Money::of(1_000)).await;
    assert_eq!(told(&in_time), ("dear", "IN_TIME", vec!["LATE", "FITS"]));
    let other =
        said(&two(closed(), Standing::default()), routing(&["cheap", "dear"]), &Money::of(1_000)).await;
    assert_eq!(told(&other), ("dear", "ONLY_ONE", vec!["CLOSED", "FITS"]));
}

#[tokio::test]
async fn a_refused_dear_one_makes_room_for_a_cheaper_one_that_is_late() {
    let busy = Standing { queue_ms: 60_000, ..Standing::default() };
    let hurry = Routing { left_ms: Some(30_000), ..routing(&["cheap", "dear"]) };
    let money = Money::of(10);
    let late = said(&two(busy, Standing::default()), hurry, &money).await;
    assert_eq!(told(&late), ("cheap", "OVER_BUDGET", vec!["LATE", "OVER_BUDGET"]));
    let asked = money.asked();
    let others: Vec<_> = asked.iter().map(|(model, _, others)| (model.as_str(), *others)).collect();
    assert_eq!(others, [("dear", true), ("cheap", false)], "the last one pauses the task");
}

#[tokio::test]
async fn closed_by_its_destination_and_over_budget_leave_nothing_and_pause_once() {
    let money = Money::of(10);
    let outcome = ask(&two(closed(), Standing::default()), routing(&["cheap", "dear"]), &money).await;
    assert!(
        matches!(outcome, ModelOutcome::Refused(Refusal::OverQuota { requested: 50, .. })),
        "{outcome:?}"
    );
    assert_eq!(money.asked(), [("dear".to_string(), "ONLY_ONE".to_string(), false)]);
    // Of two that are too dear only the cheaper one is asked: the other one needs more.
    let poor = Money::of(1);
    ask(&two(Standing::default(), Standing::default()), routing(&["dear", "cheap"]), &poor).await;
    assert_eq!(poor.asked(), [("cheap".to_string(), "CHEAPER".to_string(), false)]);
}

#[tokio::test]
async fn what_a_model_has_read_counts_as_cached_for_it_alone() {
    let gateway = two(Standing::default(), Standing::default());
    let known = |read_by: &str| {
        let routing = Routing { read_by: Some(read_by.into()), ..routing(&["cheap", "dear"]) };
        ModelCall { known_tokens: 2, ..call(routing) }
    };
    for (read_by, billed) in [("cheap", 1 + 3), ("dear", 3 + 3)] {
        let outcome = gateway.call(known(read_by), &Money::of(999), &|_| {}, &CancellationToken::new()).await;
        let ModelOutcome::Generated(said) = outcome else { panic!("{outcome:?}") };
        assert_eq!((told(&said).0, said.billed_tokens), ("cheap", billed), "read by {read_by}");
    }
}

#[tokio::test]
async fn a_step_that_was_begun_goes_on_with_its_model_unless_that_is_closed() {
    let begun = || Routing { begun_by: Some("dear".into()), ..routing(&["cheap", "dear"]) };
    let open = two(Standing::default(), Standing::default());
    let again = said(&open, begun(), &Money::of(999)).await;
    assert_eq!(told(&again), ("dear", "SAME_MODEL", vec!["FITS", "FITS"]));
    let other = said(&two(Standing::default(), closed()), begun(), &Money::of(999)).await;
    assert_eq!(told(&other), ("cheap", "ONLY_ONE", vec!["FITS", "CLOSED"]));
}

#[tokio::test]
async fn where_none_fits_each_reason_is_said() {
    let broken = Standing { broken: true, ..Standing::default() };
    let gateway = Gateway::new([placed("small", 3, Standing::default()), placed("broken", 100, broken)]);
    let none = Routing { models: vec![("unpriced".into(), None)], ..routing(&[]) };
    let mut all = routing(&["small", "broken", "away"]);
    all.models.push(("cheap".into(), None));
    let ModelOutcome::Failed(failed) = ask(&gateway, all, &Money::of(9)).await else { panic!("none fits") };
    assert_eq!((failed.reason.as_str(), failed.retriable), ("NO_MODEL_FITS", true));
    for part in ["small WINDOW_TOO_SMALL (3 tokens of 3)", "broken BROKEN", "away NOT_HERE", "cheap NOT_HERE"]
    {
        assert!(failed.message.contains(part), "{part:?} is not in {}", failed.message);
    }
    let ModelOutcome::Failed(failed) = ask(&gateway, none, &Money::of(9)).await else { panic!("none fits") };
    assert!(!failed.retriable, "{failed}");
    let small = ask(&gateway, routing(&["small"]), &Money::of(9)).await;
    assert!(matches!(small, ModelOutcome::Failed(it) if it.reason == "CONTEXT_TOO_LONG" && !it.retriable));
    // A closed one is better than none: waiting is its client's business.
    let waits = Gateway::new([placed("cheap", 100, closed())]);
    assert_eq!(told(&said(&waits, routing(&["cheap"]), &Money::of(999)).await).1, "ONLY_ONE");
}
