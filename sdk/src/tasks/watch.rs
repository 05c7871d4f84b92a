//! Following a task over connections that break: the stream is opened again elsewhere, the cursor keeps it one.

use super::cursor::{Cursor, Took};
use crate::client::{Client, Via, elapsed_ms, failure_of, random};
use crate::data::Event;
use crate::error::Error;
use crate::retry::{Attempts, Failure, Kind, Next, Policy};
use crate::wire;
use futures::stream::{self, Stream};
use proto::v1;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

/// The shortest patience with a cluster that went away under a watch: an election and a lease fit into it.
const PATIENCE_MS: u64 = 30_000;

/// A task being followed. Ends by itself after the event that brings the final state.
///
/// ```no_run
/// # async fn example(client: quorate_sdk::Client) -> Result<(), quorate_sdk::Error> {
/// let mut watch = client.tasks().watch("report-2026-03");
/// while let Some(event) = watch.next().await? {
///     println!("{event:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Watch {
    client: Client,
    id: String,
    no_tokens: bool,
    cursor: Cursor,
    ready: VecDeque<Event>,
    stream: Option<Open>,
    trouble: Trouble,
}

#[derive(Debug)]
struct Open {
    events: Streaming<v1::TaskEvent>,
    node: usize,
    heard: bool,
}

/// The failures since a node was last heard.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) since: Option<Instant>,
    pub(crate) attempts: Attempts,
}

impl Watch {
    pub(super) fn new(client: Client, id: &str) -> Watch {
        let trouble = Trouble::new(&client, false);
        Watch {
            client,
            id: id.to_string(),
            no_tokens: false,
            cursor: Cursor::new(1),
            ready: VecDeque::new(),
            stream: None,
            trouble,
        }
    }

    /// Starts at a committed sequence instead of the beginning.
    pub fn from(mut self, sequence: u64) -> Self {
        self.cursor = Cursor::new(sequence);
        self
    }

    /// Leaves live tokens out.
    pub fn without_tokens(mut self) -> Self {
        self.no_tokens = true;
        self
    }

    /// Where to go on later: the sequence of the next committed event.
    pub fn next_sequence(&self) -> u64 {
        self.cursor.next()
    }

    /// The next event, or None after the final one. May be dropped and called again.
    ///
    /// # Errors
    /// What the cluster refuses (such as `NOT_FOUND`), or `UNAVAILABLE` when no node could be heard for a long time.
    /// The watch may be asked again after an error: it goes on where it was.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.cursor.ended() {
                self.stream = None;
                return Ok(None);
            }
            if let Err((node, failure, error)) = self.receive().await {
                self.recover(node, failure, error).await?;
            }
        }
    }

    /// The events as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, Error>> + Unpin + Send {
        Box::pin(stream::try_unfold(self, |mut watch| async {
            Ok(watch.next().await?.map(|event| (event, watch)))
        }))
    }

    /// Opens the stream if it is not, and takes one message from it.
    async fn receive(&mut self) -> Result<(), (usize, Failure, Error)> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        let Some(open) = self.stream.as_mut() else { return Ok(()) };
        let node = open.node;
        match open.events.message().await {
            Ok(Some(message)) => {
                open.heard = true;
                self.trouble = Trouble::new(&self.client, true);
                self.take(message);
                Ok(())
            }
            Ok(None) => self.on_end(node).await,
            Err(status) => {
                let (failure, error) = failure_of(&status);
                Err((node, failure, error))
            }
        }
    }

    fn take(&mut self, message: v1::TaskEvent) {
        let Some(event) = wire::event(message) else { return };
        match self.cursor.take(event) {
            Took::Show(events) => self.ready.extend(events),
            Took::AskAgain => self.stream = None,
        }
    }

    async fn open(&self) -> Result<Open, (usize, Failure, Error)> {
        let (node, channel) = self.client.endpoints.pick();
        let patience = Duration::from_millis(self.client.policy.attempt_ms);
        let message = v1::WatchTaskRequest {
            project: self.client.project.clone(),
            id: self.id.clone(),
            from_sequence: self.cursor.next(),
            no_tokens: self.no_tokens,
        };
        // No deadline travels with it: a task may take days.
        match timeout(patience, Via::new(channel, patience).tasks().watch_task(message)).await {
            Ok(Ok(answer)) => Ok(Open { events: answer.into_inner(), node, heard: false }),
            Ok(Err(status)) => {
                let (failure, error) = failure_of(&status);
                Err((node, failure, error))
            }
            Err(_) => Err((node, Failure::Lost, silent())),
        }
    }

    /// A node ended the stream before the final state came: it stops, or the task ended before the sequence asked for.
    async fn on_end(&mut self, node: usize) -> Result<(), (usize, Failure, Error)> {
        let heard = self.stream.take().is_some_and(|open| open.heard);
        if !heard {
            let task = self.client.tasks().get(&self.id).await.map_err(|e| (node, Failure::Final, e))?;
            if task.state.is_final() && task.sequence < self.cursor.next() {
                self.cursor.end();
                return Ok(());
            }
        }
        Err((node, Failure::Busy { retry_after_ms: None }, silent()))
    }

    /// Waits before the next node is asked, or gives up.
    async fn recover(&mut self, node: usize, failure: Failure, error: Error) -> Result<(), Error> {
        self.stream = None;
        self.client.endpoints.failed_if(failure, node);
        let since = *self.trouble.since.get_or_insert_with(Instant::now);
        match self.trouble.attempts.on_failure(failure, elapsed_ms(since), random()?) {
            Next::AskAgain { wait_ms } => {
                sleep(Duration::from_millis(wait_ms)).await;
                Ok(())
            }
            Next::GiveUp => {
                let sent = self.trouble.attempts.sent();
                self.trouble = Trouble::new(&self.client, sent);
                Err(self.client.verdict((failure, error), sent, node))
            }
        }
    }
}

impl Trouble {
    /// A cluster that was heard once deserves more patience than an address that never answered.
    pub(crate) fn new(client: &Client, heard: bool) -> Trouble {
        let deadline_ms = client.policy.deadline_ms.max(PATIENCE_MS);
        let unreachable_ms = if heard { deadline_ms } else { client.policy.unreachable_ms };
        let policy = Policy { deadline_ms, unreachable_ms, attempts_max: u32::MAX, ..client.policy };
        Trouble { since: None, attempts: Attempts::new(policy, Kind::Repeatable, client.endpoints.len()) }
    }
}

fn silent() -> Error {
    let next = "go on watching: nothing of the task is lost by that";
    Error::local(crate::Code::Unavailable, "UNAVAILABLE", "the node stopped answering", next)
}
