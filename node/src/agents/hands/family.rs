//! Children: starting them, and hearing how they stand.

use super::{Hands, Patience, Trouble};
use crate::agents::course::Outcome;
use ledger::command::{ChildSpec, Command};
use ledger::query::{Answer, Query};
use ledger::reply::{Refusal, Reply};
use ledger::rows::{InputRef, QuotaKey, TaskRow};
use mind::{ChildOutcome, ChildPlan, Event};
use tokio_util::sync::CancellationToken;
use types::{Hash, NodeId};

impl Hands {
    /// Everything the children are given is durable before they exist.
    pub(super) async fn spawn(
        &self,
        step: u64,
        children: Vec<ChildPlan>,
        new_segments: Vec<(Hash, Vec<u8>)>,
        stop: CancellationToken,
    ) -> Outcome {
        let new: Vec<_> = new_segments.into_iter().map(|(hash, bytes)| (hash, bytes.into())).collect();
        let given = |child: &ChildPlan| {
            let inputs = child.inputs.iter().map(|(_, hash)| *hash).collect::<Vec<_>>();
            child.background.iter().copied().chain(inputs).collect::<Vec<_>>()
        };
        let named: Vec<Hash> = children.iter().flat_map(given).collect();
        let mut patience = Patience::default();
        loop {
            self.pulse.touch();
            match self.keep(new.clone(), &named).await {
                Ok(home) if home.len() >= self.shared.seams.stores.copies() => {
                    return self.propose_children(step, &children, home).await;
                }
                Ok(_) => {
                    tracing::info!(task = %self.lease.task, step, "too few copies of what children need")
                }
                Err(Trouble::Missing(why)) => {
                    tracing::warn!(task = %self.lease.task, why, "cannot start children yet")
                }
                Err(Trouble::Corrupt(why)) => return Outcome::Broke(why),
            }
            self.shared.seams.stores.refresh_members().await;
            if !patience.wait(&stop).await {
                return Outcome::Nothing;
            }
        }
    }

    async fn propose_children(&self, step: u64, children: &[ChildPlan], home: Vec<NodeId>) -> Outcome {
        let mut specs = Vec::with_capacity(children.len());
        for child in children {
            match self.spec(child, &home).await {
                Ok(spec) => specs.push(spec),
                Err(Trouble::Missing(why) | Trouble::Corrupt(why)) => return Outcome::Broke(why),
            }
        }
        let command = Command::Spawn {
            parent: self.lease.task,
            epoch: self.lease.epoch,
            node: self.node(),
            step,
            children: specs,
        };
        match self.shared.seams.ledger.request(command).await {
            Reply::Children(children) => Outcome::Happened(Event::Spawned { children }),
            Reply::Refused(refusal @ (Refusal::Fenced { .. } | Refusal::WrongState { .. })) => {
                self.fenced("spawn", &refusal)
            }
            Reply::Refused(refusal) => Outcome::Happened(cannot_spawn(&refusal)),
            other => Outcome::Broke(format!("{other:?} does not answer a spawn")),
        }
    }

    async fn spec(&self, child: &ChildPlan, home: &[NodeId]) -> Result<ChildSpec, Trouble> {
        let mut inputs = Vec::with_capacity(child.inputs.len());
        for (name, segment) in &child.inputs {
            let bytes = self.bytes(*segment).await?.len() as u64;
            inputs.push(InputRef { name: name.into(), segment: *segment, bytes });
        }
        let (agent, background) = (child.agent.clone(), child.background.clone());
        let limits = child.tokens.map(|tokens| vec![(QuotaKey::TokensTotal, tokens)]);
        let (together, priority) = (child.together.then_some(true), child.priority);
        Ok(ChildSpec { agent, inputs, background, home: home.to_vec(), limits, priority, together })
    }

    /// How all children stand, from the ledger.
    pub(super) async fn ask_children(&self, stop: CancellationToken) -> Outcome {
        let mut patience = Patience::default();
        loop {
            self.pulse.touch();
            match self.shared.seams.ledger.read(Query::Children { parent: self.lease.task }).await {
                Ok(Answer::Tasks { rows, .. }) => return self.tell_of(rows).await,
                Ok(other) => {
                    return Outcome::Broke(format!("{other:?} does not answer a question for children"));
                }
                Err(why) => tracing::debug!(task = %self.lease.task, why, "cannot ask for children yet"),
            }
            if !patience.wait(&stop).await {
                return Outcome::Nothing;
            }
        }
    }

    async fn tell_of(&self, rows: Vec<TaskRow>) -> Outcome {
        self.known().hints.extend(rows.iter().flat_map(|row| row.home.iter().copied()));
        let mut children = Vec::with_capacity(rows.len());
        for row in rows {
            let error = self.error_of(&row).await;
            children.push(ChildOutcome {
                uid: row.uid,
                state: row.state,
                result: row.result,
                result_bytes: row.result_bytes,
                result_name: row.inputs.first().map(|input| input.name.to_string()).unwrap_or_default(),
                error,
                agent: row.agent.to_string(),
            });
        }
        Outcome::Happened(Event::Children(children))
    }

    /// Why a child failed, in words where they are to be had.
    async fn error_of(&self, row: &TaskRow) -> Option<String> {
        let error = row.error.as_ref()?;
        let Some(text) = error.text else { return Some(error.reason.clone()) };
        match self.segment(text).await {
            Ok(segment) => Some(format!("{}: {}", error.reason, segment.text)),
            Err(_) => Some(error.reason.clone()),
        }
    }
}

fn cannot_spawn(refusal: &Refusal) -> Event {
    let reason = match refusal {
        Refusal::NotFound { .. } => "NO_SUCH_AGENT",
        Refusal::OverQuota { .. } => "OVER_QUOTA",
        _ => "SPAWN_REFUSED",
    };
    let next = "check the team's agents with `quorate agent list`, and its number of inputs";
    let message = format!("the children were not started: {refusal}; {next}");
    Event::ModelFailed { reason: reason.into(), message, retriable: false }
}
