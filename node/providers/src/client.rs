//! A call from beginning to end: checked, let in, tried again where it was refused, judged.

use crate::answer::{Answer, Failure, Piece, Reason};
use crate::attempt::{Course, Exchange};
use crate::cassette::{self, Taped};
use crate::destination::{Destination, Destinations, Ended};
use crate::endpoint::{CassetteMode, Endpoint};
use crate::estimate::{Estimate, Estimator, message_bytes};
use crate::request::Request;
use crate::retry::Next;
use crate::setup::SetupError;
use crate::tool_names::ToolNames;
use crate::transport::Transport;
use crate::usage::{Known, judge};
use crate::wire::{self, Gathered, Parser};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Without a deadline of the caller's: retries and waits end some day.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Where a call ends at the latest.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Waiting, attempts and pauses together.
    pub deadline: Option<Instant>,
    /// When it fires the call ends at once, with what was heard.
    pub stop: CancellationToken,
}

/// One model at one provider, ready to be called. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    transport: Transport,
    destination: Arc<Destination>,
    estimator: Mutex<Estimator>,
}

/// A request that is ready to go.
struct Prepared {
    body: String,
    names: ToolNames,
    known: Known,
    tape: Option<(CassetteMode, PathBuf)>,
}

impl Client {
    /// Checks the endpoint, reads its key, makes the cassette's folder. Asks nobody.
    pub fn open(endpoint: Endpoint, destinations: &Destinations) -> Result<Client, SetupError> {
        endpoint.check()?;
        let transport = Transport::open(&endpoint)?;
        if let Some(cassette) = endpoint.cassette.as_ref().filter(|tape| tape.mode == CassetteMode::Record) {
            let path = cassette.folder.display().to_string();
            let wrong = |cause| SetupError::Folder { provider: endpoint.name.clone(), path, cause };
            std::fs::create_dir_all(&cassette.folder).map_err(wrong)?;
        }
        let destination = destinations.of(&endpoint)?;
        Ok(Client(Arc::new(Inner { endpoint, transport, destination, estimator: Mutex::default() })))
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// What is shared with other endpoints at the same address.
    pub fn destination(&self) -> &Destination {
        &self.0.destination
    }

    /// Reads the key again, for calls from now on; the old one stays if that fails.
    pub fn reload_key(&self) -> Result<(), SetupError> {
        self.0.transport.reload()
    }

    /// Tokens of a request's prompt, before it is made.
    pub fn estimate(&self, request: &Request) -> Estimate {
        self.0.estimator().estimate(request)
    }

    /// Calls the model. Pieces are shown as they come; `show` must not block. Dropping the future ends the call.
    pub async fn call(
        &self,
        request: &Request,
        limits: &Limits,
        show: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Answer, Failure> {
        let prepared = self.0.prepare(request)?;
        let begun = Instant::now();
        let outcome = match &prepared.tape {
            Some((CassetteMode::Replay, file)) => self.0.replay(&prepared, file.clone(), show).await,
            Some((CassetteMode::Record, _)) | None => self.0.ask(request, &prepared, limits, show).await,
        };
        let outcome = self.0.scrubbed(outcome);
        self.0.tell(&outcome, begun);
        outcome
    }
}

impl Inner {
    fn estimator(&self) -> std::sync::MutexGuard<'_, Estimator> {
        self.estimator.lock().expect("nothing panics while it holds the estimator")
    }

    fn prepare(&self, request: &Request) -> Result<Prepared, Failure> {
        let endpoint = &self.endpoint;
        if !request.tools.is_empty() && !endpoint.tools {
            let message = format!(
                "the provider {:?} is configured with tools = false; take another model for agents with tools",
                endpoint.name
            );
            return Err(Failure::lasting(Reason::NoTools, message));
        }
        let max_tokens = request.max_tokens.clamp(1, endpoint.max_output);
        let names = ToolNames::of(&request.tools)?;
        let body = match max_tokens == request.max_tokens {
            true => wire::body(endpoint, request)?,
            false => wire::body(endpoint, &Request { max_tokens, ..request.clone() })?,
        };
        let known = Known {
            prompt_bytes: message_bytes(request),
            prompt_worst: self.estimator().estimate(request).worst,
            max_tokens: max_tokens.into(),
            heard_bytes: 0,
        };
        let tape = endpoint.cassette.as_ref();
        let tape = tape.map(|tape| (tape.mode, cassette::file(&tape.folder, endpoint.kind, &body)));
        Ok(Prepared { body, names, known, tape })
    }

    /// Asks the provider, again where it refused before it worked.
    async fn ask(
        &self,
        request: &Request,
        prepared: &Prepared,
        limits: &Limits,
        show: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Answer, Failure> {
        let until = limits.deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        self.destination.earn();
        let mut wire_attempts = 0;
        loop {
            let mut course = Course::default();
            let attempt = self.attempt(request, prepared, &mut course, show);
            let ended = within(until, &limits.stop, attempt).await;
            let outcome =
                ended.unwrap_or_else(|interrupted| Err(interrupted.failure(&self.destination, &course)));
            wire_attempts += u32::from(course.tried);
            let mut failure = match outcome {
                Ok(gathered) => {
                    return self.judged(request, prepared, gathered, course.taped, wire_attempts).await;
                }
                Err(failure) => failure,
            };
            failure.wire_attempts = wire_attempts;
            failure.heard = course.heard().map(Box::new);
            let Next::Wait(ms) = self.destination.next(&failure, until) else { return Err(failure) };
            tracing::debug!(provider = self.endpoint.name, reason = %failure.reason, ms, "refused, tried again later");
            let pause = within(until, &limits.stop, tokio::time::sleep(Duration::from_millis(ms)));
            if let Err(interrupted) = pause.await {
                let idle = interrupted.failure(&self.destination, &Course::default());
                return Err(Failure { wire_attempts, ..idle });
            }
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        prepared: &Prepared,
        course: &mut Course,
        show: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Gathered, Failure> {
        let place = self.destination.enter().await?;
        let exchange = Exchange {
            transport: &self.transport,
            kind: self.endpoint.kind,
            model: &self.endpoint.model,
            destination: self.destination.name(),
            timeouts: self.endpoint.timeouts,
            streams: self.endpoint.stream,
            body: &prepared.body,
            idempotency_key: &request.idempotency_key,
            names: &prepared.names,
            tapes: prepared.tape.is_some(),
        };
        let outcome = exchange.perform(course, show).await;
        place.leave(outcome.as_ref().map_or_else(Ended::of, |_| Ended::WELL));
        outcome
    }

    /// A whole answer: its usage is judged, the counts are learned, the tape is kept.
    async fn judged(
        &self,
        request: &Request,
        prepared: &Prepared,
        gathered: Gathered,
        taped: Option<Taped>,
        wire_attempts: u32,
    ) -> Result<Answer, Failure> {
        let answer = answer(prepared, gathered, wire_attempts);
        let usage = answer.usage;
        if usage.prompt > prepared.known.prompt_worst {
            self.estimator().forget();
        } else if !usage.prompt_counted {
            self.estimator().learn(request, usage.prompt);
        }
        if let (Some((CassetteMode::Record, file)), Some(taped)) = (&prepared.tape, taped) {
            self.record(prepared, file, &taped);
        }
        Ok(answer)
    }

    /// The answer is there and paid for: a tape that cannot be written is told in the log, not instead of it.
    fn record(&self, prepared: &Prepared, file: &std::path::Path, taped: &Taped) {
        let scrub = |text: &str| self.transport.scrub(text);
        let written = cassette::record(file, self.endpoint.kind, &prepared.body, taped, &scrub);
        if let Err(failure) = written {
            tracing::warn!(
                provider = self.endpoint.name,
                message = failure.message,
                "an answer was not recorded"
            );
        }
    }

    async fn replay(
        &self,
        prepared: &Prepared,
        file: PathBuf,
        show: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Answer, Failure> {
        let taped = cassette::replay(&file)?;
        let mut parser = Parser::new(self.endpoint.kind, &taped.content_type, prepared.names.clone());
        let parsed = parser.push(&taped.body).and_then(|()| parser.end());
        parser.take_pieces().into_iter().for_each(show);
        let broken = |why: &str| {
            let message =
                format!("the cassette {} holds no whole answer: {why}; record it again", file.display());
            Failure::lasting(Reason::CassetteBroken, message)
        };
        let gathered =
            parsed.map_err(|parsed| broken(&parsed.message))?.ok_or_else(|| broken("it ends early"))?;
        Ok(answer(prepared, gathered, 0))
    }

    /// A provider's own words are in it, and it was told the key.
    fn scrubbed(&self, outcome: Result<Answer, Failure>) -> Result<Answer, Failure> {
        match outcome {
            Ok(answer) => {
                let provider_id = answer.provider_id.map(|id| self.transport.scrub(&id));
                Ok(Answer { provider_id, ..answer })
            }
            Err(failure) => Err(Failure { message: self.transport.scrub(&failure.message), ..failure }),
        }
    }

    /// For the log: figures, never words.
    fn tell(&self, outcome: &Result<Answer, Failure>, begun: Instant) {
        let (provider, ms) = (&self.endpoint.name, begun.elapsed().as_millis());
        match outcome {
            Ok(Answer { usage, wire_attempts, finish, .. }) => {
                tracing::debug!(provider, ms, wire_attempts, ?finish, ?usage, "answered");
                if usage.overage || usage.doubt.is_some_and(|doubt| doubt > crate::usage::Doubt::Absent) {
                    tracing::warn!(provider, ?usage, "the provider reports a usage that cannot be");
                }
            }
            Err(failure) => {
                let Failure { reason, wire_attempts, unknown, .. } = failure;
                tracing::info!(provider, ms, wire_attempts, %reason, unknown, "not answered");
            }
        }
    }
}

fn answer(prepared: &Prepared, gathered: Gathered, wire_attempts: u32) -> Answer {
    let known = Known { heard_bytes: gathered.heard.bytes(), ..prepared.known };
    let usage = judge(gathered.reported, known);
    let Gathered { heard, finish, provider_id, .. } = gathered;
    Answer { heard, finish, usage, wire_attempts, provider_id }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?}, {:?})", self.0.endpoint, self.0.destination)
    }
}

/// What ended something from outside.
enum Interrupted {
    Stopped,
    Deadline,
}

impl Interrupted {
    /// Where the request is with the provider, nobody knows what it does.
    fn failure(&self, destination: &Destination, course: &Course) -> Failure {
        let (reason, what) = match self {
            Interrupted::Stopped => (Reason::Stopped, "was stopped"),
            Interrupted::Deadline => (Reason::DeadlineExceeded, "did not end before its deadline"),
        };
        let (where_, next) = match course.sent {
            true => ("while the provider worked", "it is settled at what was set aside"),
            false => ("while it waited", "it cost nothing"),
        };
        let message = format!("the call to {} {what} {where_}; {next}", destination.name());
        Failure { unknown: course.sent, ..Failure::lasting(reason, message) }
    }
}

async fn within<T>(
    until: Instant,
    stop: &CancellationToken,
    future: impl Future<Output = T>,
) -> Result<T, Interrupted> {
    let timed = tokio::time::timeout_at(until, future);
    let done = stop.run_until_cancelled(timed).await.ok_or(Interrupted::Stopped)?;
    done.map_err(|_| Interrupted::Deadline)
}
