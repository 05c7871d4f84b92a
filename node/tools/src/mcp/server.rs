//! When a server runs: on demand, again after a crash (later each time), and not twice at once. And who may call it:
//! so many at once.

use super::connection::{Connection, Counted};
use super::listing::Listing;
use crate::config::McpConfig;
use crate::{Call, CancellationToken, LeftOut, Outcome, ToolSpec, reason};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

/// Callers wait through a pause of this length; told of a longer one, they can do something else.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct Server {
    name: String,
    config: McpConfig,
    places: Semaphore,
    in_flight: AtomicUsize,
    state: Mutex<State>,
    /// Told whenever `state` changes.
    news: watch::Sender<()>,
    end: CancellationToken,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// In a row, without an answered call in between.
    failures: u32,
    not_before: Option<Instant>,
    problem: String,
    starts: u64,
}

#[derive(Default)]
enum Phase {
    #[default]
    Down,
    /// A task starts it or asks for its tools.
    Busy,
    Up(Up),
}

#[derive(Clone)]
struct Up {
    connection: Arc<Connection>,
    listing: Arc<Listing>,
}

enum Look {
    Up(Up),
    Down(String),
    Wait,
}

/// What an operator wants to know of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerState {
    pub name: String,
    pub is_up: bool,
    /// Of a server that was started here and runs.
    pub process_id: Option<u32>,
    /// How often a start, or a connection, was tried since the toolbox was made.
    pub starts: u64,
    /// In a row, without an answered call in between.
    pub failures: u32,
    /// Why it went down, or could not be started, at last.
    pub problem: String,
    pub calls_in_flight: usize,
}

impl Server {
    pub(crate) fn new(name: &str, config: McpConfig) -> Arc<Server> {
        Arc::new(Server {
            name: name.into(),
            places: Semaphore::new(config.concurrent),
            config,
            in_flight: AtomicUsize::new(0),
            state: Mutex::default(),
            news: watch::Sender::new(()),
            end: CancellationToken::new(),
        })
    }

    pub(crate) fn config(&self) -> &McpConfig {
        &self.config
    }

    pub(crate) fn state(&self) -> ServerState {
        let state = self.lock();
        let up = match &state.phase {
            Phase::Up(up) if !up.connection.is_closed() => Some(up),
            _ => None,
        };
        ServerState {
            name: self.name.clone(),
            is_up: up.is_some(),
            process_id: up.and_then(|up| up.connection.process_id()),
            starts: state.starts,
            failures: state.failures,
            problem: state.problem.clone(),
            calls_in_flight: self.in_flight.load(Ordering::Acquire),
        }
    }

    /// Ends the server and everything that waits for it.
    pub(crate) fn close(&self) {
        self.end.cancel();
        if let Phase::Up(up) = std::mem::take(&mut self.lock().phase) {
            up.connection.kill();
        }
        self.news.send_replace(());
    }

    /// What can be called, and what was left out. Starts the server where it does not run.
    pub(crate) async fn list(self: &Arc<Self>) -> Result<(Vec<ToolSpec>, Vec<LeftOut>), String> {
        let up = self.ready().await?;
        let specs = up.listing.tools.values().map(|tool| tool.spec.clone());
        Ok((specs.collect(), up.listing.left_out.clone()))
    }

    pub(crate) async fn call(self: &Arc<Self>, call: &Call, stop: CancellationToken) -> Outcome {
        let place = tokio::select! {
            biased;
            place = self.places.acquire() => place.expect("never closed"),
            () = stop.cancelled() => return self.not_begun(reason::TOOL_BUSY, "is busy with other calls"),
        };
        let up = tokio::select! {
            biased;
            up = self.ready() => up,
            () = stop.cancelled() => return self.not_begun(reason::TOOL_UNAVAILABLE, "is still starting"),
        };
        let outcome = match up {
            Ok(up) => self.call_up(&up, call, stop).await,
            Err(problem) => self.not_begun(reason::TOOL_UNAVAILABLE, &problem),
        };
        drop(place);
        outcome
    }

    async fn call_up(self: &Arc<Self>, up: &Up, call: &Call, stop: CancellationToken) -> Outcome {
        let own_name = &call.tool[self.name.len() + 1..];
        let Some(listed) = up.listing.tools.get(own_name) else { return self.not_listed(up, call) };
        if let Err(problem) = listed.arguments.check(&call.arguments) {
            return crate::toolbox::invalid_arguments(&call.tool, &problem);
        }
        let count = Counted::begin(&self.in_flight);
        let outcome = self.hidden(up.connection.call(&self.name, listed, call, stop).await);
        drop(count);
        match &outcome {
            Outcome::Answered { .. } => self.lock().failures = 0,
            Outcome::Unknown { reason: reason::TOOL_STOPPED, .. } => self.doubt(up),
            Outcome::Unknown { .. } | Outcome::Refused { .. } => self.fell(&up.connection),
        }
        outcome
    }

    /// Answers are the tool's own; what is said about a call must not tell its keys.
    fn hidden(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Unknown { reason, message } => {
                Outcome::Unknown { reason, message: self.config.hide(message) }
            }
            Outcome::Refused { reason, message } => {
                Outcome::Refused { reason, message: self.config.hide(message) }
            }
            answered @ Outcome::Answered { .. } => answered,
        }
    }

    fn not_begun(&self, reason: &'static str, why: &str) -> Outcome {
        let name = &self.name;
        Outcome::refused(
            reason,
            format!("The tool server {name} {why}. The call was not made; try again later."),
        )
    }

    fn not_listed(&self, up: &Up, call: &Call) -> Outcome {
        let left = up.listing.left_out.iter().find(|left| left.tool == call.tool);
        let why = left.map(|left| format!(" It is left out: {}.", left.reason)).unwrap_or_default();
        let there: Vec<&str> =
            up.listing.tools.values().map(|tool| tool.spec.name.as_str()).take(32).collect();
        let message = format!("There is no tool {}.{why} There are: {}.", call.tool, there.join(", "));
        Outcome::refused(reason::TOOL_NOT_FOUND, message)
    }

    /// A running server and its tools.
    async fn ready(self: &Arc<Self>) -> Result<Up, String> {
        let mut news = self.news.subscribe();
        let mut has_waited = false;
        loop {
            match self.look(has_waited) {
                Look::Up(up) => return Ok(up),
                Look::Down(problem) => return Err(problem),
                Look::Wait => {
                    has_waited = true;
                    if news.changed().await.is_err() {
                        return Err("is being shut down".into());
                    }
                }
            }
        }
    }

    /// Decides what one caller does now, and starts what has to be started.
    fn look(self: &Arc<Self>, has_waited: bool) -> Look {
        let mut state = self.lock();
        if self.end.is_cancelled() {
            return Look::Down("is shut down".into());
        }
        if let Phase::Up(up) = &state.phase
            && up.connection.is_closed()
        {
            let problem = self.config.hide(ended(&up.connection));
            state.fall(problem, &self.config);
        }
        match &state.phase {
            Phase::Busy => Look::Wait,
            Phase::Up(up) if !up.connection.take_changed() => Look::Up(up.clone()),
            Phase::Up(up) => {
                let connection = Arc::clone(&up.connection);
                self.begin(&mut state, Some(connection), Duration::ZERO)
            }
            Phase::Down if has_waited => Look::Down(state.problem.clone()),
            Phase::Down => match state.pause() {
                pause if pause > PATIENCE => Look::Down(format!(
                    "is left alone for {} ms after it failed {} times: {}",
                    pause.as_millis(),
                    state.failures,
                    state.problem
                )),
                pause => self.begin(&mut state, None, pause),
            },
        }
    }

    /// The start runs by itself: callers may leave, the next one finds it done.
    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        connection: Option<Arc<Connection>>,
        pause: Duration,
    ) -> Look {
        state.phase = Phase::Busy;
        state.starts += u64::from(connection.is_none());
        let server = Arc::clone(self);
        tokio::spawn(async move {
            let end = server.end.clone();
            let up = tokio::select! {
                up = server.bring_up(connection, pause) => up,
                () = end.cancelled() => Err("is shut down".into()),
            };
            server.settle(up);
        });
        Look::Wait
    }

    async fn bring_up(&self, connection: Option<Arc<Connection>>, pause: Duration) -> Result<Up, String> {
        tokio::time::sleep(pause).await;
        let most = Duration::from_millis(self.config.start_timeout_ms);
        let work = async {
            let connection = match connection {
                Some(connection) => connection,
                None => Arc::new(Connection::open(&self.config).await?),
            };
            let listing = Arc::new(connection.list(&self.name, &self.config).await?);
            Ok::<Up, String>(Up { connection, listing })
        };
        match tokio::time::timeout(most, work).await {
            Ok(Ok(up)) => Ok(up),
            Ok(Err(why)) => Err(format!("could not be started: {}", self.config.hide(why))),
            Err(_) => Err(format!("was not ready within {} ms", self.config.start_timeout_ms)),
        }
    }

    fn settle(&self, up: Result<Up, String>) {
        let mut state = self.lock();
        match up {
            Ok(up) if !self.end.is_cancelled() => {
                for left in &up.listing.left_out {
                    tracing::warn!(tool = left.tool, reason = left.reason, "a tool is left out");
                }
                state.phase = Phase::Up(up);
            }
            Ok(_) => state.phase = Phase::Down,
            Err(problem) => {
                tracing::warn!(server = self.name, problem, "a tool server is not available");
                state.fall(problem, &self.config);
            }
        }
        drop(state);
        self.news.send_replace(());
    }

    /// The connection broke under a call.
    fn fell(&self, connection: &Arc<Connection>) {
        let mut state = self.lock();
        let is_this = matches!(&state.phase, Phase::Up(up) if Arc::ptr_eq(&up.connection, connection));
        // A server that is reached may have forgotten us: only a new agreement finds out.
        if is_this && (connection.is_closed() || self.config.url.is_some()) {
            let problem = self.config.hide(ended(connection));
            tracing::warn!(server = self.name, problem, "a tool server is lost");
            state.fall(problem, &self.config);
        }
    }

    /// A call ran out of time. A server that answers nothing else either, while no other call waits for it, is stuck:
    /// it is ended, so that the next call finds a new one.
    fn doubt(self: &Arc<Self>, up: &Up) {
        if self.in_flight.load(Ordering::Acquire) > 0 {
            return;
        }
        let (server, connection) = (Arc::clone(self), Arc::clone(&up.connection));
        tokio::spawn(async move {
            if !connection.is_alive().await && server.in_flight.load(Ordering::Acquire) == 0 {
                connection.kill();
                server.give_up(&connection);
            }
        });
    }

    fn give_up(&self, connection: &Arc<Connection>) {
        let mut state = self.lock();
        if matches!(&state.phase, Phase::Up(up) if Arc::ptr_eq(&up.connection, connection)) {
            tracing::warn!(server = self.name, "a tool server answers nothing any more and is ended");
            state.fall("answered nothing any more and was ended".into(), &self.config);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended(connection: &Connection) -> String {
    match connection.complaint() {
        complaint if complaint.is_empty() => "ended by itself".into(),
        complaint => format!("ended by itself; its last words: {complaint}"),
    }
}

impl State {
    fn fall(&mut self, problem: String, config: &McpConfig) {
        self.phase = Phase::Down;
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + Duration::from_millis(config.restart.wait_ms(self.failures)));
        self.problem = problem;
    }

    fn pause(&self) -> Duration {
        self.not_before.map(|at| at.saturating_duration_since(Instant::now())).unwrap_or_default()
    }
}
