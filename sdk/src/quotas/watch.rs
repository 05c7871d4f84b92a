//! Following the quota tree over connections that break: opened again elsewhere, nothing is told twice.

use crate::client::{Client, Via, elapsed_ms, failure_of, random};
use crate::data::{Quota, QuotaEvent};
use crate::error::{Code, Error};
use crate::retry::{Failure, Next};
use crate::tasks::Trouble;
use proto::v1;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

/// A part of the tree being followed. Has no end.
///
/// ```no_run
/// # async fn example(client: quorate_sdk::Client) -> Result<(), quorate_sdk::Error> {
/// let mut watch = client.quotas().watch("projects/research");
/// loop {
///     println!("{:?}", watch.next().await?);
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct QuotaWatch {
    client: Client,
    path: String,
    after_audit: u64,
    /// Every place as it was told last.
    told: BTreeMap<String, Quota>,
    stream: Option<(usize, Streaming<v1::QuotaEvent>)>,
    trouble: Trouble,
}

impl QuotaWatch {
    pub(super) fn new(client: Client, path: &str) -> QuotaWatch {
        let trouble = Trouble::new(&client, false);
        QuotaWatch { client, path: path.into(), after_audit: 0, told: BTreeMap::new(), stream: None, trouble }
    }

    /// Audit events after this number, instead of those from now on.
    pub fn after_audit(mut self, number: u64) -> Self {
        self.after_audit = number;
        self
    }

    /// The next change. May be dropped and called again.
    ///
    /// # Errors
    /// What the cluster refuses, or `UNAVAILABLE` when no node could be heard for a long time.
    pub async fn next(&mut self) -> Result<QuotaEvent, Error> {
        loop {
            match self.receive().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err((node, failure, error)) => self.recover(node, failure, error).await?,
            }
        }
    }

    /// None: what came was known already.
    async fn receive(&mut self) -> Result<Option<QuotaEvent>, (usize, Failure, Error)> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        let Some((node, events)) = self.stream.as_mut() else { return Ok(None) };
        let node = *node;
        match events.message().await {
            Ok(Some(message)) => {
                self.trouble = Trouble::new(&self.client, true);
                Ok(self.take(message))
            }
            Ok(None) => Err((node, Failure::Busy { retry_after_ms: None }, silent())),
            Err(status) => {
                let (failure, error) = failure_of(&status);
                Err((node, failure, error))
            }
        }
    }

    fn take(&mut self, message: v1::QuotaEvent) -> Option<QuotaEvent> {
        match message.kind? {
            v1::quota_event::Kind::Quota(quota) => {
                let quota = Quota::from(quota);
                let known = self.told.insert(quota.path.clone(), quota.clone());
                (known.as_ref() != Some(&quota)).then_some(QuotaEvent::Quota(quota))
            }
            v1::quota_event::Kind::Audit(event) => {
                let is_new = event.number > self.after_audit;
                self.after_audit = self.after_audit.max(event.number);
                is_new.then(|| QuotaEvent::Audit(event.into()))
            }
        }
    }

    async fn open(&self) -> Result<(usize, Streaming<v1::QuotaEvent>), (usize, Failure, Error)> {
        let (node, channel) = self.client.endpoints.pick();
        let patience = Duration::from_millis(self.client.policy.attempt_ms);
        let message = v1::WatchQuotasRequest { path: self.path.clone(), after_audit: self.after_audit };
        match timeout(patience, Via::new(channel, patience).quotas().watch_quotas(message)).await {
            Ok(Ok(answer)) => Ok((node, answer.into_inner())),
            Ok(Err(status)) => {
                let (failure, error) = failure_of(&status);
                Err((node, failure, error))
            }
            Err(_) => Err((node, Failure::Lost, silent())),
        }
    }

    /// Waits before the next node is asked, or gives up.
    async fn recover(&mut self, node: usize, failure: Failure, error: Error) -> Result<(), Error> {
        self.stream = None;
        self.client.endpoints.failed_if(failure, node);
        let since = *self.trouble.since.get_or_insert_with(Instant::now);
        match self.trouble.attempts.on_failure(failure, elapsed_ms(since), random()?) {
            Next::AskAgain { wait_ms } => {
                sleep(Duration::from_millis(wait_ms)).await;
                Ok(())
            }
            Next::GiveUp => {
                let sent = self.trouble.attempts.sent();
                self.trouble = Trouble::new(&self.client, sent);
                Err(self.client.verdict((failure, error), sent, node))
            }
        }
    }
}

fn silent() -> Error {
    let next = "watch again: every place is told as it is then";
    Error::local(Code::Unavailable, "UNAVAILABLE", "the node stopped answering", next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_not_told_again() {
        let client = Client::connect(&["127.0.0.1:1"]).unwrap();
        let mut watch = QuotaWatch::new(client, "cluster").after_audit(4);
        let quota = |etag: &str| v1::QuotaEvent {
            kind: Some(v1::quota_event::Kind::Quota(v1::Quota {
                path: "cluster".into(),
                etag: etag.into(),
                ..Default::default()
            })),
        };
        let audit = |number| v1::QuotaEvent {
            kind: Some(v1::quota_event::Kind::Audit(v1::AuditEvent { number, ..Default::default() })),
        };
        assert!(watch.take(quota("1")).is_some() && watch.take(quota("1")).is_none());
        assert!(watch.take(quota("2")).is_some());
        assert!(
            watch.take(audit(4)).is_none()
                && watch.take(audit(5)).is_some()
                && watch.take(audit(5)).is_none()
        );
        assert!(watch.take(v1::QuotaEvent { kind: None }).is_none(), "a newer cluster may say more");
    }
}
