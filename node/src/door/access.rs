//! Who may call what: one table, checked before any handler, and closed to what is not in it.
//!
//! Callers are known by an API key or by a certificate. Where neither is asked for, callers of this machine are the local
//! admin; other listeners are refused at start unless the operator says `--insecure`, and then their callers are the local
//! admin as well, which the banner says.
//!
//! Read: this file, `guard` (the layer that asks it), `closed` (no service without its rows), `matrix` (the page).

mod closed;
mod guard;
#[cfg(test)]
mod matrix_test;
mod until;

use crate::identity::{Identity, Role};
use crate::keys::Keys;
use crate::security::now_s;
use crate::tls::accept::Peer;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::{Code, Status};

pub(crate) use closed::{Services, Unlisted};
pub(crate) use guard::{Layer, layer};

/// What a method is about. It decides for callers that are bound to a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Its request names a project or a quota: the handler compares it with the caller's.
    Project,
    /// All projects: only for callers that are bound to none.
    Cluster,
    /// Nothing of any one project, or only what the caller may see.
    Open,
}

/// The least role for each method, and what it is about. A method that is not here cannot be called, and its service
/// is not served.
pub(crate) const TABLE: &[(&str, Role, Scope)] = &[
    ("/quorate.v1.TaskService/CreateTask", Role::Submitter, Scope::Project),
    ("/quorate.v1.TaskService/GetTask", Role::Viewer, Scope::Project),
    ("/quorate.v1.TaskService/ListTasks", Role::Viewer, Scope::Project),
    ("/quorate.v1.TaskService/WatchTask", Role::Viewer, Scope::Project),
    ("/quorate.v1.TaskService/CancelTask", Role::Submitter, Scope::Project),
    ("/quorate.v1.TaskService/PauseTask", Role::Submitter, Scope::Project),
    ("/quorate.v1.TaskService/ResumeTask", Role::Submitter, Scope::Project),
    ("/quorate.v1.TaskService/SignalTask", Role::Submitter, Scope::Project),
    ("/quorate.v1.TaskService/RetryTask", Role::Submitter, Scope::Project),
    ("/quorate.v1.TaskService/ForkTask", Role::Submitter, Scope::Project),
    ("/quorate.v1.TaskService/SetSchedule", Role::Submitter, Scope::Project),
    ("/quorate.v1.TaskService/ListSchedules", Role::Viewer, Scope::Project),
    ("/quorate.v1.TaskService/DeleteSchedule", Role::Submitter, Scope::Project),
    ("/quorate.v1.TaskService/ExplainTask", Role::Viewer, Scope::Project),
    ("/quorate.v1.AgentService/ApplyAgent", Role::Submitter, Scope::Project),
    ("/quorate.v1.AgentService/GetAgent", Role::Viewer, Scope::Project),
    ("/quorate.v1.AgentService/ListAgents", Role::Viewer, Scope::Project),
    ("/quorate.v1.QuotaService/SetQuota", Role::Operator, Scope::Project),
    ("/quorate.v1.QuotaService/GetQuota", Role::Viewer, Scope::Project),
    ("/quorate.v1.QuotaService/ListQuotas", Role::Viewer, Scope::Open),
    ("/quorate.v1.QuotaService/WatchQuotas", Role::Viewer, Scope::Project),
    ("/quorate.v1.PriceBookService/SetPrice", Role::Admin, Scope::Cluster),
    ("/quorate.v1.PriceBookService/GetPrice", Role::Viewer, Scope::Open),
    ("/quorate.v1.PriceBookService/ListPrices", Role::Viewer, Scope::Open),
    ("/quorate.v1.PriceBookService/QueryCost", Role::Viewer, Scope::Project),
    ("/quorate.v1.ClusterService/InitCluster", Role::Admin, Scope::Cluster),
    ("/quorate.v1.ClusterService/GetClusterStatus", Role::Viewer, Scope::Cluster),
    ("/quorate.v1.ClusterService/ListNodes", Role::Viewer, Scope::Cluster),
    ("/quorate.v1.ClusterService/GetNode", Role::Viewer, Scope::Cluster),
    ("/quorate.v1.ClusterService/AddVoter", Role::Admin, Scope::Cluster),
    ("/quorate.v1.ClusterService/RemoveVoter", Role::Admin, Scope::Cluster),
    ("/quorate.v1.ClusterService/TransferLeader", Role::Admin, Scope::Cluster),
    ("/quorate.v1.ClusterService/RemoveNode", Role::Admin, Scope::Cluster),
    ("/quorate.v1.ClusterService/RaiseLevel", Role::Admin, Scope::Cluster),
    ("/quorate.v1.ClusterService/ListModels", Role::Viewer, Scope::Open),
    ("/quorate.v1.ClusterService/CordonNode", Role::Operator, Scope::Cluster),
    ("/quorate.v1.ClusterService/UncordonNode", Role::Operator, Scope::Cluster),
    ("/quorate.v1.ClusterService/DrainNode", Role::Operator, Scope::Cluster),
    ("/quorate.v1.ClusterService/ListAuditEvents", Role::Operator, Scope::Cluster),
    ("/quorate.v1.ClusterService/SnapshotCluster", Role::Admin, Scope::Cluster),
    ("/quorate.v1.ContextService/ReadSegment", Role::Viewer, Scope::Project),
    ("/quorate.v1.ContextService/GetContext", Role::Viewer, Scope::Project),
    ("/quorate.v1.ContextService/EvaluateContext", Role::Submitter, Scope::Project),
    ("/quorate.v1.MemoryService/Remember", Role::Submitter, Scope::Project),
    ("/quorate.v1.MemoryService/Search", Role::Viewer, Scope::Project),
    ("/quorate.v1.MemoryService/ListMemories", Role::Viewer, Scope::Project),
    ("/quorate.v1.MemoryService/GetMemory", Role::Viewer, Scope::Project),
    ("/quorate.v1.MemoryService/Forget", Role::Submitter, Scope::Project),
    ("/quorate.v1.ToolService/ServeTools", Role::Submitter, Scope::Project),
    ("/grpc.health.v1.Health/Check", Role::Viewer, Scope::Open),
    ("/grpc.health.v1.Health/Watch", Role::Viewer, Scope::Open),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Role::Viewer, Scope::Open),
];

/// How callers are known.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The operator accepted listeners beyond loopback.
    pub insecure: bool,
    /// With keys, callers of this machine need one, too.
    pub keys: Option<Keys>,
}

impl Access {
    /// Lets a caller in, or says why not. Whether a project is the caller's own is for the handlers to ask.
    pub(crate) fn check(
        &self,
        method: &str,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<Identity, Status> {
        let identity = self.who(headers, peer)?;
        let Some((_, least, scope)) = TABLE.iter().find(|(name, _, _)| *name == method) else {
            let why = format!("{method} is not open to anyone");
            return Err(denied("METHOD_NOT_ALLOWED", &why, "check the method's name"));
        };
        if identity.role < *least {
            let why =
                format!("{method} needs the role {}, and yours is {}", least.name(), identity.role.name());
            return Err(denied("ROLE_TOO_LOW", &why, "ask an admin for a key with that role"));
        }
        if *scope == Scope::Cluster {
            whole(&identity, method)?;
        }
        Ok(identity)
    }

    /// Resolves when the key of this call is taken away. `None`: it has none.
    pub(crate) fn revoked(
        &self,
        headers: &HeaderMap,
        identity: &Identity,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let (key, keys) = (bearer(headers).ok()??, self.keys.clone()?);
        Some(keys.until_revoked(key.to_string(), identity.clone()))
    }

    /// Who calls OpenAI's API. Its clients always show some key: where this node knows none, it is passed over.
    pub(crate) fn caller(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        least: Role,
    ) -> Result<Identity, Status> {
        let none = HeaderMap::new();
        let identity = self.who(if self.keys.is_some() { headers } else { &none }, peer)?;
        if identity.role < least {
            let why = format!("this needs the role {}, and yours is {}", least.name(), identity.role.name());
            return Err(denied("ROLE_TOO_LOW", &why, "ask an admin for a key with that role"));
        }
        Ok(identity)
    }

    /// Metrics name every project.
    pub(crate) fn may_read_figures(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<(), Status> {
        whole(&self.who(headers, peer)?, "/metrics")
    }

    /// A key that is shown must be good, whatever else speaks for the caller.
    fn who(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Identity, Status> {
        // A caller without an address is not known to be local.
        let trusted = self.insecure || peer.is_some_and(Peer::is_loopback);
        match (bearer(headers)?, &self.keys) {
            (Some(key), Some(keys)) => keys.who(key, now_s()).ok_or_else(|| {
                stranger("the API key is not known, or it has expired", "ask an admin for a key")
            }),
            (Some(_), None) => Err(stranger(
                "this node has no file of API keys",
                "set `keys` in its config, or call without a key",
            )),
            (None, keys) => match peer.and_then(|peer| peer.certified.clone()) {
                Some(identity) => Ok(identity),
                None if keys.is_none() && trusted => Ok(Identity::local()),
                None if keys.is_some() => Err(stranger(
                    "no API key and no client certificate was shown",
                    "set QUORATE_API_KEY, or give --api-key-file",
                )),
                None => Err(stranger(
                    "callers from other machines need a client certificate or an API key",
                    "use a certificate of `quorate cert client`, or set `keys` in the node's config",
                )),
            },
        }
    }
}

fn whole(identity: &Identity, what: &str) -> Result<(), Status> {
    match &identity.project {
        None => Ok(()),
        Some(own) => Err(denied(
            "PROJECT_DENIED",
            &format!("{what} is about all projects, and this caller is bound to {own}"),
            "use a key of every project (`quorate key new --project '*'`)",
        )),
    }
}

/// The key of `authorization: Bearer …`. Anything else there is refused rather than passed over.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().ok().and_then(|text| text.split_once(' '));
    match text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        Some((_, key)) => Ok(Some(key.trim())),
        None => {
            Err(stranger("the authorization header is not `Bearer KEY`", "send `authorization: Bearer qk_…`"))
        }
    }
}

fn denied(reason: &str, message: &str, next: &str) -> Status {
    super::status::error(Code::PermissionDenied, reason, message, next)
}

fn stranger(message: &str, next: &str) -> Status {
    super::status::error(Code::Unauthenticated, "UNAUTHENTICATED", message, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "/quorate.v1.TaskService/GetTask";

    fn peer(address: &str, certified: Option<Identity>) -> Option<Peer> {
        Some(Peer { address: format!("{address}:1").parse().unwrap(), certified })
    }

    fn with(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
    }

    #[test]
    fn without_keys_this_machine_is_the_admin_and_others_are_strangers() {
        let (open, none) = (Access::default(), HeaderMap::new());
        assert_eq!(open.check(GET, &none, peer("127.0.0.1", None).as_ref()).ok(), Some(Identity::local()));
        assert_eq!(
            open.check(GET, &none, peer("[::ffff:127.0.0.1]", None).as_ref()).ok(),
            Some(Identity::local())
        );
        let code = |answer: Result<Identity, Status>| answer.unwrap_err().code();
        assert_eq!(code(open.check(GET, &none, peer("10.0.0.1", None).as_ref())), Code::Unauthenticated);
        assert_eq!(code(open.check(GET, &none, None)), Code::Unauthenticated);
        assert_eq!(
            code(open.check(GET, &with("Bearer x"), peer("127.0.0.1", None).as_ref())),
            Code::Unauthenticated
        );
        let erase = "/quorate.v1.TaskService/Erase";
        assert_eq!(code(open.check(erase, &none, peer("127.0.0.1", None).as_ref())), Code::PermissionDenied);
        let insecure = Access { insecure: true, ..Access::default() };
        assert!(insecure.check(GET, &none, peer("10.0.0.1", None).as_ref()).is_ok());
    }

    #[test]
    fn a_certificate_speaks_for_its_caller_from_anywhere() {
        let viewer = Identity::new("ci", "a", Role::Viewer).unwrap();
        let (access, at) = (Access::default(), peer("10.0.0.1", Some(viewer.clone())));
        assert_eq!(access.check(GET, &HeaderMap::new(), at.as_ref()).ok(), Some(viewer));
        let refused = access.check("/quorate.v1.TaskService/CreateTask", &HeaderMap::new(), at.as_ref());
        assert!(refused.unwrap_err().message().contains("needs the role submitter, and yours is viewer"));
        // A bad key is not made good by a certificate.
        let refused = access.check(GET, &with("Bearer qk_x"), at.as_ref());
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    }

    #[test]
    fn figures_are_for_those_who_may_see_every_project() {
        let of = |project| peer("10.0.0.1", Some(Identity::new("ci", project, Role::Viewer).unwrap()));
        let access = Access::default();
        assert!(access.may_read_figures(&HeaderMap::new(), of("*").as_ref()).is_ok());
        let refused = access.may_read_figures(&HeaderMap::new(), of("a").as_ref());
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }

    #[test]
    fn what_is_no_bearer_is_refused_without_being_repeated() {
        let local = peer("127.0.0.1", None);
        for header in ["Basic secretword", "secretword", "Bearer secretword"] {
            let refused = Access::default().check(GET, &with(header), local.as_ref()).unwrap_err();
            assert!(
                refused.code() == Code::Unauthenticated && !format!("{refused:?}").contains("secretword")
            );
        }
    }
}
