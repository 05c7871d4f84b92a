//! Who may call what: one table, checked before any handler, and closed to what is not in it.
//!
//! In this version every caller comes over loopback and is the local admin; other listeners are refused at start
//! unless the operator says `--insecure`, and then their callers are the local admin as well, which the banner says.

use crate::telemetry::names;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};

/// Ordered from the least to the most powerful.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Submitter,
    Operator,
    Admin,
}

/// Who calls. Reaches every handler through the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub subject: String,
    /// `None`: every project.
    pub project: Option<String>,
    pub role: Role,
}

impl Identity {
    fn local() -> Self {
        Identity { subject: "local".into(), project: None, role: Role::Admin }
    }
}

/// The least role for each method. A method that is not here cannot be called.
const TABLE: &[(&str, Role)] = &[
    ("/quorate.v1.TaskService/CreateTask", Role::Submitter),
    ("/quorate.v1.TaskService/GetTask", Role::Viewer),
    ("/quorate.v1.TaskService/ListTasks", Role::Viewer),
    ("/quorate.v1.TaskService/WatchTask", Role::Viewer),
    ("/quorate.v1.TaskService/CancelTask", Role::Submitter),
    ("/quorate.v1.TaskService/PauseTask", Role::Submitter),
    ("/quorate.v1.TaskService/ResumeTask", Role::Submitter),
    ("/quorate.v1.TaskService/ExplainTask", Role::Viewer),
    ("/quorate.v1.AgentService/ApplyAgent", Role::Submitter),
    ("/quorate.v1.AgentService/GetAgent", Role::Viewer),
    ("/quorate.v1.AgentService/ListAgents", Role::Viewer),
    ("/quorate.v1.QuotaService/SetQuota", Role::Operator),
    ("/quorate.v1.QuotaService/GetQuota", Role::Viewer),
    ("/quorate.v1.QuotaService/ListQuotas", Role::Viewer),
    ("/quorate.v1.QuotaService/WatchQuotas", Role::Viewer),
    ("/quorate.v1.PriceBookService/SetPrice", Role::Admin),
    ("/quorate.v1.PriceBookService/GetPrice", Role::Viewer),
    ("/quorate.v1.PriceBookService/ListPrices", Role::Viewer),
    ("/quorate.v1.PriceBookService/QueryCost", Role::Viewer),
    ("/quorate.v1.ClusterService/InitCluster", Role::Admin),
    ("/quorate.v1.ClusterService/GetClusterStatus", Role::Viewer),
    ("/quorate.v1.ClusterService/ListNodes", Role::Viewer),
    ("/quorate.v1.ClusterService/GetNode", Role::Viewer),
    ("/quorate.v1.ClusterService/AddVoter", Role::Admin),
    ("/quorate.v1.ClusterService/RemoveVoter", Role::Admin),
    ("/quorate.v1.ClusterService/TransferLeader", Role::Admin),
    ("/quorate.v1.ClusterService/ListModels", Role::Viewer),
    ("/quorate.v1.ClusterService/CordonNode", Role::Operator),
    ("/quorate.v1.ClusterService/UncordonNode", Role::Operator),
    ("/quorate.v1.ClusterService/DrainNode", Role::Operator),
    ("/quorate.v1.ClusterService/ListAuditEvents", Role::Operator),
    ("/quorate.v1.ContextService/ReadSegment", Role::Viewer),
    ("/quorate.v1.ContextService/GetContext", Role::Viewer),
    ("/grpc.health.v1.Health/Check", Role::Viewer),
    ("/grpc.health.v1.Health/List", Role::Viewer),
    ("/grpc.health.v1.Health/Watch", Role::Viewer),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Role::Viewer),
];

/// Methods whose duration says how long someone watched, not how long the node worked.
const STREAMS: &[&str] = &["WatchTask", "WatchQuotas", "ReadSegment", "ServerReflectionInfo", "Health/Watch"];

/// How callers are known.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The operator accepted listeners beyond loopback.
    pub insecure: bool,
}

impl Access {
    /// Lets a caller in, or says why not.
    pub fn check(self, method: &str, from_loopback: bool) -> Result<Identity, Status> {
        if !from_loopback && !self.insecure {
            let why = "callers from other machines need TLS, which this listener does not have";
            return Err(denied("UNAUTHENTICATED", why, "call from this machine"));
        }
        let identity = Identity::local();
        match TABLE.iter().find(|(name, _)| *name == method) {
            Some((_, least)) if identity.role >= *least => Ok(identity),
            Some((_, least)) => {
                Err(denied("ROLE_TOO_LOW", &format!("{method} needs the role {least:?}"), "ask an admin"))
            }
            None => Err(denied(
                "METHOD_NOT_ALLOWED",
                &format!("{method} is not open to anyone"),
                "check the method's name",
            )),
        }
    }
}

fn denied(reason: &str, message: &str, next: &str) -> Status {
    super::status::error(Code::PermissionDenied, reason, message, next)
}

/// The layer around all public services.
pub type Layer = tower::layer::util::Stack<Guard, tower::layer::util::Identity>;

#[derive(Clone)]
pub struct Guard {
    access: Arc<Access>,
}

impl Guard {
    pub fn new(access: Access) -> Self {
        Guard { access: Arc::new(access) }
    }
}

impl<S> tower::Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { access: self.access.clone(), inner }
    }
}

#[derive(Clone)]
pub struct Guarded<S> {
    access: Arc<Access>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let remote = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        // A caller without an address is not known to be local.
        let from_loopback = remote.is_some_and(|address| address.ip().to_canonical().is_loopback());
        match self.access.check(request.uri().path(), from_loopback) {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                let counted = Counted::begin(request.uri().path());
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let response = answer.await?;
                    counted.end(&response);
                    Ok(too_large(&response).map_or(response, Status::into_http))
                })
            }
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

/// A request over the limit is refused below the handlers; here it gets its next step.
fn too_large(response: &http::Response<Body>) -> Option<Status> {
    let status = Status::from_header_map(response.headers())?;
    let over = status.code() == Code::OutOfRange && status.message().contains("length too large");
    let next = "send at most 8 MiB in one request: cut inputs into several, or make several tasks";
    over.then(|| super::status::error(Code::OutOfRange, "REQUEST_TOO_LARGE", status.message(), next))
}

/// One call, for the metrics. Only methods of the table get here, so the label is bounded.
struct Counted {
    method: String,
    begun: Instant,
}

impl Counted {
    fn begin(path: &str) -> Self {
        Counted { method: path.trim_start_matches('/').to_string(), begun: Instant::now() }
    }

    /// An error before the first message is in the headers; later ones belong to streams and are not seen here.
    fn end(self, response: &http::Response<Body>) {
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        let labels = [("method", self.method.clone()), ("code", format!("{code:?}"))];
        metrics::counter!(names::REQUESTS_TOTAL, &labels).increment(1);
        let is_stream = STREAMS.iter().any(|stream| self.method.ends_with(stream));
        if !is_stream {
            let seconds = self.begun.elapsed().as_secs_f64();
            metrics::histogram!(names::REQUEST_SECONDS, "method" => self.method).record(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn every_public_method_has_a_role_and_nothing_else_has() {
        let set = tonic_types_descriptor();
        let mut methods: Vec<String> = Vec::new();
        for file in &set.file {
            for service in file.service.iter().filter(|_| file.package() == "quorate.v1") {
                methods.extend(
                    service.method.iter().map(|m| format!("/quorate.v1.{}/{}", service.name(), m.name())),
                );
            }
        }
        methods.sort();
        let mut table: Vec<String> = TABLE
            .iter()
            .map(|(name, _)| name.to_string())
            .filter(|n| n.starts_with("/quorate.v1."))
            .collect();
        table.sort();
        assert_eq!(methods, table);
    }

    fn tonic_types_descriptor() -> prost_types::FileDescriptorSet {
        prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).expect("our own descriptors")
    }

    #[test]
    fn strangers_and_unknown_methods_are_refused() {
        let closed = Access { insecure: false };
        assert!(closed.check("/quorate.v1.TaskService/GetTask", true).is_ok());
        assert_eq!(
            closed.check("/quorate.v1.TaskService/GetTask", false).unwrap_err().code(),
            Code::PermissionDenied
        );
        assert_eq!(
            closed.check("/quorate.v1.TaskService/Erase", true).unwrap_err().code(),
            Code::PermissionDenied
        );
        assert!(Access { insecure: true }.check("/quorate.v1.TaskService/GetTask", false).is_ok());
    }
}
