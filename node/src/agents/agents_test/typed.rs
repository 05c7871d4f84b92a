//! Results with a form.

use super::scripted;
use super::world::{SCRIPTED, World, start};
use types::TaskState;

fn reader() -> String {
    format!(
        "name = 'reader'\nmodel = '{SCRIPTED}'\n\
         result_schema = '''{{\"type\": \"object\", \"required\": [\"city\"], \"properties\": {{\"city\": {{\"type\": \"string\"}}}}}}'''\n"
    )
}

#[tokio::test]
async fn an_answer_off_its_schema_is_given_again() {
    let world = World::new(2);
    let script = "[[reply]]\nwhen_contains = 'is not of type'\ntext = '```json {\"city\": \"Oslo\"} ```'\n\
                  [[reply]]\nwhen_contains = 'it is not JSON'\ntext = '{\"city\": 7}'\n\
                  [[reply]]\ntext = 'It is Oslo.'\n";
    let _node = start(&world, world.nodes()[1], scripted(script)).await;
    world.apply_agent(&reader());
    let task = world.create("reader", &[("q", "Which city?")]);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(world.text(row.result.unwrap(), row.home[0]).unwrap(), "{\"city\": \"Oslo\"}");
    let off = |record: &&mind::StepRecord| matches!(record.decision, mind::Decision::OffSchema { .. });
    assert_eq!((row.step, world.journal(task).iter().filter(off).count()), (3, 2));
}

#[tokio::test]
async fn the_third_answer_off_its_schema_fails_with_what_is_wrong() {
    let world = World::new(2);
    let _node = start(&world, world.nodes()[1], scripted("[[reply]]\ntext = 'It is Oslo.'\n")).await;
    world.apply_agent(&reader());
    let task = world.create("reader", &[("q", "Which city?")]);
    let row = world.until_state(task, TaskState::Failed).await;
    let error = row.error.as_ref().unwrap();
    assert_eq!((error.reason.as_str(), row.step), ("OFF_SCHEMA", 3));
    let text = world.text(error.text.unwrap(), row.home[0]).unwrap();
    assert!(text.contains("it is not JSON"), "{text}");
}
