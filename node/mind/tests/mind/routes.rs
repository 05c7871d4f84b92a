//! Agents that name several models: what a call may choose from, and what the journal says of it.

use crate::harness::{AGENT, Store, facts, generated, live};
use mind::{Effect, Event, Finish, NextMove, Route, Routes};

const CHOOSER: &str = "name = \"reader\"\nmodels = [\"cheap\", \"dear\"]\nmax_tokens = 20\nmax_steps = 4\n";

fn routes(effect: &Effect) -> Option<Routes> {
    let Effect::Infer { routes, .. } = effect else { panic!("{effect:?}") };
    routes.clone()
}

fn by(model: &str, event: Event) -> Event {
    let Event::Generated {
        text,
        token_ids,
        tokenizer,
        finish,
        spent,
        billed_tokens,
        chain_tokens,
        numerics,
        calls,
        ..
    } = event
    else {
        panic!("{event:?}")
    };
    let route = Route { model: model.into(), reason: "CHEAPER".into(), candidates: vec![] };
    let route = Some(Box::new(route));
    Event::Generated {
        text,
        token_ids,
        tokenizer,
        finish,
        spent,
        billed_tokens,
        chain_tokens,
        numerics,
        calls,
        route,
    }
}

#[test]
fn each_call_chooses_anew_but_an_answer_that_was_cut_goes_on_with_its_model() {
    let mut store = Store::default();
    let facts = facts(CHOOSER, &["a"]);
    // The budget cuts the first answer.
    let answer = |step: u64, _: u32, effect: &Effect| {
        let seen = routes(effect).expect("several models");
        let (models, read_by): (&[&str], _) = match step {
            1 => (&["cheap", "dear"], None),
            _ => (&["dear"], Some("dear".to_string())),
        };
        assert_eq!(seen, Routes { models: models.iter().map(|it| it.to_string()).collect(), read_by });
        let finish = if step == 1 { Finish::Budget } else { Finish::Stop };
        by("dear", generated("some words", 2, finish))
    };
    let (_, end) = live(&mut store, &facts, &answer);
    assert!(matches!(end, NextMove::Done { .. }), "{end:?}");
    for hash in &store.journal {
        let record = store.record(*hash);
        assert_eq!((record.format, record.min_reader), (4, 4));
        assert_eq!(record.route.expect("it was routed").model, "dear");
    }
    let steps = store.journal.len();
    assert_eq!(steps, 2);
    let mut again = store.revive(&facts, 1);
    let effect = again.on(Event::Begin).remove(0);
    let effect = match effect {
        Effect::Load { hashes } => again.on(store.loaded(&hashes)).remove(0),
        other => other,
    };
    assert_eq!(
        routes(&effect).expect("several").read_by.as_deref(),
        Some("dear"),
        "a new life knows it, too"
    );
}

#[test]
fn an_agent_of_one_model_has_no_routes_and_its_records_no_new_form() {
    let mut store = Store::default();
    let answer = |_: u64, _: u32, effect: &Effect| {
        assert_eq!(routes(effect), None);
        generated("done", 1, Finish::Stop)
    };
    live(&mut store, &facts(AGENT, &["a"]), &answer);
    let record = store.record(store.journal[0]);
    assert_eq!((record.format, record.route), (1, None));
}
