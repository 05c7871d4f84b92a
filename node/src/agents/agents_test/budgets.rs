//! Random budgets against the real model, through the whole way of a task: each ends at exactly its token, on whichever
//! engine, with whatever is in its cache, and goes on there when it is raised. `QUORATE_BUDGETS` says how many.

use super::world::{NodeInWorld, SCRIPTED, World, start};
use crate::engine_thread::real::LoadedModel;
use crate::gateway::local::Local;
use crate::gateway::local::local_test::model_file;
use futures::{StreamExt, stream};
use ledger::rows::{QuotaKey, TaskRow};
use std::sync::Arc;
use types::{Hash, PauseReason, TaskState, TaskUid};
use worker_inference::EngineConfig;

const QUESTIONS: [&str; 5] = [
    "What is the capital of France?",
    "Name three colours.",
    "Write a sentence about the sea, then one about a ship that comes home after a long winter in the north.",
    "Count from one to ten.",
    "Say yes.",
];
const AT_ONCE: usize = 8;

/// What a task without a limit says and is billed.
struct Whole {
    text: String,
    tokens: u64,
}

/// What came of one budget.
#[derive(Default)]
struct Told {
    over: u64,
    pauses: u64,
}

#[tokio::test]
async fn random_budgets_end_at_exactly_their_token_on_any_engine() {
    let wanted: u64 = std::env::var("QUORATE_BUDGETS").ok().and_then(|it| it.parse().ok()).unwrap_or(24);
    let world = World::new(3);
    let ids = world.nodes();
    world.apply_agent(&format!(
        "name = 'writer'\nmodel = '{SCRIPTED}'\nsystem = 'Be brief.'\nmax_tokens = 24\ntemperature = 0.0\n"
    ));
    // One with room for everything, one that has to throw away what it computed.
    let roomy = start(&world, ids[1], engine(128 << 20)).await;
    let narrow = start(&world, ids[2], engine(14 << 20)).await;
    let mut whole = vec![];
    for question in QUESTIONS {
        whole.push(undisturbed(&world, question).await);
    }
    let (first, second) = (0..wanted / 2, wanted / 2..wanted);
    let mut told = many(&world, &whole, first).await;
    // The rest is for the narrow one, also what the other one had begun.
    let begun = within(&world, 0, whole[0].tokens - 3);
    world.until("it is begun", || world.row(begun).node).await;
    lose(&world, &roomy);
    check(&world, begun, whole[0].tokens - 3, &whole[0]).await;
    let after = many(&world, &whole, second).await;
    told.over += after.over;
    told.pauses += after.pauses;
    println!(
        "figure budgets {wanted}\nfigure budgets_tokens_over {}\nfigure budgets_pauses {}",
        told.over, told.pauses
    );
    assert_eq!(told.over, 0);
    assert!(told.pauses > wanted / 2, "most budgets are too small: {} pauses", told.pauses);
    drop(narrow);
}

fn engine(kv_bytes: usize) -> Arc<Local> {
    let config = EngineConfig { kv_bytes, ..EngineConfig::default() };
    let model = LoadedModel::load("smollm2", &model_file(), config).expect("the model loads");
    Arc::new(Local::new(&model))
}

fn lose(world: &Arc<World>, node: &NodeInWorld) {
    drop(world.lose(node.id));
}

async fn undisturbed(world: &Arc<World>, question: &str) -> Whole {
    let task = world.create("writer", &[("q", question)]);
    let row = world.until_state(task, TaskState::Succeeded).await;
    Whole { text: text(world, &row), tokens: row.settled_tokens }
}

fn text(world: &World, row: &TaskRow) -> String {
    let result: Hash = row.result.expect("it succeeded");
    row.home.iter().find_map(|node| world.text(result, *node)).expect("somebody has the result")
}

async fn many(world: &Arc<World>, whole: &[Whole], numbers: std::ops::Range<u64>) -> Told {
    let each = stream::iter(numbers).map(|number| async move {
        let of = (number % QUESTIONS.len() as u64) as usize;
        let budget = random(number, 0) % (whole[of].tokens + 6);
        check(world, within(world, of, budget), budget, &whole[of]).await
    });
    let told: Vec<Told> = each.buffer_unordered(AT_ONCE).collect().await;
    Told { over: told.iter().map(|it| it.over).sum(), pauses: told.iter().map(|it| it.pauses).sum() }
}

fn within(world: &World, of: usize, budget: u64) -> TaskUid {
    world.create_within("writer", &[("q", QUESTIONS[of])], &[(QuotaKey::TokensTotal, budget)])
}

/// Raises the budget by random pieces until the task is done, and looks each time where it stopped.
async fn check(world: &Arc<World>, task: TaskUid, mut budget: u64, whole: &Whole) -> Told {
    let mut told = Told::default();
    loop {
        let row = world.until("it is done or out of budget", || stopped(world.row(task))).await;
        told.over += row.settled_tokens.saturating_sub(budget);
        if row.state == TaskState::Succeeded {
            assert_eq!((text(world, &row), row.settled_tokens), (whole.text.clone(), whole.tokens));
            return told;
        }
        told.pauses += 1;
        assert_eq!(row.reserved_tokens, 0, "nothing is set aside of a task that is paused");
        // Nothing begins that has no room for its prompt; what begins goes to the last token.
        assert!(row.settled_tokens == budget || row.step == 0, "{} of {budget} used", row.settled_tokens);
        budget += 1 + random(task.index, budget) % 12;
        world.limit_at(&format!("tasks/{task}"), QuotaKey::TokensTotal, budget);
    }
}

fn stopped(row: TaskRow) -> Option<TaskRow> {
    let ended = matches!(row.state, TaskState::Succeeded | TaskState::Paused(PauseReason::Budget));
    assert!(ended || !row.state.is_final(), "{row:?}");
    ended.then_some(row)
}

fn random(seed: u64, turn: u64) -> u64 {
    let hash = Hash::of(&[seed.to_le_bytes(), turn.to_le_bytes()].concat());
    u64::from_le_bytes(hash.0[..8].try_into().expect("eight bytes"))
}
