//! Definitions of agents and teams.

use crate::client::{Client, request_id_or_fresh};
use crate::data::{Agent, Page};
use crate::error::{Code, Error};
use crate::retry::Kind;
use proto::v1;
use types::limits;

/// Agents and teams of the client's project.
#[derive(Clone, Copy, Debug)]
pub struct Agents<'a> {
    pub(crate) client: &'a Client,
}

/// A definition to be applied.
#[derive(Clone, Debug)]
#[must_use = "nothing is applied before `send`"]
pub struct ApplyAgent<'a> {
    client: &'a Client,
    message: v1::ApplyAgentRequest,
    request_id: Option<String>,
}

impl<'a> Agents<'a> {
    /// The TOML text of an agent or a team. The same text again changes nothing.
    pub fn apply(&self, toml: impl Into<String>) -> ApplyAgent<'a> {
        let message = v1::ApplyAgentRequest {
            project: self.client.project.clone(),
            toml: toml.into(),
            ..Default::default()
        };
        ApplyAgent { client: self.client, message, request_id: None }
    }

    pub async fn get(&self, name: &str) -> Result<Agent, Error> {
        let message = v1::GetAgentRequest { project: self.client.project.clone(), name: name.into() };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.agents().get_agent(via.request(message)).await }
        });
        Ok(call.await?.into())
    }

    /// The first page, or the one that a token leads to.
    pub async fn page(&self, token: Option<&str>) -> Result<Page<Agent>, Error> {
        let message = v1::ListAgentsRequest {
            project: self.client.project.clone(),
            page_size: 0,
            page_token: token.unwrap_or_default().into(),
        };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.agents().list_agents(via.request(message)).await }
        });
        let answer = call.await?;
        let next = Some(answer.next_page_token).filter(|token| !token.is_empty());
        Ok(Page { items: answer.agents.into_iter().map(Agent::from).collect(), next_page_token: next })
    }

    /// All of them, by name.
    pub async fn list(&self) -> Result<Vec<Agent>, Error> {
        let mut page = self.page(None).await?;
        let mut agents = std::mem::take(&mut page.items);
        while let Some(token) = page.next_page_token {
            page = self.page(Some(&token)).await?;
            agents.append(&mut page.items);
        }
        Ok(agents)
    }
}

impl ApplyAgent<'_> {
    /// Refused unless this is the etag in force.
    pub fn etag(mut self, etag: impl Into<String>) -> Self {
        self.message.etag = etag.into();
        self
    }

    /// Repeating with the same request id gives the first answer. A fresh one is made when not set.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    /// Check everything, change nothing.
    pub fn validate_only(mut self) -> Self {
        self.message.validate_only = true;
        self
    }

    /// Returns the revision in force when it is durable.
    pub async fn send(self) -> Result<Agent, Error> {
        let mut message = self.message;
        message.request_id = request_id_or_fresh(self.request_id)?;
        check(&message.toml)?;
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.agents().apply_agent(via.request(message)).await }
        });
        Ok(call.await?.into())
    }
}

fn check(toml: &str) -> Result<(), Error> {
    if toml.len() <= limits::SEGMENT_BYTES {
        return Ok(());
    }
    let message =
        format!("the definition is {} bytes; the limit is {} bytes", toml.len(), limits::SEGMENT_BYTES);
    Err(Error::local(
        Code::InvalidArgument,
        "REQUEST_TOO_LARGE",
        message,
        "give long texts as inputs of a task",
    ))
}
