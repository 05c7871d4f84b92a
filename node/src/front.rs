//! OpenAI's API in a cluster: a key says which project asks, the ledger sets aside what the answer may use, and a node
//! that has the model answers. Every node serves it, with or without models.
//!
//! The words of the API are `openai`'s; here is who asks, who pays and who answers. Nothing is generated that was not set
//! aside before, and what was used is told to the account before the end of an answer is.
//!
//! Read: this file (the way of one request), `asking` (what a request says of itself), `places` (which node answers) and
//! `prefixes`; `refused` (its refusals in OpenAI's words); `engine` and `others` (who
//! computes), `relay` (from node to node).

mod asking;
mod engine;
mod others;
mod places;
mod prefixes;
mod refused;
mod relay;

pub(crate) use relay::FrontService;

use crate::accounts::{Accounts, Caller, SETTLING};
use crate::door::{Access, project};
use crate::engine_thread::real::LoadedModel;
use crate::gateway::Gateway;
use crate::identity::{Identity, Role};
use crate::members::Members;
use crate::openai::told::Kind;
use crate::openai::{Bounds, Face, Failure, finish, read};
use crate::telemetry::Metrics;
use crate::tls::accept::Peer;
use crate::tls::dial::NodeDialer;
use crate::traces::ids::Caller as Tracer;
use crate::traces::requests::{Answering, Asked, Ended};
use crate::traces::{Traces, genai};
use asking::Asking;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use coordinator::Client;
use futures::{FutureExt, StreamExt};
use places::{Places, Why};
use relay::Relay;
use serde_json::{Value, json};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Code, Status};
use types::NodeId;

/// Which project, where a key speaks for several; OpenAI's own header.
const PROJECT_HEADER: &str = "openai-project";
/// The caller's span, as the W3C writes it.
const TRACEPARENT: &str = "traceparent";
/// The node that answered, and why that one.
const NODE_HEADER: &str = "x-quorate-node";
const WHY_HEADER: &str = "x-quorate-why";

/// Cheap to clone; answers 503 until the node belongs to a cluster.
#[derive(Clone)]
pub(crate) struct Front {
    access: Access,
    inside: Arc<OnceLock<Inside>>,
}

/// What a front needs once its node is a member.
struct Inside {
    own: NodeId,
    face: Face,
    gateway: Gateway,
    accounts: Accounts,
    places: Places,
    relay: Relay,
    members: Members,
    client: Client,
    traces: Traces,
}

/// What there is at a member.
pub(crate) struct Member {
    pub(crate) own: NodeId,
    pub(crate) client: Client,
    pub(crate) accounts: Accounts,
    pub(crate) members: Members,
    pub(crate) dialer: NodeDialer,
    pub(crate) gateway: Gateway,
    pub(crate) models: Vec<LoadedModel>,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Traces,
}

impl Front {
    pub(crate) fn new(access: Access) -> Front {
        Front { access, inside: Arc::default() }
    }

    /// From now on requests are answered.
    pub(crate) fn open(&self, member: Member) {
        let Member { own, client, accounts, members, dialer, gateway, models, metrics, traces } = member;
        let face = Face::by_name(models, Bounds::default(), metrics);
        let places = Places::new(own, client.clone());
        let relay = Relay::new(client.cluster(), dialer);
        let inside = Inside { own, face, gateway, accounts, places, relay, members, client, traces };
        assert!(self.inside.set(inside).is_ok(), "a node joins one cluster, once");
    }

    /// Lets answers in the making come to their end, then cuts them off; what they used is settled.
    pub(crate) async fn drain(&self, grace: Duration) {
        let Some(inside) = self.inside.get() else { return };
        if tokio::time::timeout(grace, inside.accounts.all_ended()).await.is_err() {
            tracing::info!("answers in the making were cut off");
        }
        inside.face.cut_off();
        inside.accounts.cut_off();
        let _ = tokio::time::timeout(SETTLING, inside.accounts.all_ended()).await;
    }

    fn inside(&self) -> Result<&Inside, Failure> {
        let none =
            || Failure::gone("this node belongs to no cluster yet; ask another one, or try again later");
        self.inside.get().ok_or_else(none)
    }

    fn identity(&self, headers: &HeaderMap, peer: &Peer, least: Role) -> Result<Identity, Failure> {
        self.access.caller(headers, Some(peer), least).map_err(|status| not_let_in(&status))
    }

    fn caller(identity: &Identity, headers: &HeaderMap) -> Result<Caller, Failure> {
        let named = headers.get(PROJECT_HEADER).map(|name| name.to_str().unwrap_or("?")).unwrap_or_default();
        let project = project(identity, named).map_err(|status| not_let_in(&status))?;
        Ok(Caller { project, author: identity.author() })
    }

    /// Answers a request for a completion or a chat.
    pub(crate) async fn answer(&self, kind: Kind, peer: &Peer, request: Request) -> Response {
        let answered = AssertUnwindSafe(self.answer_or_fail(kind, peer, request)).catch_unwind().await;
        let method = match kind {
            Kind::Completion => "/v1/completions",
            Kind::Chat => "/v1/chat/completions",
        };
        match self.inside.get() {
            Some(inside) => finish(&inside.face, method, answered),
            None => answered.unwrap_or_else(|_| Err(Failure::bug("a bug"))).into_response(),
        }
    }

    async fn answer_or_fail(&self, kind: Kind, peer: &Peer, request: Request) -> Result<Response, Failure> {
        let identity = self.identity(request.headers(), peer, Role::Submitter)?;
        let caller = Front::caller(&identity, request.headers())?;
        let revoked = self.access.revoked(request.headers(), &identity);
        let tracer =
            request.headers().get(TRACEPARENT).and_then(|header| Tracer::parse(header.to_str().ok()?));
        let inside = self.inside()?;
        if inside.face.stop().is_cancelled() {
            return Err(Failure::gone("this node stops; ask another one"));
        }
        let (body, room) = read::body(&inside.face, request).await?;
        let response = inside.place(kind, &caller, tracer, body, room).await?;
        // A stream does not outlive its key.
        Ok(match revoked {
            Some(revoked) => {
                response.map(|body| Body::from_stream(body.into_data_stream().take_until(revoked)))
            }
            None => response,
        })
    }

    /// What can be asked, for whoever may see the cluster.
    pub(crate) async fn models(&self, peer: &Peer, headers: &HeaderMap, one: Option<&str>) -> Response {
        let listed = async {
            self.identity(headers, peer, Role::Viewer)?;
            self.inside()?.models(one).await
        };
        listed.await.map_or_else(Failure::into_response, |value| axum::Json(value).into_response())
    }
}

/// Not let in: in OpenAI's words.
fn not_let_in(status: &Status) -> Failure {
    match status.code() {
        Code::Unauthenticated => Failure::stranger(status.message()),
        Code::PermissionDenied => Failure::denied("permission_denied", status.message()),
        _ => Failure::bad(status.message()),
    }
}

impl Inside {
    /// Whoever joined a moment ago is not in the list yet.
    async fn address(&self, node: NodeId) -> Option<String> {
        if self.members.get(node).is_none() {
            self.members.refresh(&self.client).await;
        }
        self.members.get(node).map(|row| row.internal_addr)
    }

    /// Finds out which node answers, and has it answer.
    async fn place(
        &self,
        kind: Kind,
        caller: &Caller,
        tracer: Option<Tracer>,
        body: Bytes,
        room: OwnedSemaphorePermit,
    ) -> Result<Response, Failure> {
        let asking = Asking::read(kind, &body, &caller.project)?;
        let model = asking.model.as_deref();
        let model = model.ok_or_else(|| Failure::field("model", "name the model that is to answer"))?;
        let tries = self.places.choose(&self.own_models(), model, &asking.marks).await?;
        let mut unheard = String::new();
        for (node, why) in tries {
            if node == self.own {
                let answered = self.here(kind, caller, tracer, body, room).await;
                return self.told(node, why, model, answered, &asking);
            }
            let Some(address) = self.address(node).await else {
                unheard = format!("{node} is no member here yet");
                continue;
            };
            let busy = self.places.busy(node);
            match self.relay.ask(&address, kind, caller, tracer, body.clone(), busy).await {
                Ok(response) => return self.told(node, why, model, Ok(response), &asking),
                Err(error) => unheard = format!("{}: {error}", self.members.name(node)),
            }
        }
        Err(Failure::gone(format!("no node that has {model:?} can be reached ({unheard}); try again later")))
    }

    /// Says who answered and why; remembers who has this beginning cached.
    fn told(
        &self,
        node: NodeId,
        why: Why,
        model: &str,
        answered: Result<Response, Failure>,
        asking: &Asking,
    ) -> Result<Response, Failure> {
        let mut response = answered?;
        if response.status() == StatusCode::OK {
            self.places.remember(node, &asking.marks);
        }
        tracing::debug!(%node, why = why.word(), model, status = response.status().as_u16(), "a request was placed");
        let name = HeaderValue::from_str(&self.members.name(node));
        let headers = response.headers_mut();
        headers.extend(name.ok().map(|name| (axum::http::HeaderName::from_static(NODE_HEADER), name)));
        headers.insert(WHY_HEADER, HeaderValue::from_static(why.word()));
        Ok(response)
    }

    /// Answers on this node, and tells who keeps a trace.
    async fn here(
        &self,
        kind: Kind,
        caller: &Caller,
        tracer: Option<Tracer>,
        body: Bytes,
        room: OwnedSemaphorePermit,
    ) -> Result<Response, Failure> {
        let asking = Asking::read(kind, &body, &caller.project)?;
        let model = asking.model.unwrap_or_default();
        let mut told = self.traces.request(tracer, || self.asked(kind, caller, &model));
        let answered = self.by_model(kind, caller, &model, body, room, &mut told).await;
        // An answer that is being made takes it along.
        if let (Err(failure), Some(told)) = (&answered, told) {
            told.end(&Ended { error: Some(failure.word()), ..Ended::default() });
        }
        answered
    }

    fn asked(&self, kind: Kind, caller: &Caller, model: &str) -> Asked {
        let operation = match kind {
            Kind::Chat => genai::CHAT,
            Kind::Completion => genai::TEXT_COMPLETION,
        };
        let (provider, project) = (self.gateway.maker(model), caller.project.to_string());
        Asked { operation, model: model.to_owned(), provider, project, node: self.own }
    }

    async fn by_model(
        &self,
        kind: Kind,
        caller: &Caller,
        model: &str,
        body: Bytes,
        room: OwnedSemaphorePermit,
        told: &mut Option<Answering>,
    ) -> Result<Response, Failure> {
        if self.face.has(model) {
            return engine::answer(self, kind, caller, body, room, told).await;
        }
        match self.gateway.provider(model) {
            Some(provider) if kind == Kind::Chat => {
                others::answer(self, caller, model, provider, &body, told).await
            }
            Some(_) => {
                let why = format!(
                    "{model:?} is computed by others and takes chats alone; ask /v1/chat/completions"
                );
                Err(Failure::field("model", why))
            }
            None => Err(Failure::no_model(model, &self.own_models())),
        }
    }

    fn own_models(&self) -> Vec<String> {
        self.gateway.models()
    }

    async fn models(&self, one: Option<&str>) -> Result<Value, Failure> {
        let names = self.places.models(&self.own_models()).await;
        let of = |name: &String| self.face.describe(name).unwrap_or_else(|| elsewhere(name));
        match one {
            None => Ok(json!({ "object": "list", "data": names.iter().map(of).collect::<Vec<_>>() })),
            Some(wanted) => match names.iter().find(|name| *name == wanted) {
                Some(name) => Ok(of(name)),
                None => Err(Failure::no_model(wanted, &names)),
            },
        }
    }
}

fn elsewhere(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "quorate" })
}
