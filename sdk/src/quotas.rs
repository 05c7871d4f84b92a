//! Limits: read, change, follow. A change holds on every reachable node at once.

mod watch;

pub use watch::QuotaWatch;

use crate::client::{Client, request_id_or_fresh};
use crate::data::Quota;
use crate::error::Error;
use crate::retry::Kind;
use proto::v1;

/// The quota tree of the cluster. Paths: `cluster`, `projects/NAME`, `projects/NAME/agents/NAME`, `tasks/ID`.
#[derive(Clone, Copy, Debug)]
pub struct Quotas<'a> {
    pub(crate) client: &'a Client,
}

/// A change of limits.
///
/// ```no_run
/// # async fn example(client: quorate_sdk::Client) -> Result<(), quorate_sdk::Error> {
/// client.quotas().set("projects/default").limit("running", Some(4)).reason("night shift").send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is changed before `send`"]
pub struct SetQuota<'a> {
    client: &'a Client,
    message: v1::SetQuotaRequest,
    request_id: Option<String>,
}

impl<'a> Quotas<'a> {
    pub async fn get(&self, path: &str) -> Result<Quota, Error> {
        let message = v1::GetQuotaRequest { path: path.into() };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.quotas().get_quota(via.request(message)).await }
        });
        Ok(call.await?.into())
    }

    /// Every place with limits or use.
    pub async fn list(&self) -> Result<Vec<Quota>, Error> {
        self.list_below("").await
    }

    /// A place and those below it, as far as they have limits or use.
    pub async fn list_below(&self, path: &str) -> Result<Vec<Quota>, Error> {
        let message = v1::ListQuotasRequest { prefix: path.into() };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.quotas().list_quotas(via.request(message)).await }
        });
        Ok(call.await?.quotas.into_iter().map(Quota::from).collect())
    }

    /// Changes only the keys that are named.
    pub fn set(&self, path: &str) -> SetQuota<'a> {
        let message = v1::SetQuotaRequest { path: path.into(), ..Default::default() };
        SetQuota { client: self.client, message, request_id: None }
    }

    /// A place and those below it, now and whenever they change, with what the audit log says of them from now on.
    pub fn watch(&self, path: &str) -> QuotaWatch {
        QuotaWatch::new(self.client.clone(), path)
    }
}

impl SetQuota<'_> {
    /// None takes the limit away.
    pub fn limit(mut self, key: impl Into<String>, limit: Option<u64>) -> Self {
        self.message.changes.push(v1::LimitChange { key: key.into(), limit });
        self
    }

    /// Why, for whoever reads it later.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.message.reason = reason.into();
        self
    }

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

    /// Check everything, change nothing: the answer is the place as it would be, and says who would wait.
    pub fn validate_only(mut self) -> Self {
        self.message.validate_only = true;
        self
    }

    /// Returns the limits in force when the change is durable.
    pub async fn send(self) -> Result<Quota, Error> {
        let mut message = self.message;
        message.request_id = request_id_or_fresh(self.request_id)?;
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.quotas().set_quota(via.request(message)).await }
        });
        Ok(call.await?.into())
    }
}
