//! Agents that name several models: by price, over a lost node, over a budget.

use super::fakes::scripted;
use super::world::{OTHER, SCRIPTED, World, start};
use super::{QUICK, SLOW, empty, is_reserve, spoken};
use ledger::command::Command;
use mind::StepRecord;
use types::{PauseReason, TaskState};

fn chooser() -> String {
    format!("name = 'chooser'\nmodels = ['{SCRIPTED}', '{OTHER}']\nmax_tokens = 50\n")
}

fn route(record: &StepRecord) -> (&str, &str) {
    let route = record.route.as_ref().expect("a route");
    (&route.model, &route.reason)
}

#[tokio::test]
async fn a_step_that_a_lost_node_began_goes_on_with_its_model() {
    let world = World::new(3);
    let ids = world.nodes();
    world.price(SCRIPTED, 2_000_000);
    world.price(OTHER, 1_000_000);
    world.apply_agent(&chooser());
    let first = start(&world, ids[1], scripted(SLOW)).await;
    let task = world.create("chooser", &[("q", "go")]);
    spoken(&world, &first, task, 8).await;
    // By now the other one would be chosen.
    world.price(OTHER, 9_000_000);
    let second = start(&world, ids[2], scripted(QUICK)).await;
    let _gone = world.lose(first.id);
    world.until_state(task, TaskState::Succeeded).await;
    let steps = world.journal(task);
    assert_eq!(steps.iter().map(route).collect::<Vec<_>>(), [(OTHER, "SAME_MODEL")]);
    empty(&world, &second).await;
    assert_eq!(world.row(task).route, None, "the next step chooses anew");
    let next = world.create("chooser", &[("q", "go")]);
    world.until_state(next, TaskState::Succeeded).await;
    assert_eq!(route(&world.journal(next)[0]), (SCRIPTED, "CHEAPER"));
}

#[tokio::test]
async fn where_no_model_is_within_the_budget_the_task_pauses_once_and_wakes_for_the_cheapest() {
    let world = World::new(2);
    world.price(SCRIPTED, 10_000_000);
    world.price(OTHER, 1_000_000);
    world.apply_agent(&chooser());
    let node = start(&world, world.nodes()[1], scripted(QUICK)).await;
    world.limit("micro_usd_total", 1);
    let task = world.create("chooser", &[("q", "go")]);
    world.until_state(task, TaskState::Paused(PauseReason::Budget)).await;
    empty(&world, &node).await;
    let asked: Vec<String> = world.log().into_iter().filter(is_reserve).map(model).collect();
    assert_eq!(asked, [OTHER], "the dear one needs more");
    world.limit("micro_usd_total", 30);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(route(&world.journal(task)[0]), (OTHER, "CHEAPER"));
    assert_eq!(row.spent.micro_usd, row.spent.prompt_tokens + row.spent.generated_tokens);
}

fn model(command: Command) -> String {
    let Command::Reserve { route, .. } = command else { panic!("{command:?}") };
    route.expect("several models").model
}
