//! Boards on real processes: what a child writes its parent reads, and nobody outside of the tree.

use crate::support::*;
use anyhow::ensure;

fn turn(agent: &str, below: usize, tool: &str, arguments: &str) -> String {
    format!(
        "[[reply]]\nwhen_agent = {agent:?}\nwhen_results_below = {below}\ntext = 'I go on.'\n\
         calls = [{{ name = {tool:?}, arguments = '{arguments}' }}]\n"
    )
}

fn found(agent: &str) -> String {
    format!("[[reply]]\nwhen_agent = {agent:?}\ntext = 'Found: {{last}}'\n")
}

fn script() -> Vec<String> {
    let read = r#"{"name": "plan"}"#;
    let note = r#"{"name": "plan", "text": "First the bread.", "version": 0}"#;
    vec![
        turn("clerk", 1, "spawn", r#"{"agent": "baker", "input": "Write the plan down."}"#)
            + &turn("clerk", 2, "board.read", read)
            + &found("clerk"),
        turn("baker", 1, "board.write", note) + &found("baker"),
        turn("stranger", 1, "board.read", read) + &found("stranger"),
    ]
}

#[tokio::test]
async fn what_a_child_writes_its_parent_reads_and_no_stranger() -> anyhow::Result<()> {
    on_cluster(spec(&script()), async |cluster| {
        let client = cluster.client()?;
        for (agent, tools) in [
            ("clerk", "tools = ['spawn', 'board.*']"),
            ("baker", "tools = ['board.*']"),
            ("stranger", "tools = ['board.*']"),
        ] {
            apply_with(&client, agent, tools).await?;
        }
        let task = client.tasks().create("clerk").input("go").send().await?;
        let result = client.tasks().result(&succeeded(&client, &task.uid).await?).await?;
        for part in ["First the bread.", "\"author\":\"baker\"", "\"version\":1"] {
            ensure!(result.contains(part), "{part:?} is not in {result}");
        }
        let other = client.tasks().create("stranger").input("go").send().await?;
        let result = client.tasks().result(&succeeded(&client, &other.uid).await?).await?;
        ensure!(result.contains("there is no \"plan\" on the board"), "{result}");
        Ok(())
    })
    .await
}
