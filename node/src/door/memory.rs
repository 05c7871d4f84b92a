//! `MemoryService`: what agents and people remember, within the caller's project.

use super::agents::page_size;
use super::tasks::{short, some_id};
use super::{Door, Identity, Membership, identity, now_ms, project, status};
use crate::memories::{Found, Item, MemoryError, Place, Question, Reason, Text};
use ::memory::{How, Scope, limits as memory_limits};
use ledger::query::{Answer, Query};
use proto::v1 as pb;
use proto::v1::memory_service_server::MemoryService;
use tonic::{Code, Request, Response, Status};
use types::{ProjectName, limits};

/// Hits, where nobody says how many.
const HITS: usize = 5;
/// The record keeps one word.
const REASON: &str = "USER_REQUEST";

#[tonic::async_trait]
impl MemoryService for Door {
    async fn remember(
        &self,
        request: Request<pb::RememberRequest>,
    ) -> Result<Response<pb::MemoryItem>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        short("request_id", &request.request_id)?;
        request.tags.iter().try_for_each(|tag| short("tags", tag))?;
        let place = inside.place(project, &request.scope).await?;
        let text = Text {
            text: request.text,
            tags: request.tags,
            source: request.source,
            author: author(&caller),
            request_id: some_id(request.request_id),
            at_ms: now_ms(),
        };
        let item = inside.memories.remember(&place, text).await.map_err(refused)?;
        Ok(Response::new(message(&place, item)))
    }

    async fn search(
        &self,
        request: Request<pb::SearchRequest>,
    ) -> Result<Response<pb::SearchResponse>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let kind = request.kind();
        let place = inside.place(project, &request.scope).await?;
        let question = question(request, kind, inside.memories.has_vectors())?;
        let found = inside.memories.search(&place, &question).await.map_err(refused)?;
        Ok(Response::new(pb::SearchResponse {
            hits: found.hits.into_iter().map(|hit| hit_message(&place, hit)).collect(),
            kind: kind_of(found.how).into(),
            items: found.coverage.items as u64,
            items_with_vectors: found.coverage.with_vectors as u64,
        }))
    }

    async fn list_memories(
        &self,
        request: Request<pb::ListMemoriesRequest>,
    ) -> Result<Response<pb::ListMemoriesResponse>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let after = match request.page_token.as_str() {
            "" => 0,
            token => {
                token.parse().map_err(|_| status::invalid("page_token", "not one that an answer carried"))?
            }
        };
        let most = page_size(request.page_size)? as usize;
        let place = inside.place(project, &request.scope).await?;
        let (items, more) = inside.memories.list(&place, after, most).await.map_err(refused)?;
        let next = items.last().filter(|_| more).map(|item| item.n.to_string()).unwrap_or_default();
        let items = items.into_iter().map(|item| message(&place, item)).collect();
        Ok(Response::new(pb::ListMemoriesResponse { items, next_page_token: next }))
    }

    async fn get_memory(
        &self,
        request: Request<pb::GetMemoryRequest>,
    ) -> Result<Response<pb::MemoryItem>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let place = inside.place(project, &request.scope).await?;
        let item = inside.memories.get(&place, &request.id).await.map_err(refused)?;
        Ok(Response::new(message(&place, item)))
    }

    async fn forget(
        &self,
        request: Request<pb::ForgetRequest>,
    ) -> Result<Response<pb::ForgetResponse>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let id = match (request.id.as_str(), request.all) {
            ("", true) => None,
            ("", false) => return Err(status::invalid("id", "say which item, or `all` for the whole scope")),
            (_, true) => return Err(status::invalid("all", "give an id or `all`, not both")),
            (id, false) => Some(id),
        };
        let place = inside.place(project, &request.scope).await?;
        let reason = Reason { author: author(&caller), reason: word(&request.reason)?, at_ms: now_ms() };
        let items = inside.memories.forget(&place, id, &reason).await.map_err(refused)?;
        Ok(Response::new(pb::ForgetResponse { items }))
    }
}

impl Membership {
    /// The scope, within the project that was checked: a scope of another one is refused, and whether it exists is not said.
    async fn place(&self, project: ProjectName, scope: &str) -> Result<Place, Status> {
        self.knows_what_is_gone().await?;
        let scope = match scope {
            "" => Scope::Project(project.clone()),
            text => Scope::parse(text).map_err(|error| status::invalid("scope", &error.to_string()))?,
        };
        let own = match &scope {
            Scope::Project(of) | Scope::Agent(of, _) => *of == project,
            Scope::Task(uid) => {
                let query = Query::TaskByUid { uid: *uid };
                match self.client.read(query).await.map_err(status::from_client)? {
                    Answer::Task(row) => row.is_some_and(|row| row.project == project),
                    _ => false,
                }
            }
        };
        match own {
            true => Ok(Place { project, scope }),
            false => Err(status::invalid("scope", &format!("{scope} is not in project {project}"))),
        }
    }
}

/// Records keep names of a bounded length.
fn author(caller: &Identity) -> String {
    let author = caller.author();
    author[..author.floor_char_boundary(limits::NAME_BYTES)].to_string()
}

/// The reason stays for good, so it says nothing about the item.
fn word(reason: &str) -> Result<String, Status> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match reason {
        "" => Ok(REASON.to_string()),
        word if word.len() <= 64 && word.chars().all(good) => Ok(word.to_string()),
        _ => Err(status::invalid(
            "reason",
            "one word of letters, digits, _ and -, at most 64: it is kept, so nothing about the item belongs there",
        )),
    }
}

fn question(request: pb::SearchRequest, kind: pb::SearchKind, has_vectors: bool) -> Result<Question, Status> {
    if request.query.trim().is_empty() {
        return Err(status::invalid("query", "is empty"));
    }
    let how = match kind {
        pb::SearchKind::Words => How::Words,
        pb::SearchKind::Vectors if !has_vectors => {
            return Err(status::error(
                Code::FailedPrecondition,
                "NO_ENCODER",
                "this node has no encoder, so it cannot compare meanings",
                "search by words, ask another node, or set [memory] encoder in this node's config",
            ));
        }
        pb::SearchKind::Vectors => How::Vectors,
        pb::SearchKind::Unspecified | pb::SearchKind::Both => How::Both,
    };
    let most = if request.k == 0 { HITS } else { (request.k as usize).min(memory_limits::HITS) };
    Ok(Question { text: request.query, how, tags: request.tags, most })
}

fn kind_of(how: How) -> pb::SearchKind {
    match how {
        How::Words => pb::SearchKind::Words,
        How::Vectors => pb::SearchKind::Vectors,
        How::Both => pb::SearchKind::Both,
    }
}

fn message(place: &Place, item: Item) -> pb::MemoryItem {
    pb::MemoryItem {
        id: item.id.to_string(),
        project: place.project.to_string(),
        scope: place.scope.to_string(),
        text: item.text,
        tags: item.tags,
        source: item.source,
        author: item.author,
        create_time_ms: item.at_ms,
        replaces: item.replaces.iter().map(|hash| hash.to_string()).collect(),
        summarised: item.summarised,
    }
}

fn hit_message(place: &Place, found: Found) -> pb::MemoryHit {
    pb::MemoryHit {
        item: Some(message(place, found.item)),
        score: found.hit.score,
        words_score: found.hit.words_score,
        cosine: found.hit.cosine,
        words: found.hit.words,
    }
}

fn refused(error: MemoryError) -> Status {
    let text = error.to_string();
    let (code, reason, next) = match error {
        MemoryError::Ledger(error) => return status::from_client(error),
        MemoryError::Refused(refusal) => return status::from_refusal(refusal),
        MemoryError::Invalid(_) | MemoryError::Ambiguous(_) => {
            (Code::InvalidArgument, "INVALID_ARGUMENT", "correct the field and send it again")
        }
        MemoryError::RequestReused(_) => (Code::InvalidArgument, "REQUEST_ID_REUSED", "use a new request id"),
        MemoryError::Absent { .. } => {
            (Code::NotFound, "NOT_FOUND", "`quorate memory list` shows what there is")
        }
        MemoryError::Forgotten => (Code::FailedPrecondition, "FORGOTTEN", "use a new request id"),
        MemoryError::Full(_) => (Code::FailedPrecondition, "MEMORY_FULL", "forget something first"),
        MemoryError::Busy => (Code::Unavailable, "MEMORY_BUSY", "repeat with the same request id"),
        MemoryError::Lost(_) => {
            (Code::Unavailable, "MEMORY_UNREADABLE", "check `quorate node list`, then repeat")
        }
        MemoryError::NotDurable(_) => (
            Code::Unavailable,
            "NOT_DURABLE",
            "check `quorate node list`, then repeat with the same request id",
        ),
        MemoryError::Encoder(_) => (Code::Internal, "ENCODER_FAILED", "search by words"),
        MemoryError::Damaged(_) => (Code::DataLoss, "MEMORY_DAMAGED", "report this with the node's log"),
    };
    status::error(code, reason, &text, next)
}
