//! `QuotaService`: limits by path, and what is used of them. Watching them is in `quota_watch`.

use super::agents::etag;
use super::tasks::{propose, short, some_id, unexpected};
use super::{Door, Membership, convert, identity, now_ms, quota_watch, status};
use ledger::command::{Command, RequestKey};
use ledger::keys::KEYS;
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::QuotaKey;
use proto::v1 as pb;
use proto::v1::quota_service_server::QuotaService;
use tonic::{Request, Response, Status};
use types::Hash;

#[tonic::async_trait]
impl QuotaService for Door {
    async fn set_quota(&self, request: Request<pb::SetQuotaRequest>) -> Result<Response<pb::Quota>, Status> {
        let author = identity(&request).subject;
        let inside = self.inside()?;
        let request = request.into_inner();
        let validate_only = request.validate_only;
        let cut = Cut::check(request)?;
        if validate_only {
            return inside.preview_quota(cut).await.map(Response::new);
        }
        match propose(inside, cut.command(author)).await? {
            Reply::Quota(row) => Ok(Response::new(convert::quota(&row, now_ms()))),
            other => Err(unexpected(&other)),
        }
    }

    async fn get_quota(&self, request: Request<pb::GetQuotaRequest>) -> Result<Response<pb::Quota>, Status> {
        let inside = self.inside()?;
        let path = request.into_inner().path;
        match inside.client.read(Query::Quota { path: path.clone() }).await.map_err(status::from_client)? {
            Answer::Quota(Some(row)) => Ok(Response::new(convert::quota(&row, now_ms()))),
            Answer::BadQuery(why) => Err(status::invalid("path", &why)),
            _ => Err(status::not_found("quota", &path, "quorate quota tree")),
        }
    }

    async fn list_quotas(
        &self,
        request: Request<pb::ListQuotasRequest>,
    ) -> Result<Response<pb::ListQuotasResponse>, Status> {
        let prefix = request.into_inner().prefix;
        match self.inside()?.client.read(Query::Quotas).await.map_err(status::from_client)? {
            Answer::Quotas(rows) => {
                let below = rows.iter().filter(|row| lies_below(&row.path, &prefix));
                let quotas = below.map(|row| convert::quota(row, now_ms())).collect();
                Ok(Response::new(pb::ListQuotasResponse { quotas }))
            }
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }

    type WatchQuotasStream = quota_watch::Events;

    async fn watch_quotas(
        &self,
        request: Request<pb::WatchQuotasRequest>,
    ) -> Result<Response<Self::WatchQuotasStream>, Status> {
        self.inside()?;
        let pb::WatchQuotasRequest { path, after_audit } = request.into_inner();
        short("path", &path)?;
        Ok(Response::new(quota_watch::stream(self.clone(), path, after_audit)))
    }
}

/// Whether a place is the one named or lies below it. Everything is below the cluster.
pub(crate) fn lies_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    above.is_empty()
        || above == "cluster"
        || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A checked change of limits.
struct Cut {
    path: String,
    changes: Vec<(QuotaKey, Option<u64>)>,
    etag: Option<u64>,
    reason: String,
    request_id: String,
}

impl Cut {
    fn check(request: pb::SetQuotaRequest) -> Result<Cut, Status> {
        short("path", &request.path)?;
        short("reason", &request.reason)?;
        short("request_id", &request.request_id)?;
        let changes: Vec<_> = request.changes.iter().map(change).collect::<Result<_, _>>()?;
        if changes.is_empty() {
            return Err(status::invalid("changes", "name at least one key, such as running=4"));
        }
        Ok(Cut {
            etag: etag(&request.etag)?,
            path: request.path,
            changes,
            reason: request.reason,
            request_id: request.request_id,
        })
    }

    fn command(self, author: String) -> Command {
        let said = format!("{:?}{:?}", self.changes, self.etag);
        let body = Hash::of_parts(&[self.path.as_bytes(), said.as_bytes()]);
        let request = RequestKey { author, request_id: some_id(self.request_id), body };
        let Cut { path, changes, etag, reason, .. } = self;
        Command::SetQuota { path, changes, etag, reason, request }
    }
}

fn change(change: &pb::LimitChange) -> Result<(QuotaKey, Option<u64>), Status> {
    Ok((quota_key("changes.key", &change.key)?, change.limit))
}

pub(crate) fn quota_key(field: &str, text: &str) -> Result<QuotaKey, Status> {
    QuotaKey::parse(text).ok_or_else(|| status::invalid(field, &format!("{text:?} is none of {KEYS}")))
}

impl Membership {
    async fn preview_quota(&self, cut: Cut) -> Result<pb::Quota, Status> {
        let Cut { path, changes, etag, reason, .. } = cut;
        let query = Query::PreviewQuota { path, changes, etag, reason };
        match self.client.read(query).await.map_err(status::from_client)? {
            Answer::Preview { row, paused } => Ok(pb::Quota {
                would_wait: paused.iter().map(ToString::to_string).collect(),
                ..convert::quota(&row, now_ms())
            }),
            Answer::Refused(refusal) => Err(status::from_refusal(refusal)),
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_below_whole_names_only() {
        assert!(lies_below("projects/a", "") && lies_below("projects/a", "cluster"));
        assert!(lies_below("projects/a", "projects/a") && lies_below("projects/a/agents/x", "projects/a"));
        assert!(!lies_below("projects/ab", "projects/a") && !lies_below("projects/a", "projects/a/b"));
    }

    #[test]
    fn what_cannot_be_a_change_is_refused_with_what_can() {
        let refused = |changes: &[&str]| {
            let changes = changes.iter().map(|key| pb::LimitChange { key: key.to_string(), limit: Some(1) });
            let request = pb::SetQuotaRequest {
                path: "cluster".into(),
                changes: changes.collect(),
                ..Default::default()
            };
            Cut::check(request).err().map(|status| status.message().to_string()).unwrap_or_default()
        };
        assert!(refused(&[]).contains("running=4"));
        assert!(refused(&["running", "colours"]).contains("\"colours\" is none of running"));
        assert_eq!(refused(&["running", "micro_usd_day", "connections:a.b"]), "");
    }
}
