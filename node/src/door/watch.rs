//! One watcher of one task: committed events in exact order, live tokens between them.
//!
//! Committed events come from the ledger and are never lost: a source that ends is opened again where it stopped.
//! Tokens come from the node that holds the lease and may be lost; what was shown of a step that was not committed is
//! retracted.

use super::{Door, convert};
use crate::live::{LiveChunk, Said};
use crate::segments::PeerError;
use futures::stream::BoxStream;
use ledger::rows::{Event, EventKind, TaskRow};
use proto::v1 as pb;
use proto::v1::task_event::Kind;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;
use tonic::metadata::MetadataMap;
use types::{NodeId, TaskState, limits};

/// Pause before a lost source of events is opened again.
const REOPEN: Duration = Duration::from_millis(100);

type Events = Pin<Box<dyn Stream<Item = Result<pb::TaskEvent, Status>> + Send>>;
type Tokens = BoxStream<'static, Result<LiveChunk, PeerError>>;

/// Marks an answer from a node's own state with how far it had applied and how old that is.
pub(crate) fn stamp_stale(metadata: &mut MetadataMap, applied_index: u64, age_ms: u64) {
    metadata.insert("quorate-applied-index", applied_index.into());
    metadata.insert("quorate-age-ms", age_ms.into());
}

pub(crate) fn stream(door: Door, row: TaskRow, from: u64, tokens: bool) -> Events {
    let (out, events) = mpsc::channel(limits::WATCH_BUFFER);
    let id = row.task_id.clone().map_or_else(|| row.uid.to_string(), String::from);
    let watcher = Watcher {
        door,
        row,
        id,
        next: from.max(1),
        holder: None,
        wants_tokens: tokens,
        shown: None,
        committed_step: 0,
        out,
    };
    tokio::spawn(watcher.run());
    Box::pin(ReceiverStream::new(events))
}

struct Watcher {
    door: Door,
    row: TaskRow,
    id: String,
    /// Next sequence to deliver.
    next: u64,
    /// Who held the lease last, as far as the events said.
    holder: Option<NodeId>,
    wants_tokens: bool,
    /// Tokens that were shown and are not committed.
    shown: Option<Shown>,
    committed_step: u64,
    out: mpsc::Sender<Result<pb::TaskEvent, Status>>,
}

struct Shown {
    step: u64,
    attempt: String,
    /// How many of its tokens.
    tokens: u64,
}

/// The watcher went away, or everything was told.
struct Over;

impl Watcher {
    async fn run(mut self) {
        // Tokens of steps that are committed already are not shown again.
        self.committed_step = if self.next > 1 { self.row.step } else { 0 };
        while self.follow().await.is_ok() && !self.told_everything().await {
            tokio::time::sleep(REOPEN).await;
        }
    }

    /// The task is over and its last event was told, or lies before what was asked for.
    async fn told_everything(&self) -> bool {
        let Ok(inside) = self.door.inside() else { return true };
        match inside.find_task(&self.row.project, &self.row.uid.to_string()).await {
            Ok(row) => row.state.is_final() && self.next > row.sequence,
            Err(status) => status.code() == tonic::Code::NotFound,
        }
    }

    /// Follows one source of events until it ends. `Ok`: open it again.
    async fn follow(&mut self) -> Result<(), Over> {
        let inside = self.door.inside().map_err(|_| Over)?;
        let opened = inside.client.events(self.row.project.as_str(), self.row.uid, self.next).await;
        let mut events = match opened {
            Ok(events) => events,
            Err(error) => {
                // Nobody answered for as long as a door waits: the watcher must know, and come back by sequence.
                let _ = self.out.send(Err(super::status::from_client(error))).await;
                return Err(Over);
            }
        };
        let mut tokens = self.tokens_now().await;
        loop {
            tokio::select! {
                biased;
                () = self.out.closed() => return Err(Over),
                event = events.next() => match event {
                    Some(event) => self.on_event(event, &mut tokens).await?,
                    None => return Ok(()),
                },
                chunk = next_chunk(&mut tokens) => match chunk {
                    Some(chunk) => self.on_tokens(chunk).await?,
                    None => tokens = None,
                },
            }
        }
    }

    /// Live text of a task that runs already: the event that said so lies before what is asked for, and won't come.
    async fn tokens_now(&self) -> Option<Tokens> {
        if !self.wants_tokens || self.next <= 1 {
            return None;
        }
        let inside = self.door.inside().ok()?;
        let row = inside.find_task(&self.row.project, &self.row.uid.to_string()).await.ok()?;
        let node = row.node.filter(|_| row.state == TaskState::Running)?;
        inside.members.learn(&inside.client, std::iter::once(node)).await;
        self.open_tokens(node).await
    }

    async fn on_event(&mut self, event: Event, tokens: &mut Option<Tokens>) -> Result<(), Over> {
        if event.sequence < self.next {
            return Ok(());
        }
        if event.sequence > self.next {
            let gap = pb::Gap { first: self.next, last: event.sequence - 1 };
            self.tell(event.at_ms, Kind::Gap(gap)).await?;
        }
        if let EventKind::Step { step, spent, .. } = &event.kind {
            self.complete(*step, spent.generated_tokens).await?;
        }
        self.take_back(&event).await?;
        self.next = event.sequence + 1;
        let inside = self.door.inside().map_err(|_| Over)?;
        if let EventKind::State { node, .. } = &event.kind {
            inside.members.learn(&inside.client, node.iter().copied()).await;
        }
        let message = convert::event(&self.id, &event, &inside.members);
        self.out.send(Ok(message)).await.map_err(|_| Over)?;
        let EventKind::State { state, node, .. } = event.kind else { return Ok(()) };
        self.holder = node.or(self.holder);
        let holder = node.filter(|_| state == TaskState::Running && self.wants_tokens);
        *tokens = match holder {
            Some(node) => self.open_tokens(node).await,
            None => None,
        };
        if state.is_final() { Err(Over) } else { Ok(()) }
    }

    /// Shown tokens become committed text, or are retracted when another attempt takes over.
    async fn take_back(&mut self, event: &Event) -> Result<(), Over> {
        match &event.kind {
            EventKind::Step { step, .. } => {
                self.committed_step = *step;
                self.shown = self.shown.take().filter(|shown| shown.step > *step);
                Ok(())
            }
            EventKind::State { epoch, .. } => {
                let lease = epoch.map(|epoch| epoch.to_string());
                self.retract_unless(event.at_ms, |attempt| lease.as_deref() == lease_of(attempt)).await
            }
        }
    }

    async fn retract_unless(&mut self, at_ms: u64, stands: impl Fn(&str) -> bool) -> Result<(), Over> {
        match self.shown.take_if(|shown| !stands(&shown.attempt)) {
            Some(Shown { step, attempt, .. }) => {
                self.tell(at_ms, Kind::Retract(pb::Retract { step, attempt })).await
            }
            None => Ok(()),
        }
    }

    async fn open_tokens(&self, node: NodeId) -> Option<Tokens> {
        let inside = self.door.inside().ok()?;
        if node == inside.own {
            let live = inside.live.subscribe(&self.row.project, self.row.uid).ok()?;
            return Some(Box::pin(live.map(Ok)));
        }
        // A node that cannot be reached costs the watcher tokens, never events.
        let opening = inside.peers.tokens(node, &self.row.project, self.row.uid);
        tokio::time::timeout(Duration::from_secs(2), opening).await.ok()?.ok()
    }

    async fn on_tokens(&mut self, chunk: Result<LiveChunk, PeerError>) -> Result<(), Over> {
        let Ok(chunk) = chunk else { return Ok(()) };
        if chunk.step <= self.committed_step {
            return Ok(());
        }
        self.show(chunk).await
    }

    /// Shows the text of a step that is about to be final as far as it was not: it was said before the watcher came,
    /// or is on its way still. A node that cannot be reached costs the watcher tokens, never events.
    async fn complete(&mut self, step: u64, tokens: u64) -> Result<(), Over> {
        let shown = self.shown.as_ref().filter(|shown| shown.step == step);
        let after = shown.map_or_else(Said::default, |it| Said { attempt: &it.attempt, tokens: it.tokens });
        if !self.wants_tokens || after.tokens >= tokens {
            return Ok(());
        }
        match self.said(step, &after).await {
            Some(chunk) => self.show(chunk).await,
            None => Ok(()),
        }
    }

    async fn said(&self, step: u64, after: &Said<'_>) -> Option<LiveChunk> {
        let inside = self.door.inside().ok()?;
        let (project, task) = (&self.row.project, self.row.uid);
        let node = self.holder.or(self.row.node)?;
        if node == inside.own {
            return inside.live.said(project, task, step, after);
        }
        inside.peers.said(node, project, task, step, after).await.ok()?
    }

    async fn show(&mut self, chunk: LiveChunk) -> Result<(), Over> {
        // Another call of the same lease begins anew.
        self.retract_unless(0, |attempt| attempt == chunk.attempt).await?;
        let tokens = chunk.offset + u64::from(chunk.tokens);
        self.shown = Some(Shown { step: chunk.step, attempt: chunk.attempt.clone(), tokens });
        let token = pb::TokenChunk {
            step: chunk.step,
            attempt: chunk.attempt,
            offset: chunk.offset,
            tokens: chunk.tokens,
            text: chunk.text,
        };
        self.tell(0, Kind::Token(token)).await
    }

    /// Sends what has no sequence.
    async fn tell(&self, at_ms: u64, kind: Kind) -> Result<(), Over> {
        let event = pb::TaskEvent { task: self.id.clone(), sequence: 0, at_ms, kind: Some(kind) };
        self.out.send(Ok(event)).await.map_err(|_| Over)
    }
}

/// An attempt is `epoch/call`.
fn lease_of(attempt: &str) -> Option<&str> {
    attempt.split('/').next()
}

async fn next_chunk(tokens: &mut Option<Tokens>) -> Option<Result<LiveChunk, PeerError>> {
    match tokens {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}
