//! A task of the local engine whose node is killed: its calls of tools, its text, and what of its prompt is computed again
//! where cached blocks follow a task to its keeper.

use crate::real_model::model_file;
use crate::support::*;
use crate::tools::{Noted, sink};
use anyhow::{Context, ensure};
use quorate_sdk::{Client, EventKind, Task, TaskState};
use quorate_tests::{Cluster, Spec, until};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Calls of one task: every answer but the last is a call.
const TURNS: u64 = 30;
/// Every answer is sampled with the same seed, and can be nothing but a call, until it can be none.
const CLERK: &str = "name = 'clerk'\nmodel = 'smollm2'\nsystem = 'You note numbers.'\ntools = ['sink.mark']\n\
                     tool_choice = 'required'\nmax_steps = 31\nmax_tokens = 48\ntemperature = 0.7\nseed = 5\n";
const INPUT: &str = "Note some numbers that you like, one after the other.";
/// A task of thirty turns takes so long on a busy machine, in a debug build.
const TASK: Duration = Duration::from_secs(180);
/// Beside one step: the end of the last block, which is not whole.
const BLOCK_TOKENS: u64 = 16;

#[tokio::test]
async fn a_killed_worker_of_the_local_engine_is_replaced_to_the_letter() -> anyhow::Result<()> {
    model_file()?;
    let noted = Noted::new()?;
    let spec = Spec {
        models: vec!["smollm2".into()],
        more: sink(&noted.file()),
        engine: "kv_copies = 1\n".into(),
        ..Spec::default()
    };
    on_cluster(spec, async |cluster| {
        let alone = project(cluster, "undisturbed").await?;
        let undisturbed =
            ended(&alone, &alone.tasks().create("clerk").input(INPUT).send().await?.uid).await?;
        let text = alone.tasks().result(&undisturbed).await?;
        ensure!(noted.of(&undisturbed.uid)?.len() as u64 == TURNS, "{:?}", noted.of(&undisturbed.uid)?);
        for round in 0..rounds("QUORATE_LOCAL_KILLS") {
            // Another place every time: in a model call, a tool call, a commit.
            let at = 4 + u64::from(round.wrapping_add(1).wrapping_mul(2_654_435_761) >> 7) % (2 * TURNS - 10);
            // Nothing is cached for a project that is new.
            let client = project(cluster, &format!("killed-{round}")).await?;
            let task = killed_at(cluster, &client, at).await?;
            ensure!(client.tasks().result(&task).await? == text, "killed at step {at}");
            let operations = noted.of(&task.uid)?;
            ensure!(operations.len() as u64 == TURNS, "killed at step {at}: {operations:?}");
            little_was_computed_again(&undisturbed, &task, at)?;
        }
        Ok(())
    })
    .await
}

/// A client of a project that has the agent.
async fn project(cluster: &Cluster, name: &str) -> anyhow::Result<Client> {
    let client = cluster.client()?.with_project(name)?;
    client.agents().apply(CLERK).send().await?;
    Ok(client)
}

async fn ended(client: &Client, uid: &str) -> anyhow::Result<Task> {
    let task = timeout(TASK, client.tasks().wait(uid)).await.context("the task's end")??;
    ensure!(task.state == TaskState::Succeeded, "{task:?}");
    Ok(task)
}

/// Kills the task's node when a step is committed, and waits for the end; the node is back then.
async fn killed_at(cluster: &mut Cluster, client: &Client, at: u64) -> anyhow::Result<Task> {
    let uid = client.tasks().create("clerk").input(INPUT).send().await?.uid;
    let mut watch = client.tasks().watch(&uid).without_tokens();
    let reached = |kind: &EventKind| matches!(kind, EventKind::Step { step, .. } if *step >= at);
    timeout(TASK, async {
        while let Some(event) = watch.next().await? {
            if reached(&event.kind) {
                return anyhow::Ok(());
            }
        }
        anyhow::bail!("the task ended before step {at}")
    })
    .await??;
    let victim = client.tasks().get(&uid).await?.node.context("a node has it")?;
    cluster.node_mut(&victim)?.kill()?;
    let killed = Instant::now();
    until("another node", PATIENCE, || async {
        let task = client.tasks().get(&uid).await.ok()?;
        task.node.filter(|node| *node != victim)
    })
    .await?;
    figure("local_kill_reassigned_ms", killed.elapsed().as_millis());
    let task = ended(client, &uid).await?;
    cluster.node_mut(&victim)?.start()?;
    cluster.wait_ready(cluster.nodes.len()).await?;
    Ok(task)
}

/// Both computed every token of one conversation once, in a project that was new. What the killed one computed beside
/// that, it computed again.
fn little_was_computed_again(undisturbed: &Task, killed: &Task, at: u64) -> anyhow::Result<()> {
    let computed = |task: &Task| task.usage.prompt_tokens - task.usage.cached_tokens;
    ensure!(undisturbed.usage.prompt_tokens == killed.usage.prompt_tokens, "{undisturbed:?} {killed:?}");
    let again = computed(killed).saturating_sub(computed(undisturbed));
    let step = (undisturbed.usage.generated_tokens + computed(undisturbed)).div_ceil(TURNS + 1);
    figure("local_kill_computed_again", again);
    figure("local_kill_turn_tokens", step);
    ensure!(
        again <= step + BLOCK_TOKENS,
        "{again} tokens were computed again after a kill at step {at}; a turn has {step}"
    );
    Ok(())
}
