//! Tasks whose history is many times the model's window.

use super::scripted;
use super::world::{SCRIPTED, World, start};
use ledger::command::Command;
use types::TaskState;

const TURNS: usize = 60;

/// Sixty calls with a hundred words each, for a window of two thousand tokens; summaries have ten words.
fn script() -> String {
    let words = "word ".repeat(100);
    format!(
        "window = 2000\n\
         [[reply]]\nwhen_contains = 'You shorten the history'\ntext = 'It put many things away and goes on with more.'\n\
         [[reply]]\ntext = 'I go on.'\n\
         calls = [{{ name = 'sink.put', arguments = '{{\"n\": {{results}}, \"text\": \"{words}\"}}' }}]\n"
    )
}

fn clerk(compaction: &str) -> String {
    let steps = TURNS + 1;
    format!("name = 'clerk'\nmodel = '{SCRIPTED}'\nmax_steps = {steps}\ntools = ['sink.*']\n{compaction}")
}

#[tokio::test]
async fn without_compaction_the_window_ends_the_task() {
    let world = World::new(2);
    let _node = start(&world, world.nodes()[1], scripted(&script())).await;
    world.apply_agent(&clerk(""));
    let task = world.create("clerk", &[("q", "Put things away.")]);
    let row = world.until_state(task, TaskState::Failed).await;
    assert_eq!(row.error.as_ref().expect("it says why").reason, "CONTEXT_TOO_LONG");
}

#[tokio::test]
async fn an_agent_summarises_for_itself_and_ends_well() {
    let world = World::new(2);
    let _node = start(&world, world.nodes()[1], scripted(&script())).await;
    world.apply_agent(&clerk("[compaction]\nmax_tokens = 64\n"));
    let task = world.create("clerk", &[("q", "Put things away.")]);
    let row = world.until_state(task, TaskState::Succeeded).await;
    let steps = world.journal(task);
    let (mut summaries, mut replaced) = (0, 0);
    for record in &steps {
        if let mind::Decision::Condensed { summary: Some(summary), count, .. } = &record.decision {
            let text = world.text(*summary, row.home[0]).expect("it is kept");
            assert!(text.contains("goes on with more"), "{text}");
            summaries += 1;
            replaced += count;
        }
    }
    assert!(summaries >= 3 && replaced >= 60, "{summaries} summaries of {replaced} pieces");
    // What was replaced is still there, on both nodes, word for word.
    let originals = steps.iter().flat_map(|record| record.added.clone());
    assert!(originals.clone().count() > 180);
    for hash in originals {
        assert!(row.home.iter().all(|node| world.holds(*node, hash)));
    }
    assert_eq!(world.tools.calls().len(), TURNS, "every call was made, and once");
    println!("figure condensed_summaries {summaries}\nfigure condensed_pieces {replaced}");
}

#[tokio::test]
async fn a_summary_agent_works_beside_the_task_behind_everybody() {
    let world = World::new(3);
    let mut nodes = Vec::new();
    for id in world.nodes().into_iter().skip(1) {
        nodes.push(start(&world, id, scripted(&script())).await);
    }
    world.apply_agent(&format!("name = 'summary'\nmodel = '{SCRIPTED}'\n"));
    world.apply_agent(&clerk("[compaction]\nmax_tokens = 64\nagent = 'summary'\n"));
    let task = world.create("clerk", &[("q", "Put things away.")]);
    let row = world.until_state(task, TaskState::Succeeded).await;
    let children: Vec<_> = row.children.iter().map(|child| world.row(*child)).collect();
    assert!(children.len() >= 3, "{} children", children.len());
    assert!(children.iter().all(|child| &*child.agent == "summary" && child.priority == 0));
    assert!(children.iter().filter(|child| child.state == TaskState::Succeeded).count() >= 3);
    let spawned = world.log().into_iter().filter(|command| matches!(command, Command::Spawn { .. })).count();
    assert_eq!(spawned, children.len(), "one for each");
}
