//! The client: endpoints, a project, a patience, and the one loop that every call goes through.

use crate::credentials::Credentials;
use crate::endpoints::{DEFAULT_PORT, Endpoints, Way};
use crate::error::{Code, Error};
use crate::retry::{Attempts, Failure, Kind, Next, Policy};
use crate::{Agents, Cluster, ContextReader, Memories, Prices, Quotas, Schedules, Tasks};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Response, Status};
use types::ProjectName;

/// Nodes to ask, separated by commas.
pub const ENDPOINT_VARIABLE: &str = "QUORATE_ENDPOINT";
/// The project that calls are about.
pub const PROJECT_VARIABLE: &str = "QUORATE_PROJECT";

/// A handle to a cluster. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) project: String,
    pub(crate) policy: Policy,
}

impl Client {
    /// Takes addresses like `127.0.0.1:7400`. Opens nothing: the first call does.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when an address can't be read or none is given.
    pub fn connect<S: AsRef<str>>(endpoints: &[S]) -> Result<Client, Error> {
        Client::connect_with(endpoints, &Credentials::default())
    }

    /// The same with keys and certificates. With a CA endpoints mean TLS; `https://` needs one.
    ///
    /// # Errors
    /// As `connect`, and `BAD_CREDENTIALS` for what cannot be used.
    pub fn connect_with<S: AsRef<str>>(endpoints: &[S], credentials: &Credentials) -> Result<Client, Error> {
        let endpoints = Arc::new(Endpoints::parse(endpoints, credentials)?);
        Ok(Client { endpoints, project: ProjectName::DEFAULT.to_string(), policy: Policy::default() })
    }

    /// `QUORATE_ENDPOINT` (`a:7400,b:7400`, else this machine), `QUORATE_PROJECT` (else `default`), and what
    /// [`Credentials::from_env`] reads.
    pub fn from_env() -> Result<Client, Error> {
        let set = |name| std::env::var(name).ok().filter(|value: &String| !value.trim().is_empty());
        let local = || format!("127.0.0.1:{DEFAULT_PORT}");
        let endpoints = set(ENDPOINT_VARIABLE).unwrap_or_else(local);
        let endpoints: Vec<_> = endpoints.split(',').collect();
        let client = Client::connect_with(&endpoints, &Credentials::from_env()?)?;
        match set(PROJECT_VARIABLE) {
            Some(project) => client.with_project(&project),
            None => Ok(client),
        }
    }

    /// The project that calls are about.
    pub fn with_project(mut self, project: &str) -> Result<Client, Error> {
        let name = ProjectName::parse(project.trim()).map_err(|why| {
            let next = "use lower-case letters, digits, - and _, such as `research`";
            Error::local(Code::InvalidArgument, "BAD_PROJECT", why.to_string(), next)
        })?;
        self.project = name.to_string();
        Ok(self)
    }

    /// How long one call may take, with all its attempts. 30 s when not set.
    pub fn with_timeout(mut self, patience: Duration) -> Client {
        self.policy.deadline_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).max(1);
        self
    }

    /// How long to look for any node that takes a connection. 10 s when not set, and never beyond the timeout.
    pub fn with_connect_timeout(mut self, patience: Duration) -> Client {
        self.policy.unreachable_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).max(1);
        self
    }

    pub fn project(&self) -> &str {
        &self.project
    }

    /// Creates tasks, follows them, stops them.
    pub fn tasks(&self) -> Tasks<'_> {
        Tasks { client: self }
    }

    /// Tasks that are created again and again.
    pub fn schedules(&self) -> Schedules<'_> {
        Schedules { client: self }
    }

    /// Definitions of agents and teams.
    pub fn agents(&self) -> Agents<'_> {
        Agents { client: self }
    }

    /// Limits and what is used of them.
    pub fn quotas(&self) -> Quotas<'_> {
        Quotas { client: self }
    }

    /// What models cost, and what was spent.
    pub fn prices(&self) -> Prices<'_> {
        Prices { client: self }
    }

    /// Nodes, voters, models.
    pub fn cluster(&self) -> Cluster<'_> {
        Cluster { client: self }
    }

    /// What agents and people remember: the project's own scope, unless another is said.
    pub fn memories(&self) -> Memories<'_> {
        Memories { client: self, scope: String::new() }
    }

    /// The text behind tasks.
    pub fn context(&self) -> ContextReader<'_> {
        ContextReader { client: self }
    }

    /// Asks until there is an answer, the time is up, or asking again could do harm.
    pub(crate) async fn call<T, F, Fut>(&self, kind: Kind, attempt: F) -> Result<T, Error>
    where
        F: Fn(Via) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        let nodes = if kind == Kind::Once { 1 } else { self.endpoints.len() };
        let mut attempts = Attempts::new(self.policy, kind, nodes);
        loop {
            // What may not be done twice stays with the node that the user named first.
            let (node, channel) =
                if kind == Kind::Once { self.endpoints.first() } else { self.endpoints.pick() };
            let patience = Duration::from_millis(attempts.attempt_ms(elapsed_ms(begun)));
            let failed = match timeout(patience, attempt(Via { channel, patience })).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => failure_of(&status),
                Err(_) => (Failure::Lost, no_answer(patience)),
            };
            self.endpoints.failed_if(failed.0, node);
            match attempts.on_failure(failed.0, elapsed_ms(begun), random()?) {
                Next::AskAgain { wait_ms } => sleep(Duration::from_millis(wait_ms)).await,
                Next::GiveUp => return Err(self.verdict(failed, attempts.sent(), node)),
            }
        }
    }

    /// The error a user sees at the end of all attempts.
    pub(crate) fn verdict(&self, (failure, error): (Failure, Error), sent: bool, node: usize) -> Error {
        let from = self.endpoints.address(node);
        match failure {
            Failure::Final | Failure::Busy { .. } | Failure::NoMember => error,
            Failure::NotSent if !sent => {
                let message = format!("no node of the cluster can be reached at {}", self.endpoints.names());
                let next = match error.message.starts_with("invalid peer certificate") {
                    true => {
                        "check that --ca or QUORATE_CA is this cluster's, and that the node's certificate names this address"
                    }
                    false => {
                        "check that a node runs there (`quorate dev`, or `deploy/local-cluster.sh status`), and that \
                         --endpoint or QUORATE_ENDPOINT names its client port (7400)"
                    }
                };
                Error::local(Code::Unavailable, "UNREACHABLE", message, next).with_cause(error.message)
            }
            Failure::NotSent | Failure::Lost => {
                let message = "no answer came: the call may or may not have taken effect";
                // What a node with certificates says to a client without them is no HTTP, or it is closed before it is
                // read, or it is lost with the connection: all that can be told from here is that one broke.
                let in_clear = !self.endpoints.tls && error.code == Code::Unavailable;
                let next = match in_clear {
                    true => {
                        "if the nodes have certificates, give their CA (--ca or QUORATE_CA); else repeat with the same request id"
                    }
                    false => "look at the current state, or repeat with the same request id",
                };
                let cause = format!("{from}: {}", error.message);
                Error::local(error.code, "UNKNOWN_OUTCOME", message, next).with_cause(cause)
            }
        }
    }
}

impl Endpoints {
    /// A final answer speaks for a healthy node; anything else sends the next attempt elsewhere.
    pub(crate) fn failed_if(&self, failure: Failure, node: usize) {
        if failure != Failure::Final {
            self.failed(node);
        }
    }
}

/// The way of one attempt: which node, and how long it may take.
pub(crate) struct Via {
    pub(crate) channel: Way,
    patience: Duration,
}

/// Full pages of tasks with inline results are above gRPC's default of 4 MiB.
const ANSWER_BYTES: usize = 80 << 20;

macro_rules! ways {
    ($($name:ident: $module:ident :: $client:ident),*) => {
        impl Via {
            $(pub(crate) fn $name(&self) -> proto::v1::$module::$client<Way> {
                proto::v1::$module::$client::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES)
            })*
        }
    };
}
ways!(
    tasks: task_service_client::TaskServiceClient,
    agents: agent_service_client::AgentServiceClient,
    quotas: quota_service_client::QuotaServiceClient,
    prices: price_book_service_client::PriceBookServiceClient,
    cluster: cluster_service_client::ClusterServiceClient,
    context: context_service_client::ContextServiceClient,
    memories: memory_service_client::MemoryServiceClient
);

impl Via {
    pub(crate) fn new(channel: Way, patience: Duration) -> Via {
        Via { channel, patience }
    }

    /// The server is told a little more than our own patience, so that its own clock never decides first.
    pub(crate) fn request<M>(&self, message: M) -> tonic::Request<M> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.patience + Duration::from_millis(500));
        request
    }
}

pub(crate) fn elapsed_ms(begun: Instant) -> u64 {
    begun.elapsed().as_millis() as u64
}

fn no_answer(patience: Duration) -> Error {
    let message = format!("no answer within {} ms", patience.as_millis());
    Error::local(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message, "repeat with the same request id")
}

/// What a failed attempt means, and its words.
pub(crate) fn failure_of(status: &Status) -> (Failure, Error) {
    let mut error = Error::from_status(status);
    if let Some(cause) = connect_failure(status) {
        error.message = cause;
        return (Failure::NotSent, error);
    }
    let own = std::error::Error::source(status).is_some();
    let failure = match status.code() {
        _ if own => Failure::Lost,
        tonic::Code::Unavailable if error.reason == "NOT_INITIALISED" => Failure::NoMember,
        tonic::Code::Unavailable => Failure::Busy { retry_after_ms: error.retry_after_ms },
        tonic::Code::Unknown | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => Failure::Lost,
        // Over a bound of the node, not of a quota: the server says when to come back.
        tonic::Code::ResourceExhausted
            if error.retry_after_ms.is_some() && !error.reason.contains("QUOTA") =>
        {
            Failure::Busy { retry_after_ms: error.retry_after_ms }
        }
        _ => Failure::Final,
    };
    if own {
        error.code = Code::Unavailable;
    }
    (failure, error)
}

/// The deepest words of a connection that was not made.
fn connect_failure(status: &Status) -> Option<String> {
    let mut found = false;
    let mut words = status.message().to_string();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        found |= error.is::<tonic::ConnectError>();
        words = error.to_string();
        source = error.source();
    }
    found.then_some(words)
}

pub(crate) fn random() -> Result<u64, Error> {
    let mut bytes = [0u8; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A fresh request id: 128 random bits, so that two clients never share one.
pub(crate) fn fresh_request_id() -> Result<String, Error> {
    let mut bytes = [0u8; 16];
    fill(&mut bytes)?;
    Ok(bytes.iter().fold("r_".to_string(), |id, byte| format!("{id}{byte:02x}")))
}

fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|why| {
        let next = "check that the system's random source works";
        Error::local(Code::Internal, "NO_RANDOMNESS", "the system gave no random bytes", next)
            .with_cause(why.to_string())
    })
}

/// The id given, or a fresh one.
pub(crate) fn request_id_or_fresh(given: Option<String>) -> Result<String, Error> {
    given.map_or_else(fresh_request_id, Ok)
}
