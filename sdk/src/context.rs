//! The text behind tasks: chains by task, segments by hash.

use crate::client::{Client, Via, elapsed_ms, failure_of, random};
use crate::data::{Context, RecordedCall};
use crate::error::{Code, Error};
use crate::evaluate::Evaluate;
use crate::retry::{Attempts, Failure, Kind, Next};
use proto::v1;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

/// The largest text that is put together in memory.
const TEXT_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Copy, Debug)]
pub struct ContextReader<'a> {
    pub(crate) client: &'a Client,
}

impl<'a> ContextReader<'a> {
    /// The committed chain of a task; texts only when asked for.
    pub async fn get(&self, task: &str, with_text: bool) -> Result<Context, Error> {
        let message =
            v1::GetContextRequest { project: self.client.project.clone(), task: task.into(), with_text };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.context().get_context(via.request(message)).await }
        });
        Ok(call.await?.into())
    }

    /// What each part of what a task's agent read was worth for what it did: its last model call.
    pub fn evaluate(&self, task: impl Into<String>) -> Evaluate<'a> {
        Evaluate::task(self.client, task.into())
    }

    /// The same of calls that were recorded elsewhere.
    pub fn evaluate_calls(&self, calls: Vec<RecordedCall>) -> Evaluate<'a> {
        Evaluate::calls(self.client, calls)
    }

    /// A segment's bytes, piece by piece.
    pub fn read(&self, hash: &str) -> SegmentStream {
        SegmentStream::new(self.client.clone(), self.client.project(), hash)
    }

    /// A segment's text in one piece, at most 64 MiB.
    pub async fn read_text(&self, hash: &str) -> Result<String, Error> {
        self.read_text_of(self.client.project(), hash).await
    }

    pub(crate) async fn read_text_of(&self, project: &str, hash: &str) -> Result<String, Error> {
        let mut stream = SegmentStream::new(self.client.clone(), project, hash);
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await? {
            if bytes.len() + chunk.len() > TEXT_BYTES_MAX {
                let message = format!("segment {hash} is larger than {} MiB", TEXT_BYTES_MAX >> 20);
                let next = "read it piece by piece with `context().read`";
                return Err(Error::local(Code::OutOfRange, "SEGMENT_TOO_LARGE", message, next));
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|_| {
            let next = "read its bytes with `context().read`";
            Error::local(Code::DataLoss, "NOT_TEXT", format!("segment {hash} is not UTF-8 text"), next)
        })
    }
}

/// The bytes of one segment. A node that dies in the middle is replaced: the next one's bytes are the same.
#[derive(Debug)]
pub struct SegmentStream {
    client: Client,
    message: v1::ReadSegmentRequest,
    open: Option<(usize, Streaming<v1::ReadSegmentResponse>)>,
    /// Bytes handed out, and bytes to leave out of the stream that is open.
    read: usize,
    skip: usize,
    ended: bool,
    begun: Instant,
    attempts: Attempts,
}

impl SegmentStream {
    fn new(client: Client, project: &str, hash: &str) -> SegmentStream {
        let message = v1::ReadSegmentRequest { project: project.into(), hash: hash.into() };
        let attempts = Attempts::new(client.policy, Kind::Repeatable, client.endpoints.len());
        SegmentStream {
            client,
            message,
            open: None,
            read: 0,
            skip: 0,
            ended: false,
            begun: Instant::now(),
            attempts,
        }
    }

    /// The next bytes, or None at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while !self.ended {
            match self.receive().await {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => return Ok(Some(chunk)),
                Err((node, failure, error)) => self.recover(node, failure, error).await?,
            }
        }
        Ok(None)
    }

    async fn receive(&mut self) -> Result<Vec<u8>, (usize, Failure, Error)> {
        let patience = Duration::from_millis(self.attempts.attempt_ms(elapsed_ms(self.begun)));
        let (node, mut stream) = match self.open.take() {
            Some(open) => open,
            None => self.ask(patience).await?,
        };
        let answer = timeout(patience, stream.message()).await.unwrap_or_else(|_| Err(slow()));
        match answer.map_err(|status| failed(node, &status))? {
            Some(message) => {
                self.open = Some((node, stream));
                Ok(self.unread(message.chunk))
            }
            None => {
                self.ended = true;
                Ok(vec![])
            }
        }
    }

    async fn ask(
        &mut self,
        patience: Duration,
    ) -> Result<(usize, Streaming<v1::ReadSegmentResponse>), (usize, Failure, Error)> {
        let (node, channel) = self.client.endpoints.pick();
        self.skip = self.read;
        let mut service = Via::new(channel, patience).context();
        let answer = timeout(patience, service.read_segment(self.message.clone())).await;
        let answer = answer.unwrap_or_else(|_| Err(slow())).map_err(|status| failed(node, &status))?;
        Ok((node, answer.into_inner()))
    }

    fn unread(&mut self, mut chunk: Vec<u8>) -> Vec<u8> {
        let known = self.skip.min(chunk.len());
        self.skip -= known;
        chunk.drain(..known);
        self.read += chunk.len();
        chunk
    }

    async fn recover(&mut self, node: usize, failure: Failure, error: Error) -> Result<(), Error> {
        self.open = None;
        self.client.endpoints.failed_if(failure, node);
        match self.attempts.on_failure(failure, elapsed_ms(self.begun), random()?) {
            Next::AskAgain { wait_ms } => {
                sleep(Duration::from_millis(wait_ms)).await;
                Ok(())
            }
            Next::GiveUp => Err(self.client.verdict((failure, error), self.attempts.sent(), node)),
        }
    }
}

fn slow() -> tonic::Status {
    tonic::Status::deadline_exceeded("the node stopped answering")
}

fn failed(node: usize, status: &tonic::Status) -> (usize, Failure, Error) {
    let (failure, error) = failure_of(status);
    (node, failure, error)
}
