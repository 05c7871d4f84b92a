//! A task from its journal: definition, background, inputs, the chain of step records, and what they name.

use super::{Hands, Patience, Trouble};
use crate::agents::course::Outcome;
use crate::agents::roster::said_to;
use ledger::query::{Answer, Query};
use ledger::rows::TaskRow;
use mind::{Definition, Event, Mind, StepRecord, TaskFacts};
use tokio_util::sync::CancellationToken;
use types::{Hash, TaskUid, limits};

/// Tries before the lease is given back: about ten seconds, in which a restarting node comes back.
const TRIES: u32 = 12;

impl Hands {
    pub(crate) async fn load(&self) -> Outcome {
        let never = CancellationToken::new();
        let mut patience = Patience::default();
        for _ in 0..TRIES {
            self.pulse.touch();
            match self.load_once().await {
                Ok(mind) => return Outcome::Loaded(Box::new(mind)),
                Err(Trouble::Corrupt(why)) => return Outcome::Corrupt(why),
                Err(Trouble::Missing(why)) => {
                    tracing::warn!(task = %self.lease.task, why, "cannot load the task yet");
                    self.shared.seams.stores.refresh_members().await;
                    patience.wait(&never).await;
                }
            }
        }
        Outcome::Unloadable
    }

    async fn load_once(&self) -> Result<Mind, Trouble> {
        let row = &self.row_now().await?;
        let definition = self.definition().await?;
        let inputs: Vec<Hash> = row.inputs.iter().map(|input| input.segment).collect();
        let given: Vec<Hash> = row.background.iter().copied().chain(inputs).collect();
        self.fetch(&given).await?;
        let records = self.records(row.head).await?;
        let named: Vec<Hash> = records.iter().flat_map(|(_, record)| record.names()).collect();
        self.fetch(&named).await?;
        let chain: Vec<Hash> = given.iter().copied().chain(named).collect();
        for hash in &chain {
            self.segment(*hash).await?;
        }
        let journal = records.iter().map(|(hash, _)| *hash);
        let closure: Vec<Hash> =
            std::iter::once(*row.definition).chain(chain.iter().copied()).chain(journal).collect();
        self.shared.counters.full_context(self.stored_bytes(closure.iter().copied()));
        self.copies.loaded(closure);
        let tree = self.root(&chain).await?;
        self.known().tree = Some(tree);
        let mut mind = Mind::new(self.facts(definition, tree, said_to(row)));
        for (hash, record) in &records {
            mind.replay(*hash, record).map_err(|error| Trouble::Corrupt(error.to_string()))?;
        }
        Ok(mind)
    }

    /// The task's row by now: an agent that is started again has committed steps since its lease began.
    async fn row_now(&self) -> Result<TaskRow, Trouble> {
        let row = self.task(self.lease.task).await?.filter(|row| row.epoch == Some(self.lease.epoch));
        Ok(row.unwrap_or_else(|| self.lease.row.clone()))
    }

    fn facts(&self, definition: Definition, tree: TaskUid, inbox: Vec<mind::Signal>) -> TaskFacts {
        let row = &self.lease.row;
        TaskFacts {
            uid: row.uid,
            project: row.project.clone(),
            agent: row.agent.to_string(),
            tree,
            background: row.background.clone(),
            inputs: row.inputs.iter().map(|input| (input.name.to_string(), input.segment)).collect(),
            definition,
            seed: seed_of(row.uid),
            epoch: self.lease.epoch,
            inbox,
        }
    }

    async fn definition(&self) -> Result<Definition, Trouble> {
        let hash = *self.lease.row.definition;
        if let Err(Trouble::Missing(_)) = self.fetch(&[hash]).await {
            // The agent may live elsewhere than the task: its own row says where.
            self.hint_at_agents_home().await;
        }
        let text = &self.segment(hash).await?.text;
        Definition::parse(text).map_err(|error| Trouble::Corrupt(format!("the agent's definition: {error}")))
    }

    async fn hint_at_agents_home(&self) {
        let row = &self.lease.row;
        let query = Query::Agent { project: row.project.clone(), name: row.agent.to_string() };
        if let Ok(Answer::Agent(Some(agent))) = self.shared.seams.ledger.read(query).await {
            self.known().hints.extend(agent.home);
        }
    }

    /// The journal, oldest first.
    async fn records(&self, head: Option<Hash>) -> Result<Vec<(Hash, StepRecord)>, Trouble> {
        let mut records = Vec::new();
        let mut next = head;
        while let Some(hash) = next {
            if records.len() > limits::CHAIN_SEGMENTS {
                return Err(Trouble::Corrupt(format!("more than {} step records", limits::CHAIN_SEGMENTS)));
            }
            self.fetch(&[hash]).await?;
            let bytes = self.bytes(hash).await?;
            let record = StepRecord::open(self.project(), hash, &bytes);
            let record = record.map_err(|error| Trouble::Corrupt(error.to_string()))?;
            next = record.prev;
            records.push((hash, record));
        }
        records.reverse();
        Ok(records)
    }

    /// The root of the task's tree: its oldest ancestor. A fork belongs to the tree that it came from: it reads what was
    /// said there.
    async fn root(&self, chain: &[Hash]) -> Result<TaskUid, Trouble> {
        let mut root = self.lease.task;
        let mut parent = above(&self.lease.row);
        for _ in 0..=limits::TASK_DEPTH {
            let Some(uid) = parent else { return Ok(root) };
            root = uid;
            match self.task(uid).await? {
                Some(row) => parent = above(&row),
                None => return self.root_by_its_words(chain, uid).await,
            }
        }
        Err(Trouble::Corrupt(format!("more than {} ancestors", limits::TASK_DEPTH)))
    }

    /// A fork may outlive the records of the tree that it came from. What was said there tells its root still.
    async fn root_by_its_words(&self, chain: &[Hash], unknown: TaskUid) -> Result<TaskUid, Trouble> {
        if self.task(self.lease.task).await?.is_none() {
            return Err(Trouble::Missing(format!("the ledger does not know the ancestor {unknown} yet")));
        }
        for hash in chain {
            let segment = self.segment(*hash).await?;
            if let Ok(root) = TaskUid::parse(&segment.tree) {
                return Ok(root);
            }
        }
        Ok(unknown)
    }

    async fn task(&self, uid: TaskUid) -> Result<Option<TaskRow>, Trouble> {
        match self.shared.seams.ledger.read(Query::TaskByUid { uid }).await.map_err(Trouble::Missing)? {
            Answer::Task(row) => Ok(row.map(|row| *row)),
            other => Err(Trouble::Missing(format!("asked for a task, the ledger answered {other:?}"))),
        }
    }

    /// Answers the mind's wish to see segments again.
    pub(crate) async fn open_all(&self, hashes: Vec<Hash>, stop: CancellationToken) -> Outcome {
        let mut patience = Patience::default();
        loop {
            self.pulse.touch();
            match self.open_once(&hashes).await {
                Ok(segments) => return Outcome::Happened(Event::Loaded { segments }),
                Err(Trouble::Corrupt(message)) => {
                    let reason = "CORRUPT_SEGMENT".to_string();
                    return Outcome::Happened(Event::ModelFailed { reason, message, retriable: false });
                }
                Err(Trouble::Missing(why)) => {
                    tracing::warn!(task = %self.lease.task, why, "a segment is not to be had yet");
                    if !patience.wait(&stop).await {
                        return Outcome::Nothing;
                    }
                }
            }
        }
    }

    async fn open_once(&self, hashes: &[Hash]) -> Result<Vec<(Hash, context::Segment)>, Trouble> {
        let mut segments = Vec::with_capacity(hashes.len());
        for hash in hashes {
            segments.push((*hash, self.segment(*hash).await?.as_ref().clone()));
        }
        Ok(segments)
    }
}

fn above(row: &TaskRow) -> Option<TaskUid> {
    row.origin.map(|origin| origin.parent).or(row.fork.as_ref().map(|fork| fork.task))
}

/// A task's own seed: the same wherever and how often it runs.
fn seed_of(task: TaskUid) -> u64 {
    let hash = Hash::of_parts(&[b"task seed", task.to_string().as_bytes()]);
    u64::from_le_bytes(hash.0[..8].try_into().expect("a hash has 32 bytes"))
}
