//! What agents and people remember.

use crate::client::{Client, request_id_or_fresh};
use crate::data::{Found, Memory, Page, SearchKind};
use crate::error::Error;
use crate::retry::Kind;
use crate::wire::search_kind;
use proto::v1;

/// One scope of the client's project: the project's own, unless [`Memories::agent`], [`Memories::task`] or
/// [`Memories::scope`] says another.
#[derive(Clone, Debug)]
pub struct Memories<'a> {
    pub(crate) client: &'a Client,
    pub(crate) scope: String,
}

/// A text to be kept.
///
/// ```no_run
/// # async fn example(client: quorate_sdk::Client) -> Result<(), quorate_sdk::Error> {
/// client.memories().agent("reader").remember("The door is green.").tag("house").send().await?;
/// let found = client.memories().agent("reader").search("which colour has the door?").send().await?;
/// for hit in found.hits {
///     println!("{:.2} {}", hit.score, hit.item.text);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is kept before `send`"]
pub struct Remember<'a> {
    client: &'a Client,
    message: v1::RememberRequest,
    request_id: Option<String>,
}

/// A question to a scope.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked before `send`"]
pub struct Search<'a> {
    client: &'a Client,
    message: v1::SearchRequest,
}

impl<'a> Memories<'a> {
    /// What one agent remembers over all its tasks.
    pub fn agent(self, name: &str) -> Self {
        let scope = format!("projects/{}/agents/{name}", self.client.project);
        Memories { scope, ..self }
    }

    /// What belongs to one task tree, by the uid of its root.
    pub fn task(self, uid: &str) -> Self {
        Memories { scope: format!("tasks/{uid}"), ..self }
    }

    /// As the API has it: `projects/NAME`, `projects/NAME/agents/NAME`, `tasks/ID`.
    pub fn scope(self, scope: impl Into<String>) -> Self {
        Memories { scope: scope.into(), ..self }
    }

    pub fn remember(&self, text: impl Into<String>) -> Remember<'a> {
        let (project, scope) = (self.client.project.clone(), self.scope.clone());
        let message = v1::RememberRequest { project, scope, text: text.into(), ..Default::default() };
        Remember { client: self.client, message, request_id: None }
    }

    pub fn search(&self, query: impl Into<String>) -> Search<'a> {
        let (project, scope) = (self.client.project.clone(), self.scope.clone());
        let message = v1::SearchRequest { project, scope, query: query.into(), ..Default::default() };
        Search { client: self.client, message }
    }

    /// Everything in the scope, oldest first: the first page, or the one that a token leads to.
    pub async fn page(&self, token: Option<&str>) -> Result<Page<Memory>, Error> {
        let message = v1::ListMemoriesRequest {
            project: self.client.project.clone(),
            scope: self.scope.clone(),
            page_size: 0,
            page_token: token.unwrap_or_default().into(),
        };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.memories().list_memories(via.request(message)).await }
        });
        let answer = call.await?;
        let next = Some(answer.next_page_token).filter(|token| !token.is_empty());
        Ok(Page { items: answer.items.into_iter().map(Memory::from).collect(), next_page_token: next })
    }

    /// One item, by its id or the beginning of it.
    pub async fn get(&self, id: &str) -> Result<Memory, Error> {
        let (project, scope) = (self.client.project.clone(), self.scope.clone());
        let message = v1::GetMemoryRequest { project, scope, id: id.into() };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.memories().get_memory(via.request(message)).await }
        });
        Ok(call.await?.into())
    }

    /// Erases one item, with every summary that was made from it, on every node and for good. `reason` is one word for
    /// the record, or empty. Answers how many items are gone.
    pub async fn forget(&self, id: &str, reason: &str) -> Result<u64, Error> {
        self.erase(v1::ForgetRequest { id: id.into(), reason: reason.into(), ..Default::default() }).await
    }

    /// Erases everything in the scope.
    pub async fn forget_all(&self, reason: &str) -> Result<u64, Error> {
        self.erase(v1::ForgetRequest { all: true, reason: reason.into(), ..Default::default() }).await
    }

    async fn erase(&self, message: v1::ForgetRequest) -> Result<u64, Error> {
        let (project, scope) = (self.client.project.clone(), self.scope.clone());
        let message = v1::ForgetRequest { project, scope, ..message };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.memories().forget(via.request(message)).await }
        });
        Ok(call.await?.items)
    }
}

impl Remember<'_> {
    /// A word to find and to filter it by; 16 at most.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.message.tags.push(tag.into());
        self
    }

    /// Where it comes from.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.message.source = source.into();
        self
    }

    /// Repeating with the same request id adds nothing. A fresh one is made when not set.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    pub async fn send(self) -> Result<Memory, Error> {
        let mut message = self.message;
        message.request_id = request_id_or_fresh(self.request_id)?;
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.memories().remember(via.request(message)).await }
        });
        Ok(call.await?.into())
    }
}

impl Search<'_> {
    /// Hits wanted, at most 100; 5 when not set.
    pub fn most(mut self, hits: u32) -> Self {
        self.message.k = hits;
        self
    }

    /// By words, by meaning or by both, the default where the node can.
    pub fn kind(mut self, kind: SearchKind) -> Self {
        self.message.kind = search_kind(kind).into();
        self
    }

    /// Every hit has it.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.message.tags.push(tag.into());
        self
    }

    pub async fn send(self) -> Result<Found, Error> {
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = self.message.clone();
            async move { via.memories().search(via.request(message)).await }
        });
        Ok(call.await?.into())
    }
}
