//! One exchange with a provider: a request out, its answer in, within its times.

use crate::answer::{Failure, Heard, Piece, Reason};
use crate::bounds::{ERROR_BODY_BYTES, RETRY_AFTER_MOST_MS};
use crate::cassette::Taped;
use crate::endpoint::{Kind, Timeouts};
use crate::refusal::Refused;
use crate::retry::retry_after_ms;
use crate::tool_names::ToolNames;
use crate::transport::Transport;
use crate::wire::{Gathered, Parser};
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, timeout_at};

/// What one exchange needs to know.
pub(crate) struct Exchange<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) kind: Kind,
    /// The model's name at the provider.
    pub(crate) model: &'a str,
    pub(crate) destination: &'a str,
    pub(crate) timeouts: Timeouts,
    pub(crate) streams: bool,
    pub(crate) body: &'a str,
    pub(crate) idempotency_key: &'a str,
    pub(crate) names: &'a ToolNames,
    /// Whether the answer's bytes are to be kept.
    pub(crate) tapes: bool,
}

/// How far an exchange came. It outlives an exchange that is dropped.
#[derive(Default)]
pub(crate) struct Course {
    /// Something went out, if only to connect.
    pub(crate) tried: bool,
    /// The provider may have the request.
    pub(crate) sent: bool,
    parser: Option<Parser>,
    pub(crate) taped: Option<Taped>,
}

impl Course {
    pub(crate) fn heard(&self) -> Option<Heard> {
        self.parser.as_ref().map(Parser::heard).filter(|heard| !heard.is_empty())
    }
}

impl Exchange<'_> {
    /// Performs it. A failure's `wire_attempts` and `heard` are the caller's to fill in.
    pub(crate) async fn perform(
        &self,
        course: &mut Course,
        show: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Gathered, Failure> {
        let begun = Instant::now();
        let total = begun + Duration::from_millis(self.timeouts.total_ms);
        // An answer in one piece has no first piece.
        let first = begun + Duration::from_millis(self.timeouts.first_ms);
        let first = if self.streams { first.min(total) } else { total };
        (course.tried, course.sent) = (true, true);
        let sending = self.transport.send(self.body.to_string(), self.idempotency_key);
        let response = match timeout_at(first, sending).await {
            Err(_) => return Err(self.silent("did not begin to answer", first - begun)),
            Ok(Err(error)) => return Err(self.unsent(course, &error)),
            Ok(Ok(response)) => response,
        };
        if !response.status().is_success() {
            let refused = timeout_at(total, self.refused(response)).await;
            return Err(refused.unwrap_or_else(|_| self.silent("did not finish its refusal", total - begun)));
        }
        let content_type = header(response.headers(), CONTENT_TYPE.as_str());
        course.taped = self.tapes.then(|| Taped { content_type: content_type.to_string(), body: Vec::new() });
        let parser = course.parser.insert(Parser::new(self.kind, content_type, self.names.clone()));
        let limits = Limits { begun, first, total };
        self.hear(response, parser, &mut course.taped, limits, show).await
    }

    async fn hear(
        &self,
        mut response: Response,
        parser: &mut Parser,
        taped: &mut Option<Taped>,
        limits: Limits,
        show: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Gathered, Failure> {
        let idle = Duration::from_millis(self.timeouts.idle_ms);
        let mut until = if parser.is_stream() { limits.first } else { limits.total };
        while !parser.has_ended() {
            let bytes = match timeout_at(until, response.chunk()).await {
                Err(_) if until == limits.first => {
                    return Err(self.silent("said nothing", until - limits.begun));
                }
                Err(_) if until == limits.total => {
                    return Err(self.silent("did not finish its answer", until - limits.begun));
                }
                Err(_) => return Err(self.silent("said nothing more", idle)),
                Ok(Err(error)) => return Err(self.cut(&error.without_url().to_string())),
                Ok(Ok(None)) => break,
                Ok(Ok(Some(bytes))) => bytes,
            };
            if let Some(taped) = taped {
                taped.body.extend_from_slice(&bytes);
            }
            let pushed = parser.push(&bytes);
            parser.take_pieces().into_iter().for_each(&mut *show);
            pushed.map_err(|broken| broken.failure(self.destination))?;
            if parser.take_moved() {
                until = limits.total.min(Instant::now() + idle);
            }
        }
        let gathered = parser.end().map_err(|broken| broken.failure(self.destination))?;
        parser.take_pieces().into_iter().for_each(&mut *show);
        gathered.ok_or_else(|| self.cut("the stream ended before the answer did"))
    }

    async fn refused(&self, mut response: Response) -> Failure {
        let status = response.status().as_u16();
        let retry_after_ms = told_wait(response.headers());
        let mut body = Vec::new();
        // A refusal without its words is a refusal.
        while let Ok(Some(bytes)) = response.chunk().await {
            let room = ERROR_BODY_BYTES - body.len();
            body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if body.len() == ERROR_BODY_BYTES {
                break;
            }
        }
        let body = String::from_utf8_lossy(&body);
        Refused { status, body: &body, retry_after_ms, destination: self.destination, model: self.model }
            .failure()
    }

    /// Without a connection nothing was sent; behind that nobody knows.
    fn unsent(&self, course: &mut Course, error: &reqwest::Error) -> Failure {
        if error.is_connect() || error.is_builder() {
            course.sent = false;
            let cause = causes(error);
            let message = format!(
                "cannot reach {}: {cause}; check url, proxy and ca_file of the provider, and the network",
                self.destination
            );
            return Failure::passing(Reason::Unreachable, message);
        }
        self.cut(&causes(error))
    }

    fn cut(&self, why: &str) -> Failure {
        let message = format!(
            "the answer of {} was cut: {}; the call is settled at what was set aside, and may be made again",
            self.destination, why
        );
        Failure::unknown(Reason::Cut, message)
    }

    fn silent(&self, what: &str, how_long: Duration) -> Failure {
        let message = format!(
            "{} {what} within {} ms; the call is settled at what was set aside and may be made again; [provider.timeouts] \
             sets the time",
            self.destination,
            how_long.as_millis()
        );
        Failure::unknown(Reason::TimedOut, message)
    }
}

/// When an exchange must be how far.
#[derive(Clone, Copy)]
struct Limits {
    begun: Instant,
    first: Instant,
    total: Instant,
}

/// An error with what lies below it: the uppermost says little.
fn causes(error: &reqwest::Error) -> String {
    let mut words = vec![error.to_string()];
    let mut below = std::error::Error::source(error);
    while let Some(error) = below {
        words.push(error.to_string());
        below = error.source();
    }
    words.dedup();
    words.join(": ")
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// How long to wait, in any form that providers use.
fn told_wait(headers: &HeaderMap) -> Option<u64> {
    let exact = header(headers, "retry-after-ms").trim().parse::<u64>().ok();
    let exact = exact.map(|ms| ms.min(RETRY_AFTER_MOST_MS));
    exact.or_else(|| retry_after_ms(header(headers, RETRY_AFTER.as_str()), SystemTime::now()))
}
